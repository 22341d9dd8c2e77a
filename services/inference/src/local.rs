//! `inline::local`: "run this model here". Takes the engine that suits the files and the machine, and says which and why.
//!
//! | files | machine | engine |
//! |---|---|---|
//! | GGUF | CPU | llama.cpp: reads prompts several times faster there, and batches |
//! | GGUF that mistral.rs runs as it was trained | accelerator, in a build with one | mistral.rs |
//! | safetensors: an encoder | any | candle |
//! | safetensors: anything else | any | mistral.rs |
//!
//! `engine: llama-cpp | mistralrs | candle` beside a model's `id` forces it.

use std::{collections::BTreeMap, sync::Arc};

use indexmap::IndexMap;
use prost_types::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use llama_stack_core::{Context, Deps, Error, EventStream, Inference, Registry, Result, Table, ids, no_such_model, page};
use llama_stack_models::{ModelSpec, ModelStore, Resolved, gguf};
use llama_stack_proto::v1::{
    ChatEvent, ChatRequest, ClassifyRequest, ClassifyResponse, CompleteEvent, CompleteRequest, EmbedRequest, EmbedResponse,
    ListModelsRequest, ListModelsResponse, Model, RerankRequest, RerankResponse, TokenizeRequest, TokenizeResponse,
};

const LLAMA_CPP: &str = "llama-cpp";
const MISTRALRS: &str = "mistralrs";
const CANDLE: &str = "candle";

/// GGUF architectures that mistral.rs runs.
const MISTRALRS_GGUF: [&str; 8] = ["llama", "mistral3", "phi2", "phi3", "starcoder2", "qwen2", "qwen3", "qwen3moe"];

/// The engines of a build.
#[derive(Default)]
pub struct Engines {
    /// As `inline::<engine>`.
    pub table: Table<dyn Inference>,
    /// mistral.rs was built for a GPU.
    pub accelerated: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Each as the engines take it, and `engine`.
    models: Vec<Map<String, Value>>,
    /// Everything else is the engines' own.
    #[serde(default)]
    queue: Option<usize>,
    #[serde(default)]
    max_tokens: Option<u32>,
    #[serde(default)]
    load: Option<String>,
    /// These two are llama.cpp's: models of the other engines stay loaded.
    #[serde(default)]
    keep_alive_seconds: Option<u64>,
    #[serde(default)]
    memory_megabytes: Option<u64>,
}

/// Adds `inline::local` over these engines.
pub fn register(registry: &mut Registry, engines: Engines) {
    let engines = Arc::new(engines);
    registry.inference.add("inline::local", move |config, deps| build(engines.clone(), config, deps));
}

/// Which engine a model got, and why.
#[derive(Debug, PartialEq, Eq)]
struct Choice {
    engine: &'static str,
    why: String,
}

/// The models of all engines as one provider.
struct Local {
    /// By model id.
    models: IndexMap<String, (Arc<dyn Inference>, Choice)>,
    providers: Vec<Arc<dyn Inference>>,
    /// When the models came to this stack.
    since: Timestamp,
}

async fn build(engines: Arc<Engines>, config: Config, deps: Deps) -> Result<Arc<dyn Inference>> {
    if config.models.is_empty() {
        return Err(Error::invalid("config.models", "needs at least one model"));
    }
    let store = ModelStore::open(deps.home.join("models"))?;
    let mut chosen = IndexMap::new();
    let mut by_engine: BTreeMap<&'static str, Vec<Value>> = BTreeMap::new();
    for (index, mut model) in config.models.iter().cloned().enumerate() {
        let at = |error: Error| {
            let field = error.field().map(|field| format!(".{field}")).unwrap_or_default();
            error.with_field(format!("config.models[{index}]{field}"))
        };
        let forced = model.remove("engine");
        let spec: ModelSpec = serde_json::from_value(Value::Object(model.clone()))
            .map_err(|error| at(Error::invalid("", error.to_string()).with_reason("invalid_model")))?;
        let files = spec.resolve(&store, &deps.on_progress).await.map_err(at)?;
        let choice = choose(&engines, forced.as_ref(), &files).map_err(at)?;
        tracing::info!(model = spec.id, engine = choice.engine, why = choice.why, "engine chosen");
        by_engine.entry(choice.engine).or_default().push(Value::Object(model));
        if chosen.insert(spec.id.clone(), choice).is_some() {
            return Err(at(Error::invalid("id", format!("{:?} is the id of an earlier model", spec.id))));
        }
    }
    let mut providers: BTreeMap<&'static str, Arc<dyn Inference>> = BTreeMap::new();
    for (engine, models) in by_engine {
        if engine != LLAMA_CPP && (config.keep_alive_seconds.is_some() || config.memory_megabytes.is_some()) {
            tracing::warn!(
                engine,
                models = models.len(),
                "this engine unloads no model: keep_alive_seconds and memory_megabytes pass it over"
            );
        }
        let built = engines.table.build(&format!("inline::{engine}"), config.of(engine, models), deps.clone()).await?;
        providers.insert(engine, built);
    }
    let of = |choice: &Choice| providers.get(choice.engine).cloned();
    let models = chosen.into_iter().filter_map(|(id, choice)| Some((id, (of(&choice)?, choice)))).collect();
    Ok(Arc::new(Local { models, providers: providers.into_values().collect(), since: ids::now() }))
}

