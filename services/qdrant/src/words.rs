//! Words as sparse vectors: BM25's weights for a chunk, ones for a query. How rare a word is weighs the engine.

use std::collections::HashMap;

use llama_stack_core::{Error, Result};
use llama_stack_memory::index::Hit;
use qdrant_edge::bm25_embed::{EdgeBm25, EdgeBm25Config};
use serde_json::json;

/// Hits that tell how rare words are.
const TELLING: usize = 10;
/// After these nothing changes any more that matters.
const ROUNDS: usize = 8;

/// Cuts, folds and weighs words, the same way for both engines.
pub(crate) struct Words(EdgeBm25);

/// Of a chunk or a query.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sparse {
    pub(crate) indices: Vec<u32>,
    pub(crate) values: Vec<f32>,
}

impl Words {
    pub(crate) fn new() -> Result<Self> {
        let unusable = |error: String| Error::internal("the index cannot cut words").with_source(error);
        // English stems, as in the other index; no word is left out, since who asks for "the" in a small bank means it.
        let config = json!({ "language": "english", "lowercase": true, "ascii_folding": true, "stopwords": { "custom": [] } });
        let config: EdgeBm25Config = serde_json::from_value(config).map_err(|error| unusable(error.to_string()))?;
        EdgeBm25::new(config).map(Self).map_err(|error| unusable(error.to_string()))
    }

    pub(crate) fn of_chunk(&self, title: &str, text: &str) -> Sparse {
        let found = self.0.embed_document(&format!("{title}\n{text}"));
        Sparse { indices: found.indices, values: found.values }
    }

    pub(crate) fn of_query(&self, text: &str) -> Sparse {
        let found = self.0.embed_query(text);
        Sparse { indices: found.indices, values: found.values }
    }

    /// What a passage with all of the query's words would score, of `size` passages. How rare each word is the engine keeps to
    /// itself, and its best hits tell: the score of each is the sum of rarity times weight over the words that it has. A word that
    /// none of them has is as rare as can be.
    pub(crate) fn whole_query(&self, text: &str, hits: &[Hit], size: u64) -> f32 {
        let asked = self.of_query(text).indices;
        let weights = |hit: &Hit| -> HashMap<u32, f32> {
            let Sparse { indices, values } = self.of_chunk(&hit.chunk.title, &hit.chunk.text);
            indices.into_iter().zip(values).filter(|(index, _)| asked.contains(index)).collect()
        };
        let hits = hits.get(..TELLING).unwrap_or(hits);
        let weights: Vec<HashMap<u32, f32>> = hits.iter().map(weights).collect();
        let all: Vec<f32> = weights.iter().flat_map(HashMap::values).copied().collect();
        if all.is_empty() {
            return hits.first().map_or(0.0, |best| best.score);
        }
        let usual = all.iter().sum::<f32>() / all.len() as f32;
        let rarest = ((size.max(hits.len() as u64) as f32 + 0.5) / 0.5 + 1.0).ln();
        let rarities = rarities(&asked, &weights, hits.iter().map(|hit| hit.score).collect());
        usual * rarities.into_iter().map(|rarity| rarity.unwrap_or(rarest)).sum::<f32>()
    }
}

/// Of each word, if any of the hits has it: least squares, word by word.
fn rarities(asked: &[u32], weights: &[HashMap<u32, f32>], scores: Vec<f32>) -> Vec<Option<f32>> {
    let (mut rarities, mut left) = (vec![None; asked.len()], scores);
    for _ in 0..ROUNDS {
        for (word, rarity) in asked.iter().zip(&mut rarities) {
            let having = || weights.iter().enumerate().filter_map(move |(at, weights)| weights.get(word).map(|weight| (at, *weight)));
            let squares: f32 = having().map(|(_, weight)| weight * weight).sum();
            if squares <= 0.0 {
                continue;
            }
            let before = rarity.unwrap_or(0.0);
            let after = (before + having().map(|(at, weight)| left[at] * weight).sum::<f32>() / squares).max(0.0);
            having().for_each(|(at, weight)| left[at] -= (after - before) * weight);
            *rarity = Some(after);
        }
    }
    rarities
}

#[cfg(test)]
mod tests {
    use llama_stack_proto::v1::Chunk;

    use super::*;

    #[test]
    fn a_query_meets_other_forms_of_its_words_and_every_word_counts() {
        let words = Words::new().unwrap();
        let chunk = words.of_chunk("", "The Cafés were closing");
        let meets = |query: &str| words.of_query(query).indices.iter().any(|index| chunk.indices.contains(index));
        assert!(meets("closed") && meets("cafe") && meets("the"));
        assert!(!meets("helicopter"));
        assert!(words.of_query(" \u{0} \" -- ").indices.is_empty());
    }

    /// From what the engine would score: the sum of rarity times weight.
    #[test]
    fn hits_tell_how_rare_the_words_of_a_query_are() {
        let words = Words::new().unwrap();
        let rarity = HashMap::from([("alpha", 1.0_f32), ("beta", 3.0), ("gamma", 2.0)]);
        let hit = |text: &str| {
            let there = words.of_chunk("", text);
            let weight = |word: &str| {
                let index = words.of_query(word).indices[0];
                there.indices.iter().zip(&there.values).find(|(at, _)| **at == index).map_or(0.0, |(_, value)| *value)
            };
            let score = rarity.iter().map(|(word, rarity)| rarity * weight(word)).sum();
            Hit { chunk: Chunk { text: text.into(), ..Chunk::default() }, score }
        };
        let hits = [hit("alpha beta"), hit("gamma alpha"), hit("alpha delta")];
        let weight = words.of_chunk("", "alpha beta").values[0];
        let whole = |query: &str| words.whole_query(query, &hits, 1_000) / weight;
        assert!((whole("alpha beta gamma") - 6.0).abs() < 0.3, "{}", whole("alpha beta gamma"));
        // One that nobody has weighs as much as one of a thousand can.
        assert!((whole("alpha beta gamma zeta") - whole("alpha beta gamma") - 2_002.0_f32.ln()).abs() < 0.1);
        assert_eq!(words.whole_query("alpha", &[], 1_000), 0.0);
    }
}
