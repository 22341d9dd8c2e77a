//! Everything at half load, for hours: what grows that should not.
//!
//! ```text
//! ten seconds as fast as it goes ── half of that rate ── windows: memory, files, threads, p99 ── slopes over the last two thirds
//! ```

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::future::join_all;
use serde_json::{Value, json};

use crate::{
    Verdict,
    binary::Server,
    figures::{Times, millis},
    platform,
};

const WORKERS: usize = 16;
const WINDOWS: usize = 24;
const CALIBRATION: Duration = Duration::from_secs(10);
/// What memory may grow by in an hour, in MiB: the store's and the allocator's own caches settle within the first third.
const GROWTH: f64 = 64.0;

/// What is measured at the end of a window.
struct Sample {
    hours: f64,
    resident: f64,
    descriptors: f64,
    threads: f64,
    p99: f64,
}

pub(crate) async fn run(hours: f64) -> Verdict {
    let upstream = platform::upstream(Duration::from_millis(5)).await;
    let server = Server::start(&platform::manifest(upstream, "")).await;
    let user = Arc::new(User::new(&server).await);
    let peak = window(&user, CALIBRATION, None, 0).await;
    let peak = peak.0.len() as f64 / CALIBRATION.as_secs_f64();
    let pace = Duration::from_secs_f64(WORKERS as f64 / (peak / 2.0));
    println!("{peak:.0} operations a second at the most; half of them for {hours} h");
    println!("{:>8} {:>10} {:>12} {:>9} {:>9} {:>7}", "hours", "MiB", "descriptors", "threads", "p99 ms", "failed");

    let begun = Instant::now();
    let each = Duration::from_secs_f64(hours * 3_600.0 / WINDOWS as f64);
    let (mut samples, mut failed, mut done) = (Vec::new(), 0, 0);
    for number in 0..WINDOWS {
        let (times, broken) = window(&user, each, Some(pace), number + 1).await;
        failed += broken;
        done += times.len();
        let sample = Sample {
            hours: begun.elapsed().as_secs_f64() / 3_600.0,
            resident: server.resident_bytes() as f64 / f64::from(1 << 20),
            descriptors: server.descriptors() as f64,
            threads: server.threads() as f64,
            p99: millis(Times::new(times).p99()),
        };
        println!(
            "{:>8.2} {:>10.1} {:>12} {:>9} {:>9.1} {broken:>7}",
            sample.hours, sample.resident, sample.descriptors, sample.threads, sample.p99
        );
        samples.push(sample);
    }
    let settled = &samples[WINDOWS / 3..];
    let memory = slope(settled, |sample| sample.resident);
    let (files, threads) = (slope(settled, |sample| sample.descriptors), slope(settled, |sample| sample.threads));
    let mean = |samples: &[Sample]| samples.iter().map(|sample| sample.p99).sum::<f64>() / samples.len() as f64;
    let drift = mean(&samples[WINDOWS * 2 / 3..]) / mean(&samples[..WINDOWS / 3]);
    Verdict {
        line: format!(
            "soak: {done} operations in {hours} h, {failed} failed; memory {memory:+.1} MiB/h, descriptors {files:+.1}/h, threads {threads:+.1}/h, p99 drift {drift:.2}"
        ),
        holds: failed == 0 && memory < GROWTH.max(8.0 / hours) && drift < 1.5,
    }
}

/// Of the line of least squares, an hour.
fn slope(samples: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    let count = samples.len() as f64;
    let (x, y) = (samples.iter().map(|sample| sample.hours).sum::<f64>() / count, samples.iter().map(&of).sum::<f64>() / count);
    let above = samples.iter().map(|sample| (sample.hours - x) * (of(sample) - y)).sum::<f64>();
    let below = samples.iter().map(|sample| (sample.hours - x).powi(2)).sum::<f64>();
    if below == 0.0 { 0.0 } else { above / below }
}

