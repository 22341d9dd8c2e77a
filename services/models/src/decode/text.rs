//! Tokens as bytes, and bytes as text that never holds a part of a character.

use llguidance::toktrie::{TokEnv, TokTrie};

use llama_stack_proto::v1::{TokenLogprob, token_logprob::TopLogprob};

use super::logprobs::Scored;

/// A model's tokens.
#[derive(Clone)]
pub struct Vocabulary {
    /// What each of them writes; none of a model that only reads.
    env: Option<TokEnv>,
    size: usize,
}

impl Vocabulary {
    pub fn new(env: TokEnv) -> Self {
        Self { size: env.tok_trie().vocab_size(), env: Some(env) }
    }

    /// Of a model that writes nothing: all that is asked of it is how many tokens there are.
    pub fn counted(size: usize) -> Self {
        Self { env: None, size }
    }

    pub fn size(&self) -> usize {
        self.size
    }

    /// What a token writes. `control` includes the names of control tokens, `<|like_this|>`; other special tokens,
    /// such as `<tool_call>`, are part of an answer and always written.
    pub fn bytes(&self, token: u32, control: bool) -> &[u8] {
        let Some(env) = &self.env else { return &[] };
        match env.tok_trie().token(token) {
            [TokTrie::SPECIAL_TOKEN_MARKER, name @ ..] if control || !is_control(name) => name,
            [TokTrie::SPECIAL_TOKEN_MARKER, ..] => &[],
            bytes => bytes,
        }
    }

    /// The names of all special tokens.
    pub fn special(&self) -> Vec<String> {
        let special = self.env.iter().flat_map(|env| env.tok_trie().get_special_tokens());
        special.map(|token| lossy(self.bytes(token, true))).collect()
    }

    /// What tokens write, control tokens included.
    pub fn text(&self, tokens: &[u32]) -> String {
        lossy(&tokens.iter().flat_map(|token| self.bytes(*token, true)).copied().collect::<Vec<u8>>())
    }

    pub fn logprob(&self, token: u32, scored: &Scored) -> TokenLogprob {
        let top = scored.top.iter().map(|(id, logprob)| {
            let bytes = self.bytes(*id, true);
            TopLogprob { token: lossy(bytes), logprob: *logprob, bytes: bytes.to_vec(), token_id: *id }
        });
        let bytes = self.bytes(token, true);
        TokenLogprob { token: lossy(bytes), logprob: scored.logprob, bytes: bytes.to_vec(), top: top.collect(), token_id: token }
    }
}

fn is_control(name: &[u8]) -> bool {
    name.starts_with(b"<|") || matches!(name, b"<s>" | b"</s>" | b"<unk>" | b"<pad>" | b"<bos>" | b"<eos>")
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Gathers bytes until they are whole characters.
#[derive(Default)]
pub struct Utf8 {
    pending: Vec<u8>,
}

impl Utf8 {
    /// The whole characters that there are now. Bytes that can never be one become U+FFFD.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let mut text = String::new();
        let mut taken = 0;
        for chunk in self.pending.utf8_chunks() {
            text.push_str(chunk.valid());
            taken += chunk.valid().len();
            let invalid = chunk.invalid();
            let last = taken + invalid.len() == self.pending.len();
            // An unfinished character at the end waits for its rest; it has three bytes at most.
            if invalid.is_empty() || (last && is_beginning(invalid)) {
                break;
            }
            text.push(char::REPLACEMENT_CHARACTER);
            taken += invalid.len();
        }
        self.pending.drain(..taken);
        text
    }

    /// What is left when no more bytes come.
    pub fn finish(&mut self) -> String {
        lossy(&std::mem::take(&mut self.pending))
    }
}

/// Whether more bytes could make a character of these.
fn is_beginning(bytes: &[u8]) -> bool {
    matches!(std::str::from_utf8(bytes), Err(error) if error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_come_whole() {
        let mut utf8 = Utf8::default();
        let pieces: Vec<String> = "aé🦙b".as_bytes().iter().map(|byte| utf8.push(&[*byte])).collect();
        assert_eq!(pieces, ["a", "", "é", "", "", "", "🦙", "b"]);
        assert_eq!(utf8.finish(), "");
    }

    #[test]
    fn broken_bytes_do_not_hold_up_what_follows() {
        let mut utf8 = Utf8::default();
        assert_eq!(utf8.push(b"a\xffb"), "a\u{fffd}b");
        assert_eq!(utf8.push("🦙".as_bytes().split_at(2).0), "");
        assert_eq!(utf8.push(b"c"), "\u{fffd}c");
        assert_eq!(utf8.push(&[0xf0, 0x9f]), "");
        assert_eq!(utf8.finish(), "\u{fffd}");
    }

    #[test]
    fn control_tokens_are_told_from_markers_of_an_answer() {
        assert!(is_control(b"<|im_end|>") && is_control(b"</s>"));
        assert!(!is_control(b"<tool_call>") && !is_control(b"<think>"));
    }
}
