//! Tools of an MCP server, approved or not, and items of a conversation: over HTTP, on the real runtime.

use llama_stack_tests::scripted::MODEL;
use serde_json::{Value, json};

use crate::running::{Running, SCRIPTED};

/// A stack whose tools may reach this machine.
fn near() -> String {
    format!("{SCRIPTED}egress: {{ allow: [127.0.0.1] }}\n")
}

fn ask(far: &Running, approval: &str) -> Value {
    let server = json!({
        "type": "mcp",
        "server_label": "far",
        "server_url": format!("{}/mcp", far.url),
        "authorization": "hunter2",
        "allowed_tools": ["calculator"],
        "require_approval": approval,
    });
    json!({ "model": MODEL, "input": "call calculator {\"expression\": \"6 * 7\"}", "tools": [server] })
}

fn kinds(response: &Value) -> Vec<&str> {
    response["output"].as_array().unwrap().iter().map(|item| item["type"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn an_mcp_call_waits_for_approval_and_runs_with_it() {
    let (far, near) = (Running::start(SCRIPTED).await, Running::start(&near()).await);
    let (status, asked) = near.post("/v1/responses", ask(&far, "always")).await;
    assert_eq!((status, kinds(&asked)), (200, vec!["mcp_list_tools", "mcp_approval_request"]), "{asked}");
    let request = &asked["output"][1];
    assert_eq!((&request["name"], &request["server_label"]), (&json!("calculator"), &json!("far")));
    assert!(!asked.to_string().contains("hunter2"), "a secret is shown");
    for approve in [true, false] {
        let mut next = ask(&far, "always");
        next["previous_response_id"] = asked["id"].clone();
        next["input"] = json!([{ "type": "mcp_approval_response", "approval_request_id": request["id"], "approve": approve }]);
        let (status, response) = near.post("/v1/responses", next).await;
        assert_eq!((status, &response["status"]), (200, &json!("completed")), "{response}");
        let call = response["output"].as_array().unwrap().iter().find(|item| item["type"] == "mcp_call").unwrap().clone();
        let said = response["output"].as_array().unwrap().last().unwrap()["content"][0]["text"].as_str().unwrap().to_owned();
        match approve {
            true => assert_eq!((&call["output"], said.as_str()), (&json!("42"), "the tool said: 42")),
            false => assert!(said.contains("did not approve"), "{response}"),
        }
    }
    near.stop().await;
    far.stop().await;
}

#[tokio::test]
async fn an_mcp_call_that_needs_no_approval_runs_at_once_and_is_streamed_as_it_is_read_back() {
    let (far, near) = (Running::start(SCRIPTED).await, Running::start(&near()).await);
    let mut body = ask(&far, "never");
    body["stream"] = json!(true);
    let events = near.events("/v1/responses", body).await;
    let response = events.last().unwrap().1["response"].clone();
    assert_eq!(kinds(&response), ["mcp_list_tools", "mcp_call", "message"], "{response}");
    let id = response["id"].as_str().unwrap();
    let (_, again) = near.get(&format!("/v1/responses/{id}")).await;
    assert_eq!(again, response);
    assert_eq!(near.events_again(&format!("/v1/responses/{id}?stream=true")).await, events);
    near.stop().await;
    far.stop().await;
}

#[tokio::test]
async fn a_server_that_tools_may_not_reach_is_refused_and_the_response_says_so() {
    let (far, near) = (Running::start(SCRIPTED).await, Running::start(SCRIPTED).await);
    let (status, response) = near.post("/v1/responses", ask(&far, "never")).await;
    assert_eq!((status, kinds(&response)), (200, vec!["mcp_list_tools", "message"]), "{response}");
    let error = response["output"][0]["error"].to_string();
    assert!(error.contains("127.0.0.1"), "{response}");
    near.stop().await;
    far.stop().await;
}

#[tokio::test]
async fn a_conversation_takes_items_and_gives_them_up() {
    let stack = Running::start(SCRIPTED).await;
    let items = json!([{ "type": "message", "role": "user", "content": "my secret is 7" }]);
    let (status, conversation) = stack.post("/v1/conversations", json!({ "items": items, "metadata": { "a": "b" } })).await;
    assert_eq!(status, 200, "{conversation}");
    let path = format!("/v1/conversations/{}/items", conversation["id"].as_str().unwrap());
    let body = json!({ "model": MODEL, "input": "hello", "conversation": conversation["id"] });
    let (status, response) = stack.post("/v1/responses", body).await;
    assert_eq!((status, &response["conversation"]["id"]), (200, &conversation["id"]), "{response}");
    let texts = async || {
        let (_, list) = stack.get(&format!("{path}?order=asc")).await;
        let data = list["data"].as_array().unwrap().clone();
        data.into_iter()
            .map(|item| (item["id"].as_str().unwrap().to_owned(), item["content"][0]["text"].as_str().unwrap().to_owned()))
            .collect::<Vec<_>>()
    };
    let there = texts().await;
    let words: Vec<&str> = there.iter().map(|item| item.1.as_str()).collect();
    assert_eq!(words, ["my secret is 7", "hello", "you said: hello"]);
    assert_eq!(stack.delete(&format!("{path}/{}", there[0].0)).await.0, 200);
    assert_eq!(texts().await, there[1..], "the others keep their ids");
    assert_eq!(stack.delete(&format!("{path}/{}", there[0].0)).await.0, 404);
    stack.stop().await;
}
