use insta::{assert_debug_snapshot, assert_json_snapshot, assert_snapshot};
use llama_stack_proto::v1::tool_choice::Mode;
use serde_json::json;

use crate::client::{chat, start, streamed};

const PATH: &str = "/v1/chat/completions";

#[tokio::test]
async fn a_chat_is_answered() {
    let server = start().await;
    assert_json_snapshot!(server.answer(PATH, &chat("hi")).await);
}

#[tokio::test]
async fn a_stream_has_a_role_deltas_an_end_and_the_usage_where_asked() {
    let server = start().await;
    let mut body = streamed("hi");
    assert_snapshot!("stream", server.transcript(PATH, &body).await);
    body["stream_options"] = json!({ "include_usage": true });
    assert_snapshot!("stream_with_usage", server.transcript(PATH, &body).await);
}

#[tokio::test]
async fn a_tool_call_is_whole_or_in_pieces() {
    let server = start().await;
    assert_json_snapshot!("tool_call", server.answer(PATH, &chat("tool")).await);
    assert_snapshot!("tool_call_stream", server.transcript(PATH, &streamed("tool")).await);
}

#[tokio::test]
async fn several_choices_and_their_logprobs() {
    let server = start().await;
    let mut body = chat("hi");
    body["n"] = 2.into();
    body["logprobs"] = true.into();
    body["top_logprobs"] = 1.into();
    assert_json_snapshot!("choices", server.answer(PATH, &body).await);
    body["stream"] = true.into();
    assert_snapshot!("choices_stream", server.transcript(PATH, &body).await);
}

/// What comes before the failure is kept, the failure is told without its cause, and nothing claims to be done.
#[tokio::test]
async fn a_stream_that_breaks_ends_with_an_error_and_without_done() {
    let server = start().await;
    for text in ["break", "cut"] {
        let told = server.transcript(PATH, &streamed(text)).await;
        let (first, last) = (told.lines().nth(1).unwrap(), told.lines().last().unwrap());
        assert!(first.contains("Hel"), "{told}");
        assert!(last.starts_with(r#"data: {"error":{"message":"the model broke off"#) && last.contains("stream_broken"), "{told}");
        assert!(!told.contains("[DONE]") && !told.contains("secret-host"), "{told}");
    }
}

#[tokio::test]
async fn a_stream_that_fails_at_once_has_a_status() {
    let server = start().await;
    let response = server.post(PATH, &streamed("fail at once")).await;
    assert_eq!(response.status(), 503);
    assert!(!response.text().await.unwrap().contains("secret-host"));
    let response = server.post(PATH, &streamed("full")).await;
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (429, "2"));
}

#[tokio::test]
async fn every_field_of_a_request_reaches_the_model() {
    let server = start().await;
    let body = json!({
        "model": "parrot",
        "messages": [
            { "role": "developer", "content": "Be brief." },
            { "role": "user", "name": "ann", "content": [
                { "type": "text", "text": "What is it?" },
                { "type": "image_url", "image_url": { "url": "data:image/png;base64,AAAA", "detail": "low" } },
            ] },
            { "role": "assistant", "content": null, "tool_calls": [
                { "id": "call_9", "type": "function", "function": { "name": "add", "arguments": "{\"a\":1}" } },
            ] },
            { "role": "tool", "tool_call_id": "call_9", "content": "2" },
        ],
        "tools": [{ "type": "function", "function": {
            "name": "add", "description": "Adds.", "strict": true,
            "parameters": { "type": "object", "properties": { "a": { "type": "integer" } }, "required": ["a"], "additionalProperties": false },
        } }],
        "tool_choice": { "type": "function", "function": { "name": "add" } },
        "parallel_tool_calls": false,
        "response_format": { "type": "json_schema", "json_schema": { "name": "sum", "schema": { "type": "object" }, "strict": true } },
        "temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.05,
        "frequency_penalty": 0.5, "presence_penalty": -0.5, "repetition_penalty": 1.5,
        "seed": 42, "stop": "END", "max_tokens": 5, "max_completion_tokens": 9, "logit_bias": { "7": -100 },
        "logprobs": true, "top_logprobs": 2, "n": 2, "user": "end-user", "reasoning_effort": "low",
        "metadata": { "unknown": "to us" }, "store": false,
    });
    server.answer(PATH, &body).await;
    assert_debug_snapshot!(server.script.last_asked());
}

/// A model is shown the tools that it may call, and no others.
#[tokio::test]
async fn only_the_allowed_tools_are_offered() {
    let server = start().await;
    let tool = |name: &str| json!({ "type": "function", "function": { "name": name } });
    let mut body = chat("hi");
    body["tools"] = json!([tool("add"), tool("sub"), tool("mul")]);
    body["tool_choice"] = json!({ "type": "allowed_tools", "allowed_tools": { "mode": "required", "tools": [tool("mul"), tool("add")] } });
    server.answer("/v1/chat/completions", &body).await;
    let asked = server.script.last_asked();
    let names: Vec<&str> = asked.tools.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!((names, asked.tool_choice.unwrap().mode()), (vec!["add", "mul"], Mode::Required));
    body["tool_choice"]["allowed_tools"]["tools"] = json!([tool("div")]);
    let refused = server.refused("POST", "/v1/chat/completions", body).await;
    assert_eq!((refused.0, refused.1), (400, json!("tool_choice.allowed_tools.tools[0]")));
}
