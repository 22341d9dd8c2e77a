//! Bad input: each has its status, a message that names the field, and costs nothing but itself.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::client::{Server, chat, start, start_with, streamed};

const CHAT: &str = "/v1/chat/completions";

/// A body that `change` has spoiled is answered with this status, for this field, in words that hold `says`.
async fn refused(server: &Server, path: &str, body: Value, status: u16, param: Option<&str>, says: &str) {
    let response = server.post(path, &body).await;
    let (got, error) = (response.status().as_u16(), response.json::<Value>().await.unwrap());
    let error = &error["error"];
    assert_eq!((got, error["param"].as_str()), (status, param), "{body} {error}");
    assert!(error["message"].as_str().unwrap().contains(says), "{body} {error}");
    assert!(error["type"].is_string(), "{error}");
}

fn with(field: &str, value: Value) -> Value {
    let mut body = chat("hi");
    body[field] = value;
    body
}

fn without(field: &str) -> Value {
    let mut body = chat("hi");
    body.as_object_mut().unwrap().remove(field);
    body
}

#[tokio::test]
async fn an_unknown_model_is_answered_with_those_that_there_are() {
    let server = start().await;
    refused(&server, CHAT, with("model", json!("gpt-9")), 404, Some("model"), "parrot").await;
    refused(&server, "/v1/completions", json!({ "model": "x", "prompt": "" }), 404, Some("model"), "parrot").await;
    refused(&server, "/v1/embeddings", json!({ "model": "x", "input": "a" }), 404, Some("model"), "org/vectors").await;
    let error: Value = server.get("/v1/models/gpt-9").await.json().await.unwrap();
    assert_eq!(error["error"]["code"], "model_not_found");
}

#[tokio::test]
async fn a_missing_or_wrong_field_is_named() {
    let server = start().await;
    refused(&server, CHAT, without("model"), 400, Some("model"), "model: missing field").await;
    refused(&server, CHAT, without("messages"), 400, Some("messages"), "messages: missing field").await;
    refused(&server, CHAT, with("messages", json!("hi")), 400, Some("messages"), "expected a sequence").await;
    let message = |message: Value| with("messages", json!([message]));
    refused(&server, CHAT, message(json!({ "content": "a" })), 400, Some("messages[0].role"), "missing field").await;
    refused(&server, CHAT, message(json!({ "role": "robot", "content": "a" })), 400, Some("messages[0].role"), "`assistant`").await;
    refused(&server, CHAT, message(json!({ "role": "user" })), 400, Some("messages[0].content"), "missing field").await;
    let wrong = message(json!({ "role": "user", "content": 5 }));
    refused(&server, CHAT, wrong, 400, Some("messages[0].content"), "expected a string or an array").await;
    let wrong = message(json!({ "role": "user", "content": [{ "type": "text", "text": 5 }] }));
    refused(&server, CHAT, wrong, 400, Some("messages[0].content[0].text"), "expected a string").await;
    refused(&server, CHAT, message(json!({ "role": "tool", "content": "2" })), 400, Some("messages[0].tool_call_id"), "missing").await;
    refused(&server, CHAT, with("temperature", json!("hot")), 400, Some("temperature"), "expected f32").await;
    refused(&server, CHAT, with("tool_choice", json!("often")), 400, Some("tool_choice"), "often").await;
    refused(&server, CHAT, with("tools", json!([{ "type": "custom" }])), 400, Some("tools[0].type"), "function").await;
    refused(&server, CHAT, with("logit_bias", json!({ "the": 1 })), 400, Some("logit_bias.the"), "token ids").await;
    let format = json!({ "type": "json_schema" });
    refused(&server, CHAT, with("response_format", format), 400, Some("response_format.json_schema"), "missing field").await;
    refused(&server, CHAT, with("stream_options", json!({})), 400, Some("stream_options"), "stream").await;
    let mixed = json!({ "model": "org/vectors", "input": ["a", 5] });
    refused(&server, "/v1/embeddings", mixed, 400, Some("input[1]"), "mixed").await;
}

