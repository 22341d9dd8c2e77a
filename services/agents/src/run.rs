//! A turn that runs: plan the next steps, journal the intent, have the effect, journal the result, until it rests.

use std::{collections::BTreeSet, future::Future, sync::Arc, time::Duration};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use llama_stack_core::{Context, Error, Result, ids};
use llama_stack_policy::{Facts, Question, labels};
use llama_stack_proto::v1::{
    AwaitingTools, InferenceStep, McpServer, Message, OnInterrupt, RunShieldResponse, ShieldStep, ToolCall, ToolResult, ToolStep, Turn,
    TurnStatus, step::Step, turn_event::Event,
};
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::{
    calls, compact, conversation, delegate, fold, hash, history,
    journal::{Journal, lost},
    pins::Pins,
    plan::{self, Desk as _, Gate, Next},
    runtime::Shared,
    servers::{self, Servers},
    shields,
    toolbox::{Counter, Runner, Toolbox},
    turns,
};

/// One run of a turn in this process: from its creation, its resumption or a restart, to its end or its next wait.
pub(crate) struct Run {
    pub(crate) shared: Arc<Shared>,
    /// The caller's, without their deadline.
    cx: Context,
    pub(crate) journal: Journal,
    /// The steps that are open were begun by a process that is gone.
    cut_off: bool,
    /// The messages before this turn.
    pub(crate) history: Vec<Message>,
    /// The provenance of what stands there only as a summary.
    pub(crate) summarised: BTreeSet<String>,
    pub(crate) toolbox: Arc<Toolbox>,
    /// How many steps the toolbox knows of: a tool list or a hand-off makes another.
    toolbox_of: usize,
    servers: Arc<Servers>,
    pins: Pins,
    deadline: Instant,
}

/// Why a run goes no further.
pub(crate) enum Stop {
    Cancelled,
    /// `max_seconds` have passed.
    OutOfTime,
    /// The model's failure, or that of something without which no step can begin.
    Failed(Error),
    /// The journal cannot be written. The turn stays as it is there.
    Broken(Error),
}

impl Run {
    pub(crate) fn new(shared: Arc<Shared>, cx: Context, journal: Journal, cut_off: bool) -> Self {
        let deadline = deadline(journal.fold());
        let (toolbox, servers) = (Arc::default(), Arc::default());
        Self {
            shared,
            cx,
            journal,
            cut_off,
            history: Vec::new(),
            summarised: BTreeSet::new(),
            toolbox,
            toolbox_of: usize::MAX,
            servers,
            pins: Pins::default(),
            deadline,
        }
    }

    /// With the MCP servers as they were given, secrets and all.
    pub(crate) fn with_servers(mut self, given: Vec<McpServer>) -> Self {
        self.servers = Arc::new(Servers::new(given));
        self
    }

    /// Runs until the turn has ended or waits for its client. What goes wrong is in the journal then, or, where the
    /// journal itself could not be written, in the log.
    pub(crate) async fn run(mut self) {
        let turn = self.journal.turn();
        let span = tracing::info_span!(
            "invoke_agent",
            gen_ai.operation.name = "invoke_agent",
            gen_ai.agent.id = turn.agent_id,
            gen_ai.conversation.id = turn.session_id,
            turn = turn.id,
        );
        let work = async {
            let result = match self.drive().await {
                Ok(()) => Ok(()),
                Err(stop) => self.stop(stop).await,
            };
            if let Err(error) = result {
                self.journal.stopped(&error);
            }
        };
        work.instrument(span).await;
    }

    async fn drive(&mut self) -> Result<(), Stop> {
        self.prepare().await?;
        loop {
            let open = self.journal.fold().open_steps();
            let asked: Vec<usize> = open.iter().copied().filter(|index| self.needs_word(*index)).collect();
            if open.is_empty() {
                self.gather_tools().await?;
                self.plan().await?;
                self.cut_off = false;
            } else if asked.len() == open.len() {
                self.ask_about(&asked).map_err(Stop::Broken)?;
            }
            // The intents, and with them the results before: one sync for both.
            self.commit().await.map_err(Stop::Broken)?;
            if self.journal.status() != TurnStatus::InProgress {
                return Ok(());
            }
            self.run_open(&asked).await?;
        }
    }

