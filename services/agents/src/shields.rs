//! Shields of a turn, at work. One that cannot judge lets nothing pass, unless the manifest says otherwise.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::future::join_all;
use llama_stack_core::{Code, Context, Error, Safety, manifest::OnFailure};
use llama_stack_proto::v1::{
    ErrorInfo, GetShieldRequest, Message, Part, RunShieldRequest, RunShieldResponse, ShieldStep, Violation, part::Content, violation::Level,
};

use crate::judged::{self, UNJUDGED, fingerprint};

/// What an end user is told where a shield gives no words of its own.
const REFUSAL: &str = "I can't help with that.";

/// How much later the deadline is that a shield is told: whoever keeps it on the way would say so before this clock, and not why.
const GRACE: Duration = Duration::from_secs(1);

/// How often a text that shields redact is judged anew, before it is taken for one that they cannot agree on.
const ROUNDS: usize = 4;

/// Asks shields, within their time.
#[derive(Clone)]
pub(crate) struct Judge {
    pub(crate) safety: Option<Arc<dyn Safety>>,
    pub(crate) cx: Context,
    pub(crate) timeout: Duration,
    pub(crate) on_failure: OnFailure,
}

/// What is left of a text.
#[derive(Debug, PartialEq)]
pub(crate) enum Sifted {
    /// As it was, or as shields redacted it.
    Passed(Vec<Part>),
    /// With what to tell of it.
    Refused(String),
}

impl Judge {
    /// Has all of `shields` judge `message`, side by side, in the light of what came `before` it. Where one redacts it the
    /// others judge what is left, until none finds anything any more.
    ///
    /// The steps with their verdicts, in the order of `shields`. One of them at most has a redacted message: what is left.
    pub(crate) async fn sift(&self, shields: Vec<ShieldStep>, before: Arc<Vec<Message>>, message: Message) -> (Vec<ShieldStep>, Sifted) {
        let (mut message, mut verdicts) = (message, shields);
        // Who has judged which text, or made it.
        let mut known: HashSet<(usize, String)> = HashSet::new();
        let mut last_redactor = None;
        for _ in 0..ROUNDS {
            let hash = fingerprint(&message.parts);
            let todo: Vec<usize> = (0..verdicts.len()).filter(|at| !known.contains(&(*at, hash.clone()))).collect();
            if todo.is_empty() || message.parts.is_empty() {
                if let Some(redacted) = last_redactor.and_then(|at: usize| verdicts[at].verdict.as_mut()) {
                    redacted.redacted = Some(message.clone());
                }
                verdicts.iter_mut().filter(|step| step.verdict.is_none() && step.error.is_none()).for_each(|step| {
                    step.verdict = Some(RunShieldResponse::default());
                });
                return (verdicts, Sifted::Passed(message.parts));
            }
            let asked = todo.iter().map(|at| self.ask(bare(&verdicts[*at]), before.clone(), message.clone()));
            let answers = join_all(asked).await;
            let mut redacted: Option<(usize, Message)> = None;
            for (at, answer) in todo.iter().copied().zip(answers) {
                known.insert((at, hash.clone()));
                let made = answer.verdict.as_ref().and_then(|verdict| verdict.redacted.clone());
                merge(&mut verdicts[at], answer);
                if let (None, Some(made)) = (&redacted, made) {
                    redacted = Some((at, made));
                }
            }
            if let Some(words) = verdicts.iter().find_map(judged::forbids) {
                let words = words.to_owned();
                return (verdicts, Sifted::Refused(words));
            }
            if let Some((at, made)) = redacted {
                known.insert((at, fingerprint(&made.parts)));
                (message, last_redactor) = (made, Some(at));
            }
        }
        let disagreed =
            Error::internal("the shields did not come to an end: each redacts what another left").with_reason("shields_disagree");
        // Something was found in it, so it does not pass, whatever the manifest says of failures.
        verdicts.iter_mut().for_each(|step| (step.verdict, step.error) = (None, Some(disagreed.to_info())));
        (verdicts, Sifted::Refused(UNJUDGED.into()))
    }

    /// One shield, once. `verdict.redacted` can be used, and differs from the message.
    pub(crate) async fn ask(&self, mut shield: ShieldStep, before: Arc<Vec<Message>>, message: Message) -> ShieldStep {
        let answered = match &self.safety {
            Some(safety) => {
                let cx = self.within(self.cx.clone());
                let asking = run(safety.as_ref(), &cx, &shield, &before, &message);
                // The context's deadline is for whoever waits elsewhere; here it is this clock that counts.
                tokio::time::timeout(self.timeout, asking).await.unwrap_or_else(|_| Err(self.late()))
            }
            None => Err(Error::unavailable("this stack has no safety provider").with_reason("no_safety")),
        };
        match answered {
            Ok(answer) => {
                let (verdict, nonsense) = sensible(answer, &message);
                shield.verdict = Some(verdict);
                shield.error = nonsense.map(|error| error.to_info());
            }
            Err(error) => {
                tracing::warn!(shield = shield.shield_id, error = ?error, "a shield could not judge");
                self.fail(&mut shield, &error);
            }
        }
        shield
    }

    fn within(&self, cx: Context) -> Context {
        let patience = self.timeout + GRACE;
        let sooner = cx.deadline().is_some_and(|deadline| deadline < std::time::Instant::now() + patience);
        if sooner { cx } else { cx.with_timeout(patience) }
    }

    fn late(&self) -> Error {
        let message = format!("the shield did not answer within {} s", self.timeout.as_secs_f64());
        Error::new(Code::DeadlineExceeded, message).with_reason("shield_timeout")
    }

