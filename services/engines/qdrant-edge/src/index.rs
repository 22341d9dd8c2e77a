//! The banks of one provider: each a shard of its own, of which so many are open.
//!
//! A shard for each bank, rather than one with all of them: a bank's words have their own frequencies, a bank is removed with
//! its files, a failure or a build is one bank's, and a filter never decides alone whose text is found. What it costs, open
//! files, is bounded by closing the least used.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use llama_stack_core::{Deps, Error, Result};
use llama_stack_memory::{
    index::{BankKey, Hit, Index, Search, Shape, Stats},
    qdrant::plan::check_vector,
};
use llama_stack_proto::v1::Chunk;
use tokio::sync::{Mutex, OnceCell, Semaphore};

use crate::{
    Config,
    directory::{Directory, Found},
    engine::Engine,
    shard::{Shard, Surroundings},
};

/// Qdrant's engine behind the contract of [`Index`].
pub struct EdgeIndex {
    directory: Directory,
    around: Surroundings,
    open: Mutex<Open>,
    /// Creations and removals, one after the other.
    changing: Mutex<()>,
}

#[derive(Default)]
struct Open {
    /// Each with when it was last asked for.
    shards: HashMap<BankKey, (u64, Arc<Slot>)>,
    clock: u64,
}

impl Open {
    /// Of those whose index is not being built: that would keep the files of a closed one for long.
    fn least_used(&self) -> Option<BankKey> {
        let idle = self.shards.iter().filter(|(_, (_, slot))| !slot.shard().is_ok_and(Shard::is_building));
        idle.min_by_key(|(_, (used, _))| *used).map(|(bank, _)| bank.clone())
    }
}

/// A bank that is open, or being opened by whoever asked first.
#[derive(Default)]
struct Slot(OnceCell<(Shape, Shard)>);

impl EdgeIndex {
    /// Keeps its banks in a folder of the distribution that is named after the provider.
    ///
    /// # Errors
    /// `InvalidArgument` for a wrong configuration · `Unavailable` where the folder cannot be used.
    pub async fn new(config: Config, deps: &Deps) -> Result<Self> {
        config.check()?;
        let root = deps.folder.join("vectors").join(&deps.provider_id);
        let opened = deps.tasks.spawn_blocking(move || Directory::open(root)).await;
        let directory = opened.map_err(|error| Error::internal("the folder of the vectors was not opened").with_source(error))??;
        let (tasks, shutdown) = (deps.tasks.clone(), deps.shutdown.clone());
        let around = Surroundings { config, tasks, shutdown, building: Arc::new(Semaphore::new(1)) };
        Ok(Self { directory, around, open: Mutex::default(), changing: Mutex::default() })
    }

    /// As [`Index::search`], comparing vectors one by one as if there were no index: what approximate search is measured by.
    ///
    /// # Errors
    /// As [`Index::search`].
    pub async fn search_exactly(&self, bank: &BankKey, search: &Search) -> Result<Vec<Hit>> {
        self.shard(bank).await?.shard()?.search(search, true).await
    }

    async fn shard(&self, bank: &BankKey) -> Result<Arc<Slot>> {
        let slot = {
            let mut open = self.open.lock().await;
            open.clock += 1;
            let clock = open.clock;
            let (used, slot) = open.shards.entry(bank.clone()).or_default();
            *used = clock;
            let slot = slot.clone();
            if open.shards.len() > self.around.config.open_banks
                && let Some(oldest) = open.least_used()
            {
                // Who still uses it keeps it open so long; its owner ends after that.
                open.shards.remove(&oldest);
            }
            slot
        };
        let opened = slot.0.get_or_try_init(|| self.open(bank)).await;
        if let Err(error) = opened {
            self.forget(bank, &slot).await;
            return Err(error);
        }
        Ok(slot)
    }

    async fn open(&self, bank: &BankKey) -> Result<(Shape, Shard)> {
        let found = self.blocking(bank, Directory::find).await?;
        let Found { shape, path } = found.ok_or_else(|| Error::not_found("there is no such bank in this index"))?;
        let shard = Shard::open(path, bank, &shape, &self.around).await?;
        Ok((shape, shard))
    }

    async fn forget(&self, bank: &BankKey, slot: &Arc<Slot>) {
        let mut open = self.open.lock().await;
        if open.shards.get(bank).is_some_and(|(_, there)| Arc::ptr_eq(there, slot)) {
            open.shards.remove(bank);
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        bank: &BankKey,
        work: impl FnOnce(&Directory, &BankKey) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (directory, bank) = (self.directory.clone(), bank.clone());
        let done = self.around.tasks.spawn_blocking(move || work(&directory, &bank)).await;
        done.map_err(|error| Error::internal("work on a bank's files stopped midway").with_source(error))?
    }
}

impl Slot {
    fn get(&self) -> Result<&(Shape, Shard)> {
        self.0.get().ok_or_else(|| Error::unavailable("the bank is not open"))
    }

    fn shard(&self) -> Result<&Shard> {
        self.get().map(|(_, shard)| shard)
    }
}

#[async_trait]
impl Index for EdgeIndex {
    async fn create(&self, bank: &BankKey, shape: &Shape) -> Result<()> {
        let _one = self.changing.lock().await;
        match self.blocking(bank, Directory::find).await? {
            Some(there) if there.shape == *shape => return Ok(()),
            Some(Found { shape, .. }) => {
                let message = format!("the bank is there with {} dimensions, keyword {}", shape.dimension, shape.keyword);
                return Err(Error::failed_precondition(message));
            }
            None => {}
        }
        let (shape, config) = (shape.clone(), self.around.config.clone());
        self.blocking(bank, move |directory, bank| {
            directory.create(bank, &shape, |path| Engine::create(&path.join("engine"), &shape, &config))
        })
        .await
    }

    async fn remove(&self, bank: &BankKey) -> Result<()> {
        let _one = self.changing.lock().await;
        self.open.lock().await.shards.remove(bank);
        let removed = self.blocking(bank, Directory::remove).await;
        // Who opened it in between has what is no longer there.
        self.open.lock().await.shards.remove(bank);
        removed
    }

    async fn upsert(&self, bank: &BankKey, chunks: Vec<Chunk>) -> Result<()> {
        let slot = self.shard(bank).await?;
        let (shape, shard) = slot.get()?;
        for (at, chunk) in chunks.iter().enumerate() {
            check_vector(shape, &chunk.vector, &format!("chunks[{at}].vector"))?;
        }
        if chunks.is_empty() { Ok(()) } else { shard.upsert(chunks).await }
    }

    async fn delete_documents(&self, bank: &BankKey, documents: &[String]) -> Result<()> {
        let slot = self.shard(bank).await?;
        if documents.is_empty() { Ok(()) } else { slot.shard()?.delete_documents(documents.to_vec()).await }
    }

    async fn search(&self, bank: &BankKey, search: &Search) -> Result<Vec<Hit>> {
        self.shard(bank).await?.shard()?.search(search, false).await
    }

    async fn scroll(
        &self,
        bank: &BankKey,
        document: Option<&str>,
        after: Option<&str>,
        limit: u32,
        with_vectors: bool,
    ) -> Result<Vec<Chunk>> {
        self.shard(bank).await?.shard()?.scroll(document, after, limit, with_vectors).await
    }

    async fn stats(&self, bank: &BankKey) -> Result<Stats> {
        self.shard(bank).await?.shard()?.stats().await
    }
}
