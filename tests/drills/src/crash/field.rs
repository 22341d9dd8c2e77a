//! What everyone in the drill shares: the server as it is now, who began which turn, and what went wrong.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use llama_stack_core::{Code, Error};
use tokio::sync::watch;

use super::{
    lives::Up,
    plan::{Outcome, Plan},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An acknowledged turn, or a part of one, is gone.
    Lost,
    /// Done twice: a turn, or a tool's work.
    Duplicated,
    /// Not ended when everything should have.
    Stuck,
    /// Anything else that should not be.
    Wrong,
}

/// A turn that was acknowledged and came to rest.
pub(crate) struct Record {
    /// The idempotency key, which is also in the turn's metadata.
    pub(crate) key: String,
    pub(crate) turn_id: String,
    /// It waits for results that came in another turn, as a Response does.
    pub(crate) waits: bool,
    pub(crate) plan: Plan,
    /// By call; empty for a turn that waits.
    pub(crate) outcomes: Vec<Outcome>,
}

pub(crate) struct Field {
    up: watch::Receiver<Option<Up>>,
    /// Counts what was seen to happen.
    happened: watch::Sender<u64>,
    numbers: AtomicU64,
    stopping: AtomicBool,
    /// Calls that were refused because a turn ran whose rest had been told.
    too_early: AtomicU64,
    records: Mutex<Vec<Record>>,
    faults: Mutex<Vec<(Fault, String)>>,
}

impl Field {
    pub(crate) fn new(up: watch::Receiver<Option<Up>>) -> Self {
        Self {
            up,
            happened: watch::Sender::new(0),
            numbers: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
            too_early: AtomicU64::new(0),
            records: Mutex::default(),
            faults: Mutex::default(),
        }
    }

    /// The server, once it is up.
    pub(crate) async fn up(&self) -> Up {
        let mut up = self.up.clone();
        let up = up.wait_for(Option::is_some).await.expect("the drill ended while a client waited for the server");
        up.clone().expect("it was waited for")
    }

    /// Waits until the server that `life` stands for is gone, at most for `patience`. False where it is not.
    async fn is_gone(&self, life: u64, patience: Duration) -> bool {
        let mut up = self.up.clone();
        let gone = up.wait_for(|up| up.as_ref().is_none_or(|up| up.life != life));
        tokio::time::timeout(patience, gone).await.is_ok()
    }

    /// A call failed. Returns when it can be tried again; false where it should not have failed.
    ///
    /// A connection that breaks is what the drill is about, and a stack that cannot answer now says so. Any other error
    /// is one only if its server is still alive a while later.
    pub(crate) async fn forgives(&self, up: &Up, error: &Error) -> bool {
        let refused = matches!(
            error.code(),
            Code::InvalidArgument | Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted | Code::DataLoss
        );
        if refused {
            return false;
        }
        let unavailable = error.code() == Code::Unavailable;
        // What broke off says so before its process is gone, and a process that aborts takes its time on a busy machine.
        let patience = Duration::from_secs(if unavailable { 2 } else { 30 });
        self.is_gone(up.life, patience).await || unavailable
    }

    pub(crate) fn happened(&self) {
        self.happened.send_modify(|count| *count += 1);
    }

    /// Returns once anything has happened, at most after `patience`.
    pub(crate) async fn something_happens(&self, patience: Duration) {
        let mut happened = self.happened.subscribe();
        // After the patience the drill goes on as if it had.
        let _ = tokio::time::timeout(patience, happened.changed()).await;
    }

    pub(crate) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(crate) fn stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// A turn rests in its journal a moment before its place is free. Who was that fast comes again.
    pub(crate) async fn come_again(&self) {
        self.too_early.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }

    pub(crate) fn too_early(&self) -> u64 {
        self.too_early.load(Ordering::Relaxed)
    }

    pub(crate) fn record(&self, record: Record) {
        self.records.lock().unwrap().push(record);
    }

    pub(crate) fn turns(&self) -> usize {
        self.records.lock().unwrap().len()
    }

    pub(crate) fn take_records(&self) -> Vec<Record> {
        std::mem::take(&mut self.records.lock().unwrap())
    }

    pub(crate) fn fault(&self, fault: Fault, what: String) {
        self.faults.lock().unwrap().push((fault, what));
    }

    pub(crate) fn has_faults(&self) -> bool {
        !self.faults.lock().unwrap().is_empty()
    }

    pub(crate) fn count(&self, fault: Fault) -> usize {
        self.faults.lock().unwrap().iter().filter(|(kind, _)| *kind == fault).count()
    }

    /// The first few, in words.
    pub(crate) fn print_faults(&self) {
        let faults = self.faults.lock().unwrap();
        for (fault, what) in faults.iter().take(20) {
            println!("{fault:?}: {what}");
        }
        if faults.len() > 20 {
            println!("… and {} more", faults.len() - 20);
        }
    }
}
