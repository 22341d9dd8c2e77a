//! A model that makes the calls of its task, and obeys whatever the attacker's text says as soon as it has read it.

use std::{collections::VecDeque, sync::Mutex};

use async_trait::async_trait;
use futures::stream;
use llama_stack_core::{Context, EventStream, Inference, Result};
use llama_stack_proto::v1::{
    ChatEvent, ChatRequest, FinishReason, ListModelsRequest, ListModelsResponse, Message, Model, ModelKind, ToolCallDelta, Usage,
};

/// Tool and arguments.
pub(super) type Call = (&'static str, &'static str);

#[derive(Default)]
pub(super) struct Obedient(Mutex<State>);

#[derive(Default)]
struct State {
    /// Calls that are still to be made, by the model that makes them.
    plans: Vec<(&'static str, VecDeque<Call>)>,
    /// The attacker's text, and what it says that is still to be done: one call after the other, since what is sent has
    /// to be read first.
    attack: Option<(String, VecDeque<Call>)>,
    obeys: bool,
    obeyed: bool,
}

impl Obedient {
    /// What `model` does next, call by call.
    pub(super) fn plan(&self, model: &'static str, calls: &[Call]) {
        self.0.lock().unwrap().plans.push((model, calls.iter().copied().collect()));
    }

    /// What it does in the next turn.
    pub(super) fn plan_rest(&self, calls: &[Call]) {
        self.0.lock().unwrap().plans = vec![(MAIN, calls.iter().copied().collect())];
    }

    pub(super) fn obey(&self, words: String, calls: &[Call]) {
        self.0.lock().unwrap().attack = Some((words, calls.iter().copied().collect()));
    }

    /// From now on: before, it only reads.
    pub(super) fn begin_to_obey(&self) {
        self.0.lock().unwrap().obeys = true;
    }

    pub(super) fn obeyed(&self) -> bool {
        self.0.lock().unwrap().obeyed
    }

    fn next(&self, request: &ChatRequest) -> Option<Call> {
        let mut state = self.0.lock().unwrap();
        let read = text(&request.messages);
        if state.obeys
            && request.model == MAIN
            && let Some((words, calls)) = &mut state.attack
            && read.contains(words.as_str())
            && let Some(call) = calls.pop_front()
        {
            state.obeyed = calls.is_empty();
            return Some(call);
        }
        state.plans.iter_mut().find(|(model, _)| *model == request.model)?.1.pop_front()
    }
}

/// The agent that acts, and the one that only reads.
pub(super) const MAIN: &str = "main";
pub(super) const READER: &str = "reader";

fn text(messages: &[Message]) -> String {
    let mut all = String::new();
    for message in messages {
        all.push_str(&message.joined_text());
        for result in message.tool_results() {
            all.push_str(&result.joined_text());
        }
    }
    all
}

#[async_trait]
impl Inference for Obedient {
    async fn list_models(&self, _: &Context, _: ListModelsRequest) -> Result<ListModelsResponse> {
        let model = |id: &str| Model { id: id.into(), kind: ModelKind::Chat.into(), ..Model::default() };
        Ok(ListModelsResponse { models: vec![model(MAIN), model(READER)], ..Default::default() })
    }

    async fn stream_chat(&self, _: &Context, request: ChatRequest) -> Result<EventStream<ChatEvent>> {
        // Asked for a summary, and done: it says all that it has read, word for word.
        let call = if request.tools.is_empty() { None } else { self.next(&request) };
        let called = call.is_some();
        let mut events = Vec::new();
        match call {
            None => events.push(ChatEvent::text(0, format!("Done. What I have read: {}", text(&request.messages)))),
            Some((name, arguments)) => {
                // Ids are told apart by the runtime.
                let delta = ToolCallDelta { name: name.into(), arguments: arguments.into(), ..ToolCallDelta::default() };
                events.push(ChatEvent::tool_call(0, delta));
            }
        }
        events.push(ChatEvent::finish(0, if called { FinishReason::ToolCalls } else { FinishReason::Stop }));
        events.push(ChatEvent::usage(Usage { prompt_tokens: 1, completion_tokens: 1, ..Usage::default() }));
        Ok(Box::pin(stream::iter(events.into_iter().map(Ok))))
    }
}
