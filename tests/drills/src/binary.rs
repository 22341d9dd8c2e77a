//! The real binary, as a process.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

/// A server that ends with this value.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// From exec to the line that says "ready".
    pub(crate) ready: Duration,
    child: Child,
    _home: tempfile::TempDir,
}

impl Server {
    /// Runs a manifest on a free port, with an empty home.
    pub(crate) async fn start(manifest: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("manifest.yaml");
        std::fs::write(&file, manifest).unwrap();
        Self::run(file.to_str().unwrap(), home).await
    }

    /// Runs a distribution on a free port, with a home that has the tests' models and nothing else.
    #[cfg(feature = "engine")]
    pub(crate) async fn distribution(name: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(llama_stack_tests::conformance::local::models(), home.path().join("models")).unwrap();
        Self::run(name, home).await
    }

    async fn run(what: &str, home: tempfile::TempDir) -> Self {
        let begun = Instant::now();
        let mut child = Command::new(path())
            .args(["run", what, "--port", "0", "--json"])
            .env("LLAMA_STACK_HOME", home.path())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = String::new();
        let ready: serde_json::Value = loop {
            said.push_str(&lines.next_line().await.unwrap().expect("the server ended before it was ready"));
            if let Ok(ready) = serde_json::from_str(&said) {
                break ready;
            }
        };
        let address = ready["url"].as_str().unwrap().trim_start_matches("http://").parse().unwrap();
        Self { address, ready: begun.elapsed(), child, _home: home }
    }

    /// Resident memory, in bytes. Source: proc(5), `VmRSS` of `status`.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id().unwrap())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() * 1024
    }
}

/// The binary of the same build: cargo puts benchmarks into a folder beside it.
fn path() -> PathBuf {
    let path = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("llama-stack");
    assert!(path.exists(), "build the binary first: cargo build --release");
    path
}

/// A manifest of one OpenAI-compatible upstream.
pub(crate) fn remote(upstream: SocketAddr) -> String {
    format!(
        "version: 1\nname: drill\nproviders:\n  inference:\n    - id: instant\n      type: remote::openai\n      config:\n        \
         url: \"http://{upstream}/v1\"\n        models: [instant]\n"
    )
}
