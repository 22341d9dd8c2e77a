//! A manifest, running.

use std::{path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use llama_stack_agents::{Connect, PromptBook, Runtime, RuntimeParts};
use llama_stack_batches::Batcher;
use llama_stack_core::{
    Agents, Batches, Context, Deps, Files, Identity, Inference, Manifest, Memory, Prompts, Registry, Result, Safety, Stack as Info, Tools,
    forget::{Forget, Keepers},
    ids, manifest,
    registry::OnProgress,
    trace::Tracer,
};
use llama_stack_documents::Parse;
use llama_stack_files::{Copies, StoredFiles};
use llama_stack_identity::ApiKeyBook;
use llama_stack_memory::index::Indexes;
use llama_stack_policy::CedarPolicy;
use llama_stack_proto::v1::{ListProvidersRequest, ListProvidersResponse, McpServer};
use llama_stack_store::Store;
use llama_stack_tools::Groups;

use crate::{
    assemble, backup,
    erase::Eraser,
    filed::Filed,
    forgotten::{Follower, Others},
    history::{AuditLog, History, Log},
    identity::{Gate, tls::Tls},
    info,
    limits::{Limits, Turns},
    metrics::Metrics,
    observed::{Audited, Observed},
    openai::input_files,
    retention::Sweeper,
    telemetry::Telemetry,
};

/// How long background work may take to end once it was told to.
const GRACE: Duration = Duration::from_secs(10);

/// What a stack takes from its machine.
#[derive(Clone)]
pub struct Options {
    /// `LLAMA_STACK_HOME`: models, state, logs.
    pub home: PathBuf,
    /// Told about downloads and loading.
    pub on_progress: OnProgress,
}

/// Every service of a distribution, each behind its trait. Dropping it cancels its background work.
pub struct Stack {
    pub name: String,
    pub inference: Arc<dyn Inference>,
    pub safety: Arc<dyn Safety>,
    pub memory: Arc<dyn Memory>,
    pub files: Arc<dyn Files>,
    pub batches: Arc<dyn Batches>,
    pub tools: Arc<dyn Tools>,
    pub agents: Arc<dyn Agents>,
    pub prompts: Arc<dyn Prompts>,
    /// Who calls, and the API keys.
    pub identity: Arc<dyn Identity>,
    /// What runs here.
    pub info: Arc<dyn Info>,
    /// What happened.
    pub history: Arc<dyn llama_stack_core::Telemetry>,
    pub(crate) requests: Arc<Log>,
    pub(crate) parser: Arc<dyn Parse>,
    /// For what callers name by URL.
    pub(crate) egress: llama_stack_egress::Client,
    pub(crate) runtime: Arc<Runtime>,
    /// None: everybody is whom their headers say.
    pub(crate) gate: Option<Arc<Gate>>,
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) batcher: Arc<Batcher>,
    pub(crate) server: manifest::Server,
    pub(crate) metrics: Metrics,
    pub(crate) limits: Arc<Limits>,
    pub(crate) tasks: TaskTracker,
    pub(crate) shutdown: CancellationToken,
    pub(crate) telemetry: Option<Arc<Telemetry>>,
    store: Store,
    _cancel_on_drop: DropGuard,
}

