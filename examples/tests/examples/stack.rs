//! A stack on a free port, in this process.

use std::sync::Arc;

use llama_stack_core::{Context, Deps, Manifest, Registry, Result, Tools};
use llama_stack_proto::v1::{InvokeToolRequest, InvokeToolResponse, ListToolsRequest, ListToolsResponse, Part, Tool, ToolDefinition};
use llama_stack_server::{Options, Stack};
use llama_stack_tests::{guard, scripted, worded};
use serde::Deserialize;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What the examples need of the starter: a chat model, an embedding model, a shield, banks, tools.
const MANIFEST: &str = "
version: 1
name: examples
providers:
  inference:
    - { id: scripted, type: test::scripted }
    - { id: worded, type: test::worded }
    - { id: guards, type: test::guard }
  safety:
    - { id: guard, type: inline::llama-guard, config: { model: llama-guard-3-1b } }
  memory:
    - { id: banks, type: inline::sqlite, config: { embedding_model: worded } }
  tools:
    - { id: builtin, type: inline::builtin }
    - { id: web, type: test::web }
";

/// Serves until it is stopped or dropped.
pub struct Running {
    pub url: String,
    shutdown: CancellationToken,
    server: JoinHandle<Result<()>>,
    _home: tempfile::TempDir,
}

impl Running {
    pub async fn start() -> Self {
        Self::with(&[], "").await
    }

    /// With further providers, each as the service and its line in the manifest, and more at the manifest's end.
    pub async fn with(providers: &[(&str, String)], more: &str) -> Self {
        let mut text = MANIFEST.to_owned();
        for (service, line) in providers {
            let begins = format!("  {service}:\n");
            text = text.replacen(&begins, &format!("{begins}    - {line}\n"), 1);
        }
        Self::of(&(text + more)).await
    }

    /// Of a manifest of its own.
    pub async fn of(text: &str) -> Self {
        let mut registry = llama_stack_server::registry();
        scripted::register(&mut registry);
        worded::register(&mut registry);
        guard::register(&mut registry);
        web(&mut registry);
        let home = tempfile::tempdir().unwrap();
        let manifest = Manifest::parse(text, "examples.yaml").unwrap();
        let options = Options { home: home.path().to_owned(), on_progress: Arc::new(|_| {}) };
        let stack = Stack::build(manifest, &registry, options).await.unwrap();
        let listener = llama_stack_server::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(stack.serve(listener, shutdown.clone()));
        Self { url, shutdown, server, _home: home }
    }

    /// Drains and ends.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.server.await.unwrap().unwrap();
    }
}

/// A web of one page, in place of a search engine.
struct Web;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {}

fn web(registry: &mut Registry) {
    registry.tools.add("test::web", |_: Config, _: Deps| async { Ok(Arc::new(Web) as Arc<dyn Tools>) });
}

#[async_trait::async_trait]
impl Tools for Web {
    async fn list_tools(&self, _: &Context, _: ListToolsRequest) -> Result<ListToolsResponse> {
        let schema = r#"{"type":"object","properties":{"query":{"type":"string"}},"required":["query"]}"#;
        let definition = ToolDefinition::new("web_search", "Searches the web.", schema);
        let tool = Tool { definition: Some(definition), reads_untrusted: true, ..Tool::default() };
        Ok(ListToolsResponse { tools: vec![tool], ..ListToolsResponse::default() })
    }

    async fn invoke_tool(&self, _: &Context, _: InvokeToolRequest) -> Result<InvokeToolResponse> {
        Ok(InvokeToolResponse { parts: vec![Part::text("Bicycles have two wheels.")], ..InvokeToolResponse::default() })
    }
}
