//! What shields judge of a turn, piece by piece, and what stands there after their word. Pure.
//!
//! A piece is judged by itself, so that it is the same piece in every turn that holds it again: a message of the input, or
//! one result of a tool. Its fingerprint is what the journal, and the caches of shields, know it by.

use llama_stack_proto::v1::{
    Message, Part, Role, ShieldStage, ShieldStep, ToolCall, ToolResult, Turn, TurnEvent, part::Content, step::Step, turn_event::Event,
    violation::Level,
};

use crate::{conversation::Shields, hash};

/// Stands where a shield let a tool's text not pass.
const WITHHELD: &str = "a shield did not let this result through";
/// Stands in the history where a whole input was refused.
const REFUSED_INPUT: &str = "(a shield did not let this message through)";
/// What an end user is told where a shield could not judge.
pub(crate) const UNJUDGED: &str = "This could not be checked, so it was not let through.";

/// A piece of a turn, with the shields that are to judge it.
pub(crate) struct Piece {
    place: Place,
    pub(crate) stage: ShieldStage,
    pub(crate) shields: Vec<String>,
    /// As shields read it.
    pub(crate) message: Message,
    /// The call that it answers; empty where there is none.
    pub(crate) call_id: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// A user's message, by its index in the input.
    Message(usize),
    /// What such a message quotes of tools and documents.
    Quoted(usize),
    /// A result in the input: the message, the part.
    Result(usize, usize),
    /// The result that a client brought for a step.
    Step(usize),
}

impl Piece {
    pub(crate) fn hash(&self) -> String {
        fingerprint(&self.message.parts)
    }

    /// How many messages of the input come before it; `None`: all that the turn has said by then.
    pub(crate) fn after(&self) -> Option<usize> {
        match self.place {
            Place::Message(at) | Place::Quoted(at) | Place::Result(at, _) => Some(at),
            Place::Step(_) => None,
        }
    }
}

/// All that came from outside in a turn's input, and what clients brought for its calls.
pub(crate) fn pieces(turn: &Turn, shields: &Shields) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut add = |place, stage, shields: Vec<String>, parts: Vec<Part>, call_id: &str| {
        let parts: Vec<Part> = parts.into_iter().filter(|part| part.content.is_some()).collect();
        if !shields.is_empty() && !parts.is_empty() {
            pieces.push(Piece { place, stage, shields, message: Message::new(Role::User, parts), call_id: call_id.to_owned() });
        }
    };
    for (at, message) in turn.input.iter().enumerate() {
        match message.role() {
            Role::User => {
                add(Place::Message(at), ShieldStage::Input, shields.input.clone(), message.parts.clone(), "");
                let quoted: Vec<Part> = message.parts.iter().filter(|part| is_quoted(part)).cloned().collect();
                let stage = stage_of(&quoted);
                // Those that judge the whole message have read it.
                let others = without(shields.of_results(stage), &shields.input);
                add(Place::Quoted(at), stage, others, quoted, "");
            }
            Role::Tool => {
                for (index, part) in message.parts.iter().enumerate() {
                    let Some(Content::ToolResult(result)) = &part.content else { continue };
                    let (stage, parts) = (stage_of_result(result), judged_parts(result));
                    let own = shields.of_results(stage);
                    let input = without(shields.input.clone(), &own);
                    add(Place::Result(at, index), ShieldStage::Input, input, parts.clone(), &result.call_id);
                    add(Place::Result(at, index), stage, own, parts, &result.call_id);
                }
            }
            Role::System | Role::Assistant | Role::Unspecified => {}
        }
    }
    for (at, step) in turn.steps.iter().enumerate() {
        if let Some(Step::Tool(tool)) = &step.step
            && let Some(result) = tool.result.as_ref().filter(|_| tool.client)
        {
            let stage = stage_of_result(result);
            add(Place::Step(at), stage, shields.of_results(stage), judged_parts(result), &result.call_id);
        }
    }
    pieces
}

/// The steps that are still to be taken with these pieces: each shield judges each text once.
pub(crate) fn due(turn: &Turn, pieces: &[Piece]) -> Vec<ShieldStep> {
    let mut due: Vec<ShieldStep> = Vec::new();
    for piece in pieces {
        let hash = piece.hash();
        for id in &piece.shields {
            let planned = due.iter().any(|step| step.shield_id == *id && step.judged_sha256 == hash && step.stage() == piece.stage);
            if !planned && !was_judged(turn, id, piece.stage, &hash) {
                due.push(intent(id, piece.stage, &piece.call_id, &hash));
            }
        }
    }
    due
}

pub(crate) fn intent(id: &str, stage: ShieldStage, call_id: &str, hash: &str) -> ShieldStep {
    let (shield_id, call_id, judged_sha256) = (id.to_owned(), call_id.to_owned(), hash.to_owned());
    ShieldStep { shield_id, stage: stage.into(), call_id, judged_sha256, verdict: None, error: None }
}

