//! What one process of a database is asked to forget, the others forget too: they look every few seconds, and when they start.

use std::{path::PathBuf, time::Duration};

use llama_stack_core::{
    Result,
    forget::{Keepers, Tell},
};
use llama_stack_store::Store;
use tokio_util::sync::CancellationToken;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(5);
/// In the stack's folder: up to which call what is kept there, on disk, has been forgotten.
const SEEN: &str = "forgotten";

/// Tells the others in the store.
pub(crate) struct Others {
    pub(crate) store: Store,
    /// This process.
    pub(crate) caller: String,
}

#[async_trait::async_trait]
impl Tell for Others {
    async fn tell(&self, tenant: &str) -> Result<()> {
        self.store.note_forgotten(tenant, &self.caller).await
    }
}

/// Forgets what others call for.
pub(crate) struct Follower {
    store: Store,
    keepers: Keepers,
    caller: String,
    file: PathBuf,
    seen: i64,
}

impl Follower {
    pub(crate) fn new(store: Store, keepers: Keepers, caller: String, folder: PathBuf) -> Self {
        Self { store, keepers, caller, file: folder.join(SEEN), seen: 0 }
    }

    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        // What cannot be read has seen nothing, which only costs time.
        let seen = tokio::fs::read_to_string(&self.file).await.ok();
        self.seen = seen.and_then(|seen| seen.trim().parse().ok()).unwrap_or_default();
        loop {
            match shutdown.run_until_cancelled(self.look()).await {
                None => return,
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::warn!(error = ?error, "what another process deleted is not forgotten here yet"),
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
                return;
            }
        }
    }

    async fn look(&mut self) -> Result<()> {
        if self.store.last_forgotten().await? < self.seen {
            // An older database was restored, and counts from there.
            self.seen = 0;
        }
        for call in self.store.forgotten_since(self.seen).await? {
            if call.caller != self.caller {
                self.keepers.forget_here(&call.tenant).await?;
            }
            self.seen = call.number;
            if let Err(error) = tokio::fs::write(&self.file, self.seen.to_string()).await {
                tracing::warn!(error = %error, file = %self.file.display(), "what is forgotten is not noted, and is forgotten again");
            }
        }
        Ok(())
    }
}
