//! A model of the manifest: its files, its one engine, and who may use it when.

use std::{
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use tokio_util::task::TaskTracker;

use llama_stack_core::{Context, Error, Result};
use llama_stack_models::{
    ModelSpec, Resolved,
    admission::Admission,
    decode::{self, Generation, Plan},
    gguf,
    memory::{self, Available, Footprint, Need},
    template::{ChatTemplate, SpecialTokens},
};
use llama_stack_proto::v1::{Model, ModelKind};

use crate::{
    config::Options,
    engine::Engine,
    load::{Format, Weights, load},
    making::{self, After},
};

/// A context that is of use, where the manifest asks for none.
const LEAST_CONTEXT: u32 = 2_048;

pub(crate) struct LocalModel {
    pub(crate) id: String,
    weights: Weights,
    quantization: String,
    license: Option<String>,
    /// On a CPU, where the headers say enough.
    footprint: Option<Footprint>,
    /// The manifest names the context's length.
    asked: bool,
    admission: Admission,
    engine: Mutex<Option<Arc<Engine>>>,
    /// Of `engine`, for people: who asks for it does not wait for a model that is being loaded.
    state: RwLock<&'static str>,
    tasks: TaskTracker,
}

impl LocalModel {
    /// Checks the files, reads no weights.
    ///
    /// # Errors
    /// `InvalidArgument` for files that are no model for this engine, for a broken template, or wrong options.
    pub(crate) fn new(spec: &ModelSpec, files: &Resolved, queue: usize, tasks: TaskTracker) -> Result<Arc<Self>> {
        let options: Options = spec.options()?;
        let found = Found::new(files).map_err(|error| error.context(format_args!("model {:?}", spec.id)))?;
        let source = files.chat_template.as_deref().or(found.template.as_deref());
        let template = source.map(|source| ChatTemplate::parse(source, found.tokens)).transpose();
        let template =
            template.map_err(|error| error.with_field("chat_template").context(format_args!("model {:?}: chat template", spec.id)))?;
        let context_length = files.context_length.unwrap_or(u32::MAX).min(found.context_length);
        let footprint = footprint(files, &found.format, &options);
        Ok(Arc::new(Self {
            id: spec.id.clone(),
            footprint,
            asked: files.context_length.is_some(),
            weights: Weights { id: spec.id.clone(), dir: files.dir.clone(), format: found.format, template, context_length, options },
            quantization: found.quantization,
            license: files.license.clone(),
            admission: Admission::new(1, queue),
            engine: Mutex::new(None),
            state: RwLock::new("unloaded"),
            tasks,
        }))
    }

    pub(crate) fn describe(&self, provider_id: &str) -> Model {
        let state = *self.state.read().unwrap_or_else(PoisonError::into_inner);
        let mut metadata = vec![("engine", "mistral.rs 0.8.1".to_owned()), ("quantization", self.quantization.clone())];
        metadata.extend(self.license.clone().map(|license| ("license", license)));
        if let Some(footprint) = &self.footprint {
            metadata.push(("memory_bytes", footprint.need(self.weights.context_length).total().to_string()));
        }
        metadata.push(("state", state.to_owned()));
        metadata.push(("requests", self.admission.running().to_string()));
        metadata.push(("waiting", self.admission.queued().to_string()));
        Model {
            id: self.id.clone(),
            provider_id: provider_id.to_owned(),
            provider_model_id: self.id.clone(),
            kind: ModelKind::Chat.into(),
            context_length: self.weights.context_length,
            metadata: metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            ..Model::default()
        }
    }

    /// The loaded engine: loads it, or waits for who does. Giving up the wait does not give up the loading.
    ///
    /// # Errors
    /// `FailedPrecondition` (`out_of_memory`) with the numbers · as [`load`].
    pub(crate) async fn engine(self: &Arc<Self>) -> Result<Arc<Engine>> {
        if let Some(engine) = self.engine.lock().await.as_ref().filter(|engine| engine.is_alive()) {
            return Ok(engine.clone());
        }
        let model = self.clone();
        let loading = self.tasks.spawn(async move {
            let mut slot = model.engine.lock().await;
            if let Some(engine) = slot.as_ref().filter(|engine| engine.is_alive()) {
                return Ok(engine.clone());
            }
            // The old weights go before the new ones come: both may not fit.
            *slot = None;
            model.is("unloaded");
            model.fits()?;
            let started = std::time::Instant::now();
            model.is("loading");
            let loaded = load(model.weights.clone()).await;
            model.is(if loaded.is_ok() { "loaded" } else { "unloaded" });
            let engine = Arc::new(loaded?);
            tracing::info!(model = model.id, seconds = started.elapsed().as_secs_f32(), "model loaded");
            *slot = Some(engine.clone());
            Ok(engine)
        });
        loading.await.map_err(|error| Error::internal("loading the model broke off").with_source(error))?
    }

    /// What the machine has is compared with what the model needs. Keys and values of the context that the manifest asks for have
    /// to fit; where it asks for none, of a short one: they take memory as they come, and requests may never come near the
    /// model's own. So with the mask, which grows with the square of one prompt: that of a short one has to fit.
    fn fits(&self) -> Result<()> {
        let (Some(footprint), Some(available)) = (&self.footprint, Available::now()) else { return Ok(()) };
        let context = self.weights.context_length;
        let Err(refused) = footprint.check(available, context, LEAST_CONTEXT) else { return Ok(()) };
        let refused = refused.context(format_args!("model {:?}", self.id));
        let least = footprint.need(context.min(LEAST_CONTEXT));
        let kv_cache = if self.asked { footprint.need(context).kv_cache } else { least.kv_cache };
        if (Need { kv_cache, ..least }).total() > available.bytes {
            return Err(refused);
        }
        tracing::warn!(model = self.id, "long requests may not fit: {}", refused.message());
        Ok(())
    }

    fn is(&self, state: &'static str) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Waits for the engine to be free, then begins. The engine stays taken until it has let go of the last sequence,
    /// whether anybody reads or not.
    ///
    /// # Errors
    /// `ResourceExhausted` with a time to come back, where the queue is full · `DeadlineExceeded` · as [`load`].
    pub(crate) async fn generate(self: &Arc<Self>, cx: &Context, plan: Plan) -> Result<Generation> {
        let permit = cx.within(self.admission.enter(cx)).await?;
        // It may have been restarted while this request waited.
        let engine = cx.within(self.engine()).await?;
        let (making, generation) = decode::channel(plan, cx.deadline());
        let model = self.clone();
        self.tasks.spawn(async move {
            match making::run(making, &engine).await {
                After::Broken => model.restart(engine).await,
                After::Sound => drop(engine),
            }
            // Last: the next request may load the model, beside which an old one may not fit.
            drop(permit);
        });
        Ok(generation)
    }

    /// Forgets a broken engine and loads anew, before the next request has its turn.
    async fn restart(self: &Arc<Self>, broken: Arc<Engine>) {
        tracing::error!(model = self.id, "the engine broke; it is loaded again");
        {
            let mut slot = self.engine.lock().await;
            if slot.as_ref().is_some_and(|engine| Arc::ptr_eq(engine, &broken)) {
                *slot = None;
                self.is("unloaded");
            }
        }
        drop(broken);
        if let Err(error) = self.engine().await {
            tracing::error!(model = self.id, error = error.message(), "the engine could not be loaded again");
        }
    }
}

/// None on an accelerator, whose memory is not asked for, and for headers that say too little.
fn footprint(files: &Resolved, format: &Format, options: &Options) -> Option<Footprint> {
    if cfg!(any(feature = "cuda", feature = "metal")) && !options.cpu {
        return None;
    }
    let weights = match format {
        Format::Gguf { .. } => memory::Weights::TokenTableF32,
        // Half precision at most, on a CPU too.
        Format::Safetensors => memory::Weights::Stored,
    };
    let ubatch = options.prompt_step.map(|step| u32::try_from(step.get()).unwrap_or(u32::MAX));
    let load = memory::Load { weights, kv: memory::KvType::F16, ubatch, all_logits: false, ..memory::Load::default() };
    let footprint = Footprint::of(files, load);
    footprint.inspect_err(|error| tracing::debug!(error = error.message(), "what the model needs is not known")).ok()
}

/// Of GGUF files. Safetensors name theirs in `config.json`, and mistral.rs says which of these it runs.
const ARCHITECTURES: [&str; 8] = ["llama", "mistral3", "phi2", "phi3", "starcoder2", "qwen2", "qwen3", "qwen3moe"];

/// What the files say.
struct Found {
    format: Format,
    context_length: u32,
    quantization: String,
    template: Option<String>,
    tokens: SpecialTokens,
}

impl Found {
    fn new(files: &Resolved) -> Result<Self> {
        match &files.gguf {
            Some(info) => Self::gguf(files, info),
            None if !files.with_extension("safetensors").is_empty() => Self::safetensors(files),
            None => Err(Error::invalid("files", "there is neither a .gguf nor a .safetensors file")),
        }
    }

    fn gguf(files: &Resolved, info: &gguf::Info) -> Result<Self> {
        if !ARCHITECTURES.contains(&info.architecture.as_str()) {
            let message = format!("this engine runs no {:?} models; it runs: {}", info.architecture, ARCHITECTURES.join(", "));
            return Err(Error::invalid("files", message).with_reason("architecture_unsupported"));
        }
        if info.scaled_positions {
            let message = "the positions of this model are scaled by factors (`rope_freqs.weight`), which this engine would ignore: \
                run the file with inline::llama-cpp, or take the model's safetensors";
            return Err(Error::invalid("files", message).with_reason("positions_unsupported"));
        }
        let context_length = info.context_length.ok_or_else(|| Error::invalid("files", "the GGUF file does not say its context length"))?;
        let sentence_piece = info.tokenizer.as_deref() == Some("llama");
        let tokenizer = files.file("tokenizer.json").is_ok();
        let text = |token: &Option<gguf::Token>| token.as_ref().map(|token| token.text.clone()).unwrap_or_default();
        Ok(Self {
            format: Format::Gguf {
                parts: names(files, "gguf")?,
                tokenizer,
                // A `tokenizer.json` adds its begin token itself.
                begin: info.bos.as_ref().filter(|_| info.add_bos.unwrap_or(sentence_piece) && !tokenizer).map(|token| token.id),
                ends: [&info.eos, &info.eot].into_iter().flatten().map(|token| token.id).collect(),
            },
            context_length,
            quantization: info.quantization.clone(),
            template: info.chat_template.clone(),
            tokens: SpecialTokens { bos: text(&info.bos), eos: text(&info.eos) },
        })
    }

    fn safetensors(files: &Resolved) -> Result<Self> {
        let config: ModelConfig = read(files.file("config.json")?)?;
        files.file("tokenizer.json")?;
        let tokenizer: TokenizerConfig = files.file("tokenizer_config.json").map_or_else(|_| Ok(TokenizerConfig::default()), read)?;
        let template = match files.file("chat_template.jinja") {
            Ok(path) => Some(std::fs::read_to_string(path).map_err(|error| unreadable(path, &error.to_string()))?),
            Err(_) => tokenizer.chat_template.as_ref().and_then(named_template),
        };
        Ok(Self {
            format: Format::Safetensors,
            context_length: config.max_position_embeddings,
            quantization: config.torch_dtype.unwrap_or_else(|| "safetensors".into()),
            template,
            tokens: SpecialTokens { bos: token(tokenizer.bos_token.as_ref()), eos: token(tokenizer.eos_token.as_ref()) },
        })
    }
}

/// Of `config.json`, what is needed here.
#[derive(Deserialize)]
struct ModelConfig {
    max_position_embeddings: u32,
    torch_dtype: Option<String>,
}

/// Of `tokenizer_config.json`, what is needed here.
#[derive(Default, Deserialize)]
struct TokenizerConfig {
    chat_template: Option<Value>,
    bos_token: Option<Value>,
    eos_token: Option<Value>,
}

/// A token is a string, or an object with its `content`.
fn token(value: Option<&Value>) -> String {
    value.and_then(|value| value.as_str().or_else(|| value.get("content")?.as_str())).unwrap_or_default().to_owned()
}

/// A template is a string, or a list of named ones, of which `default` is meant.
fn named_template(value: &Value) -> Option<String> {
    let of_list = || value.as_array()?.iter().find(|item| item["name"] == "default")?.get("template")?.as_str();
    value.as_str().or_else(of_list).map(Into::into)
}

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read(path).map_err(|error| unreadable(path, &error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| unreadable(path, &error.to_string()))
}

fn unreadable(path: &Path, cause: &str) -> Error {
    Error::invalid("files", format!("{} cannot be read: {cause}", path.display()))
}

/// Below the folder, in the order of a split model's parts.
fn names(files: &Resolved, extension: &str) -> Result<Vec<String>> {
    let below = |path: &&Path| path.strip_prefix(&files.dir).ok().and_then(Path::to_str).map(Into::into);
    let paths = files.with_extension(extension);
    let names: Vec<String> = paths.iter().filter_map(below).collect();
    if names.len() == paths.len() { Ok(names) } else { Err(Error::internal("a model file lies outside of its folder")) }
}
