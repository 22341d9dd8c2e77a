//! Taking parts out of a turn. Pure.

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{Message, Part, PartPlace, Role, Turn, part_place::Place, step::Step};

/// Stands where a result was that a call still needs.
const REMOVED: &str = "(removed)";

/// Takes these parts out, all or none. A message that has lost all its parts goes as well; a tool's result is replaced,
/// because its call still needs one.
///
/// # Errors
/// `NotFound` for a part that is not there.
pub(crate) fn parts(turn: &mut Turn, places: &[PartPlace]) -> Result<()> {
    let mut left = turn.clone();
    let mut places: Vec<&PartPlace> = places.iter().collect();
    // From the back, so that the places before stay what they are.
    places.sort_by_key(|place| std::cmp::Reverse(place.part));
    for place in places {
        take(&mut left, place).ok_or_else(|| Error::not_found(format!("turn {:?} has no such part", turn.id)).with_field("parts"))?;
    }
    left.input.retain(|message| !message.parts.is_empty());
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
    (part < message.parts.len()).then(|| drop(message.parts.remove(part)))
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
        assert_eq!(turn.input, [message(&["b"])]);
        assert!(parts(&mut turn, &[place(0, 0), place(0, 1)]).is_err());
        assert_eq!(turn.input, [message(&["b"])], "all or none");
    }
}
