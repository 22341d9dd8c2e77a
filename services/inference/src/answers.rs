//! Numbers that providers answer with, looked at before anybody reckons with them.

use std::fmt;

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{ClassifyResponse, EmbedResponse, RerankResponse};

/// A vector for each of `inputs`, all of one dimension: of `due`, where that is known.
///
/// # Errors
/// `Unavailable` for anything else.
pub(crate) fn embedded(provider: &str, inputs: usize, due: u32, answer: &EmbedResponse) -> Result<()> {
    let vectors = &answer.embeddings;
    if vectors.len() != inputs {
        return Err(malformed(provider, format_args!("{} vectors for {inputs} inputs", vectors.len())));
    }
    let due = match due {
        0 => vectors.first().map_or(0, |vector| vector.values.len()),
        due => due as usize,
    };
    if let Some(other) = vectors.iter().map(|vector| vector.values.len()).find(|length| *length != due || *length == 0) {
        return Err(malformed(provider, format_args!("a vector of {other} numbers, where {due} are due")));
    }
    all_finite(provider, "a vector", vectors.iter().flat_map(|vector| vector.values.iter().copied()))
}

/// Scores of documents that there are, none of them twice.
///
/// # Errors
/// `Unavailable` for anything else.
pub(crate) fn ranked(provider: &str, documents: usize, answer: &RerankResponse) -> Result<()> {
    let mut seen = vec![false; documents];
    for result in &answer.results {
        match seen.get_mut(result.index as usize) {
            None => return Err(malformed(provider, format_args!("a ranking of document {}, where there are {documents}", result.index))),
            Some(true) => return Err(malformed(provider, format_args!("a ranking with document {} twice", result.index))),
            Some(seen) => *seen = true,
        }
    }
    all_finite(provider, "a ranking", answer.results.iter().map(|result| result.score))
}

/// Scores for each of `inputs`.
///
/// # Errors
/// `Unavailable` for anything else.
pub(crate) fn classified(provider: &str, inputs: usize, answer: &ClassifyResponse) -> Result<()> {
    if answer.classifications.len() != inputs {
        return Err(malformed(provider, format_args!("{} classifications of {inputs} inputs", answer.classifications.len())));
    }
    let scores = answer.classifications.iter().flat_map(|one| &one.scores);
    all_finite(provider, "a classification", scores.map(|score| score.score))
}

fn all_finite(provider: &str, what: &str, mut numbers: impl Iterator<Item = f32>) -> Result<()> {
    match numbers.find(|number| !number.is_finite()) {
        Some(number) => Err(malformed(provider, format_args!("{what} with {number}, which is no number"))),
        None => Ok(()),
    }
}

fn malformed(provider: &str, what: impl fmt::Display) -> Error {
    Error::unavailable(format!("provider {provider:?} sent what is no answer: {what}")).with_reason("upstream_malformed")
}

#[cfg(test)]
mod tests {
    use llama_stack_core::Code;
    use llama_stack_proto::v1::{Classification, Embedding, LabelScore, RerankResult};

    use super::*;

    /// What is said of a wrong answer; nothing of a right one.
    fn told(judged: Result<()>) -> String {
        judged.err().map_or_else(String::new, |error| {
            assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("upstream_malformed")));
            assert!(error.message().contains("\"far\""), "{error}");
            error.message().to_owned()
        })
    }

    fn vectors(due: u32, vectors: &[&[f32]]) -> String {
        let embeddings = vectors.iter().map(|values| Embedding { values: values.to_vec() }).collect();
        told(embedded("far", 2, due, &EmbedResponse { embeddings, ..EmbedResponse::default() }))
    }

    #[test]
    fn each_input_has_a_vector_of_the_due_dimension() {
        assert_eq!(vectors(0, &[&[1.0, 0.0], &[0.0, 1.0]]), "");
        assert_eq!(vectors(2, &[&[1.0, 0.0], &[0.0, 1.0]]), "");
        assert!(vectors(0, &[&[1.0]]).contains("1 vectors for 2 inputs"));
        assert!(vectors(0, &[&[1.0], &[1.0, 0.0]]).contains("2 numbers, where 1 are due"));
        assert!(vectors(3, &[&[1.0, 0.0], &[0.0, 1.0]]).contains("2 numbers, where 3 are due"));
        assert!(vectors(0, &[&[], &[]]).contains("0 numbers"));
        for wrong in [f32::NAN, f32::INFINITY] {
            assert!(vectors(0, &[&[1.0], &[wrong]]).contains("no number"));
        }
    }

    #[test]
    fn a_ranking_is_of_documents_that_there_are() {
        let ranking = |of: &[(u32, f32)]| {
            let results = of.iter().map(|(index, score)| RerankResult { index: *index, score: *score }).collect();
            told(ranked("far", 2, &RerankResponse { results, ..RerankResponse::default() }))
        };
        assert_eq!(ranking(&[(1, 0.9), (0, 0.1)]), "");
        assert_eq!(ranking(&[(1, 0.9)]), "", "fewer may have been asked for");
        assert!(ranking(&[(2, 0.9)]).contains("document 2"));
        assert!(ranking(&[(1, 0.9), (1, 0.9)]).contains("twice"));
        assert!(ranking(&[(0, f32::NAN)]).contains("no number"));
    }

    #[test]
    fn each_input_has_its_classification() {
        let classes = |scores: &[f32]| {
            let one = |score: &f32| Classification { scores: vec![LabelScore { score: *score, ..LabelScore::default() }] };
            let answer = ClassifyResponse { classifications: scores.iter().map(one).collect(), ..ClassifyResponse::default() };
            told(classified("far", 1, &answer))
        };
        assert_eq!(classes(&[0.5]), "");
        assert!(classes(&[]).contains("0 classifications of 1 inputs"));
        assert!(classes(&[f32::NAN]).contains("no number"));
    }
}
