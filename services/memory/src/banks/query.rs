//! Search: what is asked, over which banks, in which order it comes back.

use std::{cmp::Ordering, collections::HashMap};

use futures::future::try_join_all;
use llama_stack_core::{Context, Error, Result};
use llama_stack_documents::{CountTokens, Estimate};
use llama_stack_proto::v1::{Bank, BankKind, EmbedPurpose, QueryRequest, QueryResponse, Ranker, ScoredChunk, SearchMode, ranker::Kind};

use super::{
    Banks,
    access::{Want, key},
    page::{self, Page},
    valid,
};
use crate::{
    filter,
    index::{BankKey, Hit, Search},
};

pub(crate) const DEFAULT_TOP_K: u32 = 10;
const MAX_TOP_K: u32 = 1_000;
/// One more than can be read, to see whether there is more.
const MAX_DEPTH: u32 = page::MOST as u32 + 1;
pub(crate) const MAX_BANKS: usize = 32;
pub(super) const MAX_QUERIES: u32 = 8;
pub(super) const MAX_TEXT: usize = 32 << 10;

/// How many are looked at, where a second look decides their order.
const SECOND_LOOK: u32 = 50;

/// A hit, and whose.
pub(super) struct Found {
    pub(super) bank: usize,
    pub(super) hit: Hit,
}

impl Banks {
    pub(super) async fn search(&self, cx: &Context, request: QueryRequest) -> Result<QueryResponse> {
        check_query(&request)?;
        let mut page = Page::new(&request)?;
        let mut banks: Vec<Bank> = Vec::with_capacity(request.bank_ids.len());
        for id in &request.bank_ids {
            if !banks.iter().any(|bank| bank.id == *id) {
                banks.push(self.open(cx, id, Want::Read).await?);
            }
        }
        let modes = banks.iter().map(|bank| mode(bank, &request)).collect::<Result<Vec<SearchMode>>>()?;
        for bank in &banks {
            self.forget_expired(cx.tenant(), &bank.id).await?;
            self.note_use(cx.tenant(), bank).await?;
        }
        let (texts, rewritten) = match page.rewritten.take() {
            Some(texts) => (texts, true),
            None if request.rewrite_model.is_empty() => (vec![request.text.clone()], false),
            None => (self.rewritten(cx, &request).await, true),
        };
        let top_k = if request.top_k == 0 { DEFAULT_TOP_K } else { request.top_k };
        let (size, depth) = (page.size(top_k as usize), page.depth(top_k as usize));
        let mut ranker = request.ranker.clone().unwrap_or_default();
        if ranker.kind() == Kind::Unspecified {
            // Measured: ranks alone let words that mean nothing weigh as much as meaning, see docs/memory.md.
            ranker.kind = Kind::Weighted.into();
        }
        let again = ranker.kind() == Kind::Rerank;
        let limit = if again || request.mmr_lambda.is_some() {
            // The same for each page: what is looked at decides the order.
            top_k.saturating_mul(2).clamp(SECOND_LOOK, MAX_TOP_K)
        } else if texts.len() > 1 {
            (depth as u32).saturating_mul(2).clamp(SECOND_LOOK, MAX_DEPTH)
        } else {
            depth as u32
        };
        let vectors = self.query_vectors(cx, &request, &banks, &modes, &texts).await?;
        let with_vectors = request.mmr_lambda.is_some() || (again && ranker.model.is_empty());
        let mut searches = Vec::with_capacity(texts.len() * banks.len());
        for (text, vectors) in texts.iter().zip(&vectors) {
            for (at, (bank, mode)) in banks.iter().zip(&modes).enumerate() {
                let search = Search {
                    text: text.clone(),
                    vector: if *mode == SearchMode::Keyword { Vec::new() } else { vectors.get(at).cloned().unwrap_or_default() },
                    mode: *mode,
                    filter: request.filter.clone(),
                    limit,
                    ranker: ranker.clone(),
                    score_threshold: None,
                    with_vectors,
                };
                let key = key(cx.tenant(), &bank.id);
                searches.push(async move {
                    let hits = self.hits(&key, search).await?;
                    Ok::<_, Error>(hits.into_iter().map(move |hit| Found { bank: at, hit }))
                });
            }
        }
        let mut found = merged(try_join_all(searches).await?.into_iter().flatten());
        if again {
            found = self.reranked(cx, &request, &ranker, &banks, &vectors, found).await?;
        }
        if let Some(threshold) = request.score_threshold {
            found.retain(|found| found.hit.score >= threshold);
        }
        if let Some(lambda) = request.mmr_lambda {
            found = self.diverse(cx, &banks, found, lambda, depth).await?;
        }
        page.skip(&banks, &mut found);
        let left = found.len();
        found.truncate(size);
        let kept = fitting(found.iter().map(|found| found.hit.chunk.text.as_str()), request.max_tokens);
        found.truncate(kept);
        let texts = if rewritten { texts } else { Vec::new() };
        let next_page_token = if left > found.len() { page.next(&banks, &found, &texts) } else { String::new() };
        let chunks = found.into_iter().map(|Found { bank, hit: Hit { mut chunk, score } }| {
            chunk.vector.clear();
            chunk.revision.clear();
            ScoredChunk { chunk: Some(chunk), bank_id: banks[bank].id.clone(), score }
        });
        Ok(QueryResponse { chunks: chunks.collect(), queries: texts, next_page_token })
    }

