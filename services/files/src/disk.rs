//! Contents in a folder of this machine. Under its lock, a content is there if and only if a row names it.

use std::{collections::HashSet, io::Read as _};

use async_trait::async_trait;
use bytes::Bytes;
use llama_stack_core::{Code, Error, EventStream, Result};
use llama_stack_proto::v1::File;
use llama_stack_store::Store;
use tokio_util::task::TaskTracker;

use crate::{
    blobs::{self, Blobs, Draft},
    contents::{Contents, name},
    copies::is_pinned,
    service::{PIECE, blocking},
};

pub(crate) struct Disk {
    pub(crate) store: Store,
    pub(crate) blobs: Blobs,
    pub(crate) tasks: TaskTracker,
}

#[async_trait]
impl Contents for Disk {
    async fn keep(&self, tenant: &str, file: &File, mut draft: Draft, most: u64) -> Result<()> {
        let blob = name(tenant, &file.sha256);
        let (blobs, named) = (self.blobs.clone(), blob.clone());
        let locked = blobs.clone();
        // Until the row is there, nobody may take the content for an orphan, or its place in the tenant's quota.
        let synced = move || {
            draft.sync()?;
            Ok((locked.lock()?, draft))
        };
        let (guard, draft) = blocking(&self.tasks, synced).await?;
        self.store.check_file_quota(tenant, file.bytes, most).await?;
        let _guard = blocking(&self.tasks, move || blobs.publish(&draft, &named, &guard).map(|()| guard)).await?;
        self.store.insert_file(tenant, file, &blob).await
    }

    async fn read(&self, blob: &str) -> Result<EventStream<Bytes>> {
        let (path, tasks) = (self.blobs.path(blob), self.tasks.clone());
        // Open, it can be read to its end even if it is deleted meanwhile.
        let mut file = blocking(&tasks, move || std::fs::File::open(path).map_err(missing)).await?;
        Ok(Box::pin(async_stream::try_stream! {
            loop {
                let read = blocking(&tasks, move || {
                    let mut piece = Vec::with_capacity(PIECE);
                    (&file).take(PIECE as u64).read_to_end(&mut piece).map_err(blobs::failed)?;
                    Ok((file, piece))
                });
                let (back, piece) = read.await?;
                if piece.is_empty() {
                    break;
                }
                file = back;
                yield Bytes::from(piece);
            }
        }))
    }

    async fn delete(&self, tenant: &str, id: &str, blob: &str) -> Result<()> {
        let locked = self.blobs.clone();
        let guard = blocking(&self.tasks, move || locked.lock()).await?;
        self.store.delete_file(tenant, id).await?;
        if self.store.is_blob_used(blob).await? {
            return Ok(());
        }
        let (blobs, blob) = (self.blobs.clone(), blob.to_owned());
        blocking(&self.tasks, move || if is_pinned(&blobs, &guard)? { blobs.leave(&blob, &guard) } else { blobs.remove(&blob, &guard) })
            .await
    }

    async fn remove_orphans(&self) -> Result<usize> {
        let mut removed = 0;
        for digits in 0..=u8::MAX {
            let (from, before) = (format!("{digits:02x}"), format!("{digits:02x}g"));
            let (locked, there) = (self.blobs.clone(), from.clone());
            let (guard, names) = blocking(&self.tasks, move || {
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
            let used: HashSet<String> = self.store.file_blobs(&from, &before).await?.into_iter().collect();
            let (blobs, orphans) = (self.blobs.clone(), names.into_iter().filter(|name| !used.contains(name)).collect::<Vec<_>>());
            removed += orphans.len();
            blocking(&self.tasks, move || orphans.iter().try_for_each(|name| blobs.remove(name, &guard))).await?;
        }
        Ok(removed)
    }
}

pub(crate) fn missing(error: std::io::Error) -> Error {
    if error.kind() != std::io::ErrorKind::NotFound {
        return blobs::failed(error);
    }
    Error::new(Code::DataLoss, "the file's content is not on this machine's disk").with_reason("content_missing").with_source(error)
}
