//! Which step of a turn becomes which items, and the events that tell of it: for a turn that is streamed and one that is
//! read back alike.
//!
//! | step | item |
//! |---|---|
//! | inference | `message`, `reasoning`, `function_call` (`output`) |
//! | tool list | `mcp_list_tools` |
//! | tool, of an MCP server or of the stack | `mcp_call` |
//! | tool `web_search` of the stack | `web_search_call` |
//! | tool `file_search` of the agent | `file_search_call` |
//! | tool of the client | none: the client has the `function_call` |
//! | hand-off | `function_call` and `function_call_output` |
//! | compaction | `compaction` |
//!
//! Items are added where a step begins and in the order of the steps, so that their order is that of the turn, however
//! their ends come.

use std::collections::BTreeMap;

use llama_stack_proto::v1::{
    AgentConfig, ApprovalRequest, ChatEvent, CompactionStep, HandoffStep, InferenceStep, SearchResult, Step, ToolCall, ToolDefinition,
    ToolListStep, ToolResult, ToolStep, Turn, step::Step as StepKind,
};
use serde_json::{Value, json};

use super::{
    compaction,
    echo::Echo,
    items::{Item, Status, step_item_id},
    output::{self, Events, Writer, emit},
};
use crate::openai::vector_stores::ids::store_id;

/// What the stack's own tools are labelled, where an MCP server's label would stand.
const STACK: &str = "stack";
/// The same for agents that are called as tools.
const AGENTS: &str = "agents";
/// The stack's tool that is an item of its own kind.
pub(crate) const WEB_SEARCH: &str = "web_search";
/// The search over an agent's banks, which is one as well.
pub(crate) const FILE_SEARCH: &str = "file_search";

/// The items that a turn has put out so far.
#[derive(Default)]
pub(crate) struct Output {
    turn_id: String,
    /// What the turn runs with now: a hand-off changes it.
    config: AgentConfig,
    items: Vec<Item>,
    /// Steps whose item is open, and which item that is.
    open: BTreeMap<u32, usize>,
    /// The inference that runs.
    writer: Option<Writer>,
    /// How many of the last items are requests for approval.
    asked: usize,
}

/// Every item of a turn as it stands, with those of the calls that wait for a decision.
pub(crate) fn items(turn: &Turn, approvals: &[ApprovalRequest], ended: bool) -> Vec<Item> {
    let mut output = Output::new(turn);
    for step in &turn.steps {
        output.begin(step, &mut None);
        if step.ended.is_some() {
            output.end(step, &mut None);
        }
    }
    output.ask(approvals, &mut None);
    if ended {
        output.finish(&mut None);
    }
    output.items
}

impl Output {
    pub(crate) fn new(turn: &Turn) -> Self {
        Self { turn_id: turn.id.clone(), config: turn.config.clone().unwrap_or_default(), ..Self::default() }
    }

    /// A step begins.
    pub(crate) fn begin(&mut self, step: &Step, events: &mut Events<'_>) {
        let id = |prefix: &str| step_item_id(prefix, &self.turn_id, step.index as usize, 0);
        match &step.step {
            Some(StepKind::Inference(_)) => {
                self.writer = Some(Writer::new(&self.turn_id, step.index as usize, &self.config, self.items.len()));
            }
            Some(StepKind::Tool(tool)) if !tool.client => {
                let call = tool.call.clone().unwrap_or_default();
                let item = self.tool_item(id, tool, &call);
                self.add(step.index, item, events);
                self.told(&call, events);
            }
            Some(StepKind::ToolList(list)) => {
                let item = Item::McpListTools { id: id("mcpl"), server_label: list.server_label.clone(), tools: Vec::new(), error: None };
                self.add(step.index, item, events);
                self.event("response.mcp_list_tools.in_progress", events);
            }
            Some(StepKind::Handoff(handoff)) => {
                let (call_id, output_id) = (id("fc"), step_item_id("fco", &self.turn_id, step.index as usize, 1));
                self.hand_off(step.index, call_id, output_id, handoff, events);
            }
            Some(StepKind::Compaction(_)) => {
                self.add(step.index, Item::Compaction { id: id("cmp"), encrypted_content: String::new() }, events);
                self.event("response.compaction.compacting", events);
            }
            Some(StepKind::Tool(_) | StepKind::Shield(_)) | None => {}
        }
    }

