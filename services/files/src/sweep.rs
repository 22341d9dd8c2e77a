//! What removes contents by itself: a file's end, and a crash that left something behind.

use std::{sync::Arc, time::Duration};

use llama_stack_core::{Code, Result};
use llama_stack_store::Store;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{blobs::Blobs, contents::Contents, copies::is_pinned, service::blocking};

/// Between two looks at what has expired.
const EVERY: Duration = Duration::from_secs(30);
const AT_ONCE: u32 = 100;

/// Once what a crash left, then again and again what has expired and what is left of uploads.
pub(crate) async fn run(store: Store, contents: Arc<dyn Contents>, drafts: Blobs, tasks: TaskTracker, shutdown: CancellationToken) {
    if let Err(error) = orphans(contents.as_ref(), drafts.clone(), &tasks).await {
        tracing::warn!(error = ?error, "contents without files could not be removed");
    }
    loop {
        if let Err(error) = expired(&store, contents.as_ref()).await {
            tracing::warn!(error = ?error, "expired files could not be removed");
        }
        if let Err(error) = contents.give_up_uploads().await {
            tracing::warn!(error = ?error, "what a crash left of uploads could not be given up");
        }
        if let Err(error) = left_behind(&store, &drafts, &tasks).await {
            tracing::warn!(error = ?error, "contents that a copy kept could not be removed");
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
            return;
        }
    }
}

/// Removes what was deleted while somebody copied all contents, unless somebody still does.
pub(crate) async fn left_behind(store: &Store, blobs: &Blobs, tasks: &TaskTracker) -> Result<()> {
    let there = blobs.clone();
    for blob in blocking(tasks, move || there.left()).await? {
        let locked = blobs.clone();
        let guard = blocking(tasks, move || {
            let guard = locked.lock()?;
            Ok(if is_pinned(&locked, &guard)? { None } else { Some(guard) })
        });
        let Some(guard) = guard.await? else { return Ok(()) };
        let used = store.is_blob_used(&blob).await?;
        let blobs = blobs.clone();
        let settle = move || {
            if !used {
                blobs.remove(&blob, &guard)?;
            }
            blobs.settle(&blob, &guard)
        };
        blocking(tasks, settle).await?;
    }
    Ok(())
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
async fn orphans(contents: &dyn Contents, drafts: Blobs, tasks: &TaskTracker) -> Result<()> {
    let removed = blocking(tasks, move || drafts.clear_drafts()).await? + contents.remove_orphans().await?;
    if removed > 0 {
        tracing::info!(removed, "what a crash left of files is removed");
    }
    Ok(())
}
