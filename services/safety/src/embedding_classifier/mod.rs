//! `inline::embedding-classifier`: a small network over the embeddings that the stack has anyway.
//!
//! ```text
//! text and its disguises ─ tokens ─ windows ─ Inference.Embed ─ head (a few thousand weights) ─ highest score
//! ```
//!
//! For stacks without a classification model. What it finds and what it misses: docs/safety-classifiers.md.

use std::{collections::HashSet, path::PathBuf, sync::Arc};

use llama_stack_core::{Context, Deps, Error, Inference, Result, Safety};
use llama_stack_proto::v1::{
    EmbedInput, EmbedRequest, GetModelRequest, ListShieldsRequest, ListShieldsResponse, ModelKind, RunShieldRequest, RunShieldResponse,
    Shield, ShieldCategory, ShieldStage,
};
use serde::Deserialize;
use tokio_util::task::TaskTracker;

mod head;

use crate::{
    judged, reading,
    windows::{self, Windows},
};
use head::Head;

const INJECTION: &str = "injection";
/// Windows that are asked for in one request.
const BATCH: usize = 64;
/// How far a probe's score may be off: other kernels round otherwise, another model is off by much more.
const NEAR: f32 = 0.02;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The embedding model, by its id in this stack. It must be the one that the head was trained on, under whatever name.
    /// Default: the name that the head gives it.
    #[serde(default)]
    model: Option<String>,
    /// The shield's id. Default: the provider's.
    #[serde(default)]
    id: Option<String>,
    /// A head of your own, made by services/safety/training/train.py. Default: the one that is built in.
    #[serde(default)]
    head: Option<PathBuf>,
    /// Scores at or above are violations. Above 0, at most 1. Default: the head's own.
    #[serde(default)]
    threshold: Option<f32>,
    /// Read the text's disguises as well: letters apart, look-alikes, other writings. Default true; each one that is found costs
    /// as much as the text.
    #[serde(default = "default_disguises")]
    disguises: bool,
}

fn default_disguises() -> bool {
    true
}

struct EmbeddingClassifier {
    inference: Arc<dyn Inference>,
    id: String,
    model: String,
    threshold: f32,
    disguises: bool,
    head: Head,
    windows: Vec<Windows>,
    tasks: TaskTracker,
}

/// Embeds the head's probes at once, so that another model than the head's fails here and does not judge by chance.
pub(crate) async fn build(config: Config, deps: Deps) -> Result<Arc<dyn Safety>> {
    let head = match &config.head {
        None => Head::built_in()?,
        Some(_) if deps.at_run_time => {
            return Err(Error::invalid("config.head", "head is a file of this machine: only the manifest may name one"));
        }
        Some(path) => Head::from_file(path).await.map_err(|error| error.with_field("config.head"))?,
    };
    let threshold = config.threshold.unwrap_or(head.threshold);
    if !(threshold > 0.0 && threshold <= 1.0) {
        return Err(Error::invalid("config.threshold", format!("threshold is {threshold}: it is above 0 and at most 1")));
    }
    let (inference, cx) = (deps.inference()?, Context::system());
    let model = config.model.clone().unwrap_or_else(|| head.model.clone());
    let placed = |error: Error| error.with_field("config.model");
    let there = inference.get_model(&cx, GetModelRequest { id: model.clone() }).await.map_err(placed)?;
    if there.kind() != ModelKind::Embedding || there.embedding_dimension as usize != head.dimension() {
        let message =
            format!("model {model:?} does not make vectors of {}: this head was trained on those of {}", head.dimension(), head.model);
        return Err(Error::invalid("config.model", message).with_reason("wrong_model_kind"));
    }
    let mut windows = Vec::new();
    for cut in &head.windows {
        windows.push(Windows::of_model(inference.as_ref(), &cx, &model, cut.tokens, cut.step).await.map_err(placed)?);
    }
    let id = config.id.unwrap_or(deps.provider_id);
    let shield = EmbeddingClassifier { inference, id, model, threshold, disguises: config.disguises, head, windows, tasks: deps.tasks };
    shield.check_probes(&cx).await.map_err(placed)?;
    Ok(Arc::new(shield))
}

impl EmbeddingClassifier {
    /// The highest score over the windows of a text and of its disguises; 0 for a text that says nothing.
    async fn score(&self, cx: &Context, text: &str) -> Result<f32> {
        let (mut seen, mut all) = (HashSet::new(), Vec::new());
        for reading in reading::variants(&self.tasks, text, self.disguises).await? {
            let tokens = windows::read(self.inference.as_ref(), cx, &self.model, &reading).await?.tokens;
            for windows in &self.windows {
                all.extend(windows.cut(&tokens).into_iter().filter(|window| seen.insert(window.clone())));
            }
        }
        let mut highest = 0.0_f32;
        for windows in all.chunks(BATCH) {
            let inputs = windows.iter().cloned().map(EmbedInput::tokens).collect();
            let request = EmbedRequest { model: self.model.clone(), inputs, ..EmbedRequest::default() };
            let vectors = self.inference.embed(cx, request).await?.embeddings;
            if vectors.len() != windows.len() {
                return Err(Error::internal(format!("model {:?} embedded {} of {} windows", self.model, vectors.len(), windows.len())));
            }
            for vector in vectors {
                highest = highest.max(self.head.score(&vector.values)?);
            }
        }
        Ok(highest)
    }

    async fn check_probes(&self, cx: &Context) -> Result<()> {
        for probe in &self.head.probes {
            let score = self.score(cx, &probe.text).await?;
            if (score - probe.score).abs() > NEAR {
                let message = format!(
                    "model {:?} is not the one that this head was trained on ({}): the head scores {:?} at {score:.3}, and should at {:.3}",
                    self.model, self.head.model, probe.text, probe.score
                );
                return Err(Error::failed_precondition(message).with_reason("wrong_model"));
            }
        }
        Ok(())
    }
}

#[async_trait::async_trait]
impl Safety for EmbeddingClassifier {
    async fn list_shields(&self, _cx: &Context, _request: ListShieldsRequest) -> Result<ListShieldsResponse> {
        let shield = Shield {
            id: self.id.clone(),
            stages: [ShieldStage::Input, ShieldStage::ToolResult, ShieldStage::Retrieved].map(Into::into).into(),
            categories: vec![ShieldCategory {
                code: INJECTION.into(),
                name: "Overriding instructions, from a user or a third party".into(),
            }],
            description: "Prompt injection, by a small network over sentence embeddings".into(),
            provider_type: "inline::embedding-classifier".into(),
            model: self.model.clone(),
            threshold: self.threshold,
            ..Shield::default()
        };
        Ok(ListShieldsResponse { shields: vec![shield], ..ListShieldsResponse::default() })
    }

    async fn run_shield(&self, cx: &Context, request: RunShieldRequest) -> Result<RunShieldResponse> {
        let text = request.messages.last().map(judged::text).unwrap_or_default();
        Ok(reading::verdict(vec![(INJECTION, self.score(cx, &text).await?)], self.threshold, &text))
    }
}
