//! `remote::pool`: any number of upstreams behind the same models: replicas of vLLM, other stacks, hosts.
//!
//! ```text
//! request ─ attempts ─ choose: balance, weight, affinity ─┬─ upstream: breaker, probes, figures ── remote::openai
//!              │                                          ├─ upstream ─────────────────────────── remote::openai
//!              └─ budget: how many may be asked again     └─ upstream ─────────────────────────── remote::grpc
//! ```

mod attempts;
mod breaker;
mod budget;
mod choose;
mod figures;
mod upstream;

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::join_all;
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use llama_stack_core::{Context, Deps, Error, EventStream, Inference, Result, Table, page};
use llama_stack_proto::v1::{
    ChatEvent, ChatRequest, ChatResponse, ClassifyRequest, ClassifyResponse, CompleteEvent, CompleteRequest, CompleteResponse,
    EmbedRequest, EmbedResponse, ListModelsRequest, ListModelsResponse, Model, RerankRequest, RerankResponse, Role, TokenizeRequest,
    TokenizeResponse, complete_request::Prompt,
};

use attempts::Attempts;
use budget::Budget;
use choose::{Affinity, Balance, Chooser};
pub use figures::{PoolFigures, Pools, UpstreamFigures};
use upstream::Upstream;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Each is a provider of its own, with an id that is unique in the pool. At least one.
    upstreams: Vec<Entry>,
    /// `least_outstanding` (the default): who has the fewest requests under way for its weight. `weighted`: in turn.
    #[serde(default)]
    balance: Balance,
    /// `prompt_prefix` (the default): requests that begin alike go to the same upstream while it has room. Or `none`.
    #[serde(default)]
    affinity: Affinity,
    #[serde(default)]
    health: Health,
    /// When an upstream that fails is left alone.
    #[serde(default)]
    breaker: breaker::Limits,
    #[serde(default)]
    retries: budget::Limits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: String,
    /// `remote::openai` or `remote::grpc`.
    #[serde(rename = "type")]
    kind: String,
    /// Its part of the requests, beside the others' weights. 1 (the default) to 1,000.
    #[serde(default = "one")]
    weight: u32,
    /// As the type has it.
    #[serde(default)]
    config: Value,
}

fn one() -> u32 {
    1
}

/// How upstreams are looked after that nobody asks: each is asked for its models.
#[derive(Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Health {
    /// Between two looks. Default 5; 0: none.
    interval_seconds: f64,
    /// How long an answer may take. Default 2.
    timeout_seconds: f64,
    /// Failures in a row after which an upstream is asked only if no other can be. Default 2.
    failures: u32,
}

impl Default for Health {
    fn default() -> Self {
        Self { interval_seconds: 5.0, timeout_seconds: 2.0, failures: 2 }
    }
}

/// Contacts nobody before it returns: upstreams may start later.
///
/// # Errors
/// `InvalidArgument` that names what is wrong in the configuration, an upstream's own included.
pub(crate) async fn build(config: Config, deps: Deps, types: Table<dyn Inference>) -> Result<Arc<dyn Inference>> {
    check(&config)?;
    let several = config.upstreams.len() > 1;
    let mut upstreams = Vec::with_capacity(config.upstreams.len());
    for (index, entry) in config.upstreams.into_iter().enumerate() {
        let id = format!("{}/{}", deps.provider_id, entry.id);
        let its = Deps { provider_id: id.clone(), ..deps.clone() };
        let built = types.build(&entry.kind, patient(entry.config, &entry.kind, several), its).await;
        let inference = built.map_err(|error| placed(error, index))?;
        upstreams.push(Arc::new(Upstream::new(id, entry.weight.into(), inference, config.breaker, config.health.failures)));
    }
    let shared = Arc::new(Shared {
        id: deps.provider_id.clone(),
        chooser: Mutex::new(Chooser::new(config.balance, upstreams.len())),
        upstreams,
        affinity: config.affinity,
        retries: config.retries,
        budget: Mutex::new(Budget::new(config.retries, Instant::now())),
        counts: figures::Counts::default(),
        patience: Duration::from_secs_f64(config.health.timeout_seconds),
    });
    if let Some(pools) = deps.extensions.get::<Pools>() {
        pools.enter(&shared);
    }
    if config.health.interval_seconds > 0.0 {
        let period = Duration::from_secs_f64(config.health.interval_seconds);
        deps.tasks.spawn(look_after(shared.clone(), period, deps.shutdown.clone()));
    }
    Ok(Arc::new(Pool(shared)))
}

