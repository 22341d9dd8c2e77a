//! Postgres is restarted under load: requests wait or are told to come back, and nothing that was acknowledged is lost.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::{Method, Response};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    Faults, PATIENCE, Place, Size,
    balancer::Balancer,
    load::{events, output_text},
    model::{MODEL, counted},
};
use crate::Verdict;

/// How long the database is away.
const AWAY: Duration = Duration::from_millis(1_500);

#[derive(Default)]
struct Field {
    balancer: Arc<Balancer>,
    faults: Faults,
    /// Responses that clients were told of, with their number of words.
    acknowledged: Mutex<BTreeMap<String, usize>>,
    completed: AtomicUsize,
    /// Answers that said "not now", and when to come back.
    refused: AtomicUsize,
    over: AtomicBool,
}

pub(super) async fn run(place: &Place, size: Size) -> Verdict {
    let field = Arc::new(Field::default());
    let _asking = field.balancer.begin();
    let replicas = [place.start(0).await, place.start(1).await];
    replicas.iter().for_each(|(_, address)| field.balancer.add(*address));
    let mut clients = JoinSet::new();
    for client in 0..size.clients {
        clients.spawn(self::client(field.clone(), client));
    }
    for _ in 0..size.outages {
        field.have_completed(2 * size.clients as usize).await;
        place.server.stop().unwrap();
        sleep(AWAY).await;
        place.server.start_again().unwrap();
        field.have_completed(2 * size.clients as usize).await;
    }
    field.over.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    let acknowledged = field.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut lost = 0;
    for (id, words) in &acknowledged {
        if let Err(what) = timeout(PATIENCE, field.is_there(id, *words)).await.unwrap_or_else(|_| Err(format!("{id} does not end"))) {
            field.faults.add(what);
            lost += 1;
        }
    }
    for (mut process, _) in replicas {
        process.signal("TERM");
        if !process.ends_within(PATIENCE).await.is_some_and(|status| status.success()) {
            field.faults.add("a replica did not end well".into());
        }
    }
    let failed = field.faults.show();
    println!("{:<44} {:>12}", "answers that said when to come back", field.refused.load(Ordering::Relaxed));
    let line = format!("{} database restarts under {} turns, {lost} lost, {failed} faults", size.outages, acknowledged.len());
    Verdict { line, holds: failed == 0 }
}

impl Field {
    /// Returns once so many more turns are done.
    async fn have_completed(&self, more: usize) {
        let until = self.completed.load(Ordering::Relaxed) + more;
        let done = async {
            while self.completed.load(Ordering::Relaxed) < until {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, done).await.expect("the load stands still");
    }

    async fn is_there(&self, id: &str, words: usize) -> Result<(), String> {
        loop {
            let answer = self.balancer.send(Method::GET, &format!("/v1/responses/{id}"), "", None).await;
            let response: Value = answer.map_err(|error| format!("{error:?}"))?.json().await.map_err(|error| format!("{error:?}"))?;
            match response["status"].as_str() {
                Some("in_progress" | "queued") => sleep(Duration::from_millis(50)).await,
                Some("completed") if output_text(&response) == counted(words) => return Ok(()),
                _ => return Err(format!("{id} of {words} words is {response}")),
            }
        }
    }
}

async fn client(field: Arc<Field>, client: u32) {
    let mut number = 0;
    while !field.over.load(Ordering::Relaxed) {
        number += 1;
        let (key, words) = (format!("client-{client}-{number}"), 1 + number * 7 % 30);
        match timeout(PATIENCE, follow(&field, &key, words)).await {
            Ok(Ok(())) => {
                field.completed.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Err(what)) => field.faults.add(format!("{key}: {what}")),
            Err(_) => field.faults.add(format!("{key}: stuck")),
        }
    }
}

/// One turn to its end: repeated with its key, or watched on, after each answer that said "not now".
async fn follow(field: &Field, key: &str, words: usize) -> Result<(), String> {
    let body = json!({ "model": MODEL, "input": format!("count {words}"), "stream": true, "background": true });
    let mut known: Option<String> = None;
    loop {
        let answer = field.balancer.send(Method::POST, "/v1/responses", key, Some(&body)).await;
        let answer = answer.map_err(|error| format!("the connection broke: {error:?}"))?;
        if !answer.status().is_success() {
            come_back(field, answer).await?;
            continue;
        }
        let (events, _) = events(answer).await?;
        for event in &events {
            let Some(id) = event["response"]["id"].as_str() else { continue };
            if known.as_deref().is_some_and(|known| known != id) {
                return Err(format!("began {known:?} and {id}"));
            }
            known = Some(id.to_owned());
            field.acknowledged.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), words);
        }
        let last = events.last().cloned().unwrap_or_default();
        match last["type"].as_str() {
            Some("response.completed") if output_text(&last["response"]) == counted(words) => return Ok(()),
            Some("error") => {
                field.refused.fetch_add(1, Ordering::Relaxed);
                sleep(Duration::from_millis(100)).await;
            }
            _ => return Err(format!("ended as {last}")),
        }
    }
}

/// # Errors
/// The answer is another than "not now, but then".
async fn come_back(field: &Field, answer: Response) -> Result<(), String> {
    let (status, after) = (answer.status(), answer.headers().get("retry-after").cloned());
    if status != 503 || after.is_none() {
        return Err(format!("answered {status} with retry-after {after:?}: {}", answer.text().await.unwrap_or_default()));
    }
    field.refused.fetch_add(1, Ordering::Relaxed);
    sleep(Duration::from_millis(100)).await;
    Ok(())
}
