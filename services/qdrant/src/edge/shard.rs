//! The shard of one bank: who searches shares it, one thread changes it.
//!
//! ```text
//! writers ──> owner: journal, one sync for all that wait ── apply ── acknowledge
//!                    └─ now and then: flush, then empty the journal; enough new points: optimize, in a thread of its own
//! readers ──> gate (shared) ── EdgeShard        the owner closes the gate to replace a document, and to open the shard anew
//! ```
//!
//! Qdrant Edge loses what was not flushed, panics where a flush fails or meets another's lock, and keeps what is deleted while it
//! optimizes in memory alone. So nothing rests on its flush: what was acknowledged is in the journal until a flush has
//! succeeded with no optimization under way, and is applied again when the shard is opened. Its own log is never read; its
//! old files are removed.

use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::JoinHandle,
    time::Duration,
};

use llama_stack_core::{Code, Error, Result};
use llama_stack_memory::index::{BankKey, Shape};
use llama_stack_proto::v1::Chunk;
use qdrant_edge::{EdgeOptimizersConfig, EdgeShard, OperationResult};
use tokio::sync::oneshot;

use super::{
    Settings,
    files::{journal, note_flushed, opened, remove_old_log},
    journal::Journal,
    native,
    template::Templates,
};
use crate::{
    condition::{Condition, KEYWORDS},
    engine::Change,
    point::{self, Point},
    words::Words,
};

/// Changes under one sync, and points of one operation of the engine.
const GROUP: usize = 64;
const BATCH: usize = 1_000;
/// Chunks that are worth a thread while the journal is synced.
const WORTH_A_THREAD: usize = 32;
/// The journal is emptied when it is longer than this, or nothing has changed for a while.
const LONG_JOURNAL: u64 = 64 << 20;
const QUIET: Duration = Duration::from_millis(500);
/// Segments that are left as they are while much is inserted: joining them then would build the graph of each point several times.
const LOADING_SEGMENTS: usize = 12;
/// Fields of numbers that are indexed; others are compared one by one.
const MAX_NUMBERS: usize = 64;
/// Tries of a flush that met another's lock.
const FLUSHES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

type Gate = Arc<RwLock<Option<Arc<EdgeShard>>>>;

enum Job {
    Change(Change, oneshot::Sender<Result<()>>),
    Close,
}

/// What a shard is of.
#[derive(Clone)]
pub(super) struct Of {
    pub(super) bank: BankKey,
    pub(super) shape: Shape,
    pub(super) folder: PathBuf,
    pub(super) settings: Settings,
    pub(super) words: Arc<Words>,
    pub(super) templates: Arc<Templates>,
}

pub(super) struct Shard {
    gate: Gate,
    jobs: Sender<Job>,
    busy: Arc<AtomicBool>,
    owner: Mutex<Option<JoinHandle<()>>>,
}

impl Shard {
    /// Opens or makes it. Takes time: not for a thread of the runtime.
    ///
    /// # Errors
    /// `Unavailable` another process has it (`index_busy`) · `FailedPrecondition` it cannot be opened or written.
    pub(super) fn open(of: Of) -> Result<Self> {
        let shard = opened(&of)?;
        let (journal, changes) = journal(&of)?;
        let gate: Gate = Arc::new(RwLock::new(None));
        let busy = Arc::new(AtomicBool::new(false));
        let (jobs, asked) = mpsc::channel();
        let mut owner = Owner {
            of,
            gate: gate.clone(),
            journal,
            unflushed: false,
            changed: 0,
            scattered: false,
            segments: None,
            numbers: HashSet::new(),
            optimizing: None,
            busy: busy.clone(),
        };
        owner.take_in(shard, &changes)?;
        let thread = std::thread::Builder::new().name("qdrant-edge".into()).spawn(move || owner.run(&asked));
        let thread = thread.map_err(native::unusable)?;
        Ok(Self { gate, jobs, busy, owner: Mutex::new(Some(thread)) })
    }

