use std::path::Path;

use llama_stack_core::{Code, Deps, Registry};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{ask, call, cx, names, provider, sunny, until};

fn config(starts: &TempDir) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/mcp/stdio_server.py");
    json!({ "command": "python3", "args": [script, starts.path()], "env": { "GIVEN": "yes" }, "list_age_seconds": 600, "list_timeout_seconds": 60 })
}

/// The processes that were started.
fn starts(folder: &TempDir) -> Vec<u32> {
    std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
}

fn lives(process: u32) -> bool {
    // A process that ended and was not waited for yet still has a folder, and no command line.
    std::fs::read(Path::new("/proc").join(process.to_string()).join("cmdline")).is_ok_and(|line| !line.is_empty())
}

#[tokio::test]
async fn a_program_is_started_at_its_first_use_and_asked() {
    let folder = TempDir::new().unwrap();
    let tools = provider(config(&folder)).await;
    assert!(starts(&folder).is_empty(), "started before its first use");
    assert_eq!(names(&*tools).await, ["weather", "variable", "dies"]);
    assert_eq!(ask(&*tools, "Oslo").await.unwrap(), sunny("Oslo"));
    assert_eq!(starts(&folder).len(), 1);
}

#[tokio::test]
async fn a_program_sees_what_it_is_given_of_the_environment_and_no_more() {
    let folder = TempDir::new().unwrap();
    let tools = provider(config(&folder)).await;
    let variable = async |name: &str| call(&*tools, &cx(), "variable", &json!({ "name": name }).to_string()).await.unwrap().1;
    assert_eq!(variable("GIVEN").await, "yes");
    assert_ne!(variable("PATH").await, "None");
    // Cargo sets it for this process.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    assert_eq!(variable("CARGO_MANIFEST_DIR").await, "None");
}

#[tokio::test]
async fn a_program_that_died_is_started_again() {
    let folder = TempDir::new().unwrap();
    let tools = provider(config(&folder)).await;
    for deaths in 1..=2 {
        assert_eq!(call(&*tools, &cx(), "dies", "{}").await.unwrap_err().code(), Code::Unavailable);
        until("an answer", || async { ask(&*tools, "Oslo").await.is_ok_and(|answer| answer == sunny("Oslo")) }).await;
        assert_eq!(starts(&folder).len(), deaths + 1);
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_program_ends_with_its_provider_and_with_the_stack() {
    let folder = TempDir::new().unwrap();
    let tools = provider(config(&folder)).await;
    names(&*tools).await;
    let process = starts(&folder)[0];
    assert!(lives(process));
    drop(tools);
    until("the program's end", || async { !lives(process) }).await;

    let folder = TempDir::new().unwrap();
    let mut registry = Registry::default();
    llama_stack_tools::register(&mut registry);
    let deps = Deps { provider_id: "mcp".into(), ..Deps::new(".") };
    let tools = registry.tools.build("remote::mcp", config(&folder), deps.clone()).await.unwrap();
    names(&*tools).await;
    deps.shutdown.cancel();
    deps.tasks.close();
    deps.tasks.wait().await;
    assert!(!lives(starts(&folder)[0]), "the program outlived the stack");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named() {
    let tools = provider(json!({ "command": "no-such-program-here" })).await;
    let error = ask(&*tools, "Oslo").await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.message().contains("no-such-program-here"), "{error}");
}