    /// There is no verdict, and why; with `on_failure: open` an empty one, so that the text passes.
    fn fail(&self, shield: &mut ShieldStep, error: &Error) {
        let info = error.to_info();
        let told = match error.code() {
            Code::Internal | Code::DataLoss if error.reason().is_none() => "the shield failed".to_owned(),
            _ => info.message,
        };
        let reason = if info.reason.is_empty() { "shield_failed".to_owned() } else { info.reason };
        shield.error = Some(ErrorInfo { message: told, reason, ..info });
        shield.verdict = (self.on_failure == OnFailure::Open).then(RunShieldResponse::default);
    }
}

/// The shield's intent, without a verdict.
fn bare(step: &ShieldStep) -> ShieldStep {
    ShieldStep { verdict: None, error: None, ..step.clone() }
}

async fn run(
    safety: &dyn Safety,
    cx: &Context,
    shield: &ShieldStep,
    before: &[Message],
    message: &Message,
) -> Result<RunShieldResponse, Error> {
    // One that cannot be asked how it reads is given all; what it answers to that is told of.
    let reads_all = !before.is_empty()
        && safety.get_shield(cx, GetShieldRequest { id: shield.shield_id.clone() }).await.map_or(true, |shield| shield.reads_conversation);
    let before = if reads_all { before } else { &[] };
    let messages = before.iter().chain([message]).cloned().collect();
    safety
        .run_shield(cx, RunShieldRequest { shield_id: shield.shield_id.clone(), messages, stage: shield.stage, ..Default::default() })
        .await
}

/// An answer as it counts, and what was wrong with it: what cannot be understood lets nothing pass.
fn sensible(mut answer: RunShieldResponse, judged: &Message) -> (RunShieldResponse, Option<Error>) {
    let mut nonsense = None;
    if let Some(violation) = &mut answer.violation {
        if !matches!(Level::try_from(violation.level), Ok(Level::Warn | Level::Error)) {
            let message = format!("the shield reports a violation of level {}, which is none", violation.level);
            nonsense = Some(Error::internal(message).with_reason("unclear_verdict"));
            violation.set_level(Level::Error);
        }
        if violation.user_message.is_empty() {
            violation.user_message = REFUSAL.into();
        }
        if violation.level() == Level::Error {
            answer.redacted = None;
        }
    }
    if let Some(redacted) = answer.redacted.take() {
        match judged::redaction(&judged.parts, &redacted) {
            Some(parts) if fingerprint(&parts) == fingerprint(&judged.parts) => {}
            Some(parts) => answer.redacted = Some(Message { parts, ..judged.clone() }),
            None => {
                let message = "the shield redacts the message to one that cannot be used: it must have parts, of text or images";
                nonsense = Some(Error::internal(message).with_reason("unusable_redaction"));
                let words = (UNJUDGED.to_owned(), "unusable_redaction".to_owned());
                answer.violation =
                    Some(Violation { level: Level::Error.into(), user_message: words.0, reason: words.1, categories: Vec::new() });
            }
        }
    }
    (answer, nonsense)
}

/// Adds what a shield found in a further text to what it found before: the worst counts.
pub(crate) fn merge(total: &mut ShieldStep, one: ShieldStep) {
    total.error = one.error.or(total.error.take());
    let Some(mut found) = one.verdict else {
        total.verdict = None;
        return;
    };
    let Some(whole) = &mut total.verdict else {
        found.redacted = None;
        total.verdict = Some(found);
        return;
    };
    let worse = |violation: &Violation| violation.level() != Level::Warn;
    if whole.violation.as_ref().is_none_or(|violation| !worse(violation)) {
        whole.violation = found.violation.or(whole.violation.take());
    }
    for score in found.scores {
        match whole.scores.iter_mut().find(|known| known.code == score.code) {
            Some(known) => (known.score, known.violated) = (known.score.max(score.score), known.violated || score.violated),
            None => whole.scores.push(score),
        }
    }
    whole.findings.extend(found.findings);
    whole.judged_bytes += found.judged_bytes;
    whole.known_bytes += found.known_bytes;
    whole.unscored |= found.unscored;
}

/// What a model said that is judged as its answer, as shields read it: its thinking too, and not its calls.
pub(crate) fn judged_answer(message: &Message) -> Message {
    let text = |part: &Part| match &part.content {
        Some(Content::Text(text) | Content::Reasoning(text) | Content::Refusal(text)) => {
            Some(Part { content: Some(Content::Text(text.clone())), ..part.clone() })
        }
        _ => None,
    };
    Message { parts: message.parts.iter().filter_map(text).collect(), ..message.clone() }
}

/// Puts what shields left of an answer in its place; calls stay.
pub(crate) fn put_answer(message: &mut Message, left: Vec<Part>) {
    let is_judged = |part: &Part| matches!(part.content, Some(Content::Text(_) | Content::Reasoning(_) | Content::Refusal(_)));
    let places: Vec<usize> = (0..message.parts.len()).filter(|at| is_judged(&message.parts[*at])).collect();
    if places.len() == left.len() {
        for (at, part) in places.into_iter().zip(left) {
            let Some(Content::Text(text)) = part.content else { continue };
            let content = match &message.parts[at].content {
                Some(Content::Reasoning(_)) => Content::Reasoning(text),
                Some(Content::Refusal(_)) => Content::Refusal(text),
                _ => Content::Text(text),
            };
            message.parts[at].content = Some(content);
        }
        return;
    }
    let calls = std::mem::take(&mut message.parts).into_iter().filter(|part| !is_judged(part));
    message.parts = left.into_iter().filter(|part| part.as_text().is_some()).chain(calls).collect();
}
