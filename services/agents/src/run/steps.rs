//! What a turn begins next: the plan, with all that bears on a call, made into open steps.

use std::{collections::BTreeSet, sync::Arc};

use llama_stack_core::{Principal, Result, ids};
use llama_stack_policy::{Facts, Question, labels, tainted};
use llama_stack_proto::v1::{
    AwaitingTools, InferenceStep, OnInterrupt, ToolCall, ToolStep, Turn, TurnStatus, step::Step, turn_event::Event,
};

use super::{INTERRUPTED, Run, Stop};
use crate::{
    compact, conversation, fold,
    pins::Pins,
    plan::{self, Desk as _, Gate, Next},
    toolbox::{Counter, Runner, Toolbox},
};

impl Run {
    /// Makes the toolbox anew where a tool list or a hand-off has come since.
    pub(super) async fn gather_tools(&mut self) -> Result<(), Stop> {
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
    pub(super) async fn plan(&mut self) -> Result<(), Stop> {
        match self.at_desk(|desk| plan::next(self.journal.fold(), desk)) {
            Next::Start(steps) if matches!(steps.as_slice(), [Step::Inference(_)]) => {
                let step = match self.compaction_due().await? {
                    Some(compaction) => Step::Compaction(compaction),
                    None => steps.into_iter().next().unwrap_or(Step::Inference(InferenceStep::default())),
                };
                self.journal.start(step).map(drop).map_err(Stop::Broken)
            }
            Next::Start(steps) if matches!(steps.first(), Some(Step::Shield(_))) => {
                let steps = self.sitting(steps).await?;
                steps.into_iter().try_for_each(|step| self.start(step)).map_err(Stop::Broken)
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

    /// Asks the plan, with the toolbox as its desk.
    pub(super) fn at_desk<T>(&self, ask: impl FnOnce(&Counter<'_>) -> T) -> T {
        let seen = self.seen();
        let judge = |call: &ToolCall, facts: &Facts| self.judge_call(call, facts, &seen);
        self.counter(&judge, ask)
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

    /// Whether the model has read nothing, by now, that others wrote or that is private. Known only where a policy wants it.
    pub(super) fn clean(&self) -> bool {
        self.shared.parts.policy.is_some() && self.seen().iter().all(|label| !tainted(label))
    }

    fn judge_call(&self, call: &ToolCall, facts: &Facts, seen: &BTreeSet<String>) -> Gate {
        let Some(policy) = &self.shared.parts.policy else { return Gate::Open { policy: String::new() } };
        let arguments = serde_json::from_str(&call.arguments).unwrap_or_default();
        let (turn, tenant) = (self.journal.turn(), self.journal.tenant().to_owned());
        let principal = Principal { id: turn.principal.clone(), tenant, roles: turn.principal_roles.clone() };
        Gate::from(policy.decide(&Question { principal: &principal, agent_id: &turn.agent_id, tool: facts, arguments: &arguments, seen }))
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
    pub(super) fn needs_word(&self, index: usize) -> bool {
        if !self.cut_off {
            return false;
        }
        let Some(Step::Tool(tool)) = self.journal.turn().steps.get(index).and_then(|step| step.step.as_ref()) else { return false };
        let Some(call) = &tool.call else { return false };
        let decided = self.journal.fold().decision_on(&call.id).is_some_and(|(request, _)| request.asked_by == INTERRUPTED);
        let asks = matches!(self.toolbox.runner(call), Ok(Runner::Stack(OnInterrupt::Ask) | Runner::Server(_, OnInterrupt::Ask)));
        asks && !decided
    }

    pub(super) fn ask_about(&mut self, indices: &[usize]) -> Result<()> {
        let calls = indices.iter().filter_map(|index| match &self.journal.turn().steps.get(*index)?.step {
            Some(Step::Tool(tool)) => tool.call.clone(),
            _ => None,
        });
        let open = |_: &ToolCall, _: &Facts| Gate::Open { policy: String::new() };
        let approvals = self.counter(&open, |counter| calls.map(|call| counter.request(&call, INTERRUPTED)).collect());
        self.journal.stage(Event::AwaitingTools(AwaitingTools { calls: Vec::new(), approvals }))
    }
}
