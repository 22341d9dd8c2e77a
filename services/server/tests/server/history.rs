//! What happened, read back: the latest requests, and turns as spans.

use std::time::Duration;

use futures::StreamExt as _;
use llama_stack_core::{
    Agents as _, Code, Context, Principal, Telemetry,
    grpc::{Remote, channel},
};
use llama_stack_proto::v1::{
    AgentConfig, CreateTurnRequest, GetTurnTraceRequest, ListRequestsRequest, Message, agents_client::AgentsClient,
    telemetry_client::TelemetryClient,
};
use serde_json::{Value, json};
use tokio::time::timeout;
use tonic::transport::Channel;

use crate::client::{PATIENCE, Server, chat, start, start_with};

fn over_grpc(server: &Server) -> Remote<TelemetryClient<Channel>> {
    Remote::<TelemetryClient<Channel>>::new(channel(&server.url(""), Duration::from_secs(5)).unwrap())
}

/// Route, code and caller of what is listed to this caller.
async fn seen(server: &Server, principal: &str, roles: &str) -> Vec<(String, String, String)> {
    let request = server.http.get(server.url("/v1/requests")).header("x-llama-stack-principal", principal);
    let listed: Value = request.header("x-llama-stack-roles", roles).send().await.unwrap().json().await.unwrap();
    let text = |record: &Value, name: &str| record[name].as_str().unwrap().to_owned();
    let data = listed["data"].as_array().unwrap_or_else(|| panic!("{listed}"));
    data.iter().map(|record| (text(record, "route"), text(record, "code"), text(record, "principal"))).collect()
}

