//! What `provider new` writes really runs, and keeps the contract.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use serde_json::Value;
use support::{call, python};

/// The Rust scaffolds with their own tests, on the contract that this workspace has generated.
mod contract {
    pub use llama_stack_proto::v1::*;
}
#[path = "../templates/rust/inference.rs"]
mod inference;
#[path = "../templates/rust/memory.rs"]
mod memory;
#[path = "../templates/rust/safety.rs"]
mod safety;
#[path = "../templates/rust/tools.rs"]
mod tools;

const APIS: [&str; 4] = ["tools", "inference", "safety", "memory"];

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

/// Writes a scaffold, and gives its folder.
fn scaffold(home: &Path, api: &str, language: &str) -> PathBuf {
    let folder = home.join(format!("{api}-{language}"));
    let made = call(home, &["provider", "new", api, "my-own", "--language", language, "--folder", folder.to_str().unwrap()]);
    assert_eq!(made.code, 0, "{}", made.err);
    folder
}

/// Runs to the end, well.
fn runs(what: &str, command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{what}: {error}"));
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {said}");
}

#[test]
fn python_scaffolds_run_pass_their_tests_and_keep_the_contract() {
    let Ok(python) = python().inspect_err(|why| eprintln!("skipped: the Python scaffolds: {why}")) else { return };
    let home = tempfile::tempdir().unwrap();
    for api in APIS {
        let folder = scaffold(home.path(), api, "python");
        runs(api, Command::new(&python).current_dir(&folder).args(["-m", "unittest"]));
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
async fn rust_scaffolds_keep_the_contract() {
    let mut builder = tonic::transport::Server::builder();
    let routes = builder
        .add_service(contract::tools_server::ToolsServer::new(tools::Provider))
        .add_service(contract::inference_server::InferenceServer::new(inference::Provider))
        .add_service(contract::safety_server::SafetyServer::new(safety::Provider))
        // As the scaffold's `main` does.
        .add_service(contract::memory_server::MemoryServer::new(memory::Provider::default()).max_decoding_message_size(64 << 20));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = tokio::spawn(routes.serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)));
    let home = tempfile::tempdir().unwrap();
    let checks = move || APIS.iter().for_each(|api| keeps_the_contract(home.path(), &url, api));
    tokio::task::spawn_blocking(checks).await.unwrap();
    serving.abort();
}

#[test]
fn typescript_scaffolds_run_pass_their_tests_and_keep_the_contract() {
    let home = tempfile::tempdir().unwrap();
    let first = scaffold(home.path(), APIS[0], "typescript");
    match Command::new("npm").current_dir(&first).args(["install", "--silent", "--no-audit", "--no-fund"]).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => return eprintln!("skipped: the TypeScript scaffolds: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => return eprintln!("skipped: the TypeScript scaffolds want npm: {error}"),
    }
    for api in APIS {
        let folder = if api == APIS[0] { first.clone() } else { scaffold(home.path(), api, "typescript") };
        if folder != first {
            std::os::unix::fs::symlink(first.join("node_modules"), folder.join("node_modules")).unwrap();
        }
        for script in ["test", "check"] {
            runs(&format!("{api}: npm run {script}"), Command::new("npm").current_dir(&folder).args(["run", script]));
        }
        let provider = Process::start(Command::new("node").current_dir(&folder).args(["--import", "tsx", "provider.ts", "127.0.0.1:0"]));
        keeps_the_contract(home.path(), &provider.1, api);
    }
}

/// Where Debian's Go packages are, as `.ci/setup` brings them: then nothing is fetched.
const GO_PACKAGES: &str = "/usr/share/gocode";

#[test]
fn go_scaffolds_run_pass_their_tests_and_keep_the_contract() {
    let there = |program: &&str| Command::new(program).arg("--version").output().is_ok();
    let wanted = ["go", "protoc", "protoc-gen-go", "protoc-gen-go-grpc"];
    if let Some(missing) = wanted.iter().find(|program| !there(program)) {
        return eprintln!("skipped: the Go scaffolds want {missing}");
    }
    // The second is of a version of its package that knows today's generated code.
    for wanted in ["google.golang.org/grpc/server.go", "github.com/golang/protobuf/proto/registry.go"] {
        if !Path::new(GO_PACKAGES).join("src").join(wanted).is_file() {
            return eprintln!("skipped: the Go scaffolds want {wanted} in {GO_PACKAGES}");
        }
    }
    let home = tempfile::tempdir().unwrap();
    for api in APIS {
        let home = home.path().join(api);
        // Without modules a package is what its folder below `src` is called.
        let folder = home.join("src/my-own");
        let made = call(&home, &["provider", "new", api, "my-own", "--language", "go", "--folder", folder.to_str().unwrap()]);
        assert_eq!(made.code, 0, "{}", made.err);
        let paths = std::env::join_paths([home.as_path(), Path::new(GO_PACKAGES)]).unwrap();
        for arguments in [&["generate", "./..."][..], &["vet", "."], &["test", "."], &["build", "-o", "provider", "."]] {
            let mut go = Command::new("go");
            go.current_dir(&folder).env("GO111MODULE", "off").env("GOPATH", &paths).args(arguments);
            runs(&format!("{api}: go {arguments:?}"), &mut go);
        }
        let provider = Process::start(Command::new(folder.join("provider")).arg("127.0.0.1:0"));
        keeps_the_contract(&home, &provider.1, api);
    }
}

/// One that makes chunks of documents by itself, which is the least that a memory needs.
#[test]
fn a_memory_of_documents_alone_keeps_the_contract() {
    let Ok(python) = python().inspect_err(|why| eprintln!("skipped: the Python memory: {why}")) else { return };
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/python");
    let provider = Process::start(Command::new(&python).current_dir(&examples).args(["custom_memory.py", "127.0.0.1:0"]));
    let home = tempfile::tempdir().unwrap();
    keeps_the_contract(home.path(), &provider.1, "memory");
    let said = call(home.path(), &["provider", "check", &provider.1]);
    assert!(said.out.contains("kept     Query finds the text that is asked for"), "{}", said.out);
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
    for (api, language) in APIS.iter().flat_map(|api| ["python", "rust", "typescript", "go"].map(|language| (*api, language))) {
        let folder = home.path().join(format!("{api}-{language}"));
        let arguments = ["provider", "new", api, "my-own", "--language", language, "--folder", folder.to_str().unwrap(), "--json"];
        let made = call(home.path(), &arguments);
        assert_eq!(made.code, 0, "{}", made.err);
        let made: Value = serde_json::from_str(&made.out).unwrap();
        for file in made["files"].as_array().unwrap() {
            let text = std::fs::read_to_string(folder.join(file.as_str().unwrap())).unwrap();
            let marks = ["__NAME__", "__TOOL__", "__ADDRESS__", "__API__", "__SERVICE__"];
            assert!(!marks.iter().any(|mark| text.contains(mark)), "{api} in {language}: {file}");
        }
        let wants_protoc = std::fs::read_to_string(folder.join("README.md")).unwrap().contains("protoc-gen-go-grpc");
        assert_eq!(wants_protoc, language == "go");
        assert_eq!(call(home.path(), &arguments).code, 1, "it was written over");
    }
    for wrong in ["Not A Name", "9-lives", "-x"] {
        assert_eq!(call(home.path(), &["provider", "new", "tools", "--", wrong]).code, 2, "{wrong}");
    }
}
