//! Two lists, one by meaning and one by words, made one.

use std::collections::HashMap;

use llama_stack_proto::v1::{Ranker, ranker::Kind};

use crate::index::Hit;

/// Of reciprocal rank fusion. Source: Cormack, Clarke and Büttcher, SIGIR 2009, who found 60.
const K: f32 = 60.0;

/// A passage with less of the query than this has what any question says, and no more. Measured, see docs/memory.md.
const LEAST_SHARE: f32 = 0.2;

/// The parts of a hybrid search in one order, at most `limit`. `RERANK` is fused as `RRF`: models come later.
///
/// `whole_query` is the score by words of a passage that has all of the query's. Weighted are a cosine and the share of the
/// query, by rarity of its words, that a passage has. Both mean the same for every query; scores that are stretched from the
/// least to the most of a list would make the best of a bad list as good as the best of a good one.
pub fn fuse(vector: Vec<Hit>, keyword: Vec<Hit>, whole_query: f32, ranker: &Ranker, limit: usize) -> Vec<Hit> {
    let weight = ranker.vector_weight.unwrap_or(0.5);
    let (vector, keyword, beyond) = match ranker.kind() {
        Kind::Weighted => {
            let vector = scored(vector, |cosine| weight * cosine.clamp(0.0, 1.0));
            // What is not in that list is somewhere below its last, and not nothing.
            let beyond = vector.last().map_or(0.0, |last| last.score / 2.0);
            (vector, scored(keyword, |score| (1.0 - weight) * share(score, whole_query)), beyond)
        }
        _ => (reciprocal(vector), reciprocal(keyword), 0.0),
    };
    let mut fused: HashMap<String, Hit> = vector.into_iter().map(|hit| (hit.chunk.id.clone(), hit)).collect();
    for hit in keyword {
        match fused.get_mut(&hit.chunk.id) {
            Some(there) => {
                there.score += hit.score;
                if there.chunk.vector.is_empty() {
                    there.chunk.vector = hit.chunk.vector;
                }
            }
            None => {
                fused.insert(hit.chunk.id.clone(), Hit { score: hit.score + beyond, ..hit });
            }
        }
    }
    let mut hits: Vec<Hit> = fused.into_values().collect();
    sort(&mut hits);
    hits.truncate(limit);
    hits
}

/// Best first; of equals, by document and place, so that the same search gives the same order.
pub fn sort(hits: &mut [Hit]) {
    let place = |hit: &Hit| (hit.chunk.document_id.clone(), hit.chunk.index, hit.chunk.id.clone());
    hits.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| place(a).cmp(&place(b))));
}

fn reciprocal(hits: Vec<Hit>) -> Vec<Hit> {
    hits.into_iter().enumerate().map(|(rank, hit)| Hit { score: by_rank(rank), ..hit }).collect()
}

/// What a place in a list is worth; the first is 0.
pub(crate) fn by_rank(rank: usize) -> f32 {
    1.0 / (K + rank as f32 + 1.0)
}

/// How much of the query, from 0 to 1.
fn share(score: f32, whole_query: f32) -> f32 {
    let share = if whole_query > 0.0 { (score / whole_query).clamp(0.0, 1.0) } else { 0.0 };
    if share < LEAST_SHARE { 0.0 } else { share }
}

fn scored(hits: Vec<Hit>, score: impl Fn(f32) -> f32) -> Vec<Hit> {
    hits.into_iter().map(|hit| Hit { score: score(hit.score), ..hit }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use llama_stack_proto::v1::Chunk;

    fn hits(scored: &[(&str, f32)]) -> Vec<Hit> {
        scored.iter().map(|(id, score)| Hit { chunk: Chunk { id: (*id).into(), ..Chunk::default() }, score: *score }).collect()
    }

    fn ids(hits: &[Hit]) -> Vec<&str> {
        hits.iter().map(|hit| hit.chunk.id.as_str()).collect()
    }

    #[test]
    fn ranks_are_fused_by_their_reciprocals() {
        let fused = fuse(hits(&[("a", 0.9), ("b", 0.8)]), hits(&[("b", 7.0), ("c", 3.0)]), 1.0, &Ranker::default(), 10);
        assert_eq!(ids(&fused), ["b", "a", "c"]);
        assert!((fused[0].score - (1.0 / 62.0 + 1.0 / 61.0)).abs() < 1e-7);
    }

    #[test]
    fn weights_decide_whose_best_is_first() {
        let fused = |weight| {
            let ranker = Ranker { kind: Kind::Weighted.into(), vector_weight: Some(weight), model: String::new() };
            fuse(hits(&[("a", 0.9), ("b", 0.5), ("c", 0.1)]), hits(&[("c", 70.0), ("b", 60.0), ("d", 3.0)]), 100.0, &ranker, 2)
        };
        assert_eq!(ids(&fused(1.0)), ["a", "b"]);
        assert_eq!(ids(&fused(0.0)), ["c", "b"]);
        assert_eq!(ids(&fused(0.5)), ["b", "a"]);
    }

    /// Words that say little of the query leave the order of meaning as it is.
    #[test]
    fn the_best_of_a_bad_list_is_not_good() {
        let ranker = Ranker { kind: Kind::Weighted.into(), vector_weight: None, model: String::new() };
        let vector = || hits(&[("a", 0.6), ("b", 0.5)]);
        assert_eq!(ids(&fuse(vector(), hits(&[("b", 0.4), ("c", 0.3)]), 8.0, &ranker, 3)), ["a", "b", "c"]);
        assert_eq!(ids(&fuse(vector(), hits(&[("b", 8.0), ("c", 0.3)]), 8.0, &ranker, 3)), ["b", "a", "c"]);
    }

    /// A code in a long question is little of it and decides; what every question says is less, and does not.
    #[test]
    fn few_words_count_where_they_are_rare_and_not_where_they_are_any() {
        let ranker = Ranker { kind: Kind::Weighted.into(), vector_weight: None, model: String::new() };
        let vector = || hits(&[("a", 0.6), ("b", 0.55)]);
        let fused = |keyword: &[(&str, f32)]| fuse(vector(), hits(keyword), 10.0, &ranker, 3);
        assert_eq!(ids(&fused(&[("b", 1.9)])), ["a", "b"]);
        let found_by_words_alone = fused(&[("c", 4.0), ("b", 1.9)]);
        assert_eq!(ids(&found_by_words_alone), ["c", "a", "b"]);
        assert!((found_by_words_alone[0].score - (0.2 + 0.275 / 2.0)).abs() < 1e-6);
    }
}
