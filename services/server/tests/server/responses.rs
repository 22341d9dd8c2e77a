//! Responses, over agents that keep what they are told.

use serde_json::{Value, json};

use crate::{
    client::{start, start_over},
    ledger::Ledger,
};

#[tokio::test]
async fn a_background_response_is_answered_at_once_and_its_events_are_read_later() {
    let ledger = Ledger::default();
    let server = start_over(ledger.clone()).await;
    let queued = server.json("POST", "/v1/responses", json!({ "model": "m", "input": "hi", "background": true })).await;
    assert_eq!((&queued["status"], &queued["background"], &queued["output"]), (&json!("queued"), &json!(true), &json!([])));
    let one = format!("/v1/responses/{}", queued["id"].as_str().unwrap());
    let whole = server.json("GET", &one, Value::Null).await;
    assert_eq!(whole["status"], "completed");
    let text = server.get(&format!("{one}?stream=true")).await.text().await.unwrap();
    let data = |text: &str| text.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect::<Vec<_>>();
    let all = data(&text);
    let last: Value = serde_json::from_str(all.last().unwrap()).unwrap();
    assert_eq!((&last["type"], &last["response"]), (&json!("response.completed"), &whole));
    let rest = server.get(&format!("{one}?stream=true&starting_after=4")).await.text().await.unwrap();
    assert_eq!(data(&rest), all[5..]);
    server.json("POST", &format!("{one}/cancel"), json!({})).await;
    assert_eq!(ledger.kept().cancelled.len(), 1);
}

#[tokio::test]
async fn a_response_that_waits_for_approval_shows_it_whenever_it_is_read() {
    let ledger = Ledger::default();
    let server = start_over(ledger.clone()).await;
    let waits = server.json("POST", "/v1/responses", json!({ "model": "m", "input": "wait" })).await;
    let request = &waits["output"][0];
    assert_eq!((&request["type"], &waits["status"]), (&json!("mcp_approval_request"), &json!("completed")));
    let id = waits["id"].as_str().unwrap();
    assert_eq!(server.json("GET", &format!("/v1/responses/{id}"), Value::Null).await, waits);
    let answer = json!([{ "type": "mcp_approval_response", "approval_request_id": request["id"], "approve": true }]);
    let next = server.json("POST", "/v1/responses", json!({ "model": "m", "input": answer, "previous_response_id": id })).await;
    let asked = ledger.last_asked();
    assert_eq!((asked.decisions[0].approve, asked.input.len()), (true, 0));
    assert_eq!(json!(asked.decisions[0].approval_request_id), request["id"]);
    let items = server.json("GET", &format!("/v1/responses/{}/input_items", next["id"].as_str().unwrap()), Value::Null).await;
    assert_eq!(items["data"][0]["type"], "mcp_approval_response");
}