/// Numbers out of range never reach a model.
#[tokio::test]
async fn negative_and_absurd_limits_are_refused() {
    let server = start().await;
    for (field, value) in [
        ("max_tokens", json!(-1)),
        ("max_tokens", json!(0)),
        ("max_completion_tokens", json!(5_000_000_000_u64)),
        ("n", json!(0)),
        ("n", json!(1_000_000)),
        ("temperature", json!(9)),
        ("top_p", json!(0)),
        ("top_logprobs", json!(1_000)),
        ("frequency_penalty", json!(-3)),
    ] {
        let response = server.post(CHAT, &with(field, value.clone())).await;
        assert_eq!(response.status(), 400, "{field} {value}");
        let error: Value = response.json().await.unwrap();
        assert!(error["error"]["message"].as_str().unwrap().contains(field.trim_start_matches("max_completion_")), "{field} {error}");
    }
}

/// `param` is the client's own name of a field, whatever the contract calls it.
#[tokio::test]
async fn a_field_that_a_service_refuses_has_the_clients_name() {
    let server = start().await;
    refused(&server, CHAT, with("temperature", json!(9)), 400, Some("temperature"), "temperature is 9").await;
    refused(&server, CHAT, with("max_completion_tokens", json!(0)), 400, Some("max_completion_tokens"), "at least 1").await;
    let tools = json!([{ "type": "function", "function": { "name": "a b" } }]);
    refused(&server, CHAT, with("tools", tools), 400, Some("tools[0].function.name"), "a b").await;
    let completion = json!({ "model": "parrot", "prompt": "a", "top_p": 7 });
    refused(&server, "/v1/completions", completion, 400, Some("top_p"), "top_p is 7").await;
    let embedding = |input: Value| json!({ "model": "org/vectors", "input": input });
    refused(&server, "/v1/embeddings", embedding(json!("")), 400, Some("input"), "input is an empty").await;
    refused(&server, "/v1/embeddings", embedding(json!(["a", ""])), 400, Some("input[1]"), "input[1] is an empty").await;
}

/// Also where the status line had gone out.
#[tokio::test]
async fn a_field_that_is_refused_within_a_stream_has_the_clients_name() {
    let server = start().await;
    let completion = json!({ "model": "parrot", "prompt": "break over a field", "stream": true });
    for (path, body) in [(CHAT, streamed("break over a field")), ("/v1/completions", completion)] {
        let told = server.transcript(path, &body).await;
        assert!(told.contains("Hel") && told.contains(r#""param":"top_p""#), "{told}");
    }
}

#[tokio::test]
async fn a_conversation_that_cannot_be_is_refused() {
    let server = start().await;
    refused(&server, CHAT, with("messages", json!([])), 400, Some("messages"), "").await;
    let unpaired = json!([{ "role": "user", "content": "a" }, { "role": "tool", "tool_call_id": "call_1", "content": "2" }]);
    let response = server.post(CHAT, &with("messages", unpaired)).await;
    assert_eq!(response.status(), 400);
    assert!(response.text().await.unwrap().contains("call_1"));
    let format = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": { "type": "nonsense" } } });
    let response = server.post(CHAT, &with("response_format", format)).await;
    assert_eq!(response.status(), 400);
}

#[tokio::test]
async fn what_is_not_supported_is_refused_by_name() {
    let server = start().await;
    for (field, value) in [
        ("functions", json!([])),
        ("audio", json!({ "voice": "alloy" })),
        ("modalities", json!(["text", "audio"])),
        ("web_search_options", json!({})),
        ("guided_choice", json!(["yes", "no"])),
        ("structured_outputs", json!({ "regex": "yes|no" })),
    ] {
        refused(&server, CHAT, with(field, value), 400, Some(field), "not supported").await;
    }
    let audio = json!([{ "role": "user", "content": [{ "type": "input_audio", "input_audio": { "data": "" } }] }]);
    refused(&server, CHAT, with("messages", audio), 400, Some("messages[0].content[0].type"), "input_audio").await;
}

#[tokio::test]
async fn bad_json_says_where_it_is_bad() {
    let server = start().await;
    let send = async |kind: &str, body: &'static str| {
        let response = server.http.post(server.url(CHAT)).header("content-type", kind).body(body).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap()["error"]["message"].as_str().unwrap().to_owned())
    };
    let (status, message) = send("application/json", "{\"model\": \"parrot\",\n oops}").await;
    assert_eq!((status, message.as_str()), (400, "the body is not valid JSON: key must be a string at line 2 column 2"));
    assert_eq!(send("application/json", "").await.0, 400);
    let (status, message) = send("application/x-www-form-urlencoded", "{}").await;
    assert_eq!((status, message.contains("content-type must be application/json")), (400, true), "{message}");
}

