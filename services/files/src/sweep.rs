//! What removes contents by itself: a file's end, and a crash that left something behind.

use std::{sync::Arc, time::Duration};

use llama_stack_core::{Code, Result};
use llama_stack_store::Store;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{blobs::Blobs, contents::Contents, service::blocking};

/// Between two looks at what has expired.
const EVERY: Duration = Duration::from_secs(30);
const AT_ONCE: u32 = 100;

/// Once what a crash left, then again and again what has expired.
pub(crate) async fn run(store: Store, contents: Arc<dyn Contents>, drafts: Blobs, tasks: TaskTracker, shutdown: CancellationToken) {
    if let Err(error) = left_behind(contents.as_ref(), drafts, &tasks).await {
        tracing::warn!(error = ?error, "contents without files could not be removed");
    }
    loop {
        if let Err(error) = expired(&store, contents.as_ref()).await {
            tracing::warn!(error = ?error, "expired files could not be removed");
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
            return;
        }
    }
}

async fn expired(store: &Store, contents: &dyn Contents) -> Result<()> {
    loop {
        let over = store.expired_files(AT_ONCE).await?;
        if over.is_empty() {
            return Ok(());
        }
        for file in over {
            match contents.delete(&file.tenant, &file.id, &file.blob).await {
                // Another process, or its owner, was faster.
                Err(error) if error.code() == Code::NotFound => {}
                done => done?,
            }
        }
    }
}

/// Drafts whose writers died, and contents that were put in place or left behind just before a process did.
async fn left_behind(contents: &dyn Contents, drafts: Blobs, tasks: &TaskTracker) -> Result<()> {
    let removed = blocking(tasks, move || drafts.clear_drafts()).await? + contents.remove_orphans().await?;
    if removed > 0 {
        tracing::info!(removed, "what a crash left of files is removed");
    }
    Ok(())
}
