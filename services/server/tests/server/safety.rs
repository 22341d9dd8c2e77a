//! Shields from outside: moderations as OpenAI's clients ask for them, the classic form, and gRPC.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use llama_stack_core::{
    Context, Error, Result, Safety,
    grpc::{Remote, channel},
};
use llama_stack_proto::v1::{
    CategoryScore, ListShieldsRequest, ListShieldsResponse, Message, RunShieldRequest, RunShieldResponse, Shield, ShieldCategory,
    ShieldStage, Violation, part::Content, safety_client::SafetyClient, violation::Level,
};
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::client::{Server, start, start_shielded};

/// `guard` reads text and finds a bomb in it (S1); `eyes` sees images as well, and has no categories.
#[derive(Default)]
struct Guards(Arc<AtomicUsize>);

#[async_trait::async_trait]
impl Safety for Guards {
    async fn list_shields(&self, _: &Context, _: ListShieldsRequest) -> Result<ListShieldsResponse> {
        let category = |code: &str, name: &str| ShieldCategory { code: code.into(), name: name.into() };
        let guard = Shield {
            id: "guard".into(),
            provider_type: "test::guards".into(),
            model: "llama-guard-3-1b".into(),
            threshold: 0.5,
            stages: vec![ShieldStage::Input.into()],
            categories: vec![category("S1", "Violent Crimes"), category("S5", "Defamation")],
            ..Shield::default()
        };
        Ok(ListShieldsResponse { shields: vec![guard, Shield { id: "eyes".into(), ..Shield::default() }], next_page_token: String::new() })
    }

    async fn run_shield(&self, _: &Context, request: RunShieldRequest) -> Result<RunShieldResponse> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let last = request.messages.last().unwrap();
        let text = last.joined_text();
        if text == "fail" {
            return Err(Error::unavailable("the guard is down").with_reason("upstream_unreachable"));
        }
        if text == "odd" {
            let violation = Violation { level: Level::Error.into(), reason: "unparseable_verdict".into(), ..Violation::default() };
            return Ok(RunShieldResponse { violation: Some(violation), unscored: true, ..RunShieldResponse::default() });
        }
        let sees = last.parts.iter().any(|part| matches!(part.content, Some(Content::Image(_))));
        if sees && request.shield_id == "guard" {
            return Err(Error::invalid("messages[0].parts[1]", "this shield reads text").with_reason("images_not_supported"));
        }
        let bomb = text.contains("bomb");
        let score = |code: &str, score: f32| CategoryScore { code: code.into(), score, violated: bomb && code == "S1" };
        let violation = bomb.then(|| Violation {
            level: Level::Error.into(),
            user_message: "Not that.".into(),
            categories: vec!["S1".into()],
            reason: "unsafe".into(),
        });
        let scores =
            if request.shield_id == "guard" { vec![score("S1", if bomb { 0.75 } else { 0.125 }), score("S5", 0.0)] } else { vec![] };
        Ok(RunShieldResponse { violation, scores, ..RunShieldResponse::default() })
    }
}

async fn shielded() -> (Server, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    (start_shielded(Arc::new(Guards(asked.clone()))).await, asked)
}

async fn moderated(server: &Server, body: Value) -> Value {
    server.json("POST", "/v1/moderations", body).await
}

#[tokio::test]
async fn every_text_of_a_list_is_judged() {
    let (server, asked) = shielded().await;
    let answer = moderated(&server, json!({ "input": ["a bomb", "a sofa", "a bomb again"] })).await;
    let flagged: Vec<_> = answer["results"].as_array().unwrap().iter().map(|result| result["flagged"].as_bool().unwrap()).collect();
    assert_eq!((flagged.as_slice(), asked.load(Ordering::SeqCst)), ([true, false, true].as_slice(), 3));
    assert_eq!(answer["model"], "guard", "the manifest's first shield");
    assert!(answer["id"].as_str().unwrap().starts_with("modr-"));
}

