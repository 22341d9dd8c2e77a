//! Beginning a turn: where it belongs, what it runs with, and its input in the journal before anything else.

use std::sync::Arc;

use llama_stack_core::{Context, Error, EventStream, Result, failpoint, ids};
use llama_stack_proto::v1::{
    AgentConfig, CreateTurnRequest, Limits, McpServer, OnDisconnect, Session, Turn, TurnEvent, TurnStatus, turn_event::Event,
};
use llama_stack_store::{BeginTurn, Begun, FIRST_EPOCH};
use tokio::sync::{OwnedMutexGuard, oneshot, watch::Receiver};
use tokio_util::sync::CancellationToken;

use crate::{
    check, conversation, delegate, edge,
    fold::Fold,
    hash,
    journal::{Journal, session_of},
    live::{Running, Tail, in_progress},
    run::Run,
    runtime::Shared,
    servers::without_secrets,
    watch::{self, Watcher},
};

/// A turn that is about to begin.
struct Draft {
    turn: Turn,
    new_session: Option<Session>,
    running: Running,
    /// The caller's key and the hash of the request.
    key: Option<(String, String)>,
    /// The turn's MCP servers as they were given: the journal has them without their secrets.
    servers: Vec<McpServer>,
    guard: Option<OwnedMutexGuard<()>>,
    cancels: bool,
}

/// A turn that answers a call of another.
pub(crate) struct Called {
    pub(crate) turn_id: String,
    pub(crate) caller_turn_id: String,
    pub(crate) depth: u32,
    /// What the caller lets it take.
    pub(crate) limits: Limits,
}

/// What the caller follows: this turn, or the one that an earlier call began.
enum Follow {
    New(String, Receiver<Tail>, CancellationToken),
    Existing(String),
}

pub(crate) async fn create(shared: &Arc<Shared>, cx: &Context, request: CreateTurnRequest) -> Result<EventStream<TurnEvent>> {
    shared.accepting()?;
    let cancels = cancels(request.on_disconnect());
    let mut guard = None;
    // With whose it is: callers choose their keys, and two may choose the same.
    let key = cx.idempotency_key().map(|key| (hash::of(&[&cx.principal().id, key]), hash::of_request(&request)));
    if let Some((key, hash)) = &key {
        guard = shared.lock_key(cx.tenant(), key).await;
        if let Some(turn_id) = shared.parts.store.turn_of_key(cx.tenant(), key, hash).await? {
            return existing(shared, cx, &turn_id, cancels).await;
        }
    }
    let admitted = shared.admit(cx)?;
    let mut draft = draft(shared, cx, request, None).await?;
    (draft.key, draft.guard) = (key, guard);
    draft.running.keep(admitted);
    follow(shared, cx, draft).await
}

/// Begins a turn that answers a call of another, beside the history of its session.
pub(crate) async fn call(shared: &Arc<Shared>, cx: &Context, request: CreateTurnRequest, called: Called) -> Result<()> {
    let draft = draft(shared, cx, request, Some(called)).await?;
    follow(shared, cx, draft).await.map(drop)
}

async fn follow(shared: &Arc<Shared>, cx: &Context, draft: Draft) -> Result<EventStream<TurnEvent>> {
    let cancels = draft.cancels;
    let (tell, told) = oneshot::channel();
    // From here on in a task of its own: a caller who goes away must not leave a turn that nobody runs.
    shared.parts.tasks.spawn(begin(shared.clone(), cx.detached(), draft, tell));
    let told = async { told.await.map_err(|_| Error::internal("the turn could not be begun"))? };
    match cx.within(told).await? {
        Follow::New(turn_id, tail, token) => {
            let watcher = Watcher::new(shared, cx, &turn_id, 0).with_tail(tail);
            Ok(watcher.cancelling(cancels.then_some(token)).stream())
        }
        Follow::Existing(turn_id) => existing(shared, cx, &turn_id, cancels).await,
    }
}

pub(crate) fn cancels(on_disconnect: OnDisconnect) -> bool {
    on_disconnect == OnDisconnect::Cancel
}

/// Watches the turn that the first call under this key began.
async fn existing(shared: &Arc<Shared>, cx: &Context, turn_id: &str, cancels: bool) -> Result<EventStream<TurnEvent>> {
    // The turn may have been deleted since, and then there is nothing to watch.
    watch::exists(shared, cx.tenant(), turn_id).await?;
    let token = shared.lives.get(cx.tenant(), turn_id).filter(|_| cancels).map(|live| live.cancel.clone());
    Ok(Watcher::new(shared, cx, turn_id, 0).cancelling(token).stream())
}

