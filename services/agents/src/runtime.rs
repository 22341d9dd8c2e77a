//! The runtime: what it is made of, and the service that it is.

use std::{
    any::Any,
    collections::hash_map::RandomState,
    hash::BuildHasher,
    sync::{Arc, OnceLock},
    time::Duration,
};

use llama_stack_core::{Agents, Context, Error, EventStream, Inference, Memory, Result, Safety, Tools, manifest};
use llama_stack_policy::Policy;
use llama_stack_proto::v1::{
    Agent, CancelTurnRequest, CompactRequest, CompactResponse, CreateAgentRequest, CreateSessionRequest, CreateTurnRequest,
    DeleteAgentRequest, DeleteAgentResponse, DeleteSessionRequest, DeleteSessionResponse, DeleteTurnRequest, DeleteTurnResponse,
    GetAgentRequest, GetSessionRequest, GetTurnRequest, ListAgentsRequest, ListAgentsResponse, ListSessionsRequest, ListSessionsResponse,
    ListTurnsRequest, ListTurnsResponse, RedactTurnRequest, ResumeTurnRequest, Session, Turn, TurnEvent, UpdateAgentRequest,
    UpdateSessionRequest, Usage, WatchTurnRequest,
};
use llama_stack_store::Store;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    agents, begin,
    declared::Declared,
    fold::Fold,
    history::Histories,
    lease,
    lease::Lease,
    live::Lives,
    recover,
    servers::{Connect, Resting},
    sessions, summary, turns, watch,
};

/// What a runtime is made of.
pub struct RuntimeParts {
    pub store: Store,
    pub inference: Arc<dyn Inference>,
    pub tools: Option<Arc<dyn Tools>>,
    pub safety: Option<Arc<dyn Safety>>,
    /// What `file_search` searches.
    pub memory: Option<Arc<dyn Memory>>,
    /// Reaches the MCP servers that turns bring.
    pub connect: Option<Arc<dyn Connect>>,
    /// Decides on every call of a tool.
    pub policy: Option<Arc<dyn Policy>>,
    /// The manifest's word on agents.
    pub config: manifest::Agents,
    /// Its word on shields: which judge every turn, and what happens where one cannot.
    pub shielding: manifest::Safety,
    /// Turns run here, each to its end; shutdown waits for them as long as it likes. One that is cut off stays
    /// unfinished in its journal and goes on at the next start, or in another process.
    pub tasks: TaskTracker,
    /// Once cancelled no turn begins or resumes any more.
    pub shutdown: CancellationToken,
}

/// Says whether a caller may have one more turn run.
pub trait Admit: Send + Sync + 'static {
    /// What is returned is dropped when the turn does not run any more.
    ///
    /// # Errors
    /// `ResourceExhausted` with the time to come back.
    fn admit(&self, cx: &Context) -> Result<Box<dyn Any + Send>>;

    /// The same for a turn that goes on here after its process is gone: it was let in once, so it is not asked whether it may, but it
    /// counts.
    fn readmit(&self, cx: &Context) -> Box<dyn Any + Send>;
}

/// Agents, sessions and turns, over a store and the services to the left.
///
/// All ids are the tenant's own: those of another are `NotFound`, as if they did not exist.
pub struct Runtime(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) parts: RuntimeParts,
    pub(crate) lives: Lives,
    pub(crate) histories: Histories,
    pub(crate) declared: Declared,
    pub(crate) resting: Resting,
    pub(crate) lease: Arc<Lease>,
    keys: Keys,
    admit: OnceLock<Box<dyn Admit>>,
}

/// One call at a time under an idempotency key: a repetition that comes while the first call still begins must find
/// its turn, not a session that is busy. Keys share a fixed number of locks.
struct Keys {
    hasher: RandomState,
    locks: Vec<Arc<Mutex<()>>>,
}

impl Runtime {
    /// Must be called within a tokio runtime: the leases of what runs are renewed by one of `parts.tasks`.
    ///
    /// # Errors
    /// `InvalidArgument` on `agents.…`: what is wrong with an agent that the manifest declares.
    pub fn new(parts: RuntimeParts) -> Result<Arc<Self>> {
        let lease = Duration::from_secs(parts.config.lease_seconds.into());
        Self::with_lease(parts, lease)
    }

