//! The reference implementations, in a process of their own.

use std::{path::Path, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout},
};

#[derive(Clone, Copy)]
pub(super) enum Engine {
    Transformers,
    Onnxruntime,
}

pub(super) struct Answer {
    pub(super) took: Duration,
    pub(super) logits: Vec<Vec<f64>>,
}

/// Ends with this value.
pub(super) struct Peer {
    _child: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    /// Has written the model into the folder when it is there.
    pub(super) async fn start(python: &Path, folder: &Path, threads: usize) -> Self {
        let script = folder.join("peer.py");
        std::fs::write(&script, include_str!("peer.py")).unwrap();
        let mut child = tokio::process::Command::new(python)
            .args([script.as_path(), folder])
            .arg(threads.to_string())
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

    pub(super) async fn classify(&mut self, engine: Engine, ids: &[Vec<u32>]) -> Answer {
        let engine = match engine {
            Engine::Transformers => "transformers",
            Engine::Onnxruntime => "onnxruntime",
        };
        let command = json!({ "engine": engine, "ids": ids }).to_string() + "\n";
        self.commands.write_all(command.as_bytes()).await.unwrap();
        let answer: Value = serde_json::from_str(&self.line().await).unwrap();
        let logits = answer["logits"].as_array().unwrap().iter();
        let logits = logits.map(|row| row.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()).collect();
        Answer { took: Duration::from_secs_f64(answer["seconds"].as_f64().unwrap()), logits }
    }

    async fn line(&mut self) -> String {
        self.answers.next_line().await.unwrap().expect("the peer ended")
    }
}