async fn begin(shared: Arc<Shared>, cx: Context, draft: Draft, tell: oneshot::Sender<Result<Follow>>) {
    let Draft { turn, new_session, running, key, servers, guard, cancels } = draft;
    let turn_id = turn.id.clone();
    let time = turn.created;
    let created = TurnEvent { turn_id: turn_id.clone(), sequence: 1, time, event: Some(Event::Created(Box::new(turn))) };
    let idempotency = key.as_ref().map(|(key, hash)| (key.as_str(), hash.as_str()));
    let api_key = cx.key().map_or("", |key| key.id);
    let begin = BeginTurn { holder: shared.lease.holder(), created: &created, api_key, idempotency, new_session: new_session.as_ref() };
    failpoint::hit("input.before");
    let begun = shared.parts.store.begin_turn(cx.tenant(), begin).await;
    failpoint::hit("input.journalled");
    drop(guard);
    let fold = match begun.and_then(|begun| Ok((begun, Fold::of([created.clone()])?))) {
        Ok((Begun::New, fold)) => fold,
        // If nobody listens any more, nobody needs to know.
        Ok((Begun::Existing(turn_id), _)) => return drop(tell.send(Ok(Follow::Existing(turn_id)))),
        Err(error) => return drop(tell.send(Err(error))),
    };
    let live = running.live().clone();
    let journal = Journal::new(&shared, cx.tenant(), fold, running, Some(FIRST_EPOCH));
    let follow = Follow::New(turn_id, live.tail(), live.cancel.clone());
    journal.show_created(created);
    if tell.send(Ok(follow)).is_err() && cancels {
        live.cancel.cancel();
    }
    Run::new(shared, cx, journal, false).with_servers(servers).run().await;
}

async fn draft(shared: &Arc<Shared>, cx: &Context, request: CreateTurnRequest, called: Option<Called>) -> Result<Draft> {
    check::metadata("metadata", &request.metadata)?;
    if request.background && request.store == Some(false) {
        return Err(Error::invalid("background", "a turn in the background must be stored: nobody could ask for it else"));
    }
    let turn_id = called.as_ref().map_or_else(|| ids::new("turn"), |called| called.turn_id.clone());
    let cancels = cancels(request.on_disconnect());
    let place = place(shared, cx, &request, &turn_id, called.is_some()).await?;
    let (awaited, asked) =
        place.parent.as_ref().map(|parent| (parent.awaiting.as_slice(), parent.approvals.as_slice())).unwrap_or_default();
    let now = ids::now();
    let decisions = edge::decisions(request.decisions, asked, false, &now)?;
    let input = edge::input(request.input, awaited, !decisions.is_empty())?;
    let decided = asked.to_vec();
    let (agent_id, mut config) = if request.append_only {
        // Later turns read it, so the shields of every turn judge it.
        let limits = Some(check::effective(None, &shared.parts.config.limits));
        let mut config = AgentConfig { limits, ..AgentConfig::default() };
        check::add_defaults(&mut config, &shared.parts.shielding.defaults);
        (String::new(), config)
    } else {
        configuration(shared, cx, request.config, request.agent_id, &place.session).await?
    };
    if let (Some(called), Some(limits)) = (&called, config.limits) {
        config.limits = Some(delegate::narrower(limits, &called.limits));
    }
    let servers = config.mcp_servers.clone();
    config.mcp_servers.iter_mut().for_each(without_secrets);
    let turn = Turn {
        id: turn_id,
        session_id: place.session.id.clone(),
        parent_turn_id: place.parent.map(|parent| parent.turn.id).unwrap_or_default(),
        agent_id,
        config: Some(config),
        status: TurnStatus::InProgress.into(),
        input,
        metadata: request.metadata,
        created: Some(now),
        store: request.store.unwrap_or(true),
        decisions,
        decided,
        background: request.background,
        append_only: request.append_only,
        prompt: request.prompt,
        principal: cx.principal().id.clone(),
        principal_roles: cx.principal().roles.clone(),
        depth: called.as_ref().map_or(0, |called| called.depth),
        caller_turn_id: called.map(|called| called.caller_turn_id).unwrap_or_default(),
        ..Turn::default()
    };
    let new_session = place.new.then_some(place.session);
    Ok(Draft { turn, new_session, running: place.running, key: None, servers, guard: None, cancels })
}

