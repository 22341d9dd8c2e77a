//! `remote::pool`: several real servers behind one model.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};

use llama_stack_core::{Code, Inference};
use llama_stack_inference::UpstreamFigures;
use llama_stack_proto::v1::{ChatRequest, ListModelsRequest, Message, chat_event::Event};

use crate::{
    all, cx, provider,
    server::{DONE, FINISHED, PATIENCE, Recorded, Server, Step, answer, chunk, json, said, spoken, stream, stream_head},
};

/// Nobody looks after upstreams, so that tests know who was asked what; none is preferred.
fn quiet() -> Value {
    json!({ "affinity": "none", "health": { "interval_seconds": 0 } })
}

fn merged(mut config: Value, more: Value) -> Value {
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

/// A pool of these servers, named `a`, `b`, …, each of which has the model `x`.
async fn pool(servers: &[&Server], config: Value) -> Arc<dyn Inference> {
    let upstream = |(n, server): (usize, &&Server)| json!({ "id": name(n), "type": "remote::openai", "config": { "url": server.url, "models": ["x"] } });
    let upstreams: Vec<Value> = servers.iter().enumerate().map(upstream).collect();
    provider("remote::pool", merged(json!({ "upstreams": upstreams }), config)).await.unwrap()
}

fn name(n: usize) -> String {
    char::from(b'a' + n as u8).to_string()
}

/// Answers with its name.
async fn works(name: &'static str) -> Server {
    Server::start(move |_, request| answered(request, name)).await
}

fn answered(request: &Recorded, name: &str) -> Vec<Step> {
    match request.json()["stream"].as_bool() {
        Some(true) => stream(&[said(name), FINISHED.into(), DONE.into()].concat()),
        _ => json(&spoken(name)),
    }
}

fn unavailable() -> Vec<Step> {
    answer(503, "", r#"{"error":{"message":"down"}}"#)
}

/// Down while the switch is on.
async fn switched(name: &'static str) -> (Server, Arc<AtomicBool>) {
    let down = Arc::new(AtomicBool::new(false));
    let switch = down.clone();
    let server = Server::start(move |_, request| match (switch.load(Ordering::SeqCst), request.line.starts_with("GET")) {
        (true, _) => unavailable(),
        (false, true) => json(&json!({ "data": [{ "id": "x" }] })),
        (false, false) => answered(request, name),
    })
    .await;
    (server, down)
}

async fn who(pool: &Arc<dyn Inference>, words: &str) -> String {
    let response = pool.chat(&cx(), ChatRequest::user("x", words)).await.unwrap();
    response.choices[0].message.as_ref().unwrap().joined_text()
}

/// How the pool's upstreams are.
async fn figures(pool: &Arc<dyn Inference>) -> Vec<UpstreamFigures> {
    let models = pool.list_models(&cx(), ListModelsRequest::default()).await.unwrap().models;
    serde_json::from_str(&models[0].metadata["upstreams"]).unwrap()
}

#[tokio::test]
async fn each_gets_its_part_by_weight() {
    let (a, b) = (works("a").await, works("b").await);
    let entry = |id: &str, server: &Server, weight: u32| json!({ "id": id, "type": "remote::openai", "weight": weight, "config": { "url": server.url, "models": ["x"] } });
    let upstreams = json!({ "upstreams": [entry("a", &a, 3), entry("b", &b, 1)], "balance": "weighted" });
    let pool = provider("remote::pool", merged(upstreams, quiet())).await.unwrap();
    for _ in 0..40 {
        who(&pool, "hi").await;
    }
    assert_eq!((a.requests().len(), b.requests().len()), (30, 10));
    let figures = figures(&pool).await;
    assert_eq!((figures[0].id.as_str(), figures[0].answered, figures[0].outstanding), ("up/a", 30, 0));
}

#[tokio::test]
async fn who_fails_is_left_alone_and_nobody_notices() {
    let (a, down) = switched("a").await;
    let b = works("b").await;
    let breaker = json!({ "breaker": { "failures": 3, "open_seconds": 600, "max_open_seconds": 600 } });
    let pool = pool(&[&a, &b], merged(quiet(), breaker)).await;
    down.store(true, Ordering::SeqCst);
    for _ in 0..20 {
        assert_eq!(who(&pool, "hi").await, "b");
    }
    assert_eq!(a.requests().len(), 3, "asked after its breaker had opened");
    let figures = figures(&pool).await;
    assert_eq!((figures[0].state.as_str(), figures[0].failed, figures[1].state.as_str()), ("open", 3, "closed"));
    // Back again, it is still left alone until its time is over.
    down.store(false, Ordering::SeqCst);
    assert_eq!(who(&pool, "hi").await, "b");
}

#[tokio::test]
async fn who_works_again_is_asked_again() {
    let (a, down) = switched("a").await;
    let b = works("b").await;
    let breaker = json!({ "breaker": { "failures": 1, "open_seconds": 0.02, "max_open_seconds": 0.02 }, "retries": { "minimum": 100000 } });
    let pool = pool(&[&a, &b], merged(quiet(), breaker)).await;
    down.store(true, Ordering::SeqCst);
    while a.requests().is_empty() {
        assert_eq!(who(&pool, "hi").await, "b");
    }
    down.store(false, Ordering::SeqCst);
    let healed = async { while who(&pool, "hi").await != "a" {} };
    tokio::time::timeout(PATIENCE, healed).await.expect("never asked again");
    assert_eq!(figures(&pool).await[0].state, "closed");
}

#[tokio::test]
async fn all_that_fail_are_not_asked_more_than_the_budget_allows() {
    let (a, b) = (Server::start(|_, _| unavailable()).await, Server::start(|_, _| unavailable()).await);
    let config = json!({ "breaker": { "failures": 1000 }, "retries": { "attempts": 1, "budget_percent": 10, "minimum": 2 } });
    let pool = pool(&[&a, &b], merged(quiet(), config)).await;
    for _ in 0..40 {
        let error = pool.chat(&cx(), ChatRequest::user("x", "hi")).await.unwrap_err();
        assert_eq!(error.code(), Code::Unavailable);
    }
    let asked = a.requests().len() + b.requests().len();
    // Two are always allowed; of forty, a tenth.
    assert_eq!(asked, 40 + 4, "the budget did not hold");
}

#[tokio::test]
async fn where_all_are_left_alone_the_caller_is_told_when_to_come_back() {
    let a = Server::start(|_, _| unavailable()).await;
    let breaker = json!({ "breaker": { "failures": 1, "open_seconds": 40 } });
    let config = merged(quiet(), breaker);
    let entry = json!({ "id": "a", "type": "remote::openai", "config": { "url": a.url, "models": ["x"], "retries": 0 } });
    let pool = provider("remote::pool", merged(json!({ "upstreams": [entry] }), config)).await.unwrap();
    pool.chat(&cx(), ChatRequest::user("x", "hi")).await.unwrap_err();
    let error = pool.chat(&cx(), ChatRequest::user("x", "hi")).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("no_upstream")));
    assert!(error.retry_after().is_some_and(|after| after > Duration::from_secs(30)), "{error:?}");
    assert_eq!(a.requests().len(), 1);
}

