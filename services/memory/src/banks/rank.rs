//! A second look at what was found: by a model, by meaning, or for variety.

use std::collections::HashMap;

use llama_stack_core::{Context, Error, Result};
use llama_stack_proto::v1::{Bank, BankKind, EmbedPurpose, QueryRequest, Ranker, RerankRequest};

use super::{
    Banks,
    query::{Found, sort},
};

impl Banks {
    /// Scores by `ranker.model` where it is given, else by the cosine between query and chunk, over the whole of each.
    pub(super) async fn reranked(
        &self,
        cx: &Context,
        request: &QueryRequest,
        ranker: &Ranker,
        banks: &[Bank],
        vectors: &[Vec<Vec<f32>>],
        mut found: Vec<Found>,
    ) -> Result<Vec<Found>> {
        if found.is_empty() {
            return Ok(found);
        }
        if ranker.model.is_empty() {
            if let Some(bank) = banks.iter().find(|bank| bank.kind() != BankKind::Vector) {
                let message = format!("bank {:?} has no vectors to score by: name the ranker's model", bank.id);
                return Err(Error::invalid("ranker.model", message));
            }
            self.complete_vectors(cx, banks, &mut found).await?;
            for found in &mut found {
                // The query as it was asked, or the first as it was rewritten.
                let query = vectors.first().and_then(|of| of.get(found.bank)).map_or(&[][..], Vec::as_slice);
                found.hit.score = cosine(query, &found.hit.chunk.vector);
            }
        } else {
            let documents = found.iter().map(|found| found.hit.chunk.text.clone()).collect();
            let request = RerankRequest { model: ranker.model.clone(), query: request.text.clone(), documents, top_n: 0 };
            let answer = self.models()?.rerank(cx, request).await.map_err(|error| error.with_field("ranker.model"))?;
            let scores: HashMap<u32, f32> = answer.results.iter().map(|result| (result.index, result.score)).collect();
            for (found, at) in found.iter_mut().zip(0_u32..) {
                let missing = || Error::internal("the re-ranking model left out a document");
                found.hit.score = *scores.get(&at).ok_or_else(missing)?;
            }
        }
        sort(&mut found);
        Ok(found)
    }

    /// Maximal marginal relevance. Source: Carbonell and Goldstein, SIGIR 1998. The scores stay what they were.
    pub(super) async fn diverse(
        &self,
        cx: &Context,
        banks: &[Bank],
        mut found: Vec<Found>,
        lambda: f32,
        wanted: usize,
    ) -> Result<Vec<Found>> {
        if let Some(bank) = banks.iter().find(|bank| bank.kind() != BankKind::Vector) {
            let message = format!("bank {:?} has no vectors to compare: mmr_lambda is for vector banks", bank.id);
            return Err(Error::invalid("mmr_lambda", message));
        }
        self.complete_vectors(cx, banks, &mut found).await?;
        let least = found.iter().map(|found| found.hit.score).fold(f32::INFINITY, f32::min);
        let most = found.iter().map(|found| found.hit.score).fold(f32::NEG_INFINITY, f32::max);
        let relevance = |found: &Found| if most > least { (found.hit.score - least) / (most - least) } else { 1.0 };
        let mut chosen: Vec<Found> = Vec::with_capacity(wanted.min(found.len()));
        // How near each of the rest is to the nearest that was chosen.
        let mut near: Vec<f32> = vec![0.0; found.len()];
        while chosen.len() < wanted && !found.is_empty() {
            let worth = |at: usize| lambda * relevance(&found[at]) - (1.0 - lambda) * near[at];
            let best = (1..found.len()).fold(0, |best, at| if worth(at) > worth(best) { at } else { best });
            let taken = found.remove(best);
            near.remove(best);
            for (other, near) in found.iter().zip(&mut near) {
                // Vectors of different models are not compared: they are different.
                let same = banks[other.bank].embedding_model == banks[taken.bank].embedding_model;
                if same && other.hit.chunk.vector.len() == taken.hit.chunk.vector.len() {
                    *near = near.max(cosine(&other.hit.chunk.vector, &taken.hit.chunk.vector));
                }
            }
            chosen.push(taken);
        }
        Ok(chosen)
    }

    /// The vectors that the index left out, made anew.
    async fn complete_vectors(&self, cx: &Context, banks: &[Bank], found: &mut [Found]) -> Result<()> {
        for (at, bank) in banks.iter().enumerate() {
            let missing: Vec<&mut Found> = found.iter_mut().filter(|found| found.bank == at && found.hit.chunk.vector.is_empty()).collect();
            if missing.is_empty() || bank.embedding_model.is_empty() {
                continue;
            }
            let texts: Vec<String> = missing.iter().map(|found| found.hit.chunk.text.clone()).collect();
            let vectors = self.embed(cx, &bank.embedding_model, &texts, EmbedPurpose::Document).await?;
            missing.into_iter().zip(vectors).for_each(|(found, vector)| found.hit.chunk.vector = vector);
        }
        Ok(())
    }
}

/// 0 where either has no length, or they cannot be compared.
pub(crate) fn cosine(a: &[f32], b: &[f32]) -> f32 {
    if a.len() != b.len() {
        return 0.0;
    }
    let (mut dot, mut left, mut right) = (0.0_f32, 0.0_f32, 0.0_f32);
    for (a, b) in a.iter().zip(b) {
        dot += a * b;
        left += a * a;
        right += b * b;
    }
    let length = (left * right).sqrt();
    if length > 0.0 { (dot / length).clamp(-1.0, 1.0) } else { 0.0 }
}
