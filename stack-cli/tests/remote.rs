//! Verbs that speak to a stack, each against a real one over a socket: its model's words are fixed, everything else is real.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use llama_stack_core::Inference;
use llama_stack_tests::{
    scripted::{MODEL, Scripted},
    served::{self, OnSocket},
};
use serde_json::Value;
use support::{Said, Server, call, call_with_input};
use tokio::runtime::Runtime;

struct Stack {
    home: tempfile::TempDir,
    server: Server,
    upstream: OnSocket<dyn Inference>,
    _runtime: Runtime,
}

impl Stack {
    fn start() -> Self {
        let (runtime, home) = (Runtime::new().unwrap(), tempfile::tempdir().unwrap());
        let upstream = runtime.block_on(served::inference(Arc::new(Scripted::default())));
        let text = format!(
            "version: 1\nname: t\nproviders:\n  inference:\n    - {{ id: up, type: remote::grpc, config: {{ url: \"{}\" }} }}\n  safety:\n    - {{ id: pii, type: inline::pii }}\n  tools:\n    - {{ id: builtin, type: inline::builtin }}\nagents:\n  declared:\n    helper: {{ model: {MODEL}, name: Helper, description: \"Helps.\", tools: [calculator] }}\n",
            upstream.url
        );
        let path = home.path().join("m.yaml");
        fs::write(&path, text).unwrap();
        let server = Server::start(home.path(), path.to_str().unwrap());
        Self { home, server, upstream, _runtime: runtime }
    }

    fn call(&self, arguments: &[&str]) -> Said {
        call(self.home.path(), &[arguments, &["--server", &self.server.url]].concat())
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let said = self.call(&[arguments, &["--json"]].concat());
        assert_eq!(said.code, 0, "{arguments:?}: {}", said.err);
        serde_json::from_str(&said.out).unwrap()
    }
}

