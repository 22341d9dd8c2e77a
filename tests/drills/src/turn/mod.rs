//! What a turn costs beyond its model and its tools: three tool calls, one after the other, through the real binary, with
//! a model and a tool that answer at once. Beside it the same turn in a graph framework that keeps checkpoints.

mod peer;
mod resume;
mod session;

use std::{sync::Arc, time::Instant};

use futures::{StreamExt as _, future::join_all};
use llama_stack_core::{Agents, Context, manifest::Durability};
use llama_stack_proto::v1::{Turn, TurnStatus, turn_event::Event};
use llama_stack_tests::served;

use crate::{
    Verdict,
    binary::{self, Site},
    crash::{
        ledger::{Ledger, Works},
        lives::Up,
        manifest,
        model::Model,
        plan::Plan,
        turns::request,
    },
    figures::{median, millis},
};

/// Three calls, one after the other.
const PLAN: &str = "r;r;r";
/// Four inferences and three calls.
const STEPS: f64 = 7.0;

#[derive(Clone, Copy)]
struct Load {
    /// Turns one after the other.
    alone: usize,
    /// Sessions at once, and turns in each.
    sessions: usize,
    each: usize,
}

#[derive(Clone, Copy)]
struct Figures {
    /// Milliseconds, the middle one.
    turn: f64,
    /// Turns, with all sessions at once.
    per_second: f64,
}

impl Figures {
    fn step(self) -> f64 {
        self.turn / STEPS
    }
}

pub(crate) async fn run(long: bool) -> Verdict {
    let load = if long { Load { alone: 1_000, sessions: 64, each: 40 } } else { Load { alone: 150, sessions: 64, each: 6 } };
    let python = peer::install();
    println!("{:<10} {:>14} {:>14} {:>18} {:>18}", "", "ours ms/step", "LangGraph", "ours, turns/s", "LangGraph");
    let mut rows = Vec::new();
    for (name, durability) in [("power", Durability::Power), ("process", Durability::Process)] {
        let (ours, theirs) = (ours(name, load).await, peer::run(&python, durability, load));
        println!("{name:<10} {:>14.2} {:>14.2} {:>18.0} {:>18.0}", ours.step(), theirs.step(), ours.per_second, theirs.per_second);
        rows.push((ours, theirs));
    }
    let ((power, peer), (process, peer_process)) = (rows[0], rows[1]);
    let resumed = resume::run(1_000).await;
    println!("1,000 open turns: {:.2} s from ready until the last has asked the model again", resumed.as_secs_f64());
    let turns = if long { 10_000 } else { 1_000 };
    let session = session::run(turns).await;
    let (open, cold) = (millis(session.open.p99()), millis(session.cold));
    println!("a session of {turns} turns: open p50 {:.1} ms, p99 {open:.1} ms, after a restart {cold:.1} ms", millis(session.open.p50()));
    println!("its turns: {:.2} ms in its second tenth, {:.2} ms in its last", session.early, session.late);
    Verdict {
        line: format!(
            "turn: power {:.2} ms/step, LangGraph {:.2}, ratio {:.2}; process {:.2} ms/step, LangGraph {:.2}, ratio {:.2}; \
             64 sessions {:.0} turns/s, LangGraph {:.0}, ratio {:.1}; 1,000 open turns resumed in {:.2} s; \
             {turns} turns open in {open:.1} ms, turns {:.2} ms early and {:.2} ms late",
            power.step(),
            peer.step(),
            power.turn / peer.turn,
            process.step(),
            peer_process.step(),
            process.turn / peer_process.turn,
            power.per_second,
            peer.per_second,
            power.per_second / peer.per_second,
            resumed.as_secs_f64(),
            session.early,
            session.late
        ),
        holds: power.step() <= 5.0
            && process.step() <= 1.0
            && resumed.as_secs_f64() <= 1.0
            && open.max(cold) <= 50.0
            && session.late <= 1.5 * session.early,
    }
}

async fn ours(durability: &str, load: Load) -> Figures {
    let works = Works { ledger: Arc::new(Ledger::default()), slowest: std::time::Duration::ZERO };
    let tools = served::tools(Arc::new(works)).await;
    let model = Model::start().await;
    let site = Site::new(&binary::path(), &manifest(model.address, &tools.url, None, durability));
    let mut process = site.spawn(&[]);
    let up = Up::new(0, process.ready().await.expect("the server ended before it was ready"));
    let agents = up.agents.as_ref();
    for n in 0..10 {
        turn(agents, n).await;
    }
    let mut times = Vec::new();
    for n in 0..load.alone {
        let begun = Instant::now();
        turn(agents, 1_000 + n).await;
        times.push(millis(begun.elapsed()));
    }
    let begun = Instant::now();
    join_all((0..load.sessions).map(|session| async move {
        for n in 0..load.each {
            turn(agents, 100_000 * (session + 1) + n).await;
        }
    }))
    .await;
    let per_second = (load.sessions * load.each) as f64 / begun.elapsed().as_secs_f64();
    process.kill().await;
    Figures { turn: median(times), per_second }
}

/// One turn in a session of its own, from its request to the end of its stream.
async fn turn(agents: &dyn Agents, number: usize) {
    let plan = Plan::parse(&format!("turn {number} plan {PLAN}")).unwrap();
    let mut events = agents.create_turn(&Context::default(), request(&plan, &plan.to_string(), String::new())).await.unwrap();
    let mut last = None;
    while let Some(event) = events.next().await {
        last = event.unwrap().event;
    }
    ended_well(last);
}

fn ended_well(last: Option<Event>) {
    let Some(Event::Ended(turn)) = last else { panic!("the stream ended before the turn: {last:?}") };
    let Turn { status, error, .. } = *turn;
    assert_eq!(status, TurnStatus::Completed as i32, "{error:?}");
}
