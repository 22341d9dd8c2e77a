//! Agents that keep what they are told and run no model: for what the HTTP surface makes of it.

use std::sync::{Arc, Mutex, MutexGuard};

use futures::stream;
use llama_stack_core::{Agents, Context, Error, EventStream, Result, ids};
use llama_stack_proto::v1::{
    ApprovalRequest, AwaitingTools, CancelTurnRequest, CompactRequest, CompactResponse, CompactionStep, CreateSessionRequest,
    CreateTurnRequest, DeleteSessionRequest, DeleteSessionResponse, GetSessionRequest, GetTurnRequest, InferenceStep, ListTurnsRequest,
    ListTurnsResponse, Message, RedactTurnRequest, Session, Step, ToolCall, Turn, TurnEvent, TurnStatus, UpdateSessionRequest, Usage,
    WatchTurnRequest, step::Step as StepKind, turn_event::Event,
};

#[derive(Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Kept>>);

#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) sessions: Vec<Session>,
    /// Oldest first.
    pub(crate) turns: Vec<Turn>,
    pub(crate) asked: Vec<CreateTurnRequest>,
    pub(crate) redacted: Vec<RedactTurnRequest>,
    pub(crate) compacted: Vec<CompactRequest>,
    pub(crate) cancelled: Vec<String>,
}

impl Ledger {
    pub(crate) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap()
    }

    pub(crate) fn last_asked(&self) -> CreateTurnRequest {
        self.kept().asked.last().cloned().expect("nobody asked")
    }
}

/// What this turn waits for, where it waits.
fn approvals(turn: &Turn) -> Vec<ApprovalRequest> {
    let call = Some(ToolCall::new("call_1", "read", "{}"));
    vec![ApprovalRequest { id: format!("mcpr_of_{}", turn.id), call, server_label: "files".into(), ..ApprovalRequest::default() }]
}

/// The journal of a turn.
fn journal(turn: &Turn) -> EventStream<TurnEvent> {
    let mut created = Turn { steps: Vec::new(), usage: None, ended: None, ..turn.clone() };
    created.set_status(TurnStatus::InProgress);
    let mut events = vec![Event::Created(Box::new(created))];
    for step in &turn.steps {
        events.push(Event::StepStarted(Step { ended: None, step: Some(StepKind::Inference(InferenceStep::default())), ..step.clone() }));
        events.push(Event::StepCompleted(step.clone()));
    }
    events.push(match turn.status() {
        TurnStatus::AwaitingTools => Event::AwaitingTools(AwaitingTools { approvals: approvals(turn), ..AwaitingTools::default() }),
        _ => Event::Ended(Box::new(turn.clone())),
    });
    let turn_id = turn.id.clone();
    let event = move |(event, sequence)| Ok(TurnEvent { turn_id: turn_id.clone(), sequence, event: Some(event), ..TurnEvent::default() });
    Box::pin(stream::iter(events.into_iter().zip(1..).map(event).collect::<Vec<_>>()))
}

fn missing(what: &str) -> Error {
    Error::not_found(format!("no {what}")).with_reason(format!("{what}_not_found"))
}

#[async_trait::async_trait]
impl Agents for Ledger {
    async fn create_session(&self, _: &Context, request: CreateSessionRequest) -> Result<Session> {
        let session = Session { id: ids::new("session"), metadata: request.metadata, created: Some(ids::now()), ..Session::default() };
        self.kept().sessions.push(session.clone());
        Ok(session)
    }

    async fn get_session(&self, _: &Context, request: GetSessionRequest) -> Result<Session> {
        self.kept().sessions.iter().find(|session| session.id == request.id).cloned().ok_or_else(|| missing("session"))
    }

    async fn update_session(&self, _: &Context, request: UpdateSessionRequest) -> Result<Session> {
        let mut kept = self.kept();
        let session = kept.sessions.iter_mut().find(|session| session.id == request.id).ok_or_else(|| missing("session"))?;
        session.metadata = request.metadata;
        Ok(session.clone())
    }

