//! A client over HTTP: Responses that call functions, each a turn whose results come in the next.

use std::sync::Arc;

use llama_stack_core::{Code, Error, Result};
use rand::{Rng, rngs::StdRng};
use serde_json::{Value, json};

use super::{
    PATIENCE,
    field::{Fault, Field, Record},
    lives::Up,
    model::MODEL,
    plan::{Plan, Tool, done, parameters},
};

/// Has conversations until the drill stops.
pub(crate) async fn client(field: Arc<Field>, mut random: StdRng) {
    let http = reqwest::Client::new();
    while !field.stopping() {
        let plan = Plan::for_client(field.next_number(), &mut random);
        if let Err(told) = conversation(&field, &http, &plan, &mut random).await {
            field.fault(told.0, format!("{plan} (HTTP): {}", told.1));
        }
    }
}

type Told = (Fault, String);

async fn conversation(field: &Field, http: &reqwest::Client, plan: &Plan, random: &mut StdRng) -> std::result::Result<(), Told> {
    let wrong = |what: String| (Fault::Wrong, what);
    let mut input = json!(plan.to_string());
    let mut previous = Value::Null;
    for round in 0..=plan.rounds.len() {
        let key = format!("http-{}-{round}", plan.number);
        let tool = json!({ "type": "function", "name": Tool::Client.name(), "parameters": parameters() });
        let body = json!({ "model": MODEL, "input": input, "tools": [tool], "previous_response_id": previous, "metadata": { "key": key } });
        let mut exchange = Exchange { field, http, key: &key, body, id: None };
        let response = tokio::time::timeout(PATIENCE, exchange.finish(random)).await;
        let response = response.map_err(|_| (Fault::Stuck, format!("{key}, {:?}: not ended", exchange.id)))??;
        if response["status"] != "completed" {
            return Err(wrong(format!("{key} ended as {response}")));
        }
        let id = response["id"].as_str().unwrap_or_default().to_owned();
        let items = response["output"].as_array().cloned().unwrap_or_default();
        let calls: Vec<&Value> = items.iter().filter(|item| item["type"] == "function_call").collect();
        let (due, waits) = (plan.round(round), round < plan.rounds.len());
        let asked: Vec<String> = calls.iter().map(|call| call["arguments"].as_str().unwrap_or_default().to_owned()).collect();
        if asked != due.iter().map(|call| plan.arguments(call.index)).collect::<Vec<_>>() {
            return Err(wrong(format!("{key} calls {asked:?}")));
        }
        let outcomes = if waits { Vec::new() } else { plan.read(&text(&items)).map_err(wrong)? };
        let turn_id = id.replacen("resp_", "turn_", 1);
        field.record(Record { key, turn_id, waits, plan: plan.clone(), outcomes });
        let results = calls.iter().zip(&due).map(
            |(call, due)| json!({ "type": "function_call_output", "call_id": call["call_id"], "output": done(plan.number, due.index) }),
        );
        (input, previous) = (results.collect(), json!(id));
    }
    Ok(())
}

fn text(items: &[Value]) -> String {
    let parts = items.iter().filter(|item| item["type"] == "message").filter_map(|item| item["content"].as_array()).flatten();
    parts.filter_map(|part| part["text"].as_str()).collect()
}

/// One Response, followed through every crash.
struct Exchange<'a> {
    field: &'a Field,
    http: &'a reqwest::Client,
    key: &'a str,
    body: Value,
    id: Option<String>,
}

impl Exchange<'_> {
    async fn finish(&mut self, random: &mut StdRng) -> std::result::Result<Value, Told> {
        loop {
            let up = self.field.up().await;
            let answer = match random.random_range(0..3) {
                0 if self.id.is_some() => self.poll(&up).await,
                1 => self.whole(&up).await,
                _ => self.streamed(&up).await,
            };
            match answer {
                Ok(response) => {
                    self.field.happened();
                    self.is(response["id"].as_str().unwrap_or_default())?;
                    if response["status"] != "in_progress" {
                        return Ok(response);
                    }
                    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
                }
                Err(error) if self.field.forgives(&up, &error).await => {}
                Err(error) if error.code() == Code::NotFound && self.id.is_some() => {
                    return Err((Fault::Lost, format!("{} {:?}: {error:?}", self.key, self.id)));
                }
                Err(error) => return Err((Fault::Wrong, format!("{} {:?}: {error:?}", self.key, self.id))),
            }
        }
    }

    /// The same key stands for the same response.
    fn is(&mut self, id: &str) -> std::result::Result<(), Told> {
        match &self.id {
            Some(known) if known != id => Err((Fault::Duplicated, format!("{} began {known} and {id}", self.key))),
            _ => {
                self.id = Some(id.to_owned());
                Ok(())
            }
        }
    }

    async fn poll(&self, up: &Up) -> Result<Value> {
        let url = format!("http://{}/v1/responses/{}", up.address, self.id.as_deref().unwrap_or_default());
        read(self.http.get(url).send().await.map_err(broken)?).await
    }

    async fn whole(&self, up: &Up) -> Result<Value> {
        read(self.post(up, false).await?).await
    }

    async fn streamed(&mut self, up: &Up) -> Result<Value> {
        let mut answer = self.post(up, true).await?;
        if !answer.status().is_success() {
            return read(answer).await;
        }
        let (mut buffer, mut next) = (String::new(), 0_u64);
        while let Some(chunk) = answer.chunk().await.map_err(broken)? {
            buffer.push_str(&String::from_utf8_lossy(&chunk));
            while let Some((event, rest)) = buffer.split_once("\n\n") {
                let data = event.lines().find_map(|line| line.strip_prefix("data: ")).map(serde_json::from_str::<Value>);
                buffer = rest.to_owned();
                let Some(Ok(data)) = data else { continue };
                self.field.happened();
                let number = data["sequence_number"].as_u64().unwrap_or_default();
                // Where a restart cut an answer off, numbers go on at the next million.
                if number != next && !(number > next && number.is_multiple_of(1_000_000)) {
                    return Err(Error::new(Code::DataLoss, format!("event {next} is missing before {data}")));
                }
                next = number + 1;
                match data["type"].as_str() {
                    Some("response.created") => {
                        let id = data["response"]["id"].as_str().unwrap_or_default();
                        self.is(id).map_err(|(_, told)| Error::new(Code::AlreadyExists, told))?;
                    }
                    Some("error") => return Err(Error::unavailable(data.to_string())),
                    Some("response.completed" | "response.incomplete" | "response.failed") => return Ok(data["response"].clone()),
                    _ => {}
                }
            }
        }
        Err(Error::unavailable("the stream ended early"))
    }

    async fn post(&self, up: &Up, stream: bool) -> Result<reqwest::Response> {
        let mut body = self.body.clone();
        body["stream"] = json!(stream);
        let request = self.http.post(format!("http://{}/v1/responses", up.address)).header("idempotency-key", self.key);
        request.json(&body).send().await.map_err(broken)
    }
}

/// A JSON answer, or the failure that it tells of.
async fn read(answer: reqwest::Response) -> Result<Value> {
    let status = answer.status();
    let body: Value = answer.json().await.map_err(broken)?;
    if status.is_success() { Ok(body) } else { Err(Error::new(Code::from_http_status(status.as_u16()), body.to_string())) }
}

fn broken(error: reqwest::Error) -> Error {
    Error::unavailable("the connection broke").with_source(error)
}