#[tokio::test]
async fn a_caller_sees_their_requests_and_an_admin_those_of_the_tenant() {
    let server = start().await;
    let ask = async |principal: &str, id: &str, path: &str, body: &Value| {
        let request = server.http.post(server.url(path)).header("x-llama-stack-principal", principal).header("x-request-id", id);
        request.json(body).send().await.unwrap().text().await.unwrap();
    };
    ask("ann", "a-1", "/v1/chat/completions", &chat("hi")).await;
    ask("bob", "b-1", "/v1/chat/completions", &json!({})).await;
    ask("ann", "a-2", "/v1/nothing", &json!({})).await;
    server.get("/livez").await;
    let line = |route: &str, code: &str, who: &str| (route.to_owned(), code.to_owned(), who.to_owned());
    let chats = "/v1/chat/completions";
    assert_eq!(seen(&server, "ann", "").await, [line("unknown", "404", "ann"), line(chats, "200", "ann")]);
    assert_eq!(seen(&server, "bob", "").await, [line(chats, "400", "bob")]);
    assert_eq!(seen(&server, "root", "admin").await.len(), 5, "three, and the two looks at them");

    let cx = Context::new(Principal { id: "ann".into(), ..Principal::default() });
    let request = ListRequestsRequest { page_size: 1, route: chats.into(), ..Default::default() };
    let listed = over_grpc(&server).list_requests(&cx, request.clone()).await.unwrap().requests;
    assert_eq!((listed.len(), listed[0].id.as_str(), listed[0].method.as_str()), (1, "a-1", "POST"));
    assert!(listed[0].seconds > 0.0 && listed[0].started.is_some());
    // A stream is written down when the server is done with its body, a moment after the client is.
    let own = ListRequestsRequest { route: "/llama_stack.v1.Telemetry/ListRequests".into(), ..request.clone() };
    let written = async {
        loop {
            match over_grpc(&server).list_requests(&cx, own.clone()).await.unwrap().requests.pop() {
                Some(record) => return record,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    assert_eq!(timeout(PATIENCE, written).await.expect("gRPC is not written down").code, "OK");
    let error = over_grpc(&server).list_requests(&cx, ListRequestsRequest { page_size: 5_000, ..request }).await.unwrap_err();
    assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some("page_size")));
    assert_eq!(server.refused("GET", "/v1/requests?limit=0", Value::Null).await.1, "limit");
}

#[tokio::test]
async fn the_log_of_requests_has_an_end_and_can_be_off() {
    let server = start_with("telemetry: { requests: 2 }\n").await;
    for _ in 0..4 {
        server.get("/v1/models").await.text().await.unwrap();
    }
    assert_eq!(seen(&server, "root", "admin").await.len(), 2);
    let server = start_with("telemetry: { requests: 0 }\n").await;
    server.get("/v1/models").await.text().await.unwrap();
    assert!(seen(&server, "root", "admin").await.is_empty());
}

/// In the store: it is there after a restart, in pages, by what is asked for, and each tenant's own.
#[tokio::test]
async fn the_log_of_requests_outlives_the_process_and_is_filtered() {
    let folder = tempfile::TempDir::new().unwrap();
    let more = format!("store: {{ url: \"sqlite://{}/state.db\" }}\n", folder.path().display());
    let server = start_with(&more).await;
    for path in ["/v1/models", "/v1/models/none", "/v1/models"] {
        server.http.get(server.url(path)).header("x-llama-stack-principal", "ann").send().await.unwrap().text().await.unwrap();
    }
    server.http.get(server.url("/v1/models")).header("x-llama-stack-tenant", "other").send().await.unwrap().text().await.unwrap();
    server.stop.cancel();
    timeout(PATIENCE, server.served).await.expect("did not stop").unwrap().unwrap();

    let server = start_with(&more).await;
    let read = async |tenant: &str, principal: &str, query: &str| -> Value {
        let request = server.http.get(server.url(&format!("/v1/requests?{query}"))).header("x-llama-stack-principal", principal);
        request.header("x-llama-stack-tenant", tenant).send().await.unwrap().json().await.unwrap()
    };
    let count = |list: Value| list["data"].as_array().unwrap_or_else(|| panic!("{list}")).len();
    assert_eq!(count(read("default", "ann", "route=/v1/models").await), 2);
    assert_eq!(count(read("default", "ann", "code=404").await), 1);
    assert_eq!(count(read("default", "ann", "principal=ann&route=/v1/models").await), 2);
    assert_eq!(count(read("default", "bob", "principal=ann").await), 0, "another's were told");
    assert_eq!(count(read("other", "anonymous", "route=/v1/models").await), 1);
    assert_eq!(count(read("default", "ann", "until=1").await), 0);
    assert_eq!(count(read("default", "ann", "since=1&route=/v1/models").await), 2);
    let page = read("default", "ann", "route=/v1/models&limit=1").await;
    let rest = read("default", "ann", &format!("route=/v1/models&limit=1&page={}", page["next_page"].as_str().unwrap())).await;
    assert_ne!(page["data"][0], rest["data"][0]);
    assert_eq!((count(rest.clone()), &rest["next_page"]), (1, &Value::Null));
    assert_eq!(server.refused("GET", "/v1/requests?page=x", Value::Null).await.1, "page");
}

/// What a shield found is told; what it judged is not.
#[tokio::test]
async fn what_shields_and_tool_policies_decide_is_in_the_audit_log() {
    let server =
        start_with("  safety: [ { id: grumpy, type: test::grumpy } ]\n  tools: [ { id: builtin, type: inline::builtin } ]\n").await;
    let judged = json!({ "shield_id": "grumpy", "messages": [{ "role": "user", "content": "please greet my secret" }] });
    server.json("POST", "/v1/safety/run-shield", judged).await;
    let agents = Remote::<AgentsClient<Channel>>::new(channel(&server.url(""), Duration::from_secs(5)).unwrap());
    let config = Some(AgentConfig { model: "parrot".into(), tools: vec!["calculator".into()], ..AgentConfig::default() });
    let request = CreateTurnRequest { config, input: vec![Message::user("calculate")], ..CreateTurnRequest::default() };
    agents.create_turn(&Context::default(), request).await.unwrap().collect::<Vec<_>>().await;
    for (kind, id, outcome) in [("shield", "grumpy", "violation"), ("tool", "calculator", "allow")] {
        let list = server.json("GET", &format!("/v1/audit?kind={kind}"), Value::Null).await;
        let event = &list["data"][0];
        assert_eq!((&event["resource_id"], &event["outcome"]), (&json!(id), &json!(outcome)), "{list}");
        assert!(!list.to_string().contains("secret") && !list.to_string().contains("1+1"), "{list}");
    }
}

#[tokio::test]
async fn a_response_is_spans_without_its_words() {
    let server = start_with("  tools: [ { id: builtin, type: inline::builtin } ]\n").await;
    let tools = json!([{ "type": "function", "name": "add", "parameters": { "type": "object" } }]);
    let body = json!({ "model": "parrot", "input": "my secret", "tools": tools });
    let response = server.json("POST", "/v1/responses", body).await;
    let id = response["id"].as_str().unwrap();
    let trace = server.json("GET", &format!("/v1/responses/{id}/trace"), Value::Null).await;
    assert!(!trace.to_string().contains("secret"), "{trace}");
    let spans = trace["spans"].as_array().unwrap();
    let names: Vec<(&Value, &Value)> = spans.iter().map(|span| (&span["operation"], &span["name"])).collect();
    assert_eq!(names.last(), Some(&(&json!("chat"), &json!("chat parrot"))), "{trace}");
    assert_eq!(names[0].0, "invoke_agent");
    let chat = spans.last().unwrap();
    assert_eq!((&chat["parent_id"], &spans[0]["parent_id"]), (&spans[0]["id"], &Value::Null));
    assert_eq!(chat["attributes"]["gen_ai.usage.output_tokens"], "2");
    assert!(chat["ended_at"].as_f64().unwrap() >= chat["started_at"].as_f64().unwrap());
    // Over gRPC by the turn's own id, and not for another tenant.
    let turn_id = id.replacen("resp_", "turn_", 1);
    let request = GetTurnTraceRequest { turn_id };
    let told = over_grpc(&server).get_turn_trace(&Context::default(), request.clone()).await.unwrap();
    assert_eq!(told.spans.len(), spans.len());
    assert_eq!(over_grpc(&server).get_turn_trace(&Context::test("other"), request).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(server.refused("GET", "/v1/responses/resp_0/trace", Value::Null).await, (404, json!("id"), json!("response_not_found")));
}
