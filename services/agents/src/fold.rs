//! A turn as its journal tells it. Pure: the same events give the same turn, in one go or in pieces.

use std::time::Duration;

use llama_stack_core::{Code, Error, Result};
use llama_stack_proto::v1::{
    ApprovalDecision, ApprovalRequest, FinishReason, Part, Step, ToolCall, ToolResult, Turn, TurnEvent, TurnStatus, Usage, part::Content,
    step, turn_event::Event,
};
use prost_types::Timestamp;

use crate::judged;

/// The state of a turn after some of its journal.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fold {
    pub turn: Turn,
    /// Of the last event; 0 before the first.
    pub sequence: u64,
    /// The calls whose results the client owes, while the turn waits for them.
    pub awaiting: Vec<ToolCall>,
    /// The calls that wait for a person's decision, while the turn waits for it.
    pub approvals: Vec<ApprovalRequest>,
    /// Every call that was decided on, with the decision; `None`: the turn went on without one.
    pub decided: Vec<(ApprovalRequest, Option<ApprovalDecision>)>,
    /// How long the turn has waited for a client so far.
    pub waited: Duration,
    pub(crate) waiting_since: Option<Timestamp>,
}

impl Fold {
    /// # Errors
    /// As [`Fold::push`], and `DataLoss` for a journal without events.
    pub fn of(events: impl IntoIterator<Item = TurnEvent>) -> Result<Self> {
        let mut fold = Self::default();
        for event in events {
            fold.push(&event)?;
        }
        if fold.sequence == 0 { Err(damaged("has no events")) } else { Ok(fold) }
    }

    /// Takes the next event. Deltas change nothing.
    ///
    /// # Errors
    /// `DataLoss` for an event that cannot come here: the journal is damaged. The fold is then as it was.
    pub fn push(&mut self, event: &TurnEvent) -> Result<()> {
        let Some(what) = &event.event else { return Err(damaged("has an event that this version does not know")) };
        if matches!(what, Event::Delta(_)) {
            return Ok(());
        }
        if event.sequence != self.sequence + 1 {
            return Err(damaged("has a gap"));
        }
        if matches!(what, Event::Created(_)) != (event.sequence == 1) {
            return Err(damaged("does not begin with its creation"));
        }
        if self.ended() {
            return Err(damaged("goes on after its end"));
        }
        self.apply(what, event.time)?;
        self.sequence = event.sequence;
        Ok(())
    }

    fn apply(&mut self, what: &Event, time: Option<Timestamp>) -> Result<()> {
        match what {
            Event::Created(turn) => {
                self.turn = (**turn).clone();
                self.turn.set_status(TurnStatus::InProgress);
                self.decided = self.turn.decided.iter().map(|request| decision(request, &self.turn.decisions)).collect();
            }
            Event::StepStarted(step) => {
                if step.index as usize != self.turn.steps.len() {
                    return Err(damaged("starts a step out of order"));
                }
                self.turn.steps.push(step.clone());
            }
            Event::StepCompleted(step) => {
                let open = self.turn.steps.get_mut(step.index as usize).filter(|open| open.id == step.id && open.ended.is_none());
                *open.ok_or_else(|| damaged("completes a step that does not run"))? = step.clone();
                if let Some((usage, cost)) = spent(step) {
                    self.turn.usage.get_or_insert_with(Usage::default).add(usage);
                    self.turn.cost += cost;
                }
                if let Some(step::Step::Shield(shield)) = &step.step {
                    judged::apply(&mut self.turn, shield);
                }
            }
            Event::AwaitingTools(awaiting) => {
                self.turn.set_status(TurnStatus::AwaitingTools);
                self.awaiting.clone_from(&awaiting.calls);
                self.approvals.clone_from(&awaiting.approvals);
                self.waiting_since = time;
            }
            Event::Resumed(results) => {
                if self.turn.status() != TurnStatus::AwaitingTools {
                    return Err(damaged("brings results that nobody waited for"));
                }
                self.turn.set_status(TurnStatus::InProgress);
                self.awaiting.clear();
                self.decided.extend(self.approvals.drain(..).map(|request| decision(&request, &results.decisions)));
                self.waited += elapsed(self.waiting_since.take(), time);
                for result in &results.results {
                    self.answer(result, time);
                }
            }
            Event::Ended(turn) => {
                self.turn = (**turn).clone();
                self.awaiting.clear();
                self.approvals.clear();
                self.waiting_since = None;
            }
            Event::Delta(_) => {}
        }
        Ok(())
    }

