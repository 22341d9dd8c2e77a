use llama_stack_core::{
    Agents, Context,
    grpc::{Remote, channel},
};
use llama_stack_proto::v1::{AgentConfig, GetAgentRequest, ToolDefinition, UpdateAgentRequest, agents_client::AgentsClient};
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::client::{start, start_with};

const DECLARED: &str = "  tools:\n    - { id: builtin, type: inline::builtin }\nagents:\n  declared:\n    clerk: { model: parrot }\n";

#[tokio::test]
async fn an_agent_is_kept_changed_and_deleted() {
    let server = start_with(DECLARED).await;
    let fields =
        json!({ "model": "parrot", "name": "desk", "tools": ["calculator"], "require_approval": ["calculator"], "temperature": 0.5 });
    let made = server.json("POST", "/v1/agents", fields).await;
    assert_eq!((&made["object"], &made["name"], &made["declared"]), (&json!("agent"), &json!("desk"), &json!(false)));
    let one = format!("/v1/agents/{}", made["id"].as_str().unwrap());
    assert_eq!(server.json("GET", &one, Value::Null).await, made);

    let changed = server.json("POST", &one, json!({ "instructions": "Be brief.", "temperature": null })).await;
    assert_eq!((&changed["instructions"], &changed["temperature"]), (&json!("Be brief."), &Value::Null));
    assert_eq!((&changed["tools"], &changed["name"]), (&json!(["calculator"]), &json!("desk")), "what was not named has changed");
    let answer = server.json("POST", "/v1/responses", json!({ "agent_id": made["id"], "input": "hello" })).await;
    assert_eq!(answer["status"], "completed");

    let listed = server.json("GET", "/v1/agents", Value::Null).await;
    let known: Vec<(&Value, &Value)> = listed["data"].as_array().unwrap().iter().map(|agent| (&agent["id"], &agent["declared"])).collect();
    assert_eq!(known, [(&made["id"], &json!(false)), (&json!("clerk"), &json!(true))]);

    assert_eq!(server.json("DELETE", &one, Value::Null).await["deleted"], true);
    assert_eq!(server.refused("GET", &one, Value::Null).await.0, 404);
    assert_eq!(server.refused("DELETE", &one, Value::Null).await.0, 404);
}

#[tokio::test]
async fn a_change_over_http_leaves_what_http_has_no_field_for() {
    let server = start().await;
    let made = server.json("POST", "/v1/agents", json!({ "model": "parrot" })).await;
    let (id, cx) = (made["id"].as_str().unwrap().to_owned(), Context::new(Default::default()));
    let remote = Remote::<AgentsClient<Channel>>::new(channel(&server.url(""), std::time::Duration::from_secs(2)).unwrap());
    let tool = ToolDefinition { name: "mine".into(), ..Default::default() };
    let config = AgentConfig { model: "parrot".into(), client_tools: vec![tool], top_logprobs: Some(3), ..Default::default() };
    remote.update_agent(&cx, UpdateAgentRequest { id: id.clone(), config: Some(config) }).await.unwrap();
    server.json("POST", &format!("/v1/agents/{id}"), json!({ "name": "renamed" })).await;
    let config = remote.get_agent(&cx, GetAgentRequest { id }).await.unwrap().config.unwrap();
    assert_eq!((config.name.as_str(), config.client_tools.len(), config.top_logprobs), ("renamed", 1, Some(3)));
}

