//! One turn at a terminal: what the agent says and does, as it happens, and decisions on calls that wait.

use std::{
    io::{self, BufRead, IsTerminal},
    pin::Pin,
};

use futures::StreamExt;
use llama_stack_core::{Agents, Code, Error, EventStream, Result};
use llama_stack_proto::v1::{
    AgentConfig, ApprovalDecision, ApprovalRequest, CancelTurnRequest, CreateTurnRequest, GetTurnRequest, Message, OnDisconnect,
    ResumeTurnRequest, Step, Turn, TurnEvent, chat_event, step, turn_event::Event,
};

use super::Client;
use crate::{
    args::Approve,
    output::{Output, Tone},
};

/// A conversation with one agent.
pub(super) struct Talk {
    pub(super) client: Client,
    /// Empty: `config`, or the session's own.
    pub(super) agent: String,
    pub(super) config: Option<AgentConfig>,
    /// Empty: the first turn makes one.
    pub(super) session: String,
    /// The turn to go on after. Empty: the session's newest.
    pub(super) after: String,
    pub(super) approve: Approve,
    pub(super) output: Output,
}

/// How a stream of events ended.
enum Pause {
    Ended(Box<Turn>),
    Waits { turn: String, approvals: Vec<ApprovalRequest> },
}

impl Talk {
    /// Runs a turn to its end, or to where it waits for what nobody here can give.
    pub(super) async fn say(&mut self, text: &str) -> Result<Turn> {
        let (cx, message) = (crate::caller::caller(), Message::user(text));
        let request = CreateTurnRequest {
            session_id: self.session.clone(),
            parent_turn_id: self.after.clone(),
            agent_id: self.agent.clone(),
            config: self.config.clone(),
            input: vec![message],
            on_disconnect: OnDisconnect::Cancel.into(),
            ..CreateTurnRequest::default()
        };
        // One for all of it: between two of them a Ctrl-C would be heard by nobody.
        let mut stop = std::pin::pin!(tokio::signal::ctrl_c());
        let mut events = tokio::select! {
            begun = self.client.create_turn(&cx, request) => begun?,
            _ = &mut stop => return self.cancel(String::new()).await,
        };
        let mut id = String::new();
        loop {
            let (turn, approvals) = match self.follow(events, id, stop.as_mut()).await? {
                Pause::Ended(turn) => return Ok(*turn),
                Pause::Waits { turn, approvals } => (turn, approvals),
            };
            let decisions = if approvals.is_empty() { None } else { self.decide(approvals).await? };
            let Some(decisions) = decisions else { return self.client.get_turn(&cx, GetTurnRequest { id: turn }).await };
            let on_disconnect = OnDisconnect::Cancel.into();
            let request = ResumeTurnRequest { turn_id: turn.clone(), decisions, on_disconnect, ..ResumeTurnRequest::default() };
            events = tokio::select! {
                // A Ctrl-C while somebody was asked comes first: nothing that was said runs.
                biased;
                _ = &mut stop => return self.cancel(turn).await,
                resumed = self.client.resume_turn(&cx, request) => resumed?,
            };
            id = turn;
        }
    }

    /// What Ctrl-C does. A turn whose `id` is not known yet is cancelled by its stream, which nobody reads any more.
    async fn cancel(&self, id: String) -> Result<Turn> {
        if id.is_empty() {
            return Err(Error::new(Code::Cancelled, "stopped before it began"));
        }
        let turn = self.client.cancel_turn(&crate::caller::caller(), CancelTurnRequest { id }).await?;
        self.show("\n(stopped)\n")?;
        Ok(turn)
    }

