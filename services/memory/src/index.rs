//! Where chunks are kept and found. Everything about banks that does not depend on that is in [`crate::Banks`].

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{Chunk, Filter, Ranker, SearchMode};

/// Whose chunks, of which bank. An adapter puts both into every filter and every row itself: nothing that a caller asks
/// for can reach another tenant's or another bank's chunks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BankKey {
    pub tenant: String,
    pub bank_id: String,
}

/// What an index must know of a bank to make room for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// Of the vectors; 0 where the bank has none.
    pub dimension: u32,
    /// Whether words are searched as well.
    pub keyword: bool,
}

/// One search. At least one of `text` and `vector` is there, as `mode` needs it.
#[derive(Clone, Debug, Default)]
pub struct Search {
    pub text: String,
    pub vector: Vec<f32>,
    pub mode: SearchMode,
    pub filter: Option<Filter>,
    pub limit: u32,
    /// How the parts of a hybrid search are fused. Re-ranking by a model is not an index's work.
    pub ranker: Ranker,
    pub score_threshold: Option<f32>,
    /// The hits' chunks have their vectors. An index may leave them out all the same: they are made anew then.
    pub with_vectors: bool,
}

impl Search {
    /// How a bank of this shape is searched: as it was asked for, else by vectors where there are any, else by words.
    ///
    /// # Errors
    /// `InvalidArgument` the bank has not what the mode needs (`mode_not_supported`)
    pub fn mode_in(&self, shape: &Shape) -> Result<SearchMode> {
        let needs = |what: &str| Error::invalid("mode", format!("this bank has no {what} to search")).with_reason("mode_not_supported");
        let mode = match self.mode {
            SearchMode::Unspecified if shape.dimension > 0 => SearchMode::Vector,
            SearchMode::Unspecified => SearchMode::Keyword,
            mode => mode,
        };
        if shape.dimension == 0 && mode != SearchMode::Keyword {
            return Err(needs("vectors"));
        }
        if !shape.keyword && mode != SearchMode::Vector {
            return Err(needs("words"));
        }
        Ok(mode)
    }

    /// How deep either list of a hybrid search goes: what is far down in one may be high in the other.
    pub fn depth(&self) -> usize {
        (self.limit as usize * 2).max(50)
    }
}

/// A chunk that was found. Higher is better: cosine similarity, BM25, or the fused score.
#[derive(Clone, Debug)]
pub struct Hit {
    pub chunk: Chunk,
    pub score: f32,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub chunks: u64,
    pub bytes: u64,
    /// Share of the vectors that an approximate index covers, 0 to 1; the rest is searched exactly.
    pub indexed_share: f32,
}

/// Keeps the chunks of banks and searches them.
///
/// A method that changes something returns once the change would survive the end of the process and the loss of power.
#[async_trait::async_trait]
pub trait Index: Send + Sync + 'static {
    /// Makes room for a bank. Idempotent.
    async fn create(&self, bank: &BankKey, shape: &Shape) -> Result<()>;

    /// Removes all that the bank has. Idempotent.
    async fn remove(&self, bank: &BankKey) -> Result<()>;

    /// Stores chunks, whose vectors have the bank's dimension; a chunk whose id is there is replaced. All or none.
    async fn upsert(&self, bank: &BankKey, chunks: Vec<Chunk>) -> Result<()>;

    /// Puts these chunks, which are all that a document has now, in place of those that it had. An index that can does
    /// this in one step; here a search in between finds none of them.
    async fn replace(&self, bank: &BankKey, document: &str, chunks: Vec<Chunk>) -> Result<()> {
        self.delete_documents(bank, &[document.to_owned()]).await?;
        if chunks.is_empty() { Ok(()) } else { self.upsert(bank, chunks).await }
    }

    /// Removes every chunk of these documents. Idempotent.
    async fn delete_documents(&self, bank: &BankKey, documents: &[String]) -> Result<()>;

    /// Best first, at most `limit`.
    ///
    /// # Errors
    /// `InvalidArgument` for a mode that the bank's shape has not, or a filter that cannot be compared.
    async fn search(&self, bank: &BankKey, search: &Search) -> Result<Vec<Hit>>;

    /// Chunks in the order of (document, index, id), after the chunk of this id; only of `document` where it is given.
    async fn scroll(
        &self,
        bank: &BankKey,
        document: Option<&str>,
        after: Option<&str>,
        limit: u32,
        with_vectors: bool,
    ) -> Result<Vec<Chunk>>;

    async fn stats(&self, bank: &BankKey) -> Result<Stats>;
}

/// The indexes of a stack by the ids of their providers, for who copies all of them. A provider that keeps its banks in another
/// process is not among them.
#[derive(Clone, Default)]
pub struct Indexes(Arc<Mutex<BTreeMap<String, Arc<dyn Index>>>>);

impl Indexes {
    pub fn note(&self, provider_id: &str, index: Arc<dyn Index>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(provider_id.to_owned(), index);
    }

    pub fn get(&self, provider_id: &str) -> Option<Arc<dyn Index>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(provider_id).cloned()
    }
}
