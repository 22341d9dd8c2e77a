//! `inline::prompt-guard`: Meta's Prompt Guard, window by window.
//!
//! ```text
//! text ─ (v1: whitespace) ─┬─ as it is ──────┬─ tokens ─ windows of 512 ─ Inference.Classify ─ highest score of each category
//!                          └─ its disguises ─┘
//! ```
//!
//! Both generations, told apart by the model's labels. Models and formulas: the model cards of Prompt-Guard-86M and
//! Llama-Prompt-Guard-2.

use std::{collections::HashSet, sync::Arc};

use llama_stack_core::{Context, Deps, Error, Inference, Result, Safety};
use llama_stack_proto::v1::{
    Classification, ClassifyInput, ClassifyRequest, GetModelRequest, ListShieldsRequest, ListShieldsResponse, ModelKind, RunShieldRequest,
    RunShieldResponse, Shield, ShieldCategory, ShieldStage,
};
use serde::Deserialize;
use tokio_util::task::TaskTracker;

mod labels;
mod whitespace;

use crate::{judged, reading, windows, windows::Windows};
use labels::Generation;

/// Windows that are asked for in one request: what a caller who goes away still pays for.
const BATCH: usize = 32;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The classifier, by its id in this stack.
    model: String,
    /// The shield's id. Default: the provider's.
    #[serde(default)]
    id: Option<String>,
    /// Scores at or above are violations. Above 0, at most 1; Meta's own default is 0.9.
    #[serde(default = "default_threshold")]
    threshold: f32,
    /// What v1's logits are divided by before they become probabilities. Above 1 makes it less sure.
    #[serde(default = "default_temperature")]
    temperature: f32,
    /// Tokens of a window, those around the text included. Default: what the model reads, at most 512.
    #[serde(default)]
    window: Option<usize>,
    /// Tokens at the end of a window that the next one reads again, so that an attack across the border is seen whole.
    #[serde(default = "default_overlap")]
    overlap: usize,
    /// Read the text's disguises as well: letters apart, look-alikes, other writings. Default true; each one that is found costs
    /// as much as the text.
    #[serde(default = "default_disguises")]
    disguises: bool,
}

fn default_threshold() -> f32 {
    0.9
}

fn default_temperature() -> f32 {
    1.0
}

fn default_disguises() -> bool {
    true
}

fn default_overlap() -> usize {
    64
}

pub(crate) struct PromptGuard {
    inference: Arc<dyn Inference>,
    id: String,
    config: Config,
    generation: Generation,
    windows: Windows,
    tasks: TaskTracker,
}

/// Asks for the model at once, so that one that is no guard fails here and not at the first text.
pub(crate) async fn build(config: Config, deps: Deps) -> Result<Arc<dyn Safety>> {
    if !(config.threshold > 0.0 && config.threshold <= 1.0) {
        return Err(Error::invalid("config.threshold", format!("threshold is {}: it is above 0 and at most 1", config.threshold)));
    }
    if !(config.temperature > 0.0 && config.temperature.is_finite()) {
        return Err(Error::invalid("config.temperature", format!("temperature is {}: it is above 0", config.temperature)));
    }
    let (inference, cx) = (deps.inference()?, Context::system());
    let model =
        inference.get_model(&cx, GetModelRequest { id: config.model.clone() }).await.map_err(|error| error.with_field("config.model"))?;
    if model.kind() != ModelKind::Classifier {
        let message = format!("model {:?} is no classifier: Prompt Guard is a DeBERTa-v2 with a classification head", config.model);
        return Err(Error::invalid("config.model", message).with_reason("wrong_model_kind"));
    }
    let generation = Generation::of(&model.labels).map_err(|error| error.context(format_args!("model {:?}", config.model)))?;
    let reads = if model.context_length == 0 { 512 } else { model.context_length as usize };
    let length = config.window.unwrap_or(reads.min(512));
    let windows =
        Windows::of_model(inference.as_ref(), &cx, &config.model, 1, 1).await.map_err(|error| error.with_field("config.model"))?;
    if length > reads || length <= windows.around() + config.overlap {
        let message = format!(
            "a window of {length} tokens with an overlap of {} does not work: model {:?} reads {reads}, of which {} stand around a text",
            config.overlap,
            config.model,
            windows.around()
        );
        return Err(Error::invalid("config.window", message));
    }
    let id = config.id.clone().unwrap_or(deps.provider_id);
    Ok(Arc::new(PromptGuard { inference, id, generation, windows: windows.within(length, config.overlap), config, tasks: deps.tasks }))
}

impl PromptGuard {
    fn describe(&self) -> Shield {
        let category = |(code, name): &(&str, &str)| ShieldCategory { code: (*code).into(), name: (*name).into() };
        Shield {
            id: self.id.clone(),
            stages: [ShieldStage::Input, ShieldStage::ToolResult, ShieldStage::Retrieved].map(Into::into).into(),
            categories: self.generation.categories().iter().map(category).collect(),
            description: self.generation.description().into(),
            provider_type: "inline::prompt-guard".into(),
            model: self.config.model.clone(),
            threshold: self.config.threshold,
            ..Shield::default()
        }
    }

    /// The distinct windows of a text and of its disguises.
    async fn windows(&self, cx: &Context, text: &str) -> Result<Vec<Vec<u32>>> {
        let (mut seen, mut all) = (HashSet::new(), Vec::new());
        for mut reading in reading::variants(&self.tasks, text, self.config.disguises).await? {
            if self.generation.wants_whitespace_undone() {
                reading = whitespace::undo(self.inference.as_ref(), cx, &self.config.model, &reading).await?;
            }
            let tokens = windows::read(self.inference.as_ref(), cx, &self.config.model, &reading).await?.tokens;
            all.extend(self.windows.cut(&tokens).into_iter().filter(|window| seen.insert(window.clone())));
        }
        Ok(all)
    }

    async fn classify(&self, cx: &Context, windows: &[Vec<u32>]) -> Result<Vec<Classification>> {
        let inputs = windows.iter().cloned().map(ClassifyInput::tokens).collect();
        let request = ClassifyRequest { model: self.config.model.clone(), inputs, ..ClassifyRequest::default() };
        let response = self.inference.classify(cx, request).await?;
        if response.classifications.len() != windows.len() {
            let message =
                format!("model {:?} classified {} of {} windows", self.config.model, response.classifications.len(), windows.len());
            return Err(Error::internal(message));
        }
        Ok(response.classifications)
    }
}

#[async_trait::async_trait]
impl Safety for PromptGuard {
    async fn list_shields(&self, _cx: &Context, _request: ListShieldsRequest) -> Result<ListShieldsResponse> {
        Ok(ListShieldsResponse { shields: vec![self.describe()], ..ListShieldsResponse::default() })
    }

    async fn run_shield(&self, cx: &Context, request: RunShieldRequest) -> Result<RunShieldResponse> {
        let stage = request.stage();
        let text = request.messages.last().map(judged::text).unwrap_or_default();
        let mut highest: Vec<(&'static str, f32)> = self.generation.scored(stage).iter().map(|code| (*code, 0.0)).collect();
        for windows in self.windows(cx, &text).await?.chunks(BATCH) {
            for classification in self.classify(cx, windows).await? {
                for (code, score) in self.generation.scores(&classification, self.config.temperature)? {
                    highest.iter_mut().filter(|(there, _)| *there == code).for_each(|(_, most)| *most = most.max(score));
                }
            }
        }
        Ok(reading::verdict(highest, self.config.threshold, &text))
    }
}
