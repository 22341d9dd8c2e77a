//! Two lists of hits as one.

use std::collections::HashMap;

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{Ranker, ranker::Kind};

use crate::index::Hit;

/// The constant of reciprocal rank fusion, from Cormack, Clarke and Buettcher (SIGIR 2009).
const RRF: f32 = 60.0;

/// How many hits of each part are fused for `limit` of them together.
pub fn depth(limit: usize) -> usize {
    (limit * 4).clamp(50, 4000)
}

/// Weights of the vector part and of the words.
///
/// # Errors
/// `InvalidArgument` for a weight outside 0 to 1.
pub fn weights(ranker: &Ranker) -> Result<(f32, f32)> {
    let vector = ranker.vector_weight.unwrap_or(0.5);
    if (0.0..=1.0).contains(&vector) {
        Ok((vector, 1.0 - vector))
    } else {
        Err(Error::invalid("ranker.vector_weight", "a weight is between 0 and 1"))
    }
}

/// Best first, each chunk once. Where a ranker is to re-rank by a model, the list that the model gets is fused by rank.
///
/// # Errors
/// `InvalidArgument` for a weight outside 0 to 1.
pub fn fuse(ranker: &Ranker, vector: Vec<Hit>, words: Vec<Hit>) -> Result<Vec<Hit>> {
    let weights = weights(ranker)?;
    let parts = match ranker.kind() {
        Kind::Weighted => [scaled(vector, weights.0), scaled(words, weights.1)],
        Kind::Unspecified | Kind::Rrf | Kind::Rerank => [ranked(vector), ranked(words)],
    };
    let mut fused: HashMap<String, Hit> = HashMap::new();
    for hit in parts.into_iter().flatten() {
        fused.entry(hit.chunk.id.clone()).and_modify(|there| there.score += hit.score).or_insert(hit);
    }
    let mut hits: Vec<Hit> = fused.into_values().collect();
    sort(&mut hits);
    Ok(hits)
}

/// Best first; equal ones by id, so that the same search gives the same list.
pub fn sort(hits: &mut [Hit]) {
    hits.sort_by(|one, other| other.score.total_cmp(&one.score).then_with(|| one.chunk.id.cmp(&other.chunk.id)));
}

fn ranked(mut hits: Vec<Hit>) -> Vec<Hit> {
    for (rank, hit) in hits.iter_mut().enumerate() {
        hit.score = 1.0 / (RRF + rank as f32 + 1.0);
    }
    hits
}

/// Cosines and BM25 have nothing in common but their order, so each part is spread from 0 to its weight.
fn scaled(mut hits: Vec<Hit>, weight: f32) -> Vec<Hit> {
    let (low, high) = hits.iter().fold((f32::MAX, f32::MIN), |(low, high), hit| (low.min(hit.score), high.max(hit.score)));
    for hit in &mut hits {
        hit.score = weight * if high > low { (hit.score - low) / (high - low) } else { 1.0 };
    }
    hits
}

#[cfg(test)]
mod tests {
    use super::*;
    use llama_stack_proto::v1::Chunk;

    fn hits(list: &[(&str, f32)]) -> Vec<Hit> {
        list.iter().map(|(id, score)| Hit { chunk: Chunk { id: (*id).into(), ..Chunk::default() }, score: *score }).collect()
    }

    fn ids(hits: &[Hit]) -> Vec<&str> {
        hits.iter().map(|hit| hit.chunk.id.as_str()).collect()
    }

    #[test]
    fn what_both_parts_found_is_above_what_one_found() {
        let fused = fuse(&Ranker::default(), hits(&[("a", 0.9), ("b", 0.8)]), hits(&[("c", 12.0), ("b", 3.0)])).unwrap();
        assert_eq!(ids(&fused), ["b", "a", "c"]);
        assert!((fused[0].score - 2.0 / 62.0).abs() < 1e-6);
    }

    #[test]
    fn weights_decide_between_the_parts() {
        let mut ranker = Ranker { kind: Kind::Weighted.into(), vector_weight: Some(0.9), ..Ranker::default() };
        let parts = || (hits(&[("a", 0.9), ("b", 0.1)]), hits(&[("b", 9.0), ("a", 1.0)]));
        assert_eq!(ids(&fuse(&ranker, parts().0, parts().1).unwrap()), ["a", "b"]);
        ranker.vector_weight = Some(0.1);
        assert_eq!(ids(&fuse(&ranker, parts().0, parts().1).unwrap()), ["b", "a"]);
        ranker.vector_weight = Some(1.5);
        assert_eq!(fuse(&ranker, parts().0, parts().1).unwrap_err().field(), Some("ranker.vector_weight"));
    }
}
