use std::{sync::Arc, time::Duration};

use llama_stack_core::{Code, Context, Deps, Tools};
use llama_stack_proto::v1::{McpServer, OnInterrupt};
use llama_stack_tests::conformance::tools::{self as promises, Call};
use llama_stack_tools::{Router, mcp};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpSocket},
    time::timeout,
};
use tonic::metadata::MetadataMap;

use crate::{
    client::{PATIENCE, ask, built, call, cx, list, names, provider, sunny, until},
    server::{Generation, Seen, Server},
};

const BOTH: [Generation; 2] = [Generation::Old, Generation::New];

/// A list that is believed for longer than any test runs.
fn config(server: &Server) -> Value {
    json!({ "url": server.url(), "list_age_seconds": 600, "list_timeout_seconds": 60, "timeout_seconds": 60 })
}

fn with(server: &Server, more: Value) -> Value {
    let mut config = config(server);
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

#[tokio::test]
async fn tools_are_listed_page_by_page_and_called() {
    for generation in BOTH {
        let seen = Seen::new(generation);
        let server = Server::start(&seen).await;
        let tools = provider(config(&server)).await;
        assert_eq!(names(&*tools).await, ["weather", "fails", "slow", "a_dotted"]);
        assert_eq!(*seen.lists.lock().unwrap(), [None, Some("2".to_owned())]);
        let listed = list(&*tools, &cx()).await.unwrap();
        let of =
            |tool: &llama_stack_proto::v1::Tool| (tool.group_id.clone(), tool.changes_state, tool.reads_untrusted, tool.on_interrupt());
        assert_eq!(of(&listed[0]), ("mcp".into(), false, true, OnInterrupt::Retry));
        assert_eq!(of(&listed[1]), ("mcp".into(), true, true, OnInterrupt::Fail));
        assert!(listed[0].definition.as_ref().unwrap().parameters.contains("\"required\":[\"city\"]"));

        assert_eq!(ask(&*tools, "Oslo").await.unwrap(), sunny("Oslo"));
        assert_eq!(call(&*tools, &cx(), "a_dotted", r#"{"city":"Rome"}"#).await.unwrap(), sunny("Rome"));
        assert_eq!(seen.last_call()["name"], "a.dotted");
        drop(tools);
        server.stop().await;
    }
}

#[tokio::test]
async fn a_tools_failure_and_a_refusal_are_told_to_the_model() {
    for generation in BOTH {
        let seen = Seen::new(generation);
        let server = Server::start(&seen).await;
        let tools = provider(config(&server)).await;
        assert_eq!(call(&*tools, &cx(), "fails", "").await.unwrap(), (true, "it is broken".into()));
        let (is_error, text) = call(&*tools, &cx(), "weather", "{}").await.unwrap();
        assert!(is_error && text.contains("city: missing field"), "{text}");
        assert_eq!(ask(&*tools, "Oslo").await.unwrap(), sunny("Oslo"));
        drop(tools);
        server.stop().await;
    }
}

#[tokio::test]
async fn a_call_carries_its_key_and_its_trace() {
    for generation in BOTH {
        let seen = Seen::new(generation);
        let server = Server::start(&seen).await;
        let tools = provider(config(&server)).await;
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let cx = cx().with_idempotency_key("k7").with_trace(trace);
        call(&*tools, &cx, "weather", r#"{"city":"Oslo"}"#).await.unwrap();
        let meta = seen.last_call()["meta"].clone();
        assert_eq!((&meta["llama-stack/idempotency-key"], &meta["traceparent"]), (&json!("k7"), &json!(trace)));
        ask(&*tools, "Oslo").await.unwrap();
        assert_eq!(seen.last_call()["meta"].get("llama-stack/idempotency-key"), None);
        drop(tools);
        server.stop().await;
    }
}

#[tokio::test]
async fn a_list_that_changed_is_asked_for_again() {
    for generation in BOTH {
        let seen = Seen::new(generation);
        let server = Server::start(&seen).await;
        let tools = provider(config(&server)).await;
        names(&*tools).await;
        if generation == Generation::New {
            timeout(PATIENCE, seen.subscribed.notified()).await.expect("nobody subscribed");
        }
        // Until the way for news is open, a change is not told; afterwards it is.
        until("the new list", || async {
            seen.change(&["weather", "sunrise"]).await;
            names(&*tools).await == ["weather", "sunrise"]
        })
        .await;
        // The last of those news may still be on its way.
        until("a list that is kept", || async {
            let asked = seen.lists.lock().unwrap().len();
            names(&*tools).await;
            seen.lists.lock().unwrap().len() == asked
        })
        .await;
        drop(tools);
        server.stop().await;
    }
}

#[tokio::test]
async fn a_tool_that_vanished_without_a_word_is_not_found() {
    for generation in BOTH {
        let seen = Seen::new(generation);
        let server = Server::start(&seen).await;
        let tools = provider(config(&server)).await;
        assert_eq!(ask(&*tools, "Oslo").await.unwrap(), sunny("Oslo"));
        *seen.tools.lock().unwrap() = vec!["sunrise"];
        let error = ask(&*tools, "Oslo").await.unwrap_err();
        assert_eq!(error.code(), Code::NotFound);
        assert!(error.message().contains("sunrise"), "{error}");

        let router = Router::new(vec![("mcp".into(), tools)]);
        let (is_error, text) = ask(&router, "Oslo").await.unwrap();
        assert!(is_error && text.contains("there is: sunrise"), "{text}");
        drop(router);
        server.stop().await;
    }
}

#[tokio::test]
async fn a_server_may_come_late_and_come_back() {
    for generation in BOTH {
        let seen = Seen::new(generation);
        // Nobody listens there yet, and the address is nobody else's while it is held.
        let held = TcpSocket::new_v4().unwrap();
        held.set_reuseaddr(true).unwrap();
        held.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = held.local_addr().unwrap();
        let tools = provider(json!({ "url": format!("http://{address}/mcp"), "list_timeout_seconds": 60 })).await;
        let error = ask(&*tools, "Oslo").await.unwrap_err();
        assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("upstream_unreachable")), "{error:?}");

        for _ in 0..2 {
            let server = Server::on(address, &seen).await;
            until("an answer", || async { ask(&*tools, "Oslo").await.is_ok_and(|answer| answer == sunny("Oslo")) }).await;
            server.stop().await;
            assert_eq!(ask(&*tools, "Oslo").await.unwrap_err().code(), Code::Unavailable);
        }
    }
}

/// Calls until a call has begun at the server before its time was over, and waits until the server was told to stop it.
async fn told_to_stop(seen: &Seen, call: impl AsyncFn()) {
    for _ in 0..20 {
        call().await;
        if timeout(Duration::from_secs(1), seen.slow_begun.notified()).await.is_ok() {
            return timeout(PATIENCE, seen.cancelled.notified()).await.expect("the server was not told to stop");
        }
    }
    panic!("no call came as far as the server");
}

#[tokio::test]
async fn a_slow_call_is_told_and_the_server_is_told_to_stop() {
    for generation in BOTH {
        let seen = Seen::new(generation);
        let server = Server::start(&seen).await;
        let hasty = provider(with(&server, json!({ "timeout_seconds": 0.3 }))).await;
        names(&*hasty).await;
        told_to_stop(&seen, async || {
            let (is_error, text) = call(&*hasty, &cx(), "slow", "{}").await.unwrap();
            assert!(is_error && text.contains("0.3 seconds"), "{text}");
        })
        .await;

        let tools = provider(config(&server)).await;
        names(&*tools).await;
        told_to_stop(&seen, async || {
            let hurried = cx().with_timeout(Duration::from_millis(200));
            assert_eq!(call(&*tools, &hurried, "slow", "{}").await.unwrap_err().code(), Code::DeadlineExceeded);
        })
        .await;
        assert_eq!(ask(&*tools, "Oslo").await.unwrap(), sunny("Oslo"));
        drop((hasty, tools));
        server.stop().await;
    }
}

#[tokio::test]
async fn a_configured_token_and_headers_are_sent() {
    for generation in BOTH {
        let seen = Seen::new(generation);
        *seen.token.lock().unwrap() = Some("t1");
        let server = Server::start(&seen).await;
        let tools = provider(with(&server, json!({ "authorization": "t1", "headers": { "x-team": "blue" } }))).await;
        assert_eq!(ask(&*tools, "Oslo").await.unwrap(), sunny("Oslo"));
        assert!(seen.teams.lock().unwrap().iter().all(|team| team == "blue"));

        let wrong = provider(with(&server, json!({ "authorization": "t2" }))).await;
        let error = ask(&*wrong, "Oslo").await.unwrap_err();
        assert_eq!((error.code(), error.reason()), (Code::FailedPrecondition, Some("upstream_unauthorized")), "{error:?}");
        assert!(!format!("{error:?}").contains("t2"));
        drop((tools, wrong));
        server.stop().await;
    }
}

#[tokio::test]
async fn a_callers_own_key_is_used_for_that_caller_alone() {
    let seen = Seen::new(Generation::New);
    *seen.token.lock().unwrap() = Some("anns");
    let server = Server::start(&seen).await;
    let tools = provider(config(&server)).await;
    let keyed = |key: &str| {
        let mut metadata = MetadataMap::new();
        metadata.insert("x-llama-stack-provider-key", format!("mcp={key}").parse().unwrap());
        Context::from_metadata(&metadata).unwrap()
    };
    let error = ask(&*tools, "Oslo").await.unwrap_err();
    assert_eq!(error.code(), Code::Unauthenticated);
    assert!(error.message().contains("x-llama-stack-provider-key"), "{error}");
    assert_eq!(call(&*tools, &keyed("anns"), "weather", r#"{"city":"Oslo"}"#).await.unwrap(), sunny("Oslo"));
    assert_eq!(list(&*tools, &keyed("bobs")).await.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(list(&*tools, &cx()).await.unwrap_err().code(), Code::Unauthenticated);
    drop(tools);
    server.stop().await;
}

#[tokio::test]
async fn only_allowed_tools_are_offered_and_called() {
    let seen = Seen::new(Generation::New);
    let server = Server::start(&seen).await;
    let tools = provider(with(&server, json!({ "allowed_tools": ["weather", "a.dotted"], "prefix": "w-" }))).await;
    assert_eq!(names(&*tools).await, ["w-weather", "w-a_dotted"]);
    assert_eq!(call(&*tools, &cx(), "w-weather", r#"{"city":"Oslo"}"#).await.unwrap(), sunny("Oslo"));
    for name in ["w-fails", "fails", "weather"] {
        assert_eq!(call(&*tools, &cx(), name, "{}").await.unwrap_err().code(), Code::NotFound, "{name}");
    }
    assert_eq!(seen.calls.lock().unwrap().len(), 1);
    drop(tools);
    server.stop().await;
}

#[tokio::test]
async fn a_server_that_says_nothing_holds_nobody_up() {
    // Connections are accepted by the system, and nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", silent.local_addr().unwrap());
    let tools = provider(json!({ "url": url, "list_timeout_seconds": 0.2 })).await;
    for _ in 0..2 {
        let error = list(&*tools, &cx()).await.unwrap_err();
        assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("upstream_timeout")));
    }
}

#[tokio::test]
async fn a_turns_server_is_connected_to_by_its_message() {
    let seen = Seen::new(Generation::New);
    *seen.token.lock().unwrap() = Some("t1");
    let server = Server::start(&seen).await;
    let asked = McpServer {
        label: "forecast".into(),
        url: server.url(),
        authorization: "t1".into(),
        headers: [("x-team".to_owned(), "red".to_owned())].into(),
        allowed_tools: vec!["weather".into()],
        ..McpServer::default()
    };
    let near = Deps { egress: serde_json::from_value(json!({ "allow": ["127.0.0.1"] })).unwrap(), ..Deps::new(".") };
    let error = mcp::connect(&asked, &Deps::new(".")).await.err().unwrap();
    assert_eq!((error.code(), error.reason(), error.field()), (Code::PermissionDenied, Some("egress_refused"), Some("url")));
    let tools = mcp::connect(&asked, &near).await.unwrap();
    assert_eq!(names(&*tools).await, ["weather"]);
    assert_eq!(ask(&*tools, "Oslo").await.unwrap(), sunny("Oslo"));
    assert_eq!(seen.teams.lock().unwrap().first().map(String::as_str), Some("red"));
    drop(tools);
    server.stop().await;

    for crooked in
        [McpServer { url: "file:///bin/sh".into(), ..McpServer::default() }, McpServer { connector_id: "x".into(), ..McpServer::default() }]
    {
        let error = mcp::connect(&crooked, &near).await.err().unwrap();
        assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some("url")), "{error:?}");
    }
}

#[tokio::test]
async fn a_configuration_that_fits_neither_transport_is_refused() {
    for (config, field) in [
        (json!({}), "config.url"),
        (json!({ "url": "http://x", "command": "y" }), "config.command"),
        (json!({ "url": "http://x", "args": ["y"] }), "config.url"),
        (json!({ "command": "y", "authorization": "z" }), "config.command"),
        (json!({ "url": "http://x", "tools": [] }), "config.tools"),
    ] {
        let error = built(config.clone()).await.err().unwrap();
        assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some(field)), "{config}");
    }
}

#[tokio::test]
async fn a_server_keeps_every_promise_of_tools() {
    for generation in BOTH {
        let seen = Seen::new(generation);
        let server = Server::start(&seen).await;
        let tools: Arc<dyn Tools> = provider(config(&server)).await;
        let answers = [("weather", "Oslo"), ("weather", "Rome"), ("a_dotted", "Bonn")];
        let [one, two, three] = answers.map(|(tool, city)| match (tool, city) {
            ("weather", "Oslo") => Call { tool: "weather", arguments: r#"{"city":"Oslo"}"#, answer: "sunny in Oslo" },
            ("weather", _) => Call { tool: "weather", arguments: r#"{"city":"Rome"}"#, answer: "sunny in Rome" },
            _ => Call { tool: "a_dotted", arguments: r#"{"city":"Bonn"}"#, answer: "sunny in Bonn" },
        });
        promises::all(tools.clone(), &[one, two, three]).await;
        let slow = llama_stack_proto::v1::InvokeToolRequest { name: "slow".into(), ..Default::default() };
        promises::deadline_ends_a_slow_call(tools.clone(), slow).await;
        drop(tools);
        server.stop().await;
    }
}
