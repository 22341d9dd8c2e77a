//! What removes contents by itself: a file's end, and a crash that left something behind.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use llama_stack_core::{Code, Result};
use llama_stack_store::{ExpiredFile, Store};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{blobs::Blobs, contents::Contents, copies::is_pinned, service::blocking};

/// Between two looks at what has expired.
const EVERY: Duration = Duration::from_secs(30);
const AT_ONCE: u32 = 100;

/// What was made of files elsewhere: a file goes after it.
#[async_trait]
pub trait Derived: Send + Sync + 'static {
    /// Deletes what was made of this file. Idempotent.
    ///
    /// # Errors
    /// Whatever leaves some of it there: the file stays as well, and its turn comes again.
    async fn forget(&self, tenant: &str, file_id: &str) -> Result<()>;
}

/// Once what a crash left, then again and again what is left of uploads.
pub(crate) async fn run(store: Store, contents: Arc<dyn Contents>, drafts: Blobs, tasks: TaskTracker, shutdown: CancellationToken) {
    if let Err(error) = orphans(contents.as_ref(), drafts.clone(), &tasks).await {
        tracing::warn!(error = ?error, "contents without files could not be removed");
    }
    loop {
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

/// Again and again what has expired, and before it what was made of it.
pub(crate) async fn expire(store: Store, contents: Arc<dyn Contents>, derived: Arc<dyn Derived>, shutdown: CancellationToken) {
    loop {
        match shutdown.run_until_cancelled(expired(&store, contents.as_ref(), derived.as_ref())).await {
            None => return,
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::warn!(error = ?error, "expired files could not be removed"),
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
            return;
        }
    }
}

/// One that cannot go yet keeps no other from going.
async fn expired(store: &Store, contents: &dyn Contents, derived: &dyn Derived) -> Result<()> {
    let (mut after, mut failed): (Option<ExpiredFile>, _) = (None, None);
    loop {
        let over = store.expired_files(after.as_ref(), AT_ONCE).await?;
        let Some(last) = over.last() else { return failed.map_or(Ok(()), Err) };
        after = Some(last.clone());
        for file in over {
            if let Err(error) = end(store, contents, derived, &file).await {
                failed.get_or_insert(error);
            }
        }
    }
}

async fn end(store: &Store, contents: &dyn Contents, derived: &dyn Derived, file: &ExpiredFile) -> Result<()> {
    if store.is_batch_input(&file.tenant, &file.id).await? {
        return Ok(());
    }
    derived.forget(&file.tenant, &file.id).await?;
    match contents.delete(&file.tenant, &file.id, &file.blob).await {
        // Another process, or its owner, was faster.
        Err(error) if error.code() == Code::NotFound => Ok(()),
        done => done,
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
