//! An example as a process: a client that ends by itself, or a server that ends with its test.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use llama_stack_tests::{scripted, worded};

use crate::{
    runtimes::{examples, run, run_with},
    stack::Running,
};

/// A Python example, as its users run it, against a stack.
pub fn python(python: &Path, stack: &Running, script: &str) -> Command {
    against(Command::new(python), stack, &examples().join(script))
}

/// The same for TypeScript.
pub fn typescript(modules: &Path, stack: &Running, script: &str) -> Command {
    let mut command = Command::new("node");
    command.arg(modules.join("tsx/dist/cli.mjs"));
    against(command, stack, &modules.parent().unwrap().join(script))
}

fn against(mut command: Command, stack: &Running, script: &Path) -> Command {
    command.current_dir(script.parent().unwrap()).arg(script).env("LLAMA_STACK_SERVER", &stack.url);
    command.env("MODEL", scripted::MODEL).env("EMBEDDING_MODEL", worded::EMBEDDING).env("SHIELD", "guard");
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// What it printed at its end.
pub async fn says(mut command: Command) -> String {
    tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap().unwrap()
}

/// What it printed, told these lines.
pub async fn answers(mut command: Command, lines: &'static [&'static str]) -> String {
    tokio::task::spawn_blocking(move || run_with(&mut command, lines)).await.unwrap().unwrap()
}

/// A provider in a process of its own. Ends when it is dropped.
pub struct Provider {
    child: Child,
    pub url: String,
}

impl Provider {
    /// Starts it on a free port, and waits until it says which.
    pub fn start(mut command: Command) -> Self {
        let mut child = command.arg("127.0.0.1:0").env("PYTHONDONTWRITEBYTECODE", "1").stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().strip_prefix("listening on port ").unwrap_or_else(|| panic!("{command:?} said {line:?}"));
        let url = format!("http://127.0.0.1:{port}");
        Self { child, url }
    }

    /// Its line in a manifest.
    pub fn line(&self, id: &str) -> String {
        format!("{{ id: {id}, type: remote::grpc, config: {{ url: \"{}\" }} }}", self.url)
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
