//! Taking parts out of a turn. Pure.

use std::collections::HashSet;

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{Message, Part, PartPlace, Role, Turn, part_place::Place, step::Step};

/// Stands where a result was that a call still needs.
const REMOVED: &str = "(removed)";

/// Takes these parts out, all or none. An empty part is left in each place, so that the others stay where they are; no
/// model reads it. A tool's result is replaced, because its call still needs one.
///
/// # Errors
/// `NotFound` for a part that is not there.
pub(crate) fn parts(turn: &mut Turn, places: &[PartPlace]) -> Result<()> {
    let mut left = turn.clone();
    for place in places {
        take(&mut left, place).ok_or_else(|| Error::not_found(format!("turn {:?} has no such part", turn.id)).with_field("parts"))?;
    }
    *turn = left;
    forget_quotes(turn);
    Ok(())
}

fn take(turn: &mut Turn, place: &PartPlace) -> Option<()> {
    let part = place.part as usize;
    match place.place? {
        Place::Input(index) => remove(turn.input.get_mut(index as usize)?, part),
        Place::Step(index) => match turn.steps.get_mut(index as usize)?.step.as_mut()? {
            Step::Inference(inference) => {
                // What the pieces and probabilities tell of is gone.
                inference.pieces.clear();
                inference.piece_logprobs.clear();
                inference.logprobs.clear();
                remove(inference.message.as_mut()?, part)
            }
            Step::Tool(tool) if part == 0 => {
                let result = tool.result.as_mut()?;
                result.parts = vec![Part::text(REMOVED).with_provenance(Role::System.provenance())];
                result.search_results.iter_mut().for_each(|found| found.text.clear());
                Some(())
            }
            _ => None,
        },
    }
}

/// A passage that was taken out is not quoted any more.
fn forget_quotes(turn: &mut Turn) {
    let results = turn.steps.iter().filter_map(|step| match &step.step {
        Some(Step::Tool(tool)) => tool.result.as_ref(),
        _ => None,
    });
    let gone = results.flat_map(|result| &result.search_results).filter(|found| found.text.is_empty());
    let gone: HashSet<(String, String)> = gone.map(|found| (found.bank_id.clone(), found.document_id.clone())).collect();
    if gone.is_empty() {
        return;
    }
    let messages = turn.steps.iter_mut().filter_map(|step| match &mut step.step {
        Some(Step::Inference(inference)) => inference.message.as_mut(),
        _ => None,
    });
    for citation in messages.flat_map(|message| &mut message.parts).flat_map(|part| &mut part.citations) {
        if gone.contains(&(citation.bank_id.clone(), citation.document_id.clone())) {
            citation.quote.clear();
        }
    }
}

fn remove(message: &mut Message, part: usize) -> Option<()> {
    let part = message.parts.get_mut(part).filter(|part| part.content.is_some())?;
    *part = Part::default();
    Some(())
}

#[cfg(test)]
mod tests {
    use llama_stack_proto::v1::{Citation, InferenceStep, SearchResult, ToolResult, ToolStep};

    use super::*;

    #[test]
    fn a_passage_that_was_taken_out_is_not_quoted_any_more() {
        let found = SearchResult { bank_id: "b".into(), document_id: "d".into(), text: "secret".into(), ..SearchResult::default() };
        let result = ToolResult { parts: vec![Part::text("[1] secret")], search_results: vec![found], ..ToolResult::default() };
        let citation = Citation { bank_id: "b".into(), document_id: "d".into(), quote: "secret".into(), ..Citation::default() };
        let said = Message::new(Role::Assistant, vec![Part { citations: vec![citation], ..Part::text("so [1]") }]);
        let kinds = [
            Step::Tool(ToolStep { result: Some(result), ..ToolStep::default() }),
            Step::Inference(InferenceStep { message: Some(said), ..InferenceStep::default() }),
        ];
        let step = |kind| llama_stack_proto::v1::Step { step: Some(kind), ..Default::default() };
        let mut turn = Turn { steps: kinds.map(step).into(), ..Turn::default() };
        parts(&mut turn, &[PartPlace { place: Some(Place::Step(0)), part: 0 }]).unwrap();
        assert!(!format!("{turn:?}").contains("secret"));
    }

    #[test]
    fn parts_are_taken_by_the_places_they_had() {
        let message = |words: &[&str]| Message::new(Role::User, words.iter().map(|word| Part::text(*word)).collect());
        let mut turn = Turn { input: vec![message(&["a", "b", "c"]), message(&["d"])], ..Turn::default() };
        let place = |input, part| PartPlace { place: Some(Place::Input(input)), part };
        parts(&mut turn, &[place(0, 0), place(1, 0), place(0, 2)]).unwrap();
        let left: Vec<Message> = crate::conversation::messages(&turn);
        assert_eq!((left, turn.input[0].parts[1].as_text()), (vec![message(&["b"])], Some("b")));
        assert!(parts(&mut turn, &[place(0, 1), place(0, 0)]).is_err(), "it is gone already");
        assert_eq!(turn.input[0].parts[1].as_text(), Some("b"), "all or none");
    }
}
