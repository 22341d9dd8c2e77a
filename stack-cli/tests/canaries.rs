//! Secrets that are planted wherever a stack takes any, and looked for in everything that it tells: the real binary.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    sync::{Arc, Mutex},
};

use llama_stack_core::Inference;
use llama_stack_tests::{
    collector::Collector,
    scripted::{MODEL, Scripted},
};
use serde_json::{Value, json};
use support::command;

/// Where a secret may be found all the same.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Nowhere, at any level.
    Credential,
    /// What people say: in the answer and in the store, where it belongs.
    Words,
}

/// Makes secrets, and remembers them.
#[derive(Default)]
struct Planted(Mutex<Vec<(String, Kind)>>);

impl Planted {
    fn remember(&self, secret: String, kind: Kind) -> String {
        self.0.lock().unwrap().push((secret.clone(), kind));
        secret
    }

    fn plant(&self, kind: Kind) -> String {
        // A whole number of groups of base64, too.
        let secret = format!("canary{:03}x{}", self.count(), "q7".repeat(7));
        self.remember(secret, kind)
    }

    fn credential(&self) -> String {
        self.plant(Kind::Credential)
    }

    /// As keys that seal are written.
    fn sealing_key(&self) -> String {
        self.remember(format!("c0ffee{:02x}", self.count()).repeat(8), Kind::Credential)
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn found_in(&self, bytes: &[u8], of: impl Fn(Kind) -> bool) -> Vec<String> {
        let text = String::from_utf8_lossy(bytes);
        let found = |(secret, kind): &&(String, Kind)| of(*kind) && text.contains(secret.as_str());
        self.0.lock().unwrap().iter().filter(found).map(|(secret, _)| secret.clone()).collect()
    }

    fn assert_none_in(&self, place: &str, bytes: &[u8], of: impl Fn(Kind) -> bool) {
        let found = self.found_in(bytes, of);
        assert!(found.is_empty(), "{place} has {found:?}: {}", String::from_utf8_lossy(bytes));
    }
}

fn any(_: Kind) -> bool {
    true
}

fn credential(kind: Kind) -> bool {
    kind == Kind::Credential
}

/// The server, and what it goes on to say on its standard output.
struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    said: String,
    url: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    fn start(home: &Path, manifest: &Path, level: &str, variables: &[(&str, String)]) -> Self {
        let log = std::fs::File::create(home.join("stderr.log")).unwrap();
        let mut child = command(home)
            .args(["run", manifest.to_str().unwrap(), "--port", "0", "--json"])
            .env("RUST_LOG", level)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut running = Self { child, stdout, said: String::new(), url: String::new() };
        while running.stdout.read_line(&mut running.said).unwrap() > 0 {
            if let Ok(ready) = serde_json::from_str::<Value>(&running.said) {
                running.url = ready["url"].as_str().unwrap().to_owned();
                return running;
            }
        }
        panic!("the server ended before it was ready: {}", std::fs::read_to_string(home.join("stderr.log")).unwrap());
    }

    /// Ends it in order, so that the last spans and measures are sent. All of its standard output.
    fn stop(mut self) -> String {
        assert!(Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap().success());
        self.stdout.read_to_string(&mut self.said).unwrap();
        self.child.wait().unwrap();
        self.said.clone()
    }
}

/// Every file of the home that `wanted` takes by its name, one after the other.
fn files(home: &Path, wanted: impl Fn(&str) -> bool + Copy) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(home).unwrap() {
        // Its own name: the home's, which is made up, may have the word in it.
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name().into_string().unwrap())).unwrap();
        if path.is_dir() {
            all.extend(files(&path, wanted));
        } else if wanted(&name) {
            all.extend(std::fs::read(&path).unwrap());
        }
    }
    all
}

fn is_log(name: &str) -> bool {
    name.contains("log") && !name.ends_with(".db")
}

