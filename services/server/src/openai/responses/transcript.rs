//! The events of a turn, told as the events of a Response.

use std::collections::VecDeque;

use futures::{Stream, StreamExt};
use llama_stack_core::{Error, EventStream};
use llama_stack_proto::v1::{InferenceStep, Turn, TurnEvent, TurnStatus, step::Step as StepKind, turn_event::Event as Happened};
use serde_json::{Map, Value, json};

use super::{
    items::Status,
    output::{self, Event, Writer},
    response::Response,
};

/// A numbered event, ready to be written: its name and its JSON.
pub(crate) type Line = (&'static str, Value);

/// Follows one turn.
#[derive(Default)]
pub(crate) struct Transcript {
    turn: Turn,
    writer: Option<Writer>,
    /// Items of the steps that are done.
    items: usize,
    sequence: u64,
    ended: bool,
}

impl Transcript {
    /// What the turn's event is, as events of the Response.
    pub(crate) fn push(&mut self, event: TurnEvent) -> Vec<Line> {
        let mut events = Vec::new();
        match event.event {
            Some(Happened::Created(turn)) => {
                self.turn = *turn;
                events.push(self.response("response.created"));
                events.push(self.response("response.in_progress"));
            }
            Some(Happened::StepStarted(step)) => {
                if matches!(step.step, Some(StepKind::Inference(_))) {
                    self.writer = Some(Writer::new(&step.id, self.items));
                }
            }
            Some(Happened::Delta(delta)) => {
                if let (Some(writer), Some(event)) = (&mut self.writer, &delta.event) {
                    writer.push(event, &mut Some(&mut events));
                }
            }
            Some(Happened::StepCompleted(step)) => {
                if let (Some(mut writer), Some(StepKind::Inference(inference))) = (self.writer.take(), &step.step) {
                    if writer.is_empty() {
                        writer.whole(inference, &mut Some(&mut events));
                    }
                    self.items += writer.finish(output::status(inference), &mut Some(&mut events)).len();
                    if let Some(usage) = &inference.usage {
                        self.turn.usage.get_or_insert_default().add(usage);
                    }
                }
                self.turn.steps.push(step);
            }
            Some(Happened::AwaitingTools(_)) => {
                self.turn.status = TurnStatus::AwaitingTools.into();
                events.push(self.end());
            }
            Some(Happened::Ended(turn)) => {
                if let Some(writer) = self.writer.take() {
                    writer.finish(Status::Incomplete, &mut Some(&mut events));
                }
                self.turn = *turn;
                events.push(self.end());
            }
            Some(Happened::Resumed(_)) | None => {}
        }
        events.into_iter().map(|event| self.number(event)).collect()
    }

    /// The failure that ends the stream early.
    pub(crate) fn fail(&mut self, error: &Error) -> Line {
        let code = error.reason().unwrap_or(error.code().openai_type());
        self.ended = true;
        let fields = json!({ "code": code, "message": error.message(), "param": error.field() });
        let fields = if let Value::Object(fields) = fields { fields } else { Map::new() };
        self.number(Event { kind: "error", fields })
    }

    fn end(&mut self) -> Event {
        self.ended = true;
        self.response(match self.turn.status() {
            TurnStatus::Incomplete => "response.incomplete",
            TurnStatus::Failed | TurnStatus::Cancelled => "response.failed",
            _ => "response.completed",
        })
    }

    fn response(&self, kind: &'static str) -> Event {
        let mut fields = Map::new();
        fields.insert("response".into(), json!(Response::new(&self.turn)));
        Event { kind, fields }
    }

    fn number(&mut self, event: Event) -> Line {
        let mut fields = Map::new();
        fields.insert("type".into(), event.kind.into());
        fields.insert("sequence_number".into(), self.sequence.into());
        fields.extend(event.fields);
        self.sequence += 1;
        (event.kind, Value::Object(fields))
    }
}

/// The events of a Response, as they happen. Ends with the turn, or with an `error` event.
pub(crate) fn lines(events: EventStream<TurnEvent>) -> impl Stream<Item = Line> + Send {
    let state = (events, Transcript::default(), VecDeque::new());
    futures::stream::unfold(state, |(mut events, mut transcript, mut waiting)| async move {
        loop {
            if let Some(line) = waiting.pop_front() {
                return Some((line, (events, transcript, waiting)));
            }
            if transcript.ended {
                return None;
            }
            match events.next().await {
                Some(Ok(event)) => waiting.extend(transcript.push(event)),
                Some(Err(error)) => waiting.push_back(transcript.fail(&error)),
                None => waiting.push_back(transcript.fail(&Error::unavailable("the turn broke off before it was done"))),
            }
        }
    })
}

/// Waits for the turn's end.
///
/// # Errors
/// The stream's, or the failure that ended the turn.
pub(crate) async fn whole(mut events: EventStream<TurnEvent>) -> llama_stack_core::Result<Turn> {
    let mut turn = Turn::default();
    while let Some(event) = events.next().await {
        match event?.event {
            Some(Happened::Created(created)) => turn = *created,
            Some(Happened::StepCompleted(step)) => {
                if let Some(StepKind::Inference(InferenceStep { usage: Some(usage), .. })) = &step.step {
                    turn.usage.get_or_insert_default().add(usage);
                }
                turn.steps.push(step);
            }
            Some(Happened::AwaitingTools(_)) => {
                turn.status = TurnStatus::AwaitingTools.into();
                return Ok(turn);
            }
            Some(Happened::Ended(ended)) => {
                return match (ended.status(), &ended.error) {
                    (TurnStatus::Failed, Some(error)) => Err(Error::from(error)),
                    _ => Ok(*ended),
                };
            }
            Some(Happened::StepStarted(_) | Happened::Delta(_) | Happened::Resumed(_)) | None => {}
        }
    }
    Err(Error::unavailable("the turn broke off before it was done"))
}
