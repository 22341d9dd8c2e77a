//! Texts → token ids, with the model's length enforced.

use llama_stack_core::{Error, Result};
use rayon::prelude::*;
use tokenizers::{EncodeInput, Tokenizer, TruncationParams};
use tokio_util::sync::CancellationToken;

/// A text as a model reads it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Read {
    pub(crate) ids: Vec<u32>,
    /// 0 for the first text, 1 for the second of a pair.
    pub(crate) types: Vec<u32>,
    /// The end was cut off.
    pub(crate) cut: bool,
}

/// What is to be read.
pub(crate) enum Input {
    Text(String),
    Pair(String, String),
    /// Tokens, with those that the tokenizer puts around a text.
    Tokens(Vec<u32>),
}

/// So many inputs are read by several threads.
const WORTH_THREADS: usize = 16;

/// A tokenizer and the length that its model takes.
pub(crate) struct Reader {
    whole: Tokenizer,
    /// Cuts at `max_tokens` and keeps the tokens around the text, which a cut afterwards would lose.
    cutting: Tokenizer,
    max_tokens: usize,
    vocabulary: usize,
}

impl Reader {
    /// `vocabulary` is the model's.
    ///
    /// # Errors
    /// `InvalidArgument` for a tokenizer that knows more tokens than its model, or a length that leaves no room for text.
    pub(crate) fn new(mut tokenizer: Tokenizer, max_tokens: usize, vocabulary: usize) -> Result<Self> {
        let known = tokenizer.get_vocab_size(true);
        if known > vocabulary {
            let message = format!("tokenizer.json has {known} tokens and config.json {vocabulary}: they do not belong together");
            return Err(Error::invalid("files", message));
        }
        // Published files pad and cut by themselves, some at less than the model takes.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(unusable)?;
        let mut cutting = tokenizer.clone();
        cutting.with_truncation(Some(TruncationParams { max_length: max_tokens, ..TruncationParams::default() })).map_err(unusable)?;
        Ok(Self { whole: tokenizer, cutting, max_tokens, vocabulary })
    }

    pub(crate) fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// The tokens, and the byte of the text at which each begins.
    pub(crate) fn tokenize(&self, text: &str, special: bool) -> Result<(Vec<u32>, Vec<u32>)> {
        let encoding = self.whole.encode(text, special).map_err(unreadable)?;
        let starts = encoding.get_offsets().iter().map(|(start, _)| u32::try_from(*start).unwrap_or(u32::MAX)).collect();
        Ok((encoding.get_ids().to_vec(), starts))
    }

    /// Reads all inputs, or none.
    ///
    /// # Errors
    /// `InvalidArgument`, naming the input: an empty one, a token that the model does not have, or, unless `cut`, one that
    /// is too long (`context_length_exceeded`, with both numbers) · `Cancelled`.
    pub(crate) fn read(&self, inputs: Vec<Input>, cut: bool, cancelled: &CancellationToken) -> Result<Vec<Read>> {
        let read = |(at, input): (usize, Input)| {
            if cancelled.is_cancelled() {
                return Err(Error::new(llama_stack_core::Code::Cancelled, "the caller went away"));
            }
            self.read_one(input, cut).map_err(|error| {
                let field = format!("inputs[{at}]{}", error.field().unwrap_or_default());
                error.context(&field).with_field(field)
            })
        };
        if inputs.len() < WORTH_THREADS {
            return inputs.into_iter().enumerate().map(read).collect();
        }
        // All of them first, so that of several errors the first is told.
        let read: Vec<Result<Read>> = inputs.into_par_iter().enumerate().map(read).collect();
        read.into_iter().collect()
    }

    /// Errors have the path below the input as their field.
    fn read_one(&self, input: Input, cut: bool) -> Result<Read> {
        let text: EncodeInput<'_> = match input {
            Input::Tokens(ids) => return self.read_tokens(ids, cut),
            Input::Text(text) if text.is_empty() => return Err(Error::invalid(".text", "the text is empty")),
            Input::Pair(text, pair) if text.is_empty() || pair.is_empty() => {
                return Err(Error::invalid(if text.is_empty() { ".text" } else { ".pair" }, "the text is empty"));
            }
            Input::Text(text) => text.into(),
            Input::Pair(text, pair) => (text, pair).into(),
        };
        let whole = self.whole.encode_fast(text.clone(), true).map_err(unreadable)?;
        let fits = whole.len() <= self.max_tokens;
        if !fits && !cut {
            return Err(self.too_long(whole.len()));
        }
        let encoding = if fits { whole } else { self.cutting.encode_fast(text, true).map_err(unreadable)? };
        Ok(Read { ids: encoding.get_ids().to_vec(), types: encoding.get_type_ids().to_vec(), cut: !fits })
    }

    fn read_tokens(&self, mut ids: Vec<u32>, cut: bool) -> Result<Read> {
        if ids.is_empty() {
            return Err(Error::invalid(".tokens", "there are no tokens"));
        }
        if let Some(unknown) = ids.iter().find(|&&id| id as usize >= self.vocabulary) {
            return Err(Error::invalid(".tokens", format!("{unknown} is no token of this model, which has {}", self.vocabulary)));
        }
        let fits = ids.len() <= self.max_tokens;
        if !fits && !cut {
            return Err(self.too_long(ids.len()));
        }
        ids.truncate(self.max_tokens);
        Ok(Read { types: vec![0; ids.len()], ids, cut: !fits })
    }

    fn too_long(&self, tokens: usize) -> Error {
        let message = format!(
            "the text is {tokens} tokens, and this model reads at most {}: shorten it, or ask for truncation (over HTTP: truncate)",
            self.max_tokens
        );
        Error::new(llama_stack_core::Code::InvalidArgument, message).with_reason("context_length_exceeded")
    }
}

fn unusable(cause: tokenizers::Error) -> Error {
    Error::invalid("options.max_tokens", format!("max_tokens cannot be set for this tokenizer: {cause}"))
}

fn unreadable(cause: tokenizers::Error) -> Error {
    Error::internal("the text could not be split into tokens").with_source(cause)
}