/// The names of variables and the secrets in them, for `house`.
fn variables(planted: &Planted, format: &str) -> Vec<(&'static str, String)> {
    let mut variables = vec![
        ("LLAMA_STACK_LOG_FORMAT", format.to_owned()),
        ("LLAMA_STACK_SECRET_KEY", planted.sealing_key()),
        ("LLAMA_STACK_OLD_SECRET_KEYS", planted.sealing_key()),
        ("OTEL_EXPORTER_OTLP_HEADERS", format!("x-token={}", planted.credential())),
    ];
    for name in [
        "CANARY_UPSTREAM",
        "CANARY_JUDGE",
        "CANARY_SEARCH",
        "CANARY_WOLFRAM",
        "CANARY_MCP",
        "CANARY_MCP_HEADER",
        "CANARY_MCP_QUERY",
        "CANARY_CLIENT",
        "CANARY_SIGNING",
    ] {
        variables.push((name, planted.credential()));
    }
    variables
}

/// A stack with every kind of secret in its manifest. Nobody is where it would send them.
fn house(model: &str, collector: &str) -> String {
    format!(
        r#"version: 1
name: canaries
providers:
  inference:
    - {{ id: scripted, type: remote::grpc, config: {{ url: "{model}" }} }}
    - {{ id: elsewhere, type: remote::openai, config: {{ url: "http://127.0.0.1:9/v1", api_key: "${{env.CANARY_UPSTREAM}}", models: [gone] }} }}
  safety:
    - {{ id: judge, type: remote::openai-moderations, config: {{ url: "http://127.0.0.1:9/v1", api_key: "${{env.CANARY_JUDGE}}" }} }}
  tools:
    - {{ id: builtin, type: inline::builtin }}
    - {{ id: search, type: remote::brave-search, config: {{ url: "http://127.0.0.1:9", api_key: "${{env.CANARY_SEARCH}}" }} }}
    - {{ id: wolfram, type: remote::wolfram-alpha, config: {{ url: "http://127.0.0.1:9", api_key: "${{env.CANARY_WOLFRAM}}" }} }}
    - id: far
      type: remote::mcp
      config:
        url: "http://127.0.0.1:9/mcp?token=${{env.CANARY_MCP_QUERY}}"
        authorization: "${{env.CANARY_MCP}}"
        headers: {{ x-token: "${{env.CANARY_MCP_HEADER}}" }}
server:
  auth:
    api_keys: true
    introspection: {{ url: "http://127.0.0.1:9/introspect", client_id: stack, client_secret: "${{env.CANARY_CLIENT}}" }}
    jwt:
      - issuer: me
        audience: [stack]
        algorithms: [HS256]
        keys: {{ keys: [{{ kty: oct, kid: one, k: "${{env.CANARY_SIGNING}}" }}] }}
telemetry: {{ otlp_endpoint: "{collector}" }}
"#
    )
}

/// A client of the stack, and all that it was answered.
struct Client<'a> {
    http: reqwest::Client,
    url: &'a str,
    key: &'a str,
    planted: &'a Planted,
    answers: Mutex<String>,
}

impl Client<'_> {
    /// With secrets in every place of a request where one may be.
    fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method.parse().unwrap(), format!("{}{path}", self.url))
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {}", self.key))
            .header("x-api-key", self.planted.credential())
            .header("cookie", format!("session={}", self.planted.credential()))
            .header("x-llama-stack-provider-key", format!("elsewhere={}", self.planted.credential()))
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> String {
        let answer = request.send().await.unwrap().text().await.unwrap();
        self.answers.lock().unwrap().push_str(&answer);
        answer
    }

    async fn post(&self, path: &str, body: String) -> String {
        self.answer(self.request("POST", path).body(body)).await
    }
}