impl Config {
    /// For one of the engines, without what it does not know.
    fn of(&self, engine: &str, models: Vec<Value>) -> Value {
        let mut config = json!({ "models": models });
        let mut set = |key: &str, value: Value| {
            if !value.is_null() {
                config[key] = value;
            }
        };
        set("queue", json!(self.queue));
        if engine != CANDLE {
            set("max_tokens", json!(self.max_tokens));
            set("load", json!(self.load));
        }
        if engine == LLAMA_CPP {
            set("keep_alive_seconds", json!(self.keep_alive_seconds));
            set("memory_megabytes", json!(self.memory_megabytes));
        }
        config
    }
}

fn choose(engines: &Engines, forced: Option<&Value>, files: &Resolved) -> Result<Choice> {
    let there = |engine: &str| engines.table.types().any(|name| name.strip_prefix("inline::") == Some(engine));
    if let Some(forced) = forced {
        let engine = [LLAMA_CPP, MISTRALRS, CANDLE].into_iter().find(|engine| forced.as_str() == Some(engine));
        let engine = engine.ok_or_else(|| Error::invalid("engine", format!("engine is {forced}; it is llama-cpp, mistralrs or candle")))?;
        return Ok(Choice { engine, why: "the manifest says so".into() });
    }
    let choice = |engine, why: &str| Ok(Choice { engine, why: why.into() });
    let Some(info) = &files.gguf else {
        return match encoder(files) {
            Some(architecture) => Ok(Choice { engine: CANDLE, why: format!("{architecture} is an encoder in safetensors") }),
            None => choice(MISTRALRS, "the model is in safetensors"),
        };
    };
    let known = MISTRALRS_GGUF.contains(&info.architecture.as_str());
    let accelerated = engines.accelerated && known && there(MISTRALRS);
    match (accelerated && wrong_in_mistralrs(files, info).is_none(), there(LLAMA_CPP)) {
        (true, _) => choice(MISTRALRS, "this build uses an accelerator"),
        (false, true) => {
            let why = wrong_in_mistralrs(files, info).filter(|_| accelerated);
            choice(LLAMA_CPP, why.unwrap_or(if engines.accelerated { "a GGUF file" } else { "a GGUF file on the CPU" }))
        }
        (false, false) if known => choice(MISTRALRS, "this build has no llama.cpp"),
        (false, false) => {
            let message = format!("no engine of this build runs the GGUF architecture {:?}", info.architecture);
            Err(Error::invalid("files", message).with_reason("no_engine"))
        }
    }
}

/// What of a GGUF file mistral.rs 0.8.1 passes over, though it runs the architecture: docs/models.md.
fn wrong_in_mistralrs(files: &Resolved, info: &gguf::Info) -> Option<&'static str> {
    let splits_digits = matches!(info.pre_tokenizer.as_deref(), Some("llama-bpe" | "llama3" | "llama-v3"));
    match () {
        () if info.scaled_positions => Some("mistral.rs would pass over the scaling of its positions"),
        () if info.architecture == "phi3" => Some("mistral.rs would pass over the base of its positions"),
        () if splits_digits && files.file("tokenizer.json").is_err() => Some("mistral.rs would split its numbers wrongly"),
        () => None,
    }
}

/// The architecture that `config.json` names, if candle runs it.
fn encoder(files: &Resolved) -> Option<String> {
    let config = std::fs::read(files.file("config.json").ok()?).ok()?;
    let config: Value = serde_json::from_slice(&config).ok()?;
    let name = config["architectures"][0].as_str()?;
    (name.starts_with("Bert") || name.starts_with("DebertaV2")).then(|| name.to_owned())
}

impl Local {
    fn of(&self, id: &str) -> Result<&Arc<dyn Inference>> {
        let found = self.models.get(id).map(|(provider, _)| provider);
        found.ok_or_else(|| no_such_model(id, self.models.keys().map(String::as_str)))
    }

    fn explained(&self, mut model: Model) -> Model {
        if let Some((_, choice)) = self.models.get(&model.id) {
            model.metadata.insert("engine_reason".into(), choice.why.clone());
        }
        model.created = model.created.or(Some(self.since));
        model
    }
}

#[async_trait::async_trait]
impl Inference for Local {
    async fn list_models(&self, cx: &Context, request: ListModelsRequest) -> Result<ListModelsResponse> {
        let mut models = Vec::new();
        for provider in &self.providers {
            let all = ListModelsRequest { kind: request.kind, ..ListModelsRequest::default() };
            models.extend(provider.list_models(cx, all).await?.models.into_iter().map(|model| self.explained(model)));
        }
        models.sort_by_key(|model| self.models.get_index_of(&model.id));
        let (models, next_page_token) = page::slice(models, |model| &model.id, request.page_size, 1_000, &request.page_token)?;
        Ok(ListModelsResponse { models, next_page_token })
    }

