//! Runs a recorded session again, turn by turn, in a new session, and says what came out differently.
//!
//! Tools are not called again: their answers come from the recording, by name and arguments. `--live-tools` calls them.

use std::collections::HashMap;

use futures::StreamExt as _;
use llama_stack_core::{Agents as _, Error, EventStream, Result, Tools as _, grpc::Remote};
use llama_stack_proto::v1::{
    AgentConfig, ApprovalDecision, AwaitingTools, CreateSessionRequest, CreateTurnRequest, GetTurnRequest, ListToolsRequest, Message,
    ResumeTurnRequest, ToolCall, ToolDefinition, ToolResult, Turn, TurnEvent, TurnStatus, step::Step, tools_client::ToolsClient,
    turn_event::Event,
};
use serde::Serialize;
use serde_json::Value;
use tonic::transport::Channel;

use super::{Client, client, recording::Recording};
use crate::{args::ReplayArgs, output::Output, reach};

#[derive(Serialize)]
struct Report {
    /// The new session.
    session_id: String,
    turns: Vec<Row>,
    differ: usize,
}

#[derive(Serialize)]
struct Row {
    recorded_turn_id: String,
    turn_id: String,
    same: bool,
    recorded: Outcome,
    now: Outcome,
    /// Calls that the recording has no answer to.
    unanswered: Vec<String>,
}

/// What a turn came to.
#[derive(Serialize, PartialEq)]
struct Outcome {
    status: String,
    answer: String,
    /// `name arguments`, in order.
    calls: Vec<String>,
}

pub(super) async fn run(args: ReplayArgs, output: &Output) -> Result<()> {
    let recording = Recording::read(&args.file)?;
    let replay = Replay::new(&args, &recording).await?;
    let report = replay.run(recording, &output.counts()).await;
    let report = report.map_err(|error| reach::explained(error, &args.server.server))?;
    let differ = report.differ;
    output.result(&report, text)?;
    if differ > 0 && args.strict {
        return Err(Error::failed_precondition(format!("{differ} of {} turns came out differently", report.turns.len())));
    }
    Ok(())
}

struct Replay<'a> {
    args: &'a ReplayArgs,
    client: Client,
    /// What the stack's own tools are declared as, for a model that must see them though nobody calls them.
    definitions: HashMap<String, ToolDefinition>,
    session_id: String,
}

impl<'a> Replay<'a> {
    async fn new(args: &'a ReplayArgs, recording: &Recording) -> Result<Self> {
        let cx = crate::caller::caller();
        let client = client(&args.server)?;
        let name = format!("replay of {}", recording.session.id);
        let session = client.create_session(&cx, CreateSessionRequest { name, ..CreateSessionRequest::default() }).await;
        let session = session.map_err(|error| reach::explained(error, &args.server.server))?;
        let tools = Remote::<ToolsClient<Channel>>::new(reach::connect(&args.server.server)?);
        let tools = tools.list_tools(&cx, ListToolsRequest::default()).await?.tools;
        let definitions = tools.into_iter().filter_map(|tool| tool.definition).map(|tool| (tool.name.clone(), tool)).collect();
        Ok(Self { args, client, definitions, session_id: session.id })
    }

    async fn run(&self, recording: Recording, on_count: &dyn Fn(&str, u64, u64)) -> Result<Report> {
        let mut replayed: HashMap<String, String> = HashMap::new();
        let mut rows = Vec::new();
        for turn in &recording.turns {
            let parent = replayed.get(&turn.parent_turn_id).cloned().unwrap_or_default();
            let row = self.turn(turn, parent).await?;
            replayed.insert(turn.id.clone(), row.turn_id.clone());
            rows.push(row);
            on_count("turns", rows.len() as u64, recording.turns.len() as u64);
        }
        let differ = rows.iter().filter(|row| !row.same).count();
        Ok(Report { session_id: self.session_id.clone(), turns: rows, differ })
    }

    async fn turn(&self, recorded: &Turn, parent_turn_id: String) -> Result<Row> {
        let cx = crate::caller::caller();
        let mut answers = Answers::of(recorded);
        let request = CreateTurnRequest {
            session_id: self.session_id.clone(),
            config: (!recorded.append_only).then(|| self.config(recorded)),
            input: recorded.input.clone(),
            parent_turn_id,
            append_only: recorded.append_only,
            ..CreateTurnRequest::default()
        };
        let mut unanswered = Vec::new();
        let mut events = self.client.create_turn(&cx, request).await?;
        let turn = loop {
            let (turn_id, awaiting) = rest(&mut events).await?;
            let Some(awaiting) = awaiting else { break self.client.get_turn(&cx, GetTurnRequest { id: turn_id }).await? };
            let results = awaiting.calls.iter().map(|call| {
                answers.take(call).unwrap_or_else(|| {
                    unanswered.push(told(call));
                    ToolResult::text(call, "this call is not in the recording that is replayed", true)
                })
            });
            let results = results.collect();
            let denied = |request: &llama_stack_proto::v1::ApprovalRequest| ApprovalDecision {
                approval_request_id: request.id.clone(),
                approve: false,
                reason: "nobody approves calls of a replay".into(),
            };
            let decisions = awaiting.approvals.iter().map(denied).collect();
            let resume = ResumeTurnRequest { turn_id, results, decisions, ..ResumeTurnRequest::default() };
            events = self.client.resume_turn(&cx, resume).await?;
        };
        let (was, now) = (outcome(recorded), outcome(&turn));
        Ok(Row { recorded_turn_id: recorded.id.clone(), turn_id: turn.id, same: was == now, recorded: was, now, unanswered })
    }