    /// Hits that are [shown](Banks::shown). A document that is replaced between the two looks is found by the next; and what is not
    /// shown takes nobody's place, unless there are thousands of it.
    async fn hits(&self, key: &BankKey, mut search: Search) -> Result<Vec<Hit>> {
        let limit = search.limit;
        loop {
            let found = self.index.search(key, &search).await?;
            let count = found.len();
            let mut hits = self.shown(key, found, |hit| &hit.chunk).await?;
            let all = count == hits.len() || hits.len() >= limit as usize;
            if all || count < search.limit as usize || search.limit >= MAX_DEPTH.saturating_mul(4) {
                hits.truncate(limit as usize);
                return Ok(hits);
            }
            search.limit = search.limit.saturating_mul(4);
        }
    }

    /// For each text, a vector for each bank; empty where it needs none.
    async fn query_vectors(
        &self,
        cx: &Context,
        request: &QueryRequest,
        banks: &[Bank],
        modes: &[SearchMode],
        texts: &[String],
    ) -> Result<Vec<Vec<Vec<f32>>>> {
        let mut by_model: HashMap<&str, Vec<Vec<f32>>> = HashMap::new();
        let rescored = request.ranker.as_ref().is_some_and(|ranker| ranker.kind() == Kind::Rerank && ranker.model.is_empty());
        let mut vectors = vec![vec![Vec::new(); banks.len()]; texts.len()];
        for (at, (bank, mode)) in banks.iter().zip(modes).enumerate() {
            let needed = *mode != SearchMode::Keyword || (rescored && bank.kind() == BankKind::Vector);
            if !needed {
                continue;
            }
            if !request.vector.is_empty() {
                valid::vector("vector", "the query", &request.vector, bank.embedding_dimension)?;
                vectors.iter_mut().for_each(|of| of[at].clone_from(&request.vector));
                continue;
            }
            if bank.embedding_model.is_empty() {
                let message = format!("bank {:?} has no model that makes vectors: search it with a vector, or by keyword", bank.id);
                return Err(Error::invalid("vector", message).with_reason("no_embedding_model"));
            }
            if !by_model.contains_key(bank.embedding_model.as_str()) {
                let made = self.embed(cx, &bank.embedding_model, texts, EmbedPurpose::Query).await?;
                by_model.insert(&bank.embedding_model, made);
            }
            if let Some(made) = by_model.get(bank.embedding_model.as_str()) {
                vectors.iter_mut().zip(made).for_each(|(of, vector)| of[at].clone_from(vector));
            }
        }
        Ok(vectors)
    }
}