impl Stack {
    /// Builds every provider, from left to right, and what stands over them. Nothing listens yet, and no turn runs.
    ///
    /// # Errors
    /// Whatever a provider or the store finds, as `file:line: providers.<api>[<index>].<path>: what is wrong`; a tool or
    /// shield that two providers have, at the second. A provider that does not answer yet is no error.
    pub async fn build(manifest: Manifest, registry: &Registry, options: Options) -> Result<Self> {
        crate::install_crypto();
        let (shutdown, tasks, metrics) = (CancellationToken::new(), TaskTracker::new(), Metrics::new());
        let cancel_on_drop = shutdown.clone().drop_guard();
        let telemetry = Telemetry::new(&manifest)?.map(Arc::new);
        let mut deps = Deps {
            on_progress: options.on_progress,
            egress: manifest.egress.clone(),
            shutdown: shutdown.clone(),
            tasks: tasks.clone(),
            ..Deps::new(options.home.clone())
        };
        if let Some(telemetry) = &telemetry {
            let tracer: Arc<dyn Tracer> = telemetry.clone();
            deps.extensions.insert(tracer);
        }
        let (listed, lines) = (&manifest.providers, &manifest.lines);
        let tls = Tls::from_manifest(&manifest)?;
        let store = assemble::store(&manifest, &options.home).await?;
        let requests = Log::new(manifest.telemetry.clone(), store.clone());
        tasks.spawn(requests.clone().keep(shutdown.clone()));
        let audit = AuditLog::new(requests.clone());
        let gate = Gate::from_manifest(&manifest, &store, audit.clone(), &tasks, &shutdown)?.map(Arc::new);
        deps.folder = options.home.join(&manifest.name);
        deps.extensions.insert(store.clone());
        let kept_files = StoredFiles::open(&deps, store.clone(), manifest.files.clone()).await?;
        let stored: Arc<dyn Files> = kept_files.clone();
        deps.extensions.insert(stored.clone());
        let parser = llama_stack_documents::parser(llama_stack_documents::Limits::default());
        deps.extensions.insert(parser.clone());
        let egress = input_files::client(manifest.egress.clone());
        deps.extensions.insert(metrics.pools().clone());
        let (keepers, caller) = (Keepers::default(), ids::new("stack"));
        keepers.telling(Others { store: store.clone(), caller: caller.clone() });
        deps.extensions.insert(keepers.clone());

        let providers = assemble::providers("inference", &listed.inference, &registry.inference, &deps, lines).await?;
        let inline = listed.inference.iter().filter(|provider| provider.kind.starts_with("inline::"));
        let inline: Vec<&str> = inline.map(|provider| provider.id.as_str()).collect();
        let router: Arc<dyn Inference> = Arc::new(llama_stack_inference::Router::new(providers.clone()).with_near(&inline));
        let limits = Limits::new(manifest.limits.clone(), manifest.agents.prices.clone(), store.clone());
        tasks.spawn(limits.clone().keep(shutdown.clone()));
        let observed = Observed::new(router, telemetry.clone(), metrics.clone()).metered(limits.clone());
        let inference: Arc<dyn Inference> = Arc::new(observed);
        let mut probes = info::probes(providers);
        deps.inference = Some(inference.clone()).filter(|_| !listed.inference.is_empty());

        let providers = assemble::providers("safety", &listed.safety, &registry.safety, &deps, lines).await?;
        let router = llama_stack_safety::Router::build(providers.clone()).await;
        let router = Arc::new(router.map_err(|error| assemble::routed(error, "safety", lines))?);
        let keeper: Arc<dyn Forget> = router.clone();
        keepers.enter(&keeper);
        let router: Arc<dyn Safety> = router;
        let safety: Arc<dyn Safety> = Arc::new(Observed::new(router, telemetry.clone(), metrics.clone()).audited(audit.clone()));
        assemble::shields_are_there(safety.as_ref(), &manifest).await?;
        probes.extend(info::probes(providers));
        deps.safety = Some(safety.clone());

        let indexes = Indexes::default();
        deps.extensions.insert(indexes.clone());
        let providers = assemble::providers("memory", &listed.memory, &registry.memory, &deps, lines).await?;
        // Those that keep their banks themselves.
        let elsewhere = providers.iter().map(|(id, _)| id.clone()).filter(|id| indexes.get(id).is_none()).collect();
        let router = llama_stack_memory::Router::new(providers.clone()).noting(store.clone(), keepers.clone(), elsewhere);
        let memory: Arc<dyn Memory> = Arc::new(router);
        probes.extend(info::probes(providers));
        deps.memory = Some(memory.clone());

        let providers = assemble::providers("tools", &listed.tools, &registry.tools, &deps, lines).await?;
        let router = llama_stack_tools::Router::build(providers.clone()).await;
        let groups = Groups::new(store.clone(), registry.tools.clone(), manifest.tools.runtime_types.clone(), deps.clone());
        let groups = groups.map_err(|error| assemble::at_its_field(error, lines))?;
        let router: Arc<dyn Tools> = Arc::new(router.map_err(|error| assemble::routed(error, "tools", lines))?.with_groups(groups));
        let tools: Arc<dyn Tools> = Arc::new(Observed::new(router, telemetry.clone(), metrics.clone()));
        probes.extend(info::probes(providers));
        if !manifest.agents.declared.is_empty() {
            tasks.spawn(assemble::tell_missing(inference.clone(), tools.clone(), manifest.agents.declared.clone()));
        }

        let runtime = Runtime::new(RuntimeParts {
            store: store.clone(),
            inference: inference.clone(),
            tools: Some(tools.clone()),
            safety: Some(safety.clone()),
            memory: Some(memory.clone()),
            connect: Some(Arc::new(Wires(deps.clone()))),
            policy: Some(Arc::new(Audited(CedarPolicy::from_manifest(&manifest)?, audit))),
            config: manifest.agents.clone(),
            shielding: manifest.safety.clone(),
            tasks: tasks.clone(),
            shutdown: shutdown.clone(),
        });
        let runtime = runtime.map_err(|error| assemble::at_its_field(error, lines))?;
        runtime.admitting(Turns(limits.clone()));
        let agents: Arc<dyn Agents> = runtime.clone();
        let history = History::new(agents.clone(), store.clone(), requests.clone());
        let filed = Arc::new(Filed::new(stored.clone(), memory.clone(), store.clone()));
        kept_files.expire(filed.clone(), shutdown.clone());
        let files: Arc<dyn Files> = filed;
        let batcher = Batcher::new(store.clone(), stored, manifest.batches.clone(), tasks.clone(), shutdown.clone());
        let identity = match &manifest.server.auth {
            Some(auth) => ApiKeyBook::new(store.clone()).reserving(&auth.delegates),
            None => ApiKeyBook::without_issue(store.clone()),
        };
        let identity: Arc<dyn Identity> = Arc::new(identity);
        let prompts: Arc<dyn Prompts> = Arc::new(PromptBook::new(store.clone()));
        let copies = match &manifest.files.s3 {
            Some(_) => None,
            None => Some(Copies::open(deps.folder.join("files"))?),
        };
        let kept = backup::Source {
            name: manifest.name.clone(),
            written: manifest.written.clone(),
            store: store.clone(),
            files: copies,
            indexes,
            turn: Arc::new(Semaphore::new(1)),
            tasks: tasks.clone(),
            shutdown: shutdown.clone(),
        };
        // All who keep something have entered themselves.
        tasks.spawn(Follower::new(store.clone(), keepers.clone(), caller, deps.folder.clone()).run(shutdown.clone()));
        let eraser = Eraser {
            store: store.clone(),
            memory: memory.clone(),
            files: files.clone(),
            agents: runtime.clone(),
            prompts: prompts.clone(),
            requests: requests.clone(),
            limits: limits.clone(),
            keepers,
            memory_providers: listed.memory.iter().map(|provider| provider.id.clone()).collect(),
            is_guarded: gate.is_some(),
        };
        let retention = manifest.retention.clone();
        let sweeper = Sweeper { store: store.clone(), agents: runtime.clone(), files: files.clone(), retention };
        tasks.spawn(sweeper.run(shutdown.clone()));
        let info = info::Running::new(&manifest, registry, probes, Arc::new(kept), eraser);
        Ok(Self {
            name: manifest.name,
            inference,
            safety,
            memory,
            files,
            batches: batcher.clone(),
            batcher,
            parser,
            egress,
            tools,
            agents: Arc::new(Observed::new(agents, telemetry.clone(), metrics.clone())),
            prompts,
            identity,
            gate,
            tls,
            info: Arc::new(info),
            history: Arc::new(history),
            requests,
            runtime,
            server: manifest.server,
            metrics,
            limits,
            tasks,
            shutdown,
            telemetry,
            store,
            _cancel_on_drop: cancel_on_drop,
        })
    }