    /// Returns once it is durable.
    pub(super) async fn change(&self, change: Change) -> Result<()> {
        let (done, told) = oneshot::channel();
        self.jobs.send(Job::Change(change, done)).map_err(|_| lost())?;
        told.await.map_err(|_| lost())?
    }

    /// Asks the shard. Takes time.
    pub(super) fn read<T>(&self, ask: impl FnOnce(&EdgeShard) -> OperationResult<T>) -> Result<T> {
        let gate = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        let shard = gate.as_ref().ok_or_else(lost)?;
        match catch_unwind(AssertUnwindSafe(|| ask(shard))) {
            Ok(answer) => answer.map_err(native::failed),
            Err(_) => Err(Error::internal("the index broke off").with_reason("index_failed")),
        }
    }

    /// Whether it optimizes: it is not closed then.
    pub(super) fn busy(&self) -> bool {
        self.busy.load(Ordering::SeqCst)
    }

    /// Flushes and ends. Takes time.
    pub(super) fn close(&self) {
        let _ = self.jobs.send(Job::Close);
        let owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(owner) = owner {
            let _ = owner.join();
        }
    }
}

fn points(of: &Of, chunks: &[Chunk]) -> Vec<Point> {
    chunks.iter().map(|chunk| Point::new(&of.bank, chunk.clone(), &of.words)).collect()
}

fn lost() -> Error {
    let message = "the index of this bank is being opened again: try again";
    Error::unavailable(message).with_reason("index_unavailable").with_retry_after(Duration::from_secs(1))
}

struct Owner {
    of: Of,
    gate: Gate,
    journal: Journal,
    /// The shard's files lack something that the journal has.
    unflushed: bool,
    /// Points that were changed since the last optimization began.
    changed: usize,
    /// The last one left more segments than are good to search.
    scattered: bool,
    /// How many segments the engine was told to leave, where it was told.
    segments: Option<usize>,
    /// Fields of numbers that have an index.
    numbers: HashSet<String>,
    optimizing: Option<JoinHandle<bool>>,
    busy: Arc<AtomicBool>,
}

impl Owner {
    fn run(&mut self, asked: &Receiver<Job>) {
        loop {
            let waits = self.unflushed || self.optimizing.is_some() || self.changed > 0 || self.scattered;
            let job = if waits { asked.recv_timeout(QUIET) } else { asked.recv().map_err(|_| RecvTimeoutError::Disconnected) };
            match job {
                Ok(Job::Change(change, done)) => {
                    let mut group = vec![(change, done)];
                    let mut closes = false;
                    while group.len() < GROUP && !closes {
                        match asked.try_recv() {
                            Ok(Job::Change(change, done)) => group.push((change, done)),
                            Ok(Job::Close) => closes = true,
                            Err(_) => break,
                        }
                    }
                    self.write(group);
                    if closes {
                        break;
                    }
                }
                Ok(Job::Close) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => self.rest(),
            }
            self.collect(false);
            if self.journal.length() > LONG_JOURNAL {
                self.checkpoint();
            }
            if self.changed >= self.of.settings.optimize_after {
                self.optimize(Some(LOADING_SEGMENTS));
            }
        }
        self.collect(true);
        self.checkpoint();
        self.shut();
    }

    /// Nothing was asked for a while.
    fn rest(&mut self) {
        self.checkpoint();
        if self.changed > 0 || self.scattered {
            self.optimize(None);
        }
    }

    fn write(&mut self, group: Vec<(Change, oneshot::Sender<Result<()>>)>) {
        let (written, ready) = self.log(&group.iter().map(|(change, _)| change).collect::<Vec<_>>());
        if let Err(error) = written {
            let told = native::unusable(error);
            for (_, done) in group {
                let _ = done.send(Err(Error::new(told.code(), told.message()).with_reason(told.reason().unwrap_or_default())));
            }
            return;
        }
        self.unflushed = true;
        for ((change, done), points) in group.into_iter().zip(ready) {
            let _ = done.send(self.carry_out(&change, points));
        }
    }