/// Works for `time`; with `pace`, each worker begins one operation every `pace`. Times, and how many failed.
async fn window(user: &Arc<User>, time: Duration, pace: Option<Duration>, number: usize) -> (Vec<Duration>, usize) {
    let end = Instant::now() + time;
    let workers = (0..WORKERS).map(|worker| {
        let user = user.clone();
        async move {
            let (mut times, mut failed, mut turn) = (Vec::new(), 0, worker + number);
            let mut next = Instant::now();
            while Instant::now() < end {
                if let Some(pace) = pace {
                    tokio::time::sleep_until(next.into()).await;
                    next += pace;
                }
                let begun = Instant::now();
                if let Err(error) = user.operation(turn).await {
                    failed += 1;
                    if failed == 1 {
                        println!("failed: {error}");
                    }
                }
                times.push(begun.elapsed());
                turn += 1;
            }
            (times, failed)
        }
    });
    let done = join_all(workers).await;
    let failed = done.iter().map(|(_, failed)| failed).sum();
    (done.into_iter().flat_map(|(times, _)| times).collect(), failed)
}

/// Who does a little of everything.
struct User {
    client: reqwest::Client,
    base: String,
    store: String,
}

impl User {
    async fn new(server: &Server) -> Self {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().unwrap();
        let mut user = Self { client, base: format!("http://{}", server.address), store: String::new() };
        let store = user.post("/v1/vector_stores", json!({ "name": "soak", "embedding_model": platform::VECTORS })).await.unwrap();
        user.store = id(&store);
        let file = user.upload().await.unwrap();
        user.post(&format!("/v1/vector_stores/{}/files", user.store), json!({ "file_id": id(&file) })).await.unwrap();
        user
    }

    async fn operation(&self, number: usize) -> Result<(), String> {
        match number % 6 {
            0 => drop(self.post("/v1/embeddings", json!({ "model": platform::VECTORS, "input": ["one", "two"] })).await?),
            1 => drop(self.post(&format!("/v1/vector_stores/{}/search", self.store), json!({ "query": "words" })).await?),
            2 => {
                let input = format!("turn {number}");
                let response = self.post("/v1/responses", json!({ "model": platform::CHAT, "input": input })).await?;
                if response["status"] != "completed" {
                    return Err(response.to_string());
                }
            }
            3 => {
                let file = self.upload().await?;
                self.ask(self.client.delete(format!("{}/v1/files/{}", self.base, id(&file)))).await?;
            }
            4 => {
                let messages = json!([{ "role": "user", "content": "hi" }]);
                let body = json!({ "model": platform::CHAT, "messages": messages, "stream": true });
                let text = self.send(self.client.post(format!("{}/v1/chat/completions", self.base)).json(&body)).await?;
                if !text.contains("[DONE]") {
                    return Err(text);
                }
            }
            _ => {
                let messages = json!([{ "role": "user", "content": "hi" }]);
                drop(self.post("/v1/chat/completions", json!({ "model": platform::CHAT, "messages": messages })).await?);
            }
        }
        Ok(())
    }

    async fn upload(&self) -> Result<Value, String> {
        let form = "--b\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nassistants\r\n--b\r\n\
                    content-disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\nsome words\r\n--b--\r\n";
        let request = self.client.post(format!("{}/v1/files", self.base)).header("content-type", "multipart/form-data; boundary=b");
        self.ask(request.body(form)).await
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value, String> {
        self.ask(self.client.post(format!("{}{path}", self.base)).json(&body)).await
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> Result<Value, String> {
        serde_json::from_str(&self.send(request).await?).map_err(|error| error.to_string())
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<String, String> {
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let text = answer.text().await.map_err(|error| error.to_string())?;
        if status.is_success() { Ok(text) } else { Err(format!("{status}: {text}")) }
    }
}

fn id(made: &Value) -> String {
    made["id"].as_str().unwrap().to_owned()
}
