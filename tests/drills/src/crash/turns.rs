//! A client over gRPC: one turn after the other in a session, each followed to its end through every crash.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use llama_stack_core::{Code, Context, Error, EventStream, Result};
use llama_stack_proto::v1::{
    AgentConfig, CreateTurnRequest, Message, ResumeTurnRequest, ToolResult, Turn, TurnEvent, TurnStatus, WatchTurnRequest, step::Step,
    turn_event::Event,
};
use rand::{Rng, rngs::StdRng};

use super::{
    PATIENCE,
    field::{Fault, Field, Record},
    lives::Up,
    model::MODEL,
    plan::{Plan, Tool, done},
};

/// Begins turns until the drill stops.
pub(crate) async fn client(field: Arc<Field>, mut random: StdRng) {
    let (mut session, mut left) = (String::new(), 0);
    while !field.stopping() {
        if left == 0 {
            session.clear();
            left = random.random_range(3..=20);
        }
        left -= 1;
        let plan = Plan::random(field.next_number(), &mut random);
        let mut followed = Followed::new(field.clone(), plan, session.clone());
        match tokio::time::timeout(PATIENCE, followed.finish(&mut random)).await {
            Ok(Some(session_id)) => session = session_id,
            // Noted where it happened.
            Ok(None) => left = 0,
            Err(_) => {
                field.fault(Fault::Stuck, format!("{}: not ended after {} s", followed.name(), PATIENCE.as_secs()));
                left = 0;
            }
        }
    }
}

pub(crate) fn request(plan: &Plan, key: &str, session_id: String) -> CreateTurnRequest {
    CreateTurnRequest {
        session_id,
        config: Some(AgentConfig {
            model: MODEL.into(),
            tools: vec![Tool::Retried.name().into(), Tool::Once.name().into()],
            client_tools: vec![Tool::Client.definition()],
            ..AgentConfig::default()
        }),
        input: vec![Message::user(plan.to_string())],
        metadata: [("key".to_owned(), key.to_owned())].into(),
        ..CreateTurnRequest::default()
    }
}

/// A turn, as far as its client has seen it.
struct Followed {
    field: Arc<Field>,
    plan: Plan,
    key: String,
    request: CreateTurnRequest,
    turn_id: String,
    /// Its journal: each event once, whatever was replayed.
    seen: Vec<TurnEvent>,
    /// The results that it waits for have been journalled, though nobody said so.
    resumed: bool,
}

impl Followed {
    fn new(field: Arc<Field>, plan: Plan, session_id: String) -> Self {
        let key = format!("grpc-{}", plan.number);
        let request = request(&plan, &key, session_id);
        Self { field, plan, key, request, turn_id: String::new(), seen: Vec::new(), resumed: false }
    }

    fn name(&self) -> String {
        format!("{} ({}, {}, at {})", self.plan, self.key, self.turn_id, self.seen.len())
    }

    fn wrong(&self, fault: Fault, what: &str) {
        self.field.fault(fault, format!("{}: {what}", self.name()));
    }

    /// The turn's session, if all went well.
    async fn finish(&mut self, random: &mut StdRng) -> Option<String> {
        let mut watcher = None;
        let ended = loop {
            let up = self.field.up().await;
            let followed = match self.follow(&up, random).await {
                Ok(events) => self.take(events.1, events.0).await,
                Err(error) => Err(error),
            };
            match followed {
                Ok(()) => {}
                // They were journalled before the crash, and the turn may wait for others by now.
                Err(error) if matches!(error.reason(), Some("turn_not_awaiting" | "unexpected_tool_result")) => self.resumed = true,
                Err(error) if error.reason() == Some("turn_in_progress") => self.field.come_again().await,
                Err(error) if self.field.forgives(&up, &error).await => {}
                Err(error) => {
                    let lost = error.code() == Code::NotFound && !self.turn_id.is_empty();
                    self.wrong(if lost { Fault::Lost } else { Fault::Wrong }, &format!("{error:?}"));
                    return None;
                }
            }
            if watcher.is_none() && !self.turn_id.is_empty() && random.random_bool(0.25) {
                watcher = Some(tokio::spawn(watch(self.field.clone(), self.turn_id.clone())));
            }
            if let Some(Event::Ended(turn)) = self.seen.last().and_then(|last| last.event.clone()) {
                break *turn;
            }
        };
        if let Some(watcher) = watcher {
            match watcher.await.unwrap() {
                Ok(events) if events == self.seen => {}
                Ok(_) => self.wrong(Fault::Wrong, "a watcher saw another journal"),
                Err(told) => self.wrong(Fault::Wrong, &told),
            }
        }
        self.judge(&ended)
    }