    /// Writes changes to the journal, and makes their points meanwhile, where that is worth it: the disk is mostly waited for.
    fn log(&mut self, changes: &[&Change]) -> (std::io::Result<()>, Vec<Vec<Point>>) {
        let (of, journal) = (&self.of, &mut self.journal);
        let none = || vec![Vec::new(); changes.len()];
        let count: usize = changes.iter().map(|change| change.chunks().len()).sum();
        if !(WORTH_A_THREAD..=BATCH).contains(&count) {
            return (journal.append(changes.iter().copied()), none());
        }
        std::thread::scope(|scope| {
            let make = || changes.iter().map(|change| points(of, change.chunks())).collect::<Vec<_>>();
            let making = std::thread::Builder::new().spawn_scoped(scope, make);
            let written = journal.append(changes.iter().copied());
            // What broke off does so again when it is carried out, and is dealt with there.
            let made = making.ok().and_then(|making| making.join().ok());
            (written, made.unwrap_or_else(none))
        })
    }

    /// What breaks off opens the shard anew, which carries the journal out. `points` are those of its chunks, or none.
    fn carry_out(&mut self, change: &Change, points: Vec<Point>) -> Result<()> {
        let shard = self.gate.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(shard) = shard else { return self.reopen() };
        let done = catch_unwind(AssertUnwindSafe(|| {
            let gate = self.gate.clone();
            // A search finds the old version of a document or the new one.
            let _closed = matches!(change, Change::Replace(..)).then(|| gate.write().unwrap_or_else(PoisonError::into_inner));
            self.apply(&shard, change, points)
        }));
        drop(shard);
        match done {
            Ok(done) => done,
            Err(_) => {
                tracing::error!(bank = self.of.bank.bank_id, "a change broke off: the shard is opened again");
                self.reopen()
            }
        }
    }

    fn apply(&mut self, shard: &EdgeShard, change: &Change, points: Vec<Point>) -> Result<()> {
        let delete =
            |wanted: Condition| shard.update(native::delete(&Condition::within(&self.of.bank, Some(wanted)))?).map_err(native::failed);
        match change {
            Change::Upsert(chunks) => {
                self.changed += chunks.len();
                self.put(shard, chunks, points)
            }
            Change::Replace(document, chunks) => {
                self.changed += chunks.len() + 1;
                let ids = chunks.iter().map(|chunk| point::id(&self.of.bank, &chunk.id)).collect();
                let others = Condition::Not(Box::new(Condition::Points(ids)));
                let document = Condition::of_documents(std::slice::from_ref(document));
                delete(Condition::All(vec![document, others]))?;
                self.put(shard, chunks, points)
            }
            Change::Delete(documents) => {
                self.changed += documents.len();
                delete(Condition::of_documents(documents))
            }
        }
    }

    fn put(&mut self, shard: &EdgeShard, chunks: &[Chunk], ready: Vec<Point>) -> Result<()> {
        if !ready.is_empty() {
            return self.put_points(shard, ready);
        }
        chunks.chunks(BATCH).try_for_each(|chunks| self.put_points(shard, points(&self.of, chunks)))
    }

    fn put_points(&mut self, shard: &EdgeShard, points: Vec<Point>) -> Result<()> {
        for field in points.iter().flat_map(Point::numbers) {
            if self.numbers.len() < MAX_NUMBERS && self.numbers.insert(field.clone()) {
                shard.update(native::index(&field, true)?).map_err(native::failed)?;
            }
        }
        shard.update(native::upsert(points, &self.of.shape)).map_err(native::failed)
    }

    /// Brings the shard's files up to date and empties the journal. Not while it optimizes: what is deleted then is in memory.
    fn checkpoint(&mut self) {
        if !self.unflushed || self.optimizing.is_some() {
            return;
        }
        let shard = self.gate.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(shard) = shard else { return };
        // It panics where a search holds a lock for a moment, too.
        let flushed = (0..FLUSHES).any(|_| {
            let flushed = catch_unwind(AssertUnwindSafe(|| shard.flush())).is_ok();
            if !flushed {
                std::thread::sleep(PAUSE);
            }
            flushed
        });
        drop(shard);
        if !flushed {
            tracing::error!(bank = self.of.bank.bank_id, "a flush failed: the shard is opened again, and its journal kept");
            if let Err(error) = self.reopen() {
                tracing::error!(bank = self.of.bank.bank_id, %error, "the shard could not be opened again");
            }
            return;
        }
        if let Err(error) = note_flushed(&self.of.folder).and_then(|()| self.journal.clear()) {
            tracing::warn!(bank = self.of.bank.bank_id, %error, "the journal could not be emptied");
            return;
        }
        self.unflushed = false;
        remove_old_log(&self.of.folder);
    }

