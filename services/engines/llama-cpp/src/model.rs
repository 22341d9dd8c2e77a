//! A model of the manifest: its files, its engine while it is loaded, and who may use it when.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock, atomic::Ordering},
    time::{Duration, Instant},
};

use llama_stack_core::{Context, Deps, Error, Result};
use llama_stack_models::{
    ModelSpec, Resolved,
    admission::Admission,
    decode::{self, Generation, Plan},
    memory::{self, Footprint},
    template::ChatTemplate,
};
use llama_stack_proto::v1::{Model, ModelKind};
use tokio::sync::{Mutex, oneshot};
use tokio_util::task::TaskTracker;

use crate::{
    config::{CacheType, Draft, Kind, Options},
    context::Shape,
    engine::{Command, Engine, Generate, draft_shape, shape},
    kind::Found,
    load::Source,
    room::{Room, Wish},
    vectors::Texts,
    warm::Folder,
};

pub(crate) struct LocalModel {
    pub(crate) id: String,
    license: Option<String>,
    found: Found,
    source: Source,
    wish: Wish,
    admission: Admission,
    engine: Mutex<Slot>,
    phase: RwLock<Phase>,
    used: RwLock<Instant>,
    /// With the other models of its provider.
    room: Arc<Room>,
    tasks: TaskTracker,
}

/// The engine while it is loaded, and what came of the last attempt to load it where that failed.
#[derive(Default)]
struct Slot {
    engine: Option<Arc<Engine>>,
    refused: Option<(Instant, Error)>,
}

impl Slot {
    fn alive(&self) -> Option<Arc<Engine>> {
        self.engine.as_ref().filter(|engine| engine.is_alive()).cloned()
    }
}

/// Where its weights are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Unloaded,
    /// It waits for its turn to be loaded, or is.
    Loading,
    Loaded,
}

impl LocalModel {
    /// Checks the files, reads no weights. `all` are the models of its provider, among which a second model is looked for.
    ///
    /// # Errors
    /// `InvalidArgument` for files that are no model for this engine, for a broken template, or wrong options ·
    /// `FailedPrecondition` (`out_of_memory`) for one that is too large for its provider's budget.
    pub(crate) fn new(spec: &ModelSpec, all: &[Resolved], queue: usize, deps: &Deps, room: &Arc<Room>) -> Result<Arc<Self>> {
        let options: Options = spec.options()?;
        let named = |error: Error| error.context(format_args!("model {:?}", spec.id));
        let files = all.iter().find(|files| files.id == spec.id);
        let files = files.ok_or_else(|| Error::internal("the model's files were not resolved"))?;
        let found = Found::new(files, &options).map_err(named)?;
        options.check().map_err(named)?;
        let template = files.chat_template.as_deref().or(found.info.chat_template.as_deref());
        let template = template.map(|source| ChatTemplate::parse(source, found.special.clone())).transpose();
        let template = template.map_err(|error| named(error.with_field("chat_template")))?;
        let path = gguf_path(files);
        let settings = format!("{:?} {:?}", options.cache_type, options.adapters);
        let folder = (options.keep_on_disk_megabytes > 0)
            .then(|| {
                let adapters = options.adapters.iter().map(|adapter| adapter.path.as_path());
                let read: Vec<&Path> = std::iter::once(path.as_path()).chain(adapters).collect();
                Folder::new(&deps.home, &read, &settings, options.keep_on_disk_megabytes)
            })
            .transpose()
            .map_err(named)?;
        let second = options.draft.as_ref().map(|draft| second(draft, &options, &found, files, all));
        let second = second.transpose().map_err(named)?;
        let (draft, beside) = second.map_or((None, 0), |(source, bytes)| (Some(Arc::new(source)), bytes));
        let source =
            Source { id: spec.id.clone(), path, kind: found.kind, template, context_length: found.context_length, options, folder, draft };
        let (shape, parallel) = (shape(&source), source.options.parallel as usize);
        let wish = Wish { footprint: footprint(files, &source, shape)?, cells: shape.cells, beside };
        room.could_hold(&wish).map_err(named)?;
        let model = Arc::new(Self {
            id: spec.id.clone(),
            license: files.license.clone(),
            found,
            source,
            wish,
            room: room.clone(),
            admission: Admission::shared(parallel, queue),
            engine: Mutex::default(),
            phase: RwLock::new(Phase::Unloaded),
            used: RwLock::new(Instant::now()),
            tasks: deps.tasks.clone(),
        });
        room.enter(&model);
        Ok(model)
    }

