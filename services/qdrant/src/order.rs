//! Chunks in the order of (document, index, id), which no engine has: a list of places, made once and kept while it is read.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use llama_stack_memory::index::BankKey;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    condition::DOCUMENT,
    point::{ID, INDEX},
};

/// What another process writes is seen after this at the latest; what this one writes at once.
const KEPT: Duration = Duration::from_secs(30);
/// Banks whose lists are kept. Each takes about a hundred bytes for a chunk.
const MOST: usize = 4;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) document: String,
    pub(crate) index: u64,
    pub(crate) id: String,
    pub(crate) point: Uuid,
}

impl Place {
    pub(crate) fn read(point: Uuid, payload: &Map<String, Value>) -> Self {
        let text = |field: &str| payload.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
        Self { document: text(DOCUMENT), index: payload.get(INDEX).and_then(Value::as_u64).unwrap_or_default(), id: text(ID), point }
    }
}

/// When a list was made, and the list.
type Kept = (Instant, Arc<Vec<Place>>);

#[derive(Default)]
pub(crate) struct Lists {
    kept: Mutex<HashMap<BankKey, Kept>>,
    /// Counts changes: a list that was begun before one is not kept.
    changes: AtomicU64,
}

impl Lists {
    pub(crate) fn get(&self, bank: &BankKey) -> Option<Arc<Vec<Place>>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(bank).filter(|(made, _)| made.elapsed() < KEPT).map(|(_, places)| places.clone())
    }

    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::SeqCst)
    }

    pub(crate) fn keep(&self, bank: &BankKey, places: Arc<Vec<Place>>, changes: u64) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if self.changes() != changes {
            return;
        }
        if kept.len() >= MOST
            && let Some(oldest) = kept.iter().min_by_key(|(_, (made, _))| *made).map(|(bank, _)| bank.clone())
        {
            kept.remove(&oldest);
        }
        kept.insert(bank.clone(), (Instant::now(), places));
    }

    /// Before a change is acknowledged.
    pub(crate) fn forget(&self, bank: &BankKey) {
        self.changes.fetch_add(1, Ordering::SeqCst);
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).remove(bank);
    }
}