#[tokio::test]
async fn categories_have_real_scores_and_openais_names() {
    let (server, _) = shielded().await;
    let answer = moderated(&server, json!({ "input": "a bomb", "model": "guard" })).await;
    let result = &answer["results"][0];
    assert_eq!((&result["categories"]["S1"], &result["category_scores"]["S1"]), (&json!(true), &json!(0.75)));
    assert_eq!((&result["categories"]["S5"], &result["category_scores"]["S5"]), (&json!(false), &json!(0.0)));
    assert_eq!((&result["categories"]["violence"], &result["category_scores"]["violence"]), (&json!(true), &json!(0.75)));
    assert_eq!((&result["categories"]["hate"], &result["category_applied_input_types"]["hate"]), (&json!(false), &json!([])));
    assert_eq!(result["category_applied_input_types"]["violence"], json!(["text"]));
    assert_eq!((&result["user_message"], &result["metadata"]), (&json!("Not that."), &json!({ "reason": "unsafe", "level": "error" })));
    let safe = moderated(&server, json!({ "input": "a sofa" })).await;
    assert!(safe["results"][0].get("metadata").is_none() && safe["results"][0].get("user_message").is_none(), "{safe}");
    let odd = moderated(&server, json!({ "input": "odd" })).await;
    let why = json!({ "reason": "unparseable_verdict", "level": "error", "unscored": true });
    assert_eq!((&odd["results"][0]["flagged"], &odd["results"][0]["metadata"]), (&json!(true), &why), "flagged, and by what");
    assert_eq!((&safe["results"][0]["flagged"], &safe["results"][0]["category_scores"]["S1"]), (&json!(false), &json!(0.125)));
}

#[tokio::test]
async fn texts_and_images_are_one_input() {
    let (server, asked) = shielded().await;
    let input =
        json!([{ "type": "text", "text": "a bomb?" }, { "type": "image_url", "image_url": { "url": "https://example.com/a.png" } }]);
    let answer = moderated(&server, json!({ "input": input, "model": "eyes" })).await;
    assert_eq!((answer["results"].as_array().unwrap().len(), asked.load(Ordering::SeqCst)), (1, 1));
    assert_eq!(answer["results"][0]["category_applied_input_types"]["S1"], json!(["text", "image"]));
    let refused = server.refused("POST", "/v1/moderations", json!({ "input": input, "model": "guard" })).await;
    assert_eq!((refused.0, refused.2), (400, json!("images_not_supported")));
}

#[tokio::test]
async fn what_is_wrong_is_told_with_its_field() {
    let (server, _) = shielded().await;
    let refused = async |body: Value| {
        let (status, param, code) = server.refused("POST", "/v1/moderations", body).await;
        (status, param.as_str().unwrap_or_default().to_owned(), code.as_str().unwrap_or_default().to_owned())
    };
    let told = |status: u16, param: &str, code: &str| (status, param.to_owned(), code.to_owned());
    assert_eq!(refused(json!({})).await, told(400, "input", "missing_field"));
    assert_eq!(refused(json!({ "input": [] })).await, told(400, "input", ""));
    assert_eq!(refused(json!({ "input": [1] })).await, told(400, "input[0]", "invalid_type"));
    assert_eq!(refused(json!({ "input": "a", "model": "gard" })).await, told(404, "model", "shield_not_found"));
    assert_eq!(refused(json!({ "input": ["a", "fail"] })).await, told(503, "", "upstream_unreachable"), "nothing judged is not safe");
    let bare = start().await;
    let (status, _, code) = bare.refused("POST", "/v1/moderations", json!({ "input": "a" })).await;
    assert_eq!((status, code), (400, json!("no_shield")));
}

