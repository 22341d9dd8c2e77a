//! The index over either engine: modes, fusion, order; and what it asks of an engine.

use std::sync::Arc;

use llama_stack_core::{Error, Result};
use llama_stack_memory::{
    fuse::{fuse, sort},
    index::{BankKey, Hit, Index, Search, Shape, Stats},
};
use llama_stack_proto::v1::{Chunk, SearchMode};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::{
    condition::Condition,
    order::{Lists, Place},
    point,
    words::{Sparse, Words},
};

/// Places that are read at a time.
const PAGE: u32 = 5_000;

/// A change of a bank, all of it or none.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    Upsert(Vec<Chunk>),
    /// These are all that the document has now.
    Replace(String, Vec<Chunk>),
    Delete(Vec<String>),
}

impl Change {
    /// Those that it brings.
    pub(crate) fn chunks(&self) -> &[Chunk] {
        match self {
            Change::Upsert(chunks) | Change::Replace(_, chunks) => chunks,
            Change::Delete(_) => &[],
        }
    }
}

/// What is looked for.
#[derive(Clone, Debug)]
pub(crate) enum Query {
    Dense(Vec<f32>),
    Words(Sparse),
}

/// A point as an engine gives it back. The score is 0 where nothing was looked for.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) id: Uuid,
    pub(crate) payload: Map<String, Value>,
    pub(crate) vector: Vec<f32>,
    pub(crate) score: f32,
}

/// Of the vectors; an engine counts those of words as well, where it has a graph.
pub(crate) fn indexed_share(shape: &Shape, indexed: u64, chunks: u64) -> f32 {
    let kinds = u64::from(shape.dimension > 0) + u64::from(shape.keyword);
    if shape.dimension == 0 || chunks == 0 { 1.0 } else { (indexed as f32 / (chunks * kinds) as f32).min(1.0) }
}

/// Keeps points. Banks that have neither vectors nor words are known to it and hold nothing.
#[async_trait::async_trait]
pub(crate) trait Engine: Send + Sync + 'static {
    async fn create(&self, bank: &BankKey, shape: &Shape) -> Result<()>;

    async fn remove(&self, bank: &BankKey) -> Result<()>;

    /// # Errors
    /// `NotFound` for a bank that is not there.
    async fn shape(&self, bank: &BankKey) -> Result<Shape>;

    /// Returns once the change would survive the end of the process and the loss of power.
    async fn change(&self, bank: &BankKey, change: Change) -> Result<()>;

    /// Best first.
    async fn nearest(&self, bank: &BankKey, query: Query, wanted: Condition, limit: usize, with_vectors: bool) -> Result<Vec<Found>>;

    /// Places in the order of their points, from this one on; and where the next page begins.
    async fn places(&self, bank: &BankKey, wanted: Condition, from: Option<Uuid>, limit: u32) -> Result<(Vec<Place>, Option<Uuid>)>;

    /// Those of these points that are there, in any order.
    async fn points(&self, bank: &BankKey, ids: Vec<Uuid>, with_vectors: bool) -> Result<Vec<Found>>;

    async fn stats(&self, bank: &BankKey) -> Result<Stats>;

    /// About how many points there are: what costs nothing to say.
    async fn size(&self, bank: &BankKey) -> Result<u64>;
}

pub(crate) struct QdrantIndex<E> {
    engine: E,
    words: Arc<Words>,
    lists: Lists,
}

impl<E: Engine> QdrantIndex<E> {
    pub(crate) fn new(engine: E, words: Arc<Words>) -> Self {
        Self { engine, words, lists: Lists::default() }
    }

    async fn change(&self, bank: &BankKey, change: Change) -> Result<()> {
        let changed = self.engine.change(bank, change).await;
        self.lists.forget(bank);
        changed
    }

    async fn hits(&self, bank: &BankKey, query: Query, search: &Search, limit: usize) -> Result<Vec<Hit>> {
        let words = match &query {
            Query::Words(words) if words.indices.is_empty() => return Ok(Vec::new()),
            Query::Words(_) => true,
            Query::Dense(_) => false,
        };
        let wanted = Condition::within(bank, search.filter.as_ref().map(Condition::of_filter));
        let mut found = self.engine.nearest(bank, query, wanted, limit, search.with_vectors).await?;
        // None of the words is in it.
        found.retain(|found| !words || found.score > 0.0);
        let hit = |found: Found| Ok(Hit { chunk: point::chunk(&found.payload, found.vector)?, score: found.score });
        let mut hits = found.into_iter().map(hit).collect::<Result<Vec<Hit>>>()?;
        sort(&mut hits);
        Ok(hits)
    }