/// Whether the shield has judged this text at this stage, or the one that it was redacted from.
fn was_judged(turn: &Turn, id: &str, stage: ShieldStage, hash: &str) -> bool {
    let of_stage = || steps(turn).filter(move |step| step.stage() == stage);
    let made_from = of_stage().filter(|step| made(step).is_some_and(|made| made == hash)).map(|step| step.judged_sha256.as_str());
    let texts: Vec<&str> = made_from.chain([hash]).collect();
    let judged = |step: &ShieldStep| step.shield_id == id && (step.verdict.is_some() || step.error.is_some());
    of_stage().any(|step| judged(step) && texts.contains(&step.judged_sha256.as_str()))
}

/// The fingerprint of what a shield put in place of what it judged.
fn made(step: &ShieldStep) -> Option<String> {
    step.verdict.as_ref()?.redacted.as_ref().map(|redacted| fingerprint(&redacted.parts))
}

pub(crate) fn steps(turn: &Turn) -> impl Iterator<Item = &ShieldStep> {
    turn.steps.iter().filter_map(|step| match &step.step {
        Some(Step::Shield(shield)) => Some(shield),
        _ => None,
    })
}

/// What to tell of a text that this verdict does not let pass; `None` where it does. A warning does.
pub(crate) fn forbids(shield: &ShieldStep) -> Option<&str> {
    match (&shield.verdict, &shield.error) {
        (Some(verdict), _) => {
            let violation = verdict.violation.as_ref()?;
            (violation.level() != Level::Warn).then_some(violation.user_message.as_str())
        }
        (None, Some(_)) => Some(UNJUDGED),
        // It did not come to a verdict: the step was cut off.
        (None, None) => None,
    }
}

/// The words of the shield that lets the input not pass.
pub(crate) fn refusal(turn: &Turn) -> Option<&str> {
    steps(turn).filter(|step| step.stage() == ShieldStage::Input).find_map(forbids)
}

/// Why a call of the inference at `at` may not run: the words of a shield that judged its arguments.
pub(crate) fn shut<'a>(turn: &'a Turn, at: Option<usize>, call: &ToolCall) -> Option<&'a str> {
    let after = turn.steps.iter().skip(at? + 1).take_while(|step| !matches!(step.step, Some(Step::Inference(_))));
    let mut verdicts = after.filter_map(|step| match &step.step {
        Some(Step::Shield(shield)) if shield.stage() == ShieldStage::ToolArguments && shield.call_id == call.id => Some(shield),
        _ => None,
    });
    verdicts.find_map(forbids)
}

/// Whether this verdict puts a notice in the place of what it judged: what tools and documents say is left out, where a
/// user's own words end the turn.
pub(crate) fn withholds(shield: &ShieldStep) -> bool {
    matches!(shield.stage(), ShieldStage::ToolResult | ShieldStage::Retrieved) && forbids(shield).is_some()
}

/// Puts what a verdict leaves of a piece of the turn in that piece's place, wherever it stands.
pub(crate) fn apply(turn: &mut Turn, shield: &ShieldStep) {
    let redacted = shield.verdict.as_ref().and_then(|verdict| verdict.redacted.as_ref());
    let withheld = withholds(shield);
    if shield.judged_sha256.is_empty() || redacted.is_none() && !withheld {
        return;
    }
    // The notice goes first: what does not pass is not redacted.
    let redacted = redacted.filter(|_| !withheld);
    for message in &mut turn.input {
        match message.role() {
            Role::User => {
                if let Some(redacted) = redacted.filter(|_| fingerprint(&there(&message.parts)) == shield.judged_sha256) {
                    message.parts = redacted.parts.clone();
                    continue;
                }
                let quoted: Vec<Part> = message.parts.iter().filter(|part| is_quoted(part)).cloned().collect();
                if !quoted.is_empty() && fingerprint(&quoted) == shield.judged_sha256 {
                    let parts = redacted.map_or_else(|| notice(&outermost(&quoted)), |redacted| redacted.parts.clone());
                    let place = message.parts.iter().position(is_quoted).unwrap_or_default();
                    message.parts.retain(|part| !is_quoted(part));
                    message.parts.splice(place..place, parts);
                }
            }
            Role::Tool => {
                for part in &mut message.parts {
                    if let Some(Content::ToolResult(result)) = &mut part.content {
                        apply_to(result, shield, redacted);
                    }
                }
            }
            Role::System | Role::Assistant | Role::Unspecified => {}
        }
    }
    for step in &mut turn.steps {
        if let Some(Step::Tool(tool)) = &mut step.step
            && tool.client
            && let Some(result) = &mut tool.result
        {
            apply_to(result, shield, redacted);
        }
    }
}

/// The same, where the journal holds the piece: in the turn as it began, and in what a client brought to it.
pub(crate) fn apply_to_event(event: &mut TurnEvent, shield: &ShieldStep) {
    match &mut event.event {
        Some(Event::Created(turn)) => apply(turn, shield),
        Some(Event::Resumed(results)) => {
            let redacted = shield.verdict.as_ref().and_then(|verdict| verdict.redacted.as_ref());
            let redacted = redacted.filter(|_| forbids(shield).is_none());
            if redacted.is_some() || withholds(shield) {
                results.results.iter_mut().for_each(|result| apply_to(result, shield, redacted));
            }
        }
        _ => {}
    }
}

