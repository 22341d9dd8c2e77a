//! The Model Context Protocol, both sides: the stack's tools and agents at `/mcp`, and servers whose tools are the stack's.

mod python;

use std::sync::Arc;

use llama_stack_core::{Deps, Registry, Tools};
use llama_stack_proto::v1::{AgentConfig, CreateAgentRequest, CreateTurnRequest, Message};
use llama_stack_tests::{
    conformance::tools::{self, Call},
    scripted::MODEL,
};
use serde_json::{Value, json};

use self::python::{python, script};
use crate::running::{Running, SCRIPTED};

const CALCULATIONS: [Call; 3] = [
    Call { tool: "calculator", arguments: r#"{"expression":"6 * 7"}"#, answer: "42" },
    Call { tool: "calculator", arguments: r#"{"expression":"2 ^ 10"}"#, answer: "1024" },
    Call { tool: "calculator", arguments: r#"{"expression":"1 / 4"}"#, answer: "0.25" },
];

/// A stack without tools of its own.
const BARE: &str =
    "version: 1\nname: bare\negress: { allow: [127.0.0.1] }\nproviders:\n  inference:\n    - { id: scripted, type: test::scripted }\n";

async fn agent(stack: &Running, name: &str, tools: &[&str]) -> String {
    let tools = tools.iter().map(|tool| (*tool).to_owned()).collect();
    let config = AgentConfig { model: MODEL.into(), name: name.into(), description: "Echoes.".into(), tools, ..AgentConfig::default() };
    stack.agents().create_agent(CreateAgentRequest { config: Some(config) }).await.unwrap().into_inner().id
}

async fn mcp_of(stack: &Running) -> Arc<dyn Tools> {
    let mut registry = Registry::default();
    llama_stack_tools::register(&mut registry);
    let config = json!({ "url": format!("{}/mcp", stack.url) });
    registry.tools.build("remote::mcp", config, Deps { provider_id: "far".into(), ..Deps::new(".") }).await.unwrap()
}

/// Status and body of a request with headers.
async fn send(method: &str, url: &str, headers: &[(&str, &str)], body: Option<Value>) -> (u16, Value) {
    let mut request = reqwest::Client::new().request(method.parse().unwrap(), url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body.to_string());
    }
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).unwrap())
}