    async fn prepare(&mut self) -> Result<(), Stop> {
        if self.journal.turn().append_only {
            return Ok(());
        }
        let enough = self.enough().await;
        let history = history::before(&self.shared, self.journal.tenant(), self.journal.turn(), enough).await.map_err(Stop::Broken)?;
        (self.history, self.summarised) = (history.messages, history.summarised);
        if let Some(compaction) = conversation::compaction(self.journal.turn()) {
            self.history = conversation::compacted(compaction);
            self.summarised.extend(compaction.provenance.iter().cloned());
        }
        self.gather_tools().await?;
        self.close_cut_off().map_err(Stop::Broken)
    }

    /// What a model had begun to say before a restart is lost. Its step ends so, and the plan begins another: who watched
    /// the words that are lost can tell them from those that come now.
    fn close_cut_off(&mut self) -> Result<()> {
        if !self.cut_off {
            return Ok(());
        }
        let open = self.journal.fold().open_steps();
        let step = |index: &usize| Some((*index, self.journal.turn().steps.get(*index)?.step.clone()?));
        let steps: Vec<(usize, Step)> = open.iter().filter_map(step).collect();
        if !steps.iter().any(|(_, step)| matches!(step, Step::Inference(_))) {
            return Ok(());
        }
        for (index, step) in steps {
            match step {
                Step::Inference(inference) => {
                    self.journal.complete(index, Step::Inference(InferenceStep { cut_off: true, ..inference }))?
                }
                // It judged those words.
                Step::Shield(_) => self.journal.complete(index, step)?,
                Step::Tool(_) | Step::ToolList(_) | Step::Handoff(_) | Step::Compaction(_) => {}
            }
        }
        Ok(())
    }

    /// Makes the toolbox anew where a tool list or a hand-off has come since.
    async fn gather_tools(&mut self) -> Result<(), Stop> {
        let turn = self.journal.turn();
        let known = turn
            .steps
            .iter()
            .filter(|step| step.ended.is_some() && matches!(step.step, Some(Step::ToolList(_) | Step::Handoff(_))))
            .count();
        if known == self.toolbox_of {
            return Ok(());
        }
        let config = conversation::config(turn);
        let lists: Vec<_> = conversation::tool_lists(turn).cloned().collect();
        let (shared, cx) = (self.shared.clone(), self.effect_context());
        let gather = async {
            let agents = shared.callable(&cx, &config).await?;
            Toolbox::of(shared.parts.tools.as_deref(), &cx, &config, agents).await
        };
        let mut toolbox = self.guarded(gather).await?.map_err(Stop::Failed)?;
        for list in lists {
            let Some(server) = config.mcp_servers.iter().find(|server| server.label == list.server_label) else { continue };
            // It was checked when it was listed; a tool of the stack may have come since.
            match toolbox.check_names(&server.label, &list.tools) {
                Ok(()) => toolbox.add_list(server, &list),
                Err(error) => tracing::warn!(server = server.label, error = ?error, "the tools of an MCP server are left out"),
            }
        }
        toolbox.allow(config.tool_choice.as_ref().map(|choice| choice.allowed.as_slice()).unwrap_or_default());
        self.pins = Pins::of(&self.shared.parts.store, self.journal.tenant(), &config).await.map_err(Stop::Broken)?;
        (self.toolbox, self.toolbox_of) = (Arc::new(toolbox), known);
        Ok(())
    }

    /// Stages what is next.
    async fn plan(&mut self) -> Result<(), Stop> {
        match self.next() {
            Next::Start(steps) if matches!(steps.as_slice(), [Step::Inference(_)]) => {
                let step = match self.compaction_due().await? {
                    Some(compaction) => Step::Compaction(compaction),
                    None => steps.into_iter().next().unwrap_or(Step::Inference(InferenceStep::default())),
                };
                self.journal.start(step).map(drop).map_err(Stop::Broken)
            }
            Next::Start(steps) => steps.into_iter().try_for_each(|step| self.start(step)).map_err(Stop::Broken),
            Next::Await(calls, approvals) => {
                let stage = |run: &mut Self| {
                    for call in &calls {
                        run.journal.start(Step::Tool(ToolStep { call: Some(call.clone()), client: true, ..ToolStep::default() }))?;
                    }
                    run.journal.stage(Event::AwaitingTools(AwaitingTools { calls, approvals }))
                };
                stage(self).map_err(Stop::Broken)
            }
            Next::Refuse(words) => self.refuse(&words).map_err(Stop::Broken),
            Next::End(status, reason) => {
                let change = |turn: &mut Turn| {
                    turn.set_status(status);
                    turn.incomplete_reason = reason.to_owned();
                };
                self.journal.end(change).map_err(Stop::Broken)
            }
        }
    }