fn apply_to(result: &mut ToolResult, shield: &ShieldStep, redacted: Option<&Message>) {
    if fingerprint(&judged_parts(result)) == shield.judged_sha256 {
        match redacted {
            Some(redacted) => put(result, redacted.parts.clone()),
            None => withhold(result),
        }
    }
}

/// What a shield left of a result, in its place.
pub(crate) fn put(result: &mut ToolResult, mut parts: Vec<Part>) {
    // What was judged with it, so that nothing slips by: see `judged_parts`.
    parts.truncate(result.parts.len().max(1));
    result.parts = parts;
    // They say the same in other words.
    result.search_results.iter_mut().for_each(|found| {
        found.text.clear();
        found.attributes.clear();
    });
}

/// Puts a notice in the place of a result.
pub(crate) fn withhold(result: &mut ToolResult) {
    result.parts = notice(&format!("tool:{}", result.name));
    result.search_results.clear();
    result.is_error = true;
}

fn notice(label: &str) -> Vec<Part> {
    vec![Part::text(WITHHELD).with_provenance(label)]
}

/// The input of a turn that was refused, as a history may tell of it.
pub(crate) fn refused_input(input: &[Message]) -> Vec<Message> {
    let mut told = input.to_vec();
    for message in &mut told {
        match message.role() {
            Role::User => message.parts = vec![Part::text(REFUSED_INPUT).with_provenance(Role::User.provenance())],
            Role::Tool => message.parts.iter_mut().for_each(|part| {
                if let Some(Content::ToolResult(result)) = &mut part.content {
                    withhold(result);
                }
            }),
            Role::System | Role::Assistant | Role::Unspecified => {}
        }
    }
    told
}

/// The parts of a result that are judged: its own, and what a search found that they do not say.
pub(crate) fn judged_parts(result: &ToolResult) -> Vec<Part> {
    let mut parts = there(&result.parts);
    let own = result.joined_text();
    for found in result.search_results.iter().filter(|found| !found.text.is_empty() && !own.contains(&found.text)) {
        parts.push(Part::text(found.text.clone()).with_provenance(format!("retrieved:{}/{}", found.bank_id, found.document_id)));
    }
    parts
}

pub(crate) fn stage_of_result(result: &ToolResult) -> ShieldStage {
    if result.search_results.is_empty() { stage_of(&result.parts) } else { ShieldStage::Retrieved }
}

fn stage_of(parts: &[Part]) -> ShieldStage {
    let retrieved = parts.iter().any(|part| part.provenance.starts_with("retrieved:"));
    if retrieved { ShieldStage::Retrieved } else { ShieldStage::ToolResult }
}

/// Whether a user's message only quotes this part.
fn is_quoted(part: &Part) -> bool {
    part.content.is_some() && (part.provenance.starts_with("retrieved:") || part.provenance.starts_with("tool:"))
}

fn there(parts: &[Part]) -> Vec<Part> {
    parts.iter().filter(|part| part.content.is_some()).cloned().collect()
}

fn without(ids: Vec<String>, others: &[String]) -> Vec<String> {
    ids.into_iter().filter(|id| !others.contains(id)).collect()
}

/// What is put in the place of `judged`, labelled as that was; `None` for an answer that cannot be used: no parts, empty
/// ones, or other things than text and images.
pub(crate) fn redaction(judged: &[Part], by: &Message) -> Option<Vec<Part>> {
    let usable = |part: &Part| matches!(part.content, Some(Content::Text(_) | Content::Image(_)));
    if by.parts.is_empty() || !by.parts.iter().all(usable) {
        return None;
    }
    let same = by.parts.len() == judged.len();
    let label = |index: usize| if same { judged[index].provenance.clone() } else { outermost(judged) };
    // Whatever a shield says of where its text comes from, it comes from where the judged text came from.
    Some(by.parts.iter().enumerate().map(|(index, part)| Part { provenance: label(index), ..part.clone() }).collect())
}

/// The label that is trusted least.
fn outermost(parts: &[Part]) -> String {
    let labels = || parts.iter().map(|part| part.provenance.as_str());
    let found = labels().find(|label| label.starts_with("retrieved:")).or_else(|| labels().find(|label| label.starts_with("tool:")));
    found.or_else(|| labels().next()).unwrap_or_default().to_owned()
}

/// SHA-256 of what these parts say, in hex, as `ShieldStep.judged_sha256` has it: equal for equal texts, wherever they stand.
pub fn fingerprint(parts: &[Part]) -> String {
    let mut said: Vec<String> = Vec::new();
    for part in parts {
        match &part.content {
            Some(Content::Text(text) | Content::Refusal(text) | Content::Reasoning(text)) => said.push(text.clone()),
            Some(Content::Image(image)) => said.push(hex::encode(prost::Message::encode_to_vec(image))),
            Some(Content::ToolCall(call)) => said.extend([call.name.clone(), call.arguments.clone()]),
            Some(Content::ToolResult(result)) => said.push(fingerprint(&result.parts)),
            None => {}
        }
    }
    hash::of(&said.iter().map(String::as_str).collect::<Vec<_>>())
}
