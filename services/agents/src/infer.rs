//! One inference step: the request, the words as they come, the shields on them, the result.

use std::{collections::HashSet, sync::Arc};

use futures::StreamExt as _;
use llama_stack_core::{
    Context, Inference, failpoint,
    fold::{ChatFold, broken_off},
    ids,
};
use llama_stack_proto::v1::{
    AgentConfig, ChatEvent, ChatRequest, FinishReason, InferenceStep, Message, Role, ShieldStage, ToolCallDelta, ToolChoice, Turn, Usage,
    chat_event::Event, step::Step, tool_choice::Mode,
};

use crate::{
    conversation, fold,
    journal::Journal,
    plan::{forbids, shield_step, tokens_left},
    run::{Run, Stop},
    shields,
    toolbox::Toolbox,
};

/// What a model has said.
struct Answer {
    step: InferenceStep,
    /// Deltas that wait for the verdict of the output shields.
    held: Vec<ChatEvent>,
}

impl Run {
    /// Runs the inference step at `index`, and stages its result.
    pub(crate) async fn infer(&mut self, index: usize) -> Result<(), Stop> {
        let config = self.journal.turn().config.clone().unwrap_or_default();
        let Some(Step::Inference(open)) = self.journal.turn().steps.get(index).and_then(|step| step.step.clone()) else { return Ok(()) };
        let request = request(self.journal.turn(), &self.history, &self.toolbox, &config, open.tools_withheld);
        let hold = !config.output_shields.is_empty();
        let cx = self.effect_context();
        let generating = generate(self.shared.parts.inference.as_ref(), &cx, &self.journal, index, request, hold);
        failpoint::hit("inference.before");
        let mut answer = self.guarded(generating).await??;
        failpoint::hit("inference.answered");
        answer.step.tools_withheld = open.tools_withheld;
        if hold {
            self.judge_output(index, &config, &mut answer).await?;
        }
        self.journal.complete(index, Step::Inference(answer.step)).map_err(Stop::Broken)
    }

    /// What does not pass is replaced before anyone has seen it or the journal holds it. A crash in between costs
    /// another inference.
    async fn judge_output(&mut self, index: usize, config: &AgentConfig, answer: &mut Answer) -> Result<(), Stop> {
        let message = answer.step.message.clone().unwrap_or_default();
        let mut open: Vec<usize> = self.journal.fold().open_steps().into_iter().filter(|open| *open != index).collect();
        if open.is_empty() {
            if !shields::says_something(&message) {
                return self.show(index, answer).await;
            }
            for id in &config.output_shields {
                open.push(self.journal.start(shield_step(id, ShieldStage::Output)).map_err(Stop::Broken)?);
            }
            self.journal.commit().await.map_err(Stop::Broken)?;
        }
        let mut messages = self.history.clone();
        messages.extend(conversation::messages(self.journal.turn()));
        messages.push(message);
        self.judge(&open, Arc::new(messages)).await?;
        let verdicts = open.iter().filter_map(|index| self.journal.turn().steps.get(*index));
        let violation = verdicts.filter_map(|step| step.step.as_ref()).find_map(|step| match step {
            Step::Shield(shield) => forbids(shield),
            _ => None,
        });
        let Some(violation) = violation else { return self.show(index, answer).await };
        let (refusal, finish) = fold::refusal(&violation.user_message);
        answer.step.message = Some(refusal);
        answer.step.logprobs.clear();
        answer.step.set_finish_reason(finish);
        Ok(())
    }

    async fn show(&mut self, index: usize, answer: &mut Answer) -> Result<(), Stop> {
        // A delta has the number of the event before it, so that one must have been shown.
        self.journal.commit().await.map_err(Stop::Broken)?;
        if let Some(step) = self.journal.turn().steps.get(index) {
            answer.held.drain(..).for_each(|event| self.journal.delta(&step.id, event));
        }
        Ok(())
    }
}

