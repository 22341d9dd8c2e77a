//! `inline::qdrant-edge`: Qdrant inside the process. Vectors by an HNSW graph, words by BM25, filters by indexes of fields.

mod files;
mod journal;
mod native;
mod shard;
mod template;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use llama_stack_core::{Deps, Error, Memory, Result, private};
use llama_stack_memory::{
    Banks, BanksParts, banks,
    index::{BankKey, Index, Shape, Stats},
};
use qdrant_edge::{CountRequest, EdgeShard, OperationResult, PointId, ScrollRequest, SearchRequest, WithPayloadInterface, WithVector};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::{
    Engine, QdrantIndex,
    condition::{Condition, DOCUMENT},
    engine::{Change, Found, Query, indexed_share},
    order::Place,
    point::{DENSE, ID, INDEX},
    words::Words,
};
use shard::{Of, Shard};
use template::Templates;

/// Shards that are open at a time, besides those that are being used: each has some fifty files and a thread.
const OPEN: usize = 32;
/// Changed points after which a shard is optimized, if it is not before, when nothing is asked. For each word of a chunk the
/// engine goes through all of the growing segment's chunks that have the word, so what it costs to insert one grows with the
/// segment: this is measured rather than large.
const OPTIMIZE_AFTER: usize = 8_000;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// As `banks::Config` has it.
    embedding_model: String,
    contextual_model: String,
    max_document_bytes: Option<u64>,
    max_tenant_bytes: Option<u64>,
    /// `scalar` keeps vectors rounded to a byte for each number in memory, and the whole ones on the disk.
    quantization: Quantization,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Quantization {
    #[default]
    None,
    Scalar,
}

/// How the shards of a provider are.
#[derive(Clone, Copy, Debug)]
struct Settings {
    quantized: bool,
    optimize_after: usize,
    /// Segments with more than this have a graph; default: the engine's own, about 10 MB.
    index_above_kb: Option<usize>,
}

pub(crate) async fn build(config: Config, deps: Deps) -> Result<Arc<dyn Memory>> {
    let folder = deps.folder.join("memory").join(&deps.provider_id);
    let Config { embedding_model, contextual_model, max_document_bytes, max_tenant_bytes, quantization } = config;
    let banks = banks::Config { embedding_model, contextual_model, max_document_bytes, max_tenant_bytes };
    let index = open(&folder, quantization).await?;
    Ok(Arc::new(Banks::new(BanksParts::new(index, banks, &deps)?).await?))
}

/// The banks in this folder. No shard is opened before it is used.
///
/// # Errors
/// `FailedPrecondition` the folder cannot be made or written.
pub async fn open(folder: &Path, quantization: Quantization) -> Result<Arc<dyn Index>> {
    private::folder(folder).map_err(native::unusable)?;
    // Banks whose deletion was cut off.
    for entry in std::fs::read_dir(folder).map_err(native::unusable)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(DOOMED) {
            std::fs::remove_dir_all(entry.path()).map_err(native::unusable)?;
        }
    }
    let settings = Settings { quantized: quantization == Quantization::Scalar, optimize_after: OPTIMIZE_AFTER, index_above_kb: None };
    let words = Arc::new(Words::new()?);
    let edge = Edge {
        folder: folder.to_owned(),
        settings,
        words: words.clone(),
        templates: Arc::default(),
        slots: Mutex::default(),
        clock: AtomicU64::new(0),
    };
    Ok(Arc::new(QdrantIndex::new(edge, words)))
}

const DOOMED: &str = "deleted-";
const ABOUT: &str = "bank.json";

/// What a bank's folder says of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct About {
    tenant: String,
    bank_id: String,
    dimension: u32,
    keyword: bool,
}

impl About {
    fn shape(&self) -> Shape {
        Shape { dimension: self.dimension, keyword: self.keyword }
    }
}

/// A bank that was asked for since the start.
struct Slot {
    about: About,
    shard: Mutex<Option<Arc<Shard>>>,
    /// When it was used last, by the clock of the engine.
    used: AtomicU64,
}

struct Edge {
    folder: PathBuf,
    settings: Settings,
    words: Arc<Words>,
    templates: Arc<Templates>,
    slots: Mutex<HashMap<BankKey, Arc<Slot>>>,
    clock: AtomicU64,
}

impl Edge {
    fn folder(&self, bank: &BankKey) -> PathBuf {
        let hash = Sha256::new().chain_update((bank.tenant.len() as u64).to_le_bytes()).chain_update(&bank.tenant);
        self.folder.join(hex::encode(&hash.chain_update(&bank.bank_id).finalize()[..16]))
    }

