//! A temporary Python environment, for peers that are installed for one run of a drill.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

#[cfg(feature = "engine")]
use serde_json::Value;
#[cfg(feature = "engine")]
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
};

pub(crate) struct Python {
    folder: tempfile::TempDir,
    /// One that was there already.
    named: Option<PathBuf>,
}

impl Python {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        done(Command::new("python3").args(["-m", "venv"]).arg(folder.path()), "python3 -m venv");
        Self { folder, named: None }
    }

    /// Has these packages. What `LLAMA_STACK_DRILL_PYTHON` names is taken to have them.
    #[cfg(feature = "engine")]
    pub(crate) fn with(packages: &[&str]) -> Self {
        if let Some(named) = std::env::var_os("LLAMA_STACK_DRILL_PYTHON") {
            return Self { folder: tempfile::tempdir().unwrap(), named: Some(named.into()) };
        }
        let made = Self::new();
        packages.iter().for_each(|package| made.install(package, &[]));
        made
    }

    pub(crate) fn install(&self, package: &str, options: &[&str]) {
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"];
        done(Command::new(self.path()).args(pip).args(options).arg(package), &format!("pip install {package}"));
    }

    /// For a peer that may be missing.
    #[cfg(feature = "engine")]
    pub(crate) fn try_install(&self, package: &str) -> bool {
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:"];
        let pip = Command::new(self.path()).args(pip).arg(package).stdout(Stdio::null()).stderr(Stdio::null()).status();
        pip.is_ok_and(|status| status.success())
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.named.clone().unwrap_or_else(|| self.folder.path().join("bin/python"))
    }

    pub(crate) fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

/// A script that answers one line of JSON by another. Ends with this value.
#[cfg(feature = "engine")]
pub(crate) struct Peer {
    _child: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

#[cfg(feature = "engine")]
impl Peer {
    /// Waits until the script says `ready`.
    pub(crate) async fn start(python: &Python, script: &str, args: &[&str]) -> Self {
        let mut child = tokio::process::Command::new(python.path())
            .arg(python.script("peer.py", script))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (commands, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut peer = Self { _child: child, commands, answers: BufReader::new(answers).lines() };
        assert_eq!(peer.line().await, "ready");
        peer
    }

    pub(crate) async fn ask(&mut self, command: &Value) -> Value {
        self.commands.write_all(format!("{command}\n").as_bytes()).await.unwrap();
        serde_json::from_str(&self.line().await).unwrap()
    }

    async fn line(&mut self) -> String {
        self.answers.next_line().await.unwrap().expect("the peer ended")
    }
}

/// Runs a command that must succeed.
pub(crate) fn done(command: &mut Command, what: &str) {
    assert!(command.stdout(Stdio::null()).status().unwrap().success(), "{what} failed");
}
