//! Shields on what a model said: on its words and on the arguments of its calls, before anyone acts on them.

use std::sync::Arc;

use futures::future::join_all;
use llama_stack_proto::v1::{
    FinishReason, InferenceStep, Message, Part, Role, RunShieldResponse, ShieldStage, ShieldStep, ToolCall, output_moderation::Mode,
    part::Content, step::Step,
};

use super::{Run, Stop};
use crate::{
    conversation::{self, Shields},
    fold,
    infer::Answer,
    judged::{self, fingerprint},
    moderate::{Outlet, Windows, events_of},
    pieces::Pieces,
    shields::{Judge, Sifted, judged_answer, put_answer},
};

impl Run {
    pub(crate) fn judge(&self) -> Judge {
        let (parts, safety) = (&self.shared.parts, &self.shared.parts.shielding);
        Judge { safety: parts.safety.clone(), cx: self.effect_context(), timeout: safety.timeout(), on_failure: safety.on_failure }
    }

    /// The intents of the shields that judge an answer by windows: they work while it comes, so they begin before it.
    pub(crate) async fn watch_windows(&mut self, shields: &Shields) -> Result<Vec<(usize, ShieldStep)>, Stop> {
        if shields.mode != Mode::Windowed || shields.output.is_empty() {
            return Ok(Vec::new());
        }
        let started = self.begin_sitting(ShieldStage::Output, "", &shields.output, "").map_err(Stop::Broken)?;
        self.journal.commit().await.map_err(Stop::Broken)?;
        Ok(started)
    }

    /// How the answer is shown while it comes.
    pub(crate) fn outlet(&self, shields: &Shields, watching: &[(usize, ShieldStep)]) -> Outlet {
        match (shields.output.is_empty(), shields.mode) {
            (true, _) if shields.arguments.is_empty() => Outlet::Open,
            (true, _) | (false, Mode::After) => Outlet::Calls { held: Vec::new() },
            (false, Mode::Windowed) => {
                let windows = Windows::new(self.judge(), self.so_far(), watching.to_vec(), shields.window_tokens);
                Outlet::Windows { windows: Box::new(windows), held: Vec::new() }
            }
            (false, Mode::Held | Mode::Unspecified) => Outlet::Held { held: Vec::new() },
        }
    }

    /// Has what was not judged while it came judged now, shows what passes, and stages the step. What does not pass is
    /// replaced before the journal holds it. A crash in between costs another inference.
    pub(crate) async fn moderate(&mut self, index: usize, shields: &Shields, mut answer: Answer) -> Result<(), Stop> {
        let hash = fingerprint(&judged_answer(answer.step.message.as_ref().unwrap_or(&Message::default())).parts);
        for (at, mut step) in std::mem::take(&mut answer.windows) {
            if step.verdict.is_none() && step.error.is_none() {
                step.verdict = Some(RunShieldResponse::default());
            }
            step.judged_sha256.clone_from(&hash);
            self.journal.complete(at, Step::Shield(step)).map_err(Stop::Broken)?;
        }
        if !shields.output.is_empty() && shields.mode != Mode::Windowed {
            let after = shields.mode == Mode::After;
            match self.judge_answer(shields, &mut answer).await? {
                Some(Sifted::Refused(words)) if after => return self.withdraw(index, answer.step, fold::refusal(&words)),
                Some(Sifted::Refused(words)) => {
                    let (refusal, finish) = fold::refusal(&words);
                    answer.held = events_of(&refusal, 0, finish);
                    (answer.step.message, answer.refused) = (Some(refusal), true);
                    answer.step.logprobs.clear();
                    answer.step.set_finish_reason(finish);
                }
                Some(Sifted::Passed(_)) if after => {
                    // Others words than those that were shown.
                    let (message, finish) = (answer.step.message.take().unwrap_or_default(), answer.step.finish_reason());
                    answer.step.logprobs.clear();
                    let again = self.again(index, answer.step)?;
                    let step = InferenceStep { message: Some(message), ..again.1 };
                    answer = Answer { step, shown: Pieces::default(), held: Vec::new(), refused: false, windows: Vec::new() };
                    answer.step.set_finish_reason(finish);
                    answer.held = events_of(answer.step.message.as_ref().unwrap_or(&Message::default()), 0, finish);
                    return self.judge_calls_and_end(again.0, shields, answer).await;
                }
                Some(Sifted::Passed(_)) => {
                    answer.held = events_of(answer.step.message.as_ref().unwrap_or(&Message::default()), 0, answer.step.finish_reason());
                    answer.step.logprobs.clear();
                }
                None => {}
            }
        }
        self.judge_calls_and_end(index, shields, answer).await
    }

