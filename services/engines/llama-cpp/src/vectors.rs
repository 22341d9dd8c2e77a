//! Vectors and scores of whole texts: several in one call, longest first.

use tokio::sync::oneshot;

use llama_stack_core::{Error, Result};
use llama_stack_models::admission::Permit;

use crate::context::{Context, Shape};

/// Texts of one call.
pub(crate) const TEXTS: u32 = 32;

/// What one request wants to know.
pub(crate) struct Texts {
    /// Each no longer than the model's context, and none of them empty.
    pub(crate) tokens: Vec<Vec<u32>>,
    pub(crate) answer: oneshot::Sender<Result<Vec<Vec<f32>>>>,
    pub(crate) permit: Permit,
}

/// Answers in the order of the texts. Nobody there any more: the rest is left out.
pub(crate) fn compute(context: &mut Context<'_>, shape: Shape, texts: Texts) {
    let Texts { tokens, answer, permit: _permit } = texts;
    let mut order: Vec<usize> = (0..tokens.len()).collect();
    order.sort_by_key(|n| std::cmp::Reverse(tokens[*n].len()));
    let mut vectors = vec![Vec::new(); tokens.len()];
    let mut rest = order.as_slice();
    while !rest.is_empty() {
        if answer.is_closed() {
            return;
        }
        let (now, later) = rest.split_at(fitting(rest, &tokens, shape));
        let batch: Vec<&[u32]> = now.iter().map(|n| tokens[*n].as_slice()).collect();
        let computed = match context.pooled(&batch) {
            Ok(computed) => computed,
            Err(error) => return drop(answer.send(Err(error))),
        };
        now.iter().zip(computed).for_each(|(n, vector)| vectors[*n] = vector);
        rest = later;
    }
    drop(answer.send(Ok(vectors)));
}

/// How many of the next texts one call takes; at least one.
fn fitting(rest: &[usize], tokens: &[Vec<u32>], shape: Shape) -> usize {
    let mut total = 0;
    let fits = |n: &&usize| {
        total += tokens[**n].len();
        total <= shape.batch as usize
    };
    rest.iter().take(shape.sequences as usize).take_while(fits).count().max(1)
}

/// To length 1, as models of embeddings are compared; a vector of zeros stays.
pub(crate) fn normalize(vector: &mut [f32]) {
    let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|value| *value /= length);
    }
}

/// A reranker's logit as a score from 0 to 1.
///
/// # Errors
/// `Internal` for a model that gave none.
pub(crate) fn score(vector: &[f32]) -> Result<f32> {
    let logit = vector.first().ok_or_else(|| Error::internal("the reranker gave no score"))?;
    Ok(1.0 / (1.0 + (-logit).exp()))
}
