//! Providers of one's own, in every language: one line of a manifest away.

use std::{path::Path, process::Command, time::Duration};

use llama_stack_core::grpc::channel;
use llama_stack_proto::v1::{InvokeToolRequest, ListToolsRequest, Part, tools_client::ToolsClient};

use crate::{
    programs::{Provider, python, says},
    runtimes,
    stack::Running,
};

/// What a tool of the stack answers.
async fn invoke(stack: &Running, name: &str, arguments: &str) -> String {
    let mut tools = ToolsClient::new(channel(&stack.url, Duration::from_secs(5)).unwrap());
    // A provider that takes long to begin is listed once it has begun.
    for _ in 0..600 {
        let listed = tools.list_tools(ListToolsRequest::default()).await.unwrap().into_inner().tools;
        if listed.iter().any(|tool| tool.definition.as_ref().is_some_and(|definition| definition.name == name)) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let request = InvokeToolRequest { name: name.into(), arguments: arguments.into(), call_id: String::new() };
    let answer = tools.invoke_tool(request).await.unwrap().into_inner();
    answer.parts.iter().filter_map(Part::as_text).collect()
}

fn script(python: &Path, name: &str) -> Command {
    let mut command = Command::new(python);
    command.arg(runtimes::examples().join(name));
    command
}

async fn gives_the_weather(provider: Provider) {
    let stack = Running::with(&[("tools", provider.line("weather"))], "").await;
    assert_eq!(invoke(&stack, "weather", r#"{"city": "Oslo"}"#).await, "21 degrees and sunny in Oslo");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rust_tool_is_called() {
    gives_the_weather(Provider::start(Command::new(env!("CARGO_BIN_EXE_custom_tool")))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_typescript_tool_is_called() {
    let Ok(modules) = tokio::task::spawn_blocking(runtimes::typescript).await.unwrap() else { return };
    // It finds the contract two folders up, and its packages beside itself: both as in a checkout.
    let checkout = tempfile::tempdir().unwrap();
    let folder = checkout.path().join("examples/typescript");
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["custom_tool.ts", "package.json", "tsconfig.json"] {
        std::fs::copy(runtimes::examples().join("typescript").join(name), folder.join(name)).unwrap();
    }
    std::os::unix::fs::symlink(runtimes::examples().join("../proto").canonicalize().unwrap(), checkout.path().join("proto")).unwrap();
    std::os::unix::fs::symlink(&modules, folder.join("node_modules")).unwrap();
    let mut command = Command::new("node");
    // As tsx starts a program, without the process of its own that would outlive a kill.
    command.arg("--import").arg(modules.join("tsx/dist/esm/index.mjs")).arg(folder.join("custom_tool.ts"));
    gives_the_weather(Provider::start(command)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_mcp_server_is_called() {
    let Ok(venv) = tokio::task::spawn_blocking(runtimes::python).await.unwrap() else { return };
    let server = runtimes::examples().join("python/mcp_server.py");
    let line = format!("{{ id: units, type: remote::mcp, config: {{ command: {venv:?}, args: [{server:?}], list_timeout_seconds: 60 }} }}");
    let stack = Running::with(&[("tools", line)], "").await;
    assert_eq!(invoke(&stack, "celsius", r#"{"fahrenheit": 212}"#).await, "100.0 degrees Celsius");
    stack.stop().await;
}

/// A memory of one's own is searched through the stack, by the client that searches the built-in one.
#[tokio::test(flavor = "multi_thread")]
async fn memories_in_rust_and_python_are_searched() {
    let Ok(venv) = tokio::task::spawn_blocking(runtimes::python).await.unwrap() else { return };
    let rust = Command::new(env!("CARGO_BIN_EXE_custom_memory"));
    for command in [rust, script(&venv, "python/custom_memory.py")] {
        let provider = Provider::start(command);
        // The first of the manifest makes the banks that name none.
        let stack = Running::with(&[("memory", provider.line("words"))], "").await;
        let said = says(python(&venv, &stack, "python/memory_search.py")).await;
        assert_eq!(said, "words: The garage opens at nine.\n");
        stack.stop().await;
    }
}

/// The server as a library, with an inference provider of the program's own.
#[tokio::test(flavor = "multi_thread")]
async fn an_embedded_server_answers_with_its_own_provider() {
    use llama_stack_proto::v1::{ChatRequest, Message, chat_event, inference_client::InferenceClient};
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_embedded"));
    command.env("TMPDIR", home.path());
    let server = Provider::start(command);
    let mut inference = InferenceClient::new(channel(&server.url, Duration::from_secs(5)).unwrap());
    let request = ChatRequest { model: "shout".into(), messages: vec![Message::user("hello")], ..ChatRequest::default() };
    let mut events = inference.stream_chat(request).await.unwrap().into_inner();
    let mut said = String::new();
    while let Some(event) = events.message().await.unwrap() {
        if let Some(chat_event::Event::Text(text)) = event.event {
            said.push_str(&text);
        }
    }
    assert_eq!(said, "HELLO!!");
}
