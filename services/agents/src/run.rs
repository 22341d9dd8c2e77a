//! A turn that runs: plan the next steps, journal the intent, have the effect, journal the result, until it rests.

mod answers;
mod beside;
mod effects;
mod steps;

use std::{collections::BTreeSet, future::Future, sync::Arc, time::Duration};

use llama_stack_core::{Context, Error, Result, ids};
use llama_stack_proto::v1::{InferenceStep, McpServer, Message, Turn, TurnStatus, step::Step};
use tokio::time::Instant;
use tracing::Instrument as _;

use crate::{
    conversation, fold,
    history::{self, Bound},
    journal::{Journal, lost},
    pins::Pins,
    runtime::Shared,
    servers::Servers,
    toolbox::Toolbox,
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
        let (config, cx) = (conversation::config(self.journal.turn()), self.effect_context());
        let (inference, tokens) = (self.shared.parts.inference.as_ref(), self.enough(&config).await);
        let enough = (tokens > 0).then_some(Bound { inference, cx: &cx, model: &config.model, tokens });
        let before = history::before(&self.shared, self.journal.tenant(), self.journal.turn(), enough);
        let history = self.guarded(before).await?.map_err(Stop::Broken)?;
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
        turns::cancel_called(&self.shared, self.journal.tenant(), self.journal.fold().called()).await;
    }

    /// Commits. A turn that ends is in the cache before anyone hears of its end, and could delete it.
    async fn commit(&mut self) -> Result<()> {
        let ends = self.journal.fold().ended() && self.journal.turn().store;
        if ends {
            self.shared.histories.keep(self.journal.tenant(), self.journal.turn());
        }
        if self.journal.fold().turn.status() == TurnStatus::AwaitingTools {
            // Before anyone hears of the rest, and could resume it.
            self.shared.resting.put(&self.journal.turn().id, self.servers.given());
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