fn names(list: &Value) -> Vec<&str> {
    list["data"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn the_python_sdk_lists_and_calls_tools_and_agents_in_both_generations() {
    let Ok(python) = python().inspect_err(|why| eprintln!("skipped: the Python MCP client: {why}")) else { return };
    let stack = Running::start(SCRIPTED).await;
    let calculating = agent(&stack, "my agent", &["calculator"]).await;
    let twin = agent(&stack, "calculator", &[]).await;
    let output = tokio::process::Command::new(python)
        .arg(script("client.py"))
        .arg(format!("{}/mcp", stack.url))
        .args(["calculator", r#"{"expression":"6*7"}"#])
        .args(["calculator", r#"{"expression":"1/0"}"#])
        .args(["my_agent", r#"{"input":"hello"}"#])
        .args(["my_agent", r#"{"input":"call calculator {\"expression\": \"6 * 7\"}"}"#])
        .args([twin.as_str(), r#"{"input":"hello"}"#])
        .args(["my_agent", "{}"])
        .args(["my_agent", r#"{"input":"fail"}"#])
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&said[0]["protocol"], &said[1]["protocol"]), (&json!("2026-07-28"), &json!("2025-11-25")));
    for said in said {
        let tools: Vec<&String> = said["tools"].as_object().unwrap().keys().collect();
        assert_eq!(tools, ["calculator", "clock", "my_agent", &twin]);
        assert_eq!(said["tools"]["calculator"]["required"], json!(["expression"]));
        let answers: Vec<(bool, &str)> = said["answers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|answer| (answer["is_error"] == true, answer["text"].as_str().unwrap()))
            .collect();
        assert_eq!(answers[0], (false, "42"));
        assert!(answers[1].0, "{answers:?}");
        assert_eq!(answers[2], (false, "you said: hello"));
        assert_eq!(answers[3], (false, "the tool said: 42"));
        assert_eq!(answers[4], (false, "you said: hello"));
        assert!(answers[5].0 && answers[5].1.contains("input"), "{answers:?}");
        assert!(answers[6].0 && answers[6].1.contains("failed"), "{answers:?}");
    }
    // They are turns like any other.
    let input = vec![Message::user("and now?")];
    let next = CreateTurnRequest { agent_id: calculating, input, ..CreateTurnRequest::default() };
    assert!(stack.agents().create_turn(next).await.is_ok());
    stack.stop().await;
}

#[tokio::test]
async fn a_server_of_the_python_sdk_is_one_manifest_line_away() {
    let Ok(python) = python().inspect_err(|why| eprintln!("skipped: the Python MCP server: {why}")) else { return };
    let config = json!({ "command": python, "args": [script("server.py")], "list_timeout_seconds": 60 });
    let stack = Running::start(&format!("{BARE}  tools:\n    - {{ id: forecast, type: remote::mcp, config: {config} }}\n")).await;
    // Starting Python takes longer than a stack waits for it at its own start.
    let mut listed = stack.get("/v1/tools").await.1;
    for _ in 0..600 {
        if !names(&listed).is_empty() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        listed = stack.get("/v1/tools").await.1;
    }
    assert_eq!(names(&listed), ["weather"]);
    assert_eq!(listed["data"][0]["description"], "Tells the weather.");
    let ask = |city: &str| stack.post("/v1/tools/weather/invoke", json!({ "arguments": { "city": city } }));
    let (status, answer) = ask("Oslo").await;
    assert_eq!((status, answer), (200, json!({ "content": [{ "type": "text", "text": "sunny in Oslo" }], "is_error": false })));
    let (status, answer) = ask("Atlantis").await;
    assert_eq!((status, &answer["is_error"]), (200, &json!(true)));
    assert!(answer["content"][0]["text"].as_str().unwrap().contains("weather"), "{answer}");
    stack.stop().await;
}

#[tokio::test]
async fn a_stacks_tools_keep_their_promises_over_mcp() {
    let stack = Running::start(SCRIPTED).await;
    tools::all(mcp_of(&stack).await, &CALCULATIONS).await;
    stack.stop().await;
}

#[tokio::test]
async fn a_tool_group_is_registered_used_and_unregistered_over_http() {
    let far = Running::start(SCRIPTED).await;
    let near = Running::start(BARE).await;
    let (groups, acme) = (format!("{}/v1/toolgroups", near.url), [("x-llama-stack-tenant", "acme")]);
    let group = json!({ "id": "far", "provider_type": "remote::mcp", "config": { "url": format!("{}/mcp", far.url) } });
    let shown = json!({ "id": "far", "object": "tool_group", "provider_id": "far", "tools": ["calculator", "clock"] });
    assert_eq!(send("POST", &groups, &acme, Some(group.clone())).await, (200, shown.clone()));
    assert_eq!(send("POST", &groups, &acme, Some(group)).await.0, 409);
    let program = json!({ "id": "p", "provider_type": "remote::mcp", "config": { "command": "sh" } });
    let (status, refused) = send("POST", &groups, &acme, Some(program)).await;
    assert_eq!((status, &refused["error"]["param"]), (403, &json!("config.command")));

    assert_eq!(send("GET", &groups, &acme, None).await, (200, json!({ "object": "list", "data": [shown] })));
    assert_eq!(send("GET", &format!("{groups}/far"), &acme, None).await, (200, shown));
    assert_eq!(send("GET", &format!("{groups}/far"), &[], None).await.0, 404);
    let tools = format!("{}/v1/tools", near.url);
    assert_eq!(names(&send("GET", &format!("{tools}?group_id=far"), &acme, None).await.1), ["calculator", "clock"]);
    assert_eq!(names(&send("GET", &tools, &[], None).await.1), Vec::<&str>::new());

    let ask = json!({ "arguments": { "expression": "6*7" } });
    let invoke = format!("{tools}/calculator/invoke");
    assert_eq!(send("POST", &invoke, &acme, Some(ask.clone())).await.1["content"][0]["text"], "42");
    assert_eq!(send("POST", &invoke, &[], Some(ask.clone())).await.1["is_error"], true);

    // Another process over the same home.
    let near = Running::start_in(near.stop().await, BARE).await;
    let (groups, invoke) = (format!("{}/v1/toolgroups", near.url), format!("{}/v1/tools/calculator/invoke", near.url));
    assert_eq!(send("POST", &invoke, &acme, Some(ask.clone())).await.1["content"][0]["text"], "42");
    let gone = json!({ "id": "far", "object": "tool_group", "deleted": true });
    assert_eq!(send("DELETE", &format!("{groups}/far"), &acme, None).await, (200, gone));
    assert_eq!(send("DELETE", &format!("{groups}/far"), &acme, None).await.0, 404);
    assert_eq!(send("POST", &invoke, &acme, Some(ask)).await.1["is_error"], true);
    near.stop().await;
    far.stop().await;
}

#[tokio::test]
async fn a_page_from_elsewhere_does_not_reach_the_tools() {
    let allowed = SCRIPTED.replace("providers:", "server: { cors_origins: [\"https://console.example\"] }\nproviders:");
    let stack = Running::start(&allowed).await;
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } } });
    let ask = async |origin: &[(&str, &str)]| {
        let headers: Vec<(&str, &str)> = [("accept", "application/json, text/event-stream")].iter().chain(origin).copied().collect();
        send("POST", &format!("{}/mcp", stack.url), &headers, Some(ping.clone())).await
    };
    assert_eq!(ask(&[]).await.1["result"]["serverInfo"]["name"], "llama-stack");
    assert_eq!(ask(&[("origin", "https://console.example")]).await.0, 200);
    for origin in ["https://evil.example", "http://127.0.0.1:3000", "null", "https://console.example.evil"] {
        let (status, body) = ask(&[("origin", origin)]).await;
        assert_eq!((status, &body["error"]["code"]), (403, &json!("origin_not_allowed")), "{origin}");
    }
    // A name that was made to point here is no name of this stack's, whatever page it is asked from.
    let (status, body) = ask(&[("origin", "http://evil.example"), ("host", "evil.example")]).await;
    assert_eq!((status, &body["error"]["code"]), (421, &json!("wrong_host")));
    let (status, _) = send("GET", &format!("{}/mcp", stack.url), &[], None).await;
    assert_eq!(status, 405);
    stack.stop().await;
}
