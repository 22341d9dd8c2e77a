use std::sync::Arc;

use llama_stack_core::{Manifest, grpc::channel};
use llama_stack_proto::v1::agents_client::AgentsClient;
use llama_stack_server::{Options, Stack};
use llama_stack_tests::{guard, scripted};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// A manifest with the scripted model, the calculator and the clock.
pub const SCRIPTED: &str = "version: 1\nname: e2e\nproviders:\n  inference:\n    - { id: scripted, type: test::scripted }\n  tools:\n    - { id: builtin, type: inline::builtin }\n";

/// The same, with a guard that judges by words, and a shield on it.
pub const SHIELDED: &str = "version: 1\nname: e2e\nproviders:\n  inference:\n    - { id: scripted, type: test::scripted }\n    - { id: guards, type: test::guard }\n  safety:\n    - { id: guard, type: inline::llama-guard, config: { model: llama-guard-3-1b } }\n  tools:\n    - { id: builtin, type: inline::builtin }\n";

/// A stack that serves until it is stopped or dropped.
pub struct Running {
    pub url: String,
    shutdown: CancellationToken,
    server: JoinHandle<llama_stack_core::Result<()>>,
    home: tempfile::TempDir,
}

impl Running {
    pub async fn start(manifest: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), manifest).await
    }

    /// In a home that is there already: what an earlier stack kept is there as well.
    pub async fn start_in(home: tempfile::TempDir, manifest: &str) -> Self {
        let mut registry = llama_stack_server::registry();
        scripted::register(&mut registry);
        guard::register(&mut registry);
        let manifest = Manifest::parse(manifest, "e2e.yaml").unwrap();
        let options = Options { home: home.path().to_owned(), on_progress: Arc::new(|_| {}) };
        let stack = Stack::build(manifest, &registry, options).await.unwrap();
        let listener = llama_stack_server::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(stack.serve(listener, shutdown.clone()));
        Self { url, shutdown, server, home }
    }

    /// Drains and ends. The home, for the next.
    pub async fn stop(self) -> tempfile::TempDir {
        self.shutdown.cancel();
        self.server.await.unwrap().unwrap();
        self.home
    }

    pub fn agents(&self) -> AgentsClient<Channel> {
        AgentsClient::new(self.channel())
    }

    pub fn channel(&self) -> Channel {
        channel(&self.url, std::time::Duration::from_secs(5)).unwrap()
    }

    /// Status and body of a POST.
    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let answer = reqwest::Client::new()
            .post(format!("{}{path}", self.url))
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).unwrap())
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        let answer = reqwest::get(format!("{}{path}", self.url)).await.unwrap();
        (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).unwrap())
    }

    /// The events of a streamed POST: name and data.
    pub async fn events(&self, path: &str, body: Value) -> Vec<(String, Value)> {
        let client = reqwest::Client::new().post(format!("{}{path}", self.url)).header("content-type", "application/json");
        let text = client.body(body.to_string()).send().await.unwrap().text().await.unwrap();
        parse(&text)
    }
}

impl Running {
    /// The events of a streamed GET: name and data.
    pub async fn events_again(&self, path: &str) -> Vec<(String, Value)> {
        parse(&reqwest::get(format!("{}{path}", self.url)).await.unwrap().text().await.unwrap())
    }

    pub async fn delete(&self, path: &str) -> (u16, Value) {
        let answer = reqwest::Client::new().delete(format!("{}{path}", self.url)).send().await.unwrap();
        (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).unwrap())
    }
}

fn parse(text: &str) -> Vec<(String, Value)> {
    let field = |block: &str, name: &str| block.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
    text.split("\n\n")
        .filter_map(|block| {
            let data = serde_json::from_str(&field(block, "data:")?).ok()?;
            Some((field(block, "event:").unwrap_or_default(), data))
        })
        .collect()
}
