use llama_stack_core::Code;
use llama_stack_proto::v1::{Image, Message, Part, image::Source};
use llama_stack_tests::guard::Upstream;
use serde_json::{Value, json};

use crate::{judge, judged, provider};

const KIND: &str = "remote::openai-moderations";

#[tokio::test]
async fn categories_come_as_the_server_has_them() {
    let upstream = Upstream::start(0).await;
    let shield = provider(KIND, json!({ "url": upstream.url, "model": "omni" }), None).await.unwrap();
    let response = judged(&shield, "the bomb").await;
    assert_eq!(response.violation.unwrap().categories, ["violence"]);
    let scores: Vec<_> = response.scores.iter().map(|score| (score.code.as_str(), score.score, score.violated)).collect();
    assert_eq!(scores, [("violence", 0.75, true), ("hate", 0.25, false)]);
    assert_eq!(upstream.seen(), [json!({ "input": "the bomb", "model": "omni" })]);
    assert!(judged(&shield, "the sofa").await.violation.is_none());
}

#[tokio::test]
async fn a_threshold_of_ones_own_goes_before_the_servers() {
    let upstream = Upstream::start(0).await;
    let shield = provider(KIND, json!({ "url": upstream.url, "threshold": 0.2 }), None).await.unwrap();
    assert_eq!(judged(&shield, "the sofa").await.violation.unwrap().categories, ["hate"]);
    let lenient = provider(KIND, json!({ "url": upstream.url, "threshold": 0.9 }), None).await.unwrap();
    assert!(judged(&lenient, "the bomb").await.violation.is_none());
}

#[tokio::test]
async fn images_go_with_the_text() {
    let upstream = Upstream::start(0).await;
    let shield = provider(KIND, json!({ "url": upstream.url }), None).await.unwrap();
    let mut message = Message::user("look");
    message.parts.push(Part::image(Image { source: Some(Source::Data(vec![1, 2, 3])), media_type: "image/png".into() }));
    judge(&shield, vec![message]).await.unwrap();
    let image = json!({ "type": "image_url", "image_url": { "url": "data:image/png;base64,AQID" } });
    assert_eq!(upstream.seen()[0]["input"], json!([{ "type": "text", "text": "look" }, image]));
}

#[tokio::test]
async fn a_server_that_fails_has_not_judged() {
    let upstream = Upstream::start(0).await;
    let shield = provider(KIND, json!({ "url": upstream.url, "api_key": "k" }), None).await.unwrap();
    let failed = async |text: &str| judge(&shield, vec![Message::user(text)]).await.unwrap_err();
    let refused = failed("401").await;
    assert_eq!((refused.code(), refused.reason()), (Code::FailedPrecondition, Some("upstream_unauthorized")));
    assert!(!refused.message().contains("sk-1"), "{refused}");
    let garbage = failed("garbage").await;
    assert_eq!((garbage.code(), garbage.reason()), (Code::Unavailable, Some("upstream_malformed")));
    drop(upstream);
    let nobody = provider(KIND, json!({ "url": "http://127.0.0.1:9", "retries": 0 }), None).await.unwrap();
    let gone = judge(&nobody, vec![Message::user("hi")]).await.unwrap_err();
    assert_eq!((gone.code(), gone.reason()), (Code::Unavailable, Some("upstream_unreachable")));
}

#[tokio::test]
async fn a_wrong_configuration_is_told_with_its_field() {
    let table: [(Value, &str); 5] = [
        (json!({}), "config.url"),
        (json!({ "url": "nowhere" }), "config.url"),
        (json!({ "url": "http://u:p@h/v1" }), "config.url"),
        (json!({ "url": "http://h", "threshold": 2 }), "config.threshold"),
        (json!({ "url": "http://h", "timeout_seconds": 0 }), "config.timeout_seconds"),
    ];
    for (config, field) in table {
        let error = provider(KIND, config, None).await.err().unwrap();
        assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some(field)));
    }
}