    /// A piece of what a model says.
    pub(crate) fn delta(&mut self, event: &ChatEvent, events: &mut Events<'_>) {
        if let Some(writer) = &mut self.writer {
            writer.push(event, events);
        }
    }

    /// A step has ended.
    pub(crate) fn end(&mut self, step: &Step, events: &mut Events<'_>) {
        if let Some(StepKind::Inference(inference)) = &step.step {
            return self.end_inference(inference, events);
        }
        let Some(place) = self.open.remove(&step.index) else { return };
        match &step.step {
            Some(StepKind::Tool(tool)) => self.end_tool(place, tool, events),
            Some(StepKind::ToolList(list)) => self.end_list(place, list, events),
            Some(StepKind::Handoff(handoff)) => {
                if let Some(config) = &handoff.config {
                    self.config = config.clone();
                }
                self.answer(place, handoff.result.as_ref(), events);
            }
            Some(StepKind::Compaction(step)) => self.end_compaction(place, step, events),
            Some(StepKind::Inference(_) | StepKind::Shield(_)) | None => {}
        }
    }

    /// Calls wait for a decision.
    pub(crate) fn ask(&mut self, approvals: &[ApprovalRequest], events: &mut Events<'_>) {
        for request in approvals {
            let call = request.call.clone().unwrap_or_default();
            let label = if request.server_label.is_empty() { self.own_label(&call.name) } else { request.server_label.clone() };
            let (name, arguments) = (call.name, call.arguments);
            self.items.push(Item::McpApprovalRequest { id: request.id.clone(), server_label: label, name, arguments });
            self.asked += 1;
            let place = self.items.len() - 1;
            self.added(place, events);
            self.done(place, events);
        }
    }

    /// The turn goes on: its calls are decided, and what comes of them are items of their own.
    pub(crate) fn go_on(&mut self) {
        self.items.truncate(self.items.len() - self.asked.min(self.items.len()));
        self.asked = 0;
    }

    /// The turn has ended: what is open is closed as it is. True where a model was cut off in the middle, whose words are
    /// in no journal.
    pub(crate) fn finish(&mut self, events: &mut Events<'_>) -> bool {
        let lost = self.writer.take().map(|writer| writer.finish(Status::Incomplete, events)).is_some();
        for place in std::mem::take(&mut self.open).into_values() {
            let Some(item) = self.items.get_mut(place) else { continue };
            item.set_status(Status::Incomplete);
            match item {
                Item::McpCall { .. } => self.event_at(place, "response.mcp_call.failed", events),
                Item::McpListTools { .. } => self.event_at(place, "response.mcp_list_tools.failed", events),
                _ => {}
            }
            self.done(place, events);
        }
        lost
    }

    fn end_inference(&mut self, inference: &InferenceStep, events: &mut Events<'_>) {
        let Some(mut writer) = self.writer.take() else { return };
        if inference.cut_off {
            // Its words are lost; those that somebody saw are closed, and are no part of the Response.
            writer.finish(Status::Incomplete, events);
            return;
        }
        writer.rest(inference, events);
        writer.annotate(inference, events);
        self.items.extend(writer.finish(output::status(inference), events));
    }

    fn tool_item(&self, id: impl Fn(&str) -> String, tool: &ToolStep, call: &ToolCall) -> Item {
        let status = Status::InProgress;
        if self.config.client_tools.iter().any(|tool| tool.name == call.name) {
            // A repetition of a call of the client's, whose result is known.
            return Item::FunctionCallOutput { id: id("fco"), status, call_id: call.id.clone(), output: String::new() };
        }
        if tool.server_label.is_empty() && call.name == WEB_SEARCH {
            return Item::WebSearchCall { id: id("ws"), status, action: search(&call.arguments) };
        }
        if tool.server_label.is_empty() && call.name == FILE_SEARCH && self.config.file_search.is_some() {
            return Item::FileSearchCall { id: id("fs"), status, queries: queries(&call.arguments), results: None };
        }
        let server_label = if tool.server_label.is_empty() { self.own_label(&call.name) } else { tool.server_label.clone() };
        let approval_request_id = Some(tool.approval_request_id.clone()).filter(|id| !id.is_empty());
        let (name, arguments) = (call.name.clone(), String::new());
        Item::McpCall { id: id("mcp"), status, server_label, name, arguments, approval_request_id, output: None, error: None }
    }

