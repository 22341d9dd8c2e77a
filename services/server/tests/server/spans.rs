//! Spans of many turns, asked for by what they are: whose, which, how many, and how far a call looks.

use std::{collections::HashMap, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures::StreamExt as _;
use llama_stack_core::{
    Agents as _, Code, Context, Principal, Telemetry as _,
    context::Secret,
    grpc::{Remote, channel},
};
use llama_stack_proto::v1::{
    AgentConfig, CreateApiKeyRequest, CreateTurnRequest, GetTurnRequest, ListSpansRequest, Message, PartPlace, RedactTurnRequest,
    agents_client::AgentsClient, part_place::Place, telemetry_client::TelemetryClient, turn_event::Event,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::client::{Server, serve, start_with};

const CALCULATOR: &str = "  tools: [ { id: builtin, type: inline::builtin } ]\n";

/// Over a file, which is gone with the folder.
async fn house(more: &str) -> (Server, TempDir) {
    let folder = TempDir::new().unwrap();
    let store = format!("store: {{ url: \"sqlite://{}/state.db\", durability: process }}\n", folder.path().display());
    (start_with(&format!("{CALCULATOR}{store}{more}")).await, folder)
}

fn agents(server: &Server) -> Remote<AgentsClient<Channel>> {
    Remote::<AgentsClient<Channel>>::new(channel(&server.url(""), Duration::from_secs(60)).unwrap())
}

fn telemetry(server: &Server) -> Remote<TelemetryClient<Channel>> {
    Remote::<TelemetryClient<Channel>>::new(channel(&server.url(""), Duration::from_secs(60)).unwrap())
}

fn person(tenant: &str, id: &str) -> Context {
    Context::new(Principal { id: id.into(), tenant: tenant.into(), roles: Vec::new() })
}

/// A turn, to its end: its id, and its session's.
async fn turn(server: &Server, who: &Context, input: &str) -> (String, String) {
    let config = Some(AgentConfig { model: "parrot".into(), tools: vec!["calculator".into()], ..AgentConfig::default() });
    let request = CreateTurnRequest { config, input: vec![Message::user(input)], ..CreateTurnRequest::default() };
    let events: Vec<_> = agents(server).create_turn(who, request).await.unwrap().collect().await;
    match &events[0].as_ref().unwrap().event {
        Some(Event::Created(turn)) => (turn.id.clone(), turn.session_id.clone()),
        other => panic!("not a beginning: {other:?}"),
    }
}

/// What is listed to a caller of these headers.
async fn listed(server: &Server, who: &Context, roles: &str, query: &str) -> Value {
    let request = server.http.get(server.url(&format!("/v1/spans?{query}")));
    let request = request.header("x-llama-stack-principal", &who.principal().id).header("x-llama-stack-tenant", who.tenant());
    let request = if roles.is_empty() { request } else { request.header("x-llama-stack-roles", roles) };
    request.send().await.unwrap().json().await.unwrap()
}

fn texts(list: &Value, field: &str) -> Vec<String> {
    let data = list["data"].as_array().unwrap_or_else(|| panic!("{list}"));
    data.iter().map(|span| span[field].as_str().unwrap().to_owned()).collect()
}

fn response(turn: &str) -> String {
    turn.replacen("turn_", "resp_", 1)
}

#[tokio::test]
async fn a_caller_finds_the_spans_of_their_own_turns_and_an_admin_those_of_the_tenant() {
    let (server, _folder) = house("").await;
    let (ann, bob, far) = (person("default", "ann"), person("default", "bob"), person("other", "ann"));
    let (hello, session) = turn(&server, &ann, "my secret").await;
    let (failed, _) = turn(&server, &ann, "fail at once").await;
    let (called, _) = turn(&server, &ann, "calculate").await;
    let (bobs, _) = turn(&server, &bob, "my secret").await;
    turn(&server, &far, "my secret").await;

    let of = async |who: &Context, query: &str| listed(&server, who, "", query).await;
    let turns = "operation=invoke_agent";
    assert_eq!(texts(&of(&ann, turns).await, "response_id"), [&called, &failed, &hello].map(|turn| response(turn)));
    assert_eq!(texts(&of(&bob, turns).await, "response_id"), [response(&bobs)]);
    assert_eq!(texts(&of(&far, turns).await, "id").len(), 1);
    assert!(texts(&of(&bob, "principal=ann").await, "id").is_empty(), "another's were told");
    let everybody = listed(&server, &person("default", "root"), "admin", turns).await;
    assert_eq!(texts(&everybody, "principal"), ["bob", "ann", "ann", "ann"]);
    let anns = listed(&server, &person("default", "root"), "admin", "principal=ann&operation=invoke_agent").await;
    assert_eq!(texts(&anns, "id"), [&called, &failed, &hello].map(String::clone));

    // A turn's are those of its trace, what began last first.
    let list = of(&ann, &format!("conversation_id={}", session.replacen("session_", "conv_", 1))).await;
    let path = format!("/v1/responses/{}/trace", response(&hello));
    let trace = server.json("GET", &path, Value::Null).await;
    let mut ids: Vec<&Value> = trace["spans"].as_array().unwrap().iter().map(|span| &span["id"]).collect();
    ids.reverse();
    assert_eq!(list["data"].as_array().unwrap().iter().map(|span| &span["id"]).collect::<Vec<_>>(), ids);
    assert_eq!(list["next_page"], Value::Null);
    assert!(!list.to_string().contains("secret"), "{list}");
    // Whose session it is not, finds nothing in it, and another tenant finds no such session.
    assert!(texts(&of(&bob, &format!("conversation_id={session}")).await, "id").is_empty());
    let unknown = of(&far, &format!("conversation_id={session}")).await;
    assert_eq!((&unknown["error"]["code"], &unknown["error"]["param"]), (&json!("conversation_not_found"), &json!("conversation_id")));
}

#[tokio::test]
async fn spans_are_chosen_by_what_they_are() {
    let (server, _folder) = house("").await;
    let ann = person("default", "ann");
    turn(&server, &ann, "hello").await;
    let (failed, _) = turn(&server, &ann, "fail at once").await;
    let (called, _) = turn(&server, &ann, "calculate").await;
    let of = async |query: &str| listed(&server, &ann, "", query).await;

    let errors = of("only_errors=true").await;
    assert_eq!((texts(&errors, "id"), errors["data"][0]["error"]["code"].is_string()), (vec![failed], true), "{errors}");
    let tools = of("operation=execute_tool").await;
    assert_eq!(
        (texts(&tools, "name"), texts(&tools, "response_id")),
        (vec!["execute_tool calculator".to_owned()], vec![response(&called)])
    );
    assert_eq!(tools, of("name=execute_tool%20calculator").await);
    assert_eq!(tools, of("attributes=%7B%22gen_ai.tool.name%22%3A%22calculator%22%7D").await);
    assert!(texts(&of("attributes=%7B%22gen_ai.tool.name%22%3A%22other%22%7D").await, "id").is_empty());
    for nothing in ["min_seconds=100000", "until=1", "since=40000000000", "agent_id=agent_none", "name=chat", "operation=none"] {
        let list = of(nothing).await;
        assert_eq!((texts(&list, "id").len(), &list["next_page"]), (0, &Value::Null), "{nothing}");
    }
    let all = of("").await;
    assert_eq!(all, of("since=1&until=40000000000&min_seconds=0").await);
    // Between two turns.
    let began = tools["data"][0]["started_at"].as_f64().unwrap();
    assert!(texts(&of(&format!("until={began}")).await, "id").len() < texts(&all, "id").len());

    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("page=x", "page"),
        ("since=-1", "since"),
        ("min_seconds=-1", "min_seconds"),
        ("min_seconds=NaN", "min_seconds"),
        ("only_errors=perhaps", "only_errors"),
        ("attributes=x", "attributes"),
        ("attributes=%7B%22a%22%3A1%7D", "attributes"),
    ] {
        let (status, param, _) = server.refused("GET", &format!("/v1/spans?{query}"), Value::Null).await;
        assert_eq!((status, param), (400, json!(field)), "{query}");
    }
    // Over gRPC they are the same, and so are the refusals.
    let spans = telemetry(&server).list_spans(&ann, ListSpansRequest { operation: "execute_tool".into(), ..Default::default() }).await;
    let record = spans.unwrap().spans.pop().unwrap();
    assert_eq!((record.turn_id, record.principal.as_str(), record.span.unwrap().id), (called, "ann", texts(&tools, "id").remove(0)));
    let many: HashMap<String, String> = (0..17).map(|n| (n.to_string(), String::new())).collect();
    for (field, request) in [
        ("page_size", ListSpansRequest { page_size: 1_001, ..Default::default() }),
        ("page_token", ListSpansRequest { page_token: "x".into(), ..Default::default() }),
        ("min_seconds", ListSpansRequest { min_seconds: f64::INFINITY, ..Default::default() }),
        ("attributes", ListSpansRequest { attributes: many, ..Default::default() }),
    ] {
        let error = telemetry(&server).list_spans(&ann, request).await.unwrap_err();
        assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some(field)));
    }
    let unknown = ListSpansRequest { session_id: "session_none".into(), ..Default::default() };
    assert_eq!(telemetry(&server).list_spans(&ann, unknown).await.unwrap_err().code(), Code::NotFound);
}

