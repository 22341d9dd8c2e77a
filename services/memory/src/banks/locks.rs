//! Who waits for whom, within this process: two insertions of one document, and a bank's deletion for its insertions.

use std::hash::{DefaultHasher, Hash, Hasher};

use tokio::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::index::BankKey;

/// A fixed number of locks, so that they need no bookkeeping: two documents may share one, and then wait without need.
const WIDTH: usize = 64;

pub(super) struct Locks {
    documents: Vec<Mutex<()>>,
    banks: Vec<RwLock<()>>,
}

impl Default for Locks {
    fn default() -> Self {
        let (documents, banks) = (0..WIDTH).map(|_| (Mutex::default(), RwLock::default())).unzip();
        Self { documents, banks }
    }
}

/// While it lives, nobody else changes the document, and the bank stays.
pub(super) type Held<'a> = (RwLockReadGuard<'a, ()>, MutexGuard<'a, ()>);

impl Locks {
    /// Held for one document at a time, or two holders could wait for each other.
    pub(super) async fn document(&self, bank: &BankKey, document: &str) -> Held<'_> {
        (self.banks[slot(bank)].read().await, self.documents[slot(&(bank, document))].lock().await)
    }

    pub(super) async fn bank(&self, bank: &BankKey) -> RwLockWriteGuard<'_, ()> {
        self.banks[slot(bank)].write().await
    }
}

fn slot(of: &impl Hash) -> usize {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish() as usize % WIDTH
}
