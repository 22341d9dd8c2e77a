//! One inference step: the request, the words as they come, the result. What shields say of it: `run::answers`.

use std::collections::HashSet;

use futures::StreamExt as _;
use llama_stack_core::{
    Error, EventStream, failpoint,
    fold::{ChatFold, broken_off},
    ids,
};
use llama_stack_proto::v1::{
    AgentConfig, ChatEvent, ChatRequest, CompactionStep, FinishReason, GetModelRequest, HistoryTruncation, InferenceStep, Message, Role,
    ShieldStep, ToolCallDelta, ToolChoice, Turn, Usage, chat_event::Event, step::Step, tool_choice::Mode,
};

use crate::{
    ahead::Ahead,
    citations, compact, conversation,
    journal::Journal,
    moderate::Outlet,
    pieces::Pieces,
    plan::tokens_left,
    run::{Run, Stop},
    toolbox::Toolbox,
};

/// What a model has said.
pub(crate) struct Answer {
    pub(crate) step: InferenceStep,
    /// What was shown of it already, as it came.
    pub(crate) shown: Pieces,
    /// What waits for the word of shields.
    pub(crate) held: Vec<ChatEvent>,
    /// Shields on the windows of the answer let the rest of it not pass: the refusal is its end.
    pub(crate) refused: bool,
    /// What they found, with the index of each step.
    pub(crate) windows: Vec<(usize, ShieldStep)>,
}

impl Run {
    /// Runs the inference step at `index`, and stages its result. `ahead`: the model was asked already.
    pub(crate) async fn infer(&mut self, index: usize, mut ahead: Option<Ahead>) -> Result<(), Stop> {
        let config = conversation::config(self.journal.turn());
        let Some(Step::Inference(open)) = self.journal.turn().steps.get(index).and_then(|step| step.step.clone()) else { return Ok(()) };
        let shields = conversation::shields(self.journal.turn());
        let watching = self.watch_windows(&shields).await?;
        let mut left_out = match &ahead {
            Some(ahead) => ahead.left_out,
            None => self.left_out(&config).await?,
        };
        let mut answer = loop {
            let asked = ahead.take().unwrap_or_else(|| self.ask(&config, left_out, open.tools_withheld));
            let outlet = self.outlet(&shields, &watching);
            let generating = generate(asked.into_events(), config.model.clone(), &self.journal, index, outlet);
            failpoint::hit("inference.before");
            let answer = self.guarded(generating).await?;
            failpoint::hit("inference.answered");
            match answer {
                // The count was an estimate, or the model's context is not known: the model itself says that it is too much.
                Err(Stop::Failed(error)) if too_long(&error, &config) && left_out < self.history.len() => {
                    left_out = compact::further(&self.history, left_out);
                }
                answer => break answer?,
            }
        };
        answer.step.tools_withheld = open.tools_withheld;
        answer.step.messages_left_out = u32::try_from(left_out).unwrap_or(u32::MAX);
        answer.step.cost = self.shared.cost(&open.model, answer.step.usage.as_ref());
        self.moderate(index, &shields, answer).await
    }

    /// The question to the model, as the turn stands. It is sent when its answer is read for the first time.
    pub(crate) fn ask(&self, config: &AgentConfig, left_out: usize, tools_withheld: bool) -> Ahead {
        let shown = self.history.get(left_out..).unwrap_or_default();
        let request = request(self.journal.turn(), shown, &self.toolbox, config, tools_withheld);
        Ahead::ask(self.shared.parts.inference.clone(), self.effect_context(), request, left_out)
    }

    /// Notes which passages and pages of this conversation the answer names.
    pub(crate) fn cite(&self, step: &mut InferenceStep) {
        let Some(message) = &mut step.message else { return };
        let own = conversation::messages(self.journal.turn());
        let shown = || self.history.iter().chain(&own);
        citations::cite(message, &citations::sources(shown()), &citations::pages(shown()));
    }

    /// How many messages of the history the model is not shown: none, unless it has no room and the turn says `AUTO`.
    pub(crate) async fn left_out(&self, config: &AgentConfig) -> Result<usize, Stop> {
        if config.truncation() != HistoryTruncation::Auto || self.history.is_empty() {
            return Ok(0);
        }
        let context = self.context_length(&config.model).await;
        if context == 0 {
            return Ok(0);
        }
        let answer = config.sampling.as_ref().and_then(|sampling| sampling.max_tokens).map_or(context / 4, |own| own as usize);
        let own = self.own_messages(config);
        let room = context.saturating_sub(answer.min(context / 2));
        let (inference, cx) = (self.shared.parts.inference.as_ref(), self.effect_context());
        let count = async {
            let whole: Vec<Message> = self.history.iter().chain(&own).cloned().collect();
            let all = compact::tokens(inference, &cx, &config.model, &whole, self.toolbox.definitions()).await;
            if all <= room {
                return 0;
            }
            let fixed = compact::tokens(inference, &cx, &config.model, &own, self.toolbox.definitions()).await;
            compact::left_out(&self.history, all.saturating_sub(fixed), room.saturating_sub(fixed))
        };
        self.guarded(count).await
    }

    /// Of the model; 0 where it is not known.
    async fn context_length(&self, model: &str) -> usize {
        let cx = self.effect_context();
        let model = self.shared.parts.inference.get_model(&cx, GetModelRequest { id: model.to_owned() }).await;
        model.map_or(0, |model| model.context_length as usize)
    }

