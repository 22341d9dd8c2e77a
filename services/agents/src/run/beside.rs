//! Shields that judge what came from outside while the model reads it already.
//!
//! ```text
//! other shields ─> intents: these shields, an inference ─┬─ shields ─┬─ all of it passes as it was: the answer is let on
//!                                                        └─ model    └─ else: the model is stopped, nobody has heard it
//! ```

use std::convert::Infallible;

use futures::{StreamExt as _, stream::FuturesUnordered};
use llama_stack_core::failpoint;
use llama_stack_proto::v1::{InferenceStep, ShieldStage, Usage, step::Step};

use super::{
    Run, Stop,
    effects::{Came, Effect},
};
use crate::{ahead::Ahead, conversation, plan};

impl Run {
    /// What to begin of these steps of shields: those that must be done before the model reads anything; once there are
    /// none, the others, and with them the inference that comes next if they let all pass.
    pub(super) async fn sitting(&self, due: Vec<Step>) -> Result<Vec<Step>, Stop> {
        let beside = &self.shared.parts.shielding.beside_model;
        let waits = |step: &Step| matches!(step, Step::Shield(shield) if beside.contains(&shield.shield_id));
        let (mut beside, first): (Vec<Step>, Vec<Step>) = due.into_iter().partition(waits);
        if !first.is_empty() {
            return Ok(first);
        }
        if let Some(inference) = self.at_desk(|desk| plan::ahead(self.journal.fold(), desk))
            && self.compaction_due().await?.is_none()
        {
            beside.push(inference);
        }
        Ok(beside)
    }

    /// Whether an open step is a shield's on what came from outside.
    pub(super) fn judges_input(&self, index: usize) -> bool {
        let step = self.journal.turn().steps.get(index).and_then(|step| step.step.as_ref());
        let outside = [ShieldStage::Input, ShieldStage::ToolResult, ShieldStage::Retrieved];
        matches!(step, Some(Step::Shield(shield)) if outside.contains(&shield.stage()))
    }

    /// Runs the inference step at `index` beside these open steps of shields. Until the last of them is done what the model
    /// says is read by nobody; where they leave another text than it was asked with, the step ends as one that was cut off.
    pub(super) async fn infer_beside(&mut self, index: usize, shields: &[usize]) -> Result<(), Stop> {
        let config = conversation::config(self.journal.turn());
        let Some(Step::Inference(open)) = self.journal.turn().steps.get(index).and_then(|step| step.step.clone()) else { return Ok(()) };
        let left_out = self.left_out(&config).await?;
        let asked_with = conversation::messages(self.journal.turn());
        let mut ahead = Some(self.ask(&config, left_out, open.tools_withheld));
        let mut spent = Usage::default();
        failpoint::hit("inference.before");
        let mut sittings: FuturesUnordered<Effect> = self.sittings(shields).into_iter().collect();
        loop {
            let next = async {
                tokio::select! {
                    biased;
                    came = sittings.next() => came,
                    never = read(ahead.as_mut()) => match never {},
                }
            };
            let Some(came) = self.guarded(next).await? else { break };
            // A sitting brings nothing else.
            let Came::Done(verdicts) = came else { continue };
            for (at, verdict) in verdicts {
                self.journal.complete(at, verdict).map_err(Stop::Broken)?;
            }
            if ahead.is_some() && conversation::messages(self.journal.turn()) != asked_with {
                spent = ahead.take().map(|ahead| ahead.usage()).unwrap_or_default();
            }
            if !sittings.is_empty() {
                self.journal.commit().await.map_err(Stop::Broken)?;
            }
        }
        if ahead.is_some() {
            // The verdicts are durable, and known to watchers, before any word is.
            self.journal.commit().await.map_err(Stop::Broken)?;
            return self.infer(index, ahead).await;
        }
        let cost = self.shared.cost(&open.model, Some(&spent));
        let unheard = InferenceStep { cut_off: true, usage: Some(spent), cost, ..open };
        self.journal.complete(index, Step::Inference(unheard)).map_err(Stop::Broken)
    }
}

async fn read(ahead: Option<&mut Ahead>) -> Infallible {
    match ahead {
        Some(ahead) => ahead.read().await,
        None => std::future::pending().await,
    }
}