    async fn delete_session(&self, _: &Context, request: DeleteSessionRequest) -> Result<DeleteSessionResponse> {
        let mut kept = self.kept();
        let before = kept.sessions.len();
        kept.sessions.retain(|session| session.id != request.id);
        if kept.sessions.len() == before { Err(missing("session")) } else { Ok(DeleteSessionResponse {}) }
    }

    /// Answers `Hello`, or waits for a decision where the input is `wait`.
    async fn create_turn(&self, _: &Context, request: CreateTurnRequest) -> Result<EventStream<TurnEvent>> {
        let refused = request.input.iter().any(|message| message.joined_text() == "refuse");
        self.kept().asked.push(request.clone());
        if refused {
            return Err(Error::invalid("config.model", "no such model"));
        }
        let id = ids::new("turn");
        let session_id = if request.session_id.is_empty() { id.replacen("turn", "session", 1) } else { request.session_id };
        let waits = request.input.iter().any(|message| message.joined_text() == "wait");
        let said = InferenceStep { message: Some(Message::assistant("Hello")), usage: Some(Usage::default()), ..InferenceStep::default() };
        let step = Step { id: ids::new("step"), ended: Some(ids::now()), step: Some(StepKind::Inference(said)), ..Step::default() };
        let status = if waits { TurnStatus::AwaitingTools } else { TurnStatus::Completed };
        let turn = Turn {
            id,
            session_id,
            parent_turn_id: request.parent_turn_id,
            config: request.config,
            input: request.input,
            decisions: request.decisions,
            append_only: request.append_only,
            background: request.background,
            prompt: request.prompt,
            steps: if request.append_only || waits { Vec::new() } else { vec![step] },
            status: status.into(),
            store: true,
            created: Some(ids::now()),
            ended: Some(ids::now()).filter(|_| !waits),
            ..Turn::default()
        };
        self.kept().turns.push(turn.clone());
        Ok(journal(&turn))
    }

    async fn get_turn(&self, _: &Context, request: GetTurnRequest) -> Result<Turn> {
        self.kept().turns.iter().find(|turn| turn.id == request.id).cloned().ok_or_else(|| missing("turn"))
    }

    async fn list_turns(&self, _: &Context, request: ListTurnsRequest) -> Result<ListTurnsResponse> {
        let kept = self.kept();
        let mut turns: Vec<Turn> =
            kept.turns.iter().filter(|turn| request.session_id.is_empty() || turn.session_id == request.session_id).cloned().collect();
        if request.newest_first {
            turns.reverse();
        }
        let after = if request.page_token.is_empty() { &request.after_turn_id } else { &request.page_token };
        if let Some(place) = turns.iter().position(|turn| turn.id == *after) {
            turns.drain(..=place);
        }
        let more = turns.len() > request.page_size as usize;
        turns.truncate(request.page_size as usize);
        let next_page_token = turns.last().filter(|_| more).map(|turn| turn.id.clone()).unwrap_or_default();
        Ok(ListTurnsResponse { turns, next_page_token })
    }

    async fn cancel_turn(&self, cx: &Context, request: CancelTurnRequest) -> Result<Turn> {
        self.kept().cancelled.push(request.id.clone());
        self.get_turn(cx, GetTurnRequest { id: request.id }).await
    }

    async fn redact_turn(&self, cx: &Context, request: RedactTurnRequest) -> Result<Turn> {
        self.kept().redacted.push(request.clone());
        self.get_turn(cx, GetTurnRequest { id: request.turn_id }).await
    }

    async fn compact(&self, _: &Context, request: CompactRequest) -> Result<CompactResponse> {
        self.kept().compacted.push(request);
        let usage = Some(Usage { prompt_tokens: 9, completion_tokens: 2, ..Usage::default() });
        Ok(CompactResponse { compaction: Some(CompactionStep { summary: "they greeted".into(), usage, ..CompactionStep::default() }) })
    }

    async fn watch_turn(&self, cx: &Context, request: WatchTurnRequest) -> Result<EventStream<TurnEvent>> {
        Ok(journal(&self.get_turn(cx, GetTurnRequest { id: request.turn_id }).await?))
    }
}