    /// All places of a bank or of a document, in order.
    async fn ordered(&self, bank: &BankKey, document: Option<&str>) -> Result<Vec<Place>> {
        let document = document.map(|document| Condition::of_documents(&[document.to_owned()]));
        let wanted = Condition::within(bank, document);
        let (mut all, mut from) = (Vec::new(), None);
        loop {
            let (places, next) = self.engine.places(bank, wanted.clone(), from, PAGE).await?;
            all.extend(places);
            match next {
                Some(next) => from = Some(next),
                None => break,
            }
        }
        all.sort_unstable();
        Ok(all)
    }

    /// Kept while its pages are read: the first page makes it anew.
    async fn list(&self, bank: &BankKey, document: Option<&str>, goes_on: bool) -> Result<Arc<Vec<Place>>> {
        if document.is_some() {
            return self.ordered(bank, document).await.map(Arc::new);
        }
        if let Some(kept) = self.lists.get(bank).filter(|_| goes_on) {
            return Ok(kept);
        }
        let changes = self.lists.changes();
        let places = Arc::new(self.ordered(bank, None).await?);
        self.lists.keep(bank, places.clone(), changes);
        Ok(places)
    }
}

#[async_trait::async_trait]
impl<E: Engine> Index for QdrantIndex<E> {
    async fn create(&self, bank: &BankKey, shape: &Shape) -> Result<()> {
        self.engine.create(bank, shape).await
    }

    async fn remove(&self, bank: &BankKey) -> Result<()> {
        let removed = self.engine.remove(bank).await;
        self.lists.forget(bank);
        removed
    }

    async fn upsert(&self, bank: &BankKey, chunks: Vec<Chunk>) -> Result<()> {
        self.change(bank, Change::Upsert(chunks)).await
    }

    async fn replace(&self, bank: &BankKey, document: &str, chunks: Vec<Chunk>) -> Result<()> {
        self.change(bank, Change::Replace(document.to_owned(), chunks)).await
    }

    async fn delete_documents(&self, bank: &BankKey, documents: &[String]) -> Result<()> {
        if documents.is_empty() { Ok(()) } else { self.change(bank, Change::Delete(documents.to_vec())).await }
    }

    async fn search(&self, bank: &BankKey, search: &Search) -> Result<Vec<Hit>> {
        let shape = self.engine.shape(bank).await?;
        let mode = search.mode_in(&shape)?;
        let limit = search.limit as usize;
        let dense = || Query::Dense(search.vector.clone());
        let words = || Query::Words(self.words.of_query(&search.text));
        let mut hits = match mode {
            SearchMode::Keyword => self.hits(bank, words(), search, limit).await?,
            SearchMode::Hybrid => {
                let depth = search.depth();
                let (vector, keyword, size) = futures::try_join!(
                    self.hits(bank, dense(), search, depth),
                    self.hits(bank, words(), search, depth),
                    self.engine.size(bank)
                )?;
                let whole = self.words.whole_query(&search.text, &keyword, size);
                fuse(vector, keyword, whole, &search.ranker, limit)
            }
            _ => self.hits(bank, dense(), search, limit).await?,
        };
        hits.retain(|hit| search.score_threshold.is_none_or(|threshold| hit.score >= threshold));
        Ok(hits)
    }

    async fn scroll(
        &self,
        bank: &BankKey,
        document: Option<&str>,
        after: Option<&str>,
        limit: u32,
        with_vectors: bool,
    ) -> Result<Vec<Chunk>> {
        let mut places = self.list(bank, document, after.is_some()).await?;
        let mut start = 0;
        if let Some(after) = after {
            let at = |places: &[Place]| places.iter().position(|place| place.id == after);
            if at(&places).is_none() {
                places = self.list(bank, document, false).await?;
            }
            start = 1 + at(&places).ok_or_else(|| Error::invalid("page_token", "page_token is not one that this list gave"))?;
        }
        let page: Vec<Uuid> = places.iter().skip(start).take(limit as usize).map(|place| place.point).collect();
        if page.is_empty() {
            return Ok(Vec::new());
        }
        let found = self.engine.points(bank, page.clone(), with_vectors).await?;
        let mut found: std::collections::HashMap<Uuid, Found> = found.into_iter().map(|found| (found.id, found)).collect();
        let page = page.iter().filter_map(|id| found.remove(id));
        page.map(|found| point::chunk(&found.payload, found.vector)).collect()
    }

    async fn stats(&self, bank: &BankKey) -> Result<Stats> {
        self.engine.stats(bank).await
    }
}