    fn next(&self) -> Next {
        let seen = self.seen();
        let judge = |call: &ToolCall, facts: &Facts| self.judge_call(call, facts, &seen);
        self.counter(&judge, |counter| plan::next(self.journal.fold(), counter))
    }

    /// The toolbox with all that bears on a call now.
    fn counter<T>(&self, judge: &dyn Fn(&ToolCall, &Facts) -> Gate, ask: impl FnOnce(&Counter<'_>) -> T) -> T {
        let changed = |name: &str| {
            let group = self.toolbox.facts(name).map(|facts| facts.group.as_str()).unwrap_or_default();
            self.pins.changed(group, name, &self.toolbox.definition_hash(name))
        };
        let approval_seconds = self.shared.parts.config.approval_seconds;
        let turn_id = &self.journal.turn().id;
        ask(&Counter { toolbox: &self.toolbox, turn_id, judge, changed: &changed, now: ids::now(), approval_seconds })
    }

    /// The labels of all that the model has read by now.
    fn seen(&self) -> BTreeSet<String> {
        if self.shared.parts.policy.is_none() {
            return BTreeSet::new();
        }
        let mut provenance = compact::provenance(&self.history);
        provenance.extend(compact::provenance(&conversation::messages(self.journal.turn())));
        provenance.extend(self.summarised.iter().cloned());
        let source = |label: &str| label.strip_prefix("tool:").and_then(|name| self.toolbox.facts(name));
        provenance.iter().flat_map(|label| labels(label, source(label))).collect()
    }

    fn judge_call(&self, call: &ToolCall, facts: &Facts, seen: &BTreeSet<String>) -> Gate {
        let Some(policy) = &self.shared.parts.policy else { return Gate::Open { policy: String::new() } };
        let arguments = serde_json::from_str(&call.arguments).unwrap_or_default();
        let (principal, agent_id) = (self.cx.principal(), self.journal.turn().agent_id.as_str());
        Gate::from(policy.decide(&Question { principal, agent_id, tool: facts, arguments: &arguments, seen }))
    }

    /// Begins a step. A call that an agent answers is told its turn here, so that the intent has it.
    fn start(&mut self, step: Step) -> Result<()> {
        let step = match step {
            Step::Tool(tool) if tool.call.as_ref().is_some_and(|call| matches!(self.toolbox.runner(call), Ok(Runner::Agent(_)))) => {
                Step::Tool(ToolStep { child_turn_id: ids::new("turn"), ..tool })
            }
            step => step,
        };
        self.journal.start(step).map(drop)
    }

    /// Says these words in place of an answer, and ends.
    fn refuse(&mut self, words: &str) -> Result<()> {
        let (message, finish) = fold::refusal(words);
        let model = conversation::config(self.journal.turn()).model;
        let mut step = InferenceStep { model, ..InferenceStep::default() };
        let index = self.journal.start(Step::Inference(step.clone()))?;
        step.message = Some(message);
        step.set_finish_reason(finish);
        self.journal.complete(index, Step::Inference(step))?;
        self.journal.end(|turn| {
            turn.set_status(TurnStatus::Incomplete);
            turn.incomplete_reason = "content_filter".into();
        })
    }

    /// Whether a call that was cut off must not run again before a person has said so.
    fn needs_word(&self, index: usize) -> bool {
        if !self.cut_off {
            return false;
        }
        let Some(Step::Tool(tool)) = self.journal.turn().steps.get(index).and_then(|step| step.step.as_ref()) else { return false };
        let Some(call) = &tool.call else { return false };
        let decided = self.journal.fold().decision_on(&call.id).is_some_and(|(request, _)| request.asked_by == INTERRUPTED);
        let asks = matches!(self.toolbox.runner(call), Ok(Runner::Stack(OnInterrupt::Ask) | Runner::Server(_, OnInterrupt::Ask)));
        asks && !decided
    }

    fn ask_about(&mut self, indices: &[usize]) -> Result<()> {
        let calls = indices.iter().filter_map(|index| match &self.journal.turn().steps.get(*index)?.step {
            Some(Step::Tool(tool)) => tool.call.clone(),
            _ => None,
        });
        let open = |_: &ToolCall, _: &Facts| Gate::Open { policy: String::new() };
        let approvals = self.counter(&open, |counter| calls.map(|call| counter.request(&call, INTERRUPTED)).collect());
        self.journal.stage(Event::AwaitingTools(AwaitingTools { calls: Vec::new(), approvals }))
    }

    /// Runs the open steps but `asked`, all at once, and stages their results; all but the last to come are durable on
    /// return.
    async fn run_open(&mut self, asked: &[usize]) -> Result<(), Stop> {
        let open: Vec<usize> = self.journal.fold().open_steps().into_iter().filter(|index| !asked.contains(index)).collect();
        let step = |index: &usize| self.journal.turn().steps.get(*index).and_then(|step| step.step.as_ref());
        if let Some(index) = open.iter().copied().find(|index| matches!(step(index), Some(Step::Inference(_)))) {
            // Open shields beside it are its own.
            return self.infer(index).await;
        }
        if let Some(index) = open.iter().copied().find(|index| matches!(step(index), Some(Step::Compaction(_)))) {
            return self.compact(index).await;
        }
        let (shields, effects): (Vec<usize>, Vec<usize>) = open.into_iter().partition(|index| matches!(step(index), Some(Step::Shield(_))));
        if !shields.is_empty() {
            let mut messages = self.history.clone();
            messages.push(shields::judged_input(&self.journal.turn().input));
            self.judge(&shields, Arc::new(messages)).await?;
        }
        let siblings = effects.len();
        let effects = effects.into_iter().filter_map(|index| self.effect(index, siblings)).collect();
        self.complete_all(effects).await
    }

    /// Runs the open shield steps at `indices` on the last of `messages`.
    pub(crate) async fn judge(&mut self, indices: &[usize], messages: Arc<Vec<Message>>) -> Result<(), Stop> {
        let effects = indices.iter().filter_map(|index| {
            let Some(Step::Shield(shield)) = self.journal.turn().steps.get(*index)?.step.clone() else { return None };
            Some(self.shield(*index, shield, messages.clone()))
        });
        let effects = effects.collect();
        self.complete_all(effects).await
    }

    fn shield(&self, index: usize, shield: ShieldStep, messages: Arc<Vec<Message>>) -> BoxFuture<'static, (usize, Step)> {
        if messages.last().is_none_or(|judged| judged.parts.is_empty()) {
            let passed = ShieldStep { verdict: Some(RunShieldResponse::default()), ..shield };
            return futures::future::ready((index, Step::Shield(passed))).boxed();
        }
        let judging = shields::judge(self.shared.parts.safety.clone(), self.effect_context(), shield, messages);
        judging.map(move |judged| (index, Step::Shield(judged))).boxed()
    }