    /// How many tokens of history are certainly more than the model can be shown; 0 where that is not known. Counted turn by
    /// turn they come to more than together, since templates begin every conversation with words of their own.
    pub(crate) async fn enough(&self, config: &AgentConfig) -> usize {
        if config.truncation() == HistoryTruncation::Auto { 4 * self.context_length(&config.model).await } else { 0 }
    }

    /// What the model reads besides the history.
    fn own_messages(&self, config: &AgentConfig) -> Vec<Message> {
        let mut own = Vec::new();
        if !config.instructions.is_empty() {
            own.push(Message::system(config.instructions.clone()));
        }
        own.extend(conversation::messages(self.journal.turn()));
        own
    }

    /// The summary to make before the next inference: once a turn at most, where the history has grown beyond the
    /// agent's threshold.
    pub(crate) async fn compaction_due(&self) -> Result<Option<CompactionStep>, Stop> {
        let config = conversation::config(self.journal.turn());
        let made = |step: &llama_stack_proto::v1::Step| matches!(step.step, Some(Step::Compaction(_)));
        if config.compact_threshold == 0 || self.history.is_empty() || self.journal.turn().steps.iter().any(made) {
            return Ok(None);
        }
        let (inference, cx) = (self.shared.parts.inference.as_ref(), self.effect_context());
        let tokens = self.guarded(compact::tokens(inference, &cx, &config.model, &self.history, &[])).await?;
        let due = tokens > config.compact_threshold as usize;
        Ok(due.then(|| CompactionStep { tokens_before: u32::try_from(tokens).unwrap_or(u32::MAX), ..CompactionStep::default() }))
    }

    /// Makes the summary of the open step at `index`; the history is what it leaves.
    pub(crate) async fn compact(&mut self, index: usize) -> Result<(), Stop> {
        let config = conversation::config(self.journal.turn());
        let Some(Step::Compaction(open)) = self.journal.turn().steps.get(index).and_then(|step| step.step.clone()) else { return Ok(()) };
        let (inference, cx) = (self.shared.parts.inference.as_ref(), self.effect_context());
        let (before, most) = (open.tokens_before as usize, config.compact_threshold as usize);
        let summarising = compact::summarise(inference, &cx, &config.model, &self.history, before, most);
        let mut made = self.guarded(summarising).await?.map_err(Stop::Failed)?;
        made.cost = self.shared.cost(&config.model, made.usage.as_ref());
        self.history = conversation::compacted(&made);
        self.summarised.extend(made.provenance.iter().cloned());
        self.journal.complete(index, Step::Compaction(made)).map_err(Stop::Broken)
    }
}

/// Reads the stream to its end, and shows of it what `outlet` lets pass.
async fn generate(
    mut events: EventStream<ChatEvent>,
    model: String,
    journal: &Journal,
    index: usize,
    mut outlet: Outlet,
) -> Result<Answer, Stop> {
    let step_id = journal.turn().steps.get(index).map(|step| step.id.clone()).unwrap_or_default();
    let mut call_ids = CallIds::of(journal.turn());
    let (mut shown, mut fold) = (Pieces::default(), ChatFold::default());
    let mut show = |event: ChatEvent, fold: &mut ChatFold| {
        shown.push(&event);
        journal.delta(&step_id, event.clone());
        fold.push(event).map_err(Stop::Failed)
    };
    let (mut refused, mut said) = (None, 0);
    while refused.is_none() {
        let passed = match events.next().await {
            Some(event) => {
                let mut event = event.map_err(Stop::Failed)?;
                if let Some(Event::ToolCall(delta)) = &mut event.event {
                    call_ids.make_unique(delta);
                }
                said += u32::from(matches!(event.event, Some(Event::Text(_) | Event::Reasoning(_) | Event::Refusal(_))));
                outlet.take(event).await
            }
            None => {
                let passed = outlet.finish().await;
                passed.shown.into_iter().try_for_each(|event| show(event, &mut fold))?;
                refused = passed.refused;
                break;
            }
        };
        passed.shown.into_iter().try_for_each(|event| show(event, &mut fold))?;
        refused = passed.refused;
    }
    // A model that was stopped does not go on in the background.
    drop(events);
    let (mut held, windows) = outlet.into_parts();
    if let Some(words) = &refused {
        held.clear();
        show(ChatEvent::new(0, Event::Refusal(words.clone())), &mut fold)?;
        fold.push(ChatEvent::finish(0, FinishReason::ContentFilter)).map_err(Stop::Failed)?;
        // What it took until here: a piece is a token, as far as can be known.
        fold.push(ChatEvent::usage(Usage { completion_tokens: said, ..Usage::default() })).map_err(Stop::Failed)?;
    }
    held.iter().try_for_each(|event| fold.push(event.clone())).map_err(Stop::Failed)?;
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
    Ok(Answer { step, shown, held, refused: refused.is_some(), windows })
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
        self.begun = delta.index.saturating_add(1);
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
    // Whoever has the turn now, the bounds are those it began with.
    let limits = turn.config.as_ref().and_then(|config| config.limits).unwrap_or_default();
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

fn too_long(error: &Error, config: &AgentConfig) -> bool {
    config.truncation() == HistoryTruncation::Auto && error.reason() == Some("context_length_exceeded")
}

/// A forced call is forced once, at the turn's first inference: else the turn would never come to an answer.
fn tool_choice(turn: &Turn, config: &AgentConfig) -> Option<ToolChoice> {
    let choice = config.tool_choice.clone()?;
    let forced = matches!(choice.mode(), Mode::Required | Mode::Named);
    let first = !conversation::has_spoken(turn);
    if forced && !first { Some(ToolChoice { mode: Mode::Auto.into(), ..choice }) } else { Some(choice) }
}
