//! The journal of a turn that runs: what happens is staged, becomes durable, and only then is shown.

use std::sync::Arc;

use llama_stack_core::{Code, Error, Result, failpoint, ids};
use llama_stack_proto::v1::{ChatEvent, ShieldStage, ShieldStep, Step, StepDelta, Turn, TurnEvent, TurnStatus, step, turn_event::Event};
use llama_stack_store::{Held, Store};

use crate::{
    fold::Fold,
    judged,
    lease::Lease,
    live::{Live, Running},
    runtime::Shared,
};

/// The only writer of its turn: in this process by its place among those that run, and everywhere by its epoch.
pub(crate) struct Journal {
    store: Store,
    tenant: String,
    lease: Arc<Lease>,
    /// Under which the turn is held; `None` while it waits, until the first commit takes it.
    epoch: Option<i64>,
    /// It has come to rest, and is nobody's.
    rests: bool,
    fold: Fold,
    /// Folded, not yet durable. A result waits here for the next intent, so that both cost one sync.
    staged: Vec<TurnEvent>,
    running: Running,
}

impl Journal {
    /// `epoch`: under which the turn is held; `None` for one that waits, which the first commit takes.
    pub(crate) fn new(shared: &Shared, tenant: &str, fold: Fold, running: Running, epoch: Option<i64>) -> Self {
        if let Some(epoch) = epoch {
            running.live().hold(epoch);
        }
        let (store, lease, tenant) = (shared.parts.store.clone(), shared.lease.clone(), tenant.to_owned());
        Self { store, tenant, lease, epoch, rests: false, fold, staged: Vec::new(), running }
    }

    pub(crate) fn fold(&self) -> &Fold {
        &self.fold
    }

    pub(crate) fn turn(&self) -> &Turn {
        &self.fold.turn
    }

    pub(crate) fn tenant(&self) -> &str {
        &self.tenant
    }

    pub(crate) fn live(&self) -> &Live {
        self.running.live()
    }

    /// Folds an event in. It counts, and is seen, once [`Journal::commit`] has returned.
    ///
    /// # Errors
    /// `DataLoss` for an event that cannot come here.
    pub(crate) fn stage(&mut self, what: Event) -> Result<()> {
        let event =
            TurnEvent { turn_id: self.fold.turn.id.clone(), sequence: self.fold.sequence + 1, time: Some(ids::now()), event: Some(what) };
        self.fold.push(&event)?;
        self.staged.push(event);
        Ok(())
    }

    /// The intent of a step; gives its index.
    pub(crate) fn start(&mut self, what: step::Step) -> Result<usize> {
        let index = self.fold.turn.steps.len();
        let step = Step { id: ids::new("step"), index: index as u32, started: Some(ids::now()), ended: None, step: Some(what) };
        self.stage(Event::StepStarted(step))?;
        Ok(index)
    }

    /// The result of a step that was started.
    pub(crate) fn complete(&mut self, index: usize, what: step::Step) -> Result<()> {
        let Some(open) = self.fold.turn.steps.get(index) else { return Ok(()) };
        let step = Step { ended: Some(ids::now()), step: Some(what), id: open.id.clone(), index: open.index, started: open.started };
        self.stage(Event::StepCompleted(step))
    }

    /// The last event: the whole turn.
    pub(crate) fn end(&mut self, change: impl FnOnce(&mut Turn)) -> Result<()> {
        let mut turn = self.fold.turn.clone();
        turn.ended = Some(ids::now());
        change(&mut turn);
        self.stage(Event::Ended(Box::new(turn)))
    }

    /// Makes what was staged durable, then shows it to the watchers.
    ///
    /// # Errors
    /// The store's; `Aborted` (`lease_lost`) where another owns the turn now. Nothing of it has been shown then, and
    /// nothing may be done any more.
    pub(crate) async fn commit(&mut self) -> Result<()> {
        if self.staged.is_empty() {
            return Ok(());
        }
        let rests = self.fold.turn.status() != TurnStatus::InProgress;
        if rests {
            // Whoever reads of the rest before its place is given up waits for that.
            self.running.live().rest(true);
        }
        let written = self.write().await;
        if rests {
            if written.is_ok() {
                self.rests = true;
                self.running.release();
            }
            self.running.live().rest(false);
        }
        written?;
        for event in self.staged.drain(..) {
            self.running.live().push(event);
        }
        Ok(())
    }

