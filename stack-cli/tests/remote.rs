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
use serde_json::{Value, json};
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
    let unknown = stack.call(&["tool", "call", "nope"]);
    assert_eq!((unknown.code, unknown.out.as_str()), (3, ""), "{}", unknown.err);
    assert!(unknown.err.contains("no tool \"nope\"") && unknown.err.contains("calculator"), "{}", unknown.err);
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
    assert_eq!(stack.json(&["provider", "show", "tools/builtin"])["brings"], json!(["calculator", "clock"]));
    let unknown = stack.call(&["provider", "show", "nope"]);
    assert_eq!(unknown.code, 3);
    assert!(unknown.err.contains("tools/builtin"), "{}", unknown.err);

    insta::assert_snapshot!(steady(&stack.call(&["model", "list"]).out), @r"
    MODEL KIND PROVIDER CONTEXT LABELS
    scripted chat up 4096
    scripted-embedding embedding up -
    ");
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
    let config = json!({ "model": MODEL, "name": "Sums", "tools": ["calculator"], "limits": { "max_steps": 3 } });
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
    let sessions = stack.call(&["session", "list"]).out;
    assert!(sessions.starts_with("SESSION ") && sessions.contains(session), "{sessions}");
    let file = stack.home.path().join("session.json");
    let file = file.to_str().unwrap();
    assert_eq!(stack.json(&["session", "export", session, "--file", file])["turns"], 3);
    let replayed = stack.call(&["session", "replay", file, "--strict"]);
    assert_eq!(replayed.code, 0, "{}{}", replayed.out, replayed.err);
    assert!(replayed.err.contains("turns: 3 of 3"), "{}", replayed.err);
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
            let body = json!({ "model": MODEL, "messages": [{ "role": "user", "content": "hello" }] });
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

/// The words of a text, with one for each id and each time: those are others at each run.
fn steady(text: &str) -> String {
    let word = |word: &str| match word {
        id if id.starts_with("batch_") => "BATCH".to_owned(),
        id if id.starts_with("file-") => "FILE".to_owned(),
        time if time.starts_with("20") && time.contains('T') && time.ends_with('Z') => "TIME".to_owned(),
        other => other.to_owned(),
    };
    let line = |line: &str| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ");
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn requests(bodies: &[Value]) -> String {
    let line = |(n, body): (usize, &Value)| {
        let line = json!({ "custom_id": format!("c{n}"), "method": "POST", "url": "/v1/chat/completions", "body": body });
        format!("{line}\n")
    };
    bodies.iter().enumerate().map(line).collect()
}

fn saying(text: &str) -> Value {
    json!({ "model": MODEL, "messages": [{ "role": "user", "content": text }] })
}

#[test]
fn files_are_sent_shown_fetched_and_deleted() {
    let stack = Stack::start();
    let [notes, page] = ["notes.txt", "page.md"].map(|name| stack.home.path().join(name));
    // More than a message holds.
    let content = "The pump starts at dawn.\n".repeat(100_000);
    fs::write(&notes, &content).unwrap();
    fs::write(&page, "# Pumps\n").unwrap();
    let (notes, page) = (notes.to_str().unwrap(), page.to_str().unwrap());
    assert!(stack.call(&["file", "list"]).out.contains("file upload"));
    let sent = stack.call(&["file", "upload", notes, page, "--days", "2"]);
    assert_eq!(sent.code, 0, "{}", sent.err);
    let ids: Vec<&str> = sent.out.lines().collect();
    assert!(ids.len() == 2 && ids.iter().all(|id| id.starts_with("file-")), "{}", sent.out);
    insta::assert_snapshot!(steady(&stack.call(&["file", "list"]).out), @r"
    FILE SIZE PURPOSE CREATED NAME
    FILE 8 B user_data TIME page.md
    FILE 2.5 MB user_data TIME notes.txt
    ");
    assert_eq!(stack.json(&["file", "list", "--limit", "1"]).as_array().unwrap().len(), 1);
    assert_eq!(stack.json(&["file", "list", "--purpose", "batch"]), json!([]));
    let shown = stack.json(&["file", "show", ids[0]]);
    assert_eq!((&shown["filename"], &shown["bytes"]), (&json!("notes.txt"), &json!(content.len())), "{shown}");
    assert!(shown["expires"].is_string() && stack.call(&["file", "show", ids[0]]).out.contains("notes.txt"));

    assert!(stack.call(&["file", "download", ids[0]]).out == content, "other bytes come back");
    let copy = stack.home.path().join("copy");
    let fetch = ["file", "download", ids[0], "--output", copy.to_str().unwrap()];
    assert_eq!(stack.json(&fetch)["bytes"], content.len());
    assert!(fs::read_to_string(&copy).unwrap() == content, "other bytes are in the file");
    let again = stack.call(&fetch);
    assert_eq!(again.code, 1);
    assert!(again.err.contains("--force"), "{}", again.err);
    assert_eq!(stack.call(&[&fetch[..], &["--force"]].concat()).code, 0);
    assert_eq!(
        fs::read_dir(stack.home.path())
            .unwrap()
            .filter(|entry| { entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "partial") })
            .count(),
        0,
        "a draft was left"
    );
    assert_eq!(stack.call(&["file", "download", ids[0], "--json"]).code, 2);

    assert_eq!(stack.call(&["file", "upload", page, "--purpose", "nothing"]).code, 2);
    assert_eq!(stack.call(&["file", "delete", ids[1]]).out, format!("deleted {}\n", ids[1]));
    for verb in ["show", "download", "delete"] {
        let gone = stack.call(&["file", verb, ids[1]]);
        assert_eq!(gone.code, 3, "{verb}: {}", gone.err);
        assert!(gone.err.contains("llama-stack file list"), "{}", gone.err);
    }
}

#[test]
fn of_several_files_none_is_sent_or_those_that_were_are_told() {
    let stack = Stack::start();
    let [page, empty, folder] = ["page.md", "empty.txt", "folder"].map(|name| stack.home.path().join(name));
    fs::write(&page, "# Pumps\n").unwrap();
    fs::write(&empty, "").unwrap();
    fs::create_dir(&folder).unwrap();
    let [page, empty, folder] = [&page, &empty, &folder].map(|path| path.to_str().unwrap());
    assert_eq!(stack.call(&["file", "upload", page, folder]).code, 2);
    assert_eq!(stack.json(&["file", "list"]), json!([]), "one was sent before the other was looked at");
    let half = stack.call(&["file", "upload", page, empty]);
    assert_eq!(half.code, 2, "{}", half.err);
    assert_eq!(half.out.trim_end(), stack.json(&["file", "list"])[0]["id"].as_str().unwrap());
    let device = stack.call(&["file", "download", half.out.trim_end(), "--output", "/dev/null", "--force"]);
    assert!(device.code == 2 && device.err.contains("is no file"), "{}", device.err);
}

#[test]
fn what_has_no_length_is_sent_and_what_cannot_be_read_is_named() {
    let stack = Stack::start();
    let pipe = stack.home.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let writer = pipe.clone();
    std::thread::spawn(move || fs::write(writer, "words"));
    let sent = stack.json(&["file", "upload", pipe.to_str().unwrap()]);
    assert_eq!(sent[0]["bytes"], 5, "{sent}");
    if cfg!(target_os = "linux") {
        let sent = stack.json(&["file", "upload", "/proc/version"]);
        assert_eq!(sent[0]["bytes"], fs::read("/proc/version").unwrap().len(), "{sent}");
        // Nothing is mapped at address 0.
        let broken = stack.call(&["file", "upload", "/proc/self/mem"]);
        assert_eq!(broken.code, 1, "{}", broken.err);
        assert!(broken.err.contains("/proc/self/mem cannot be read"), "{}", broken.err);
    }
}

#[test]
fn a_batch_is_made_watched_and_its_answers_are_fetched() {
    let stack = Stack::start();
    let input = stack.home.path().join("in.jsonl");
    fs::write(&input, requests(&[saying("hello"), json!({ "model": 5 }), saying("hello")])).unwrap();
    let input = input.to_str().unwrap();
    let create = ["batch", "create", input, "--endpoint", "/v1/chat/completions"];
    assert!(stack.call(&["batch", "list"]).out.contains("batch create"));
    let made = stack.call(&[&create[..], &["--metadata", "team=blue"]].concat());
    assert_eq!(made.code, 0, "{}", made.err);
    assert!(made.err.contains("--watch"), "{}", made.err);
    let id = made.out.trim_end();

    let watched = stack.call(&["batch", "show", id, "--watch"]);
    assert_eq!(watched.code, 0, "{}{}", watched.out, watched.err);
    assert!(watched.err.contains(&format!("{id}: 3 of 3")), "{}", watched.err);
    insta::assert_snapshot!(steady(&watched.out), @r"
    id BATCH
    status completed
    endpoint /v1/chat/completions
    lines 3 of 3 done, 1 failed
    model scripted
    tokens 8: 2 read (0 cached), 6 written (0 reasoning)
    input FILE
    output FILE
    errors FILE
    created TIME
    ended TIME
    metadata team=blue
    ");
    insta::assert_snapshot!(steady(&stack.call(&["batch", "list"]).out), @r"
    BATCH STATUS DONE FAILED ENDPOINT CREATED
    BATCH completed 3 of 3 1 /v1/chat/completions TIME
    ");
    let shown = stack.json(&["batch", "show", id]);
    assert_eq!((&shown["completed"], &shown["usage"]["total_tokens"], &shown["metadata"]["team"]), (&json!(2), &json!(8), &json!("blue")));

    let answers = stack.call(&["batch", "results", id]).out;
    let answers: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said: Vec<(&Value, &Value)> =
        answers.iter().map(|answer| (&answer["custom_id"], &answer["response"]["body"]["choices"][0]["message"]["content"])).collect();
    let hello = json!("you said: hello");
    assert_eq!(said, [(&json!("c0"), &hello), (&json!("c2"), &hello)]);
    let target = stack.home.path().join("errors.jsonl");
    let fetch = ["batch", "results", id, "--errors", "--output", target.to_str().unwrap()];
    assert_eq!(stack.call(&fetch).code, 0);
    let errors = fs::read_to_string(&target).unwrap();
    assert!(errors.lines().count() == 1 && errors.contains("\"c1\""), "{errors}");
    assert_eq!(stack.call(&fetch).code, 1, "a file was written over");
    let ended = stack.call(&["batch", "cancel", id]);
    assert_eq!(ended.out, format!("{id} is completed\n"), "{}", ended.err);

    // By the id of a file that is there.
    let again = stack.json(&["batch", "create", shown["input_file_id"].as_str().unwrap(), "--endpoint", "/v1/chat/completions"]);
    assert_eq!(again["input_file_id"], shown["input_file_id"]);
}

#[test]
fn a_batch_that_cannot_be_run_or_is_cancelled_says_so() {
    let stack = Stack::start();
    let file = |name: &str, text: &str| {
        let path = stack.home.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let create = |file: &str| stack.call(&["batch", "create", file, "--endpoint", "/v1/chat/completions"]).out.trim_end().to_owned();
    let crooked = create(&file("crooked.jsonl", "nonsense\n"));
    let failed = stack.call(&["batch", "show", &crooked, "--watch"]);
    assert_eq!(failed.code, 1, "{}", failed.err);
    assert!(failed.out.contains("line 1: ") && failed.err.contains("is failed"), "{}{}", failed.out, failed.err);
    let which: [&[&str]; 2] = [&[], &["--errors"]];
    for flags in which {
        let none = stack.call(&[&["batch", "results", &crooked][..], flags].concat());
        assert_eq!(none.code, 3, "{}", none.err);
    }

    let slow = create(&file("slow.jsonl", &requests(&[saying("hang")])));
    let early = stack.call(&["batch", "results", &slow]);
    assert_eq!(early.code, 1);
    assert!(early.err.contains("--watch"), "{}", early.err);
    let cancelled = stack.call(&["batch", "cancel", &slow]);
    assert!(cancelled.code == 0 && cancelled.out.starts_with(&format!("{slow} is cancel")), "{}{}", cancelled.out, cancelled.err);
    let watched = stack.call(&["batch", "show", &slow, "--watch", "--json"]);
    let shown: Value = serde_json::from_str(&watched.out).unwrap();
    assert_eq!((watched.code, &shown["status"]), (1, &json!("cancelled")), "{}", watched.err);

    // A batch that is refused leaves nothing of what was sent for it.
    let kept = stack.json(&["file", "list", "--purpose", "batch"]);
    let good = file("good.jsonl", &requests(&[saying("hello")]));
    let asked = ["batch", "create", &good, "--endpoint", "/v1/chat/completions"];
    for wrong in [&["--window", "soon"][..], &["--metadata", "blue"]] {
        let refused = stack.call(&[&asked[..], wrong].concat());
        assert_eq!(refused.code, 2, "{wrong:?}: {}", refused.err);
    }
    assert_eq!(stack.json(&["file", "list", "--purpose", "batch"]), kept);
    assert_eq!(stack.call(&["batch", "create", &good, "--endpoint", "/v1/nothing"]).code, 2);
    assert_eq!(stack.call(&["batch", "create", "file-none", "--endpoint", "/v1/embeddings"]).code, 3);
    for verb in ["show", "cancel", "results"] {
        let unknown = stack.call(&["batch", verb, "batch_none"]);
        assert_eq!(unknown.code, 3, "{verb}: {}", unknown.err);
        assert!(unknown.err.contains("llama-stack batch list"), "{}", unknown.err);
    }
}
