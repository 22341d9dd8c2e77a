//! The events of a streamed Response, field by field, in the order in which clients see them.

use insta::assert_json_snapshot;
use llama_stack_tests::scripted::MODEL;
use serde_json::{Value, json};

use crate::running::{Running, SCRIPTED};

/// The events' data, without what differs from run to run.
async fn transcript(body: Value) -> Vec<Value> {
    let stack = Running::start(SCRIPTED).await;
    let events = stack.events("/v1/responses", body).await;
    stack.stop().await;
    let mut ids = Vec::new();
    let event = |(name, mut data): (String, Value)| {
        assert_eq!(data["type"], name, "an event is named for its type");
        redact(&mut data, &mut ids);
        data
    };
    events.into_iter().map(event).collect()
}

/// The items that were streamed are those of the Response.
fn agree(events: Vec<Value>) -> Vec<Value> {
    let done: Vec<&Value> =
        events.iter().filter(|event| event["type"] == "response.output_item.done").map(|event| &event["item"]).collect();
    assert_eq!(json!(done), events.last().unwrap()["response"]["output"]);
    events
}

/// Times become 0, and each id its prefix and its place among the ids that came: the same id stays the same.
fn redact(value: &mut Value, ids: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match name.as_str() {
                    "created_at" => *field = 0.into(),
                    "completed_at" if !field.is_null() => *field = 0.into(),
                    _ => redact(field, ids),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| redact(value, ids)),
        Value::String(text) => {
            let Some((prefix, rest)) = text.split_once('_') else { return };
            if rest.len() < 32 || !rest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return;
            }
            let place = ids.iter().position(|id| id == text).unwrap_or_else(|| {
                ids.push(text.clone());
                ids.len() - 1
            });
            *text = format!("{prefix}_<{place}>");
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn streamed(input: &str) -> Value {
    json!({ "model": MODEL, "input": input, "stream": true })
}

#[tokio::test]
async fn of_a_text() {
    assert_json_snapshot!(agree(transcript(streamed("count 3")).await));
}

#[tokio::test]
async fn of_function_calls() {
    let parameters = json!({ "type": "object", "properties": { "at": { "type": "string" } }, "required": ["at"] });
    let mut body = streamed("call look {\"at\":\"it\"}\ncall look {\"at\":\"that\"}");
    body["tools"] = json!([{ "type": "function", "name": "look", "description": "Looks.", "parameters": parameters, "strict": true }]);
    assert_json_snapshot!(agree(transcript(body).await));
}

#[tokio::test]
async fn of_an_answer_that_is_cut_off() {
    let mut body = streamed("count 50");
    body["max_output_tokens"] = 2.into();
    assert_json_snapshot!(agree(transcript(body).await));
}

#[tokio::test]
async fn of_a_failure() {
    assert_json_snapshot!(transcript(streamed("break")).await);
}