    fn own_label(&self, name: &str) -> String {
        let own = self.config.agents.is_empty() || self.config.tools.iter().any(|tool| tool == name);
        if own { STACK } else { AGENTS }.to_owned()
    }

    /// A call of the stack's has begun, with all its arguments.
    fn told(&mut self, call: &ToolCall, events: &mut Events<'_>) {
        let place = self.items.len().saturating_sub(1);
        match self.items.last_mut() {
            Some(Item::WebSearchCall { .. }) => {
                self.event("response.web_search_call.in_progress", events);
                self.event("response.web_search_call.searching", events);
            }
            Some(Item::FileSearchCall { .. }) => {
                self.event("response.file_search_call.in_progress", events);
                self.event("response.file_search_call.searching", events);
            }
            Some(Item::McpCall { id, arguments, .. }) => {
                arguments.clone_from(&call.arguments);
                let id = id.clone();
                self.event("response.mcp_call.in_progress", events);
                arguments_events(["response.mcp_call_arguments.delta", "response.mcp_call_arguments.done"], &id, place, call, events);
            }
            _ => {}
        }
    }

    fn hand_off(&mut self, index: u32, call_id: String, output_id: String, handoff: &HandoffStep, events: &mut Events<'_>) {
        let call = handoff.call.clone().unwrap_or_default();
        let (status, name, arguments) = (Status::InProgress, call.name.clone(), String::new());
        self.items.push(Item::FunctionCall { id: call_id.clone(), status, call_id: call.id.clone(), name, namespace: None, arguments });
        let place = self.items.len() - 1;
        self.added(place, events);
        let kinds = ["response.function_call_arguments.delta", "response.function_call_arguments.done"];
        arguments_events(kinds, &call_id, place, &call, events);
        if let Some(Item::FunctionCall { status, arguments, .. }) = self.items.get_mut(place) {
            *status = Status::Completed;
            *arguments = call.arguments;
        }
        self.done(place, events);
        let output = Item::FunctionCallOutput { id: output_id, status: Status::InProgress, call_id: call.id, output: String::new() };
        self.add(index, output, events);
    }

    fn end_tool(&mut self, place: usize, tool: &ToolStep, events: &mut Events<'_>) {
        let result = tool.result.as_ref();
        match self.items.get_mut(place) {
            Some(Item::McpCall { status, output, error, .. }) => {
                *status = ended(result);
                let text = result.map(ToolResult::joined_text);
                match *status {
                    Status::Failed => {
                        let content = json!([{ "type": "text", "text": text }]);
                        *error = Some(json!({ "type": "mcp_tool_execution_error", "content": content }));
                    }
                    _ => *output = text,
                }
                let completed = *status == Status::Completed;
                self.event_at(place, if completed { "response.mcp_call.completed" } else { "response.mcp_call.failed" }, events);
                self.done(place, events);
            }
            Some(Item::WebSearchCall { status, action, .. }) => {
                *status = ended(result);
                if Echo::kept(&self.config).web_search_sources {
                    let pages = result.into_iter().flat_map(ToolResult::web_pages);
                    action["sources"] = pages.map(|(url, _)| json!({ "type": "url", "url": url })).collect();
                }
                self.event_at(place, "response.web_search_call.completed", events);
                self.done(place, events);
            }
            Some(Item::FileSearchCall { status, results, .. }) => {
                *status = ended(result);
                if Echo::kept(&self.config).file_search_results {
                    *results = result.map(|result| result.search_results.iter().map(found).collect());
                }
                self.event_at(place, "response.file_search_call.completed", events);
                self.done(place, events);
            }
            _ => self.answer(place, result, events),
        }
    }

    fn end_list(&mut self, place: usize, list: &ToolListStep, events: &mut Events<'_>) {
        if let Some(Item::McpListTools { tools, error, .. }) = self.items.get_mut(place) {
            *tools = list.tools.iter().map(|tool| listed(tool, list.read_only.contains(&tool.name))).collect();
            *error = list.error.as_ref().map(|error| error.message.clone());
        }
        let failed = list.error.is_some();
        self.event_at(place, if failed { "response.mcp_list_tools.failed" } else { "response.mcp_list_tools.completed" }, events);
        self.done(place, events);
    }

