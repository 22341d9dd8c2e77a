//! Who runs a batch.

use llama_stack_core::Result;
use llama_stack_proto::v1::BatchStatus;

use crate::{
    Store,
    lease::{Holder, Leased, Leases, leases},
};

pub(crate) static BATCHES: Leases =
    leases! { table: "batches", owner: "runner", open: "status <= 4", held: "status <= 4", returning: "runner, status" };

/// A batch that is held under an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HeldBatch {
    pub tenant: String,
    pub batch_id: String,
    pub epoch: i64,
    /// When it was claimed or renewed.
    pub status: BatchStatus,
}

impl Store {
    /// Takes batches of any tenant that have not ended and that nobody runs, at most `limit`, oldest first. Of several
    /// claimers each batch goes to one.
    pub async fn claim_batches(&self, holder: Holder<'_>, limit: u32) -> Result<Vec<HeldBatch>> {
        Ok(self.claim_leases(&BATCHES, holder, limit).await?.into_iter().map(held).collect())
    }

    /// Extends all of the holder's leases, and says which they are. A batch that is not among them has ended, or is
    /// another's now.
    pub async fn renew_batches(&self, holder: Holder<'_>) -> Result<Vec<HeldBatch>> {
        Ok(self.renew_leases(&BATCHES, holder).await?.into_iter().map(held).collect())
    }

    /// Gives a batch up, so that any process goes on with it. Nothing changes if it is not held under this epoch any more.
    pub async fn release_batch(&self, held: &HeldBatch) -> Result<()> {
        self.release_lease(&BATCHES, &held.tenant, &held.batch_id, held.epoch).await
    }
}

fn held(leased: Leased) -> HeldBatch {
    let status = BatchStatus::try_from(leased.number as i32).unwrap_or_default();
    HeldBatch { tenant: leased.tenant, batch_id: leased.id, epoch: leased.epoch, status }
}
