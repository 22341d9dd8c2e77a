//! LangGraph with its SQLite checkpointer, in a process of its own. Its model and its tool are functions in that process,
//! where ours are servers behind sockets.

use std::process::Command;

use llama_stack_core::manifest::Durability;

use super::{Figures, Load};
use crate::python::Python;

const PACKAGES: [&str; 2] = ["langgraph==1.2.9", "langgraph-checkpoint-sqlite==3.1.2"];

pub(super) fn install() -> Python {
    let python = Python::new();
    PACKAGES.iter().for_each(|package| python.install(package, &[]));
    python
}

pub(super) fn run(python: &Python, durability: Durability, load: Load) -> Figures {
    let folder = tempfile::tempdir().unwrap();
    let synchronous = match durability {
        Durability::Power => "FULL",
        Durability::Process => "NORMAL",
    };
    let output = Command::new(python.path())
        .arg(python.script("peer.py", include_str!("peer.py")))
        .arg(folder.path().join("state.db"))
        .arg(synchronous)
        .args([load.alone, load.sessions, load.each].map(|count| count.to_string()))
        .output()
        .unwrap();
    assert!(output.status.success(), "peer.py failed: {}", String::from_utf8_lossy(&output.stderr));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    Figures { turn: said["seconds"].as_f64().unwrap() * 1e3, per_second: said["per_second"].as_f64().unwrap() }
}
