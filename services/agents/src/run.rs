//! A turn that runs: plan the next steps, journal the intent, have the effect, journal the result, until it rests.

use std::{future::Future, sync::Arc, time::Duration};

use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use llama_stack_core::{Context, Error, Result, ids};
use llama_stack_proto::v1::{
    AwaitingTools, InferenceStep, Message, RunShieldResponse, ShieldStep, ToolResult, ToolStep, Turn, TurnStatus, step::Step,
    turn_event::Event,
};
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::{
    calls, fold, hash, history,
    journal::{Journal, lost},
    plan::{self, Next},
    runtime::Shared,
    shields,
    toolbox::Toolbox,
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
    pub(crate) toolbox: Arc<Toolbox>,
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
        Self { shared, cx, journal, cut_off, history: Vec::new(), toolbox: Arc::default(), deadline }
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
            if self.journal.fold().open_steps().is_empty() {
                self.plan().map_err(Stop::Broken)?;
                self.cut_off = false;
            }
            // The intents, and with them the results before: one sync for both.
            self.commit().await.map_err(Stop::Broken)?;
            if self.journal.status() != TurnStatus::InProgress {
                return Ok(());
            }
            self.run_open().await?;
        }
    }

    async fn prepare(&mut self) -> Result<(), Stop> {
        self.history = history::before(&self.shared, self.journal.tenant(), self.journal.turn()).await.map_err(Stop::Broken)?;
        let config = self.journal.turn().config.clone().unwrap_or_default();
        let tools = self.shared.parts.tools.clone();
        let cx = self.effect_context();
        let toolbox = self.guarded(Toolbox::of(tools.as_deref(), &cx, &config)).await?.map_err(Stop::Failed)?;
        self.toolbox = Arc::new(toolbox);
        Ok(())
    }

    /// Stages what is next.
    fn plan(&mut self) -> Result<()> {
        let toolbox = self.toolbox.clone();
        match plan::next(self.journal.turn(), |call| toolbox.for_client(call)) {
            Next::Start(steps) => steps.into_iter().try_for_each(|step| self.journal.start(step).map(drop)),
            Next::Await(calls) => {
                for call in &calls {
                    self.journal.start(Step::Tool(ToolStep { call: Some(call.clone()), client: true, ..ToolStep::default() }))?;
                }
                self.journal.stage(Event::AwaitingTools(AwaitingTools { calls, ..AwaitingTools::default() }))
            }
            Next::Refuse(words) => {
                let (message, finish) = fold::refusal(&words);
                let model = self.journal.turn().config.as_ref().map(|config| config.model.clone()).unwrap_or_default();
                let mut step = InferenceStep { model, ..InferenceStep::default() };
                let index = self.journal.start(Step::Inference(step.clone()))?;
                step.message = Some(message);
                step.set_finish_reason(finish);
                self.journal.complete(index, Step::Inference(step))?;
                self.plan()
            }
            Next::End(status, reason) => self.journal.end(|turn| {
                turn.set_status(status);
                turn.incomplete_reason = reason.to_owned();
            }),
        }
    }

    /// Runs the open steps, all at once, and stages their results; all but the last to come are durable on return.
    async fn run_open(&mut self) -> Result<(), Stop> {
        let open = self.journal.fold().open_steps();
        let step = |index: &usize| self.journal.turn().steps.get(*index).and_then(|step| step.step.as_ref());
        if let Some(index) = open.iter().copied().find(|index| matches!(step(index), Some(Step::Inference(_)))) {
            // Open shields beside it are its own.
            return self.infer(index).await;
        }
        let (shields, calls): (Vec<usize>, Vec<usize>) = open.into_iter().partition(|index| matches!(step(index), Some(Step::Shield(_))));
        if !shields.is_empty() {
            let mut messages = self.history.clone();
            messages.push(shields::judged_input(&self.journal.turn().input));
            self.judge(&shields, Arc::new(messages)).await?;
        }
        let effects = calls.into_iter().filter_map(|index| self.call(index)).collect();
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

    /// The call of the open tool step at `index`.
    fn call(&self, index: usize) -> Option<BoxFuture<'static, (usize, Step)>> {
        let turn = self.journal.turn();
        let step = turn.steps.get(index)?;
        let Some(Step::Tool(tool)) = &step.step else { return None };
        let call = tool.call.clone()?;
        let asked = plan::asked_at(turn, index);
        if let Some(earlier) = plan::repeated(turn, asked, &call).and_then(|tool| tool.result.clone()) {
            let copy = ToolResult { call_id: call.id.clone(), ..earlier };
            let done = ToolStep { result: Some(copy), ..tool.clone() };
            return Some(futures::future::ready((index, Step::Tool(done))).boxed());
        }
        let key = hash::call_key(&turn.id, &step.id, &call.id);
        let cx = self.effect_context().with_idempotency_key(key);
        let (tools, toolbox, cut_off) = (self.shared.parts.tools.clone(), self.toolbox.clone(), self.cut_off);
        let running = async move {
            let result = calls::run(tools, &toolbox, cx, call.clone(), cut_off).await;
            (index, Step::Tool(ToolStep { call: Some(call), result: Some(result), ..ToolStep::default() }))
        };
        Some(running.boxed())
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