    async fn write(&mut self) -> Result<()> {
        failpoint::hit(if self.fold.ended() { "end.before" } else { "steps.before" });
        let (turn, status) = (&self.fold.turn, self.fold.turn.status());
        match self.epoch {
            // Gone before anyone hears of its end; a last entry would only be deleted after it.
            epoch if self.fold.ended() && !turn.store => forget(&self.store, &self.tenant, turn, epoch).await?,
            Some(epoch) => {
                let amended = self.amended().await?;
                self.store.append_amending(&self.tenant, &turn.id, epoch, &self.staged, status, &amended).await?;
            }
            None => {
                let epoch = self.store.take(&self.tenant, &turn.id, self.lease.holder(), &self.staged, status).await?;
                self.running.live().hold(epoch);
                self.epoch = Some(epoch);
            }
        }
        failpoint::hit(if self.fold.ended() { "end.journalled" } else { "steps.journalled" });
        Ok(())
    }

    /// Earlier events that hold text which a verdict among the staged ones takes out, without it.
    async fn amended(&self) -> Result<Vec<TurnEvent>> {
        let verdicts: Vec<&ShieldStep> = self.staged.iter().filter_map(redacting).collect();
        let Some(first) = self.staged.first().filter(|_| !verdicts.is_empty()) else { return Ok(Vec::new()) };
        let mut amended = Vec::new();
        for mut event in self.store.journal(&self.tenant, &self.fold.turn.id, 0).await? {
            let before = event.clone();
            verdicts.iter().for_each(|verdict| judged::apply_to_event(&mut event, verdict));
            if event.sequence < first.sequence && event != before {
                amended.push(event);
            }
        }
        Ok(amended)
    }

    /// Shows the first event, which `Store::begin_turn` has made durable.
    pub(crate) fn show_created(&self, created: TurnEvent) {
        self.running.live().push(created);
    }

    /// Shows what a model says while it says it.
    pub(crate) fn delta(&self, step_id: &str, event: ChatEvent) {
        let delta = StepDelta { step_id: step_id.to_owned(), event: Some(event) };
        self.running.live().push(TurnEvent {
            turn_id: self.fold.turn.id.clone(),
            sequence: self.fold.sequence,
            time: None,
            event: Some(Event::Delta(delta)),
        });
    }

    /// The run stops here because of `error`, which the journal does not tell.
    pub(crate) fn stopped(&self, error: &Error) {
        let turn = &self.fold.turn.id;
        if error.reason() == Some("lease_lost") {
            tracing::warn!(turn, "a turn stopped here: it is another process's now");
            return self.live().lose();
        }
        tracing::error!(turn, error = ?error, "a turn stopped: its journal could not be written");
        if error.code() == Code::Unavailable {
            // Once the database answers again it can go on.
            self.live().lose();
        }
    }

    /// The status as it is durable.
    pub(crate) fn status(&self) -> TurnStatus {
        self.fold.turn.status()
    }
}

impl Drop for Journal {
    /// A run that broke off for another reason than the loss of its turn, a defect for example, would only do so again.
    fn drop(&mut self) {
        if let Some(epoch) = self.epoch
            && !self.rests
            && !self.live().lost.is_cancelled()
        {
            self.lease.pin(Held { tenant: self.tenant.clone(), turn_id: self.fold.turn.id.clone(), epoch });
        }
    }
}

/// The verdict in this event, if it takes something out of what was journalled before it.
fn redacting(event: &TurnEvent) -> Option<&ShieldStep> {
    let Some(Event::StepCompleted(step)) = &event.event else { return None };
    let Some(step::Step::Shield(shield)) = &step.step else { return None };
    let of_input = matches!(shield.stage(), ShieldStage::Input | ShieldStage::ToolResult | ShieldStage::Retrieved);
    let redacts = shield.verdict.as_ref().is_some_and(|verdict| verdict.redacted.is_some());
    (of_input && redacts || judged::withholds(shield)).then_some(shield)
}

/// What a run is told whose turn is no longer this process's.
pub(crate) fn lost(turn_id: &str) -> Error {
    Error::new(Code::Aborted, format!("turn {turn_id:?} is no longer held here")).with_reason("lease_lost")
}

/// Deletes a turn that was not to be stored, and its session where that was made for it and holds nothing else. With an
/// epoch: only while the turn is held under it.
pub(crate) async fn forget(store: &Store, tenant: &str, turn: &Turn, epoch: Option<i64>) -> Result<()> {
    match epoch {
        Some(epoch) => store.delete_held_turn(tenant, &turn.id, epoch).await?,
        None => store.delete_turn(tenant, &turn.id).await?,
    }
    let made_for_it = turn.session_id == session_of(&turn.id);
    if made_for_it && store.newest_turn_id(tenant, &turn.session_id).await?.is_none() {
        store.delete_session(tenant, &turn.session_id).await?;
    }
    Ok(())
}

/// The id of the session that is made with a turn that names none: the turn's own, but for the prefix.
pub(crate) fn session_of(turn_id: &str) -> String {
    turn_id.replacen("turn", "session", 1)
}