    /// As recorded, with what the command line changes. Without `--live-tools` whatever would be called is the client's.
    fn config(&self, recorded: &Turn) -> AgentConfig {
        let mut config = recorded.config.clone().unwrap_or_default();
        if let Some(model) = &self.args.model {
            config.model.clone_from(model);
        }
        if self.args.live_tools {
            return config;
        }
        let mut tools: Vec<ToolDefinition> = config.tools.drain(..).map(|name| self.definition(name)).collect();
        let listed = recorded.steps.iter().filter_map(|step| match &step.step {
            Some(Step::ToolList(list)) => Some(&list.tools),
            _ => None,
        });
        tools.extend(listed.flatten().cloned());
        tools.extend(config.agents.drain(..).map(|agent| self.definition(agent.name)));
        for tool in tools {
            if !config.client_tools.iter().any(|there| there.name == tool.name) {
                config.client_tools.push(tool);
            }
        }
        config.mcp_servers.clear();
        config.require_approval.clear();
        config
    }

    fn definition(&self, name: String) -> ToolDefinition {
        self.definitions.get(&name).cloned().unwrap_or_else(|| ToolDefinition::new(name, "", r#"{"type":"object"}"#))
    }
}

/// The recorded results, by call, in the order in which they came.
struct Answers(Vec<(String, ToolResult)>);

impl Answers {
    fn of(turn: &Turn) -> Self {
        let answer = |step: &llama_stack_proto::v1::Step| match &step.step {
            Some(Step::Tool(tool)) => tool.call.as_ref().map(told).zip(tool.result.clone()),
            Some(Step::Handoff(handoff)) => handoff.call.as_ref().map(told).zip(handoff.result.clone()),
            _ => None,
        };
        Self(turn.steps.iter().filter_map(answer).collect())
    }

    fn take(&mut self, call: &ToolCall) -> Option<ToolResult> {
        let at = self.0.iter().position(|(recorded, _)| *recorded == told(call))?;
        Some(ToolResult { call_id: call.id.clone(), ..self.0.remove(at).1 })
    }
}

/// A call without its id; spaces and the order of keys make no difference.
fn told(call: &ToolCall) -> String {
    fn sorted(value: Value) -> Value {
        match value {
            Value::Object(map) => {
                let mut entries: Vec<_> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                Value::Object(entries.into_iter().collect())
            }
            Value::Array(list) => Value::Array(list.into_iter().map(sorted).collect()),
            other => other,
        }
    }
    match serde_json::from_str(&call.arguments) {
        Ok(arguments) => format!("{} {}", call.name, sorted(arguments)),
        Err(_) => format!("{} {}", call.name, call.arguments),
    }
}

fn outcome(turn: &Turn) -> Outcome {
    let mut calls = Vec::new();
    let mut answer = String::new();
    for step in turn.steps.iter().filter_map(|step| step.step.as_ref()) {
        match step {
            Step::Tool(tool) => calls.extend(tool.call.as_ref().map(told)),
            Step::Handoff(handoff) => calls.extend(handoff.call.as_ref().map(told)),
            Step::Inference(inference) => answer = inference.message.as_ref().map(Message::joined_text).unwrap_or_default(),
            _ => {}
        }
    }
    let status = turn.status().as_str_name().trim_start_matches("TURN_STATUS_").to_lowercase();
    Outcome { status, answer, calls }
}

/// Follows a turn to its rest; what it waits for, if it does.
async fn rest(events: &mut EventStream<TurnEvent>) -> Result<(String, Option<AwaitingTools>)> {
    let (mut id, mut awaiting) = (String::new(), None);
    while let Some(event) = events.next().await {
        let event = event?;
        id = event.turn_id;
        awaiting = match event.event {
            Some(Event::AwaitingTools(what)) => Some(what),
            Some(Event::Ended(turn)) if turn.status() == TurnStatus::AwaitingTools => awaiting,
            Some(Event::Delta(_)) => awaiting,
            _ => None,
        };
    }
    Ok((id, awaiting))
}

fn text(report: &Report) -> String {
    let mut text = format!("session {}\n", report.session_id);
    for row in &report.turns {
        text += &format!("{} {}\n", row.recorded_turn_id, if row.same { "same" } else { "differs" });
        if row.same {
            continue;
        }
        for (when, outcome) in [("was", &row.recorded), ("now", &row.now)] {
            text += &format!("  {when} {}: {}\n", outcome.status, outcome.answer);
            outcome.calls.iter().for_each(|call| text += &format!("    called {call}\n"));
        }
        row.unanswered.iter().for_each(|call| text += &format!("  not in the recording: {call}\n"));
    }
    text + &format!("{} turns, {} differ\n", report.turns.len(), report.differ)
}