/// Credentials are in nothing at any level; what people say is in nothing but answers and the store, at the level that is the default.
async fn nothing_tells_of_a_canary(level: &str, format: &str, with_words: bool) {
    let planted = Planted::default();
    let model = Arc::new(Scripted::default()) as Arc<dyn Inference>;
    let (served, collector) = (llama_stack_tests::served::inference(model).await, Collector::start().await);
    let home = tempfile::tempdir().unwrap();
    let manifest = home.path().join("canaries.yaml");
    std::fs::write(&manifest, house(&served.url, &collector.url)).unwrap();
    let variables = variables(&planted, format);
    let made = command(home.path())
        .args(["--json", "key", "create", "--principal", "eve", "--role", "admin", "--tenant", "acme", "--offline"])
        .arg(&manifest)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .output()
        .unwrap();
    let made: Value = serde_json::from_slice(&made.stdout).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&made.stderr)));
    let key = planted.remember(made["secret"].as_str().unwrap().to_owned(), Kind::Credential);
    let server = Running::start(home.path(), &manifest, level, &variables);
    let client = Client { http: reqwest::Client::new(), url: &server.url, key: &key, planted: &planted, answers: Mutex::default() };
    let words = || if with_words { planted.plant(Kind::Words) } else { "words".to_owned() };
    let said = |model: &str, text: String| json!({ "model": model, "messages": [{ "role": "user", "content": text }] }).to_string();
    for text in ["fail", "break", "count 3"] {
        client.post("/v1/chat/completions", said(MODEL, format!("{text} {}", words()))).await;
    }
    // A provider that is not there, a model that nobody has, and bodies that are wrong.
    client.post("/v1/chat/completions", said("gone", words())).await;
    client.post("/v1/chat/completions", said("nobodys", words())).await;
    client.post("/v1/chat/completions", format!("{{\"model\": \"{MODEL}\", \"messages\": \"{}\"}}", words())).await;
    client.post("/v1/chat/completions", format!("{{ {} ", words())).await;
    let turn = client.post("/v1/responses", json!({ "model": MODEL, "input": words(), "instructions": words() }).to_string()).await;
    assert!(turn.contains("you said"), "{turn}");
    let call = format!("call calculator {{\"expression\": \"{}\"}}", words());
    let tools = json!([{ "type": "function", "name": "calculator", "parameters": { "type": "object" } }]);
    client.post("/v1/responses", json!({ "model": MODEL, "input": call, "tools": tools }).to_string()).await;
    let server_of_turn = json!([{ "type": "mcp", "server_label": "x", "server_url": "http://127.0.0.1:9/",
        "authorization": planted.credential(), "headers": { "x-token": planted.credential() } }]);
    client.post("/v1/responses", json!({ "model": MODEL, "input": words(), "tools": server_of_turn }).to_string()).await;
    client.post("/v1/embeddings", json!({ "model": "scripted-embedding", "input": words() }).to_string()).await;
    // What needs a key of the manifest's, which is shown to nobody who is there.
    for tool in ["web_search", "wolfram_alpha"] {
        client.post(&format!("/v1/tools/{tool}/invoke"), json!({ "arguments": { "query": words() } }).to_string()).await;
    }
    let judged = json!({ "shield_id": "judge", "messages": [{ "role": "user", "content": words() }] });
    client.post("/v1/safety/run-shield", judged.to_string()).await;
    client.answer(client.request("GET", "/v1/tools")).await;
    let group = json!({ "id": "kept", "provider_type": "remote::mcp", "config": { "url": "http://127.0.0.1:9/mcp",
        "authorization": planted.credential(), "headers": { "x-token": planted.credential() } } });
    client.post("/v1/toolgroups", group.to_string()).await;
    if with_words {
        // A URL that is as good as a key.
        let url = format!("http://127.0.0.1:9/a.pdf?X-Amz-Signature={}", words());
        let input = json!([{ "role": "user", "content": [{ "type": "input_file", "file_url": url }] }]);
        client.post("/v1/responses", json!({ "model": MODEL, "input": input }).to_string()).await;
    }
    client.answer(client.request("GET", &format!("/v1/models?api_key={}", planted.credential()))).await;
    // Shown, and refused.
    let (one, two, three) = (planted.credential(), planted.credential(), planted.credential());
    let shown = [
        format!("Bearer {one}"),
        format!("Bearer lsk_{two}_{two}"),
        format!("Bearer {three}.{three}.{three}"),
        format!("Basic {}", planted.credential()),
    ];
    for shown in &shown {
        let request = client.http.get(format!("{}/v1/models", server.url)).header("authorization", shown);
        assert!(client.answer(request).await.contains("error"));
        let request = client.http.post(format!("{}/llama_stack.v1.Inference/ListModels", server.url)).header("authorization", shown);
        client.answer(request.header("content-type", "application/grpc-web+proto").body(vec![0; 5])).await;
    }
    assert!(planted.count() >= 50, "{} were planted", planted.count());

    // What an operator looks at tells no words either.
    let mut looked_at = String::new();
    for path in ["/metrics", "/v1/requests?limit=100", "/v1/audit?limit=100", "/v1/spans?limit=1000"] {
        let request = client.http.get(format!("{}{path}", server.url)).header("authorization", format!("Bearer {key}"));
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        looked_at.push_str(&answer.text().await.unwrap());
    }
    let answers = client.answers.into_inner().unwrap();
    let stdout = server.stop();
    planted.assert_none_in("standard output", stdout.as_bytes(), any);
    planted.assert_none_in("the log", &files(home.path(), is_log), any);
    planted.assert_none_in("metrics, requests, audit or spans", looked_at.as_bytes(), any);
    let exported = collector.taken();
    let holds = |bytes: &[u8], text: &str| String::from_utf8_lossy(bytes).contains(text);
    assert!(holds(&exported, "chat scripted") && holds(&exported, "gen_ai.client.token.usage"), "nothing was exported");
    planted.assert_none_in("what is exported", &exported, any);
    planted.assert_none_in("an answer", answers.as_bytes(), credential);
    let kept = files(home.path(), |_| true);
    planted.assert_none_in("a file of the home", &kept, credential);
    // The search sees what is there.
    assert_eq!(planted.found_in(&kept, |kind| kind == Kind::Words).is_empty(), !with_words);

    let said = std::fs::read_to_string(home.path().join("stderr.log")).unwrap();
    let is_event =
        |line: &str| serde_json::from_str::<Value>(line).is_ok_and(|line| line["level"].is_string() && line["target"].is_string());
    assert_eq!(said.lines().any(is_event), format == "json", "{said}");
    // Text begins with the time.
    assert_eq!(said.lines().any(|line| line.starts_with("20")), format == "text", "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_said_or_shown_is_told_on() {
    nothing_tells_of_a_canary("info", "text", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_credential_is_in_a_line_of_any_level() {
    nothing_tells_of_a_canary("trace", "text", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_in_json_hold_no_more() {
    nothing_tells_of_a_canary("info", "json", true).await;
    nothing_tells_of_a_canary("trace", "json", false).await;
}

/// A stack that does not start says what is wrong, and where, without the secret that stands beside it, or is it.
#[test]
fn a_start_that_fails_tells_no_canary() {
    let planted = Planted::default();
    let secret = || planted.credential();
    let with_model = |more: &str| {
        format!(
            "providers:\n  inference:\n    - {{ id: a, type: remote::openai, config: {{ url: \"http://127.0.0.1:9/v1\", models: [m]{more} }} }}\n"
        )
    };
    let model = with_model("");
    let store = format!("store: {{ url: \"postgres://ann:{}@127.0.0.1:none/x\" }}\n{model}", secret());
    let s3 = "files: { s3: { bucket: b, endpoint: \"http://127.0.0.1:9\", access_key_id: a, secret_access_key: ";
    let tls = format!("server: {{ tls: {{ cert: key.pem, key: key.pem }} }}\n{model}");
    let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", secret());
    // Where the error is, the manifest, and the key to seal with.
    let cases = [
        ("store.url", store, None),
        ("files.s3.endpoint", format!("{s3}{} }} }}\n{model}", secret()), None),
        ("providers.inference[0]", with_model(&format!(", api_key: {}, modles: [n]", secret())), None),
        ("providers.inference[0]", with_model(&format!(", api_key: [{}]", secret())), None),
        ("64 hexadecimal digits", model, Some(secret())),
        ("server.tls", tls, None),
    ];
    for (place, text, sealing) in cases {
        let home = tempfile::tempdir().unwrap();
        let manifest = home.path().join("canaries.yaml");
        std::fs::write(&manifest, format!("version: 1\nname: canaries\n{text}")).unwrap();
        std::fs::write(home.path().join("key.pem"), &pem).unwrap();
        let mut start = command(home.path());
        start.args(["run", manifest.to_str().unwrap(), "--port", "0"]).env("RUST_LOG", "trace");
        let output = start.envs(sealing.map(|key| ("LLAMA_STACK_SECRET_KEY", key))).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(place), "{place}: {said}");
        planted.assert_none_in(place, &output.stdout, any);
        planted.assert_none_in(place, &output.stderr, any);
        planted.assert_none_in(place, &files(home.path(), is_log), any);
    }
}