    async fn judge_calls_and_end(&mut self, index: usize, shields: &Shields, mut answer: Answer) -> Result<(), Stop> {
        if !answer.refused {
            self.judge_arguments(shields, &mut answer).await?;
        }
        // A delta has the number of the event before it, so that one must have been shown.
        if !answer.held.is_empty() {
            self.journal.commit().await.map_err(Stop::Broken)?;
        }
        if let Some(step) = self.journal.turn().steps.get(index) {
            for event in answer.held.drain(..) {
                answer.shown.push(&event);
                self.journal.delta(&step.id, event);
            }
        }
        (answer.step.pieces, answer.step.piece_logprobs) = answer.shown.of(answer.step.message.as_ref().unwrap_or(&Message::default()));
        self.cite(&mut answer.step);
        self.journal.complete(index, Step::Inference(answer.step)).map_err(Stop::Broken)
    }

    /// Takes back what was shown, and says these words in its place.
    fn withdraw(&mut self, index: usize, step: InferenceStep, (words, finish): (Message, FinishReason)) -> Result<(), Stop> {
        let (at, again) = self.again(index, step)?;
        let mut refusal = InferenceStep { message: Some(words), ..again };
        refusal.set_finish_reason(finish);
        self.journal.complete(at, Step::Inference(refusal)).map_err(Stop::Broken)
    }

    /// Ends a step as one whose words are in no journal, and begins another in its place. Both are staged at once: there is
    /// no moment in which the model would be asked again.
    fn again(&mut self, index: usize, step: InferenceStep) -> Result<(usize, InferenceStep), Stop> {
        let again = InferenceStep { model: step.model.clone(), tools_withheld: step.tools_withheld, ..InferenceStep::default() };
        let withdrawn =
            InferenceStep { message: None, finish_reason: FinishReason::Unspecified.into(), logprobs: Vec::new(), cut_off: true, ..step };
        self.journal.complete(index, Step::Inference(withdrawn)).map_err(Stop::Broken)?;
        let at = self.journal.start(Step::Inference(again.clone())).map_err(Stop::Broken)?;
        Ok((at, again))
    }

    /// All output shields on all that was said. `None`: it passes as it is. What they redact is in the answer.
    async fn judge_answer(&mut self, shields: &Shields, answer: &mut Answer) -> Result<Option<Sifted>, Stop> {
        let Some(message) = answer.step.message.as_mut() else { return Ok(None) };
        let judged = judged_answer(message);
        if judged.parts.is_empty() {
            return Ok(None);
        }
        let before = self.so_far();
        let started = self.begin_sitting(ShieldStage::Output, "", &shields.output, &fingerprint(&judged.parts)).map_err(Stop::Broken)?;
        self.journal.commit().await.map_err(Stop::Broken)?;
        let (indices, steps): (Vec<usize>, Vec<ShieldStep>) = started.into_iter().unzip();
        let judge = self.judge();
        let (verdicts, sifted) = self.guarded(judge.sift(steps, before, judged.clone())).await?;
        self.end_sitting(&indices, verdicts).map_err(Stop::Broken)?;
        Ok(match sifted {
            Sifted::Passed(left) if fingerprint(&left) == fingerprint(&judged.parts) => None,
            Sifted::Passed(left) => {
                put_answer(message, left.clone());
                Some(Sifted::Passed(left))
            }
            refused => Some(refused),
        })
    }

