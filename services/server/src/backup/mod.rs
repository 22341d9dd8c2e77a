//! Everything that a stack keeps, taken out as one archive while it runs, and put back.
//!
//! ```text
//! pin the files ─ a snapshot of the database ─ manifest ─ rows ─ chunks of banks ─ contents of files ─ the list of all
//! verify all ─ an empty database ─ rows, chunks, contents ─ commit
//! ```
//!
//! The snapshot is the moment of the backup. Chunks and contents are read later: contents cannot go, because they are pinned; a
//! document whose chunks have changed meanwhile is read again when the restored stack starts, or is what its chunks say where there
//! is nothing else to read. A bank's own row says nothing that its chunks hold, so it may be changed meanwhile.

mod archive;
mod restore;
mod sealed;
mod take;

use std::sync::Arc;

use llama_stack_core::{Context, Deps, EventStream, Manifest, Registry, Result};
use llama_stack_files::Copies;
use llama_stack_memory::index::Indexes;
use llama_stack_proto::v1::BackupChunk;
use llama_stack_store::{Durability, Store};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use archive::{Contents, Member, verify};
pub use restore::{Restored, manifest_of, restore};
pub use sealed::{BackupKey, Sealing};
pub(crate) use take::Source;

use crate::{Options, assemble};

/// The archive of a stack that does not run, or of which another process on this machine does not have the banks open.
///
/// # Errors
/// As opening its store, its files and its banks.
pub async fn offline(manifest: &Manifest, registry: &Registry, options: Options) -> Result<EventStream<BackupChunk>> {
    let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let indexes = indexes(manifest, registry, &options, &tasks, &shutdown).await?;
    let store = assemble::store(manifest, &options.home).await?;
    let files = match &manifest.files.s3 {
        Some(_) => None,
        None => Some(Copies::open(options.home.join(&manifest.name).join("files"))?),
    };
    let source = Source {
        name: manifest.name.clone(),
        written: manifest.written.clone(),
        store,
        files,
        indexes,
        turn: Arc::new(Semaphore::new(1)),
        tasks,
        shutdown,
    };
    Arc::new(source).take(&Context::system()).await
}

/// The indexes of a manifest's memory providers, without anything that goes on by itself: they are given an empty store.
async fn indexes(
    manifest: &Manifest,
    registry: &Registry,
    options: &Options,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> Result<Indexes> {
    crate::install_crypto();
    let indexes = Indexes::default();
    let mut deps = Deps {
        folder: options.home.join(&manifest.name),
        on_progress: options.on_progress.clone(),
        tasks: tasks.clone(),
        shutdown: shutdown.clone(),
        ..Deps::new(options.home.clone())
    };
    deps.extensions.insert(Store::open("sqlite::memory:", Durability::Process).await?);
    deps.extensions.insert(indexes.clone());
    assemble::providers("memory", &manifest.providers.memory, &registry.memory, &deps, &manifest.lines).await?;
    Ok(indexes)
}
