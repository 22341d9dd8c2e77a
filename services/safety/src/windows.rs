//! A text of any length, as windows of tokens that a model can read.

use llama_stack_core::{Code, Context, Error, Inference, Result};
use llama_stack_proto::v1::{TokenizeRequest, TokenizeResponse};

/// What one reading of a text may have: a bound on the work that a caller can ask for. About 400 pages.
const MAX_TOKENS: usize = 1 << 18;

/// How a model's windows are cut. Each has in it what the model's tokenizer puts around a text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Windows {
    before: Vec<u32>,
    after: Vec<u32>,
    /// Tokens of the text in a window.
    size: usize,
    /// Tokens from the beginning of a window to that of the next one.
    step: usize,
}

impl Windows {
    /// Windows of `size` tokens of the text, each beginning `step` after the one before.
    ///
    /// # Errors
    /// `FailedPrecondition` where the model's provider does not tell its tokens.
    pub(crate) async fn of_model(inference: &dyn Inference, cx: &Context, model: &str, size: usize, step: usize) -> Result<Self> {
        let bare = tokens(inference, cx, model, "a", false).await?.tokens;
        let whole = tokens(inference, cx, model, "a", true).await?.tokens;
        let at = whole.windows(bare.len().max(1)).position(|part| part == bare).ok_or_else(|| {
            Error::failed_precondition(format!("the tokenizer of model {model:?} reads a text in another way with the tokens around it"))
        })?;
        let (before, after) = (whole[..at].to_vec(), whole[at + bare.len()..].to_vec());
        Ok(Self { before, after, size: size.max(1), step: step.clamp(1, size.max(1)) })
    }

    /// Tokens that stand around a text.
    pub(crate) fn around(&self) -> usize {
        self.before.len() + self.after.len()
    }

    /// As many tokens of the text in a window as fit in `length` with those around it.
    pub(crate) fn within(self, length: usize, overlap: usize) -> Self {
        let size = length.saturating_sub(self.around()).max(1);
        Self { size, step: size.saturating_sub(overlap).max(1), ..self }
    }

    /// Every token is in a window, and so is every run of tokens that is no longer than the overlap. The last window is as long
    /// as the others: a remainder alone would say little.
    pub(crate) fn cut(&self, tokens: &[u32]) -> Vec<Vec<u32>> {
        let window = |at: usize| {
            let end = (at + self.size).min(tokens.len());
            [self.before.as_slice(), &tokens[at..end], &self.after].concat()
        };
        match tokens.len() {
            0 => Vec::new(),
            length if length <= self.size => vec![window(0)],
            length => {
                let last = length - self.size;
                (0..last).step_by(self.step).chain([last]).map(window).collect()
            }
        }
    }
}

/// A text's tokens, without those around it.
///
/// # Errors
/// `TooLarge` for a text that is too long to be judged, with both numbers.
pub(crate) async fn read(inference: &dyn Inference, cx: &Context, model: &str, text: &str) -> Result<TokenizeResponse> {
    let read = tokens(inference, cx, model, text, false).await?;
    if read.tokens.len() > MAX_TOKENS {
        let message = format!("the text has {} tokens, and a shield judges at most {MAX_TOKENS}", read.tokens.len());
        return Err(Error::new(Code::TooLarge, message).with_reason("text_too_long"));
    }
    Ok(read)
}

async fn tokens(inference: &dyn Inference, cx: &Context, model: &str, text: &str, around: bool) -> Result<TokenizeResponse> {
    let request = TokenizeRequest { model: model.into(), text: text.into(), add_special_tokens: around, ..TokenizeRequest::default() };
    let response = inference.tokenize(cx, request).await;
    response.map_err(|error| match error.code() {
        Code::Unimplemented => {
            Error::failed_precondition(format!("model {model:?} cannot be asked for the tokens of a text, which its windows are cut by"))
        }
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(size: usize, step: usize) -> Windows {
        Windows { before: vec![1], after: vec![2], size, step }
    }

    #[test]
    fn a_short_text_is_one_window() {
        assert_eq!(windows(4, 2).cut(&[7, 8, 9]), [vec![1, 7, 8, 9, 2]]);
        assert!(windows(4, 2).cut(&[]).is_empty());
    }

    #[test]
    fn a_run_as_long_as_the_overlap_is_whole_in_some_window() {
        for length in 1..200_u32 {
            let tokens: Vec<u32> = (100..100 + length).collect();
            let cut = windows(20, 13).cut(&tokens);
            assert!(cut.iter().all(|window| window.len() == 2 + tokens.len().min(20)), "{length}");
            for run in tokens.windows(7.min(tokens.len())) {
                assert!(cut.iter().any(|window| window.windows(run.len()).any(|part| part == run)), "{length}: {run:?}");
            }
        }
    }
}
