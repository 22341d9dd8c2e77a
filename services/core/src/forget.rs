//! What providers keep of a tenant beside the store, to be faster for it: an erasure, and the deletion of what a conversation
//! quotes, reach it through here, in this process and in the others of its database.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

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

/// How the other processes of a stack learn of it.
#[async_trait::async_trait]
pub trait Tell: Send + Sync + 'static {
    /// Returns once each of them will let go of what it keeps of `tenant`, whatever becomes of this process.
    async fn tell(&self, tenant: &str) -> Result<()>;
}

/// Those of a stack. The server hands it to the providers in `Deps::extensions`, and they enter themselves.
#[derive(Clone, Default)]
pub struct Keepers(Arc<Inner>);

#[derive(Default)]
struct Inner {
    here: Mutex<Vec<Weak<dyn Forget>>>,
    others: OnceLock<Box<dyn Tell>>,
}

impl Keepers {
    pub fn enter(&self, keeper: &Arc<dyn Forget>) {
        self.0.here.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(keeper));
    }

    /// From now on the other processes are told as well. The first to say how is heard.
    pub fn telling(&self, others: impl Tell) {
        let _ = self.0.others.set(Box::new(others));
    }

    /// How many pieces it was in this process. The others are told first: what fails here is asked for again.
    ///
    /// # Errors
    /// As [`Forget::forget`] and [`Tell::tell`].
    pub async fn forget(&self, tenant: &str) -> Result<u64> {
        if let Some(others) = self.0.others.get() {
            others.tell(tenant).await?;
        }
        self.forget_here(tenant).await
    }

    /// As [`Keepers::forget`], where another process has told.
    ///
    /// # Errors
    /// As [`Forget::forget`].
    pub async fn forget_here(&self, tenant: &str) -> Result<u64> {
        let keepers: Vec<Arc<dyn Forget>> =
            self.0.here.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
        let mut pieces = 0;
        for keeper in keepers {
            pieces += keeper.forget(tenant).await?;
        }
        Ok(pieces)
    }
}
