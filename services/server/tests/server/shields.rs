//! Shields in Responses, end to end: a refusal and the events that tell of it, in each way of showing an answer.

use std::sync::Arc;

use llama_stack_core::{Context, Registry, Result, Safety};
use llama_stack_proto::v1::{
    ListShieldsRequest, ListShieldsResponse, RunShieldRequest, RunShieldResponse, Shield, Violation, violation::Level,
};
use serde_json::{Value, json};

use crate::client::{Server, start_with};

/// Forbids greetings: `Hello`, and inputs that hold `greet`.
struct Grumpy;

/// As `test::grumpy`, whose shield is `grumpy`.
pub(crate) fn add(registry: &mut Registry) {
    registry.safety.add("test::grumpy", |_: Value, _| async { Ok(Arc::new(Grumpy) as Arc<dyn Safety>) });
}

#[async_trait::async_trait]
impl Safety for Grumpy {
    async fn list_shields(&self, _cx: &Context, _request: ListShieldsRequest) -> Result<ListShieldsResponse> {
        let shields = vec![Shield { id: "grumpy".into(), ..Shield::default() }];
        Ok(ListShieldsResponse { shields, ..ListShieldsResponse::default() })
    }

    async fn run_shield(&self, _cx: &Context, request: RunShieldRequest) -> Result<RunShieldResponse> {
        let text = request.messages.last().map(|message| message.joined_text()).unwrap_or_default();
        let violation = Violation { level: Level::Error.into(), user_message: "No greetings.".into(), ..Violation::default() };
        let greets = text.contains("Hello") || text.contains("greet");
        Ok(RunShieldResponse { violation: greets.then_some(violation), ..RunShieldResponse::default() })
    }
}

const PROVIDER: &str = "  safety:\n    - { id: grumpy, type: test::grumpy }\n";

/// The model says `Hel` and `lo`: the events of the stream, and the Response as it is read afterwards.
async fn streamed(server: &Server, extra: Value) -> (Vec<Value>, Value) {
    let mut body = json!({ "model": "parrot", "input": "hi", "stream": true });
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let text = server.post("/v1/responses", &body).await.text().await.unwrap();
    let events: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok()).collect();
    let id = events[0]["response"]["id"].as_str().unwrap().to_owned();
    let read = server.json("GET", &format!("/v1/responses/{id}"), Value::Null).await;
    assert_eq!(events.last().unwrap()["response"], read);
    assert_eq!((&read["status"], &read["incomplete_details"]["reason"]), (&json!("incomplete"), &json!("content_filter")));
    (events, read)
}

fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap().trim_start_matches("response.")).collect()
}

fn said(response: &Value) -> Vec<(&str, &str)> {
    let parts = response["output"].as_array().unwrap().iter().flat_map(|item| item["content"].as_array().unwrap());
    parts.map(|part| (part["type"].as_str().unwrap(), part["text"].as_str().or(part["refusal"].as_str()).unwrap())).collect()
}

#[tokio::test]
async fn a_held_answer_is_a_refusal_and_nothing_else() {
    let server = start_with(PROVIDER).await;
    let (events, read) = streamed(&server, json!({ "guardrails": ["grumpy"] })).await;
    assert!(!format!("{events:?}").contains("Hel"));
    assert_eq!(said(&read), [("refusal", "No greetings.")]);
    let refusal = ["output_item.added", "content_part.added", "refusal.delta", "refusal.done", "content_part.done", "output_item.done"];
    assert_eq!(kinds(&events)[2..8], refusal);
}

#[tokio::test]
async fn an_answer_in_windows_ends_where_a_window_does_not_pass() {
    let server = start_with(PROVIDER).await;
    let moderation = json!({ "mode": "windowed", "window_tokens": 1 });
    let (events, read) = streamed(&server, json!({ "guardrails": ["grumpy"], "moderation": moderation })).await;
    assert_eq!(said(&read), [("output_text", "Hel"), ("refusal", "No greetings.")]);
    let all = kinds(&events);
    for one in ["output_text.delta", "output_text.done", "refusal.delta", "refusal.done", "output_item.done", "incomplete"] {
        assert_eq!(all.iter().filter(|kind| **kind == one).count(), 1, "{one} in {all:?}");
    }
    assert_eq!(read["moderation"], moderation);
}

#[tokio::test]
async fn an_answer_that_is_judged_after_is_taken_back() {
    let server = start_with(PROVIDER).await;
    let (events, read) = streamed(&server, json!({ "guardrails": ["grumpy"], "moderation": { "mode": "after" } })).await;
    assert_eq!(said(&read), [("refusal", "No greetings.")]);
    let shown: String =
        events.iter().filter(|event| event["type"] == "response.output_text.delta").map(|event| event["delta"].as_str().unwrap()).collect();
    assert_eq!(shown, "Hello");
    let numbers: Vec<u64> = events.iter().map(|event| event["sequence_number"].as_u64().unwrap()).collect();
    assert!(numbers.is_sorted() && numbers.last() >= Some(&1_000_000), "{numbers:?}");
    let taken_back = events.iter().find(|event| event["type"] == "response.output_item.done").unwrap();
    assert_eq!(taken_back["item"]["status"], "incomplete");
}

#[tokio::test]
async fn the_manifests_shields_judge_what_no_request_guards() {
    let server = start_with(&format!("{PROVIDER}safety: {{ defaults: {{ input: [grumpy] }} }}\n")).await;
    let response = server.json("POST", "/v1/responses", json!({ "model": "parrot", "input": "greet me" })).await;
    assert_eq!((&response["status"], said(&response)), (&json!("incomplete"), vec![("refusal", "No greetings.")]));
    assert_eq!(response["guardrails"], json!([{ "id": "grumpy", "stages": ["input"] }]));
    let response = server.json("POST", "/v1/responses", json!({ "model": "parrot", "input": "hi" })).await;
    assert_eq!((&response["status"], said(&response)), (&json!("completed"), vec![("output_text", "Hello")]));
    let greeting = json!({ "items": [{ "role": "user", "content": "I greet you" }] });
    assert_eq!(server.refused("POST", "/v1/conversations", greeting).await, (400, json!("items"), json!("content_filter")));
    let refused = json!({ "model": "parrot", "input": "hi", "guardrails": ["gard"] });
    assert_eq!(server.refused("POST", "/v1/responses", refused).await, (404, json!("guardrails"), json!("shield_not_found")));
}