/// Each span once, whatever comes and goes meanwhile; a page ends within a turn as well.
#[tokio::test]
async fn pages_of_spans_neither_repeat_nor_lose_any() {
    let (server, _folder) = house("").await;
    let ann = person("default", "ann");
    let (oldest, _) = turn(&server, &ann, "hello").await;
    for input in ["calculate", "hello"] {
        turn(&server, &ann, input).await;
    }
    let whole = listed(&server, &ann, "", "").await;
    let mut expected = texts(&whole, "id");
    assert_eq!(expected.len(), 8, "{whole}");
    let (mut seen, mut request) = (Vec::new(), ListSpansRequest { page_size: 1, ..Default::default() });
    loop {
        let page = telemetry(&server).list_spans(&ann, request.clone()).await.unwrap();
        assert!(page.spans.len() <= 1);
        seen.extend(page.spans.into_iter().map(|record| record.span.unwrap().id));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
        match seen.len() {
            // In the midst of the newest turn.
            1 => drop(turn(&server, &ann, "hello").await),
            // In the midst of the oldest.
            7 => drop(server.http.delete(server.url(&format!("/v1/responses/{}", response(&oldest)))).send().await.unwrap()),
            _ => {}
        }
    }
    expected.pop();
    assert_eq!(seen, expected);
    // A token is of its own list.
    let (_, session) = turn(&server, &ann, "hello").await;
    let error = telemetry(&server).list_spans(&ann, ListSpansRequest { session_id: session, ..request }).await.unwrap_err();
    assert_eq!(error.field(), Some("page_token"));
}

