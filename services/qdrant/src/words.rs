//! Words as sparse vectors: BM25's weights for a chunk, ones for a query. How rare a word is weighs the engine.

use llama_stack_core::{Error, Result};
use llama_stack_memory::index::Hit;
use qdrant_edge::bm25_embed::{EdgeBm25, EdgeBm25Config};
use serde_json::json;

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

    /// What a passage with all of the query's words would score, as far as the best one tells: how rare each word is, the
    /// engine keeps to itself.
    pub(crate) fn whole_query(&self, text: &str, hits: &[Hit]) -> f32 {
        let Some(best) = hits.first() else { return 0.0 };
        let (asked, there) = (self.of_query(text), self.of_chunk(&best.chunk.title, &best.chunk.text));
        let met = asked.indices.iter().filter(|index| there.indices.contains(index)).count();
        if met == 0 { best.score } else { best.score * asked.indices.len() as f32 / met as f32 }
    }
}

#[cfg(test)]
mod tests {
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
}