    /// The shields on arguments, on all calls side by side. A call that they refuse is answered with that: see `plan`.
    async fn judge_arguments(&mut self, shields: &Shields, answer: &mut Answer) -> Result<(), Stop> {
        let Some(message) = answer.step.message.as_ref() else { return Ok(()) };
        let calls: Vec<ToolCall> = message.tool_calls().cloned().collect();
        if shields.arguments.is_empty() || calls.is_empty() {
            return Ok(());
        }
        let mut before = self.so_far().to_vec();
        before.push(judged_answer(message));
        before.retain(|message| !message.parts.is_empty());
        let before = Arc::new(before);
        let mut sittings = Vec::new();
        for call in &calls {
            let judged = judged_arguments(call);
            let started = self.begin_sitting(ShieldStage::ToolArguments, &call.id, &shields.arguments, &fingerprint(&judged.parts));
            let (indices, steps): (Vec<usize>, Vec<ShieldStep>) = started.map_err(Stop::Broken)?.into_iter().unzip();
            sittings.push((indices, steps, judged));
        }
        self.journal.commit().await.map_err(Stop::Broken)?;
        let judge = self.judge();
        let sifts = sittings.iter().map(|(_, steps, judged)| judge.sift(steps.clone(), before.clone(), judged.clone()));
        let verdicts = self.guarded(join_all(sifts)).await?;
        let mut changed = false;
        for (((indices, _, judged), call), (verdicts, sifted)) in sittings.iter().zip(&calls).zip(verdicts) {
            self.end_sitting(indices, verdicts).map_err(Stop::Broken)?;
            if let Sifted::Passed(left) = sifted
                && fingerprint(&left) != fingerprint(&judged.parts)
            {
                changed = true;
                put_arguments(answer.step.message.as_mut(), &call.id, left.iter().filter_map(Part::as_text).collect());
            }
        }
        if changed && let Some(message) = &answer.step.message {
            // Calls are held where shields judge them, with all that came after the first of them; or the whole answer is.
            let first_call = message.parts.iter().position(|part| matches!(part.content, Some(Content::ToolCall(_)))).unwrap_or_default();
            let all_held = shields.mode == Mode::Held && !shields.output.is_empty();
            answer.held = events_of(message, if all_held { 0 } else { first_call }, answer.step.finish_reason());
            if all_held {
                answer.step.logprobs.clear();
            }
        }
        Ok(())
    }

    /// Stages the intents of these shields on one text.
    pub(super) fn begin_sitting(
        &mut self,
        stage: ShieldStage,
        call_id: &str,
        ids: &[String],
        hash: &str,
    ) -> llama_stack_core::Result<Vec<(usize, ShieldStep)>> {
        let steps = ids.iter().map(|id| judged::intent(id, stage, call_id, hash));
        steps.map(|step| Ok((self.journal.start(Step::Shield(step.clone()))?, step))).collect()
    }

    pub(super) fn end_sitting(&mut self, indices: &[usize], verdicts: Vec<ShieldStep>) -> llama_stack_core::Result<()> {
        indices.iter().zip(verdicts).try_for_each(|(index, verdict)| self.journal.complete(*index, Step::Shield(verdict)))
    }

    /// The conversation up to here, as shields read it that read more than one text.
    pub(super) fn so_far(&self) -> Arc<Vec<Message>> {
        let mut messages = self.history.clone();
        messages.extend(conversation::messages(self.journal.turn()));
        Arc::new(messages)
    }
}

/// The arguments of a call as shields read them: a text of the model's, in a message that bears the tool's name.
fn judged_arguments(call: &ToolCall) -> Message {
    let part = Part::text(call.arguments.clone()).with_provenance(Role::Assistant.provenance());
    Message { name: call.name.clone(), ..Message::new(Role::Assistant, vec![part]) }
}

fn put_arguments(message: Option<&mut Message>, call_id: &str, left: String) {
    for part in message.into_iter().flat_map(|message| &mut message.parts) {
        if let Some(Content::ToolCall(call)) = &mut part.content
            && call.id == call_id
        {
            call.arguments = left;
            return;
        }
    }
}