fn check(config: &Config) -> Result<()> {
    if config.upstreams.is_empty() {
        return Err(Error::invalid("config.upstreams", "must name at least one upstream"));
    }
    for (index, entry) in config.upstreams.iter().enumerate() {
        let field = |name: &str| format!("config.upstreams[{index}].{name}");
        if entry.id.is_empty() || !entry.id.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c)) {
            return Err(Error::invalid(field("id"), "must be letters, digits and _ - ."));
        }
        if config.upstreams[..index].iter().any(|other| other.id == entry.id) {
            return Err(Error::invalid(field("id"), format!("{:?} is taken by an earlier upstream of this pool", entry.id)));
        }
        if !(1..=1_000).contains(&entry.weight) {
            return Err(Error::invalid(field("weight"), format!("is {}; it must be 1 to 1000", entry.weight)));
        }
    }
    let (health, breaker) = (config.health, config.breaker);
    for (name, value, least) in [
        ("health.interval_seconds", health.interval_seconds, 0.0),
        ("health.timeout_seconds", health.timeout_seconds, 0.001),
        ("breaker.open_seconds", breaker.open_seconds, 0.001),
        ("breaker.max_open_seconds", breaker.max_open_seconds, 0.001),
    ] {
        if !(least..=86_400.0).contains(&value) {
            return Err(Error::invalid(format!("config.{name}"), format!("is {value}; it must be {least} to 86400 seconds")));
        }
    }
    Ok(())
}

/// Who has others beside it does not wait and try the same server again: the pool tries another at once.
fn patient(mut config: Value, kind: &str, several: bool) -> Value {
    if let (true, "remote::openai", Value::Object(fields)) = (several, kind, &mut config) {
        fields.entry("retries").or_insert(Value::from(0));
    }
    config
}

/// An upstream's error, with its place in the pool's configuration.
fn placed(error: Error, index: usize) -> Error {
    let field = error.field().unwrap_or("config").to_owned();
    error.with_field(format!("config.upstreams[{index}].{field}"))
}

async fn look_after(shared: Arc<Shared>, period: Duration, shutdown: CancellationToken) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = shared.probe() => {}
        }
    }
}

struct Pool(Arc<Shared>);

struct Shared {
    /// The provider's.
    id: String,
    upstreams: Vec<Arc<Upstream>>,
    affinity: Affinity,
    retries: budget::Limits,
    chooser: Mutex<Chooser>,
    budget: Mutex<Budget>,
    counts: figures::Counts,
    /// For an upstream to list its models.
    patience: Duration,
}

impl Shared {
    fn chooser(&self) -> MutexGuard<'_, Chooser> {
        self.chooser.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks every upstream for its models, at once.
    async fn probe(&self) -> Vec<Result<()>> {
        join_all(self.upstreams.iter().map(|upstream| upstream.probe(self.patience))).await
    }

    /// What the upstreams have listed last, together. A context is as long as the shortest that there is.
    fn models(&self) -> Vec<Model> {
        let mut all: IndexMap<String, Model> = IndexMap::new();
        for models in self.upstreams.iter().filter_map(|upstream| upstream.models()) {
            for (id, model) in models.iter() {
                let context = model.context_length;
                let known = all.entry(id.clone()).or_insert_with(|| model.clone());
                if context > 0 && (known.context_length == 0 || context < known.context_length) {
                    known.context_length = context;
                }
            }
        }
        all.into_values().collect()
    }
}

impl Pool {
    fn attempts(&self, model: &str, key: Option<u64>) -> Attempts {
        Attempts::new(self.0.clone(), model, key)
    }

    /// What the later requests of a conversation begin with as well: all up to its first words.
    fn key_of_chat(&self, cx: &Context, request: &ChatRequest) -> Option<u64> {
        let mut hasher = self.hasher(cx, &request.model)?;
        let first = request.messages.iter().position(|message| message.role() == Role::User).map_or(request.messages.len(), |at| at + 1);
        for message in &request.messages[..first] {
            (message.role, message.joined_text()).hash(&mut hasher);
        }
        Some(hasher.finish())
    }

    fn key_of_completion(&self, cx: &Context, request: &CompleteRequest) -> Option<u64> {
        let mut hasher = self.hasher(cx, &request.model)?;
        match request.prompt.as_ref()? {
            Prompt::Text(text) => text.as_bytes().get(..PREFIX).unwrap_or(text.as_bytes()).hash(&mut hasher),
            Prompt::Tokens(tokens) => tokens.ids.get(..PREFIX).unwrap_or(&tokens.ids).hash(&mut hasher),
        }
        Some(hasher.finish())
    }

