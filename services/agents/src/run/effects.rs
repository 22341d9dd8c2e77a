//! What open steps do in the world: shields, calls, lists of tools, hand-offs.

use std::sync::Arc;

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use llama_stack_core::Context;
use llama_stack_proto::v1::{Message, OnInterrupt, Role, ShieldStep, ToolCall, ToolResult, ToolStep, step::Step};
use tokio::time::Instant;

use super::{INTERRUPTED, Run, Stop};
use crate::{
    calls, conversation, delegate,
    file_search::{self, Search},
    hash, judged,
    pins::Pin,
    plan, servers,
    shields::Sifted,
    toolbox::Runner,
    turns,
};

impl Run {
    /// Runs the open steps but `asked`, all at once, and stages their results; all but the last to come are durable on
    /// return.
    pub(super) async fn run_open(&mut self, asked: &[usize]) -> Result<(), Stop> {
        let open: Vec<usize> = self.journal.fold().open_steps().into_iter().filter(|index| !asked.contains(index)).collect();
        let step = |index: &usize| self.journal.turn().steps.get(*index).and_then(|step| step.step.as_ref());
        if let Some(index) = open.iter().copied().find(|index| matches!(step(index), Some(Step::Inference(_)))) {
            let beside: Vec<usize> = open.iter().copied().filter(|index| self.judges_input(*index)).collect();
            // Other shields that are open beside it are its own.
            return if beside.is_empty() { self.infer(index, None).await } else { self.infer_beside(index, &beside).await };
        }
        if let Some(index) = open.iter().copied().find(|index| matches!(step(index), Some(Step::Compaction(_)))) {
            return self.compact(index).await;
        }
        let (shields, effects): (Vec<usize>, Vec<usize>) = open.into_iter().partition(|index| matches!(step(index), Some(Step::Shield(_))));
        let siblings = effects.len();
        let mut effects: FuturesUnordered<Effect> = effects.into_iter().filter_map(|index| self.effect(index, siblings)).collect();
        effects.extend(self.sittings(&shields));
        self.complete_all(effects).await
    }

    /// What the open shield steps at `indices` do: those on one text sit together.
    pub(super) fn sittings(&self, indices: &[usize]) -> Vec<Effect> {
        let turn = self.journal.turn();
        let step = |index: &usize| match turn.steps.get(*index)?.step.clone()? {
            Step::Shield(shield) => Some((*index, shield)),
            _ => None,
        };
        let mut open: Vec<(usize, ShieldStep)> = indices.iter().filter_map(step).collect();
        let mut effects: Vec<Effect> = Vec::new();
        for piece in judged::pieces(turn, &conversation::shields(turn)) {
            let hash = piece.hash();
            let of_piece = |(_, shield): &(usize, ShieldStep)| shield.judged_sha256 == hash && shield.stage() == piece.stage;
            let (sitting, others): (Vec<_>, Vec<_>) = open.into_iter().partition(of_piece);
            open = others;
            if sitting.is_empty() {
                continue;
            }
            let before = match piece.after() {
                Some(at) => {
                    let mut before = self.history.clone();
                    before.extend(turn.input.iter().take(at).cloned());
                    Arc::new(before)
                }
                None => self.so_far(),
            };
            let (indices, steps): (Vec<usize>, Vec<ShieldStep>) = sitting.into_iter().unzip();
            let judge = self.judge();
            let sitting = async move {
                let (verdicts, _) = judge.sift(steps, before, piece.message).await;
                Came::Done(indices.into_iter().zip(verdicts.into_iter().map(Step::Shield)).collect())
            };
            effects.push(sitting.boxed());
        }
        // What these were to judge was lost with the process that had it, or is another text by now: they have no verdict.
        let lost = open.into_iter().map(|(index, shield)| (index, Step::Shield(shield))).collect::<Vec<_>>();
        if !lost.is_empty() {
            effects.push(futures::future::ready(Came::Done(lost)).boxed());
        }
        effects
    }

