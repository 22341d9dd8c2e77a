//! A provider of banks in a folder of its own, with the model of `llama_stack_tests::worded`.

use std::{path::Path, sync::Arc};

use futures::stream;
use llama_stack_core::{Context, Deps, Error, EventStream, Files, Inference, Memory, Registry, Result};
use llama_stack_proto::v1::{File, FileChunk, GetFileRequest};
use llama_stack_store::{Durability, Store};
use llama_stack_tests::worded::Worded;
use serde_json::{Value, json};

/// Files with one and the same content, and no others.
pub const FILES: [&str; 2] = ["file-one", "file-two"];

struct Twins;

#[async_trait::async_trait]
impl Files for Twins {
    async fn get_file(&self, _cx: &Context, request: GetFileRequest) -> Result<File> {
        if !FILES.contains(&request.id.as_str()) {
            return Err(Error::not_found("no such file"));
        }
        Ok(File { id: request.id, filename: "cats.txt".into(), media_type: "text/plain".into(), bytes: 9, ..File::default() })
    }

    async fn download_file(&self, _cx: &Context, _request: GetFileRequest) -> Result<EventStream<FileChunk>> {
        let chunk: Result<FileChunk> = Ok(FileChunk { data: b"cats purr".to_vec() });
        Ok(Box::pin(stream::iter([chunk])))
    }
}

pub struct Stand {
    pub memory: Arc<dyn Memory>,
    pub worded: Arc<Worded>,
    pub store: Store,
    pub deps: Deps,
    pub folder: Arc<tempfile::TempDir>,
}

impl Stand {
    pub async fn new() -> Self {
        Self::open(Arc::new(tempfile::tempdir().unwrap())).await
    }

    /// In a folder that is there already: what an earlier one kept is there as well.
    pub async fn open(folder: Arc<tempfile::TempDir>) -> Self {
        Self::open_with(folder, Arc::new(Worded::default())).await
    }

    pub async fn open_with(folder: Arc<tempfile::TempDir>, worded: Arc<Worded>) -> Self {
        Self::configured(folder, worded, json!({})).await
    }

    pub async fn configured(folder: Arc<tempfile::TempDir>, worded: Arc<Worded>, config: Value) -> Self {
        let store = open_store(folder.path()).await;
        let mut deps = Deps::new(folder.path());
        deps.provider_id = "sqlite".into();
        deps.inference = Some(worded.clone() as Arc<dyn Inference>);
        deps.extensions.insert(store.clone());
        deps.extensions.insert::<Arc<dyn Files>>(Arc::new(Twins));
        let mut registry = Registry::default();
        llama_stack_memory::register(&mut registry);
        let memory = registry.memory.build("inline::sqlite", config, deps.clone()).await.unwrap();
        Self { memory, worded, store, deps, folder }
    }

    /// Ends it as the process's end would: what is under way stops where it is.
    pub async fn stop(self) -> Arc<tempfile::TempDir> {
        self.deps.shutdown.cancel();
        self.deps.tasks.close();
        self.deps.tasks.wait().await;
        self.store.close().await;
        self.folder
    }
}

async fn open_store(folder: &Path) -> Store {
    Store::open(&format!("sqlite://{}/state.db", folder.display()), Durability::Power).await.unwrap()
}
