//! A replica that is stopped in the middle of a turn and wakes when the other has finished it: it writes nothing more.

use std::time::Duration;

use futures::StreamExt as _;
use llama_stack_core::Context;
use llama_stack_proto::v1::{TurnEvent, WatchTurnRequest, turn_event::Event};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::{Faults, PATIENCE, Place, Size, load::output_text, model::MODEL};
use crate::{Verdict, crash::lives::Up};

/// What a process says in its log when it learns that it has been overtaken.
const OVERTAKEN: &str = "it is another process's now";

pub(super) async fn run(place: &Place, size: Size) -> Verdict {
    let faults = Faults::default();
    let mut slowest = Duration::ZERO;
    for round in 0..size.zombies as usize {
        place.model.shut();
        let (zombie, other) = (round % 2, 1 - round % 2);
        let (stopped, at) = place.start(zombie).await;
        let (living, up) = place.start(other).await;
        let (at, up) = (Up::new(0, at), Up::new(0, up));
        let http = Client::new();
        let told = place.log(zombie).matches(OVERTAKEN).count();

        let body = json!({ "model": MODEL, "input": "gate", "background": true });
        let begun: Value = json_of(http.post(format!("http://{}/v1/responses", at.address)).json(&body).send().await.unwrap()).await;
        let id = begun["id"].as_str().unwrap_or_else(|| panic!("{begun}")).to_owned();
        timeout(PATIENCE, place.model.asked(1)).await.expect("the turn did not begin");
        stopped.signal("STOP");
        let since = Instant::now();
        timeout(PATIENCE, place.model.asked(2)).await.expect("nobody took the turn over");
        slowest = slowest.max(since.elapsed());
        // Both are answered: the zombie's lies in its socket until it wakes.
        place.model.open();
        let ended = until_ended(&http, &up, &id).await;
        if (ended["status"].as_str(), output_text(&ended).as_str()) != (Some("completed"), "answer 2") {
            faults.add(format!("the other ended the turn as {ended}"));
        }
        let before = journal(&up, &id).await;

        stopped.signal("CONT");
        let overtaken = async {
            while place.log(zombie).matches(OVERTAKEN).count() == told {
                sleep(Duration::from_millis(20)).await;
            }
        };
        if timeout(PATIENCE, overtaken).await.is_err() {
            faults.add("the zombie never learned that it had been overtaken".into());
        }
        // Whatever it is asked now, it says what the other wrote.
        let seen = until_ended(&http, &at, &id).await;
        if output_text(&seen) != "answer 2" {
            faults.add(format!("the zombie shows {seen}"));
        }
        for (who, after) in [("the other", journal(&up, &id).await), ("the zombie", journal(&at, &id).await)] {
            if after != before {
                faults.add(format!("the journal changed after the turn's end, as {who} sees it: {after:?}, before {before:?}"));
            }
        }
        if before.iter().filter(|event| matches!(event.event, Some(Event::Ended(_)))).count() != 1 {
            faults.add(format!("the turn did not end once: {before:?}"));
        }
        stopped.kill().await;
        living.kill().await;
    }
    let failed = faults.show();
    println!("{:<44} {:>12}", "slowest to be taken over, s (lease 3 s)", format!("{:.1}", slowest.as_secs_f64()));
    Verdict { line: format!("{} zombies, {failed} faults", size.zombies), holds: failed == 0 }
}

async fn json_of(answer: Response) -> Value {
    answer.json().await.unwrap()
}

async fn until_ended(http: &Client, up: &Up, id: &str) -> Value {
    let ended = async {
        loop {
            let response = json_of(http.get(format!("http://{}/v1/responses/{id}", up.address)).send().await.unwrap()).await;
            if !matches!(response["status"].as_str(), Some("in_progress" | "queued")) {
                return response;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, ended).await.expect("the turn did not end")
}

/// The whole journal of a turn that has ended.
async fn journal(up: &Up, id: &str) -> Vec<TurnEvent> {
    let request = WatchTurnRequest { turn_id: id.replacen("resp_", "turn_", 1), after_sequence: 0 };
    let events = up.agents.watch_turn(&Context::default(), request).await.unwrap();
    let events: Vec<_> = timeout(PATIENCE, events.collect()).await.expect("the journal has no end");
    events.into_iter().map(Result::unwrap).collect()
}
