//! What a shield step of a journal judged, as far as the journal still holds it.

use llama_stack_agents::fingerprint;
use llama_stack_proto::v1::{Message, Part, Role, ShieldStage, ShieldStep, ToolCall, ToolResult, Turn, part::Content, step::Step};

/// A text as it was judged.
pub(super) struct Judged {
    pub(super) message: Message,
    /// How many steps of the turn come before it; none: not even its input.
    pub(super) before: Option<usize>,
    /// The journal's fingerprint says so.
    pub(super) exact: bool,
}

/// What a turn has said by its step at `until`: its input, what the model said, and results. Nothing without a step.
pub(super) fn said(turn: &Turn, until: Option<usize>) -> Vec<Message> {
    let Some(until) = until else { return Vec::new() };
    let mut messages = turn.input.clone();
    for step in turn.steps.iter().take(until) {
        match &step.step {
            Some(Step::Inference(inference)) => messages.extend(inference.message.clone()),
            Some(Step::Tool(tool)) => messages.extend(tool.result.clone().map(|result| Message::tool(vec![result]))),
            _ => {}
        }
    }
    messages
}

/// The text of the shield step at `at`. None where the journal no longer holds it: what did not pass was not kept.
pub(super) fn judged(turn: &Turn, at: usize, step: &ShieldStep) -> Option<Judged> {
    let candidates = candidates(turn, at, step);
    let exact = |judged: &Judged| fingerprint(&judged.message.parts) == step.judged_sha256;
    if step.judged_sha256.is_empty() {
        // By its place alone: the first is the likeliest. An answer that did not pass is not there.
        let refused = step.verdict.as_ref().is_some_and(|verdict| verdict.violation.is_some() || verdict.redacted.is_some());
        return if step.stage() == ShieldStage::Output && refused { None } else { candidates.into_iter().next() };
    }
    candidates.into_iter().find(exact).map(|judged| Judged { exact: true, ..judged })
}

/// What the step may have judged, by its stage; the likeliest first.
fn candidates(turn: &Turn, at: usize, step: &ShieldStep) -> Vec<Judged> {
    let found = |role: Role, parts: Vec<Part>, before| Judged { message: Message::new(role, parts), before, exact: false };
    let mut candidates = Vec::new();
    match step.stage() {
        ShieldStage::Input | ShieldStage::Unspecified => {
            let outside = turn.input.iter().filter(|message| matches!(message.role(), Role::User | Role::Tool));
            let each: Vec<Vec<Part>> = outside.map(|message| message.parts.iter().flat_map(flat).collect()).collect();
            candidates.push(found(Role::User, each.concat(), None));
            candidates.extend(each.into_iter().map(|parts| found(Role::User, parts, None)));
        }
        ShieldStage::ToolArguments => {
            let call = calls(turn).find(|call| call.id == step.call_id);
            candidates.extend(call.map(|call| found(Role::Assistant, vec![call.clone().into()], Some(at))));
        }
        ShieldStage::ToolResult | ShieldStage::Retrieved => {
            for result in results(turn).filter(|result| result.call_id == step.call_id) {
                candidates.push(found(Role::User, result.parts.clone(), Some(at)));
                candidates.push(found(Role::Tool, vec![result.clone().into()], Some(at)));
                let passages = result.search_results.iter().map(|passage| Part::text(passage.text.clone()));
                candidates.push(found(Role::User, passages.collect(), Some(at)));
            }
            for message in &turn.input {
                let quoted = message.parts.iter().filter(|part| !part.provenance.is_empty() && part.provenance != "user");
                candidates.push(found(Role::User, quoted.cloned().collect(), None));
            }
        }
        ShieldStage::Output => {
            let spoken = turn.steps[..at].iter().rposition(|step| matches!(step.step, Some(Step::Inference(_))));
            if let Some(spoken) = spoken
                && let Some(Step::Inference(inference)) = &turn.steps[spoken].step
                && let Some(message) = &inference.message
            {
                let words = message.parts.iter().filter(|part| words(part).is_some()).cloned();
                let before = Some(spoken);
                candidates.push(Judged { message: Message::new(Role::Assistant, words.collect()), before, exact: false });
                candidates.push(Judged { message: message.clone(), before, exact: false });
            }
        }
    }
    candidates.retain(|judged| !judged.message.parts.is_empty());
    candidates
}

