//! Taking parts out of a turn. Pure.

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
                Some(())
            }
            _ => None,
        },
    }
}

fn remove(message: &mut Message, part: usize) -> Option<()> {
    let part = message.parts.get_mut(part).filter(|part| part.content.is_some())?;
    *part = Part::default();
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

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
