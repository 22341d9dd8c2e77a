//! Limits at the door: who is refused, with which words and headers, and who is not.

use std::time::Duration;

use llama_stack_core::{
    Agents as _, Code, Context, Error, Identity as _, Inference, Principal,
    context::Secret,
    grpc::{Remote, channel},
};
use llama_stack_proto::v1::{
    AgentConfig, CreateApiKeyRequest, CreateTurnRequest, ListModelsRequest, Message, Quota, agents_client::AgentsClient,
    identity_client::IdentityClient, inference_client::InferenceClient,
};
use llama_stack_test_postgres::Server as Postgres;
use reqwest::{Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;
use tonic::transport::Channel;

use crate::client::{PATIENCE, Server, chat, serve, start_with, streamed};

const CHAT: &str = "/v1/chat/completions";

/// A request of this caller.
async fn ask(server: &Server, tenant: &str, principal: &str) -> Response {
    let request = server.http.post(server.url(CHAT)).header("x-llama-stack-tenant", tenant).header("x-llama-stack-principal", principal);
    request.json(&chat("hi")).send().await.unwrap()
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).unwrap_or_else(|| panic!("no {name}: {:?}", response.headers())).to_str().unwrap()
}

async fn code(response: Response) -> Value {
    response.json::<Value>().await.unwrap()["error"]["code"].clone()
}

fn over_grpc(server: &Server) -> Remote<InferenceClient<Channel>> {
    Remote::<InferenceClient<Channel>>::new(channel(&server.url(""), Duration::from_secs(5)).unwrap())
}

async fn models(server: &Server, principal: &str) -> Result<(), Error> {
    let cx = Context::new(Principal { id: principal.into(), ..Principal::default() });
    over_grpc(server).list_models(&cx, ListModelsRequest::default()).await.map(drop)
}

#[tokio::test]
async fn requests_a_minute_are_counted_down_and_then_refused_with_a_time() {
    let server = start_with("limits: { each_principal: { requests_per_minute: 3 } }\n").await;
    for left in ["2", "1", "0"] {
        let response = ask(&server, "acme", "ann").await;
        assert_eq!((response.status(), header(&response, "x-ratelimit-remaining-requests")), (StatusCode::OK, left));
        assert_eq!(header(&response, "x-ratelimit-limit-requests"), "3");
        assert!(header(&response, "x-ratelimit-reset-requests").ends_with('s'));
    }
    let response = ask(&server, "acme", "ann").await;
    assert_eq!((response.status(), header(&response, "x-ratelimit-remaining-requests")), (StatusCode::TOO_MANY_REQUESTS, "0"));
    let seconds: u64 = header(&response, "retry-after").parse().unwrap();
    assert!((1..=20).contains(&seconds), "{seconds}");
    assert!(response.headers().contains_key("x-request-id"));
    let body: Value = response.json().await.unwrap();
    assert_eq!((&body["error"]["code"], &body["error"]["type"]), (&json!("rate_limit_exceeded"), &json!("rate_limit_error")), "{body}");
    // Another caller has their own, and so has one of the same name elsewhere.
    assert_eq!(ask(&server, "acme", "bob").await.status(), 200);
    assert_eq!(ask(&server, "other", "ann").await.status(), 200);
    // Whoever asks how the server is gets an answer.
    for _ in 0..5 {
        assert_eq!(server.get("/v1/health").await.status(), 200);
    }
    let metrics = server.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains(r#"llama_stack_requests_refused_total{reason="rate_limit_exceeded"} 1"#), "{metrics}");
}

#[tokio::test]
async fn both_protocols_draw_on_the_same_account() {
    let server = start_with("limits: { principals: { default/ann: { requests_per_minute: 2 } } }\n").await;
    models(&server, "ann").await.unwrap();
    assert_eq!(ask(&server, "default", "ann").await.status(), 200);
    let error = models(&server, "ann").await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::ResourceExhausted, Some("rate_limit_exceeded")), "{error:?}");
    assert!(error.retry_after().is_some_and(|after| after >= Duration::from_secs(1)), "{error:?}");
    models(&server, "bob").await.unwrap();
}