    /// What the open step at `index` does in the world.
    fn effect(&self, index: usize, siblings: usize) -> Option<BoxFuture<'static, (usize, Step)>> {
        match self.journal.turn().steps.get(index)?.step.clone()? {
            Step::Tool(tool) => self.call(index, tool, siblings),
            Step::ToolList(list) => {
                let config = conversation::config(self.journal.turn());
                let server = config.mcp_servers.into_iter().find(|server| server.label == list.server_label)?;
                let (shared, servers, toolbox, cx) =
                    (self.shared.clone(), self.servers.clone(), self.toolbox.clone(), self.effect_context());
                let listing = async move {
                    let opened = servers.open(shared.parts.connect.as_deref(), shared.parts.tools.as_ref(), &cx, &server).await;
                    (index, Step::ToolList(servers::list(server, opened, cx, toolbox).await))
                };
                Some(listing.boxed())
            }
            Step::Handoff(handoff) => {
                let taking = delegate::hand_off(self.shared.clone(), self.effect_context(), handoff);
                Some(taking.map(move |taken| (index, Step::Handoff(taken))).boxed())
            }
            Step::Inference(_) | Step::Shield(_) | Step::Compaction(_) => None,
        }
    }

    /// The call of the open tool step at `index`.
    fn call(&self, index: usize, tool: ToolStep, siblings: usize) -> Option<BoxFuture<'static, (usize, Step)>> {
        let turn = self.journal.turn();
        let step = turn.steps.get(index)?;
        let call = tool.call.clone()?;
        let told = |result: ToolResult| {
            let done = ToolStep { result: Some(result), ..tool.clone() };
            Some(futures::future::ready((index, Step::Tool(done))).boxed())
        };
        if let Some(earlier) = plan::repeated(turn, plan::asked_at(turn, index), &call).and_then(|tool| tool.result.clone()) {
            return told(ToolResult { call_id: call.id.clone(), ..earlier });
        }
        if let Some(refused) = self.refused(&tool, &call) {
            return told(ToolResult::text(&call, refused, true));
        }
        let runner = match self.toolbox.runner(&call) {
            Ok(runner) => runner,
            Err(why) => return told(ToolResult::text(&call, why, true)),
        };
        let key = hash::call_key(&turn.id, &step.id, &call.id);
        let cx = self.effect_context().with_idempotency_key(key);
        let (shared, servers, pin) = (self.shared.clone(), self.servers.clone(), self.pin(&tool, &call));
        let running = match runner {
            Runner::Client => return told(ToolResult::text(&call, "this tool is the client's", true)),
            Runner::Handoff(_) => return told(ToolResult::text(&call, "a hand-off cannot wait for approval: it was not made", true)),
            Runner::Agent(agent_id) => {
                let seconds_left = self.deadline.saturating_duration_since(Instant::now()).as_secs();
                let caller = delegate::Caller {
                    turn_id: turn.id.clone(),
                    session_id: turn.session_id.clone(),
                    depth: turn.depth,
                    agent_id,
                    limits: delegate::share(turn, seconds_left, siblings),
                    background: turn.background,
                };
                delegate::ask(shared, cx, caller, tool).map(move |done| (index, Step::Tool(done))).boxed()
            }
            Runner::Stack(_) => {
                let tools = shared.parts.tools.clone();
                async move {
                    pin.set(&shared.parts.store).await;
                    let result = match tools {
                        Some(tools) => calls::run(tools, cx, call).await,
                        None => ToolResult::text(&call, "this stack has no tools", true),
                    };
                    (index, Step::Tool(ToolStep { result: Some(result), ..tool }))
                }
                .boxed()
            }
            Runner::Server(label, _) => {
                let server = conversation::config(turn).mcp_servers.into_iter().find(|server| server.label == label)?;
                async move {
                    pin.set(&shared.parts.store).await;
                    let opened = servers.open(shared.parts.connect.as_deref(), shared.parts.tools.as_ref(), &cx, &server).await;
                    let result = match opened {
                        Ok(tools) => calls::run(tools, cx, call).await,
                        Err(error) => ToolResult::text(&call, error.message(), true),
                    };
                    (index, Step::Tool(ToolStep { result: Some(result), ..tool }))
                }
                .boxed()
            }
        };
        Some(running)
    }

    /// Why a call does not run, for the model; `None` if it may.
    fn refused(&self, tool: &ToolStep, call: &ToolCall) -> Option<String> {
        if let Some(ids) = tool.policy.strip_prefix(plan::DENIED) {
            return Some(format!("the policy of this stack does not allow this call ({ids})"));
        }
        let decided = self.journal.fold().decision_on(&call.id);
        if let Some((request, decision)) = decided.filter(|(request, _)| request.id == tool.approval_request_id) {
            match decision {
                Some(decision) if decision.approve => {}
                Some(decision) if decision.reason.is_empty() => return Some("a person did not approve this call".into()),
                Some(decision) => return Some(format!("a person did not approve this call: {}", decision.reason)),
                None => return Some("this call was not approved".into()),
            }
            // The call is the one that was approved, to the letter: it is read from the journal. Its tool may not be.
            if request.definition_hash != self.toolbox.definition_hash(&call.name) {
                return Some("the tool has changed since this call was approved, so it was not run".into());
            }
        }
        let interrupted = decided.filter(|(request, _)| request.asked_by == INTERRUPTED);
        let again = interrupted.is_some_and(|(_, decision)| decision.as_ref().is_some_and(|decision| decision.approve));
        let retries = match self.toolbox.runner(call) {
            Ok(Runner::Stack(on_interrupt) | Runner::Server(_, on_interrupt)) => on_interrupt == OnInterrupt::Retry,
            // The turn that answers is found again.
            Ok(Runner::Agent(_)) => true,
            Ok(Runner::Client | Runner::Handoff(_)) | Err(_) => true,
        };
        let was_cut_off = self.cut_off || interrupted.is_some();
        (was_cut_off && !retries && (self.cut_off || !again)).then(|| calls::CUT_OFF.to_owned())
    }

    /// What a person's approval of this call says of its tool.
    fn pin(&self, tool: &ToolStep, call: &ToolCall) -> crate::pins::Pin {
        let group = self.toolbox.facts(&call.name).map(|facts| facts.group.clone()).unwrap_or_default();
        let approved = !tool.approval_request_id.is_empty();
        self.pins.pin(self.journal.tenant(), approved, &group, &call.name, self.toolbox.definition_hash(&call.name))
    }

    async fn complete_all(&mut self, mut effects: FuturesUnordered<BoxFuture<'static, (usize, Step)>>) -> Result<(), Stop> {
        while let Some((index, done)) = self.guarded(effects.next()).await? {
            self.journal.complete(index, done).map_err(Stop::Broken)?;
            if !effects.is_empty() {
                self.journal.commit().await.map_err(Stop::Broken)?;
            }
        }
        Ok(())
    }

    /// Waits for an effect, until the turn is cancelled or its time is over. Never used on a write to the journal,
    /// which must not be left half way.
    pub(crate) async fn guarded<T>(&self, effect: impl Future<Output = T>) -> Result<T, Stop> {
        tokio::select! {
            biased;
            () = self.journal.live().lost.cancelled() => Err(Stop::Broken(lost(&self.journal.turn().id))),
            () = self.journal.live().cancel.cancelled() => Err(Stop::Cancelled),
            done = effect => Ok(done),
            () = tokio::time::sleep_until(self.deadline) => Err(Stop::OutOfTime),
        }
    }

    /// For calls to other services: the turn's deadline is theirs.
    pub(crate) fn effect_context(&self) -> Context {
        self.cx.clone().with_timeout(self.deadline.saturating_duration_since(Instant::now()))
    }

    /// Ends the turn for a reason that the plan does not know.
    async fn stop(&mut self, stop: Stop) -> Result<()> {
        if !matches!(stop, Stop::Broken(_)) {
            self.cancel_called().await;
        }
        let change: Box<dyn FnOnce(&mut Turn) + Send> = match stop {
            Stop::Broken(error) => return Err(error),
            Stop::Cancelled => Box::new(|turn| turn.set_status(TurnStatus::Cancelled)),
            // The model or a tool may have noticed first that the time is over.
            _ if Instant::now() >= self.deadline => Box::new(out_of_time),
            Stop::OutOfTime => Box::new(out_of_time),
            Stop::Failed(error) => {
                tracing::warn!(error = ?error, "a turn failed");
                let info = error.to_info();
                Box::new(move |turn| {
                    turn.set_status(TurnStatus::Failed);
                    turn.error = Some(info);
                })
            }
        };
        self.journal.end(change)?;
        self.commit().await
    }

    /// Cancels the turns that open calls of agents wait for.
    async fn cancel_called(&self) {
        let turn = self.journal.turn();
        let open = self.journal.fold().open_steps();
        let called = open.iter().filter_map(|index| match &turn.steps.get(*index)?.step {
            Some(Step::Tool(tool)) if !tool.child_turn_id.is_empty() => Some(tool.child_turn_id.clone()),
            _ => None,
        });
        let cx = Context::system_for(self.journal.tenant());
        for id in called {
            // It may never have begun.
            if let Err(error) = turns::cancel(&self.shared, &cx, &id).await {
                tracing::debug!(turn = id, error = ?error, "a called turn was not cancelled");
            }
        }
    }

    /// Commits. A turn that ends is in the cache before anyone hears of its end, and could delete it.
    async fn commit(&mut self) -> Result<()> {
        let ends = self.journal.fold().ended() && self.journal.turn().store;
        if ends {
            self.shared.histories.keep(self.journal.tenant(), self.journal.turn());
        }
        let committed = self.journal.commit().await;
        if ends && committed.is_err() {
            self.shared.histories.forget(self.journal.tenant(), &self.journal.turn().id);
        }
        committed
    }
}

/// Who asks about a call that a restart cut off.
const INTERRUPTED: &str = "interrupted";

fn out_of_time(turn: &mut Turn) {
    turn.set_status(TurnStatus::Incomplete);
    turn.incomplete_reason = "max_seconds".into();
}

fn deadline(fold: &fold::Fold) -> Instant {
    let max_seconds = fold.turn.config.as_ref().and_then(|config| config.limits).unwrap_or_default().max_seconds;
    let spent = fold::elapsed(fold.turn.created, Some(ids::now())).saturating_sub(fold.waited);
    let now = Instant::now();
    now.checked_add(Duration::from_secs(max_seconds.into()).saturating_sub(spent)).unwrap_or(now)
}
