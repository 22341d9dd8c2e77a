//! One bank, open: searches from any thread, and one thread that owns its changes.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use llama_stack_core::{Error, Result};
use llama_stack_memory::{
    index::{BankKey, Hit, Search, Shape, Stats},
    qdrant::{order::Order, plan::Plan},
};
use llama_stack_proto::v1::Chunk;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::JoinError,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Config, directory, engine::Engine};
use journal::Change;
use owner::{Owner, Prepared, Work};
use points::Points;

mod journal;
mod owner;
mod points;

/// Changes that wait for the owner; who brings more waits with them.
const WAITING: usize = 64;

/// What a shard needs of the index that it is in.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) config: Config,
    pub(crate) tasks: TaskTracker,
    pub(crate) shutdown: CancellationToken,
    /// One index is built at a time: a build takes all cores that it gets.
    pub(crate) building: Arc<Semaphore>,
}

pub(crate) struct Shard {
    shared: Arc<Shared>,
    work: mpsc::Sender<Work>,
    tasks: TaskTracker,
}

/// What searches and the owner both see.
struct Shared {
    /// The bank's folder.
    path: PathBuf,
    points: Points,
    config: Config,
    engine: RwLock<Option<Arc<Engine>>>,
    /// Of the listing that was begun last.
    order: Mutex<Option<Arc<Order>>>,
    building: AtomicBool,
}

impl Shared {
    fn engine(&self) -> Result<Arc<Engine>> {
        let engine = self.engine.read().unwrap_or_else(PoisonError::into_inner).clone();
        engine.ok_or_else(|| Error::unavailable("the bank's vectors are being opened anew").with_reason("engine_failed"))
    }

    fn set_engine(&self, engine: Option<Arc<Engine>>) {
        *self.engine.write().unwrap_or_else(PoisonError::into_inner) = engine;
    }
}

impl Shard {
    /// Opens the bank's engine and brings it up to what was acknowledged.
    pub(crate) async fn open(path: PathBuf, bank: &BankKey, shape: &Shape, around: &Surroundings) -> Result<Self> {
        let points = Points::new(bank, shape, &around.config)?;
        let config = around.config.clone();
        let shared =
            Arc::new(Shared { path, points, config, engine: RwLock::new(None), order: Mutex::new(None), building: AtomicBool::new(false) });
        let (work, works) = mpsc::channel(WAITING);
        let owner = {
            let (shared, around, work) = (shared.clone(), around.clone(), work.downgrade());
            around.tasks.clone().spawn_blocking(move || Owner::open(shared, works, work, around)).await.map_err(stopped)??
        };
        around.tasks.spawn_blocking(move || owner.run());
        Ok(Self { shared, work, tasks: around.tasks.clone() })
    }

    pub(crate) fn is_building(&self) -> bool {
        self.shared.building.load(Ordering::Relaxed)
    }

    pub(crate) async fn upsert(&self, chunks: Vec<Chunk>) -> Result<()> {
        let prepare = |shared: &Shared| {
            let points = shared.points.of(&chunks)?;
            Ok((Prepared::Upsert(points), Change::Upsert(chunks).encode().1))
        };
        self.change(prepare).await
    }

    pub(crate) async fn delete_documents(&self, documents: Vec<String>) -> Result<()> {
        let prepare = |_: &Shared| {
            let (Change::Delete(documents), record) = Change::Delete(documents).encode() else {
                return Err(Error::internal("a deletion became something else"));
            };
            Ok((Prepared::Delete(documents), record))
        };
        self.change(prepare).await
    }

    async fn change(&self, prepare: impl FnOnce(&Shared) -> Result<(Prepared, Vec<u8>)> + Send + 'static) -> Result<()> {
        let (change, record) = self.blocking(prepare).await?;
        let (reply, answer) = oneshot::channel();
        let closing = || Error::unavailable("the bank is being closed");
        self.work.send(Work::Change { change, record, reply }).await.map_err(|_| closing())?;
        answer.await.map_err(|_| closing())?
    }

    /// With `exact`, vectors are compared one by one, as if there were no index.
    pub(crate) async fn search(&self, search: &Search, exact: bool) -> Result<Vec<Hit>> {
        let plan = Plan::new(self.shared.points.shape(), search)?;
        self.blocking(move |shared| {
            let (engine, points) = (shared.engine()?, &shared.points);
            let condition = plan.condition.as_ref();
            let vector = plan.vector.as_ref().map(|vector| points.by_vector(&engine, vector, condition, plan.depth, exact));
            let words = plan.words.as_ref().map(|words| points.by_words(&engine, words, condition, plan.depth));
            plan.answer(vector.transpose()?.unwrap_or_default(), words.transpose()?.unwrap_or_default())
        })
        .await
    }

    pub(crate) async fn scroll(&self, document: Option<&str>, after: Option<&str>, limit: u32, with_vectors: bool) -> Result<Vec<Chunk>> {
        let (document, after) = (document.map(str::to_owned), after.map(str::to_owned));
        self.blocking(move |shared| {
            let (engine, points) = (shared.engine()?, &shared.points);
            let kept = || shared.order.lock().unwrap_or_else(PoisonError::into_inner).clone().filter(|order| order.is_fresh());
            let order = match (&document, &after) {
                (None, Some(_)) => kept(),
                _ => None,
            };
            let order = match order {
                Some(order) => order,
                None => {
                    let order = Arc::new(Order::new(points.places(&engine, document.as_deref())?));
                    if document.is_none() {
                        *shared.order.lock().unwrap_or_else(PoisonError::into_inner) = Some(order.clone());
                    }
                    order
                }
            };
            let after = after.as_deref().map(|id| (id, points.id(id)));
            points.read(&engine, order.page(after, limit as usize)?, with_vectors)
        })
        .await
    }

    pub(crate) async fn stats(&self) -> Result<Stats> {
        self.blocking(|shared| {
            let engine = shared.engine()?;
            let chunks = shared.points.count(&engine)?;
            let indexed = indexed(&engine, shared.points.shape())?;
            let indexed_share = if indexed.points == 0 { 1.0 } else { (indexed.vectors as f32 / indexed.points as f32).min(1.0) };
            Ok(Stats { chunks: chunks as u64, bytes: directory::size(&shared.path), indexed_share })
        })
        .await
    }

    async fn blocking<T: Send + 'static>(&self, work: impl FnOnce(&Shared) -> Result<T> + Send + 'static) -> Result<T> {
        let shared = self.shared.clone();
        self.tasks.spawn_blocking(move || work(&shared)).await.map_err(stopped)?
    }
}

struct Indexed {
    points: usize,
    /// Dense ones that the graph has.
    vectors: usize,
}

/// The engine counts words' vectors among the indexed, all of them, since their index is never behind.
fn indexed(engine: &Engine, shape: &Shape) -> Result<Indexed> {
    let info = engine.info()?;
    if shape.dimension == 0 {
        return Ok(Indexed { points: info.points_count, vectors: info.points_count });
    }
    let words = if shape.keyword { info.points_count } else { 0 };
    Ok(Indexed { points: info.points_count, vectors: info.indexed_vectors_count.saturating_sub(words) })
}

fn stopped(error: JoinError) -> Error {
    Error::internal("a search or a change of the vectors stopped midway").with_source(error)
}
