//! `ranking_options`: how the parts of a search are fused, and what is too far off.

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{Ranker, ranker::Kind};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
pub(crate) struct RankingOptions {
    /// `auto` and `default-2024-11-15`, OpenAI's names, are what the memory provider does by itself, and so is `none`:
    /// nothing is re-ranked. Not OpenAI's: `rrf`, `weighted`, and `rerank` by `model`.
    ranker: Option<String>,
    /// Results below are left out.
    score_threshold: Option<f32>,
    /// Weights of the two parts, in place of fusion by rank.
    hybrid_search: Option<HybridSearch>,
    /// Not OpenAI's: the re-ranking model, for `rerank`. Default: the bank's own embedding model compares each pair anew.
    model: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
struct HybridSearch {
    embedding_weight: f32,
    text_weight: f32,
}

const DEFAULT: [&str; 3] = ["auto", "default-2024-11-15", "none"];

/// The ranker, and the threshold.
///
/// Fusion by rank gives scores that say nothing but the order, so where a threshold is to be met and no ranker is named by
/// its own name, the parts are weighed: such scores go from 0 to 1.
///
/// # Errors
/// `InvalidArgument`
pub(crate) fn read(field: &str, options: Option<&RankingOptions>) -> Result<(Option<Ranker>, Option<f32>)> {
    let Some(options) = options else { return Ok((None, None)) };
    if let Some(score) = options.score_threshold.filter(|score| !(0.0..=1.0).contains(score)) {
        return Err(Error::invalid(format!("{field}.score_threshold"), format!("score_threshold must be 0 to 1, not {score}")));
    }
    let weighs = options.hybrid_search.is_some() || options.score_threshold.is_some_and(|score| score > 0.0);
    let (kind, model) = match (options.ranker.as_deref(), options.model.clone()) {
        (Some("rerank"), model) => (Kind::Rerank, model.unwrap_or_default()),
        (_, Some(_)) => return Err(Error::invalid(format!("{field}.model"), "a model is only for the ranker rerank")),
        (Some("weighted"), None) => (Kind::Weighted, String::new()),
        (None, None) => (if weighs { Kind::Weighted } else { Kind::Unspecified }, String::new()),
        (Some("rrf"), None) if options.hybrid_search.is_none() => (Kind::Rrf, String::new()),
        (Some("rrf"), None) => (Kind::Weighted, String::new()),
        (Some(name), None) if DEFAULT.contains(&name) => (if weighs { Kind::Weighted } else { Kind::Unspecified }, String::new()),
        (Some(other), None) => {
            let message = format!("ranker {other:?} is not known; use auto, none, rrf, weighted or rerank");
            return Err(Error::invalid(format!("{field}.ranker"), message));
        }
    };
    let vector_weight = options.hybrid_search.map(|weights| weight(field, weights)).transpose()?;
    let ranker = (kind != Kind::Unspecified).then(|| Ranker { kind: kind.into(), vector_weight, model });
    Ok((ranker, options.score_threshold))
}

/// Of the vectors, where both come to 1.
fn weight(field: &str, weights: HybridSearch) -> Result<f32> {
    let (vector, text) = (weights.embedding_weight, weights.text_weight);
    let good = vector.is_finite() && text.is_finite() && vector >= 0.0 && text >= 0.0 && vector + text > 0.0;
    if !good {
        return Err(Error::invalid(format!("{field}.hybrid_search"), "both weights must be 0 or more, and one of them greater than 0"));
    }
    Ok(vector / (vector + text))
}

/// As a Response says it again.
pub(crate) fn show(ranker: Option<&Ranker>, score_threshold: Option<f32>) -> Value {
    let mut options = Map::new();
    let ranker = ranker.cloned().unwrap_or_default();
    let name = match ranker.kind() {
        Kind::Unspecified => "auto",
        Kind::Rrf => "rrf",
        Kind::Weighted if ranker.vector_weight.is_none() => "auto",
        Kind::Weighted => "weighted",
        Kind::Rerank => "rerank",
    };
    options.insert("ranker".into(), name.into());
    options.insert("score_threshold".into(), json!(score_threshold.unwrap_or(0.0)));
    if let Some(weight) = ranker.vector_weight {
        options.insert("hybrid_search".into(), json!({ "embedding_weight": weight, "text_weight": 1.0 - weight }));
    }
    if !ranker.model.is_empty() {
        options.insert("model".into(), ranker.model.into());
    }
    options.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(json: Value) -> Result<(Option<Ranker>, Option<f32>)> {
        read("ranking_options", Some(&serde_json::from_value(json).unwrap()))
    }

    #[test]
    fn rankers_are_known_by_every_name() {
        let kind = |json| options(json).unwrap().0.map(|ranker| ranker.kind());
        assert_eq!(kind(json!({})), None);
        for name in DEFAULT {
            assert_eq!(kind(json!({ "ranker": name })), None);
        }
        assert_eq!(kind(json!({ "ranker": "rrf" })), Some(Kind::Rrf));
        assert_eq!(kind(json!({ "ranker": "rerank", "model": "m" })), Some(Kind::Rerank));
        assert_eq!(kind(json!({ "ranker": "rerank" })), Some(Kind::Rerank));
        let weights = json!({ "ranker": "auto", "hybrid_search": { "embedding_weight": 3, "text_weight": 1 } });
        let ranker = options(weights).unwrap().0.unwrap();
        assert_eq!((ranker.kind(), ranker.vector_weight), (Kind::Weighted, Some(0.75)));
        let threshold = |json| options(json).map(|(ranker, score)| (ranker.map(|ranker| ranker.kind()), score)).unwrap();
        assert_eq!(threshold(json!({ "score_threshold": 0 })), (None, Some(0.0)));
        assert_eq!(threshold(json!({ "score_threshold": 0.5 })), (Some(Kind::Weighted), Some(0.5)));
        assert_eq!(threshold(json!({ "ranker": "auto", "score_threshold": 0.5 })), (Some(Kind::Weighted), Some(0.5)));
        assert_eq!(threshold(json!({ "ranker": "rrf", "score_threshold": 0.01 })), (Some(Kind::Rrf), Some(0.01)));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let field = |json| options(json).unwrap_err().field().unwrap().to_owned();
        assert_eq!(field(json!({ "ranker": "best" })), "ranking_options.ranker");
        assert_eq!(field(json!({ "model": "m" })), "ranking_options.model");
        assert_eq!(field(json!({ "score_threshold": 2 })), "ranking_options.score_threshold");
        assert_eq!(field(json!({ "hybrid_search": { "embedding_weight": 0, "text_weight": 0 } })), "ranking_options.hybrid_search");
    }
}