/// That a query can be asked at all, whatever its banks are.
pub(crate) fn check_query(request: &QueryRequest) -> Result<()> {
    let invalid = |field: &str, message: String| Err(Error::invalid(field, message));
    if request.bank_ids.is_empty() || request.bank_ids.len() > MAX_BANKS {
        return invalid("bank_ids", format!("bank_ids must name 1 to {MAX_BANKS} banks, not {}", request.bank_ids.len()));
    }
    if request.text.trim().is_empty() && request.vector.is_empty() {
        return invalid("text", "a query needs text, a vector or both".into());
    }
    if request.text.len() > MAX_TEXT {
        return invalid("text", format!("text has {} bytes, and may have {MAX_TEXT}", request.text.len()));
    }
    if request.top_k > MAX_TOP_K {
        return invalid("top_k", format!("top_k must be 1 to {MAX_TOP_K}, not {}", request.top_k));
    }
    if SearchMode::try_from(request.mode).is_err() {
        return invalid("mode", "mode must be vector, keyword or hybrid".into());
    }
    if request.queries > MAX_QUERIES {
        return invalid("queries", format!("queries must be 1 to {MAX_QUERIES}, not {}", request.queries));
    }
    if request.queries > 1 && request.rewrite_model.is_empty() {
        return invalid("rewrite_model", "several queries are written by a chat model: name the rewrite_model".into());
    }
    if !request.rewrite_model.is_empty() && request.text.trim().is_empty() {
        return invalid("text", "there is no text to rewrite".into());
    }
    let share = |field: &str, value: Option<f32>| match value {
        Some(value) if !(0.0..=1.0).contains(&value) => invalid(field, format!("{field} must be 0 to 1, not {value}")),
        _ => Ok(()),
    };
    share("mmr_lambda", request.mmr_lambda)?;
    if request.score_threshold.is_some_and(|threshold| !threshold.is_finite()) {
        return invalid("score_threshold", "score_threshold must be a finite number".into());
    }
    if let Some(ranker) = &request.ranker {
        share("ranker.vector_weight", ranker.vector_weight)?;
        if Kind::try_from(ranker.kind).is_err() {
            return invalid("ranker.kind", "ranker.kind must be rrf, weighted or rerank".into());
        }
        check_rerank(ranker, request)?;
    }
    request.filter.as_ref().map_or(Ok(()), filter::check)
}

fn check_rerank(ranker: &Ranker, request: &QueryRequest) -> Result<()> {
    if ranker.kind() != Kind::Rerank && !ranker.model.is_empty() {
        return Err(Error::invalid("ranker.model", "only the ranker rerank has a model"));
    }
    if ranker.kind() == Kind::Rerank && !ranker.model.is_empty() && request.text.trim().is_empty() {
        return Err(Error::invalid("text", "a re-ranking model reads the query's text, and there is none"));
    }
    Ok(())
}

/// How this bank is searched.
pub(crate) fn mode(bank: &Bank, request: &QueryRequest) -> Result<SearchMode> {
    let id = &bank.id;
    let mode = match (bank.kind(), request.mode()) {
        (BankKind::KeyValue, _) => {
            let message = format!("bank {id:?} is a key_value bank, which is not searched: get its documents by their ids");
            return Err(Error::invalid("bank_ids", message).with_reason("mode_not_supported"));
        }
        (BankKind::Vector, SearchMode::Unspecified) => SearchMode::Vector,
        (BankKind::Vector, mode) => mode,
        (_, SearchMode::Unspecified | SearchMode::Keyword) => SearchMode::Keyword,
        (_, SearchMode::Vector | SearchMode::Hybrid) => {
            let message = format!("bank {id:?} is a keyword bank: search it in the mode keyword");
            return Err(Error::invalid("mode", message).with_reason("mode_not_supported"));
        }
    };
    if mode != SearchMode::Vector && request.text.trim().is_empty() {
        return Err(Error::invalid("text", "a search by words needs text").with_reason("text_needed"));
    }
    Ok(mode)
}

/// The best place of each chunk counts, over all queries.
fn merged(all: impl Iterator<Item = Found>) -> Vec<Found> {
    let mut best: HashMap<(usize, String), Found> = HashMap::new();
    for found in all.into_iter() {
        let place = (found.bank, found.hit.chunk.id.clone());
        match best.get(&place) {
            Some(there) if there.hit.score >= found.hit.score => {}
            _ => {
                best.insert(place, found);
            }
        }
    }
    let mut found: Vec<Found> = best.into_values().collect();
    sort(&mut found);
    found
}

/// Best first; equals in an order of their own, so that the same search gives the same answer.
pub(super) fn sort(found: &mut [Found]) {
    let place = |found: &Found| (found.bank, found.hit.chunk.document_id.clone(), found.hit.chunk.index, found.hit.chunk.id.clone());
    let order = |a: &Found, b: &Found| b.hit.score.total_cmp(&a.hit.score);
    found.sort_by(|a, b| match order(a, b) {
        Ordering::Equal => place(a).cmp(&place(b)),
        order => order,
    });
}

/// How many of the best fit, up to where the budget ends; the first does whatever it takes.
pub(crate) fn fitting<'a>(texts: impl Iterator<Item = &'a str>, max_tokens: u32) -> usize {
    if max_tokens == 0 {
        return usize::MAX;
    }
    let mut tokens = 0;
    let fits = texts.take_while(|text| {
        tokens += Estimate.count(text);
        tokens <= max_tokens as usize
    });
    fits.count().max(1)
}
