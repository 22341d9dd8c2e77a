//! A server that is killed with many turns open, and how soon all of them go on in the next.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, future::join_all};
use llama_stack_core::Context;
use llama_stack_proto::v1::{WatchTurnRequest, turn_event::Event};
use llama_stack_tests::served;

use super::ended_well;
use crate::{
    binary::{self, Site},
    crash::{
        ledger::{Ledger, Works},
        lives::Up,
        manifest,
        model::Model,
        plan::Plan,
        turns::request,
    },
};

/// Streams on one connection.
const STREAMS: usize = 250;

/// From ready until every one of `turns` has asked the model again.
pub(super) async fn run(turns: usize) -> Duration {
    let works = Works { ledger: Arc::new(Ledger::default()), slowest: Duration::ZERO };
    let tools = served::tools(Arc::new(works)).await;
    let model = Model::start().await;
    let site = Site::new(&binary::path(), &manifest(model.address, &tools.url, None, "power"));

    model.hold();
    let mut process = site.spawn(&[]);
    let address = process.ready().await.expect("the server ended before it was ready");
    let ups: Vec<Up> = (0..turns.div_ceil(STREAMS)).map(|_| Up::new(0, address)).collect();
    let begun = join_all((0..turns).map(|n| {
        let agents = ups[n / STREAMS].agents.clone();
        async move {
            let plan = Plan::parse(&format!("turn {} plan r", n + 1)).unwrap();
            let mut events = agents.create_turn(&Context::default(), request(&plan, &plan.to_string(), String::new())).await.unwrap();
            let created = events.next().await.unwrap().unwrap();
            // The stream stays open, as a client's would.
            (created.turn_id, events)
        }
    }))
    .await;
    model.asked_by(turns).await;
    process.kill().await;

    model.forget_who_asked();
    let mut process = site.spawn(&[]);
    let address = process.ready().await.expect("the server ended before it was ready");
    let ready = Instant::now();
    model.asked_by(turns).await;
    let resumed = ready.elapsed();

    // They are the same turns, and they come to their ends.
    model.release();
    let ups: Vec<Up> = (0..turns.div_ceil(STREAMS)).map(|_| Up::new(1, address)).collect();
    join_all(begun.into_iter().enumerate().map(|(n, (turn_id, _))| {
        let agents = ups[n / STREAMS].agents.clone();
        async move {
            let request = WatchTurnRequest { turn_id, after_sequence: 0 };
            let mut events = agents.watch_turn(&Context::default(), request).await.unwrap();
            let mut last: Option<Event> = None;
            while let Some(event) = events.next().await {
                last = event.unwrap().event;
            }
            ended_well(last);
        }
    }))
    .await;
    process.kill().await;
    resumed
}
