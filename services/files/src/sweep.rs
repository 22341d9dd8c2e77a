//! What removes contents: a file's end, its owner's wish, and a crash that left something behind.

use std::{collections::HashSet, time::Duration};

use llama_stack_core::{Code, Result};
use llama_stack_store::Store;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{blobs::Blobs, copies::is_pinned, disk::blocking};

/// Between two looks at what has expired.
const EVERY: Duration = Duration::from_secs(30);
const AT_ONCE: u32 = 100;

/// Once what a crash left, then again and again what has expired.
pub(crate) async fn run(store: Store, blobs: Blobs, tasks: TaskTracker, shutdown: CancellationToken) {
    if let Err(error) = orphans(&store, &blobs, &tasks).await {
        tracing::warn!(error = ?error, "contents without files could not be removed");
    }
    loop {
        if let Err(error) = expired(&store, &blobs, &tasks).await {
            tracing::warn!(error = ?error, "expired files could not be removed");
        }
        if let Err(error) = left_behind(&store, &blobs, &tasks).await {
            tracing::warn!(error = ?error, "contents that a copy kept could not be removed");
        }
        if shutdown.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
            return;
        }
    }
}

/// Deletes a file, and its content with it if it was the last that had it.
pub(crate) async fn delete(store: &Store, blobs: &Blobs, tasks: &TaskTracker, tenant: &str, id: &str, blob: &str) -> Result<()> {
    let locked = blobs.clone();
    let guard = blocking(tasks, move || locked.lock()).await?;
    store.delete_file(tenant, id).await?;
    if store.is_blob_used(blob).await? {
        return Ok(());
    }
    let (blobs, blob) = (blobs.clone(), blob.to_owned());
    blocking(tasks, move || if is_pinned(&blobs, &guard)? { blobs.leave(&blob, &guard) } else { blobs.remove(&blob, &guard) }).await
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

pub(crate) async fn expired(store: &Store, blobs: &Blobs, tasks: &TaskTracker) -> Result<()> {
    loop {
        let over = store.expired_files(AT_ONCE).await?;
        if over.is_empty() {
            return Ok(());
        }
        for file in over {
            match delete(store, blobs, tasks, &file.tenant, &file.id, &file.blob).await {
                // Another process, or its owner, was faster.
                Err(error) if error.code() == Code::NotFound => {}
                done => done?,
            }
        }
    }
}

/// Drafts whose writers died, and contents that were put in place or left behind just before a process did.
pub(crate) async fn orphans(store: &Store, blobs: &Blobs, tasks: &TaskTracker) -> Result<()> {
    let drafts = blobs.clone();
    let mut removed = blocking(tasks, move || drafts.clear_drafts()).await?;
    for digits in 0..=u8::MAX {
        let (from, before) = (format!("{digits:02x}"), format!("{digits:02x}g"));
        let (locked, there) = (blobs.clone(), from.clone());
        let (guard, names) = blocking(tasks, move || {
            let names = locked.names(&there)?;
            if names.is_empty() {
                return Ok((None, names));
            }
            let guard = locked.lock()?;
            // Somebody copies: what is no file's is removed by the next start.
            Ok((if is_pinned(&locked, &guard)? { None } else { Some(guard) }, names))
        })
        .await?;
        let Some(guard) = guard else { continue };
        let used: HashSet<String> = store.file_blobs(&from, &before).await?.into_iter().collect();
        let (blobs, orphans) = (blobs.clone(), names.into_iter().filter(|name| !used.contains(name)).collect::<Vec<_>>());
        removed += orphans.len();
        blocking(tasks, move || orphans.iter().try_for_each(|name| blobs.remove(name, &guard))).await?;
    }
    if removed > 0 {
        tracing::info!(removed, "what a crash left of files is removed");
    }
    Ok(())
}