    pub(crate) fn kind(&self) -> Kind {
        self.source.kind
    }

    pub(crate) fn context_length(&self) -> u32 {
        self.source.context_length
    }

    pub(crate) fn describe(&self, provider_id: &str) -> Model {
        let kind = match self.source.kind {
            Kind::Chat => ModelKind::Chat,
            Kind::Embedding => ModelKind::Embedding,
            Kind::Reranker => ModelKind::Reranker,
        };
        let mut metadata = vec![("engine", "llama.cpp".to_owned()), ("quantization", self.found.info.quantization.clone())];
        metadata.extend(self.license.clone().map(|license| ("license", license)));
        metadata.push(("memory_bytes", self.wish.total().to_string()));
        let engine = self.engine.try_lock().ok().and_then(|slot| slot.engine.clone());
        let state = match self.phase() {
            // It broke, and is loaded again for the next request.
            Phase::Loaded if engine.as_ref().is_some_and(|engine| !engine.is_alive()) => "unloaded",
            Phase::Loaded => "loaded",
            Phase::Loading => "loading",
            Phase::Unloaded => "unloaded",
        };
        metadata.push(("state", state.into()));
        if let Some(engine) = engine {
            let gauge = |gauge: &std::sync::atomic::AtomicU64| gauge.load(Ordering::Relaxed).to_string();
            metadata.push(("cache_tokens_used", gauge(&engine.gauges.cells_used)));
            metadata.push(("prompt_tokens", gauge(&engine.gauges.prompt_tokens)));
            metadata.push(("cached_tokens", gauge(&engine.gauges.cached_tokens)));
            metadata.push(("draft_tokens", gauge(&engine.gauges.draft_tokens)));
            metadata.push(("draft_accepted_tokens", gauge(&engine.gauges.draft_accepted_tokens)));
        }
        metadata.push(("requests", self.admission.running().to_string()));
        metadata.push(("waiting", self.admission.queued().to_string()));
        let dimension = if self.source.kind == Kind::Embedding { self.found.info.embedding_length.unwrap_or_default() } else { 0 };
        Model {
            id: self.id.clone(),
            provider_id: provider_id.to_owned(),
            provider_model_id: self.id.clone(),
            kind: kind.into(),
            context_length: self.source.context_length,
            embedding_dimension: dimension,
            metadata: metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            ..Model::default()
        }
    }

    /// The loaded engine: loads it, or waits for who does. Giving up the wait does not give up the loading.
    ///
    /// # Errors
    /// As [`Engine::start`].
    pub(crate) async fn engine(self: &Arc<Self>) -> Result<Arc<Engine>> {
        let asked = Instant::now();
        self.touch();
        if let Some(engine) = self.engine.lock().await.alive() {
            return Ok(engine);
        }
        let model = self.clone();
        let loading = self.tasks.spawn(async move {
            let mut slot = model.engine.lock().await;
            if let Some(engine) = slot.alive() {
                return Ok(engine);
            }
            // Whoever waited for an attempt has its outcome: else each would make one more, one after the other.
            if let Some((_, error)) = slot.refused.as_ref().filter(|(at, _)| asked < *at) {
                return Err(repeated(error));
            }
            model.set(Phase::Loading);
            // The old weights go before the new ones come: both may not fit.
            end(slot.engine.take()).await;
            let loaded = model.load().await;
            model.set(if loaded.is_ok() { Phase::Loaded } else { Phase::Unloaded });
            slot.refused = loaded.as_ref().err().map(|error| (Instant::now(), repeated(error)));
            let engine = Arc::new(loaded?);
            slot.engine = Some(engine.clone());
            model.touch();
            Ok(engine)
        });
        loading.await.map_err(|error| Error::internal("loading the model broke off").with_source(error))?
    }

    /// Once there is room for it, and its turn has come.
    ///
    /// # Errors
    /// As [`Room::make`] and [`Engine::start`].
    async fn load(&self) -> Result<Engine> {
        let _turn = self.room.make(self, &self.wish).await?;
        let started = Instant::now();
        let engine = Engine::start(self.source.clone()).await?;
        tracing::info!(model = self.id, engine = "llama.cpp", seconds = started.elapsed().as_secs_f32(), "model loaded");
        Ok(engine)
    }