    /// All but listening: looks at the address, builds the stack, asks every provider once, and takes it down again.
    ///
    /// # Errors
    /// As [`crate::check_listen`] and [`Stack::build`]. A provider that does not answer is no error here: its status says so.
    pub async fn check(manifest: Manifest, registry: &Registry, options: Options) -> Result<ListProvidersResponse> {
        crate::check_listen(&manifest)?;
        let stack = Self::build(manifest, registry, options).await?;
        let providers = stack.info.list_providers(&Context::system(), ListProvidersRequest::default()).await;
        stack.close().await;
        providers
    }

    /// Ends background work, closes the store and sends the last traces. Turns that are under way get ten seconds; one
    /// that needs longer stays unfinished in its journal and is given up: it goes on in another process, or at the next start.
    pub async fn close(self) {
        self.shutdown.cancel();
        self.tasks.close();
        if tokio::time::timeout(GRACE, self.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.tasks.len(), "background work is cut off");
            if let Err(error) = self.runtime.release().await {
                tracing::warn!(error = ?error, "turns that were cut off could not be given up: their leases have to run out");
            }
        }
        // What turns decided since the last second.
        if let Err(error) = self.requests.flush().await {
            tracing::warn!(error = ?error, "the last requests and decisions could not be written down");
        }
        self.store.close().await;
        if let Some(telemetry) = &self.telemetry {
            telemetry.shutdown().await;
        }
    }
}

/// Reaches the MCP servers that turns bring: through the egress guard, as any tool.
struct Wires(Deps);

#[async_trait::async_trait]
impl Connect for Wires {
    async fn connect(&self, _cx: &Context, server: &McpServer) -> Result<Arc<dyn Tools>> {
        llama_stack_tools::mcp::connect(server, &self.0).await
    }
}
