//! The events of a turn, told as the events of a Response.
//!
//! The numbers are a function of the turn's journal: whoever reads the stream again gets the same events under the same
//! numbers. What a model said before it was cut off is in no journal, so after such a place the numbers go on at the next
//! multiple of a million: greater than any that somebody may have seen.

use std::collections::VecDeque;

use futures::{Stream, StreamExt};
use llama_stack_core::{Error, EventStream, Result};
use llama_stack_proto::v1::{
    ApprovalRequest, Step, ToolResults, Turn, TurnEvent, TurnStatus, Usage, step::Step as StepKind, turn_event::Event as Happened,
};
use serde_json::{Map, Value, json};

use super::{output::Event, response::Response, steps::Output};

/// A numbered event, ready to be written: its name and its JSON.
pub(crate) type Line = (&'static str, Value);

const JUMP: u64 = 1_000_000;

/// Follows one turn.
#[derive(Default)]
pub(crate) struct Transcript {
    turn: Turn,
    /// The calls that wait for a decision.
    approvals: Vec<ApprovalRequest>,
    output: Output,
    /// Of the next event.
    sequence: u64,
    /// The turn rests.
    ended: bool,
}

impl Transcript {
    /// What the turn's event is, as events of the Response.
    pub(crate) fn push(&mut self, event: TurnEvent) -> Vec<Line> {
        let (mut lines, mut events) = (Vec::new(), Vec::new());
        match event.event {
            Some(Happened::Created(turn)) => {
                self.output = Output::new(&turn);
                self.turn = *turn;
                if self.turn.background {
                    events.push(self.queued("response.created"));
                    events.push(self.queued("response.queued"));
                } else {
                    events.push(self.response("response.created"));
                }
                events.push(self.response("response.in_progress"));
            }
            Some(Happened::StepStarted(step)) => {
                self.output.begin(&step, &mut Some(&mut events));
                self.turn.steps.push(step);
            }
            Some(Happened::Delta(delta)) => {
                if let Some(event) = &delta.event {
                    self.output.delta(event, &mut Some(&mut events));
                }
            }
            Some(Happened::StepCompleted(step)) => {
                self.output.end(&step, &mut Some(&mut events));
                self.number(&mut events, &mut lines);
                if matches!(&step.step, Some(StepKind::Inference(inference)) if inference.cut_off) {
                    self.jump();
                }
                complete(&mut self.turn, step);
            }
            Some(Happened::AwaitingTools(awaiting)) => {
                self.turn.status = TurnStatus::AwaitingTools.into();
                self.output.ask(&awaiting.approvals, &mut Some(&mut events));
                self.approvals = awaiting.approvals;
                events.push(self.end());
            }
            // Somebody went on with the turn itself; clients of this API begin another one instead.
            Some(Happened::Resumed(results)) => {
                self.resume(&results);
                self.jump();
                events.push(self.response("response.in_progress"));
            }
            Some(Happened::Ended(turn)) => {
                let lost = self.output.finish(&mut Some(&mut events));
                self.number(&mut events, &mut lines);
                if lost {
                    self.jump();
                }
                self.turn = *turn;
                self.approvals.clear();
                events.push(self.end());
            }
            None => {}
        }
        self.number(&mut events, &mut lines);
        lines
    }

    /// The failure that ends the stream, not the Response: it has the number of the event before it, after which the
    /// client can go on.
    pub(crate) fn fail(&mut self, error: &Error) -> Line {
        let code = error.reason().unwrap_or(error.code().openai_type());
        let (number, message) = (self.sequence.saturating_sub(1), error.message());
        ("error", json!({ "type": "error", "sequence_number": number, "code": code, "message": message, "param": error.field() }))
    }

    fn resume(&mut self, results: &ToolResults) {
        self.output.go_on();
        self.approvals.clear();
        self.ended = false;
        self.turn.status = TurnStatus::InProgress.into();
        for step in self.turn.steps.iter_mut().filter(|step| step.ended.is_none()) {
            let Some(StepKind::Tool(tool)) = &mut step.step else { continue };
            let asked = tool.call.as_ref().map(|call| call.id.as_str());
            tool.result = results.results.iter().find(|result| Some(result.call_id.as_str()) == asked).cloned();
        }
    }

    fn end(&mut self) -> Event {
        self.ended = true;
        self.response(match self.turn.status() {
            TurnStatus::Incomplete => "response.incomplete",
            TurnStatus::Failed | TurnStatus::Cancelled => "response.failed",
            _ => "response.completed",
        })
    }

    /// The Response as it stands.
    fn now(&self) -> Response {
        Response::new(&self.turn, &self.approvals)
    }

    fn response(&self, kind: &'static str) -> Event {
        with_response(kind, &self.now())
    }

    fn queued(&self, kind: &'static str) -> Event {
        with_response(kind, &self.now().queued())
    }

    fn number(&mut self, events: &mut Vec<Event>, lines: &mut Vec<Line>) {
        for event in events.drain(..) {
            let mut fields = Map::new();
            fields.insert("type".into(), event.kind.into());
            fields.insert("sequence_number".into(), self.sequence.into());
            fields.extend(event.fields);
            self.sequence += 1;
            lines.push((event.kind, Value::Object(fields)));
        }
    }

    fn jump(&mut self) {
        self.sequence = (self.sequence / JUMP + 1) * JUMP;
    }
}

fn with_response(kind: &'static str, response: &Response) -> Event {
    let mut fields = Map::new();
    fields.insert("response".into(), json!(response));
    Event { kind, fields }
}

/// A step has ended: the turn knows what came of it, and what it took.
fn complete(turn: &mut Turn, step: Step) {
    let spent: Option<(&Usage, f64)> = match &step.step {
        Some(StepKind::Inference(inference)) => inference.usage.as_ref().map(|usage| (usage, inference.cost)),
        Some(StepKind::Tool(tool)) => tool.usage.as_ref().map(|usage| (usage, tool.cost)),
        Some(StepKind::Compaction(compaction)) => compaction.usage.as_ref().map(|usage| (usage, compaction.cost)),
        Some(StepKind::Shield(_) | StepKind::ToolList(_) | StepKind::Handoff(_)) | None => None,
    };
    if let Some((usage, cost)) = spent {
        turn.usage.get_or_insert_default().add(usage);
        turn.cost += cost;
    }
    match turn.steps.iter_mut().find(|open| open.id == step.id) {
        Some(open) => *open = step,
        None => turn.steps.push(step),
    }
}

/// The events of a Response whose numbers are greater than `after`, as they happen. Ends when the turn rests, or with an
/// `error` event.
pub(crate) fn lines(events: EventStream<TurnEvent>, after: Option<u64>) -> impl Stream<Item = Line> + Send {
    let state = (Some(events), Transcript::default(), VecDeque::new());
    let all = futures::stream::unfold(state, |(mut events, mut transcript, mut waiting)| async move {
        loop {
            if let Some(line) = waiting.pop_front() {
                return Some((line, (events, transcript, waiting)));
            }
            match events.as_mut()?.next().await {
                Some(Ok(event)) => waiting.extend(transcript.push(event)),
                Some(Err(error)) => {
                    events = None;
                    waiting.push_back(transcript.fail(&error));
                }
                None if transcript.ended => return None,
                None => {
                    events = None;
                    waiting.push_back(transcript.fail(&broken_off()));
                }
            }
        }
    });
    let is_new = move |(kind, line): &Line| {
        *kind == "error" || after.is_none_or(|after| line.get("sequence_number").and_then(Value::as_u64).is_some_and(|n| n > after))
    };
    all.filter(move |line| std::future::ready(is_new(line)))
}

/// Waits until the turn rests.
///
/// # Errors
/// The stream's, or the failure that ended the turn.
pub(crate) async fn whole(mut events: EventStream<TurnEvent>) -> Result<Response> {
    let mut transcript = Transcript::default();
    while let Some(event) = events.next().await {
        transcript.push(event?);
    }
    match (transcript.turn.status(), &transcript.turn.error) {
        (TurnStatus::Failed, Some(error)) => Err(Error::from(error)),
        _ if transcript.ended => Ok(transcript.now()),
        _ => Err(broken_off()),
    }
}

/// The Response as it is when its turn has begun.
///
/// # Errors
/// The stream's.
pub(crate) async fn begun(mut events: EventStream<TurnEvent>) -> Result<Response> {
    match events.next().await.transpose()?.and_then(|event| event.event) {
        Some(Happened::Created(turn)) => Ok(Response::new(&turn, &[]).queued()),
        _ => Err(broken_off()),
    }
}

/// The calls of a turn that wait for a decision, from its journal: only the event that says so holds them.
///
/// # Errors
/// The stream's.
pub(crate) async fn approvals(turn: &Turn, mut events: EventStream<TurnEvent>) -> Result<Vec<ApprovalRequest>> {
    let mut begun = 0;
    while let Some(event) = events.next().await {
        match event?.event {
            Some(Happened::StepStarted(_)) => begun += 1,
            // Of several waits, the one that `turn` was read in.
            Some(Happened::AwaitingTools(awaiting)) if begun >= turn.steps.len() => return Ok(awaiting.approvals),
            _ => {}
        }
    }
    Ok(Vec::new())
}

fn broken_off() -> Error {
    Error::unavailable("the turn broke off before it was done")
}
