//! What providers keep of a tenant beside the store, to be faster for it: an erasure, and the deletion of what a conversation
//! quotes, reach it through here.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::Result;

/// A provider that keeps such things.
#[async_trait::async_trait]
pub trait Forget: Send + Sync + 'static {
    /// Lets go of what it keeps of `tenant`, in memory and on disk; how many pieces it was.
    ///
    /// # Errors
    /// Whatever leaves some of it there: the erasure, or the deletion, is to be asked for again.
    async fn forget(&self, tenant: &str) -> Result<u64>;
}

/// Those of a stack. The server hands it to the providers in `Deps::extensions`, and they enter themselves.
#[derive(Clone, Default)]
pub struct Keepers(Arc<Mutex<Vec<Weak<dyn Forget>>>>);

impl Keepers {
    pub fn enter(&self, keeper: &Arc<dyn Forget>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(keeper));
    }

    /// # Errors
    /// As [`Forget::forget`].
    pub async fn forget(&self, tenant: &str) -> Result<u64> {
        let keepers: Vec<Arc<dyn Forget>> =
            self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
        let mut pieces = 0;
        for keeper in keepers {
            pieces += keeper.forget(tenant).await?;
        }
        Ok(pieces)
    }
}
