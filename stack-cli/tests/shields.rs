//! Shields at a terminal: listed, tried, calibrated, audited; and a model that is no guard, refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::{fs, path::Path};

use llama_stack_proto::v1::{AgentConfig, CreateTurnRequest, Message, agents_client::AgentsClient, turn_event::Event};
use llama_stack_tests::guard::{MODEL, Upstream};
use serde_json::Value;
use support::{Said, Server, call, call_with_input, home_with_models};
use tokio::runtime::Runtime;

/// A stack over a guard that judges by words.
struct Stack {
    home: tempfile::TempDir,
    server: Server,
    upstream: Upstream,
    runtime: Runtime,
}

fn manifest(home: &Path, url: &str) -> String {
    let text = format!(
        "version: 1\nname: t\nproviders:\n  inference:\n    - {{ id: up, type: \"remote::openai\", config: {{ url: \"{url}\" }} }}\n  safety:\n    \
         - {{ id: guard, type: \"inline::llama-guard\", config: {{ model: {MODEL} }} }}\n    \
         - {{ id: elsewhere, type: \"remote::openai-moderations\", config: {{ url: \"{url}\" }} }}\n    \
         - {{ id: letters, type: \"inline::unicode\" }}\n"
    );
    let path = home.join("m.yaml");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

impl Stack {
    fn start() -> Self {
        let (runtime, home) = (Runtime::new().unwrap(), tempfile::tempdir().unwrap());
        let upstream = runtime.block_on(Upstream::start(20));
        let server = Server::start(home.path(), &manifest(home.path(), &upstream.url));
        Self { home, server, upstream, runtime }
    }

    fn call(&self, arguments: &[&str]) -> Said {
        call(self.home.path(), &[arguments, &["--server", &self.server.url]].concat())
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let said = self.call(&[arguments, &["--json"]].concat());
        assert_eq!(said.code, 0, "{}", said.err);
        serde_json::from_str(&said.out).unwrap()
    }

    /// A turn whose input the guard judges; its session.
    fn turn(&self, text: &str) -> String {
        self.runtime.block_on(async {
            let mut agents = AgentsClient::connect(self.server.url.clone()).await.unwrap();
            let config = AgentConfig { model: MODEL.into(), input_shields: vec!["guard".into()], ..AgentConfig::default() };
            let request = CreateTurnRequest { config: Some(config), input: vec![Message::user(text)], ..CreateTurnRequest::default() };
            let mut events = agents.create_turn(request).await.unwrap().into_inner();
            let mut session = String::new();
            while let Some(event) = events.message().await.unwrap() {
                if let Some(Event::Created(turn)) = event.event {
                    session = turn.session_id;
                }
            }
            session
        })
    }
}

#[test]
fn shields_are_listed_tried_and_calibrated() {
    let stack = Stack::start();
    let listed = stack.json(&["shield", "list"]);
    let told: Vec<_> = listed.as_array().unwrap().iter().map(|one| (one["id"].as_str().unwrap(), one["type"].as_str().unwrap())).collect();
    assert_eq!(told, [("guard", "inline::llama-guard"), ("elsewhere", "remote::openai-moderations"), ("letters", "inline::unicode")]);
    assert!(stack.call(&["shield", "list"]).out.contains(MODEL));

    let bad = stack.json(&["shield", "test", "guard", "where to put the bomb"]);
    assert_eq!((&bad["passes"], &bad["reason"], &bad["categories"][1]), (&false.into(), &"unsafe".into(), &"S9".into()));
    let good = stack.call(&["shield", "test", "guard", "where to put the sofa", "--stage", "output"]);
    assert!(good.out.starts_with("passes"), "{}", good.out);
    let piped = call_with_input(stack.home.path(), &["shield", "test", "elsewhere", "-", "--server", &stack.server.url], "the bomb\n");
    assert!(piped.out.contains("does not pass: unsafe violence"), "{}{}", piped.out, piped.err);
    // Cyrillic letters: told, and the text passes in a turn as well.
    let warned = stack.call(&["shield", "test", "letters", "раypal"]);
    assert!(warned.out.starts_with("passes, with a warning: rule_matched"), "{}{}", warned.out, warned.err);
    let unknown = stack.call(&["shield", "test", "gard", "hi"]);
    assert_eq!(unknown.code, 3);
    assert!(unknown.err.contains("guard, elsewhere"), "{}", unknown.err);
    assert_eq!(stack.call(&["shield", "test", "guard", ""]).code, 0, "an empty text is a text");

    let file = stack.home.path().join("labelled.jsonl");
    let lines = "{\"text\":\"bomb one\",\"unsafe\":true}\n{\"text\":\"perhaps\",\"label\":1}\n\n{\"text\":\"sofa\",\"label\":\"safe\"}\n{\"text\":\"stocks\",\"label\":0}\n";
    fs::write(&file, lines).unwrap();
    let file = file.to_str().unwrap();
    let strict = stack.json(&["shield", "calibrate", "guard", "--file", file]);
    assert_eq!((&strict["unsafe_texts"], &strict["recall"], &strict["false_positives"]), (&2.into(), &0.5.into(), &0.0.into()));
    assert!(strict["threshold"].as_f64().unwrap() > 0.9, "{strict}");
    let lenient = stack.json(&["shield", "calibrate", "guard", "--file", file, "--fpr", "0.5"]);
    assert_eq!((&lenient["recall"], &lenient["false_positives"]), (&1.0.into(), &0.5.into()));
    let shown = stack.call(&["shield", "calibrate", "guard", "--file", file]);
    assert!(shown.out.contains("RECALL") && shown.err.contains("texts: 4 of 4"), "{}{}", shown.out, shown.err);
    fs::write(file, "{\"text\":\"a\"}\n").unwrap();
    let crooked = stack.call(&["shield", "calibrate", "guard", "--file", file]);
    assert_eq!(crooked.code, 2);
    assert!(crooked.err.contains("labelled.jsonl:1"), "{}", crooked.err);
}

#[test]
fn verdicts_of_a_journal_are_asked_for_anew() {
    let stack = Stack::start();
    let session = stack.turn("where to put the bomb");
    stack.upstream.seen();
    let audit = stack.json(&["safety", "audit", &session]);
    assert_eq!((&audit["verdicts"], &audit["same"], &audit["differ"]), (&1.into(), &1.into(), &0.into()), "{audit}");
    assert_eq!(audit["rows"][0]["now"], "unsafe S1,S9");
    assert_eq!(stack.upstream.seen().len(), 2, "the guard is really asked, though its verdict is known");
    let shown = stack.call(&["safety", "audit", &session]);
    assert!(shown.out.ends_with("1 verdicts: 1 the same, 0 differ, 0 not asked for\n"), "{}", shown.out);
    assert!(shown.err.contains("verdicts: 1 of 1"), "{}", shown.err);
    assert_eq!(stack.call(&["safety", "audit", "session_nope"]).code, 3);
}

/// What turns did is found by what it was; what is typed wrong, and a session that there is not, are told.
#[test]
fn spans_of_turns_are_listed() {
    let stack = Stack::start();
    let session = stack.turn("where to put the bomb");
    let spans = stack.json(&["spans", "--operation", "run_shield", "--attribute", "llama_stack.shield.outcome=violation"]);
    assert_eq!(spans.as_array().unwrap().len(), 1, "{spans}");
    assert_eq!((&spans[0]["name"], &spans[0]["session_id"]), (&"run_shield guard".into(), &session.as_str().into()));
    let shown = stack.call(&["spans", "--session", &session, "--operation", "run_shield", "--hours", "1", "--slower-than", "0ms"]);
    assert!(shown.out.contains("run_shield guard") && shown.out.lines().count() == 2, "{}{}", shown.out, shown.err);
    assert_eq!(stack.json(&["spans", "--slower-than", "1h"]), serde_json::json!([]));
    assert_eq!(stack.call(&["spans", "--session", "session_nope"]).code, 3);
    for wrong in [["--slower-than", "soon"], ["--attribute", "x"], ["--look", "0"]] {
        assert_eq!(stack.call(&["spans", wrong[0], wrong[1]]).code, 2, "{wrong:?}");
    }
}

#[test]
fn without_a_server_the_way_out_is_told() {
    let home = tempfile::tempdir().unwrap();
    for arguments in [["shield", "list"].as_slice(), &["shield", "test", "guard", "hi"], &["safety", "audit", "s"], &["spans"]] {
        let said = call(home.path(), &[arguments, &["--server", "http://127.0.0.1:9"]].concat());
        assert_eq!(said.code, 4, "{}", said.err);
        assert!(said.err.contains("llama-stack run starter"), "{}", said.err);
    }
}

/// On real weights: SmolLM2 chats, and is no guard.
#[test]
fn an_ordinary_chat_model_is_no_shield() {
    let home = home_with_models();
    let tiny = call(home.path(), &["distribution", "show", "tiny"]).out;
    let shield = "\n  safety:\n    - { id: guard, type: inline::llama-guard, config: { model: smollm2-135m-instruct, family: llama-guard-3-1b } }\n\n  tools:";
    let path = home.path().join("m.yaml");
    fs::write(&path, tiny.replacen("\n  tools:", shield, 1)).unwrap();
    let said = call(home.path(), &["distribution", "check", path.to_str().unwrap()]);
    assert_eq!(said.code, 1, "{}{}", said.out, said.err);
    assert!(said.err.contains("providers.safety[0].config.model") && said.err.contains("is no guard"), "{}", said.err);
}