    /// Has what a call brought judged before anyone reads it or the journal holds it. `None`: nobody is to judge it.
    fn judge_result(&mut self, index: usize, tool: &ToolStep) -> Result<Option<Effect>, Stop> {
        let Some(result) = tool.result.clone() else { return Ok(None) };
        let stage = judged::stage_of_result(&result);
        let shields = conversation::shields(self.journal.turn()).of_results(stage);
        let parts = judged::judged_parts(&result);
        if shields.is_empty() || parts.is_empty() {
            return Ok(None);
        }
        let before = self.so_far();
        let hash = judged::fingerprint(&parts);
        let started = self.begin_sitting(stage, &result.call_id, &shields, &hash).map_err(Stop::Broken)?;
        let (indices, steps): (Vec<usize>, Vec<ShieldStep>) = started.into_iter().unzip();
        let (judge, tool) = (self.judge(), tool.clone());
        let sitting = async move {
            let (verdicts, sifted) = judge.sift(steps, before, Message::new(Role::User, parts)).await;
            let mut result = result;
            match sifted {
                Sifted::Passed(left) if judged::fingerprint(&left) == hash => {}
                Sifted::Passed(left) => judged::put(&mut result, left),
                Sifted::Refused(_) => judged::withhold(&mut result),
            }
            let mut done: Vec<(usize, Step)> = indices.into_iter().zip(verdicts.into_iter().map(Step::Shield)).collect();
            done.push((index, Step::Tool(ToolStep { result: Some(result), ..tool })));
            Came::Done(done)
        };
        Ok(Some(sitting.boxed()))
    }

    /// What the open step at `index` does in the world.
    fn effect(&self, index: usize, siblings: usize) -> Option<Effect> {
        match self.journal.turn().steps.get(index)?.step.clone()? {
            Step::Tool(tool) => self.call(index, tool, siblings),
            Step::ToolList(list) => {
                let config = conversation::config(self.journal.turn());
                let server = config.mcp_servers.into_iter().find(|server| server.label == list.server_label)?;
                let (shared, servers, toolbox, cx) =
                    (self.shared.clone(), self.servers.clone(), self.toolbox.clone(), self.effect_context());
                let listing = async move {
                    let opened = servers.open(shared.parts.connect.as_deref(), shared.parts.tools.as_ref(), &cx, &server).await;
                    Came::one(index, Step::ToolList(servers::list(server, opened, cx, toolbox).await))
                };
                Some(listing.boxed())
            }
            Step::Handoff(handoff) => {
                let taking = delegate::hand_off(self.shared.clone(), self.effect_context(), handoff);
                Some(taking.map(move |taken| Came::one(index, Step::Handoff(taken))).boxed())
            }
            Step::Inference(_) | Step::Shield(_) | Step::Compaction(_) => None,
        }
    }

    /// The call of the open tool step at `index`.
    fn call(&self, index: usize, tool: ToolStep, siblings: usize) -> Option<Effect> {
        let turn = self.journal.turn();
        let step = turn.steps.get(index)?;
        let call = tool.call.clone()?;
        let told = |result: ToolResult| {
            let done = ToolStep { result: Some(result), ..tool.clone() };
            Some(futures::future::ready(Came::one(index, Step::Tool(done))).boxed())
        };
        if let Some(earlier) = plan::repeated(turn, plan::asked_at(turn, index), &call).and_then(|tool| tool.result.clone()) {
            return told(ToolResult { call_id: call.id.clone(), ..earlier });
        }
        if let Some(words) = judged::shut(turn, plan::asked_at(turn, index), &call) {
            return told(ToolResult::text(&call, format!("a shield did not let this call through: {words}"), true));
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
            Runner::Handoff(_) => return told(ToolResult::text(&call, "the hand-off was not made", true)),
            Runner::Agent(agent_id) => {
                let seconds_left = self.deadline.saturating_duration_since(Instant::now()).as_secs();
                let caller = delegate::Caller {
                    turn_id: turn.id.clone(),
                    session_id: turn.session_id.clone(),
                    depth: turn.depth,
                    agent_id,
                    limits: delegate::share(turn, seconds_left, siblings),
                    background: turn.background,
                    clean: self.clean(),
                };
                delegate::ask(shared, cx, caller, tool).map(move |done| Came::Brought(index, Box::new(done))).boxed()
            }
            Runner::Stack(_) => {
                let tools = shared.parts.tools.clone();
                async move {
                    pin.set(&shared.parts.store).await;
                    let result = match tools {
                        Some(tools) => calls::run(tools, cx, call).await,
                        None => ToolResult::text(&call, "this stack has no tools", true),
                    };
                    Came::Brought(index, Box::new(ToolStep { result: Some(result), ..tool }))
                }
                .boxed()
            }
            Runner::Search => {
                let search = self.search(index)?;
                let cx = self.beginner(cx);
                async move {
                    pin.set(&shared.parts.store).await;
                    let result = search.run(cx, call).await;
                    Came::Brought(index, Box::new(ToolStep { result: Some(result), ..tool }))
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
                    Came::Brought(index, Box::new(ToolStep { result: Some(result), ..tool }))
                }
                .boxed()
            }
        };
        Some(running)
    }