/// Reads the stream to its end, and shows each event as it comes, unless `hold`.
async fn generate(
    inference: &dyn Inference,
    cx: &Context,
    journal: &Journal,
    index: usize,
    request: ChatRequest,
    hold: bool,
) -> Result<Answer, Stop> {
    let model = request.model.clone();
    let step_id = journal.turn().steps.get(index).map(|step| step.id.clone()).unwrap_or_default();
    let mut call_ids = CallIds::of(journal.turn());
    let mut held = Vec::new();
    let mut fold = ChatFold::default();
    let mut events = inference.stream_chat(cx, request).await.map_err(Stop::Failed)?;
    while let Some(event) = events.next().await {
        let mut event = event.map_err(Stop::Failed)?;
        if let Some(Event::ToolCall(delta)) = &mut event.event {
            call_ids.make_unique(delta);
        }
        if hold {
            held.push(event.clone());
        } else {
            journal.delta(&step_id, event.clone());
        }
        fold.push(event).map_err(Stop::Failed)?;
    }
    let mut response = fold.finish(model);
    let usage = response.usage.take();
    let choice = response.choices.into_iter().next().filter(|choice| choice.finish_reason() != FinishReason::Unspecified);
    let mut choice = choice.ok_or_else(|| Stop::Failed(broken_off()))?;
    for part in choice.message.iter_mut().flat_map(|message| &mut message.parts) {
        part.provenance = Role::Assistant.provenance().into();
    }
    let step = InferenceStep {
        model: response.model,
        message: choice.message,
        finish_reason: choice.finish_reason,
        usage: Some(usage.unwrap_or_else(Usage::default)),
        logprobs: choice.logprobs,
        ..InferenceStep::default()
    };
    Ok(Answer { step, held })
}

/// Calls are told apart by their ids for as long as the turn lives, and not every server keeps its promise of that.
struct CallIds {
    taken: HashSet<String>,
    begun: u32,
}

impl CallIds {
    fn of(turn: &Turn) -> Self {
        let messages = conversation::messages(turn);
        let taken = messages.iter().flat_map(Message::tool_calls).map(|call| call.id.clone()).collect();
        Self { taken, begun: 0 }
    }

    /// Looks at the first piece of each call only: the later ones carry no id.
    fn make_unique(&mut self, delta: &mut ToolCallDelta) {
        if delta.index < self.begun {
            return;
        }
        self.begun = delta.index + 1;
        if delta.id.is_empty() || self.taken.contains(&delta.id) {
            delta.id = ids::new("call");
        }
        self.taken.insert(delta.id.clone());
    }
}

/// The history and the turn so far as the model reads them, with the agent's own settings.
fn request(turn: &Turn, history: &[Message], toolbox: &Toolbox, config: &AgentConfig, tools_withheld: bool) -> ChatRequest {
    let mut messages = Vec::with_capacity(history.len() + turn.steps.len() + turn.input.len() + 1);
    if !config.instructions.is_empty() {
        let mut instructions = Message::system(config.instructions.clone());
        instructions.parts.iter_mut().for_each(|part| part.provenance = Role::System.provenance().into());
        messages.push(instructions);
    }
    messages.extend_from_slice(history);
    messages.extend(conversation::messages(turn));
    let limits = config.limits.unwrap_or_default();
    let mut sampling = config.sampling.clone();
    if limits.max_tokens != 0 {
        let left = tokens_left(turn, &limits);
        let sampling = sampling.get_or_insert_default();
        sampling.max_tokens = Some(sampling.max_tokens.map_or(left, |own| own.min(left)));
    }
    ChatRequest {
        model: config.model.clone(),
        messages,
        tools: if tools_withheld { Vec::new() } else { toolbox.definitions().to_vec() },
        tool_choice: if tools_withheld { None } else { tool_choice(turn, config) },
        response_format: config.response_format.clone(),
        sampling,
        logprobs: config.top_logprobs.is_some(),
        top_logprobs: config.top_logprobs.unwrap_or_default(),
        n: 1,
        parallel_tool_calls: config.parallel_tool_calls,
        user: String::new(),
        reasoning_effort: config.reasoning_effort.clone(),
    }
}

/// A forced call is forced once, at the turn's first inference: else the turn would never come to an answer.
fn tool_choice(turn: &Turn, config: &AgentConfig) -> Option<ToolChoice> {
    let choice = config.tool_choice.clone()?;
    let forced = matches!(choice.mode(), Mode::Required | Mode::Named);
    let first = !conversation::has_spoken(turn);
    if forced && !first { Some(ToolChoice { mode: Mode::Auto.into(), ..choice }) } else { Some(choice) }
}
