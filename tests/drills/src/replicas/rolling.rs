//! Restarts under load: nobody's request fails.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    Faults, PATIENCE, Place, Size,
    balancer::Balancer,
    load::{events, output_text},
    model::{MODEL, counted},
};
use crate::Verdict;

/// Longest answer, in words: some are under way whenever a replica is told to end.
const WORDS: usize = 60;

#[derive(Default)]
struct Field {
    balancer: Arc<Balancer>,
    faults: Faults,
    requests: AtomicUsize,
    over: AtomicBool,
}

pub(super) async fn run(place: &Place, size: Size) -> Verdict {
    let field = Arc::new(Field::default());
    let _asking = field.balancer.begin();
    let mut replicas = [Some(place.start(0).await), Some(place.start(1).await)];
    replicas.iter().flatten().for_each(|(_, address)| field.balancer.add(*address));
    let mut clients = JoinSet::new();
    for number in 0..size.clients {
        clients.spawn(client(field.clone(), number as usize));
    }
    let mut slowest = Duration::ZERO;
    for _ in 0..size.restarts {
        for (site, replica) in replicas.iter_mut().enumerate() {
            // Each has work to do before it is told to end.
            let before = field.requests.load(Ordering::Relaxed);
            tokio::time::timeout(PATIENCE, field.have_done(before + 2 * size.clients as usize)).await.expect("the load stands still");
            let Some((mut process, address)) = replica.take() else { continue };
            let begun = Instant::now();
            process.signal("TERM");
            match process.ends_within(PATIENCE).await {
                Some(status) if status.success() => {}
                other => field.faults.add(format!("a replica that was told to end ended as {other:?}")),
            }
            slowest = slowest.max(begun.elapsed());
            field.balancer.remove(address);
            let started = place.start(site).await;
            field.balancer.add(started.1);
            *replica = Some(started);
        }
    }
    field.over.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    let (failed, requests) = (field.faults.show(), field.requests.load(Ordering::Relaxed));
    println!("{:<44} {:>12}", "slowest replica to end, s", format!("{:.1}", slowest.as_secs_f64()));
    println!("{:<44} {:>12}", "connections refused, and given to the other", field.balancer.refused.load(Ordering::Relaxed));
    let restarts = 2 * size.restarts;
    Verdict { line: format!("{restarts} restarts under {requests} requests, {failed} failed"), holds: failed == 0 }
}

impl Field {
    async fn have_done(&self, requests: usize) {
        while self.requests.load(Ordering::Relaxed) < requests {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// One request after the other: a streamed chat, a whole one, a streamed Response.
async fn client(field: Arc<Field>, mut number: usize) {
    while !field.over.load(Ordering::Relaxed) {
        let words = 1 + number * 7 % WORDS;
        let done = match number % 3 {
            0 => chat(&field.balancer, words, true).await,
            1 => chat(&field.balancer, words, false).await,
            _ => response(&field.balancer, words).await,
        };
        if let Err(what) = done {
            field.faults.add(what);
        }
        field.requests.fetch_add(1, Ordering::Relaxed);
        number += 1;
    }
}

async fn chat(balancer: &Balancer, words: usize, stream: bool) -> Result<(), String> {
    let body = json!({ "model": MODEL, "messages": [{ "role": "user", "content": format!("count {words}") }], "stream": stream });
    let answer = balancer.send(Method::POST, "/v1/chat/completions", "", Some(&body)).await;
    let answer = answer.map_err(|error| format!("a chat was cut off: {error:?}"))?;
    let status = answer.status();
    if !status.is_success() {
        return Err(format!("a chat was answered {status}: {}", answer.text().await.unwrap_or_default()));
    }
    let said: String = if stream {
        let (events, done) = events(answer).await?;
        if !done {
            return Err(format!("a chat ended without its end: {:?}", events.last()));
        }
        events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect()
    } else {
        let body: Value = answer.json().await.map_err(|error| format!("a whole chat was cut off: {error:?}"))?;
        body["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned()
    };
    if said == counted(words) { Ok(()) } else { Err(format!("a chat of {words} words said {said:?}")) }
}

async fn response(balancer: &Balancer, words: usize) -> Result<(), String> {
    let body = json!({ "model": MODEL, "input": format!("count {words}"), "stream": true });
    let answer = balancer.send(Method::POST, "/v1/responses", "", Some(&body)).await;
    let answer = answer.map_err(|error| format!("a response was cut off: {error:?}"))?;
    let status = answer.status();
    if !status.is_success() {
        return Err(format!("a response was answered {status}: {}", answer.text().await.unwrap_or_default()));
    }
    let (events, _) = events(answer).await?;
    let last = events.last().cloned().unwrap_or_default();
    if last["type"] != "response.completed" || output_text(&last["response"]) != counted(words) {
        return Err(format!("a response of {words} words ended as {last}"));
    }
    Ok(())
}
