use llama_stack_core::Context;
use llama_stack_proto::v1::{Message, RunShieldRequest, RunShieldResponse, violation};
use serde_json::json;

use super::*;

async fn shield(config: serde_json::Value) -> Result<std::sync::Arc<dyn Safety>> {
    let mut deps = Deps::new("/nowhere");
    deps.provider_id = "words".into();
    build(serde_json::from_value(config).unwrap(), deps).await
}

async fn judge(rule: serde_json::Value, stage: ShieldStage, text: &str) -> RunShieldResponse {
    let shield = shield(json!({"rules": [rule]})).await.unwrap();
    let request =
        RunShieldRequest { shield_id: "words".into(), messages: vec![Message::user(text)], stage: stage.into(), ..Default::default() };
    shield.run_shield(&Context::test("a"), request).await.unwrap()
}

#[tokio::test]
async fn a_keyword_is_found_in_any_disguise_and_only_as_a_word() {
    let rule = json!({"name": "project", "keywords": ["Project Falcon", "Größe", "机密"]});
    for text in [
        "about PROJECT   falcon.",
        "рrоjесt fаlсоn",
        "pro\u{200b}ject fal\u{200b}con",
        "p r o j e c t   f a l c o n",
        "p.r.o.j.e.c.t.f.a.l.c.o.n",
        "cHJvamVjdCBmYWxjb24gaXMgbGF0ZQ==",
        "pro**ject** falcon",
        "project\nfalcon",
        "GRÖßE!",
        "这是机密文件",
    ] {
        let response = judge(rule.clone(), ShieldStage::Input, text).await;
        let violation = response.violation.unwrap_or_else(|| panic!("{text}"));
        assert_eq!((violation.level(), violation.reason.as_str()), (violation::Level::Error, "rule_matched"));
    }
    for text in ["projects falconry", "a falcon project", "subproject falcon"] {
        assert!(judge(rule.clone(), ShieldStage::Input, text).await.violation.is_none(), "{text}");
    }
}

#[tokio::test]
async fn a_disguised_keyword_is_taken_out_where_it_stands() {
    let rule = json!({"name": "project", "code": "NAME", "level": "redact", "keywords": ["falcon"], "regex": ["T-[0-9]{3}"], "mark": "▮"});
    let response = judge(rule, ShieldStage::Output, "ünd f\u{200b}аlcon is t-123").await;
    assert_eq!(response.redacted.unwrap().joined_text(), "ünd ▮ is ▮");
    assert!(response.violation.is_none());
    assert_eq!(response.findings[0].detail, "rule project, read with: folded");
}

#[tokio::test]
async fn a_rule_counts_at_its_stages() {
    let rule = json!({"name": "x", "regex": ["secret"], "stages": ["output"], "level": "warn"});
    assert!(judge(rule.clone(), ShieldStage::Input, "secret").await.violation.is_none());
    assert_eq!(judge(rule, ShieldStage::Output, "secret").await.violation.unwrap().level(), violation::Level::Warn);
}

#[tokio::test]
async fn a_wrong_rule_is_named_at_the_start() {
    for (rule, field) in [
        (json!({"name": "bad", "regex": ["ok", "(unclosed"]}), "config.rules[0].regex[1]"),
        (json!({"name": "bad", "regex": ["(a{1000}){1000}"]}), "config.rules[0].regex[0]"),
        (json!({"name": "bad", "regex": ["x*"]}), "config.rules[0].regex[0]"),
        (json!({"name": "bad", "keywords": ["ok", " "]}), "config.rules[0].keywords[1]"),
        (json!({"name": "bad"}), "config.rules[0]"),
    ] {
        let error = shield(json!({"rules": [rule]})).await.err().unwrap();
        assert_eq!(error.field(), Some(field));
        assert!(error.message().contains("bad"), "{error}");
    }
    let twice = json!({"name": "x", "keywords": ["a"]});
    assert_eq!(shield(json!({"rules": [twice, twice]})).await.err().unwrap().field(), Some("config.rules[1].name"));
}
