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
    let config = AgentConfig { model: "parrot".into(), client_tools: vec![tool], ..Default::default() };
    remote.update_agent(&cx, UpdateAgentRequest { id: id.clone(), config: Some(config) }).await.unwrap();
    server.json("POST", &format!("/v1/agents/{id}"), json!({ "name": "renamed" })).await;
    let config = remote.get_agent(&cx, GetAgentRequest { id }).await.unwrap().config.unwrap();
    assert_eq!((config.name.as_str(), config.client_tools.len()), ("renamed", 1));
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
    for (method, body) in [("POST", json!({ "name": "x" })), ("DELETE", Value::Null)] {
        let (status, _, code) = server.refused(method, "/v1/agents/clerk", body).await;
        assert_eq!((status, code), (400, json!("agent_declared")), "{method}");
    }
    assert_eq!(server.refused("POST", "/v1/agents/agent_none", json!({ "name": "x" })).await.0, 404);
}
