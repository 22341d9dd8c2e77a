use std::{
    pin::Pin,
    task::{Context as TaskContext, Poll},
};

use futures::Stream;
use opentelemetry::{KeyValue, trace::SpanKind};

use llama_stack_core::{Agents, Context, EventStream, Result};
use llama_stack_proto::v1::{
    Agent, CancelTurnRequest, CompactRequest, CompactResponse, CreateAgentRequest, CreateSessionRequest, CreateTurnRequest,
    DeleteAgentRequest, DeleteAgentResponse, DeleteSessionRequest, DeleteSessionResponse, DeleteTurnRequest, DeleteTurnResponse,
    GetAgentRequest, GetSessionRequest, GetTurnRequest, ListAgentsRequest, ListAgentsResponse, ListSessionsRequest, ListSessionsResponse,
    ListTurnsRequest, ListTurnsResponse, RedactTurnRequest, ResumeTurnRequest, Session, Turn, TurnEvent, TurnStatus, UpdateAgentRequest,
    UpdateSessionRequest, WatchTurnRequest, turn_event::Event,
};

use super::{Observed, noted};
use crate::telemetry::{PROVIDER, Span};

/// A turn under way: the span ends with the stream.
struct Telling {
    events: EventStream<TurnEvent>,
    span: Option<Span>,
}

impl Stream for Telling {
    type Item = Result<TurnEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Result<TurnEvent>>> {
        let event = self.events.as_mut().poll_next(cx);
        if let Some(span) = &mut self.span {
            match &event {
                Poll::Ready(Some(Ok(event))) => tell(span, event),
                Poll::Ready(Some(Err(error))) => span.fail(error),
                _ => {}
            }
        }
        event
    }
}

fn tell(span: &mut Span, event: &TurnEvent) {
    match &event.event {
        Some(Event::Created(turn)) => {
            span.set("llama_stack.turn.id", turn.id.clone());
            span.set("gen_ai.conversation.id", turn.session_id.clone());
            span.set("gen_ai.agent.id", turn.agent_id.clone());
            if let Some(config) = &turn.config {
                if !config.name.is_empty() {
                    span.rename(format!("invoke_agent {}", config.name));
                    span.set("gen_ai.agent.name", config.name.clone());
                }
                span.set("gen_ai.request.model", config.model.clone());
            }
        }
        Some(Event::Ended(turn)) => {
            if let Some(usage) = &turn.usage {
                span.set("gen_ai.usage.input_tokens", i64::from(usage.prompt_tokens));
                span.set("gen_ai.usage.output_tokens", i64::from(usage.completion_tokens));
            }
            if let (TurnStatus::Failed, Some(error)) = (turn.status(), &turn.error) {
                span.fail(&error.into());
            }
        }
        _ => {}
    }
}

impl Observed<dyn Agents> {
    /// `invoke_agent {name}`: the agent's name, once the turn tells its configuration; until then, what the request has of it.
    fn turn_span(&self, cx: &Context, name: &str) -> (Option<Span>, Context) {
        let attributes = vec![KeyValue::new("gen_ai.provider.name", PROVIDER)];
        self.span(cx, "invoke_agent", name, SpanKind::Internal, if self.telemetry.is_some() { attributes } else { Vec::new() })
    }
}

#[async_trait::async_trait]
impl Agents for Observed<dyn Agents> {
    async fn create_turn(&self, cx: &Context, request: CreateTurnRequest) -> Result<EventStream<TurnEvent>> {
        let (mut span, below) = self.turn_span(cx, request.config.as_ref().map_or("", |config| config.name.as_str()));
        let events = noted(&mut span, self.inner.create_turn(&below, request).await)?;
        Ok(if span.is_some() { Box::pin(Telling { events, span }) } else { events })
    }

    async fn resume_turn(&self, cx: &Context, request: ResumeTurnRequest) -> Result<EventStream<TurnEvent>> {
        let (mut span, below) = self.turn_span(cx, "");
        let events = noted(&mut span, self.inner.resume_turn(&below, request).await)?;
        Ok(if span.is_some() { Box::pin(Telling { events, span }) } else { events })
    }

    async fn watch_turn(&self, cx: &Context, request: WatchTurnRequest) -> Result<EventStream<TurnEvent>> {
        self.inner.watch_turn(cx, request).await
    }

    async fn create_agent(&self, cx: &Context, request: CreateAgentRequest) -> Result<Agent> {
        self.inner.create_agent(cx, request).await
    }

    async fn get_agent(&self, cx: &Context, request: GetAgentRequest) -> Result<Agent> {
        self.inner.get_agent(cx, request).await
    }

    async fn list_agents(&self, cx: &Context, request: ListAgentsRequest) -> Result<ListAgentsResponse> {
        self.inner.list_agents(cx, request).await
    }

    async fn update_agent(&self, cx: &Context, request: UpdateAgentRequest) -> Result<Agent> {
        self.inner.update_agent(cx, request).await
    }

    async fn delete_agent(&self, cx: &Context, request: DeleteAgentRequest) -> Result<DeleteAgentResponse> {
        self.inner.delete_agent(cx, request).await
    }

    async fn create_session(&self, cx: &Context, request: CreateSessionRequest) -> Result<Session> {
        self.inner.create_session(cx, request).await
    }

    async fn get_session(&self, cx: &Context, request: GetSessionRequest) -> Result<Session> {
        self.inner.get_session(cx, request).await
    }

    async fn list_sessions(&self, cx: &Context, request: ListSessionsRequest) -> Result<ListSessionsResponse> {
        self.inner.list_sessions(cx, request).await
    }

    async fn delete_session(&self, cx: &Context, request: DeleteSessionRequest) -> Result<DeleteSessionResponse> {
        self.inner.delete_session(cx, request).await
    }

    async fn get_turn(&self, cx: &Context, request: GetTurnRequest) -> Result<Turn> {
        self.inner.get_turn(cx, request).await
    }

    async fn list_turns(&self, cx: &Context, request: ListTurnsRequest) -> Result<ListTurnsResponse> {
        self.inner.list_turns(cx, request).await
    }

    async fn cancel_turn(&self, cx: &Context, request: CancelTurnRequest) -> Result<Turn> {
        self.inner.cancel_turn(cx, request).await
    }

    async fn delete_turn(&self, cx: &Context, request: DeleteTurnRequest) -> Result<DeleteTurnResponse> {
        self.inner.delete_turn(cx, request).await
    }

    async fn redact_turn(&self, cx: &Context, request: RedactTurnRequest) -> Result<Turn> {
        self.inner.redact_turn(cx, request).await
    }

    async fn update_session(&self, cx: &Context, request: UpdateSessionRequest) -> Result<Session> {
        self.inner.update_session(cx, request).await
    }

    async fn compact(&self, cx: &Context, request: CompactRequest) -> Result<CompactResponse> {
        self.inner.compact(cx, request).await
    }
}
