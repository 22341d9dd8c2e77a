//! Providers that offer the same thing, and providers that are not there.

use std::{sync::Arc, time::Duration};

use llama_stack_core::{
    Code, Context, Error, Registry, Result, Safety, Tools,
    grpc::{Remote, channel},
};
use llama_stack_proto::v1::{
    ListShieldsRequest, ListShieldsResponse, ListToolsRequest, RunShieldRequest, RunShieldResponse, Shield, tools_client::ToolsClient,
};
use llama_stack_server::Stack;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpSocket};
use tonic::transport::Channel;

use crate::{
    client::{manifest, options, start_with},
    scripted::Script,
};

/// A provider of one shield.
struct Guard;

#[async_trait::async_trait]
impl Safety for Guard {
    async fn list_shields(&self, _cx: &Context, _request: ListShieldsRequest) -> Result<ListShieldsResponse> {
        let shield = Shield { id: "guard".into(), ..Shield::default() };
        Ok(ListShieldsResponse { shields: vec![shield], ..ListShieldsResponse::default() })
    }

    async fn run_shield(&self, _cx: &Context, _request: RunShieldRequest) -> Result<RunShieldResponse> {
        Ok(RunShieldResponse::default())
    }
}

/// The test's providers, and `test::guard`.
fn registry() -> Registry {
    let mut registry = Script::default().registry();
    registry.safety.add("test::guard", |_: Value, _| async { Ok(Arc::new(Guard) as Arc<dyn Safety>) });
    registry
}

/// Why no stack comes of these lines. The first is the seventh of the manifest.
async fn refusal(more: &str) -> Error {
    let home = TempDir::new().unwrap();
    Stack::build(manifest(more), &registry(), options(&home)).await.err().expect("was built")
}

#[tokio::test]
async fn a_tool_of_two_providers_is_refused_at_the_second() {
    let error = refusal("  tools:\n    - { id: mine, type: inline::builtin }\n    - { id: yours, type: inline::builtin }\n").await;
    let message =
        "test.yaml:9: providers.tools[1]: tool \"calculator\" comes from two providers, \"mine\" and \"yours\": only one may have it";
    assert_eq!((error.code(), error.message()), (Code::AlreadyExists, message));
    assert_eq!((error.field(), error.reason()), (Some("providers.tools[1]"), Some("duplicate_tool")));
}

#[tokio::test]
async fn a_shield_that_a_declared_agent_names_must_be_there() {
    let error = refusal("agents:\n  declared:\n    clerk: { model: parrot, output_shields: [nobody] }\n").await;
    assert_eq!((error.code(), error.field()), (Code::NotFound, Some("agents.declared.clerk.output_shields[0]")));
    assert!(error.message().starts_with("test.yaml:9: agents.declared.clerk.output_shields[0]: no shield \"nobody\""), "{error}");
}

#[tokio::test]
async fn tools_of_another_process_count_too() {
    let other = start_with("  tools:\n    - { id: builtin, type: inline::builtin }\n").await;
    let far = other.url("");
    let more = format!(
        "  tools:\n    - {{ id: near, type: inline::builtin }}\n    - id: far\n      type: remote::grpc\n      config: {{ url: \"{far}\" }}\n"
    );
    let error = refusal(&more).await;
    assert_eq!(error.code(), Code::AlreadyExists);
    assert!(error.message().starts_with("test.yaml:9: providers.tools[1]: "), "{error}");
    assert!(error.message().contains("\"near\" and \"far\""), "{error}");
}

#[tokio::test]
async fn a_shield_of_two_providers_is_refused_at_the_second() {
    let error = refusal("  safety:\n    - { id: mine, type: test::guard }\n    - { id: yours, type: test::guard }\n").await;
    let message =
        "test.yaml:9: providers.safety[1]: shield \"guard\" comes from two providers, \"mine\" and \"yours\": only one may have it";
    assert_eq!((error.code(), error.message()), (Code::AlreadyExists, message));
}

/// One refuses connections; another takes them and says nothing.
#[tokio::test]
async fn a_shield_of_every_turn_that_is_not_there_is_refused_with_its_line() {
    let error = refusal("  safety: [{ id: mine, type: test::guard }]\nsafety:\n  defaults:\n    output: [gard]\n").await;
    let message = "test.yaml:10: safety.defaults.output[0]: no shield \"gard\"; there is: guard";
    assert_eq!((error.code(), error.message(), error.field()), (Code::NotFound, message, Some("safety.defaults.output[0]")));
}

#[tokio::test]
async fn a_provider_that_does_not_answer_does_not_stop_a_start() {
    let silence = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hung = silence.local_addr().unwrap();
    // Bound, so that nobody else gets it, and not listening.
    let refusing = TcpSocket::new_v4().unwrap();
    refusing.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let down = refusing.local_addr().unwrap();
    let silent = |config: &str| {
        let entry =
            |id: &str, address| format!("    - {{ id: {id}, type: remote::grpc, config: {{ url: \"http://{address}\", {config} }} }}\n");
        format!("{}{}", entry("down", down), entry("hung", hung))
    };
    let (shields, tools) = (silent("connect_timeout_seconds: 1"), silent("list_timeout_seconds: 1"));
    let server = start_with(&format!("  safety:\n{shields}  tools:\n{tools}    - {{ id: builtin, type: inline::builtin }}\n")).await;
    let remote = Remote::<ToolsClient<Channel>>::new(channel(&server.url(""), Duration::from_secs(2)).unwrap());
    let listed = remote.list_tools(&Context::test("acme"), ListToolsRequest::default()).await.unwrap();
    let names: Vec<_> = listed.tools.into_iter().filter_map(|tool| tool.definition).map(|definition| definition.name).collect();
    assert!(names.iter().any(|name| name == "calculator"), "{names:?}");
}