    /// Builds what makes large segments quick to search, in a thread of its own, and joins them until there are so many;
    /// `None`: as the engine thinks best, which is few.
    fn optimize(&mut self, segments: Option<usize>) {
        if self.optimizing.is_some() {
            return;
        }
        self.checkpoint();
        let shard = self.gate.read().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(shard) = shard else { return };
        if self.segments != segments {
            let optimizers = EdgeOptimizersConfig { default_segment_number: segments, ..shard.config().optimizers.clone() };
            match catch_unwind(AssertUnwindSafe(|| shard.set_optimizers_config(optimizers))) {
                Ok(Ok(())) => self.segments = segments,
                _ => tracing::warn!(bank = self.of.bank.bank_id, "a shard keeps the number of its segments"),
            }
        }
        (self.changed, self.scattered) = (0, segments.is_some());
        let work = move || match catch_unwind(AssertUnwindSafe(|| shard.optimize())) {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => {
                tracing::warn!(cause = %error, "a shard could not be optimized");
                false
            }
            Err(_) => false,
        };
        match std::thread::Builder::new().name("qdrant-optimize".into()).spawn(work) {
            Ok(thread) => {
                self.busy.store(true, Ordering::SeqCst);
                self.optimizing = Some(thread);
            }
            Err(error) => tracing::warn!(%error, "no thread to optimize a shard in"),
        }
    }

    /// Ends an optimization that is done, or waits for it.
    fn collect(&mut self, wait: bool) {
        let Some(thread) = self.optimizing.take_if(|thread| wait || thread.is_finished()) else { return };
        let done = thread.join().unwrap_or(false);
        self.busy.store(false, Ordering::SeqCst);
        self.unflushed = true;
        if done {
            self.checkpoint();
        } else if let Err(error) = self.reopen() {
            tracing::error!(bank = self.of.bank.bank_id, %error, "the shard could not be opened again");
        }
    }

    fn reopen(&mut self) -> Result<()> {
        if let Some(thread) = self.optimizing.take() {
            let _ = thread.join();
            self.busy.store(false, Ordering::SeqCst);
        }
        self.shut();
        let shard = opened(&self.of)?;
        let (journal, changes) = journal(&self.of)?;
        self.journal = journal;
        self.take_in(shard, &changes)
    }

    fn shut(&mut self) {
        let shard = self.gate.write().unwrap_or_else(PoisonError::into_inner).take();
        // It flushes as it goes, and panics where it can't.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(shard)));
    }

    /// Carries out what the journal has, and lets searches in.
    fn take_in(&mut self, shard: EdgeShard, changes: &[Change]) -> Result<()> {
        let shard = Arc::new(shard);
        self.segments = None;
        self.numbers = shard.info().payload_schema.keys().map(ToString::to_string).collect();
        for field in KEYWORDS {
            if !self.numbers.remove(field) {
                shard.update(native::index(field, false)?).map_err(native::failed)?;
            }
        }
        self.unflushed = true;
        for change in changes {
            match catch_unwind(AssertUnwindSafe(|| self.apply(&shard, change, Vec::new()))) {
                Ok(Ok(())) => {}
                // It was refused the first time as well, and its caller was told.
                Ok(Err(error)) => tracing::warn!(bank = self.of.bank.bank_id, %error, "a change in the journal is refused"),
                Err(_) => return Err(Error::new(Code::DataLoss, "the index is damaged").with_reason("index_damaged")),
            }
        }
        *self.gate.write().unwrap_or_else(PoisonError::into_inner) = Some(shard);
        Ok(())
    }
}
