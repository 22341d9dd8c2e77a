//! Streams: however they are cut, and however they end.

use std::time::Duration;

use futures::StreamExt;
use serde_json::json;

use llama_stack_core::Code;
use llama_stack_proto::v1::{ChatEvent, ChatRequest, CompleteRequest, FinishReason, ToolCallDelta, Usage, chat_event::Event};

use crate::{
    all, cx, openai,
    server::{DONE, FINISHED, PATIENCE, Server, Step, answer, chunk, json, last_chunk, said, spoken, stream, stream_head},
};

/// Reasoning, text of several bytes a character, two calls, usage; in the shape of the public reference.
const RECORDED: &str = concat!(
    ": queued\n\n",
    "data: {\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"reasoning_content\":\"hm…\"}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Grüße 🦀\"}}]}\r\n\r\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":\"{}\"}},{\"index\":1,\"id\":\"b\",\"function\":{\"name\":\"g\",\"arguments\":\"{\\\"x\\\":1}\"}}]}}]}\n\n",
    "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"tool_calls\"}]}\n\n",
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":7,\"prompt_tokens_details\":{\"cached_tokens\":4}}}\n\n",
    "data: [DONE]\n\n",
);

fn expected() -> Vec<ChatEvent> {
    let call = |index, id: &str, name: &str, arguments: &str| {
        ChatEvent::tool_call(0, ToolCallDelta { index, id: id.into(), name: name.into(), arguments: arguments.into() })
    };
    vec![
        ChatEvent::new(0, Event::Reasoning("hm…".into())),
        ChatEvent::text(0, "Grüße 🦀"),
        call(0, "a", "f", ""),
        call(0, "", "", "{}"),
        call(1, "b", "g", r#"{"x":1}"#),
        ChatEvent::finish(0, FinishReason::ToolCalls),
        ChatEvent::usage(Usage { prompt_tokens: 9, completion_tokens: 7, cached_tokens: 4, reasoning_tokens: 0 }),
    ]
}

async fn chat_events(server: &Server, config: serde_json::Value) -> (Vec<ChatEvent>, Option<llama_stack_core::Error>) {
    let mut merged = json!({ "url": server.url });
    merged.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    let provider = openai(merged).await;
    match provider.stream_chat(&cx(), ChatRequest::user("m", "hi")).await {
        Ok(events) => all(events).await,
        Err(error) => (Vec::new(), Some(error)),
    }
}

/// The error of a stream that is made of `steps`, after its events.
async fn ends_with(steps: Vec<Step>, config: serde_json::Value) -> (usize, llama_stack_core::Error) {
    let server = Server::start(move |_, _| steps.clone()).await;
    let (events, error) = chat_events(&server, config).await;
    (events.len(), error.expect("the stream ended well"))
}

#[tokio::test]
async fn a_stream_cut_at_any_byte_reads_the_same_over_one_connection() {
    let cuts = RECORDED.len();
    let server = Server::start(move |number, _| {
        let (first, second) = RECORDED.as_bytes().split_at(number.min(cuts));
        let mut steps = vec![stream_head()];
        for part in [first, second].into_iter().filter(|part| !part.is_empty()) {
            steps.extend([chunk(part), Step::Pause(Duration::from_micros(300))]);
        }
        steps.push(last_chunk());
        steps
    })
    .await;
    let provider = openai(json!({ "url": server.url })).await;
    for cut in 0..=cuts {
        let events = provider.stream_chat(&cx(), ChatRequest::user("m", "hi")).await.unwrap();
        let (events, error) = all(events).await;
        assert!(error.is_none(), "cut at {cut}: {error:?}");
        assert_eq!(events, expected(), "cut at {cut}");
    }
    // A stream's end is waited for as long as it takes on a machine that does not stand still: seldom is it too late.
    assert!(
        server.connections() * 10 < cuts,
        "{} connections: streams that were read to their end do not give them back",
        server.connections()
    );
}

#[tokio::test]
async fn events_come_as_they_are_made() {
    let server = Server::start(|_, _| vec![stream_head(), chunk(said("one").as_bytes()), Step::Hang]).await;
    let provider = openai(json!({ "url": server.url })).await;
    let mut events = provider.stream_chat(&cx(), ChatRequest::user("m", "hi")).await.unwrap();
    let first = tokio::time::timeout(PATIENCE, events.next()).await.expect("the first event was held back");
    assert_eq!(first.unwrap().unwrap(), ChatEvent::text(0, "one"));
    // And the upstream sees that nobody listens any more.
    drop(events);
    server.client_gone().await;
}

#[tokio::test]
async fn a_dropped_call_closes_the_upstreams_connection() {
    let server = Server::start(|_, _| vec![Step::Hang]).await;
    let provider = openai(json!({ "url": server.url })).await;
    let (context, request) = (cx(), ChatRequest::user("m", "hi"));
    tokio::select! {
        ended = provider.chat(&context, request) => panic!("the server hangs: {ended:?}"),
        () = server.asked() => {}
    }
    server.client_gone().await;
}

#[tokio::test]
async fn a_stream_that_breaks_off_says_so() {
    let begun = || vec![stream_head(), chunk(said("one").as_bytes())];
    // The connection closes within the body; the body ends well but too early.
    for end in [Step::Close, last_chunk()] {
        let mut steps = begun();
        steps.push(end);
        let (events, error) = ends_with(steps, json!({})).await;
        assert_eq!((events, error.code(), error.reason()), (1, Code::Unavailable, Some("stream_broken")));
        assert!(error.message().contains("\"up\""));
    }
}

#[tokio::test]
async fn an_end_without_done_is_an_end_where_the_answer_is_done() {
    let text = [said("one"), FINISHED.into()].concat();
    let server = Server::start(move |_, _| stream(&text)).await;
    let (events, error) = chat_events(&server, json!({})).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(events.len(), 3);
}

#[tokio::test]
async fn a_silent_stream_is_given_up() {
    for steps in [vec![Step::Hang], vec![stream_head(), Step::Hang]] {
        let (events, error) = ends_with(steps, json!({ "timeouts": { "first_byte": 0.1 } })).await;
        assert_eq!((events, error.code(), error.reason()), (0, Code::DeadlineExceeded, Some("upstream_timeout")));
    }
    let begun = |text: &str| vec![stream_head(), chunk(text.as_bytes()), Step::Hang];
    let quick = json!({ "timeouts": { "idle": 0.1 } });
    let (events, error) = ends_with(begun(&said("one")), quick.clone()).await;
    assert_eq!((events, error.code(), error.reason()), (1, Code::DeadlineExceeded, Some("upstream_timeout")));
    // All that matters was said; only the end is missing.
    let server = Server::start(move |_, _| begun(&[said("one"), FINISHED.into()].concat())).await;
    assert!(chat_events(&server, quick).await.1.is_none());
}

#[tokio::test]
async fn a_stream_ends_at_the_callers_deadline() {
    // The deadline has to leave time for the first event, however busy this machine is.
    for seconds in [0.2, 2.0, 20.0] {
        let server = Server::start(|_, _| vec![stream_head(), chunk(said("one").as_bytes()), Step::Hang]).await;
        let provider = openai(json!({ "url": server.url })).await;
        let hurried = cx().with_timeout(Duration::from_secs_f64(seconds));
        let (events, error) = match provider.stream_chat(&hurried, ChatRequest::user("m", "hi")).await {
            Ok(events) => all(events).await,
            Err(error) => (Vec::new(), Some(error)),
        };
        assert_eq!(error.unwrap().code(), Code::DeadlineExceeded);
        if !events.is_empty() {
            assert_eq!(events, [ChatEvent::text(0, "one")]);
            return server.client_gone().await;
        }
    }
    panic!("a deadline of 20 seconds is over before the first event");
}

#[tokio::test]
async fn what_is_no_json_is_malformed() {
    let text = [said("one"), "data: {\"choices\":[{\"del\n\n".into(), DONE.into()].concat();
    let (events, error) = ends_with(stream(&text), json!({})).await;
    assert_eq!((events, error.code(), error.reason()), (1, Code::Unavailable, Some("upstream_malformed")));
    assert!(!error.message().contains("choices"), "a message holds what may be a user's words");
}

#[tokio::test]
async fn an_error_within_a_stream_is_that_error() {
    for (event, code, reason) in [
        (
            r#"data: {"error":{"message":"slow down","type":"rate_limit_error","code":"rate_limit_exceeded"}}"#,
            Code::ResourceExhausted,
            "rate_limit_exceeded",
        ),
        (r#"data: {"error":{"message":"too long","type":"BadRequestError","code":400}}"#, Code::InvalidArgument, "upstream_error"),
        (r#"data: {"object": "error", "message": "oh", "type": "x", "code": 500}"#, Code::Internal, "upstream_error"),
        ("event: error\ndata: {\"error\":\"out of memory\"}", Code::Unavailable, "upstream_error"),
    ] {
        let (events, error) = ends_with(stream(&format!("{}{event}\n\n{DONE}", said("one"))), json!({})).await;
        assert_eq!((events, error.code(), error.reason()), (1, code, Some(reason)), "{event}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_stream_is_read_all_the_same() {
    let server = Server::start(|_, _| json(&spoken("whole"))).await;
    let (events, error) = chat_events(&server, json!({})).await;
    assert!(error.is_none());
    assert_eq!(events[0], ChatEvent::text(0, "whole"));
    assert_eq!(events.len(), 3);
}

#[tokio::test]
async fn a_stream_that_began_is_never_begun_again() {
    let server = Server::start(|_, _| vec![stream_head(), chunk(said("one").as_bytes()), Step::Close]).await;
    let (_, error) = chat_events(&server, json!({ "retries": 5 })).await;
    assert!(error.is_some());
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_completion_streams_its_text() {
    let text = "data: {\"choices\":[{\"index\":0,\"text\":\"a\"}]}\n\ndata: {\"choices\":[{\"index\":0,\"text\":\"b\",\"finish_reason\":\"length\"}]}\n\ndata: [DONE]\n\n";
    let server =
        Server::start(move |_, request| if request.line.contains("/v1/completions ") { stream(text) } else { answer(404, "", "{}") }).await;
    let provider = openai(json!({ "url": server.url })).await;
    let (events, error) = all(provider.stream_complete(&cx(), CompleteRequest::text("m", "x")).await.unwrap()).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(events.len(), 4);
    assert_eq!(server.requests()[0].json()["prompt"], "x");
}