    async fn stream_chat(&self, cx: &Context, request: ChatRequest) -> Result<EventStream<ChatEvent>> {
        self.of(&request.model)?.stream_chat(cx, request).await
    }

    async fn stream_complete(&self, cx: &Context, request: CompleteRequest) -> Result<EventStream<CompleteEvent>> {
        self.of(&request.model)?.stream_complete(cx, request).await
    }

    async fn embed(&self, cx: &Context, request: EmbedRequest) -> Result<EmbedResponse> {
        self.of(&request.model)?.embed(cx, request).await
    }

    async fn rerank(&self, cx: &Context, request: RerankRequest) -> Result<RerankResponse> {
        self.of(&request.model)?.rerank(cx, request).await
    }

    async fn classify(&self, cx: &Context, request: ClassifyRequest) -> Result<ClassifyResponse> {
        self.of(&request.model)?.classify(cx, request).await
    }

    async fn tokenize(&self, cx: &Context, request: TokenizeRequest) -> Result<TokenizeResponse> {
        self.of(&request.model)?.tokenize(cx, request).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engines(there: &[&'static str], accelerated: bool) -> Engines {
        let mut table: Table<dyn Inference> = Table::default();
        for &name in there {
            table.add(name, |_: Value, _: Deps| async { Err::<Arc<dyn Inference>, _>(Error::internal("only its name is asked for")) });
        }
        Engines { table, accelerated }
    }

    fn model(gguf: Option<gguf::Info>) -> Resolved {
        let (dir, files) = (std::path::PathBuf::from("/nowhere"), BTreeMap::new());
        Resolved { id: "m".into(), dir, files, gguf, chat_template: None, context_length: None, license: None }
    }

    fn of(architecture: &str) -> gguf::Info {
        gguf::Info { architecture: architecture.into(), ..gguf::Info::default() }
    }

    fn taken(engines: &Engines, info: gguf::Info) -> &'static str {
        choose(engines, None, &model(Some(info))).unwrap().engine
    }

    const BOTH: [&str; 2] = ["inline::llama-cpp", "inline::mistralrs"];

    #[test]
    fn files_and_machine_choose_the_engine() {
        let (cpu, gpu) = (engines(&BOTH, false), engines(&BOTH, true));
        assert_eq!((taken(&cpu, of("qwen2")), taken(&gpu, of("qwen2"))), (LLAMA_CPP, MISTRALRS));
        assert_eq!(taken(&gpu, of("gemma2")), LLAMA_CPP, "mistral.rs does not know it");
        assert_eq!(choose(&cpu, None, &model(None)).unwrap().engine, MISTRALRS, "safetensors");
        assert_eq!(taken(&engines(&BOTH[1..], false), of("qwen2")), MISTRALRS, "there is no other");
        let none = choose(&engines(&BOTH[1..], false), None, &model(Some(of("gemma2")))).unwrap_err();
        assert_eq!((none.reason(), none.field()), (Some("no_engine"), Some("files")));
    }

    #[test]
    fn a_model_without_a_time_of_its_own_is_as_old_as_the_stack() {
        let time = |seconds| Timestamp { seconds, nanos: 0 };
        let local = Local { models: IndexMap::new(), providers: Vec::new(), since: time(7) };
        let told = |created| local.explained(Model { created, ..Model::default() }).created;
        assert_eq!((told(None), told(Some(time(3)))), (Some(time(7)), Some(time(3))));
    }

    /// Llama 3.1 and later, Phi, and Llama 3 without its tokenizer.
    #[test]
    fn an_accelerator_is_no_reason_for_an_engine_that_reads_the_model_wrongly() {
        let gpu = engines(&BOTH, true);
        let scaled = gguf::Info { scaled_positions: true, ..of("llama") };
        let digits = gguf::Info { pre_tokenizer: Some("llama-bpe".into()), ..of("llama") };
        for info in [scaled, of("phi3"), digits.clone()] {
            let choice = choose(&gpu, None, &model(Some(info))).unwrap();
            assert_eq!(choice.engine, LLAMA_CPP);
            assert!(choice.why.contains("mistral.rs would"), "{}", choice.why);
        }
        let mut whole = model(Some(digits));
        whole.files.insert("tokenizer.json".into(), "/nowhere/tokenizer.json".into());
        assert_eq!(choose(&gpu, None, &whole).unwrap().engine, MISTRALRS);
    }

    #[test]
    fn the_manifest_has_the_last_word() {
        let (both, smollm) = (engines(&BOTH, false), model(Some(of("llama"))));
        let forced = |name: &str| choose(&both, Some(&json!(name)), &smollm);
        let choice = forced("mistralrs").unwrap();
        assert_eq!((choice.engine, choice.why.as_str()), (MISTRALRS, "the manifest says so"));
        assert_eq!(forced("vllm").unwrap_err().field(), Some("engine"));
    }
}