/// The scripted model says that each answer took nine tokens.
#[tokio::test]
async fn tokens_are_charged_when_they_were_used_and_a_debt_is_waited_for() {
    let server = start_with("limits: { each_tenant: { tokens_per_minute: 10 } }\n").await;
    let first = ask(&server, "acme", "ann").await;
    assert_eq!((first.status(), header(&first, "x-ratelimit-remaining-tokens")), (StatusCode::OK, "10"));
    assert_eq!(ask(&server, "acme", "bob").await.status(), 200, "one token is left");
    let refused = ask(&server, "acme", "ann").await;
    assert_eq!((refused.status(), header(&refused, "x-ratelimit-remaining-tokens")), (StatusCode::TOO_MANY_REQUESTS, "0"));
    assert!(header(&refused, "retry-after").parse::<u64>().unwrap() > 30, "the debt of eight tokens was forgotten");
    assert_eq!(ask(&server, "other", "ann").await.status(), 200);
}

/// Else whoever breaks every answer off before its end has them all for nothing.
#[tokio::test]
async fn an_answer_that_is_broken_off_is_charged_for_what_was_shown() {
    let server = start_with("limits: { each_principal: { tokens_per_minute: 1000 } }\n").await;
    let mut answer = server.post(CHAT, &streamed("flood")).await;
    let mut read = 0;
    while read < 10_000 {
        read += answer.chunk().await.unwrap().expect("it has no end").len();
    }
    drop(answer);
    // Looking takes no tokens.
    let charged = async {
        while header(&server.get("/v1/models").await, "x-ratelimit-remaining-tokens") != "0" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, charged).await.expect("nothing was charged");
    assert_eq!(server.post(CHAT, &chat("hi")).await.status(), 429);
}

