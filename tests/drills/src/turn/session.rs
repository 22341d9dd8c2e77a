//! A session that has grown long: how soon it is open, and what its next turn costs.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use llama_stack_core::{Agents, Context};
use llama_stack_proto::v1::{AgentConfig, CreateTurnRequest, GetSessionRequest, HistoryTruncation, ListTurnsRequest};
use llama_stack_tests::served;

use super::ended_well;
use crate::{
    binary::{self, Site},
    crash::{
        ledger::{Ledger, Works},
        lives::Up,
        manifest,
        model::{MODEL, Model},
        plan::Plan,
        turns::request,
    },
    figures::{Times, millis},
};

/// What the model has room for, in tokens: a history that fits it costs what it costs, whatever lies before it.
const ROOM: u32 = 4_096;
/// Of the newest turns, as a page shows them.
const PAGE: u32 = 20;

pub(super) struct Figures {
    /// The session and its newest turns, from a server that has just started.
    pub(super) cold: Duration,
    pub(super) open: Times,
    /// Of a turn, in milliseconds: once the model's room is full, and at the end.
    pub(super) early: f64,
    pub(super) late: f64,
}

/// Writes a session of so many turns, one after the other, and opens it again.
pub(super) async fn run(turns: usize) -> Figures {
    let works = Works { ledger: Arc::new(Ledger::default()), slowest: Duration::ZERO };
    let tools = served::tools(Arc::new(works)).await;
    let model = Model::start().await;
    let bounded = format!("models: [{{ id: {MODEL}, context_length: {ROOM} }}]");
    let text = manifest(model.address, &tools.url, None, "process").replace(&format!("models: [{MODEL}]"), &bounded);
    let site = Site::new(&binary::path(), &text);
    let mut process = site.spawn(&[]);
    let up = Up::new(0, process.ready().await.expect("the server ended before it was ready"));
    let (mut session, mut times) = (String::new(), Vec::with_capacity(turns));
    for n in 0..turns {
        let begun = Instant::now();
        session = turn(up.agents.as_ref(), n, session).await;
        times.push(begun.elapsed());
    }
    process.kill().await;

    let mut process = site.spawn(&[]);
    let up = Up::new(1, process.ready().await.expect("the server ended before it was ready"));
    let cold = open(up.agents.as_ref(), &session).await;
    let mut opened = Vec::new();
    for _ in 0..200 {
        opened.push(open(up.agents.as_ref(), &session).await);
    }
    process.kill().await;
    let tenth = (turns / 10).max(1);
    let p50 = |part: &[Duration]| millis(Times::new(part.to_vec()).p50());
    Figures { cold, open: Times::new(opened), early: p50(&times[tenth..2 * tenth]), late: p50(&times[turns - tenth..]) }
}

/// Runs one turn; its session's id.
async fn turn(agents: &dyn Agents, number: usize, session: String) -> String {
    let plan = Plan::parse(&format!("turn {} plan r", number + 1)).unwrap();
    let mut asked: CreateTurnRequest = request(&plan, &plan.to_string(), session);
    asked.config = asked.config.map(|config| AgentConfig { truncation: HistoryTruncation::Auto.into(), ..config });
    let mut events = agents.create_turn(&Context::default(), asked).await.unwrap();
    let (mut last, mut session) = (None, String::new());
    while let Some(event) = events.next().await {
        let event = event.unwrap();
        if let Some(llama_stack_proto::v1::turn_event::Event::Ended(turn)) = &event.event {
            session.clone_from(&turn.session_id);
        }
        last = event.event;
    }
    ended_well(last);
    session
}

async fn open(agents: &dyn Agents, session: &str) -> Duration {
    let cx = Context::default();
    let begun = Instant::now();
    agents.get_session(&cx, GetSessionRequest { id: session.to_owned() }).await.unwrap();
    let request = ListTurnsRequest { session_id: session.to_owned(), page_size: PAGE, newest_first: true, ..ListTurnsRequest::default() };
    let page = agents.list_turns(&cx, request).await.unwrap();
    assert_eq!(page.turns.len(), PAGE as usize);
    begun.elapsed()
}