#[test]
fn tools_are_listed_and_called() {
    let stack = Stack::start();
    let listed = stack.json(&["tool", "list"]);
    let names: Vec<&str> = listed.as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["calculator", "clock"]);
    let said = stack.call(&["tool", "call", "calculator", "expression=6*7"]);
    assert_eq!((said.code, said.out.as_str()), (0, "42\n"), "{}", said.err);
    let said = stack.call(&["tool", "call", "calculator", r#"{"expression": "6*8"}"#]);
    assert_eq!(said.out, "48\n", "{}", said.err);
    let wrong = stack.call(&["tool", "call", "calculator", "expr=1"]);
    assert_eq!(wrong.code, 1);
    assert!(wrong.out.contains("expression"), "{}", wrong.out);
    assert_eq!(stack.call(&["tool", "call", "calculator", "1+1"]).code, 2);
}

#[test]
fn providers_and_models_are_shown_with_what_they_bring() {
    let stack = Stack::start();
    let listed = stack.call(&["provider", "list"]);
    insta::assert_snapshot!(listed.out, @r"
    API        PROVIDER  TYPE             STATUS
    inference  up        remote::grpc     answers
    safety     pii       inline::pii      answers
    tools      builtin   inline::builtin  answers
    ");
    assert_eq!(stack.json(&["provider", "list", "--api", "tools"]).as_array().unwrap().len(), 1);
    assert_eq!(stack.json(&["provider", "show", "tools/builtin"])["brings"], serde_json::json!(["calculator", "clock"]));
    let unknown = stack.call(&["provider", "show", "nope"]);
    assert_eq!(unknown.code, 3);
    assert!(unknown.err.contains("tools/builtin"), "{}", unknown.err);

    assert_eq!(stack.json(&["model", "show", MODEL])["provider_id"], "up");
    assert!(stack.call(&["model", "show", MODEL]).out.contains("chat"));
    let unknown = stack.call(&["model", "show", "nope"]);
    assert_eq!(unknown.code, 3);
    assert!(unknown.err.contains(MODEL), "{}", unknown.err);
}

#[test]
fn an_agent_is_kept_shown_changed_and_deleted() {
    let stack = Stack::start();
    let file = stack.home.path().join("agent.json");
    let path = file.to_str().unwrap();
    let config = serde_json::json!({ "model": MODEL, "name": "Sums", "tools": ["calculator"], "limits": { "max_steps": 3 } });
    std::fs::write(&file, config.to_string()).unwrap();
    let made = stack.json(&["agent", "create", path]);
    let id = made["id"].as_str().unwrap();
    assert_eq!((&made["config"]["name"], &stack.json(&["agent", "show", id])), (&"Sums".into(), &config));
    assert_eq!(stack.call(&["agent", "run", "hello", "--agent", id]).code, 0);

    let mut changed = config.clone();
    changed["instructions"] = "Be brief.".into();
    std::fs::write(&file, changed.to_string()).unwrap();
    assert_eq!(stack.call(&["agent", "update", id, path]).out, format!("changed {id}\n"));
    let shown = stack.call(&["agent", "show", id]);
    assert_eq!(serde_json::from_str::<Value>(&shown.out).unwrap(), changed);

    std::fs::write(&file, r#"{"model": "m", "colour": "red"}"#).unwrap();
    let wrong = stack.call(&["agent", "create", path]);
    assert!(wrong.code == 2 && wrong.err.contains("colour"), "{} {}", wrong.code, wrong.err);
    assert_eq!(stack.call(&["agent", "delete", id]).code, 0);
    for arguments in [["agent", "show", id], ["agent", "delete", id]] {
        assert_eq!(stack.call(&arguments).code, 3);
    }
    assert_eq!(stack.call(&["agent", "create", "/nowhere.json"]).code, 3);
}

#[test]
fn an_agent_runs_and_its_calls_can_want_a_decision() {
    let stack = Stack::start();
    let agents = stack.json(&["agent", "list"]);
    assert_eq!((&agents[0]["name"], &agents[0]["model"]), (&"Helper".into(), &MODEL.into()), "{agents}");
    let helper = agents[0]["id"].as_str().unwrap();

    let said = stack.call(&["agent", "run", "hello", "--agent", helper]);
    assert_eq!(said.code, 0, "{}", said.err);
    assert!(said.out.starts_with("you said: hello\n"), "{}", said.out);
    let said = stack.call(&["agent", "run", r#"call calculator {"expression":"6*7"}"#, "--agent", helper]);
    assert!(said.out.contains("[calculator {\"expression\":\"6*7\"} -> 42]") && said.out.contains("the tool said: 42"), "{}", said.out);
    let piped = call_with_input(stack.home.path(), &["agent", "run", "--server", &stack.server.url], "from a pipe\n");
    assert!(piped.out.starts_with("you said: from a pipe\n"), "{}{}", piped.out, piped.err);

    let ask = ["agent", "run", r#"call calculator {"expression":"6*7"}"#, "--require-approval", "calculator"];
    let waits = stack.call(&ask);
    assert_eq!(waits.code, 1, "{}", waits.out);
    assert!(waits.err.contains("--approve"), "{}", waits.err);
    let allowed = stack.call(&[ask.as_slice(), &["--approve", "all"]].concat());
    assert_eq!(allowed.code, 0, "{}", allowed.err);
    assert!(allowed.out.contains("-> 42]"), "{}", allowed.out);
    let denied = stack.call(&[ask.as_slice(), &["--approve", "none"]].concat());
    assert!(!denied.out.contains("-> 42"), "{}", denied.out);

    let turn = stack.json(&["agent", "run", "hello", "--agent", helper]);
    assert_eq!(turn["status"], "TURN_STATUS_COMPLETED");
    let session = turn["session_id"].as_str().unwrap();
    let again = stack.json(&["agent", "run", "again", "--session", session]);
    assert_eq!((&again["session_id"], &again["parent_turn_id"]), (&turn["session_id"], &turn["id"]));
    let branch = stack.json(&["agent", "run", "or else", "--after", turn["id"].as_str().unwrap()]);
    assert_eq!((&branch["session_id"], &branch["parent_turn_id"]), (&turn["session_id"], &turn["id"]));
    let failed = stack.call(&["agent", "run", "fail"]);
    assert_ne!(failed.code, 0, "{}", failed.out);
    assert_eq!(stack.call(&["agent", "run", "hello", "--agent", "agent_nope"]).code, 3);
    let no_terminal = stack.call(&["agent", "chat"]);
    assert_eq!(no_terminal.code, 2);
    assert!(no_terminal.err.contains("agent run"), "{}", no_terminal.err);
}

#[test]
fn a_provider_that_keeps_the_contract_is_told_so() {
    let stack = Stack::start();
    let said = call(stack.home.path(), &["provider", "check", &stack.server.url, "--api", "inference"]);
    assert_eq!(said.code, 0, "{}{}", said.out, said.err);
    assert!(said.out.starts_with(&format!("inference at {}\n", stack.server.url)), "{}", said.out);
    assert!(said.out.contains("kept     StreamChat writes an answer") && said.out.contains("0 broken"), "{}", said.out);
    // The scripted model leaves it to its router to refuse an empty request for vectors.
    let said = call(stack.home.path(), &["provider", "check", &stack.upstream.url]);
    assert!(said.code == 1 && said.out.contains("BROKEN   Embed of nothing") && said.out.contains("1 broken"), "{}", said.out);
    // A stack is a provider of everything that it has.
    let report = call(stack.home.path(), &["provider", "check", &stack.server.url, "--api", "tools", "--json"]);
    let report: Value = serde_json::from_str(&report.out).unwrap();
    assert_eq!(report["broken"], 0, "{report:#}");
    let absent = call(stack.home.path(), &["provider", "check", &stack.upstream.url, "--api", "tools"]);
    assert_eq!(absent.code, 1);
    assert!(absent.err.contains("llama_stack.v1.Tools"), "{}", absent.err);
}

#[test]
fn a_pools_upstreams_are_shown_with_what_became_of_their_requests() {
    let (runtime, home) = (Runtime::new().unwrap(), tempfile::tempdir().unwrap());
    let upstream = || runtime.block_on(served::inference(Arc::new(Scripted::default())));
    let (a, b) = (upstream(), upstream());
    let entry = |id: &str, url: &str| format!("          - {{ id: {id}, type: remote::grpc, config: {{ url: \"{url}\" }} }}\n");
    let text = format!(
        "version: 1\nname: t\nproviders:\n  inference:\n    - id: pool\n      type: remote::pool\n      config:\n        balance: weighted\n        \
         affinity: none\n        upstreams:\n{}{}",
        entry("a", &a.url),
        entry("b", &b.url)
    );
    let path = home.path().join("m.yaml");
    fs::write(&path, text).unwrap();
    let server = Server::start(home.path(), path.to_str().unwrap());
    let metrics = runtime.block_on(async {
        let http = reqwest::Client::new();
        for _ in 0..4 {
            let body = serde_json::json!({ "model": MODEL, "messages": [{ "role": "user", "content": "hello" }] });
            let answer = http.post(format!("{}/v1/chat/completions", server.url)).json(&body).send().await.unwrap();
            assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
        }
        // A generation ends when its stream is dropped, which may be a moment after the answer.
        let began = Instant::now();
        loop {
            let metrics = http.get(format!("{}/metrics", server.url)).send().await.unwrap().text().await.unwrap();
            if metrics.contains("llama_stack_generations_in_flight 0") || began.elapsed() > Duration::from_secs(30) {
                return metrics;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    for id in ["a", "b"] {
        let line = format!("llama_stack_upstream_requests_total{{pool=\"pool\",upstream=\"pool/{id}\",outcome=\"answered\"}} 2");
        assert!(metrics.contains(&line), "{metrics}");
        assert!(metrics.contains(&format!("llama_stack_upstream_up{{pool=\"pool\",upstream=\"pool/{id}\"}} 1")), "{metrics}");
    }
    assert!(metrics.contains("llama_stack_generations_in_flight 0"), "{metrics}");
    let shown = call(home.path(), &["ps", "--server", &server.url]);
    assert!(shown.out.contains("UPSTREAM") && shown.out.contains("pool/a") && shown.out.contains("2/2 up"), "{}{}", shown.out, shown.err);
}
