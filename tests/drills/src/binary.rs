//! The real binary, as a process.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

/// A server that ends with this value.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// From exec to the line that says "ready".
    pub(crate) ready: Duration,
    process: Process,
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

    /// Runs a manifest on a free port, with a home that has the tests' models and nothing else.
    #[cfg(feature = "engine")]
    pub(crate) async fn start_with_models(manifest: &str) -> Self {
        let home = with_models();
        let file = home.path().join("manifest.yaml");
        std::fs::write(&file, manifest).unwrap();
        Self::run(file.to_str().unwrap(), home).await
    }

    /// Runs a distribution on a free port, with a home that has the tests' models and nothing else.
    #[cfg(feature = "engine")]
    pub(crate) async fn distribution(name: &str) -> Self {
        Self::run(name, with_models()).await
    }

    async fn run(what: &str, home: tempfile::TempDir) -> Self {
        let begun = Instant::now();
        let mut process = Process::spawn(&path(), what, home.path(), &[], Stdio::inherit());
        let address = process.ready().await.expect("the server ended before it was ready");
        Self { address, ready: begun.elapsed(), process, _home: home }
    }

    /// Resident memory, in bytes.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.process.resident_bytes()
    }

    /// Of that what is its own: without the pages of files, its binary among them, that the kernel can drop and read again.
    pub(crate) fn own_bytes(&self) -> u64 {
        self.process.memory("RssAnon:")
    }

    /// Open files and sockets.
    pub(crate) fn descriptors(&self) -> usize {
        self.process.descriptors()
    }

    /// Threads of the system.
    pub(crate) fn threads(&self) -> usize {
        self.process.threads()
    }
}

#[cfg(feature = "engine")]
fn with_models() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(llama_stack_tests::conformance::local::models(), home.path().join("models")).unwrap();
    home
}

/// A manifest and a home that outlive the processes which run on them.
pub(crate) struct Site {
    binary: PathBuf,
    manifest: PathBuf,
    home: tempfile::TempDir,
    /// The network namespace that its processes run in; none: this one.
    namespace: Option<String>,
}

impl Site {
    pub(crate) fn new(binary: &Path, manifest: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("manifest.yaml");
        std::fs::write(&file, manifest).unwrap();
        Self { binary: binary.to_owned(), manifest: file, home, namespace: None }
    }

    /// In a network namespace that there is.
    pub(crate) fn within(namespace: &str, binary: &Path, manifest: &str) -> Self {
        Self { namespace: Some(namespace.into()), ..Self::new(binary, manifest) }
    }

    /// On a free port. What it logs is in its home only.
    pub(crate) fn spawn(&self, variables: &[(&str, String)]) -> Process {
        let mut command = Command::new(&self.binary);
        if let Some(namespace) = &self.namespace {
            // It becomes the program: signals reach that.
            command = Command::new("ip");
            command.args(["netns", "exec", namespace]).arg(&self.binary);
        }
        Process::run(command, self.manifest.to_str().unwrap(), self.home.path(), variables, Stdio::null())
    }

    /// What its processes have logged.
    pub(crate) fn log(&self, distribution: &str) -> String {
        std::fs::read_to_string(self.home.path().join(distribution).join("server.log")).unwrap_or_default()
    }

    /// Leaves the home behind, for whoever wants to know what went wrong.
    pub(crate) fn keep(self) -> PathBuf {
        self.home.keep()
    }
}

/// A server's process; killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn spawn(binary: &Path, what: &str, home: &Path, variables: &[(&str, String)], errors: Stdio) -> Self {
        Self::run(Command::new(binary), what, home, variables, errors)
    }

    fn run(mut command: Command, what: &str, home: &Path, variables: &[(&str, String)], errors: Stdio) -> Self {
        let mut child = command
            .args(["run", what, "--port", "0", "--json"])
            .env("LLAMA_STACK_HOME", home)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(errors)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// Its address, once it is ready; `None` where it ended first.
    pub(crate) async fn ready(&mut self) -> Option<SocketAddr> {
        let mut said = String::new();
        while let Some(line) = self.lines.next_line().await.unwrap() {
            said.push_str(&line);
            if let Ok(ready) = serde_json::from_str::<serde_json::Value>(&said) {
                return Some(ready["url"].as_str().unwrap().trim_start_matches("http://").parse().unwrap());
            }
        }
        None
    }

    /// How it ended, if it does so within this time.
    pub(crate) async fn ends_within(&mut self, time: Duration) -> Option<ExitStatus> {
        tokio::time::timeout(time, self.child.wait()).await.ok().map(Result::unwrap)
    }

    /// Sends a signal by its name, for example `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let process = self.child.id().expect("the process has ended").to_string();
        assert!(std::process::Command::new("kill").args([&format!("-{name}"), &process]).status().unwrap().success());
    }

    /// Resident memory, in bytes; 0 once it is gone.
    pub(crate) fn resident_bytes(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// A line of `status`, in bytes. Source: proc(5).
    fn memory(&self, name: &str) -> u64 {
        let status = self.proc("status").and_then(|file| std::fs::read_to_string(file).ok()).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap_or_default() * 1024
    }

    /// Open files and sockets.
    pub(crate) fn descriptors(&self) -> usize {
        self.proc("fd").and_then(|folder| std::fs::read_dir(folder).ok()).map_or(0, Iterator::count)
    }

    /// Threads of the system.
    pub(crate) fn threads(&self) -> usize {
        self.proc("task").and_then(|folder| std::fs::read_dir(folder).ok()).map_or(0, Iterator::count)
    }

    /// Of its folder in `/proc`.
    fn proc(&self, name: &str) -> Option<PathBuf> {
        self.child.id().map(|id| PathBuf::from(format!("/proc/{id}/{name}")))
    }

    /// SIGKILL. Returns once the process is gone.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// The binary of the same build: cargo puts benchmarks into a folder beside it. `LLAMA_STACK_DRILL_BINARY` names another.
pub(crate) fn path() -> PathBuf {
    let named = std::env::var_os("LLAMA_STACK_DRILL_BINARY").map(PathBuf::from);
    let path = named.unwrap_or_else(|| std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("llama-stack"));
    assert!(path.exists(), "build the binary first: cargo build --release --bin llama-stack");
    path
}

/// A manifest of one OpenAI-compatible upstream.
pub(crate) fn remote(upstream: SocketAddr) -> String {
    format!(
        "version: 1\nname: drill\nproviders:\n  inference:\n    - id: instant\n      type: remote::openai\n      config:\n        \
         url: \"http://{upstream}/v1\"\n        models: [instant]\n"
    )
}
