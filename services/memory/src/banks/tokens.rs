//! How long a passage is for the model that will embed it, in that model's own tokens.
//!
//! Passages are weighed often and while nobody can be asked. So the model's tokenizer reads the document once before, and what
//! is kept is how many tokens each word has: tokenizers cut at white space first, so a passage has the tokens of its words.

use std::collections::HashMap;

use llama_stack_core::{Context, Inference};
use llama_stack_documents::{CountTokens, Estimate};
use llama_stack_proto::v1::TokenizeRequest;

/// Of one request.
const PIECE: usize = 1 << 18;
/// Beyond this the words that come have mostly come before.
const READ: usize = 8 << 20;
/// What a model puts around a text.
const AROUND: usize = 2;

/// Counts by words, and by estimate what it does not know.
pub(super) struct Tokens {
    words: HashMap<String, usize>,
    window: Option<usize>,
}

impl Tokens {
    pub(super) fn estimated(window: Option<usize>) -> Self {
        Self { words: HashMap::new(), window }
    }

    /// Those of `text`, by the model's tokenizer; by estimate where its provider does not tell where tokens begin. `above` is
    /// how many tokens are embedded with each passage, and take its room.
    pub(super) async fn of(inference: &dyn Inference, cx: &Context, model: &str, text: &str, above: usize, window: Option<usize>) -> Self {
        let window = window.map(|window| window.saturating_sub(AROUND + above).max(window / 2));
        let mut words = HashMap::new();
        for piece in pieces(text) {
            let request = TokenizeRequest { model: model.into(), text: piece.into(), ..TokenizeRequest::default() };
            match inference.tokenize(cx, request).await {
                Ok(answer) if answer.starts.len() == answer.tokens.len() => learn(&mut words, piece, &answer.starts),
                Ok(_) => return Self::estimated(window),
                Err(error) => {
                    tracing::debug!(model, error = error.message(), "passages are measured by estimate");
                    return Self::estimated(window);
                }
            }
        }
        Self { words, window }
    }
}

impl CountTokens for Tokens {
    fn count(&self, text: &str) -> usize {
        if self.words.is_empty() {
            return Estimate.count(text);
        }
        text.split_whitespace().map(|word| self.words.get(word).copied().unwrap_or_else(|| Estimate.count(word))).sum()
    }

    fn window(&self) -> Option<usize> {
        self.window
    }
}

/// The beginning of the text, cut at white space.
fn pieces(text: &str) -> Vec<&str> {
    let (mut pieces, mut rest) = (Vec::new(), &text[..text.floor_char_boundary(READ)]);
    while rest.len() > PIECE {
        let most = rest.floor_char_boundary(PIECE);
        let end = rest[..most].rfind(char::is_whitespace).filter(|end| *end > 0).unwrap_or(most);
        pieces.push(&rest[..end]);
        rest = &rest[end..];
    }
    pieces.push(rest);
    pieces
}

/// `starts`: the byte at which each token begins, in order. The longest of what a word was found to have counts.
fn learn(words: &mut HashMap<String, usize>, text: &str, starts: &[u32]) {
    let mut starts = starts.iter().map(|start| *start as usize).peekable();
    for word in text.split_whitespace() {
        let end = word.as_ptr() as usize - text.as_ptr() as usize + word.len();
        let mut count = 0;
        while starts.next_if(|start| *start < end).is_some() {
            count += 1;
        }
        match words.get_mut(word) {
            Some(known) => *known = count.max(*known),
            None => {
                words.insert(word.to_owned(), count.max(1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_has_the_tokens_that_begin_in_it() {
        let mut words = HashMap::new();
        // un|believ|able cats, purr|ing
        learn(&mut words, "unbelievable cats, purring", &[0, 2, 8, 13, 17, 19, 23]);
        let tokens = Tokens { words, window: None };
        assert_eq!(["unbelievable", "cats,", "purring"].map(|word| tokens.count(word)), [3, 2, 2]);
        assert_eq!(tokens.count(" purring\n unbelievable"), 5);
        // What it has not read is estimated.
        assert_eq!(tokens.count("dog"), Estimate.count("dog"));
    }

    #[test]
    fn a_long_text_is_read_in_pieces_that_tear_no_word() {
        let text = "zebra ".repeat(PIECE / 4);
        let pieces = pieces(&text);
        assert!(pieces.len() > 1 && pieces.iter().all(|piece| piece.len() <= PIECE));
        assert!(pieces.iter().flat_map(|piece| piece.split_whitespace()).all(|word| word == "zebra"));
        assert_eq!(pieces.concat(), text);
        assert_eq!(super::pieces(&"ß".repeat(READ)).concat().len(), READ);
    }
}
