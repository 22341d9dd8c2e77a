//! Upstreams that are away, refuse, hang or fail; and the keys that they are shown.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use llama_stack_core::{Code, Context, Error};
use llama_stack_proto::v1::{ChatRequest, EmbedInput, EmbedRequest};
use tonic::metadata::MetadataMap;

use crate::{
    cx, openai, provider,
    server::{Server, Step, answer, json, nobody, spoken},
};

/// The caller's own key for `up`.
fn cx_with_key(key: &str) -> Context {
    let mut metadata = MetadataMap::new();
    metadata.insert("x-llama-stack-provider-key", format!("up={key}").parse().unwrap());
    Context::from_metadata(&metadata).unwrap()
}

/// The error of one chat that is answered like this.
async fn refused(status: u16, headers: &'static str, body: Value, config: Value, cx: &Context) -> Error {
    let server = Server::start(move |_, _| answer(status, headers, &body.to_string())).await;
    let mut merged = json!({ "url": server.url, "retries": 0 });
    merged.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    openai(merged).await.chat(cx, ChatRequest::user("m", "hi")).await.unwrap_err()
}

async fn plain(status: u16, body: Value) -> Error {
    refused(status, "", body, json!({}), &cx()).await
}

#[tokio::test]
async fn an_upstream_that_is_away_is_named_without_secrets() {
    let (_held, free) = nobody();
    let provider = openai(json!({ "url": format!("http://{free}/v1?key=hush"), "api_key": "hush", "retries": 0 })).await;
    let error = provider.chat(&cx(), ChatRequest::user("m", "hi")).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("upstream_unreachable")));
    assert!(error.message().contains("\"up\"") && error.message().contains(&free.to_string()), "{error}");
    assert!(!format!("{error:?}").contains("hush"), "{error:?}");
}

#[tokio::test]
async fn a_connection_that_closes_without_an_answer_is_unreachable() {
    let server = Server::start(|_, _| vec![Step::Close]).await;
    let error = openai(json!({ "url": server.url, "retries": 0 })).await.chat(&cx(), ChatRequest::user("m", "hi")).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("upstream_unreachable")));
}

#[tokio::test]
async fn an_upstream_that_hangs_is_given_up() {
    let server = Server::start(|_, _| vec![Step::Hang]).await;
    let provider = openai(json!({ "url": server.url, "timeouts": { "total": 0.2 } })).await;
    let error = provider.chat(&cx(), ChatRequest::user("m", "hi")).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::DeadlineExceeded, Some("upstream_timeout")));
    assert!(error.message().contains("0.2 s"), "{error}");
    // The time begins before the connection: a machine that stood still may not have come as far as the request.
    if !server.requests().is_empty() {
        server.client_gone().await;
    }
    assert!(server.requests().len() <= 1, "what may be under way is not begun again");
}

#[tokio::test]
async fn the_callers_deadline_goes_before_the_configured_time() {
    let server = Server::start(|_, _| vec![Step::Hang]).await;
    let provider = openai(json!({ "url": server.url })).await;
    let error = provider.chat(&cx().with_timeout(Duration::from_millis(100)), ChatRequest::user("m", "hi")).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::DeadlineExceeded, None));
}

#[tokio::test]
async fn statuses_become_codes_with_the_upstreams_words() {
    let openai_error = |message: &str, code: &str| json!({ "error": { "message": message, "type": "t", "param": "stop", "code": code } });
    for (status, body, code, reason, words) in [
        (400, openai_error("bad stop", "bad_stop"), Code::InvalidArgument, "bad_stop", "bad stop"),
        (
            400,
            json!({ "object": "error", "message": "This model's maximum context length is 8", "code": 400 }),
            Code::InvalidArgument,
            "context_length_exceeded",
            "is 8",
        ),
        (
            422,
            json!({ "detail": [{ "loc": ["body"], "msg": "field required" }] }),
            Code::InvalidArgument,
            "upstream_error",
            "field required",
        ),
        (404, openai_error("The model `m` does not exist", "model_not_found"), Code::NotFound, "model_not_found", "does not exist"),
        (404, json!({ "detail": "Not Found" }), Code::Unimplemented, "upstream_lacks_call", "127.0.0.1"),
        (413, json!("too big"), Code::TooLarge, "upstream_error", "too big"),
        (500, json!({ "error": "it broke" }), Code::Internal, "upstream_error", "it broke"),
        (503, json!([{ "error": { "message": "overloaded", "code": 503 } }]), Code::Unavailable, "upstream_error", "overloaded"),
        (529, json!({}), Code::Unavailable, "upstream_error", "status 529"),
        (504, json!({}), Code::DeadlineExceeded, "upstream_error", "status 504"),
        (302, json!({}), Code::FailedPrecondition, "upstream_redirect", "302"),
    ] {
        let error = plain(status, body).await;
        assert_eq!((error.code(), error.reason()), (code, Some(reason)), "{status}: {error:?}");
        assert!(error.message().contains(words) && error.message().contains("up"), "{status}: {error}");
    }
    assert_eq!(plain(400, openai_error("bad stop", "bad_stop")).await.field(), Some("stop"));
}

