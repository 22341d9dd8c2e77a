//! Two lists, one by meaning and one by words, made one.

use std::collections::HashMap;

use llama_stack_proto::v1::{Ranker, ranker::Kind};

use crate::index::Hit;

/// Of reciprocal rank fusion. Source: Cormack, Clarke and Büttcher, SIGIR 2009, who found 60.
const K: f32 = 60.0;

/// The parts of a hybrid search in one order, at most `limit`. `RERANK` is fused as `RRF`: models come later.
pub fn fuse(vector: Vec<Hit>, keyword: Vec<Hit>, ranker: &Ranker, limit: usize) -> Vec<Hit> {
    let share = ranker.vector_weight.unwrap_or(0.5);
    let (vector, keyword) = match ranker.kind() {
        Kind::Weighted => (normalised(vector, share), normalised(keyword, 1.0 - share)),
        _ => (reciprocal(vector), reciprocal(keyword)),
    };
    let mut fused: HashMap<String, Hit> = HashMap::new();
    for hit in vector.into_iter().chain(keyword) {
        match fused.get_mut(&hit.chunk.id) {
            Some(there) => {
                there.score += hit.score;
                if there.chunk.vector.is_empty() {
                    there.chunk.vector = hit.chunk.vector;
                }
            }
            None => {
                fused.insert(hit.chunk.id.clone(), hit);
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
    let score = |rank: usize| 1.0 / (K + rank as f32 + 1.0);
    hits.into_iter().enumerate().map(|(rank, hit)| Hit { score: score(rank), ..hit }).collect()
}

/// From 0, the worst of the list, to 1, then weighted.
fn normalised(hits: Vec<Hit>, weight: f32) -> Vec<Hit> {
    let least = hits.iter().map(|hit| hit.score).fold(f32::INFINITY, f32::min);
    let most = hits.iter().map(|hit| hit.score).fold(f32::NEG_INFINITY, f32::max);
    let scale = |score: f32| if most > least { (score - least) / (most - least) } else { 1.0 };
    hits.into_iter().map(|hit| Hit { score: weight * scale(hit.score), ..hit }).collect()
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
        let fused = fuse(hits(&[("a", 0.9), ("b", 0.8)]), hits(&[("b", 7.0), ("c", 3.0)]), &Ranker::default(), 10);
        assert_eq!(ids(&fused), ["b", "a", "c"]);
        assert!((fused[0].score - (1.0 / 62.0 + 1.0 / 61.0)).abs() < 1e-7);
    }

    #[test]
    fn weights_decide_whose_best_is_first() {
        let fused = |weight| {
            let ranker = Ranker { kind: Kind::Weighted.into(), vector_weight: Some(weight), model: String::new() };
            fuse(hits(&[("a", 0.9), ("b", 0.5), ("c", 0.1)]), hits(&[("c", 70.0), ("b", 60.0), ("d", 3.0)]), &ranker, 2)
        };
        assert_eq!(ids(&fused(1.0)), ["a", "b"]);
        assert_eq!(ids(&fused(0.0)), ["c", "b"]);
        assert_eq!(ids(&fused(0.5)), ["b", "a"]);
    }
}