    /// `id` is empty until the turn's first event.
    async fn follow(
        &self,
        mut events: EventStream<TurnEvent>,
        mut id: String,
        mut stop: Pin<&mut impl Future<Output = io::Result<()>>>,
    ) -> Result<Pause> {
        let mut waits = None;
        // Gone while there are words, and back for what comes after a step.
        let working = || Some(self.output.working("the agent is at work"));
        let mut silence = working();
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                _ = &mut stop => {
                    drop(silence);
                    return self.cancel(id).await.map(|turn| Pause::Ended(Box::new(turn)));
                }
            };
            // Read to its end: a stream that is dropped before cancels its turn.
            let Some(event) = event.transpose()? else {
                let broken = || Error::unavailable("the stack broke off; `llama-stack session list` shows what became of the turn");
                return waits.map(|approvals| Pause::Waits { turn: id, approvals }).ok_or_else(broken);
            };
            id = event.turn_id;
            match event.event {
                Some(Event::Delta(delta)) => {
                    if let Some(chat_event::Event::Text(text)) = delta.event.and_then(|event| event.event) {
                        silence = None;
                        self.show(&text)?;
                    }
                }
                Some(Event::StepCompleted(step)) => {
                    drop(silence.take());
                    self.step(&step)?;
                    silence = working();
                }
                Some(Event::AwaitingTools(awaited)) => waits = Some(awaited.approvals),
                Some(Event::Resumed(_)) => waits = None,
                Some(Event::Ended(turn)) => return Ok(Pause::Ended(turn)),
                _ => {}
            }
        }
    }

    fn show(&self, text: &str) -> Result<()> {
        if self.output.is_json() { Ok(()) } else { self.output.write(text) }
    }

    fn step(&self, step: &Step) -> Result<()> {
        let faint = |text: &str| self.output.paint(Tone::Faint, text);
        match &step.step {
            Some(step::Step::Inference(said)) => {
                let words = said.message.as_ref().is_some_and(|message| !message.joined_text().is_empty());
                self.show(if words { "\n" } else { "" })
            }
            Some(step::Step::Tool(tool)) => {
                let call = tool.call.clone().unwrap_or_default();
                let result = tool.result.as_ref().map(|result| result.joined_text()).unwrap_or_default();
                self.show(&format!("{}\n", faint(&format!("[{} {} -> {}]", call.name, call.arguments, result.trim_end()))))
            }
            Some(step::Step::Shield(shield)) => match shield.verdict.as_ref().and_then(|verdict| verdict.violation.as_ref()) {
                Some(violation) => self.show(&format!("{}\n", faint(&format!("[shield {}: {}]", shield.shield_id, violation.reason)))),
                None => Ok(()),
            },
            Some(step::Step::Handoff(handoff)) => self.show(&format!("{}\n", faint(&format!("[handed over to {}]", handoff.agent_id)))),
            Some(step::Step::Compaction(_)) => self.show(&format!("{}\n", faint("[the history was summarised]"))),
            Some(step::Step::ToolList(_)) | None => Ok(()),
        }
    }

    /// One decision per call. `None` where nobody can be asked.
    async fn decide(&self, approvals: Vec<ApprovalRequest>) -> Result<Option<Vec<ApprovalDecision>>> {
        let mut decisions = Vec::with_capacity(approvals.len());
        for approval in approvals {
            let call = approval.call.clone().unwrap_or_default();
            let approve = match self.approve {
                Approve::All => true,
                Approve::None => false,
                Approve::Ask if !std::io::stdin().is_terminal() => return Ok(None),
                Approve::Ask => {
                    let by = if approval.asked_by.is_empty() { String::new() } else { format!(" (asked by {})", approval.asked_by) };
                    ask(&self.output, format!("run {} {}{by}? [y/N] ", call.name, call.arguments)).await?
                }
            };
            let reason = if approve { String::new() } else { "the user said no".into() };
            decisions.push(ApprovalDecision { approval_request_id: approval.id, approve, reason });
        }
        Ok(Some(decisions))
    }
}

/// Anything but yes is no.
async fn ask(output: &Output, question: String) -> Result<bool> {
    output.ask(&question);
    let read = tokio::task::spawn_blocking(|| {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map(|_| line)
    });
    let line = read.await.map_err(|error| Error::internal("the terminal cannot be read").with_source(error))?;
    let line = line.map_err(|error| Error::internal("the terminal cannot be read").with_source(error))?;
    Ok(matches!(line.trim().to_lowercase().as_str(), "y" | "yes"))
}
