//! The reference implementations, in a process of their own.

use std::{path::Path, time::Duration};

use serde_json::{Value, json};

use crate::python::{self, Python};

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
pub(super) struct Peer(python::Peer);

impl Peer {
    /// Has written the model into the folder when it is there.
    pub(super) async fn start(python: &Python, folder: &Path, threads: usize) -> Self {
        Self(python::Peer::start(python, include_str!("peer.py"), &[folder.to_str().unwrap(), &threads.to_string()]).await)
    }

    pub(super) async fn classify(&mut self, engine: Engine, ids: &[Vec<u32>]) -> Answer {
        let engine = match engine {
            Engine::Transformers => "transformers",
            Engine::Onnxruntime => "onnxruntime",
        };
        let answer = self.0.ask(&json!({ "engine": engine, "ids": ids })).await;
        let row = |row: &Value| row.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
        let logits = answer["logits"].as_array().unwrap().iter().map(row).collect();
        Answer { took: Duration::from_secs_f64(answer["seconds"].as_f64().unwrap()), logits }
    }
}
