use std::{
    cmp::Ordering,
    collections::{HashMap, hash_map::Entry},
};

use crate::v1::{Bank, GetBankRequest, QueryResponse, ScoredChunk};

impl QueryResponse {
    /// What several queries found as one list: each chunk once, with its best score, best first, at most `most`. Of equals
    /// the one that was found first.
    pub fn merged(answers: impl IntoIterator<Item = QueryResponse>, most: usize) -> Vec<ScoredChunk> {
        let mut chunks: Vec<ScoredChunk> = Vec::new();
        let mut places: HashMap<(String, String), usize> = HashMap::new();
        for scored in answers.into_iter().flat_map(|answer| answer.chunks) {
            let id = scored.chunk.as_ref().map(|chunk| chunk.id.clone()).unwrap_or_default();
            match places.entry((scored.bank_id.clone(), id)) {
                Entry::Vacant(place) => {
                    place.insert(chunks.len());
                    chunks.push(scored);
                }
                Entry::Occupied(place) => {
                    if let Some(other) = chunks.get_mut(*place.get()) {
                        other.score = other.score.max(scored.score);
                    }
                }
            }
        }
        chunks.sort_by(|a, b| b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal));
        chunks.truncate(most);
        chunks
    }
}

impl GetBankRequest {
    /// The bank with its counts.
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), without_counts: false }
    }

    /// For who asks only whether it is there, whose it is and how it is searched.
    pub fn uncounted(id: impl Into<String>) -> Self {
        Self { id: id.into(), without_counts: true }
    }
}

impl Bank {
    /// How many of its documents have this status, for example `completed`.
    pub fn documents_with(&self, status: &str) -> u64 {
        self.document_status_counts.get(status).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::Chunk;

    #[test]
    fn what_several_queries_found_is_there_once_best_first() {
        let scored = |bank: &str, id: &str, score| {
            let chunk = Some(Chunk { id: id.into(), ..Chunk::default() });
            ScoredChunk { chunk, bank_id: bank.into(), score }
        };
        let answer = |chunks: Vec<ScoredChunk>| QueryResponse { chunks, ..QueryResponse::default() };
        let answers =
            [answer(vec![scored("x", "a", 0.5), scored("x", "b", 0.4)]), answer(vec![scored("x", "b", 0.9), scored("y", "a", 0.1)])];
        let merged = QueryResponse::merged(answers.clone(), 2).into_iter().map(|scored| (scored.chunk.unwrap().id, scored.score));
        assert_eq!(merged.collect::<Vec<_>>(), [("b".to_owned(), 0.9), ("a".to_owned(), 0.5)]);
        assert_eq!(QueryResponse::merged(answers, 9).len(), 3);
    }
}
