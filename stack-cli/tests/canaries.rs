//! Secrets that are planted wherever a stack takes any, and looked for in everything that it logs: the real binary.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Stdio},
    sync::{Arc, Mutex},
};

use llama_stack_core::Inference;
use llama_stack_tests::scripted::{MODEL, Scripted};
use serde_json::{Value, json};
use support::command;

/// Makes secrets, and remembers them.
#[derive(Default)]
struct Planted(Mutex<Vec<String>>);

impl Planted {
    fn plant(&self) -> String {
        let mut all = self.0.lock().unwrap();
        let secret = format!("canary{:02}x{}", all.len(), "q7".repeat(8));
        all.push(secret.clone());
        secret
    }

    fn found_in(&self, text: &str) -> Vec<String> {
        self.0.lock().unwrap().iter().filter(|secret| text.contains(secret.as_str())).cloned().collect()
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(home: &Path, manifest: &Path, level: &str, variables: &[(&str, String)]) -> (Killed, String) {
    let log = std::fs::File::create(home.join("stderr.log")).unwrap();
    let mut child = command(home)
        .args(["run", manifest.to_str().unwrap(), "--port", "0", "--json"])
        .env("RUST_LOG", level)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut said = String::new();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let child = Killed(child);
    for line in lines {
        said.push_str(&line.unwrap());
        if let Ok(ready) = serde_json::from_str::<Value>(&said) {
            return (child, ready["url"].as_str().unwrap().to_owned());
        }
    }
    panic!("the server ended before it was ready");
}

/// All that was logged: what went to standard error, and every file of the home that is a log.
fn logged(home: &Path) -> String {
    let mut all = String::new();
    let mut folders = vec![home.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            // Its own name: the home's, which is made up, may have the word in it.
            let (path, name) = entry.map(|entry| (entry.path(), entry.file_name().into_string().unwrap())).unwrap();
            if path.is_dir() {
                folders.push(path);
            } else if name.contains("log") && !name.ends_with(".db") {
                all.push_str(&String::from_utf8_lossy(&std::fs::read(&path).unwrap()));
            }
        }
    }
    all
}

/// Credentials are in no line at any level; what people say is in none at the level that is the default.
async fn no_line_holds_a_canary(level: &str, format: &str, with_words: bool) {
    let planted = Arc::new(Planted::default());
    let model = Arc::new(Scripted::default()) as Arc<dyn Inference>;
    let served = llama_stack_tests::served::inference(model).await;
    let home = tempfile::tempdir().unwrap();
    let manifest = home.path().join("canaries.yaml");
    let text = format!(
        "version: 1\nname: canaries\nproviders:\n  inference:\n    - {{ id: scripted, type: remote::grpc, config: {{ url: \"{}\" }} }}\n    \
         - {{ id: elsewhere, type: remote::openai, config: {{ url: \"http://127.0.0.1:9/v1\", api_key: \"${{env.CANARY_KEY}}\", models: [gone] }} }}\n  \
         tools:\n    - {{ id: builtin, type: inline::builtin }}\n",
        served.url
    );
    std::fs::write(&manifest, text).unwrap();
    let (_server, url) =
        start(home.path(), &manifest, level, &[("CANARY_KEY", planted.plant()), ("LLAMA_STACK_LOG_FORMAT", format.to_owned())]);
    let http = reqwest::Client::new();
    let words = || if with_words { planted.plant() } else { "words".to_owned() };
    let mut asked = 0;
    let mut send = async |path: &str, body: String| {
        let request = http
            .post(format!("{url}{path}"))
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {}", planted.plant()))
            .header("x-api-key", planted.plant())
            .header("cookie", format!("session={}", planted.plant()))
            .header("x-llama-stack-provider-key", format!("elsewhere={}", planted.plant()));
        request.body(body).send().await.unwrap().text().await.unwrap();
        asked += 1;
    };
    let said = |model: &str, text: String| json!({ "model": model, "messages": [{ "role": "user", "content": text }] }).to_string();
    for text in ["fail", "break", "count 3"] {
        send("/v1/chat/completions", said(MODEL, format!("{text} {}", words()))).await;
    }
    // A provider that is not there, a model that nobody has, and bodies that are wrong.
    send("/v1/chat/completions", said("gone", words())).await;
    send("/v1/chat/completions", said("nobodys", words())).await;
    send("/v1/chat/completions", format!("{{\"model\": \"{MODEL}\", \"messages\": \"{}\"}}", words())).await;
    send("/v1/chat/completions", format!("{{ {} ", words())).await;
    send("/v1/responses", json!({ "model": MODEL, "input": words(), "instructions": words() }).to_string()).await;
    let call = format!("call calculator {{\"expression\": \"{}\"}}", words());
    let tools = json!([{ "type": "function", "name": "calculator", "parameters": { "type": "object" } }]);
    send("/v1/responses", json!({ "model": MODEL, "input": call, "tools": tools }).to_string()).await;
    let server = json!([{ "type": "mcp", "server_label": "x", "server_url": "http://127.0.0.1:9/", "authorization": planted.plant() }]);
    send("/v1/responses", json!({ "model": MODEL, "input": words(), "tools": server }).to_string()).await;
    send("/v1/embeddings", json!({ "model": "scripted-embedding", "input": words() }).to_string()).await;
    assert!(asked > 10 && planted.0.lock().unwrap().len() >= 45, "too few were planted");
    let log = logged(home.path());
    assert_eq!(planted.found_in(&log), Vec::<String>::new(), "{log}");
    let said = std::fs::read_to_string(home.path().join("stderr.log")).unwrap();
    let is_event =
        |line: &str| serde_json::from_str::<Value>(line).is_ok_and(|line| line["level"].is_string() && line["target"].is_string());
    assert_eq!(said.lines().any(is_event), format == "json", "{said}");
    // Text begins with the time.
    assert_eq!(said.lines().any(|line| line.starts_with("20")), format == "text", "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_said_or_shown_is_in_a_log_line() {
    no_line_holds_a_canary("info", "text", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_credential_is_in_a_line_of_any_level() {
    no_line_holds_a_canary("trace", "text", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_in_json_hold_no_more() {
    no_line_holds_a_canary("info", "json", true).await;
    no_line_holds_a_canary("trace", "json", false).await;
}