/// However little a filter fits, a call comes to its end; and how far it came tells nobody of others' turns.
#[tokio::test]
async fn a_call_looks_at_a_hundred_turns_and_says_that_there_are_more() {
    let (server, _folder) = house("").await;
    let (ann, bob) = (person("default", "ann"), person("default", "bob"));
    let (own, _) = turn(&server, &ann, "hello").await;
    for _ in 0..100 {
        turn(&server, &bob, "hello").await;
    }
    let first = listed(&server, &ann, "", "").await;
    assert!(texts(&first, "id").is_empty(), "{first}");
    let token = first["next_page"].as_str().expect("there is more");
    let place = String::from_utf8_lossy(&URL_SAFE_NO_PAD.decode(token).unwrap()).into_owned();
    assert!(!place.contains("turn"), "{place}");
    let second = listed(&server, &ann, "", &format!("page={token}")).await;
    assert_eq!((texts(&second, "response_id"), &second["next_page"]), (vec![response(&own); 2], &Value::Null));
}

#[tokio::test]
async fn a_redacted_turn_keeps_its_spans_and_an_erased_one_has_none() {
    let (server, _folder) = house("").await;
    let (ann, bob) = (person("default", "ann"), person("default", "bob"));
    let (redacted, _) = turn(&server, &ann, "my secret").await;
    let before = listed(&server, &ann, "", "").await;
    let parts = vec![PartPlace { place: Some(Place::Input(0)), part: 0 }];
    agents(&server).redact_turn(&ann, RedactTurnRequest { turn_id: redacted.clone(), parts }).await.unwrap();
    assert_eq!(listed(&server, &ann, "", "").await, before);

    turn(&server, &bob, "hello").await;
    server.json("POST", "/v1/erase", json!({ "tenant": "default", "principal": "ann" })).await;
    assert_eq!(agents(&server).get_turn(&ann, GetTurnRequest { id: redacted }).await.unwrap_err().code(), Code::NotFound);
    assert!(texts(&listed(&server, &ann, "", "").await, "id").is_empty());
    assert_eq!(texts(&listed(&server, &person("default", "root"), "admin", "operation=invoke_agent").await, "principal"), ["bob"]);
}