#[tokio::test]
async fn responses_are_listed_without_what_is_none() {
    let ledger = Ledger::default();
    let server = start_over(ledger.clone()).await;
    for n in 0..5 {
        let model = if n == 2 { "other" } else { "m" };
        server.json("POST", "/v1/responses", json!({ "model": model, "input": n.to_string() })).await;
    }
    server.json("POST", "/v1/conversations", json!({ "items": [{ "role": "user", "content": "x" }] })).await;
    let ids: Vec<String> = ledger.kept().turns.iter().take(5).map(|turn| turn.id.replacen("turn_", "resp_", 1)).collect();
    let list = async |query: &str| {
        let list = server.json("GET", &format!("/v1/responses?{query}"), Value::Null).await;
        let ids: Vec<String> = list["data"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
        (ids, list["has_more"].as_bool().unwrap())
    };
    let newest: Vec<String> = ids.iter().rev().cloned().collect();
    assert_eq!(list("").await, (newest.clone(), false));
    assert_eq!(list("limit=2").await, (newest[..2].to_vec(), true));
    assert_eq!(list(&format!("limit=2&after={}", newest[1])).await, (newest[2..4].to_vec(), true));
    assert_eq!(list("order=asc&model=other").await, (vec![ids[2].clone()], false));
}

#[tokio::test]
async fn a_history_is_compacted_into_the_beginning_of_the_next_input() {
    let ledger = Ledger::default();
    let server = start_over(ledger.clone()).await;
    let first = server.json("POST", "/v1/responses", json!({ "model": "m", "input": "hi" })).await;
    let compacted = server.json("POST", "/v1/responses/compact", json!({ "model": "m", "previous_response_id": first["id"] })).await;
    assert_eq!((&compacted["object"], &compacted["usage"]["total_tokens"]), (&json!("response.compaction"), &json!(11)));
    assert!(ledger.kept().compacted[0].turn_id.starts_with("turn_"));
    let mut input = compacted["output"].as_array().unwrap().clone();
    input.push(json!({ "role": "user", "content": "go on" }));
    server.json("POST", "/v1/responses", json!({ "model": "m", "input": input })).await;
    let asked = ledger.last_asked().input;
    assert!(asked[0].joined_text().contains("they greeted") && asked[1].joined_text() == "go on");
    let history = json!([{ "role": "user", "content": "hi" }]);
    server.json("POST", "/v1/responses/compact", json!({ "model": "m", "input": history })).await;
    assert_eq!(ledger.kept().compacted[1].messages.len(), 1);
    assert_eq!(server.refused("POST", "/v1/responses/compact", json!({ "model": "m" })).await.1, "input");
}

#[tokio::test]
async fn a_stored_prompt_becomes_instructions() {
    let ledger = Ledger::default();
    let server = start_over(ledger.clone()).await;
    let prompt = server.json("POST", "/v1/prompts", json!({ "prompt": "Speak {{ language }} to {{ name }}." })).await;
    let ask = |prompt: Value| json!({ "model": "m", "input": "hi", "prompt": prompt, "instructions": "Be brief." });
    let used = json!({ "id": prompt["prompt_id"], "variables": { "language": { "type": "input_text", "text": "French" }, "name": "{{ language }}" } });
    let response = server.json("POST", "/v1/responses", ask(used.clone())).await;
    assert_eq!(response["instructions"], "Speak French to {{ language }}.\n\nBe brief.");
    let told = json!({ "id": prompt["prompt_id"], "version": "1", "variables": { "language": "French", "name": "{{ language }}" } });
    assert_eq!(response["prompt"], told);
    let refused = async |change: Value| {
        let mut prompt = used.clone();
        prompt.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        server.refused("POST", "/v1/responses", ask(prompt)).await
    };
    assert_eq!(refused(json!({ "variables": { "name": "x" } })).await, (400, json!("prompt.variables"), json!("prompt_variable_missing")));
    assert_eq!(refused(json!({ "version": "2" })).await, (404, json!("prompt"), json!("prompt_version_not_found")));
    assert_eq!(refused(json!({ "version": "two" })).await.1, "prompt.version");
    assert_eq!(refused(json!({ "id": "pmpt_0" })).await, (404, json!("prompt"), json!("prompt_not_found")));
    let image = json!({ "language": "x", "name": { "type": "input_image" } });
    assert_eq!(refused(json!({ "variables": image })).await.0, 400);
}

/// A client that sends again what a server failed at does not send this again.
#[tokio::test]
async fn what_is_not_supported_is_the_requests_fault() {
    let server = start_over(Ledger::default()).await;
    let shell = json!({ "type": "local_shell_call", "id": "x" });
    let voice = json!({ "role": "user", "content": [{ "type": "input_audio" }] });
    for (change, field) in [
        (json!({ "tools": [{ "type": "code_interpreter" }] }), "tools[0].type"),
        (json!({ "tools": [{ "type": "web_search", "filters": { "allowed_domains": ["a.org"] } }] }), "tools[0].filters"),
        (json!({ "input": [shell] }), "input[0].type"),
        (json!({ "input": [voice] }), "input[0].content[0].type"),
        (json!({ "context_management": [{ "type": "other" }] }), "context_management[0].type"),
    ] {
        let mut body = json!({ "model": "m", "input": "hi" });
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        assert_eq!(server.refused("POST", "/v1/responses", body).await, (400, json!(field), json!("unsupported_parameter")), "{change}");
    }
}

#[tokio::test]
async fn the_tokens_of_an_input_are_counted_by_its_model() {
    const PATH: &str = "/v1/responses/input_tokens";
    let server = start().await;
    let with = |change: Value| {
        let look = json!({ "type": "function", "name": "look" });
        let mut body = json!({ "model": "parrot", "instructions": "Be brief.", "input": "one two three", "tools": [look] });
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        body
    };
    let counted = |tokens: u32| json!({ "object": "response.input_tokens", "input_tokens": tokens });
    assert_eq!(server.json("POST", PATH, with(json!({}))).await, counted(6));
    assert_eq!(server.json("POST", PATH, with(json!({ "tool_choice": "none" }))).await, counted(5));
    for (change, field) in [
        (json!({ "previous_response_id": "resp_1" }), "previous_response_id"),
        (json!({ "conversation": "conv_1" }), "conversation"),
        (json!({ "tools": [{ "type": "web_search" }] }), "tools[0].type"),
    ] {
        assert_eq!(server.refused("POST", PATH, with(change)).await, (400, json!(field), json!("unsupported_parameter")));
    }
    let orphan = json!([{ "type": "function_call_output", "call_id": "a", "output": "x" }]);
    for (change, status, field) in [(json!({ "model": "nobody" }), 404, "model"), (json!({ "input": orphan }), 400, "input")] {
        let refused = server.refused("POST", PATH, with(change)).await;
        assert_eq!((refused.0, refused.1), (status, json!(field)));
    }
}

/// Fields of a turn are told by the names that they have in the request.
#[tokio::test]
async fn a_refusal_names_the_field_of_the_request() {
    let server = start_over(Ledger::default()).await;
    assert_eq!(server.refused("POST", "/v1/responses", json!({ "model": "m", "input": "refuse" })).await.1, "model");
}

/// The runtime has a list for each kind of tool.
#[tokio::test]
async fn a_refusal_names_the_tool_of_the_request() {
    let server = start().await;
    let refused =
        async |tools: Value| server.refused("POST", "/v1/responses", json!({ "model": "parrot", "input": "hi", "tools": tools })).await;
    let mcp = |label: &str| json!({ "type": "mcp", "server_label": label, "server_url": "https://files.example" });
    let function = |parameters: Value| json!({ "type": "function", "name": "look", "parameters": parameters });
    let wrong = refused(json!([mcp("files"), { "type": "function", "name": "see" }, function(json!([]))])).await;
    assert_eq!((wrong.1, wrong.2), (json!("tools[2].parameters"), json!("invalid_schema")));
    let see = json!({ "type": "function", "name": "see" });
    let pets = |parameters: Value| json!({ "type": "namespace", "name": "pets", "tools": [see, function(parameters)] });
    assert_eq!(refused(json!([mcp("files"), pets(json!([]))])).await.1, "tools[1].tools[1].parameters");
    assert_eq!(refused(json!([pets(json!({})), function(json!([]))])).await.1, "tools[1].parameters");
    assert_eq!(refused(json!([function(json!({})), mcp("files"), mcp("a b")])).await.1, "tools[2].server_label");
    let missing = refused(json!([function(json!({})), { "type": "web_search" }])).await;
    assert_eq!((missing.0, missing.1, missing.2), (404, json!("tools[1]"), json!("tool_not_found")));
}

/// Also where the field would be looked up first.
#[tokio::test]
async fn an_agent_is_configured_already() {
    let server = start_over(Ledger::default()).await;
    let refused = async |field: &str, value: Value| {
        let body = json!({ "agent_id": "agent_1", "input": "hi", field: value });
        assert_eq!(server.refused("POST", "/v1/responses", body).await.1, field);
    };
    refused("prompt", json!({ "id": "pmpt_0" })).await;
    refused("instructions", json!("Be brief.")).await;
    refused("tools", json!([])).await;
}
