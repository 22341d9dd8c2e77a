//! llama.cpp as its users get it: a prebuilt wheel, in a process of its own.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
};

use crate::python::{Python, done};

/// Built for AVX2 as this workspace is, with the C functions in reach. `peer.py` has the structures of this build.
const LLAMA_CPP: &str = "xllamacpp==2026.10.11549";

impl Python {
    /// llama.cpp, without what the wheel's own Python code would need.
    pub(super) fn install_llama_cpp(&self) {
        self.install(LLAMA_CPP, &["--no-deps"]);
    }

    /// `target` is there when it is whole.
    pub(super) fn quantize(&self, source: &Path, target: &Path) {
        self.install("gguf==0.19.0", &[]);
        let script = self.script("quantize.py", include_str!("quantize.py"));
        done(Command::new(self.path()).arg(script).arg(source).arg(target), "quantize.py");
    }
}

/// To the first tokens, and from there to the last.
pub(super) struct Seconds {
    pub(super) prefill: f64,
    pub(super) decode: f64,
}

/// A loaded model, which ends with this value.
pub(super) struct Peer {
    _child: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    /// For so many texts at once, with so many tokens in all.
    pub(super) fn start(python: &Python, model: &Path, threads: u32, context: u32, sequences: usize) -> Self {
        let script = python.script("peer.py", include_str!("peer.py"));
        let mut child = tokio::process::Command::new(python.path())
            .args([script.as_path(), model])
            .args([threads.to_string(), context.to_string(), sequences.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let (commands, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { _child: child, commands, answers: BufReader::new(answers).lines() }
    }

    /// Continues each prompt by so many tokens.
    pub(super) async fn generate(&mut self, prompts: &[Vec<u32>], tokens: u32) -> Seconds {
        let command = json!({ "prompts": prompts, "tokens": tokens }).to_string() + "\n";
        self.commands.write_all(command.as_bytes()).await.unwrap();
        let answer = self.answers.next_line().await.unwrap().expect("llama.cpp ended");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        Seconds { prefill: answer["prefill"].as_f64().unwrap(), decode: answer["decode"].as_f64().unwrap() }
    }
}
