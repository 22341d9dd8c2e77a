//! A provider of banks on Qdrant in a folder of its own, with the model of `llama_stack_tests::worded`.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::{path::Path, sync::Arc};

use llama_stack_core::{Deps, Inference, Memory, Registry};
use llama_stack_memory::index::BankKey;
use llama_stack_proto::v1::Chunk;
use llama_stack_store::{Durability, Store};
use llama_stack_tests::worded::Worded;
use serde_json::Value;

pub struct Stand {
    pub memory: Arc<dyn Memory>,
    pub deps: Deps,
    pub store: Store,
    pub folder: Arc<tempfile::TempDir>,
}

impl Stand {
    pub async fn new(kind: &str, config: Value) -> Self {
        Self::open(kind, config, Arc::new(tempfile::tempdir().unwrap())).await
    }

    /// In a folder that is there already: what an earlier one kept is there as well.
    pub async fn open(kind: &str, config: Value, folder: Arc<tempfile::TempDir>) -> Self {
        let store = open_store(folder.path()).await;
        let deps = deps(folder.path(), &store, "qdrant");
        let memory = registry().memory.build(kind, config, deps.clone()).await.unwrap();
        Self { memory, deps, store, folder }
    }

    /// Another provider of the same stack.
    pub async fn beside(&self, kind: &str, id: &str, config: Value) -> Arc<dyn Memory> {
        registry().memory.build(kind, config, deps(self.folder.path(), &self.store, id)).await.unwrap()
    }

    pub async fn stop(self) -> Arc<tempfile::TempDir> {
        self.deps.shutdown.cancel();
        self.deps.tasks.close();
        self.deps.tasks.wait().await;
        self.store.close().await;
        self.folder
    }
}

pub fn registry() -> Registry {
    let mut registry = Registry::default();
    llama_stack_memory::register(&mut registry);
    llama_stack_qdrant::register(&mut registry);
    registry
}

fn deps(folder: &Path, store: &Store, id: &str) -> Deps {
    let mut deps = Deps::new(folder);
    deps.provider_id = id.into();
    deps.inference = Some(Arc::new(Worded::default()) as Arc<dyn Inference>);
    deps.extensions.insert(store.clone());
    deps
}

async fn open_store(folder: &Path) -> Store {
    Store::open(&format!("sqlite://{}/state.db", folder.display()), Durability::Power).await.unwrap()
}

pub fn bank(id: &str) -> BankKey {
    BankKey { tenant: "tenant".into(), bank_id: id.into() }
}

/// A chunk that is a document of its own, with a vector made of its number.
pub fn chunk(n: usize, dimension: usize) -> Chunk {
    let id = format!("c{n}");
    Chunk { document_id: id.clone(), id, text: format!("text number {n}"), vector: vector(n, dimension), ..Chunk::default() }
}

/// The same for the same number, and of all directions.
pub fn vector(n: usize, dimension: usize) -> Vec<f32> {
    let mut state = (n as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    };
    (0..dimension).map(|_| next()).collect()
}
