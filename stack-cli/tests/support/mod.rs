//! The real binary, as a process that ends with its test.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::LazyLock,
};

use llama_stack_tests::{conformance::local::models, venv};
use serde_json::Value;

/// What a finished call said.
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A command with a home of its own and nothing of this machine's variables.
pub fn command(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_llama-stack"));
    command.env("LLAMA_STACK_HOME", home).env_remove("OPENAI_BASE_URL").env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// Runs to the end.
pub fn call(home: &Path, arguments: &[&str]) -> Said {
    command(home).args(arguments).output().unwrap().into()
}

/// Runs to the end with this on standard input.
pub fn call_with_input(home: &Path, arguments: &[&str], input: &str) -> Said {
    let mut child = command(home).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

/// `llama-stack run` on a free port. Killed when it is dropped.
pub struct Server {
    pub url: String,
    child: Child,
}

impl Server {
    pub fn start(home: &Path, distribution: &str) -> Self {
        Self::run(command(home).args(["run", distribution, "--port", "0", "--json"]))
    }

    /// By a command that ends in such a run.
    pub fn run(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().unwrap();
        let mut said = String::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            said.push_str(&line.unwrap());
            if let Ok(ready) = serde_json::from_str::<Value>(&said) {
                return Self { url: ready["url"].as_str().unwrap().to_owned(), child };
            }
        }
        panic!("the server ended before it was ready: {:?}", child.wait());
    }

    /// How it ends, when somebody else ends it.
    pub fn wait(mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// SIGTERM, as an operator's tools send it.
    pub fn stop(mut self) -> ExitStatus {
        assert!(Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap().success());
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A home whose model store is the tests' shared one, so that models are fetched once per machine.
pub fn home_with_models() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(models(), home.path().join("models")).unwrap();
    home
}

/// The checkout.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A Python with the examples' packages, or why there is none. Made once, whichever test asks first.
pub fn python() -> Result<PathBuf, String> {
    static PYTHON: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("venv");
        Ok(venv::of_requirements(&folder, &repository().join("examples/python/requirements.txt"))?.join("python"))
    });
    PYTHON.clone()
}