#[tokio::test]
async fn whom_an_agent_may_call_and_what_bounds_it_is_set_over_http() {
    let server = start_with(DECLARED).await;
    let function =
        json!({ "type": "function", "name": "look", "description": "Looks.", "parameters": { "type": "object" }, "strict": true });
    let files = json!({
        "type": "mcp", "server_label": "files", "server_url": "https://files.example/mcp", "server_description": "Files.",
        "allowed_tools": ["read"], "require_approval": "never",
    });
    let format = json!({ "type": "json_schema", "name": "sum", "schema": { "type": "object" }, "strict": true, "description": null });
    let limits = json!({ "max_steps": 3, "max_tokens": 100, "max_seconds": 60, "max_tool_calls": 2, "max_cost": 0.5, "max_depth": 1 });
    let fields = json!({
        "model": "parrot", "functions": [function], "mcp_servers": [files], "limits": limits, "text": { "format": format },
        "agents": [{ "agent_id": "clerk", "name": "ask_clerk", "description": "Ask it for sums.", "handoff": true }],
        "tool_choice": { "type": "function", "name": "look" }, "parallel_tool_calls": false,
        "moderation": { "mode": "windowed", "window_tokens": 32 },
        "truncation": "auto", "compact_threshold": 6000, "reasoning_effort": "low",
    });
    let made = server.json("POST", "/v1/agents", fields.clone()).await;
    for (field, value) in fields.as_object().unwrap() {
        assert_eq!(made[field], *value, "{field}");
    }

    let one = format!("/v1/agents/{}", made["id"].as_str().unwrap());
    let plain = json!({
        "mcp_servers": [], "tool_choice": null, "text": null, "moderation": null, "compact_threshold": null,
        "limits": { "max_steps": 2 },
    });
    let changed = server.json("POST", &one, plain).await;
    assert_eq!((&changed["mcp_servers"], &changed["tool_choice"]), (&json!([]), &json!("auto")));
    assert_eq!((&changed["text"]["format"]["type"], &changed["moderation"]), (&json!("text"), &Value::Null));
    assert_eq!((&changed["functions"], &changed["truncation"]), (&json!([function]), &json!("auto")), "what was not named has changed");
    let answer = server.json("POST", "/v1/responses", json!({ "agent_id": made["id"], "input": "hello" })).await;
    assert_eq!((&answer["status"], &answer["limits"]["max_steps"]), (&json!("completed"), &json!(2)));
    assert_eq!(server.json("POST", &one, json!({ "limits": null })).await["limits"], Value::Null);
}

#[tokio::test]
async fn wrong_agents_are_refused_with_their_field() {
    let server = start_with(DECLARED).await;
    let refused = async |body: Value| server.refused("POST", "/v1/agents", body).await;
    assert_eq!(refused(json!({})).await.1, "model");
    assert_eq!(refused(json!({ "model": "nobody" })).await.1, "model");
    assert_eq!(refused(json!({ "model": "parrot", "tools": ["nothing"] })).await.1, "tools[0]");
    assert_eq!(refused(json!({ "model": "parrot", "temperature": 9 })).await.1, "temperature");
    assert_eq!(refused(json!({ "model": "parrot", "input_shields": ["none"] })).await.1, "input_shields[0]");
    assert_eq!(refused(json!({ "model": "parrot", "colour": "red" })).await.0, 400);
    assert_eq!(refused(json!({ "model": "parrot", "limits": { "colour": 1 } })).await.0, 400);
    let server_of = |more: Value| {
        let mut one = json!({ "server_label": "files", "server_url": "https://files.example" });
        one.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        one
    };
    for (field, value, told) in [
        ("limits", json!({ "max_steps": 1000 }), "limits.max_steps"),
        ("functions", json!([{ "name": "look", "parameters": [] }]), "functions[0].parameters"),
        ("functions", json!([{}]), "functions[0].name"),
        ("mcp_servers", json!([server_of(json!({ "authorization": "token" }))]), "mcp_servers[0].authorization"),
        ("mcp_servers", json!([server_of(json!({ "server_label": "a b" }))]), "mcp_servers[0].server_label"),
        ("agents", json!([{ "agent_id": "agent_none" }]), "agents[0].agent_id"),
        ("tool_choice", json!({ "type": "function", "name": "look" }), "tool_choice.name"),
        ("truncation", json!("some"), "truncation"),
        ("moderation", json!({ "mode": "some" }), "moderation.mode"),
        ("text", json!({ "format": { "type": "json_schema", "name": "a", "schema": 3 } }), "text.format.schema"),
    ] {
        assert_eq!(refused(json!({ "model": "parrot", field: value })).await.1, told, "{field}");
    }
    for (method, body) in [("POST", json!({ "name": "x" })), ("DELETE", Value::Null)] {
        let (status, _, code) = server.refused(method, "/v1/agents/clerk", body).await;
        assert_eq!((status, code), (400, json!("agent_declared")), "{method}");
    }
    assert_eq!(server.refused("POST", "/v1/agents/agent_none", json!({ "name": "x" })).await.0, 404);
}