#[tokio::test]
async fn what_breaks_off_in_the_middle_is_an_error_and_never_gone_on_with_elsewhere() {
    let breaks = |_: usize, _: &Recorded| vec![stream_head(), chunk(said("one").as_bytes()), Step::Close];
    let (a, b) = (Server::start(breaks).await, Server::start(breaks).await);
    let pool = pool(&[&a, &b], quiet()).await;
    let (events, error) = all(pool.stream_chat(&cx(), ChatRequest::user("x", "hi")).await.unwrap()).await;
    assert_eq!(events.len(), 1);
    let error = error.expect("the stream ended as if it were done");
    assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("stream_broken")));
    assert_eq!(a.requests().len() + b.requests().len(), 1);
    let failed: u64 = figures(&pool).await.iter().map(|figures| figures.failed).sum();
    assert_eq!(failed, 1, "it does not count as a failure");
}

#[tokio::test]
async fn what_breaks_off_before_the_first_word_is_asked_of_another() {
    let a = Server::start(|_, _| vec![stream_head(), Step::Close]).await;
    let b = works("b").await;
    let pool = pool(&[&a, &b], merged(quiet(), json!({ "retries": { "minimum": 100 } }))).await;
    for _ in 0..4 {
        let (events, error) = all(pool.stream_chat(&cx(), ChatRequest::user("x", "hi")).await.unwrap()).await;
        assert!(error.is_none(), "{error:?}");
        assert_eq!(events[0].event, Some(Event::Text("b".into())));
    }
    assert!(!a.requests().is_empty());
}

#[tokio::test]
async fn conversations_stay_where_they_began_and_leave_where_they_must() {
    let ((a, down), (b, _)) = (switched("a").await, switched("b").await);
    let config = json!({ "health": { "interval_seconds": 0 }, "breaker": { "failures": 1, "open_seconds": 600 } });
    let pool = pool(&[&a, &b], config).await;
    let mut begun = Vec::new();
    for n in 0..32 {
        let mut request = ChatRequest::user("x", format!("conversation {n}"));
        let mut homes = Vec::new();
        for _ in 0..3 {
            let response = pool.chat(&cx(), request.clone()).await.unwrap();
            let said = response.choices[0].message.as_ref().unwrap().joined_text();
            request.messages.push(Message::assistant(said.as_str()));
            request.messages.push(Message::user("and then?"));
            homes.push(said);
        }
        assert!(homes.iter().all(|home| *home == homes[0]), "conversation {n} wandered: {homes:?}");
        begun.push(homes.swap_remove(0));
    }
    let at_a = begun.iter().filter(|home| *home == "a").count();
    assert!((4..=28).contains(&at_a), "{at_a} of 32 are at a");
    // A hint, never a need.
    down.store(true, Ordering::SeqCst);
    for n in 0..32 {
        assert_eq!(who(&pool, &format!("conversation {n}")).await, "b");
    }
}

