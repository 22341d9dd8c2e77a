//! Texts to vectors, in batches of about as many tokens as an engine reads at a time.

use std::sync::Arc;

use llama_stack_core::{Code, Context, Error, Inference, Result};
use llama_stack_documents::{CountTokens, Estimate};
use llama_stack_proto::v1::{
    EmbedInput, EmbedPurpose, EmbedRequest, GetModelRequest, ListModelsRequest, ModelKind, Truncation, embed_input,
};

use super::Banks;

/// Enough to keep every core busy, little enough that a search is not behind it for long.
const BATCH_TOKENS: usize = 8_192;
const BATCH_TEXTS: usize = 128;

impl Banks {
    pub(super) fn models(&self) -> Result<&Arc<dyn Inference>> {
        self.inference.as_ref().ok_or_else(|| {
            let message = "this stack has no inference: bring the vectors, and name their embedding_dimension when the bank is made";
            Error::failed_precondition(message).with_reason("no_inference")
        })
    }

    /// The model that is asked for, else the manifest's, else the only one there is.
    ///
    /// # Errors
    /// `NotFound` there is no such model · `InvalidArgument` it makes no vectors, or which one is meant is not clear.
    pub(super) async fn embedding_model(&self, cx: &Context, asked: &str) -> Result<String> {
        let models = self.models()?;
        let named = if asked.is_empty() { &self.config.embedding_model } else { asked };
        if !named.is_empty() {
            let model = models.get_model(cx, GetModelRequest { id: named.into() }).await;
            let model = model.map_err(|error| error.with_field("embedding_model"))?;
            return match model.kind() {
                ModelKind::Embedding | ModelKind::Unspecified => Ok(model.id),
                _ => Err(Error::invalid("embedding_model", format!("{named:?} is no embedding model"))),
            };
        }
        let request = ListModelsRequest { kind: ModelKind::Embedding.into(), ..ListModelsRequest::default() };
        let there: Vec<String> = models.list_models(cx, request).await?.models.into_iter().map(|model| model.id).collect();
        match there.as_slice() {
            [only] => Ok(only.clone()),
            [] => {
                Err(Error::invalid("embedding_model", "this stack has no embedding model: name embedding_dimension and bring the vectors"))
            }
            several => Err(Error::invalid("embedding_model", format!("name the embedding_model; there is: {}", several.join(", ")))),
        }
    }

    /// Asked of the model itself where its provider does not say.
    pub(super) async fn dimension(&self, cx: &Context, model: &str) -> Result<u32> {
        let said = self.models()?.get_model(cx, GetModelRequest { id: model.into() }).await?.embedding_dimension;
        if said > 0 {
            return Ok(said);
        }
        let vectors = self.embed(cx, model, &["dimension".to_owned()], EmbedPurpose::Document).await?;
        Ok(vectors.first().map_or(0, Vec::len) as u32)
    }

    /// A vector for each text, in order. What is longer than the model reads is cut at its end.
    pub(super) async fn embed(&self, cx: &Context, model: &str, texts: &[String], purpose: EmbedPurpose) -> Result<Vec<Vec<f32>>> {
        let models = self.models()?;
        let mut vectors = Vec::with_capacity(texts.len());
        for batch in batches(texts) {
            let input = |text: &String| EmbedInput { input: Some(embed_input::Input::Text(text.clone())) };
            let request = |truncation: Truncation| EmbedRequest {
                model: model.into(),
                inputs: batch.iter().map(input).collect(),
                purpose: purpose.into(),
                truncation: truncation.into(),
                ..EmbedRequest::default()
            };
            let answer = match models.embed(cx, request(Truncation::End)).await {
                // A server that cannot be told what to do with a text that is too long decides it by itself.
                Err(error) if error.code() == Code::Unimplemented && error.field() == Some("truncation") => {
                    models.embed(cx, request(Truncation::Unspecified)).await?
                }
                answer => answer?,
            };
            if answer.embeddings.len() != batch.len() {
                let message = format!("{model} made {} vectors of {} texts", answer.embeddings.len(), batch.len());
                return Err(Error::internal("the embedding model answered with the wrong number of vectors").with_source(message));
            }
            vectors.extend(answer.embeddings.into_iter().map(|embedding| embedding.values));
        }
        Ok(vectors)
    }
}

/// Neighbours together, so that the order stays.
fn batches(texts: &[String]) -> Vec<&[String]> {
    let (mut batches, mut start, mut tokens) = (Vec::new(), 0, 0);
    for (at, text) in texts.iter().enumerate() {
        let count = Estimate.count(text);
        if at > start && (tokens + count > BATCH_TOKENS || at - start == BATCH_TEXTS) {
            batches.push(&texts[start..at]);
            (start, tokens) = (at, 0);
        }
        tokens += count;
    }
    if start < texts.len() {
        batches.push(&texts[start..]);
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_keep_to_both_bounds_and_leave_nothing_out() {
        let long = "word ".repeat(BATCH_TOKENS / 2);
        let texts: Vec<String> = (0..300).map(|n| if n % 100 == 50 { long.clone() } else { format!("text {n}") }).collect();
        let batches = batches(&texts);
        assert_eq!(batches.concat(), texts);
        for batch in batches {
            let tokens: usize = batch.iter().map(|text| Estimate.count(text)).sum();
            assert!(batch.len() <= BATCH_TEXTS && (batch.len() == 1 || tokens <= BATCH_TOKENS));
        }
    }
}
