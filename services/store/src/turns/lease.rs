//! Who runs a turn.
//!
//! ```text
//! begin_turn, take, claim ─> owner, epoch, lease ── renew ──> … ── append to a rest, release ──> nobody's
//! ```

use llama_stack_core::{Error, Result};

use crate::{
    Store,
    lease::{self, Holder, Leased, Leases, leases},
};

pub(crate) static TURNS: Leases = leases! {
    table: "turns",
    owner: "owner",
    open: "status IN (1, 2) AND status = 1",
    held: "status IN (1, 2)",
    returning: "session_id, head_seq"
};

/// A turn that is held under an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Held {
    pub tenant: String,
    pub turn_id: String,
    pub epoch: i64,
}

/// A turn that was taken over where its last owner left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    pub held: Held,
    pub session_id: String,
    /// The number of the journal's last event.
    pub sequence: u64,
}

impl Store {
    /// Takes over turns in progress of any tenant whose leases have run out, at most `limit`, oldest first. Of several
    /// claimers each turn goes to one. The holder's own turns are not claimed, however late it is.
    pub async fn claim(&self, holder: Holder<'_>, limit: u32) -> Result<Vec<Claimed>> {
        let claimed =
            |leased: Leased| Claimed { session_id: leased.text.clone(), sequence: leased.number.unsigned_abs(), held: held(leased) };
        Ok(self.claim_leases(&TURNS, holder, limit).await?.into_iter().map(claimed).collect())
    }

    /// Extends all of the holder's leases, also those that have run out and were not claimed, and says which they are. A
    /// turn that is not among them has come to rest, is gone, or is another's now.
    pub async fn renew(&self, holder: Holder<'_>) -> Result<Vec<Held>> {
        Ok(self.renew_leases(&TURNS, holder).await?.into_iter().map(held).collect())
    }

    /// Gives up one turn, so that any process goes on with it. Nothing changes if it is not held under this epoch any more.
    pub async fn release_turn(&self, held: &Held) -> Result<()> {
        self.release_lease(&TURNS, &held.tenant, &held.turn_id, held.epoch).await
    }

    /// Gives up all turns of an owner, which must not run them any more, and says which they were.
    pub async fn release_all(&self, owner: &str) -> Result<Vec<Held>> {
        Ok(self.release_leases(&TURNS, owner).await?.into_iter().map(held).collect())
    }
}

/// What a write with an old epoch is told.
pub(super) fn lost(turn_id: &str) -> Error {
    lease::lost("turn", turn_id)
}

fn held(leased: Leased) -> Held {
    Held { tenant: leased.tenant, turn_id: leased.id, epoch: leased.epoch }
}