    fn hasher(&self, cx: &Context, model: &str) -> Option<DefaultHasher> {
        if self.0.affinity == Affinity::None {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        (cx.tenant(), model).hash(&mut hasher);
        Some(hasher)
    }
}

/// Bytes, or tokens, of a bare prompt that count as its beginning.
const PREFIX: usize = 256;

#[async_trait::async_trait]
impl Inference for Pool {
    /// Each model's `upstreams` is how those that have it are, as JSON.
    async fn list_models(&self, _cx: &Context, request: ListModelsRequest) -> Result<ListModelsResponse> {
        let mut asked = self.0.probe().await;
        if asked.iter().all(Result::is_err)
            && let Some(Err(error)) = asked.pop()
        {
            return Err(error);
        }
        let mut models = self.0.models();
        if request.kind != 0 {
            models.retain(|model| model.kind == request.kind);
        }
        let (mut models, next_page_token) = page::slice(models, |model| &model.id, request.page_size, 1_000, &request.page_token)?;
        for model in &mut models {
            let figures = self.0.figures_of(&model.id);
            let working = figures.iter().filter(|figures| figures.works()).count();
            model.metadata.insert("state".into(), format!("{working}/{} up", figures.len()));
            model.metadata.insert("upstreams".into(), serde_json::to_string(&figures).unwrap_or_default());
            model.provider_id.clone_from(&self.0.id);
        }
        Ok(ListModelsResponse { models, next_page_token })
    }

    async fn chat(&self, cx: &Context, request: ChatRequest) -> Result<ChatResponse> {
        let attempts = self.attempts(&request.model, self.key_of_chat(cx, &request));
        let request = &request;
        attempts.whole(|inference| async move { inference.chat(cx, request.clone()).await }).await
    }

    async fn stream_chat(&self, cx: &Context, request: ChatRequest) -> Result<EventStream<ChatEvent>> {
        let attempts = self.attempts(&request.model, self.key_of_chat(cx, &request));
        let cx = cx.clone();
        let ask = move |inference: Arc<dyn Inference>| -> attempts::Opening<ChatEvent> {
            let (cx, request) = (cx.clone(), request.clone());
            Box::pin(async move { inference.stream_chat(&cx, request).await })
        };
        attempts.stream(ask).await
    }

    async fn complete(&self, cx: &Context, request: CompleteRequest) -> Result<CompleteResponse> {
        let attempts = self.attempts(&request.model, self.key_of_completion(cx, &request));
        let request = &request;
        attempts.whole(|inference| async move { inference.complete(cx, request.clone()).await }).await
    }

    async fn stream_complete(&self, cx: &Context, request: CompleteRequest) -> Result<EventStream<CompleteEvent>> {
        let attempts = self.attempts(&request.model, self.key_of_completion(cx, &request));
        let cx = cx.clone();
        let ask = move |inference: Arc<dyn Inference>| -> attempts::Opening<CompleteEvent> {
            let (cx, request) = (cx.clone(), request.clone());
            Box::pin(async move { inference.stream_complete(&cx, request).await })
        };
        attempts.stream(ask).await
    }

    async fn embed(&self, cx: &Context, request: EmbedRequest) -> Result<EmbedResponse> {
        let (attempts, request) = (self.attempts(&request.model, None), &request);
        attempts.whole(|inference| async move { inference.embed(cx, request.clone()).await }).await
    }

    async fn rerank(&self, cx: &Context, request: RerankRequest) -> Result<RerankResponse> {
        let (attempts, request) = (self.attempts(&request.model, None), &request);
        attempts.whole(|inference| async move { inference.rerank(cx, request.clone()).await }).await
    }

    async fn classify(&self, cx: &Context, request: ClassifyRequest) -> Result<ClassifyResponse> {
        let (attempts, request) = (self.attempts(&request.model, None), &request);
        attempts.whole(|inference| async move { inference.classify(cx, request.clone()).await }).await
    }

    async fn tokenize(&self, cx: &Context, request: TokenizeRequest) -> Result<TokenizeResponse> {
        let (attempts, request) = (self.attempts(&request.model, None), &request);
        attempts.whole(|inference| async move { inference.tokenize(cx, request.clone()).await }).await
    }
}
