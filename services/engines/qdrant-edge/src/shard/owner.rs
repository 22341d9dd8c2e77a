//! The thread that makes a bank's changes.
//!
//! It takes what waits together: one sync of the journal for all of it, then the engine, then each is acknowledged. When the
//! journal has grown and no index is being built, the engine is flushed and the journal emptied. An index is built on a thread
//! beside it, while changes go on; what they are is in the journal until the next flush after it.

use std::{
    collections::HashSet,
    io, mem,
    sync::{Arc, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use llama_stack_core::{Code, Error, Result};
use llama_stack_memory::qdrant::point::{BOOLEAN, NUMBER, TEXT};
use qdrant_edge::PointStructPersisted;
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::timeout,
};

use super::{
    Shared, Surroundings, indexed,
    journal::{Change, Journal},
    points::{delete, upsert},
};
use crate::{directory::broken, engine::Engine};

/// At most this many changes, and bytes of them, are synced together.
const GROUP: usize = 64;
const GROUP_BYTES: usize = 8 << 20;
/// A longer journal is emptied by a flush: at most this much is played again at the next opening.
const FLUSH_ABOVE: u64 = 16 << 20;
/// Without a change for this long, an index that is due is built; many unindexed vectors don't wait for it.
const QUIET: Duration = Duration::from_secs(1);
const MANY: usize = 8;
/// Between attempts to open an engine that failed.
const REOPEN: Duration = Duration::from_secs(1);

pub(super) enum Work {
    Change {
        change: Prepared,
        record: Vec<u8>,
        reply: oneshot::Sender<Result<()>>,
    },
    /// An index was built, or could not be.
    Built(Result<bool>),
}

/// A change in the engine's words.
pub(super) enum Prepared {
    Upsert(Vec<PointStructPersisted>),
    Delete(Vec<String>),
}

type Waiting = (Prepared, Vec<u8>, oneshot::Sender<Result<()>>);

pub(super) struct Owner {
    shared: Arc<Shared>,
    works: mpsc::Receiver<Work>,
    /// To tell oneself that an index was built; does not keep the shard open.
    work: mpsc::WeakSender<Work>,
    around: Surroundings,
    journal: Journal,
    /// Fields with an index.
    fields: HashSet<String>,
    /// Points at the last build that found nothing to do.
    settled: Option<usize>,
    failed: Option<Instant>,
}

impl Owner {
    pub(super) fn open(
        shared: Arc<Shared>,
        works: mpsc::Receiver<Work>,
        work: mpsc::WeakSender<Work>,
        around: Surroundings,
    ) -> Result<Self> {
        let (journal, fields) = load(&shared)?;
        Ok(Self { shared, works, work, around, journal, fields, settled: None, failed: None })
    }

    /// Until nobody can send work any more, or the stack shuts down and nothing has come for a moment.
    pub(super) fn run(mut self) {
        let runtime = Handle::current();
        loop {
            let next = runtime.block_on(async {
                tokio::select! {
                    biased;
                    work = timeout(QUIET, self.works.recv()) => work,
                    () = self.around.shutdown.cancelled() => timeout(QUIET / 10, self.works.recv()).await.or(Ok(None)),
                }
            });
            match next {
                Ok(Some(work)) => self.take(work),
                Ok(None) => break,
                Err(_) => self.consider(true),
            }
        }
        if !self.is_building() && self.failed.is_none() {
            self.checkpoint();
        }
        self.shared.set_engine(None);
    }

    fn take(&mut self, first: Work) {
        let (mut group, mut bytes, mut next) = (Vec::new(), 0, Some(first));
        while let Some(work) = next.take() {
            match work {
                Work::Change { change, record, reply } => {
                    bytes += record.len();
                    group.push((change, record, reply));
                }
                Work::Built(built) => self.built(built),
            }
            if group.len() < GROUP && bytes < GROUP_BYTES {
                next = self.works.try_recv().ok();
            }
        }
        while !group.is_empty() {
            group = self.make(group);
        }
        self.consider(false);
    }

    /// Makes the changes and acknowledges them. Those after one that failed are given back, to be tried without it.
    fn make(&mut self, group: Vec<Waiting>) -> Vec<Waiting> {
        let refuse = |group: Vec<Waiting>, error: &dyn Fn() -> Error| {
            for (_, _, reply) in group {
                // Who no longer waits does not hear it.
                let _ = reply.send(Err(error()));
            }
            Vec::new()
        };
        let engine = match self.engine() {
            Ok(engine) => engine,
            Err(error) => return refuse(group, &|| again(&error)),
        };
        let before = self.journal.len();
        let records: Vec<&[u8]> = group.iter().map(|(_, record, _)| record.as_slice()).collect();
        if let Err(error) = self.journal.append(&records) {
            let path = self.journal.path().to_owned();
            let cause = (error.kind(), error.to_string());
            return refuse(group, &|| broken("the change could not be written", &path, io::Error::new(cause.0, cause.1.clone())));
        }
        let (mut left, mut written) = (group.into_iter(), before);
        while let Some((change, record, reply)) = left.next() {
            match apply(&engine, &self.shared, &mut self.fields, change) {
                Ok(()) => {
                    written += record.len() as u64;
                    let _ = reply.send(Ok(()));
                }
                Err(error) => {
                    if let Err(error) = self.journal.cut(written) {
                        tracing::error!(%error, "a change that failed could not be taken out of the journal");
                    }
                    if error.code() != Code::InvalidArgument {
                        self.fail(&error);
                    }
                    let _ = reply.send(Err(error));
                    return left.collect();
                }
            }
        }
        Vec::new()
    }

    /// The engine, opened anew where it had failed.
    fn engine(&mut self) -> Result<Arc<Engine>> {
        if let Some(at) = self.failed {
            if at.elapsed() < REOPEN {
                return self.shared.engine();
            }
            self.failed = Some(Instant::now());
            let (journal, fields) = load(&self.shared)?;
            (self.journal, self.fields, self.failed, self.settled) = (journal, fields, None, None);
        }
        self.shared.engine()
    }

    fn is_building(&self) -> bool {
        self.shared.building.load(Ordering::Relaxed)
    }

    /// Searches say so until the engine is open again.
    fn fail(&mut self, error: &Error) {
        tracing::error!(%error, cause = ?std::error::Error::source(error), bank = %self.shared.path.display(), "the vector engine failed");
        self.shared.set_engine(None);
        self.failed = Instant::now().checked_sub(REOPEN).or_else(|| Some(Instant::now()));
    }

    fn built(&mut self, built: Result<bool>) {
        self.shared.building.store(false, Ordering::Relaxed);
        match built {
            Ok(true) => self.checkpoint(),
            Ok(false) => {
                self.settled = self.shared.engine().and_then(|engine| engine.info()).ok().map(|info| info.points_count);
            }
            Err(error) => self.fail(&error),
        }
    }

    /// Flushes where the journal is long, builds where an index is due.
    fn consider(&mut self, quiet: bool) {
        if self.failed.is_some() {
            if let Err(error) = self.engine() {
                tracing::warn!(%error, "the vector engine is not back yet");
            }
            return;
        }
        if self.is_building() {
            return;
        }
        if self.journal.len() > FLUSH_ABOVE {
            self.checkpoint();
        }
        let Ok(engine) = self.shared.engine() else { return };
        match self.is_due(&engine, quiet) {
            Ok(true) => self.build(engine),
            Ok(false) => {}
            Err(error) => self.fail(&error),
        }
    }

    /// Whether enough vectors are searched one by one. A bank that is still filling waits for a pause, unless they are many.
    fn is_due(&self, engine: &Engine, quiet: bool) -> Result<bool> {
        let shape = self.shared.points.shape();
        if shape.dimension == 0 {
            return Ok(false);
        }
        let indexed = indexed(engine, shape)?;
        if self.settled.is_some_and(|points| points.abs_diff(indexed.points) * 10 < points) {
            return Ok(false);
        }
        let enough = self.around.config.index_above_kb.saturating_mul(256) / shape.dimension as usize;
        let enough = if quiet { enough } else { enough.saturating_mul(MANY) };
        Ok(indexed.points.saturating_sub(indexed.vectors) > enough)
    }

    fn build(&mut self, engine: Arc<Engine>) {
        let Ok(permit) = self.around.building.clone().try_acquire_owned() else { return };
        let work = self.work.clone();
        self.shared.building.store(true, Ordering::Relaxed);
        // Not one of the runtime's threads: nobody waits for it at the end of the process, since it cannot be stopped and
        // nothing is lost with it.
        let thread = thread::Builder::new().name("vector index".to_owned()).spawn(move || report(&engine, &work, permit));
        match thread {
            Ok(_) => {}
            Err(error) => {
                self.shared.building.store(false, Ordering::Relaxed);
                tracing::warn!(%error, "no thread to build an index on");
            }
        }
    }

    /// The engine's files have everything, and the journal nothing.
    fn checkpoint(&mut self) {
        if self.journal.len() == 0 {
            return;
        }
        let flushed = self.shared.engine().and_then(|engine| engine.flush());
        let cut =
            flushed.and_then(|()| self.journal.cut(0).map_err(|error| broken("the journal cannot be emptied", self.journal.path(), error)));
        if let Err(error) = cut {
            self.fail(&error);
        }
    }
}

fn report(engine: &Arc<Engine>, work: &mpsc::WeakSender<Work>, permit: OwnedSemaphorePermit) {
    let built = engine.optimize();
    drop(permit);
    if let Some(work) = work.upgrade() {
        // A shard that has been closed meanwhile needs no word of it.
        let _ = work.blocking_send(Work::Built(built));
    }
}

/// Opens the engine, plays the journal and shows the engine to searches.
fn load(shared: &Shared) -> Result<(Journal, HashSet<String>)> {
    let engine = Engine::open(&shared.path.join("engine"), shared.points.shape(), &shared.config)?;
    let mut fields: HashSet<String> = engine.indexed_fields()?.into_iter().collect();
    let path = shared.path.join("journal");
    let mut failed = None;
    let journal = Journal::open(&path, |change| {
        let prepared = match change {
            Change::Upsert(chunks) => shared.points.of(&chunks).map(Prepared::Upsert),
            Change::Delete(documents) => Ok(Prepared::Delete(documents)),
        };
        prepared.and_then(|change| apply(&engine, shared, &mut fields, change)).map_err(|error| {
            failed = Some(error);
            io::Error::other("a change cannot be made again")
        })
    });
    let mut journal =
        journal.map_err(|error| mem::take(&mut failed).unwrap_or_else(|| broken("a bank's journal cannot be read", &path, error)))?;
    if journal.len() > 0 {
        engine.flush()?;
        journal.cut(0).map_err(|error| broken("a bank's journal cannot be emptied", &path, error))?;
    }
    shared.set_engine(Some(Arc::new(engine)));
    Ok((journal, fields))
}

fn apply(engine: &Engine, shared: &Shared, fields: &mut HashSet<String>, change: Prepared) -> Result<()> {
    match change {
        Prepared::Upsert(points) => {
            let keys = points.iter().filter_map(|point| point.payload.as_ref()).flat_map(|payload| payload.0.keys());
            let attributes = keys.filter(|key| [TEXT, NUMBER, BOOLEAN].iter().any(|prefix| key.starts_with(prefix)));
            let new: HashSet<String> = attributes.filter(|key| !fields.contains(*key)).cloned().collect();
            for key in new {
                engine.index_field(&key)?;
                fields.insert(key);
            }
            engine.update(upsert(points))
        }
        Prepared::Delete(documents) => match shared.points.of_documents(engine, &documents)? {
            ids if ids.is_empty() => Ok(()),
            ids => engine.update(delete(ids)),
        },
    }
}

/// The same error for another who waited.
fn again(error: &Error) -> Error {
    Error::new(error.code(), error.message()).with_source(error.to_string())
}