#[tokio::test]
async fn nothing_of_a_cancelled_turn_runs_on() {
    let (server, _folder) = house("").await;
    let asked = json!({ "model": "parrot", "input": "forever", "background": true });
    let begun = server.json("POST", "/v1/responses", asked).await;
    let id = begun["id"].as_str().unwrap();
    server.script.was_asked("forever").await;
    server.json("POST", &format!("/v1/responses/{id}/cancel"), Value::Null).await;
    let list = server.json("GET", "/v1/spans?operation=chat", Value::Null).await;
    assert!(list["data"][0]["ended_at"].is_number(), "{list}");
    let steps = server.json("GET", &format!("/v1/responses/{id}/steps"), Value::Null).await;
    assert!(steps["ended_ms"].is_number() && steps["data"][0]["ended_ms"] == steps["ended_ms"], "{steps}");
}

/// What a called agent did hangs below the step that called it, as in the caller's trace.
#[tokio::test]
async fn the_turn_of_a_called_agent_is_below_the_call() {
    let (server, _folder) = house("agents:\n  declared:\n    clerk: { model: parrot }\n").await;
    let fields = json!({ "model": "parrot", "agents": [{ "agent_id": "clerk", "name": "ask_clerk", "description": "Asks." }] });
    let made = server.json("POST", "/v1/agents", fields).await;
    let answer = server.json("POST", "/v1/responses", json!({ "agent_id": made["id"], "input": "ask" })).await;
    let calls = server.json("GET", "/v1/spans?operation=execute_tool&name=execute_tool%20ask_clerk", Value::Null).await;
    let called = server.json("GET", "/v1/spans?operation=invoke_agent&agent_id=clerk", Value::Null).await;
    let caller = answer["id"].as_str().unwrap();
    assert_eq!(texts(&calls, "response_id"), [caller]);
    assert_eq!(texts(&called, "parent_id"), texts(&calls, "id"));
    let trace = server.json("GET", &format!("/v1/responses/{caller}/trace"), Value::Null).await;
    let below = trace["spans"].as_array().unwrap().iter().find(|span| span["id"] == called["data"][0]["id"]);
    assert_eq!(below.expect("it is in the trace")["parent_id"], called["data"][0]["parent_id"]);
}

/// Where callers are told apart, another's session is none, and what a policy forbids to read is not listed either.
#[tokio::test]
async fn policies_hold_for_spans() {
    let forbid =
        r#"@id("no-traces") forbid (principal, action == Action::"Telemetry.GetTurnTrace", resource) when { principal.id == "eve" };"#;
    let auth = format!("server: {{ auth: {{ api_keys: true, policy: {{ text: '{forbid}' }} }} }}\n");
    let mut book = None;
    let server = serve(&format!("{CALCULATOR}{auth}"), |stack| book = Some(stack.identity.clone())).await;
    let key = async |principal: &str, roles: &[&str]| {
        let roles = roles.iter().map(|role| (*role).to_owned()).collect();
        let request = CreateApiKeyRequest { principal: principal.into(), roles, ..Default::default() };
        let issued = book.as_ref().unwrap().create_api_key(&Context::test("acme"), request).await.unwrap();
        Context::default().with_bearer(Secret::new(issued.secret))
    };
    let (ann, bob) = (key("ann", &[]).await, key("bob", &[]).await);
    let (admin, forbidden) = (key("dee", &["admin"]).await, key("eve", &["admin"]).await);
    let (_, session) = turn(&server, &ann, "hello").await;
    let of = async |who: &Context, session_id: &str| {
        let request = ListSpansRequest { session_id: session_id.into(), ..Default::default() };
        telemetry(&server).list_spans(who, request).await.map(|list| list.spans.len()).map_err(|error| error.code())
    };
    assert_eq!((of(&ann, "").await, of(&ann, &session).await), (Ok(2), Ok(2)));
    assert_eq!((of(&bob, "").await, of(&bob, &session).await), (Ok(0), Err(Code::NotFound)));
    assert_eq!((of(&admin, "").await, of(&admin, &session).await), (Ok(2), Ok(2)));
    assert_eq!(of(&forbidden, "").await, Ok(0), "its trace is forbidden");
    assert_eq!(of(&Context::default(), "").await, Err(Code::Unauthenticated));
}
