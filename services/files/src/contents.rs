//! Where contents lie: on this machine's disk, or in a bucket.

use async_trait::async_trait;
use bytes::Bytes;
use llama_stack_core::{EventStream, Result};
use llama_stack_proto::v1::File;
use sha2::{Digest as _, Sha256};

use crate::blobs::Draft;

/// Keeps contents with the rows that name them. Several processes may share one.
#[async_trait]
pub(crate) trait Contents: Send + Sync + 'static {
    /// Puts a content where it will still be after a loss of power, then its row. An equal content of the tenant is kept
    /// once. `most`: what the tenant's files may have together, 0 for no limit.
    ///
    /// # Errors
    /// `ResourceExhausted` beyond `most`; nothing is left behind then.
    async fn keep(&self, tenant: &str, file: &File, draft: Draft, most: u64) -> Result<()>;

    /// From its beginning to its end, even if it is deleted meanwhile.
    ///
    /// # Errors
    /// `DataLoss` it is not there, though a row names it
    async fn read(&self, blob: &str) -> Result<EventStream<Bytes>>;

    /// Deletes a file, and its content with it if it was the last that had it.
    ///
    /// # Errors
    /// `NotFound` no such file
    async fn delete(&self, tenant: &str, id: &str, blob: &str) -> Result<()>;

    /// Gives up uploads that were under way in a process that is gone.
    async fn give_up_uploads(&self) -> Result<()> {
        Ok(())
    }

    /// Removes contents that no row names, as a crash leaves them, and says how many there were.
    async fn remove_orphans(&self) -> Result<usize>;
}

/// What a tenant's content is called. Tenants with the same content share nothing, so that none learns of another's.
pub(crate) fn name(tenant: &str, sha256: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(tenant.as_bytes());
    hash.update([0]);
    hash.update(sha256.as_bytes());
    hex::encode(hash.finalize())
}