    async fn slot(&self, bank: &BankKey) -> Result<Arc<Slot>> {
        let mut slots = self.slots.lock().await;
        if let Some(slot) = slots.get(bank) {
            return Ok(slot.clone());
        }
        let path = self.folder(bank).join(ABOUT);
        let bytes = match tokio::fs::read(path).await {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::not_found(format!("no bank {:?}", bank.bank_id)).with_reason("bank_not_found"));
            }
            bytes => bytes.map_err(native::unusable)?,
        };
        let damaged = |error| Error::new(llama_stack_core::Code::DataLoss, "the index of a bank is damaged").with_source(error);
        let about: About = serde_json::from_slice(&bytes).map_err(damaged)?;
        let slot = Arc::new(Slot { about, shard: Mutex::default(), used: AtomicU64::new(0) });
        slots.insert(bank.clone(), slot.clone());
        Ok(slot)
    }

    /// The bank's shard, opened if it was not; `None` for a bank that keeps nothing here, or has nothing yet where `make` is not set.
    async fn shard(&self, bank: &BankKey, make: bool) -> Result<Option<Arc<Shard>>> {
        let slot = self.slot(bank).await?;
        slot.used.store(self.clock.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
        let mut shard = slot.shard.lock().await;
        if let Some(shard) = &*shard {
            return Ok(Some(shard.clone()));
        }
        let folder = self.folder(bank);
        let shape = slot.about.shape();
        let empty = shape == Shape { dimension: 0, keyword: false };
        if empty || (!make && !folder.join("shard").exists()) {
            return Ok(None);
        }
        self.make_room(bank).await;
        let (words, templates) = (self.words.clone(), self.templates.clone());
        let of = Of { bank: bank.clone(), shape, folder, settings: self.settings, words, templates };
        let opened = Arc::new(blocking(move || Shard::open(of)).await?);
        *shard = Some(opened.clone());
        Ok(Some(opened))
    }

    /// Closes the shard that was used least recently, where there are many and nobody is using it.
    async fn make_room(&self, besides: &BankKey) {
        let mut slots: Vec<Arc<Slot>> = {
            let slots = self.slots.lock().await;
            slots.iter().filter(|(bank, _)| *bank != besides).map(|(_, slot)| slot.clone()).collect()
        };
        slots.sort_by_key(|slot| slot.used.load(Ordering::SeqCst));
        let mut open: Vec<_> = slots.iter().filter_map(|slot| slot.shard.try_lock().ok()).filter(|shard| shard.is_some()).collect();
        while open.len() >= OPEN {
            let idle = |shard: &Option<Arc<Shard>>| shard.as_ref().is_some_and(|shard| Arc::strong_count(shard) == 1 && !shard.busy());
            let Some(at) = open.iter().position(|shard| idle(shard)) else { return };
            if let Some(shard) = open.remove(at).take() {
                let closed = tokio::task::spawn_blocking(move || shard.close());
                if closed.await.is_err() {
                    tracing::warn!("a shard did not close");
                }
            }
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        bank: &BankKey,
        ask: impl FnOnce(&EdgeShard) -> OperationResult<T> + Send + 'static,
    ) -> Result<Option<T>> {
        let Some(shard) = self.shard(bank, false).await? else { return Ok(None) };
        blocking(move || shard.read(ask)).await.map(Some)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::internal("the index broke off").with_source(error))?
}

/// A file that is there in whole or not at all, and stays.
fn write_durably(folder: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let draft = folder.join(format!("{name}.draft"));
    std::fs::write(&draft, bytes)?;
    std::fs::File::open(&draft)?.sync_all()?;
    std::fs::rename(&draft, folder.join(name))?;
    std::fs::File::open(folder)?.sync_all()?;
    folder.parent().map_or(Ok(()), |parent| std::fs::File::open(parent)?.sync_all())
}

/// What lies on the disk below a folder: files are sparse.
fn occupied(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(about) if about.is_dir() => occupied(&entry.path()),
        #[cfg(unix)]
        Ok(about) => std::os::unix::fs::MetadataExt::blocks(&about) * 512,
        #[cfg(not(unix))]
        Ok(about) => about.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

fn only(fields: &[&str]) -> Result<WithPayloadInterface> {
    fields.iter().map(|field| native::path(field)).collect::<Result<Vec<_>>>().map(WithPayloadInterface::Fields)
}

/// A bank for words alone has none, and the engine refuses to look for them.
fn vectors(shard: &EdgeShard, wanted: bool) -> WithVector {
    if wanted && shard.config().vectors.contains_key(DENSE) {
        WithVector::Selector(vec![DENSE.to_owned()])
    } else {
        WithVector::Bool(false)
    }
}

#[async_trait::async_trait]
impl Engine for Edge {
    async fn create(&self, bank: &BankKey, shape: &Shape) -> Result<()> {
        let folder = self.folder(bank);
        let Shape { dimension, keyword } = *shape;
        let about = About { tenant: bank.tenant.clone(), bank_id: bank.bank_id.clone(), dimension, keyword };
        let write = move || {
            if folder.join(ABOUT).exists() {
                return Ok(());
            }
            let bytes = serde_json::to_vec(&about).map_err(|error| Error::internal("a bank cannot be described").with_source(error))?;
            write_durably(&folder, ABOUT, &bytes).map_err(native::unusable)
        };
        blocking(write).await
    }

    async fn remove(&self, bank: &BankKey) -> Result<()> {
        let slot = self.slots.lock().await.get(bank).cloned();
        let mut held = match &slot {
            Some(slot) => Some(slot.shard.lock().await),
            None => None,
        };
        let shard = held.as_mut().and_then(|shard| shard.take());
        let (folder, doomed) = (self.folder(bank), self.folder.join(format!("{DOOMED}{}", Uuid::now_v7())));
        let parent = self.folder.clone();
        let end = move || {
            if let Some(shard) = shard {
                shard.close();
            }
            match std::fs::rename(&folder, &doomed) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
                renamed => renamed.map_err(native::unusable)?,
            }
            std::fs::File::open(&parent).and_then(|parent| parent.sync_all()).map_err(native::unusable)?;
            std::fs::remove_dir_all(&doomed).map_err(native::unusable)
        };
        let ended = blocking(end).await;
        self.slots.lock().await.remove(bank);
        ended
    }

    async fn shape(&self, bank: &BankKey) -> Result<Shape> {
        Ok(self.slot(bank).await?.about.shape())
    }

    async fn change(&self, bank: &BankKey, change: Change) -> Result<()> {
        let adds = !change.chunks().is_empty();
        match self.shard(bank, adds).await? {
            Some(shard) => shard.change(change).await,
            None if adds => Err(Error::failed_precondition("this bank keeps no chunks")),
            None => Ok(()),
        }
    }

    async fn nearest(&self, bank: &BankKey, query: Query, wanted: Condition, limit: usize, with_vectors: bool) -> Result<Vec<Found>> {
        let request = SearchRequest {
            query: native::query(query),
            filter: Some(native::filter(&wanted)?),
            params: Some(native::search_params(&self.settings)),
            limit,
            offset: 0,
            with_payload: Some(WithPayloadInterface::Bool(true)),
            with_vector: None,
            score_threshold: None,
        };
        let ask = move |shard: &EdgeShard| shard.search(SearchRequest { with_vector: Some(vectors(shard, with_vectors)), ..request });
        let found = self.ask(bank, ask).await?.unwrap_or_default();
        let found = found.into_iter().map(|point| Found {
            id: native::uuid(point.id),
            payload: point.payload.map(|payload| payload.0).unwrap_or_default(),
            vector: native::dense(point.vector),
            score: point.score,
        });
        Ok(found.collect())
    }

    async fn places(&self, bank: &BankKey, wanted: Condition, from: Option<Uuid>, limit: u32) -> Result<(Vec<Place>, Option<Uuid>)> {
        let request = ScrollRequest {
            offset: from.map(PointId::Uuid),
            limit: Some(limit as usize),
            filter: Some(native::filter(&wanted)?),
            with_payload: Some(only(&[DOCUMENT, INDEX, ID])?),
            with_vector: WithVector::Bool(false),
            order_by: None,
        };
        let (records, next) = self.ask(bank, move |shard| shard.scroll(request)).await?.unwrap_or_default();
        let place = |record: qdrant_edge::Record| {
            Place::read(native::uuid(record.id), &record.payload.map(|payload| payload.0).unwrap_or_default())
        };
        Ok((records.into_iter().map(place).collect(), next.map(native::uuid)))
    }

    async fn points(&self, bank: &BankKey, ids: Vec<Uuid>, with_vectors: bool) -> Result<Vec<Found>> {
        let ids: Vec<PointId> = ids.into_iter().map(PointId::Uuid).collect();
        let ask = move |shard: &EdgeShard| shard.retrieve(&ids, Some(WithPayloadInterface::Bool(true)), Some(vectors(shard, with_vectors)));
        let records = self.ask(bank, ask).await?.unwrap_or_default();
        let found = records.into_iter().map(|record| Found {
            id: native::uuid(record.id),
            payload: record.payload.map(|payload| payload.0).unwrap_or_default(),
            vector: native::dense(record.vector),
            score: 0.0,
        });
        Ok(found.collect())
    }

    /// Bytes are those on the disk.
    async fn stats(&self, bank: &BankKey) -> Result<Stats> {
        let shape = self.shape(bank).await?;
        let dimension = u64::from(shape.dimension);
        let (wanted, folder) = (native::filter(&Condition::within(bank, None))?, self.folder(bank));
        let ask = move |shard: &EdgeShard| {
            let chunks = shard.count(CountRequest { filter: Some(wanted), exact: true })? as u64;
            Ok((chunks, shard.info().indexed_vectors_count as u64, occupied(&folder)))
        };
        let Some((chunks, indexed, bytes)) = self.ask(bank, ask).await? else {
            return Ok(Stats { indexed_share: 1.0, ..Stats::default() });
        };
        Ok(Stats { chunks, bytes: bytes.max(chunks * dimension * 4), indexed_share: indexed_share(&shape, indexed, chunks) })
    }

    async fn size(&self, bank: &BankKey) -> Result<u64> {
        Ok(self.ask(bank, |shard| Ok(shard.info().points_count as u64)).await?.unwrap_or_default())
    }
}