/// A result's parts in place of the result.
fn flat(part: &Part) -> Vec<Part> {
    match &part.content {
        Some(Content::ToolResult(result)) => result.parts.clone(),
        Some(_) => vec![part.clone()],
        None => Vec::new(),
    }
}

fn words(part: &Part) -> Option<&str> {
    match &part.content {
        Some(Content::Text(text) | Content::Refusal(text) | Content::Reasoning(text)) => Some(text),
        _ => None,
    }
}

fn calls(turn: &Turn) -> impl Iterator<Item = &ToolCall> {
    turn.steps.iter().flat_map(|step| match &step.step {
        Some(Step::Inference(inference)) => inference.message.iter().flat_map(|message| message.tool_calls()).collect::<Vec<_>>(),
        Some(Step::Tool(tool)) => tool.call.iter().collect(),
        _ => Vec::new(),
    })
}

fn results(turn: &Turn) -> impl Iterator<Item = &ToolResult> {
    let steps = turn.steps.iter().filter_map(|step| match &step.step {
        Some(Step::Tool(tool)) => tool.result.as_ref(),
        _ => None,
    });
    steps.chain(turn.input.iter().flat_map(|message| message.tool_results()))
}

#[cfg(test)]
mod tests {
    use llama_stack_proto::v1::{InferenceStep, RunShieldResponse, Step as TurnStep, ToolStep, Violation};

    use super::*;

    fn shield(stage: ShieldStage, call_id: &str, sha: &str) -> ShieldStep {
        let (call_id, judged_sha256) = (call_id.to_owned(), sha.to_owned());
        ShieldStep { stage: stage.into(), call_id, judged_sha256, verdict: Some(RunShieldResponse::default()), ..ShieldStep::default() }
    }

    fn turn() -> Turn {
        let call = ToolCall::new("c1", "look", "{}");
        let asks = Message::new(Role::Assistant, vec![Part::text("let me see"), call.clone().into()]);
        let steps = [
            Step::Shield(ShieldStep::default()),
            Step::Inference(InferenceStep { message: Some(asks), ..InferenceStep::default() }),
            Step::Shield(ShieldStep::default()),
            Step::Tool(ToolStep { result: Some(ToolResult::text(&call, "a cat", false)), call: Some(call), ..ToolStep::default() }),
        ];
        let steps = steps.into_iter().map(|step| TurnStep { step: Some(step), ..TurnStep::default() }).collect();
        Turn { input: vec![Message::system("be nice"), Message::user("one"), Message::user("two")], steps, ..Turn::default() }
    }

    fn found(at: usize, step: &ShieldStep) -> Option<(String, Option<usize>, bool)> {
        let texts = |message: &Message| message.parts.iter().filter_map(words).collect::<Vec<_>>().join("|");
        judged(&turn(), at, step).map(|judged| (texts(&judged.message), judged.before, judged.exact))
    }

    #[test]
    fn each_stage_finds_its_text() {
        assert_eq!(found(0, &shield(ShieldStage::Input, "", "")), Some(("one|two".into(), None, false)));
        assert_eq!(found(2, &shield(ShieldStage::Output, "", "")), Some(("let me see".into(), Some(1), false)));
        assert_eq!(found(4, &shield(ShieldStage::ToolResult, "c1", "")), Some(("a cat".into(), Some(4), false)));
        let call = judged(&turn(), 2, &shield(ShieldStage::ToolArguments, "c1", "")).unwrap();
        assert_eq!(call.message.tool_calls().next().unwrap().name, "look");
        assert_eq!(said(&turn(), Some(4)).len(), 5);
    }

    #[test]
    fn a_fingerprint_finds_its_piece_and_no_other() {
        let of = |text: &str| fingerprint(&[Part::text(text)]);
        assert_eq!(found(0, &shield(ShieldStage::Input, "", &of("two"))), Some(("two".into(), None, true)));
        assert_eq!(found(0, &shield(ShieldStage::Input, "", &of("something that is gone"))), None);
    }

    #[test]
    fn an_answer_that_did_not_pass_is_not_guessed() {
        let violation = Some(Violation::default());
        let verdict = Some(RunShieldResponse { violation, ..RunShieldResponse::default() });
        assert_eq!(found(2, &ShieldStep { verdict, ..shield(ShieldStage::Output, "", "") }), None);
    }
}
