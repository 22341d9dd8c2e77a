//! What `provider new` writes really runs, and keeps the contract.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use support::{call, python};

/// The Rust scaffold, on the contract that this workspace has generated.
mod contract {
    pub use llama_stack_proto::v1::*;
}
#[path = "../templates/rust/provider.rs"]
mod provider;

/// Killed when it is dropped.
struct Process(Child, String);

impl Process {
    /// Starts a scaffold that says on which port it listens.
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        for said in BufReader::new(child.stdout.take().unwrap()).lines() {
            line = said.unwrap();
            if line.contains("listening on port") {
                break;
            }
        }
        let port = line.trim().rsplit(' ').next().unwrap();
        Self(child, format!("http://127.0.0.1:{port}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn keeps_the_contract(home: &Path, url: &str, api: &str) {
    let said = call(home, &["provider", "check", url, "--api", api, "--json"]);
    let report: Value = serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {}{}", said.out, said.err));
    assert_eq!((&report["broken"], said.code), (&0.into(), 0), "{report:#}");
    assert!(report["kept"].as_u64().unwrap() >= 5, "{report:#}");
}

#[test]
fn python_scaffolds_run_pass_their_tests_and_keep_the_contract() {
    let Ok(python) = python().inspect_err(|why| eprintln!("skipped: the Python scaffolds: {why}")) else { return };
    let home = tempfile::tempdir().unwrap();
    for api in ["tools", "inference", "safety", "memory"] {
        let folder = home.path().join(api);
        let made = call(home.path(), &["provider", "new", api, "my-own", "--folder", folder.to_str().unwrap()]);
        assert_eq!(made.code, 0, "{}", made.err);
        let tests = Command::new(&python).current_dir(&folder).args(["-m", "unittest"]).output().unwrap();
        assert!(tests.status.success(), "{api}: {}", String::from_utf8_lossy(&tests.stderr));
        let provider = Process::start(Command::new(&python).current_dir(&folder).args(["provider.py", "127.0.0.1:0"]));
        keeps_the_contract(home.path(), &provider.1, api);

        let manifest = folder.join("manifest.yaml");
        let text = std::fs::read_to_string(&manifest).unwrap();
        std::fs::write(&manifest, text.replace("http://127.0.0.1:9000", &provider.1)).unwrap();
        let check = call(home.path(), &["distribution", "check", manifest.to_str().unwrap()]);
        assert!(check.code == 0 && check.out.contains("my-own (remote::grpc)"), "{}{}", check.out, check.err);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_scaffold_keeps_the_contract() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = contract::tools_server::ToolsServer::new(provider::Provider);
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    let serving = tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    let home = tempfile::tempdir().unwrap();
    tokio::task::spawn_blocking(move || keeps_the_contract(home.path(), &url, "tools")).await.unwrap();
    serving.abort();
}

#[test]
fn the_typescript_scaffold_runs_passes_its_tests_and_keeps_the_contract() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("ts");
    let arguments = ["provider", "new", "tools", "my-own", "--language", "typescript", "--folder", folder.to_str().unwrap()];
    assert_eq!(call(home.path(), &arguments).code, 0);
    let npm = |arguments: &[&str]| Command::new("npm").current_dir(&folder).args(arguments).output();
    match npm(&["install", "--silent", "--no-audit", "--no-fund"]) {
        Ok(output) if output.status.success() => {}
        Ok(output) => return eprintln!("skipped: the TypeScript scaffold: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => return eprintln!("skipped: the TypeScript scaffold wants npm: {error}"),
    }
    let tests = npm(&["test"]).unwrap();
    assert!(tests.status.success(), "{}", String::from_utf8_lossy(&tests.stdout));
    let types = npm(&["run", "check"]).unwrap();
    assert!(types.status.success(), "{}", String::from_utf8_lossy(&types.stdout));
    let provider = Process::start(Command::new("node").current_dir(&folder).args(["--import", "tsx", "provider.ts", "127.0.0.1:0"]));
    keeps_the_contract(home.path(), &provider.1, "tools");
}

#[test]
fn what_breaks_the_contract_is_reported() {
    let Ok(python) = python().inspect_err(|why| eprintln!("skipped: a Python provider that breaks the contract: {why}")) else { return };
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("bad");
    assert_eq!(call(home.path(), &["provider", "new", "tools", "bad", "--folder", folder.to_str().unwrap()]).code, 0);
    // It takes whatever it is given: unknown tools, and what is no JSON.
    let path = folder.join("provider.py");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("is_error=is_error", "is_error=False")).unwrap();
    let provider = Process::start(Command::new(&python).current_dir(&folder).args(["provider.py", "127.0.0.1:0"]));
    let said = call(home.path(), &["provider", "check", &provider.1]);
    assert_eq!(said.code, 1, "{}", said.out);
    assert!(said.out.contains("BROKEN   a tool that is not there") && said.out.contains("2 broken"), "{}", said.out);
}

#[test]
fn a_scaffold_has_no_marks_left_and_writes_over_nothing() {
    let home = tempfile::tempdir().unwrap();
    for language in ["python", "rust", "typescript", "go"] {
        let folder = home.path().join(language);
        let arguments = ["provider", "new", "tools", "my-own", "--language", language, "--folder", folder.to_str().unwrap(), "--json"];
        let made = call(home.path(), &arguments);
        assert_eq!(made.code, 0, "{}", made.err);
        let made: Value = serde_json::from_str(&made.out).unwrap();
        for file in made["files"].as_array().unwrap() {
            let text = std::fs::read_to_string(folder.join(file.as_str().unwrap())).unwrap();
            let marks = ["__NAME__", "__TOOL__", "__ADDRESS__"];
            assert!(!marks.iter().any(|mark| text.contains(mark)), "{language}: {file}");
        }
        assert_eq!(call(home.path(), &arguments).code, 1, "it was written over");
    }
    let elsewhere = call(home.path(), &["provider", "new", "memory", "x", "--language", "go"]);
    assert!(elsewhere.code == 1 && elsewhere.err.contains("Python"), "{}", elsewhere.err);
    assert_eq!(call(home.path(), &["provider", "new", "tools", "Not A Name"]).code, 2);
}