    /// What the call of `file_search` at `index` searches. Its passages get numbers that no other in the conversation has:
    /// those of the calls that run beside it are left free.
    fn search(&self, index: usize) -> Option<Search> {
        let turn = self.journal.turn();
        let config = conversation::config(turn);
        let file_search = config.file_search?;
        let own = conversation::messages(turn);
        let steps = turn.steps.iter().filter_map(|step| match &step.step {
            Some(Step::Tool(tool)) => tool.result.as_ref(),
            _ => None,
        });
        let shown = self.history.iter().chain(&own).flat_map(Message::tool_results).chain(steps);
        let last = shown.flat_map(|result| &result.search_results).map(|result| result.number).max().unwrap_or(0);
        let beside = turn.steps.iter().take(index).filter(|step| match &step.step {
            Some(Step::Tool(tool)) => tool.result.is_none() && tool.call.as_ref().is_some_and(|call| call.name == file_search::NAME),
            _ => false,
        });
        let taken = u32::try_from(beside.count()).unwrap_or(u32::MAX).saturating_mul(Search::most(&file_search));
        Some(Search {
            memory: self.shared.parts.memory.clone(),
            inference: self.shared.parts.inference.clone(),
            config: file_search,
            model: config.model,
            first: last.saturating_add(taken).saturating_add(1),
        })
    }

    /// Whoever goes on with a turn, what it may read is what they may who began it.
    fn beginner(&self, cx: Context) -> Context {
        let turn = self.journal.turn();
        if turn.principal == cx.principal().id {
            return cx;
        }
        let Some(mut asking) = turns::beginner(self.journal.tenant(), turn) else { return cx };
        if let Some(trace) = cx.trace() {
            asking = asking.with_trace(trace);
        }
        if let Some(key) = cx.key() {
            asking = asking.with_key(key);
        }
        asking.with_timeout(self.deadline.saturating_duration_since(Instant::now()))
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
            Ok(Runner::Search | Runner::Client | Runner::Handoff(_)) | Err(_) => true,
        };
        let was_cut_off = self.cut_off || interrupted.is_some();
        (was_cut_off && !retries && (self.cut_off || !again)).then(|| calls::CUT_OFF.to_owned())
    }

    /// What a person's approval of this call says of its tool.
    fn pin(&self, tool: &ToolStep, call: &ToolCall) -> Pin {
        let group = self.toolbox.facts(&call.name).map(|facts| facts.group.clone()).unwrap_or_default();
        let approved = !tool.approval_request_id.is_empty();
        self.pins.pin(self.journal.tenant(), approved, &group, &call.name, self.toolbox.definition_hash(&call.name))
    }

    async fn complete_all(&mut self, mut effects: FuturesUnordered<Effect>) -> Result<(), Stop> {
        while let Some(came) = self.guarded(effects.next()).await? {
            let done = match came {
                Came::Done(done) => done,
                Came::Brought(index, tool) => match self.judge_result(index, &tool)? {
                    Some(judging) => {
                        effects.push(judging);
                        Vec::new()
                    }
                    None => vec![(index, Step::Tool(*tool))],
                },
            };
            for (index, step) in done {
                self.journal.complete(index, step).map_err(Stop::Broken)?;
            }
            if !effects.is_empty() {
                self.journal.commit().await.map_err(Stop::Broken)?;
            }
        }
        Ok(())
    }
}

/// What an open step does in the world.
pub(super) type Effect = BoxFuture<'static, Came>;

/// What comes of it.
pub(super) enum Came {
    Done(Vec<(usize, Step)>),
    /// The result of a call, from outside: shields judge it first.
    Brought(usize, Box<ToolStep>),
}

impl Came {
    fn one(index: usize, step: Step) -> Self {
        Self::Done(vec![(index, step)])
    }
}