/// Where a turn belongs.
struct Place {
    session: Session,
    /// The session is made with the turn.
    new: bool,
    parent: Option<Fold>,
    running: Running,
}

async fn place(shared: &Shared, cx: &Context, request: &CreateTurnRequest, turn_id: &str, called: bool) -> Result<Place> {
    let (tenant, store) = (cx.tenant(), &shared.parts.store);
    if called {
        let session = store.get_session(tenant, &request.session_id).await?;
        let running = shared.lives.enter(tenant, &session.id, turn_id, 0, false)?;
        return Ok(Place { session, new: false, parent: None, running });
    }
    if !request.parent_turn_id.is_empty() {
        let parent = shared.load(tenant, &request.parent_turn_id).await.map_err(|error| error.with_field("parent_turn_id"))?;
        let session_id = parent.turn.session_id.clone();
        if !request.session_id.is_empty() && request.session_id != session_id {
            return Err(Error::invalid("parent_turn_id", "the parent turn belongs to another session"));
        }
        if !conversation::continues(parent.turn.status()) {
            return Err(in_progress(&session_id));
        }
        let session = store.get_session(tenant, &session_id).await?;
        let running = shared.lives.enter(tenant, &session_id, turn_id, 0, false)?;
        shared.histories.keep(tenant, &parent.turn);
        return Ok(Place { session, new: false, parent: Some(parent), running });
    }
    if request.session_id.is_empty() {
        let session =
            Session { id: session_of(turn_id), agent_id: request.agent_id.clone(), created: Some(ids::now()), ..Session::default() };
        let running = shared.lives.enter(tenant, &session.id, turn_id, 0, true)?;
        return Ok(Place { session, new: true, parent: None, running });
    }
    let session = store.get_session(tenant, &request.session_id).await.map_err(|error| error.with_field("session_id"))?;
    shared.lives.settle_session(tenant, &session.id).await;
    // Entered before the newest turn is looked up, so that of two calls at once one finds the other.
    let running = shared.lives.enter(tenant, &session.id, turn_id, 0, true)?;
    let parent = match store.newest_turn_id(tenant, &session.id).await? {
        Some(newest) => Some(shared.load(tenant, &newest).await?),
        None => None,
    };
    if let Some(parent) = &parent {
        if !conversation::continues(parent.turn.status()) {
            return Err(in_progress(&session.id));
        }
        shared.histories.keep(tenant, &parent.turn);
    }
    Ok(Place { session, new: false, parent, running })
}

/// What the turn runs with: its own configuration, else its agent's, else the session's agent's.
async fn configuration(
    shared: &Shared,
    cx: &Context,
    own: Option<AgentConfig>,
    agent_id: String,
    session: &Session,
) -> Result<(String, AgentConfig)> {
    let (agent_id, mut config) = match own {
        Some(more) if !agent_id.is_empty() => {
            if !check::only_shields(&more) {
                let message = "name an agent_id or bring a config, not both: beside an agent_id a config may only add shields";
                return Err(Error::invalid("config", message));
            }
            check::shields(&shared.parts, cx, &more).await?;
            let (agent_id, mut config) = agents_own(shared, cx, agent_id).await?;
            check::add_shields(&mut config, more);
            (agent_id, config)
        }
        Some(config) => {
            check::config(&shared.parts, cx, &config).await?;
            check::called(shared, cx, &config).await?;
            (String::new(), config)
        }
        None => {
            let agent_id = if agent_id.is_empty() { session.agent_id.clone() } else { agent_id };
            if agent_id.is_empty() {
                return Err(Error::invalid("agent_id", "an agent_id or a config is required: the session has no agent of its own"));
            }
            agents_own(shared, cx, agent_id).await?
        }
    };
    config.limits = Some(check::effective(config.limits.as_ref(), &shared.parts.config.limits));
    check::add_defaults(&mut config, &shared.parts.shielding.defaults);
    Ok((agent_id, config))
}

async fn agents_own(shared: &Shared, cx: &Context, agent_id: String) -> Result<(String, AgentConfig)> {
    let agent = shared.agent(cx.tenant(), &agent_id).await.map_err(|error| error.with_field("agent_id"))?;
    let config = agent.config.unwrap_or_default();
    check::shields(&shared.parts, cx, &config).await?;
    Ok((agent_id, config))
}