    fn end_compaction(&mut self, place: usize, step: &CompactionStep, events: &mut Events<'_>) {
        if let Some(Item::Compaction { encrypted_content, .. }) = self.items.get_mut(place) {
            *encrypted_content = compaction::write(step);
        }
        self.done(place, events);
    }

    fn answer(&mut self, place: usize, result: Option<&ToolResult>, events: &mut Events<'_>) {
        if let Some(Item::FunctionCallOutput { status, output, .. }) = self.items.get_mut(place) {
            *status = if result.is_some() { Status::Completed } else { Status::Incomplete };
            *output = result.map(ToolResult::joined_text).unwrap_or_default();
        }
        self.done(place, events);
    }

    /// Adds the item of a step, which stays open.
    fn add(&mut self, step: u32, item: Item, events: &mut Events<'_>) {
        self.items.push(item);
        self.open.insert(step, self.items.len() - 1);
        self.added(self.items.len() - 1, events);
    }

    fn added(&self, place: usize, events: &mut Events<'_>) {
        emit(events, "response.output_item.added", || json!({ "output_index": place, "item": self.items.get(place) }));
    }

    fn done(&self, place: usize, events: &mut Events<'_>) {
        emit(events, "response.output_item.done", || json!({ "output_index": place, "item": self.items.get(place) }));
    }

    /// An event that says no more than which item it is about: the last one.
    fn event(&self, kind: &'static str, events: &mut Events<'_>) {
        self.event_at(self.items.len().saturating_sub(1), kind, events);
    }

    fn event_at(&self, place: usize, kind: &'static str, events: &mut Events<'_>) {
        emit(events, kind, || json!({ "output_index": place, "item_id": self.items.get(place).map(Item::id) }));
    }
}

fn ended(result: Option<&ToolResult>) -> Status {
    match result {
        Some(result) if result.is_error => Status::Failed,
        Some(_) => Status::Completed,
        // It was taken out.
        None => Status::Incomplete,
    }
}

/// The arguments of a call that is known as a whole.
fn arguments_events(kinds: [&'static str; 2], id: &str, place: usize, call: &ToolCall, events: &mut Events<'_>) {
    let [delta, done] = kinds;
    if !call.arguments.is_empty() {
        emit(events, delta, || json!({ "item_id": id, "output_index": place, "delta": call.arguments }));
    }
    emit(events, done, || {
        let mut fields = json!({ "item_id": id, "output_index": place, "arguments": call.arguments });
        if done == "response.function_call_arguments.done" {
            fields["name"] = call.name.clone().into();
        }
        fields
    });
}

fn search(arguments: &str) -> Value {
    let arguments: Value = serde_json::from_str(arguments).unwrap_or_default();
    let query = arguments.get("query").and_then(Value::as_str).unwrap_or_default();
    json!({ "type": "search", "query": query, "queries": [query] })
}

/// What a search of files looks for, as far as its arguments can be read.
fn queries(arguments: &str) -> Vec<String> {
    let arguments: Value = serde_json::from_str(arguments).unwrap_or_default();
    let several = arguments.get("queries").and_then(Value::as_array).into_iter().flatten();
    let mut queries: Vec<String> = Vec::new();
    for query in arguments.get("query").into_iter().chain(several).filter_map(Value::as_str).map(str::trim) {
        if !query.is_empty() && !queries.iter().any(|other| other == query) {
            queries.push(query.to_owned());
        }
    }
    queries
}

fn found(result: &SearchResult) -> Value {
    let file_id = if result.file_id.is_empty() { &result.document_id } else { &result.file_id };
    json!({
        "file_id": file_id,
        "filename": result.filename,
        "score": result.score,
        "text": result.text,
        "attributes": serde_json::from_str::<Value>(&result.attributes).unwrap_or_else(|_| json!({})),
        "vector_store_id": store_id(&result.bank_id),
    })
}

fn listed(tool: &ToolDefinition, read_only: bool) -> Value {
    json!({
        "name": tool.name,
        "description": (!tool.description.is_empty()).then_some(&tool.description),
        "input_schema": serde_json::from_str::<Value>(&tool.parameters).unwrap_or_else(|_| json!({ "type": "object" })),
        "annotations": read_only.then(|| json!({ "read_only": true })),
    })
}