#[tokio::test]
async fn an_upstreams_words_are_bounded() {
    let error = plain(400, json!({ "error": { "message": "x".repeat(100_000) } })).await;
    assert!(error.message().len() < 1_100, "{} bytes", error.message().len());
}

#[tokio::test]
async fn too_many_requests_keep_their_time() {
    let error = refused(429, "retry-after: 7\r\n", json!({}), json!({}), &cx()).await;
    assert_eq!((error.code(), error.retry_after()), (Code::ResourceExhausted, Some(Duration::from_secs(7))));
    let error = refused(429, "retry-after: Wed, 21 Oct 2065 07:28:00 GMT\r\n", json!({}), json!({}), &cx()).await;
    assert!(error.retry_after().is_some_and(|after| after > Duration::from_secs(86_400)), "{:?}", error.retry_after());
}

#[tokio::test]
async fn a_refused_key_is_the_fault_of_whose_it_is() {
    let body = || json!({ "error": { "message": "Incorrect API key: sk-st***", "code": "invalid_api_key" } });
    let stacks = refused(401, "", body(), json!({ "api_key": "sk-stack" }), &cx()).await;
    assert_eq!((stacks.code(), stacks.reason()), (Code::FailedPrecondition, Some("upstream_unauthorized")));
    assert!(
        stacks.message().contains("the upstream refused the key of provider \"up\"") && !stacks.message().contains("sk-st"),
        "{stacks}"
    );
    let none = refused(401, "", body(), json!({}), &cx()).await;
    assert!(none.message().contains("needs an api_key"), "{none}");
    let callers = refused(401, "", body(), json!({ "api_key": "sk-stack" }), &cx_with_key("sk-mine")).await;
    assert_eq!((callers.code(), callers.reason()), (Code::Unauthenticated, Some("invalid_provider_key")));
    let forbidden = refused(403, "", body(), json!({}), &cx_with_key("sk-mine")).await;
    assert_eq!(forbidden.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn requests_carry_key_headers_and_trace() {
    let server = Server::start(|_, _| json(&spoken("ok"))).await;
    let provider = openai(json!({ "url": server.url, "api_key": "sk-stack", "headers": { "x-org": "acme" } })).await;
    let traced = cx().with_request_id("r-1").with_trace("00-aa-bb-01");
    provider.chat(&traced, ChatRequest::user("m", "hi")).await.unwrap();
    provider.chat(&cx_with_key("sk-mine"), ChatRequest::user("m", "hi")).await.unwrap();
    let [first, second] = &server.requests()[..] else { panic!("not 2 requests") };
    for (name, value) in [("authorization", "Bearer sk-stack"), ("x-org", "acme"), ("x-request-id", "r-1"), ("traceparent", "00-aa-bb-01")]
    {
        assert_eq!(first.headers[name], value);
    }
    assert_eq!(second.headers["authorization"], "Bearer sk-mine");
    assert_eq!(first.line, "POST /v1/chat/completions HTTP/1.1");
}

#[tokio::test]
async fn not_now_is_tried_again() {
    for status in [429, 502, 503] {
        let server = Server::start(move |number, _| match number {
            0 => answer(status, "retry-after: 0\r\n", "{}"),
            _ => json(&spoken("ok")),
        })
        .await;
        openai(json!({ "url": server.url })).await.chat(&cx(), ChatRequest::user("m", "hi")).await.unwrap();
        assert_eq!(server.requests().len(), 2);
    }
}

#[tokio::test]
async fn a_server_that_comes_up_meanwhile_is_reached() {
    let (socket, address) = nobody();
    let late = tokio::spawn(async move {
        // Shorter than the first wait before a retry.
        tokio::time::sleep(Duration::from_millis(60)).await;
        let listener = socket.listen(16).unwrap();
        let app = axum::Router::new().route("/v1/chat/completions", axum::routing::post(|| async { axum::Json(spoken("late")) }));
        axum::serve(listener, app).await.unwrap();
    });
    let provider = openai(json!({ "url": format!("http://{address}"), "retries": 5 })).await;
    let response = provider.chat(&cx(), ChatRequest::user("m", "hi")).await.unwrap();
    assert_eq!(response.choices[0].message.as_ref().unwrap().joined_text(), "late");
    late.abort();
}

#[tokio::test]
async fn what_is_not_safe_or_not_soon_is_not_tried_again() {
    for (status, headers, body) in [
        (500, "", "{}"),
        (400, "", "{}"),
        (429, "retry-after: 3600\r\n", "{}"),
        (429, "", r#"{"error":{"message":"pay","code":"insufficient_quota"}}"#),
    ] {
        let server = Server::start(move |_, _| answer(status, headers, body)).await;
        let began = Instant::now();
        openai(json!({ "url": server.url, "retries": 3 })).await.chat(&cx(), ChatRequest::user("m", "hi")).await.unwrap_err();
        assert_eq!(server.requests().len(), 1, "status {status} {headers}");
        assert!(began.elapsed() < Duration::from_secs(60));
    }
}

#[tokio::test]
async fn retries_end_with_the_last_error_and_before_the_deadline() {
    let server = Server::start(|_, _| answer(503, "retry-after: 0\r\n", "{}")).await;
    let provider = openai(json!({ "url": server.url, "retries": 3 })).await;
    assert_eq!(provider.chat(&cx(), ChatRequest::user("m", "hi")).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(server.requests().len(), 4);
    let patient = Server::start(|_, _| answer(503, "retry-after: 15\r\n", "{}")).await;
    let provider = openai(json!({ "url": patient.url })).await;
    let error = provider.chat(&cx().with_timeout(Duration::from_secs(14)), ChatRequest::user("m", "hi")).await.unwrap_err();
    // It would have been too late: the upstream's own error says more than a deadline.
    assert_eq!((error.code(), error.retry_after()), (Code::Unavailable, Some(Duration::from_secs(15))));
    assert_eq!(patient.requests().len(), 1);
}

#[tokio::test]
async fn what_is_no_answer_is_malformed() {
    for body in ["<html>", "{}", r#"{"choices":[]}"#, r#"{"choices":[{"message":7}]}"#] {
        let server = Server::start(move |_, _| answer(200, "", body)).await;
        let error = openai(json!({ "url": server.url })).await.chat(&cx(), ChatRequest::user("m", "hi")).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable, "{body}");
        assert!(["upstream_malformed", "stream_broken"].contains(&error.reason().unwrap()), "{body}: {error:?}");
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_broken() {
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{\"choices\"".to_vec();
    let server = Server::start(move |_, _| vec![Step::Send(head.clone()), Step::Close]).await;
    let provider = openai(json!({ "url": server.url })).await;
    let request = EmbedRequest { model: "m".into(), inputs: vec![EmbedInput::text("x")], ..EmbedRequest::default() };
    let error = provider.embed(&cx(), request).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("stream_broken")));
}

#[tokio::test]
async fn a_wrong_configuration_is_named() {
    for (config, field) in [
        (json!({}), "config.url"),
        (json!({ "url": "localhost:8000" }), "config.url"),
        (json!({ "url": "http://user:pw@host/v1" }), "config.url"),
        (json!({ "preset": "vlm" }), "config.preset"),
        (json!({ "url": "http://h/v1", "timeouts": { "idle": 0 } }), "config.timeouts.idle"),
        (json!({ "url": "http://h/v1", "headers": { "a b": "c" } }), "config.headers.a b"),
        (json!({ "url": "http://h/v1", "api_key": "a\nb" }), "config.api_key"),
        (json!({ "url": "http://h/v1", "modles": [] }), "config.modles"),
    ] {
        let error = provider("remote::openai", config.clone()).await.err().unwrap_or_else(|| panic!("{config} was accepted"));
        assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some(field)), "{error}");
        assert!(!error.message().contains("pw"));
    }
}