#[tokio::test]
async fn an_unknown_route_and_a_wrong_method_are_error_objects() {
    let server = start().await;
    let response = server.get("/v1/chat").await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    insta::assert_snapshot!(response.text().await.unwrap(), @r#"{"error":{"message":"no route GET /v1/chat; GET /openapi.json lists what there is","type":"invalid_request_error","param":null,"code":"unknown_route"}}"#);
    let response = server.http.request(Method::PUT, server.url(CHAT)).send().await.unwrap();
    assert_eq!((response.status(), response.headers()["allow"].to_str().unwrap()), (StatusCode::METHOD_NOT_ALLOWED, "POST"));
    insta::assert_snapshot!(response.text().await.unwrap(), @r#"{"error":{"message":"/v1/chat/completions does not take PUT","type":"invalid_request_error","param":null,"code":"method_not_allowed"}}"#);
}

/// In the form of every other error, with the parameter's name.
#[tokio::test]
async fn a_wrong_query_or_path_is_an_error_object() {
    let server = start().await;
    for (url, param) in [
        ("/v1/files?limit=abc", Some("limit")),
        ("/v1/batches?limit=-1", Some("limit")),
        ("/v1/responses/resp_1?stream=maybe", Some("stream")),
        ("/v1/conversations?limit=1.5", Some("limit")),
        ("/v1/responses/%ff", None),
    ] {
        let response = server.get(url).await;
        assert_eq!(response.status(), 400, "{url}");
        let error: Value = response.json().await.unwrap();
        assert_eq!((error["error"]["type"].as_str(), error["error"]["param"].as_str()), (Some("invalid_request_error"), param), "{error}");
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_413() {
    let server = start_with("server: { max_body_bytes: 2000 }\n").await;
    refused(&server, CHAT, chat(&"x".repeat(2_000)), 413, None, "2000 bytes").await;
    // Without a length, and larger than the socket's buffers: the answer still arrives.
    let pieces = futures::stream::iter((0..8).map(|_| Ok::<_, std::io::Error>(bytes::Bytes::from(vec![b' '; 1 << 20]))));
    let request = server.http.post(server.url(CHAT)).header("content-type", "application/json");
    assert_eq!(request.body(reqwest::Body::wrap_stream(pieces)).send().await.unwrap().status(), 413);
    server.answer(CHAT, &chat("hi")).await;
}

#[tokio::test]
async fn a_head_over_the_limit_is_431() {
    let server = start().await;
    let response = server.http.get(server.url("/livez")).header("x-large", "x".repeat(100_000)).send().await.unwrap();
    assert_eq!(response.status(), 431);
}

#[tokio::test]
async fn a_crooked_tenant_is_refused() {
    let server = start().await;
    let request = server.http.get(server.url("/v1/models")).header("x-llama-stack-tenant", "a/../b");
    assert_eq!(request.send().await.unwrap().status(), 400);
}

#[tokio::test]
async fn a_panic_is_a_500_and_harms_nobody_else() {
    let server = start().await;
    let response = server.post(CHAT, &chat("panic")).await;
    assert_eq!(response.status(), 500);
    assert!(response.headers().contains_key("x-request-id"));
    let body = response.text().await.unwrap();
    assert!(body.contains("server_error") && !body.contains("fell over"), "{body}");
    server.answer(CHAT, &chat("hi")).await;
}

/// A deadline ends a call that would wait for ever, whole or streamed.
#[tokio::test]
async fn a_deadline_is_kept() {
    let server = start().await;
    let send = async |body: Value| server.http.post(server.url(CHAT)).header("grpc-timeout", "300m").json(&body).send().await.unwrap();
    assert_eq!(send(chat("silent")).await.status(), 504);
    let response = send(crate::client::streamed("forever")).await;
    assert!(response.text().await.unwrap().contains("timeout_error"));
}