    /// [`Runtime::new`], with another time than the manifest's after which a turn whose process is gone or stuck is
    /// another's. It must be long beside what the processes' clocks differ by.
    ///
    /// # Errors
    /// As [`Runtime::new`].
    pub fn with_lease(parts: RuntimeParts, duration: Duration) -> Result<Arc<Self>> {
        let declared = Declared::new(&parts.config.declared)?;
        let keys = Keys { hasher: RandomState::new(), locks: (0..64).map(|_| Arc::default()).collect() };
        let lease = Arc::new(Lease::new(duration));
        let shared = Arc::new(Shared {
            parts,
            lives: Lives::default(),
            histories: Histories::default(),
            declared,
            resting: Resting::default(),
            lease,
            keys,
            admit: OnceLock::new(),
        });
        lease::keep(&shared);
        Ok(Arc::new(Self(shared)))
    }

    /// Asks this before a caller's turn begins or is resumed, and tells it of those that go on after a crash. Turns that answer a call of
    /// another's are a part of that. The first one stays.
    pub fn admitting(&self, admit: impl Admit) {
        // An `Err` gives it back: there is one already.
        let _ = self.0.admit.set(Box::new(admit));
    }

    /// Goes on with the turns that nobody owns, and returns how many there are; they run in the background. From then on
    /// it looks for more, three times in the time of a lease. To be called once, before the first request.
    ///
    /// Nobody owns a turn once its process has given it up, or has not renewed its lease in time. In a SQLite file that
    /// no other process has open that is so at once.
    ///
    /// An inference that was cut off runs again. A tool call that was cut off runs again, under the same idempotency
    /// key, if its tool says `ON_INTERRUPT_RETRY`; else the model is told that it may have run.
    ///
    /// # Errors
    /// The store's. A journal that cannot be read is logged and left alone.
    pub async fn recover(&self) -> Result<usize> {
        recover::recover(&self.0).await
    }

    /// Stops the turns that still run here where they are, and gives them up, so that another process goes on with them
    /// at once; returns how many. To be called at the shutdown, when their time to end is over.
    ///
    /// # Errors
    /// The store's. Then their leases have to run out.
    pub async fn release(&self) -> Result<usize> {
        lease::release(&self.0).await
    }
}

impl Shared {
    /// # Errors
    /// `Unavailable` while the stack shuts down.
    pub(crate) fn accepting(&self) -> Result<()> {
        if self.parts.shutdown.is_cancelled() {
            return Err(Error::unavailable("the stack is shutting down").with_reason("shutting_down"));
        }
        Ok(())
    }

    /// # Errors
    /// `ResourceExhausted` the caller has as many turns as they may.
    pub(crate) fn admit(&self, cx: &Context) -> Result<Option<Box<dyn Any + Send>>> {
        self.admit.get().map(|admit| admit.admit(cx)).transpose()
    }

    pub(crate) fn readmit(&self, cx: &Context) -> Option<Box<dyn Any + Send>> {
        self.admit.get().map(|admit| admit.readmit(cx))
    }

    /// The turn as its journal tells it.
    ///
    /// # Errors
    /// `NotFound` · `DataLoss` for a damaged journal.
    pub(crate) async fn load(&self, tenant: &str, turn_id: &str) -> Result<Fold> {
        Fold::of(self.parts.store.journal(tenant, turn_id, 0).await?)
    }

    /// What an inference cost, by the manifest's price table.
    pub(crate) fn cost(&self, model: &str, usage: Option<&Usage>) -> f64 {
        let (Some(price), Some(usage)) = (self.parts.config.prices.get(model), usage) else { return 0.0 };
        price.of(usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens)
    }

    pub(crate) async fn lock_key(&self, tenant: &str, key: &str) -> Option<OwnedMutexGuard<()>> {
        let hash = usize::try_from(self.keys.hasher.hash_one((tenant, key)) % 64).unwrap_or_default();
        Some(self.keys.locks.get(hash)?.clone().lock_owned().await)
    }
}

