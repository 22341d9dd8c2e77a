//! Responses that are watched again, run in the background, and live in conversations: on the real runtime.

use std::time::Duration;

use futures::StreamExt;
use llama_stack_tests::scripted::MODEL;
use serde_json::{Value, json};

use crate::running::{Running, SCRIPTED};

fn ask(input: &str, extra: Value) -> Value {
    let mut body = json!({ "model": MODEL, "input": input });
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

fn path(response: &Value) -> String {
    format!("/v1/responses/{}", response["id"].as_str().unwrap())
}

/// Polls until the response has this status.
async fn becomes(stack: &Running, path: &str, status: &str) -> Value {
    loop {
        let (_, response) = stack.get(path).await;
        if response["status"] == status {
            return response;
        }
        assert!(response["status"] == "in_progress" || response["status"] == "queued", "{response}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_background_response_goes_on_without_its_client() {
    let stack = Running::start(SCRIPTED).await;
    let (status, begun) = stack.post("/v1/responses", ask("count 20", json!({ "background": true }))).await;
    assert_eq!((status, begun["status"].as_str()), (200, Some("queued")), "{begun}");
    let response = becomes(&stack, &path(&begun), "completed").await;
    assert!(response["output"][0]["content"][0]["text"].as_str().unwrap().ends_with(" 20"));
    stack.stop().await;
}

#[tokio::test]
async fn a_stream_that_is_read_again_ends_as_the_response_is() {
    let stack = Running::start(SCRIPTED).await;
    let events = stack.events("/v1/responses", ask("count 5", json!({ "stream": true }))).await;
    let response = &events.last().unwrap().1["response"];
    let again = stack.events_again(&format!("{}?stream=true", path(response))).await;
    assert_eq!(again, events, "a stream that is read back is the stream as it was");
    let items = |events: &[(String, Value)]| {
        let done = events.iter().filter(|(kind, _)| kind == "response.output_item.done");
        done.map(|(_, data)| data["item"].clone()).collect::<Vec<_>>()
    };
    assert_eq!((items(&again), again.last().unwrap().1["response"].clone()), (items(&events), response.clone()));
    let number = again[2].1["sequence_number"].as_u64().unwrap();
    let rest = stack.events_again(&format!("{}?stream=true&starting_after={number}", path(response))).await;
    assert_eq!(rest, again[3..]);
    stack.stop().await;
}

/// Watching a response that runs costs it nothing: not when the watcher comes, not when it goes.
#[tokio::test]
async fn a_watcher_that_goes_away_ends_nothing() {
    let stack = Running::start(SCRIPTED).await;
    let (_, begun) = stack.post("/v1/responses", ask("forever", json!({ "background": true }))).await;
    for _ in 0..2 {
        let mut watched = reqwest::get(format!("{}{}?stream=true", stack.url, path(&begun))).await.unwrap().bytes_stream();
        let mut text = String::new();
        while !text.contains("response.output_text.delta") {
            text.push_str(&String::from_utf8_lossy(&watched.next().await.unwrap().unwrap()));
        }
    }
    assert_eq!(stack.get(&path(&begun)).await.1["status"], "in_progress");
    let (status, cancelled) = stack.post(&format!("{}/cancel", path(&begun)), json!({})).await;
    assert_eq!((status, cancelled["status"].as_str()), (200, Some("cancelled")));
    assert_eq!(stack.post(&format!("{}/cancel", path(&begun)), json!({})).await.1, cancelled, "to cancel twice is to cancel once");
    let watched = stack.events_again(&format!("{}?stream=true", path(&begun))).await;
    assert_eq!(watched.last().unwrap().1["response"]["status"], "cancelled");
    stack.stop().await;
}

#[tokio::test]
async fn responses_of_a_conversation_go_on_from_one_another() {
    let stack = Running::start(SCRIPTED).await;
    let (_, conversation) = stack.post("/v1/conversations", json!({ "metadata": { "topic": "cats" } })).await;
    let id = conversation["id"].as_str().unwrap();
    let (_, first) = stack.post("/v1/responses", ask("one", json!({ "conversation": id }))).await;
    assert_eq!((&first["conversation"]["id"], &first["previous_response_id"]), (&json!(id), &Value::Null), "{first}");
    let (_, second) = stack.post("/v1/responses", ask("two", json!({ "conversation": { "id": id } }))).await;
    assert_eq!(second["conversation"]["id"], id);
    let (status, items) = stack.get(&format!("/v1/conversations/{id}/items?order=asc")).await;
    assert_eq!(status, 200, "{items}");
    let texts: Vec<&str> = items["data"].as_array().unwrap().iter().map(|item| item["content"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["one", "you said: one", "two", "you said: two"]);
    let newest = stack.get(&format!("/v1/conversations/{id}/items?limit=1")).await.1;
    assert_eq!(newest["data"][0], items["data"][3]);
    assert_eq!(stack.get("/v1/responses").await.1["data"].as_array().unwrap().len(), 2);
    assert_eq!(stack.delete(&format!("/v1/conversations/{id}")).await.0, 200);
    assert_eq!(stack.get(&path(&first)).await.0, 404, "its responses go with it");
    stack.stop().await;
}

/// The stack's own tools are shown as calls of a server, the same live and later.
#[tokio::test]
async fn a_tool_of_an_agent_is_seen_at_work() {
    let stack = Running::start(SCRIPTED).await;
    let config = llama_stack_proto::v1::AgentConfig { model: MODEL.into(), tools: vec!["calculator".into()], ..Default::default() };
    let create = llama_stack_proto::v1::CreateAgentRequest { config: Some(config) };
    let agent = stack.agents().create_agent(create).await.unwrap().into_inner();
    let body = json!({ "agent_id": agent.id, "input": "call calculator {\"expression\": \"6 * 7\"}", "stream": true });
    let events = stack.events("/v1/responses", body).await;
    let kinds: Vec<&str> = events.iter().map(|(kind, _)| kind.trim_start_matches("response.")).collect();
    assert_eq!(
        kinds[..8],
        [
            "created",
            "in_progress",
            "output_item.added",
            "mcp_call.in_progress",
            "mcp_call_arguments.delta",
            "mcp_call_arguments.done",
            "mcp_call.completed",
            "output_item.done",
        ]
    );
    let response = &events.last().unwrap().1["response"];
    assert_eq!((&response["output"][0]["output"], &response["output"][0]["server_label"]), (&json!("42"), &json!("stack")));
    assert_eq!(response["agent_id"], agent.id.as_str());
    assert_eq!(&stack.get(&path(response)).await.1, response);
    stack.stop().await;
}