    /// Begins to answer. The engine decides what runs together.
    ///
    /// # Errors
    /// `ResourceExhausted` with a time to come back, where as many as may wait do · as [`LocalModel::engine`].
    pub(crate) async fn generate(self: &Arc<Self>, cx: &Context, plan: Plan) -> Result<Generation> {
        let permit = self.admission.enter(cx).await?;
        // It may have been unloaded since the prompt was prepared.
        let engine = cx.within(self.engine()).await?;
        let (making, generation) = decode::channel(plan, cx.deadline());
        let (tenant, priority) = (cx.tenant().into(), cx.priority());
        engine.send(Command::Generate(Box::new(Generate { making, tenant, priority, deadline: cx.deadline(), permit })));
        Ok(generation)
    }

    /// Vectors of texts, none of which is longer than the context.
    ///
    /// # Errors
    /// As [`LocalModel::generate`].
    pub(crate) async fn vectors(self: &Arc<Self>, cx: &Context, tokens: Vec<Vec<u32>>) -> Result<Vec<Vec<f32>>> {
        let permit = self.admission.enter(cx).await?;
        let engine = cx.within(self.engine()).await?;
        let (answer, answered) = oneshot::channel();
        engine.send(Command::Vectors(Texts { tokens, answer, permit }));
        cx.within(async { answered.await.map_err(|_| decode::broken())? }).await
    }

    /// Unloads it where nobody has used it for `idle`.
    pub(crate) async fn unload_after(&self, idle: Duration) {
        if self.used().elapsed() >= idle {
            self.unload("nobody has used it for a while").await;
        }
    }

    /// Unloads it where nobody uses it, and waits until its memory is free. Whether there was something to unload.
    pub(crate) async fn unload(&self, why: &str) -> bool {
        // One that is being loaded, or asked for, is in use.
        let Ok(mut slot) = self.engine.try_lock() else { return false };
        let idle = self.admission.running() == 0 && slot.engine.as_ref().is_some_and(|engine| Arc::strong_count(engine) == 1);
        if idle {
            if let Some(engine) = slot.engine.as_ref() {
                self.keep(engine).await;
            }
            end(slot.engine.take()).await;
            self.set(Phase::Unloaded);
            tracing::info!(model = self.id, why, "model unloaded");
        }
        idle
    }

    /// Bytes that it needs while it is loaded; 0 while it is not.
    pub(crate) fn holds(&self) -> u64 {
        if self.phase() == Phase::Loaded { self.wish.total() } else { 0 }
    }

    /// Those of them that are not in an accelerator's memory.
    pub(crate) fn holds_here(&self) -> u64 {
        let accelerated = cfg!(any(feature = "cuda", feature = "metal", feature = "vulkan")) && self.source.options.gpu_layers != Some(0);
        if accelerated { 0 } else { self.holds() }
    }