/// # Turns at once
/// A session runs one turn at a time: while one is in progress, a `CreateTurn` there is `FailedPrecondition`
/// (`turn_in_progress`), unless it names the `parent_turn_id` to branch off from.
///
/// # Streams
/// `CreateTurn`, `ResumeTurn` and `WatchTurn` end when the turn has ended or waits for the client's tools. Dropping one
/// stops the watching, or, with `ON_DISCONNECT_CANCEL`, the turn. The caller's deadline ends the stream only; a turn has
/// its own, `max_seconds`. Deltas of a step that runs are replayed from its beginning to whoever joins, up to 4,096
/// events; one that is slower than that finds the whole step in its `step_completed`.
///
/// Where an agent has output shields its words are held back until they have been judged, whole or window by window, unless
/// its `output_moderation` says `AFTER`. Calls are held wherever shields judge the answer or their arguments.
#[async_trait::async_trait]
impl Agents for Runtime {
    async fn create_agent(&self, cx: &Context, request: CreateAgentRequest) -> Result<Agent> {
        cx.within(agents::create(&self.0, cx, request)).await
    }

    async fn get_agent(&self, cx: &Context, request: GetAgentRequest) -> Result<Agent> {
        cx.within(self.0.agent(cx.tenant(), &request.id)).await
    }

    async fn list_agents(&self, cx: &Context, request: ListAgentsRequest) -> Result<ListAgentsResponse> {
        cx.within(agents::list(&self.0, cx, request)).await
    }

    async fn update_agent(&self, cx: &Context, request: UpdateAgentRequest) -> Result<Agent> {
        cx.within(agents::update(&self.0, cx, request)).await
    }

    async fn delete_agent(&self, cx: &Context, request: DeleteAgentRequest) -> Result<DeleteAgentResponse> {
        cx.within(agents::delete(&self.0, cx, &request.id)).await?;
        Ok(DeleteAgentResponse {})
    }

    async fn create_session(&self, cx: &Context, request: CreateSessionRequest) -> Result<Session> {
        cx.within(sessions::create(&self.0, cx, request)).await
    }

    async fn get_session(&self, cx: &Context, request: GetSessionRequest) -> Result<Session> {
        cx.within(self.0.parts.store.get_session(cx.tenant(), &request.id)).await
    }

    async fn list_sessions(&self, cx: &Context, request: ListSessionsRequest) -> Result<ListSessionsResponse> {
        let agent_id = Some(request.agent_id.as_str()).filter(|id| !id.is_empty());
        let list = self.0.parts.store.list_sessions(cx.tenant(), &cx.principal().id, agent_id, request.page_size, &request.page_token);
        let (sessions, next_page_token) = cx.within(list).await?;
        Ok(ListSessionsResponse { sessions, next_page_token })
    }

    async fn delete_session(&self, cx: &Context, request: DeleteSessionRequest) -> Result<DeleteSessionResponse> {
        cx.within(sessions::delete(&self.0, cx, request)).await
    }

    async fn get_turn(&self, cx: &Context, request: GetTurnRequest) -> Result<Turn> {
        cx.within(turns::get(&self.0, cx, &request.id)).await
    }

    async fn list_turns(&self, cx: &Context, request: ListTurnsRequest) -> Result<ListTurnsResponse> {
        cx.within(turns::list(&self.0, cx, request)).await
    }

    async fn cancel_turn(&self, cx: &Context, request: CancelTurnRequest) -> Result<Turn> {
        cx.within(turns::cancel(&self.0, cx, &request.id)).await
    }

    async fn delete_turn(&self, cx: &Context, request: DeleteTurnRequest) -> Result<DeleteTurnResponse> {
        cx.within(turns::delete(&self.0, cx, &request.id)).await
    }

    async fn redact_turn(&self, cx: &Context, request: RedactTurnRequest) -> Result<Turn> {
        cx.within(turns::redact(&self.0, cx, request)).await
    }

    async fn update_session(&self, cx: &Context, request: UpdateSessionRequest) -> Result<Session> {
        cx.within(sessions::update(&self.0, cx, request)).await
    }

    async fn compact(&self, cx: &Context, request: CompactRequest) -> Result<CompactResponse> {
        cx.within(summary::compact(&self.0, cx, request)).await
    }

    async fn create_turn(&self, cx: &Context, request: CreateTurnRequest) -> Result<EventStream<TurnEvent>> {
        begin::create(&self.0, cx, request).await
    }

    async fn resume_turn(&self, cx: &Context, request: ResumeTurnRequest) -> Result<EventStream<TurnEvent>> {
        turns::resume(&self.0, cx, request).await
    }

    async fn watch_turn(&self, cx: &Context, request: WatchTurnRequest) -> Result<EventStream<TurnEvent>> {
        watch::watch(&self.0, cx, &request.turn_id, request.after_sequence).await
    }
}