#[tokio::test]
async fn who_does_not_answer_probes_is_the_last_choice() {
    let ((a, down), (b, _)) = (switched("a").await, switched("b").await);
    let upstream = |id: &str, server: &Server| json!({ "id": id, "type": "remote::openai", "config": { "url": server.url } });
    let health = json!({ "affinity": "none", "health": { "interval_seconds": 0, "failures": 1, "timeout_seconds": 60 } });
    let config = merged(json!({ "upstreams": [upstream("a", &a), upstream("b", &b)] }), health);
    let pool = provider("remote::pool", config).await.unwrap();
    down.store(true, Ordering::SeqCst);
    // Listing models is a probe.
    assert!(!figures(&pool).await[0].healthy);
    let before = a.requests().len();
    for _ in 0..6 {
        assert_eq!(who(&pool, "hi").await, "b");
    }
    assert_eq!(a.requests().len(), before);
    down.store(false, Ordering::SeqCst);
    assert!(figures(&pool).await[0].healthy);
    let mut seen = vec![who(&pool, "hi").await, who(&pool, "hi").await];
    seen.sort();
    assert_eq!(seen, ["a", "b"]);
}

#[tokio::test]
async fn upstreams_are_looked_after_though_nobody_asks() {
    let (a, _) = switched("a").await;
    let entry = json!({ "id": "a", "type": "remote::openai", "config": { "url": a.url } });
    let config = json!({ "upstreams": [entry], "health": { "interval_seconds": 0.01 } });
    let _pool = provider("remote::pool", config).await.unwrap();
    let looked = async {
        while a.requests().len() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, looked).await.expect("not asked for its models");
}

#[tokio::test]
async fn only_what_another_may_answer_is_asked_of_another() {
    let refuses = |status: u16| Server::start(move |_, _| answer(status, "", r#"{"error":{"message":"no","type":"x"}}"#));
    // Too much to do, and a key that is wrong there: another may.
    for status in [429, 503, 401] {
        let (a, b) = (refuses(status).await, works("b").await);
        let pool = pool(&[&a, &b], quiet()).await;
        assert_eq!((who(&pool, "hi").await, who(&pool, "hi").await), ("b".into(), "b".into()), "{status}");
    }
    // The request is wrong, or breaks who tries it.
    for (status, code) in [(400, Code::InvalidArgument), (500, Code::Internal)] {
        let (a, b) = (refuses(status).await, refuses(status).await);
        let pool = pool(&[&a, &b], quiet()).await;
        assert_eq!(pool.chat(&cx(), ChatRequest::user("x", "hi")).await.unwrap_err().code(), code);
        assert_eq!(a.requests().len() + b.requests().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn who_has_a_model_is_asked_for_it() {
    let (a, b) = (works("a").await, works("b").await);
    let upstream = |id: &str, server: &Server, models: &[&str]| json!({ "id": id, "type": "remote::openai", "config": { "url": server.url, "models": models } });
    let config = json!({ "upstreams": [upstream("a", &a, &["x", "y"]), upstream("b", &b, &["x"])] });
    let pool = provider("remote::pool", merged(config, quiet())).await.unwrap();
    let models = pool.list_models(&cx(), ListModelsRequest::default()).await.unwrap().models;
    let shown: Vec<(&str, &str)> = models.iter().map(|model| (model.id.as_str(), model.metadata["state"].as_str())).collect();
    assert_eq!(shown, [("x", "2/2 up"), ("y", "1/1 up")]);
    for _ in 0..4 {
        let response = pool.chat(&cx(), ChatRequest::user("y", "hi")).await.unwrap();
        assert_eq!(response.choices[0].message.as_ref().unwrap().joined_text(), "a");
    }
    let error = pool.chat(&cx(), ChatRequest::user("z", "hi")).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::NotFound, Some("model_not_found")));
}

#[tokio::test]
async fn what_is_wrong_in_a_pool_is_named_with_its_place() {
    let wrong = async |config: Value| {
        let error = provider("remote::pool", config).await.err().unwrap();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
        error.field().unwrap().to_owned()
    };
    let one = json!({ "id": "a", "type": "remote::grpc", "config": { "url": "http://127.0.0.1:1" } });
    assert_eq!(wrong(json!({})).await, "config.upstreams");
    assert_eq!(wrong(json!({ "upstreams": [] })).await, "config.upstreams");
    assert_eq!(wrong(json!({ "upstreams": [one, one] })).await, "config.upstreams[1].id");
    assert_eq!(wrong(json!({ "upstreams": [one, { "id": "b", "type": "remote::openai" }] })).await, "config.upstreams[1].config.url");
    assert_eq!(wrong(json!({ "upstreams": [{ "id": "b", "type": "remote::pool" }] })).await, "config.upstreams[0].type");
    assert_eq!(wrong(json!({ "upstreams": [merged(one.clone(), json!({ "weight": 0 }))] })).await, "config.upstreams[0].weight");
    assert_eq!(wrong(json!({ "upstreams": [one], "breaker": { "open_seconds": -1 } })).await, "config.breaker.open_seconds");
}