    pub(crate) fn used(&self) -> Instant {
        *self.used.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn phase(&self) -> Phase {
        *self.phase.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, phase: Phase) {
        *self.phase.write().unwrap_or_else(PoisonError::into_inner) = phase;
    }

    /// Writes kept prefixes to disk, where the manifest wants that; to be awaited when the stack stops.
    pub(crate) async fn save(&self) {
        let engine = self.engine.lock().await.engine.clone();
        if let Some(engine) = engine {
            self.keep(&engine).await;
        }
    }

    /// Drops what the loaded engine keeps of a tenant; how many prefixes it was. One that is being loaded is waited for.
    pub(crate) async fn forget(&self, tenant: &str) -> usize {
        let engine = self.engine.lock().await.engine.clone();
        let Some(engine) = engine else { return 0 };
        let (done, forgotten) = oneshot::channel();
        engine.send(Command::Forget(tenant.into(), done));
        // An engine that has died keeps nothing.
        forgotten.await.unwrap_or_default()
    }

    async fn keep(&self, engine: &Engine) {
        if self.source.folder.is_some() {
            let (done, saved) = oneshot::channel();
            engine.send(Command::Save(done));
            // An engine that has died has nothing to save.
            let _ = saved.await;
        }
    }

    fn touch(&self) {
        *self.used.write().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

/// The second model that `draft` names, to be loaded beside the first, and the bytes that it needs.
///
/// # Errors
/// `InvalidArgument` on `options.draft` for a name that is no other model of the provider, for one that writes no text or has
/// another vocabulary, and for a number of tokens that cannot be.
fn second(draft: &Draft, options: &Options, found: &Found, own: &Resolved, all: &[Resolved]) -> Result<(Source, u64)> {
    if !(1..=16).contains(&draft.tokens) {
        return Err(Error::invalid("options.draft.tokens", format!("options.draft.tokens is {}; it is 1 to 16", draft.tokens)));
    }
    let wrong = |message: String| Error::invalid("options.draft.model", message);
    let other = all.iter().find(|other| other.id == draft.model && other.id != own.id).ok_or_else(|| {
        let others: Vec<&str> = all.iter().map(|other| other.id.as_str()).filter(|id| *id != own.id).collect();
        wrong(format!("options.draft.model is {:?}; the other models of its provider are: {}", draft.model, others.join(", ")))
    })?;
    if found.kind != Kind::Chat {
        return Err(wrong("options.draft: this model writes no text, so there is nothing to guess".into()));
    }
    let settings = Options {
        threads: options.threads,
        batch: options.batch,
        cache_type: options.cache_type,
        gpu_layers: options.gpu_layers,
        ..Options::default()
    };
    let theirs =
        Found::new(other, &settings).map_err(|error| wrong(format!("options.draft.model {:?}: {}", draft.model, error.message())))?;
    let vocabulary = |found: &Found| (found.info.tokenizer.clone(), found.info.pre_tokenizer.clone());
    if theirs.kind != Kind::Chat || vocabulary(&theirs) != vocabulary(found) {
        return Err(wrong(format!(
            "options.draft.model is {:?}, which has another vocabulary: its guesses mean nothing here",
            draft.model
        )));
    }
    let source = Source {
        id: draft.model.clone(),
        path: gguf_path(other),
        kind: Kind::Chat,
        template: None,
        context_length: theirs.context_length.min(found.context_length),
        options: settings,
        folder: None,
        draft: None,
    };
    let shape = draft_shape(&source);
    let bytes = footprint(other, &source, shape)?.need(shape.cells).total();
    Ok((source, bytes))
}

fn footprint(files: &Resolved, source: &Source, shape: Shape) -> Result<Footprint> {
    let load = memory::Load {
        kv: match source.options.cache_type {
            CacheType::F16 => memory::KvType::F16,
            CacheType::Q8 => memory::KvType::Q8_0,
        },
        sequences: shape.sequences,
        ubatch: Some(shape.batch),
        ..memory::Load::default()
    };
    Footprint::of(files, load)
}

/// Of a split model the first part.
fn gguf_path(files: &Resolved) -> PathBuf {
    files.with_extension("gguf").first().map(|path| path.to_path_buf()).unwrap_or_default()
}

/// The same once more, but for its cause.
fn repeated(error: &Error) -> Error {
    let mut again = Error::new(error.code(), error.message());
    if let Some(reason) = error.reason() {
        again = again.with_reason(reason);
    }
    if let Some(field) = error.field() {
        again = again.with_field(field);
    }
    if let Some(after) = error.retry_after() {
        again = again.with_retry_after(after);
    }
    again
}

/// Lets go of an engine and waits until its thread has ended, if nobody else holds it.
async fn end(engine: Option<Arc<Engine>>) {
    let Some(engine) = engine else { return };
    let ended = engine.ended();
    if Arc::into_inner(engine).is_some() {
        ended.cancelled().await;
    }
}

#[cfg(test)]
mod tests {
    use llama_stack_core::Code;

    use super::*;

    #[test]
    fn who_waited_for_the_same_attempt_is_told_the_same() {
        let full = Error::new(Code::ResourceExhausted, "no room").with_reason("models_busy").with_retry_after(Duration::from_secs(10));
        let again = repeated(&full.with_field("context_length"));
        assert_eq!((again.code(), again.message(), again.reason()), (Code::ResourceExhausted, "no room", Some("models_busy")));
        assert_eq!((again.field(), again.retry_after()), (Some("context_length"), Some(Duration::from_secs(10))));
    }
}