    /// Gives a client's result to the step that waits for it.
    fn answer(&mut self, result: &ToolResult, time: Option<Timestamp>) {
        for open in self.turn.steps.iter_mut().filter(|step| step.ended.is_none()) {
            if let Some(step::Step::Tool(tool)) = &mut open.step
                && tool.call.as_ref().is_some_and(|call| call.id == result.call_id)
            {
                tool.result = Some(result.clone());
                open.ended = time;
            }
        }
    }

    /// What was decided on a call, if it was asked about.
    pub fn decision_on(&self, call_id: &str) -> Option<&(ApprovalRequest, Option<ApprovalDecision>)> {
        self.decided.iter().rev().find(|(request, _)| request.call.as_ref().is_some_and(|call| call.id == call_id))
    }

    /// No event comes any more.
    pub fn ended(&self) -> bool {
        is_final(self.turn.status())
    }

    /// The steps that have begun and not ended, without those that the client runs.
    pub fn open_steps(&self) -> Vec<usize> {
        let open = |step: &Step| step.ended.is_none() && !matches!(&step.step, Some(step::Step::Tool(tool)) if tool.client);
        self.turn.steps.iter().enumerate().filter(|(_, step)| open(step)).map(|(index, _)| index).collect()
    }

    /// The turns in which agents answer the open steps' calls. One of them may never have begun.
    pub(crate) fn called(&self) -> Vec<String> {
        let called = |index: usize| match &self.turn.steps.get(index)?.step {
            Some(step::Step::Tool(tool)) if !tool.child_turn_id.is_empty() => Some(tool.child_turn_id.clone()),
            _ => None,
        };
        self.open_steps().into_iter().filter_map(called).collect()
    }
}

/// The request with its decision among these.
fn decision(request: &ApprovalRequest, decisions: &[ApprovalDecision]) -> (ApprovalRequest, Option<ApprovalDecision>) {
    let decision = decisions.iter().find(|decision| decision.approval_request_id == request.id);
    (request.clone(), decision.cloned())
}

/// What a step that has ended took.
fn spent(step: &Step) -> Option<(&Usage, f64)> {
    match step.step.as_ref()? {
        step::Step::Inference(inference) => Some((inference.usage.as_ref()?, inference.cost)),
        step::Step::Tool(tool) => Some((tool.usage.as_ref()?, tool.cost)),
        step::Step::Compaction(compaction) => Some((compaction.usage.as_ref()?, compaction.cost)),
        step::Step::Shield(_) | step::Step::ToolList(_) | step::Step::Handoff(_) => None,
    }
}

/// Whether a turn with this status has ended.
pub fn is_final(status: TurnStatus) -> bool {
    use TurnStatus::{AwaitingTools, Cancelled, Completed, Failed, InProgress, Incomplete, Unspecified};
    match status {
        Completed | Incomplete | Failed | Cancelled => true,
        Unspecified | InProgress | AwaitingTools => false,
    }
}

/// The words that stand where a shield let none pass.
pub(crate) fn refusal(text: &str) -> (llama_stack_proto::v1::Message, FinishReason) {
    let part = Part::new(Content::Refusal(text.to_owned())).with_provenance("assistant");
    (llama_stack_proto::v1::Message::new(llama_stack_proto::v1::Role::Assistant, vec![part]), FinishReason::ContentFilter)
}

/// Zero where either is not known or the clock went back.
pub(crate) fn elapsed(from: Option<Timestamp>, to: Option<Timestamp>) -> Duration {
    let (Some(from), Some(to)) = (from, to) else { return Duration::ZERO };
    let nanos = |time: Timestamp| i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos);
    u64::try_from(nanos(to) - nanos(from)).map_or(Duration::ZERO, Duration::from_nanos)
}

fn damaged(how: &str) -> Error {
    Error::new(Code::DataLoss, format!("the journal of this turn {how}")).with_reason("journal_damaged")
}