#[tokio::test]
async fn a_request_counts_until_the_end_of_its_answer() {
    let server = start_with("limits: { each_principal: { concurrent_requests: 1 } }\n").await;
    let slow = server.post(CHAT, &streamed("slow")).await;
    assert_eq!(slow.status(), 200);
    let refused = server.post(CHAT, &chat("hi")).await;
    assert_eq!((refused.status(), header(&refused, "retry-after")), (StatusCode::TOO_MANY_REQUESTS, "1"));
    assert_eq!(ask(&server, "default", "bob").await.status(), 200);
    server.script.go_on();
    assert!(slow.text().await.unwrap().contains("[DONE]"));
    // The place is given back when the server is done with the body, a moment after the client is.
    let again = async {
        while server.post(CHAT, &chat("hi")).await.status() != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("the place was not given back");
    // One who goes away gives it back as well.
    drop(server.post(CHAT, &streamed("forever")).await);
    let again = async {
        while server.post(CHAT, &chat("hi")).await.status() != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("the place was not given back");
}

#[tokio::test]
async fn a_full_server_refuses_at_once_and_still_says_how_it_is() {
    let server = start_with("limits: { max_in_flight: 1 }\n").await;
    let slow = server.post(CHAT, &streamed("slow")).await;
    let refused = server.post(CHAT, &chat("hi")).await;
    assert_eq!((refused.status(), header(&refused, "retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
    assert_eq!(code(refused).await, "overloaded");
    let error = models(&server, "ann").await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("overloaded")));
    assert_eq!(server.get("/livez").await.status(), 200);
    assert_eq!(server.get("/v1/health").await.status(), 200);
    server.script.go_on();
    slow.text().await.unwrap();
}

/// Nine tokens an answer, and twenty a day: the third is let in, the fourth is not; nor after a restart, nor elsewhere.
#[tokio::test]
async fn a_days_tokens_are_counted_in_the_store_by_all_processes() {
    let folder = TempDir::new().unwrap();
    shared_day(&format!("sqlite://{}/shared.db", folder.path().display())).await;
}

/// The same where replicas share a Postgres.
#[tokio::test(flavor = "multi_thread")]
async fn a_days_tokens_are_counted_in_postgres_by_all_replicas() {
    let server = tokio::task::spawn_blocking(Postgres::start_or_skip).await.unwrap().unwrap();
    if let Some(server) = server {
        shared_day(&server.database().unwrap()).await;
    }
}

async fn shared_day(url: &str) {
    let more = format!("store: {{ url: \"{url}\" }}\nlimits: {{ each_tenant: {{ tokens_per_day: 20 }} }}\n");
    let (one, other) = (start_with(&more).await, start_with(&more).await);
    // Both have an account of this tenant.
    assert_eq!(ask(&other, "acme", "ann").await.status(), 200);
    for _ in 0..2 {
        assert_eq!(ask(&one, "acme", "ann").await.status(), 200);
    }
    let refused = async {
        loop {
            let (here, there) = (ask(&one, "acme", "bob").await, ask(&other, "acme", "ann").await);
            if (here.status(), there.status()) == (StatusCode::TOO_MANY_REQUESTS, StatusCode::TOO_MANY_REQUESTS) {
                return there;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let refused = timeout(PATIENCE, refused).await.expect("what one used did not reach the other");
    assert!(header(&refused, "retry-after").parse::<u64>().unwrap() <= 86_400);
    assert_eq!(code(refused).await, "insufficient_quota");
    for server in [one, other] {
        server.stop.cancel();
        timeout(PATIENCE, server.served).await.expect("did not stop").unwrap().unwrap();
    }
    let again = start_with(&more).await;
    assert_eq!(code(ask(&again, "acme", "ann").await).await, "insufficient_quota");
    assert_eq!(ask(&again, "other", "ann").await.status(), 200);
}

/// One replica is asked much and the other little: what the one let in is taken from the other's bucket too.
#[tokio::test(flavor = "multi_thread")]
async fn rates_hold_over_replicas_that_share_a_postgres() {
    let postgres = tokio::task::spawn_blocking(Postgres::start_or_skip).await.unwrap().unwrap();
    let Some(postgres) = postgres else { return };
    let url = postgres.database().unwrap();
    let more = format!("store: {{ url: \"{url}\" }}\nlimits: {{ each_principal: {{ requests_per_minute: 60 }} }}\n");
    let (one, other) = (start_with(&more).await, start_with(&more).await);
    // Alone, the other would never have less than 57: a request comes back each second.
    let told = async {
        loop {
            for _ in 0..10 {
                ask(&one, "acme", "ann").await;
            }
            let left: u64 = header(&ask(&other, "acme", "ann").await, "x-ratelimit-remaining-requests").parse().unwrap();
            if left < 40 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2_200)).await;
        }
    };
    timeout(PATIENCE, told).await.expect("what one let in did not reach the other");
    let left = ask(&other, "acme", "bob").await;
    assert_eq!(header(&left, "x-ratelimit-remaining-requests"), "59", "another caller was charged for it");
}

#[tokio::test]
async fn a_days_budget_is_counted_by_the_prices() {
    let prices = "agents: { prices: { parrot: { input: 100000, output: 100000 } } }\n";
    let server = start_with(&format!("{prices}limits: {{ each_principal: {{ cost_per_day: 0.85 }} }}\n")).await;
    // Nine tokens at a tenth each.
    assert_eq!(ask(&server, "acme", "ann").await.status(), 200);
    let refused = ask(&server, "acme", "ann").await;
    assert_eq!(refused.status(), 429);
    assert_eq!(code(refused).await, "insufficient_quota");
    assert_eq!(ask(&server, "acme", "bob").await.status(), 200);
}

/// A line of a batch waits where a caller is refused, and is not counted as a request.
#[tokio::test]
async fn a_batch_is_charged_for_tokens_and_not_for_requests() {
    let quota = "each_principal: { requests_per_minute: 3, tokens_per_day: 45 }, principals: { default/root: {} }";
    let server = start_with(&format!("limits: {{ {quota} }}\n")).await;
    let line = |n: usize| json!({ "custom_id": format!("c{n}"), "method": "POST", "url": CHAT, "body": chat("hi") }).to_string();
    let lines: Vec<String> = (0..5).map(line).collect();
    let form = format!(
        "--line\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--line\r\ncontent-disposition: form-data; \
         name=\"file\"; filename=\"in.jsonl\"\r\n\r\n{}\r\n--line--\r\n",
        lines.join("\n")
    );
    let request = server.http.post(server.url("/v1/files")).header("content-type", "multipart/form-data; boundary=line").body(form);
    let file: Value = request.send().await.unwrap().json().await.unwrap();
    let asked = json!({ "input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h" });
    let batch = server.json("POST", "/v1/batches", asked).await;
    let url = server.url(&format!("/v1/batches/{}", batch["id"].as_str().unwrap()));
    let done = async {
        loop {
            let look = server.http.get(&url).header("x-llama-stack-principal", "root").header("x-llama-stack-roles", "admin");
            let batch: Value = look.send().await.unwrap().json().await.unwrap();
            if batch["status"] == "completed" {
                return batch;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let batch = timeout(PATIENCE, done).await.expect("the batch did not end");
    assert_eq!(batch["request_counts"]["completed"], 5, "{batch}");
    // Five answers of nine tokens: the day's are used up, by two requests of which one is left.
    assert_eq!(code(server.post(CHAT, &chat("hi")).await).await, "insufficient_quota");
    // What there is can be looked at still.
    assert_eq!(server.get("/v1/models").await.status(), 200);
}

/// A turn in the background holds its place without any request, and gives it back at its end.
#[tokio::test]
async fn turns_at_once_are_bounded_also_where_nobody_waits_for_them() {
    let server = start_with("limits: { each_principal: { concurrent_turns: 1 } }\n").await;
    let respond = async |principal: &str, body: Value| {
        let request = server.http.post(server.url("/v1/responses")).header("x-llama-stack-principal", principal);
        request.json(&body).send().await.unwrap()
    };
    let slow = json!({ "model": "parrot", "input": "slow", "background": true });
    let begun = respond("ann", slow).await;
    assert_eq!(begun.status(), 200);
    let id = begun.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned();
    let quick = json!({ "model": "parrot", "input": "hi" });
    let refused = respond("ann", quick.clone()).await;
    assert_eq!((refused.status(), header(&refused, "retry-after")), (StatusCode::TOO_MANY_REQUESTS, "1"));
    assert_eq!(code(refused).await, "rate_limit_exceeded");
    let agents = Remote::<AgentsClient<Channel>>::new(channel(&server.url(""), Duration::from_secs(5)).unwrap());
    let cx = Context::new(Principal { id: "ann".into(), ..Principal::default() });
    let config = Some(AgentConfig { model: "parrot".into(), ..AgentConfig::default() });
    let request = CreateTurnRequest { config, input: vec![Message::user("hi")], ..CreateTurnRequest::default() };
    let error = agents.create_turn(&cx, request).await.err().expect("a second turn began");
    assert_eq!((error.code(), error.retry_after()), (Code::ResourceExhausted, Some(Duration::from_secs(1))), "{error:?}");
    assert_eq!(respond("bob", quick.clone()).await.status(), 200);
    server.script.go_on();
    let ended = async {
        while server.json("GET", &format!("/v1/responses/{id}"), Value::Null).await["status"] != "completed" {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, ended).await.expect("the turn did not end");
    assert_eq!(respond("ann", quick).await.status(), 200);
}

/// A stack that asks for keys, and the secret of an admin of `acme`.
async fn keyed(more: &str) -> (Server, String) {
    let mut book = None;
    let server = serve(&format!("server: {{ auth: {{ api_keys: true }} }}\n{more}"), |stack| book = Some(stack.identity.clone())).await;
    let request = CreateApiKeyRequest { principal: "eve".into(), roles: vec!["admin".into()], ..CreateApiKeyRequest::default() };
    let issued = book.unwrap().create_api_key(&Context::test("acme"), request).await.unwrap();
    (server, issued.secret)
}

/// Of the admin: another key of Ann's.
async fn issue(server: &Server, admin: &str, quota: Value) -> Value {
    let body = json!({ "principal": "ann", "quota": quota });
    server.http.post(server.url("/v1/api-keys")).bearer_auth(admin).json(&body).send().await.unwrap().json().await.unwrap()
}

async fn ask_with(server: &Server, secret: &str) -> Response {
    server.http.post(server.url(CHAT)).bearer_auth(secret).json(&chat("hi")).send().await.unwrap()
}

#[tokio::test]
async fn a_key_has_limits_of_its_own_over_both_protocols_and_keeps_them_when_it_is_rotated() {
    let (server, admin) = keyed("").await;
    let key = issue(&server, &admin, json!({ "requests_per_minute": 2 })).await;
    assert_eq!(key["quota"], json!({ "requests_per_minute": 2 }), "{key}");
    let secret = key["secret"].as_str().unwrap();
    let first = ask_with(&server, secret).await;
    assert_eq!((first.status(), header(&first, "x-ratelimit-remaining-requests")), (StatusCode::OK, "1"));
    let list = async |secret: &str| {
        let cx = Context::default().with_bearer(Secret::new(secret));
        over_grpc(&server).list_models(&cx, ListModelsRequest::default()).await.map(drop)
    };
    list(secret).await.unwrap();
    let error = list(secret).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::ResourceExhausted, Some("rate_limit_exceeded")), "{error:?}");
    assert!(error.message().contains("this API key") && error.retry_after().is_some(), "{error:?}");
    assert_eq!(ask_with(&server, secret).await.status(), 429);
    // Her other key has none, whatever she has asked with this one.
    let other = issue(&server, &admin, Value::Null).await;
    let free = ask_with(&server, other["secret"].as_str().unwrap()).await;
    assert!(free.status() == 200 && !free.headers().contains_key("x-ratelimit-limit-requests"), "{free:?}");
    let rotate = server.url(&format!("/v1/api-keys/{}/rotate", key["id"].as_str().unwrap()));
    let rotated: Value = server.http.post(rotate).bearer_auth(&admin).json(&json!({})).send().await.unwrap().json().await.unwrap();
    assert_eq!(rotated["quota"], key["quota"], "{rotated}");
    assert_eq!(ask_with(&server, rotated["secret"].as_str().unwrap()).await.status(), 429);
    // Over gRPC as over HTTP; and what makes no sense is refused.
    let book = Remote::<IdentityClient<Channel>>::new(channel(&server.url(""), Duration::from_secs(5)).unwrap());
    let by_admin = Context::default().with_bearer(Secret::new(&admin));
    let make = async |quota: Quota| {
        book.create_api_key(&by_admin, CreateApiKeyRequest { quota: Some(quota), ..CreateApiKeyRequest::default() }).await
    };
    let quota = Quota { cost_per_day: Some(0.5), ..Quota::default() };
    assert_eq!(make(quota).await.unwrap().key.unwrap().quota, Some(quota));
    let error = make(Quota { cost_per_day: Some(-1.0), ..Quota::default() }).await.unwrap_err();
    assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some("quota.cost_per_day")));
    let refused = issue(&server, &admin, json!({ "concurrent_turns": 0 })).await;
    assert_eq!(refused["error"]["param"], "quota.concurrent_turns", "{refused}");
    assert_eq!(issue(&server, &admin, json!({ "turns": 1 })).await["error"]["type"], "invalid_request_error");
}

/// Whoever speaks for others says of which tenant those are: that makes no new account.
#[tokio::test]
async fn a_delegates_key_has_one_account_for_all_tenants_that_it_names() {
    let mut book = None;
    let more = "server: { auth: { api_keys: true, delegates: [gateway] } }\nlimits: { each_key: { requests_per_minute: 2 } }\n";
    let server = serve(more, |stack| book = Some(stack.identity.clone())).await;
    let operator = Principal { id: "root".into(), tenant: "acme".into(), roles: vec!["operator".into()] };
    let request = CreateApiKeyRequest { principal: "gate".into(), roles: vec!["gateway".into()], ..CreateApiKeyRequest::default() };
    let secret = book.unwrap().create_api_key(&Context::new(operator), request).await.unwrap().secret;
    let ask = async |tenant: &str| {
        let request = server.http.post(server.url(CHAT)).bearer_auth(&secret).header("x-llama-stack-tenant", tenant);
        request.header("x-llama-stack-principal", "ann").json(&chat("hi")).send().await.unwrap()
    };
    for (tenant, left) in [("bank", "1"), ("law", "0")] {
        let response = ask(tenant).await;
        assert_eq!((response.status(), header(&response, "x-ratelimit-remaining-requests")), (StatusCode::OK, left));
    }
    assert_eq!(code(ask("zeta").await).await, "rate_limit_exceeded");
}

/// Nine tokens an answer.
#[tokio::test]
async fn what_a_day_allows_is_counted_for_each_key_and_known_after_a_restart() {
    let folder = TempDir::new().unwrap();
    let more =
        format!("store: {{ url: \"sqlite://{}/state.db\" }}\nlimits: {{ each_key: {{ tokens_per_day: 18 }} }}\n", folder.path().display());
    let (server, admin) = keyed(&more).await;
    let (one, other, own) = (
        issue(&server, &admin, Value::Null).await,
        issue(&server, &admin, Value::Null).await,
        issue(&server, &admin, json!({ "tokens_per_day": 5 })).await,
    );
    let secret = |key: &Value| key["secret"].as_str().unwrap().to_owned();
    assert_eq!(ask_with(&server, &secret(&own)).await.status(), 200);
    assert_eq!(code(ask_with(&server, &secret(&own)).await).await, "insufficient_quota", "its own five hold");
    for _ in 0..2 {
        assert_eq!(ask_with(&server, &secret(&one)).await.status(), 200);
    }
    assert_eq!(code(ask_with(&server, &secret(&one)).await).await, "insufficient_quota");
    assert_eq!(ask_with(&server, &secret(&other)).await.status(), 200);
    server.stop.cancel();
    timeout(PATIENCE, server.served).await.expect("did not stop").unwrap().unwrap();
    let again = start_with(&format!("server: {{ auth: {{ api_keys: true }} }}\n{more}")).await;
    for key in [&one, &own] {
        assert_eq!(code(ask_with(&again, &secret(key)).await).await, "insufficient_quota");
    }
    assert_eq!(ask_with(&again, &secret(&other)).await.status(), 200);
}

/// Whoever goes on with a turn counts it, in the place of the process that it began in.
#[tokio::test]
async fn a_turn_that_goes_on_in_another_process_counts_there_until_its_end() {
    let folder = TempDir::new().unwrap();
    let manifest = |most: u32| {
        let url = format!("sqlite://{}/state.db", folder.path().display());
        format!("store: {{ url: \"{url}\" }}\nlimits: {{ each_principal: {{ concurrent_turns: {most} }} }}\n")
    };
    let respond = async |server: &Server, principal: &str, body: Value| {
        let request = server.http.post(server.url("/v1/responses")).header("x-llama-stack-principal", principal);
        let response = request.json(&body).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let server = start_with(&manifest(2)).await;
    let mut begun = Vec::new();
    for _ in 0..2 {
        let (status, turn) = respond(&server, "ann", json!({ "model": "parrot", "input": "slow", "background": true })).await;
        assert_eq!(status, 200, "{turn}");
        begun.push(turn["id"].as_str().unwrap().to_owned());
    }
    server.script.was_asked("slow").await;
    server.stop.cancel();
    timeout(PATIENCE, server.served).await.expect("did not stop").unwrap().unwrap();
    // Both go on, although only one might begin.
    let again = start_with(&manifest(1)).await;
    let quick = json!({ "model": "parrot", "input": "hi" });
    let (status, refused) = respond(&again, "ann", quick.clone()).await;
    assert_eq!((status, &refused["error"]["code"]), (429, &json!("rate_limit_exceeded")), "{refused}");
    assert_eq!(respond(&again, "bob", quick.clone()).await.0, 200);
    let ended = async {
        for id in &begun {
            while again.json("GET", &format!("/v1/responses/{id}"), Value::Null).await["status"] != "completed" {
                again.script.go_on();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    };
    timeout(PATIENCE, ended).await.expect("the turns did not end");
    let (status, answer) = respond(&again, "ann", quick).await;
    assert_eq!(status, 200, "{answer}");
}

/// Nine tokens an answer. What one process gives up at its end is answered in the next, where nobody shows the key.
#[tokio::test]
async fn a_turn_that_goes_on_in_another_process_is_charged_to_the_key_that_it_was_begun_with() {
    let folder = TempDir::new().unwrap();
    let more = format!("store: {{ url: \"sqlite://{}/state.db\" }}\n", folder.path().display());
    let (server, admin) = keyed(&more).await;
    let key = issue(&server, &admin, json!({ "tokens_per_day": 5 })).await;
    let secret = key["secret"].as_str().unwrap();
    let slow = json!({ "model": "parrot", "input": "slow", "background": true });
    let begun = server.http.post(server.url("/v1/responses")).bearer_auth(secret).json(&slow).send().await.unwrap();
    assert_eq!(begun.status(), 200);
    let id = begun.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned();
    server.script.was_asked("slow").await;
    server.stop.cancel();
    timeout(PATIENCE, server.served).await.expect("did not stop").unwrap().unwrap();
    let again = start_with(&format!("server: {{ auth: {{ api_keys: true }} }}\n{more}")).await;
    again.script.was_asked("slow").await;
    again.script.go_on();
    let ended = async {
        loop {
            let look = again.http.get(again.url(&format!("/v1/responses/{id}"))).bearer_auth(secret).send().await.unwrap();
            if look.json::<Value>().await.unwrap()["status"] == "completed" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, ended).await.expect("the turn did not end");
    assert_eq!(code(ask_with(&again, secret).await).await, "insufficient_quota");
}