#[tokio::test]
async fn the_classic_form_is_there() {
    let (server, _) = shielded().await;
    let run = async |messages: Value| {
        let body = json!({ "shield_id": "guard", "messages": messages, "params": {} });
        server.json("POST", "/v1/safety/run-shield", body).await["violation"].clone()
    };
    assert_eq!(run(json!([{ "role": "user", "content": "a bomb" }, { "role": "assistant", "content": "No." }])).await, Value::Null);
    let violation = run(json!([{ "role": "user", "content": [{ "type": "text", "text": "a bomb" }] }])).await;
    assert_eq!((&violation["violation_level"], &violation["user_message"]), (&json!("error"), &json!("Not that.")));
    let metadata = &violation["metadata"];
    assert_eq!(
        (&metadata["violation_type"], &metadata["reason"], &metadata["scores"]["S1"]),
        (&json!("S1"), &json!("unsafe"), &json!(0.75))
    );
    let at = async |stage: &str, text: &str| {
        let body = json!({ "shield_id": "guard", "messages": [{ "role": "user", "content": text }], "params": { "stage": stage } });
        server.json("POST", "/v1/safety/run-shield", body).await
    };
    assert_eq!(at("tool_arguments", "odd").await["unscored"], true);
    for stage in ["tool-arguments", "tool_result", "tool_results", "output"] {
        let passed = at(stage, "a sofa").await;
        assert!(passed["violation"].is_null() && passed.get("unscored").is_none(), "{stage}: {passed}");
    }
    let crooked = json!({ "shield_id": "guard", "messages": [{ "role": "user", "content": "a" }], "params": { "stage": "later" } });
    assert_eq!(server.refused("POST", "/v1/safety/run-shield", crooked).await.1, "params.stage");
    let empty = json!({ "shield_id": "guard", "messages": [] });
    assert_eq!(server.refused("POST", "/v1/safety/run-shield", empty).await.1, "messages");

    let listed = server.json("GET", "/v1/shields", Value::Null).await;
    let ids: Vec<_> = listed["data"].as_array().unwrap().iter().map(|shield| shield["identifier"].clone()).collect();
    assert_eq!(ids, ["guard", "eyes"]);
    let one = server.json("GET", "/v1/shields/guard", Value::Null).await;
    assert_eq!(
        (&one["type"], &one["provider_resource_id"], &one["provider_id"]),
        (&json!("shield"), &json!("llama-guard-3-1b"), &json!("guards"))
    );
    assert_eq!(one["params"]["categories"][0], json!({ "code": "S1", "name": "Violent Crimes" }));
    assert_eq!(server.refused("GET", "/v1/shields/nope", Value::Null).await.0, 404);
}

#[tokio::test]
async fn grpc_is_the_same_and_verdicts_are_counted() {
    let (server, asked) = shielded().await;
    let remote = Remote::<SafetyClient<Channel>>::new(channel(&server.url(""), Duration::from_secs(2)).unwrap());
    let request = RunShieldRequest { shield_id: "guard".into(), messages: vec![Message::user("a bomb")], stage: 1, ..Default::default() };
    let (cx, mut costs) = (Context::test("acme"), Vec::new());
    for _ in 0..2 {
        let verdict = remote.run_shield(&cx, request.clone()).await.unwrap();
        assert_eq!(verdict.violation.unwrap().categories, ["S1"]);
        costs.push((verdict.judged_bytes, verdict.known_bytes));
    }
    assert_eq!((costs.as_slice(), asked.load(Ordering::SeqCst)), ([(6, 0), (0, 6)].as_slice(), 1), "what is known is not judged again");
    let failing = RunShieldRequest { messages: vec![Message::user("fail")], ..request };
    assert!(remote.run_shield(&cx, failing).await.is_err());
    let metrics = server.get("/metrics").await.text().await.unwrap();
    for line in [
        r#"llama_stack_shield_verdicts_total{shield="guard",outcome="violation"} 2"#,
        r#"llama_stack_shield_verdicts_total{shield="guard",outcome="error"} 1"#,
        r#"llama_stack_shield_bytes_total{shield="guard",verdict="known"} 6"#,
        r#"llama_stack_shield_seconds_count{shield="guard"} 3"#,
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
}