    /// Asks for the turn's events in one of the ways that there are. With the number after which they come.
    async fn follow(&self, up: &Up, random: &mut StdRng) -> Result<(u64, EventStream<TurnEvent>)> {
        let after = self.seen.len() as u64;
        if let Some(Event::AwaitingTools(awaiting)) = self.seen.last().and_then(|last| last.event.as_ref())
            && !self.resumed
        {
            let result = |call: &llama_stack_proto::v1::ToolCall| {
                let arguments: serde_json::Value = serde_json::from_str(&call.arguments).unwrap();
                let index = usize::try_from(arguments["call"].as_u64().unwrap()).unwrap();
                ToolResult::text(call, done(self.plan.number, index), false)
            };
            let results = awaiting.calls.iter().map(result).collect();
            let request = ResumeTurnRequest { turn_id: self.turn_id.clone(), results, ..ResumeTurnRequest::default() };
            return Ok((after, up.agents.resume_turn(&Context::default(), request).await?));
        }
        if self.turn_id.is_empty() || random.random_bool(0.5) {
            let cx = Context::default().with_idempotency_key(&*self.key);
            return Ok((0, up.agents.create_turn(&cx, self.request.clone()).await?));
        }
        let request = WatchTurnRequest { turn_id: self.turn_id.clone(), after_sequence: after };
        Ok((after, up.agents.watch_turn(&Context::default(), request).await?))
    }

    /// Reads a stream to its end.
    async fn take(&mut self, mut events: EventStream<TurnEvent>, after: u64) -> Result<()> {
        let mut cursor = after;
        while let Some(event) = events.next().await {
            let event = event?;
            self.field.happened();
            in_order(&mut cursor, &event).map_err(Error::internal).inspect_err(|error| self.wrong(Fault::Wrong, error.message()))?;
            if matches!(event.event, Some(Event::Delta(_))) {
                continue;
            }
            if let Some(Event::Created(turn)) = &event.event {
                if !self.turn_id.is_empty() && self.turn_id != turn.id {
                    self.wrong(Fault::Duplicated, &format!("the same key began {} as well", turn.id));
                }
                self.turn_id.clone_from(&turn.id);
            }
            match self.seen.get(cursor as usize - 1) {
                Some(earlier) if *earlier == event => {}
                Some(_) => self.wrong(Fault::Lost, &format!("event {cursor} is not what it was")),
                None => {
                    self.seen.push(event);
                    self.resumed = false;
                }
            }
        }
        if cursor < self.seen.len() as u64 {
            self.wrong(Fault::Lost, &format!("a replay ended after event {cursor}"));
        }
        Ok(())
    }

    fn judge(&self, turn: &Turn) -> Option<String> {
        let said = turn.steps.iter().rev().find_map(|step| match &step.step {
            Some(Step::Inference(inference)) => inference.message.as_ref().map(Message::joined_text),
            _ => None,
        });
        if turn.status() != TurnStatus::Completed {
            self.wrong(Fault::Wrong, &format!("ended with {:?}: {:?}", turn.status(), turn.error));
            return None;
        }
        match self.plan.read(&said.unwrap_or_default()) {
            Ok(outcomes) => {
                let (key, turn_id) = (self.key.clone(), self.turn_id.clone());
                self.field.record(Record { key, turn_id, waits: false, plan: self.plan.clone(), outcomes });
                Some(turn.session_id.clone())
            }
            Err(told) => {
                self.wrong(Fault::Wrong, &told);
                None
            }
        }
    }
}

/// Moves the cursor over an event that may come now.
fn in_order(cursor: &mut u64, event: &TurnEvent) -> std::result::Result<(), String> {
    let is_delta = matches!(event.event, Some(Event::Delta(_)));
    // A delta has the number of the event before it.
    let wanted = *cursor + u64::from(!is_delta);
    if event.sequence != wanted {
        return Err(format!("an event has the number {}, where {wanted} should be", event.sequence));
    }
    *cursor = wanted;
    Ok(())
}

/// Watches a turn to its end, going on after each crash where it was. Its journal.
async fn watch(field: Arc<Field>, turn_id: String) -> std::result::Result<Vec<TurnEvent>, String> {
    let mut seen: Vec<TurnEvent> = Vec::new();
    while !matches!(seen.last().and_then(|last| last.event.as_ref()), Some(Event::Ended(_))) {
        let up = field.up().await;
        let mut cursor = seen.len() as u64;
        let request = WatchTurnRequest { turn_id: turn_id.clone(), after_sequence: cursor };
        let watched = async {
            let mut events = up.agents.watch_turn(&Context::default(), request).await?;
            while let Some(event) = events.next().await {
                let event = event?;
                in_order(&mut cursor, &event).map_err(Error::internal)?;
                if !matches!(event.event, Some(Event::Delta(_))) {
                    seen.push(event);
                }
            }
            Ok(())
        };
        match watched.await {
            // It waits for its client.
            Ok(()) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) if field.forgives(&up, &error).await => {}
            Err(error) => return Err(format!("a watcher failed: {error:?}")),
        }
    }
    Ok(seen)
}
