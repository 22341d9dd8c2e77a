//! What a classifier reads of a message, and what it answers.

use llama_stack_core::{Code, Error, Result};
use llama_stack_proto::v1::{CategoryScore, RunShieldResponse, Violation, violation::Level};
use tokio_util::task::TaskTracker;

use crate::{normalise, reasons};

/// What one text may have: a bound on the work that a caller can ask for.
const MAX_BYTES: usize = 2 << 20;

/// The text, and, if wanted, what it says to a reader who sees through `disguises`. Read on a thread that may be busy.
///
/// # Errors
/// `TooLarge` for a text that is too long to be judged, with both numbers.
pub(crate) async fn variants(tasks: &TaskTracker, text: &str, disguises: bool) -> Result<Vec<String>> {
    if text.len() > MAX_BYTES {
        let message = format!("the text has {} bytes, and a shield judges at most {MAX_BYTES}", text.len());
        return Err(Error::new(Code::TooLarge, message).with_reason("text_too_long"));
    }
    if !disguises {
        return Ok(vec![text.to_owned()]);
    }
    let text = text.to_owned();
    let read = move || normalise::variants(&text).into_iter().map(|variant| variant.text).collect();
    tasks.spawn_blocking(read).await.map_err(|broken| Error::internal("reading the text broke off").with_source(broken))
}

/// The answer for these scores, by category.
pub(crate) fn verdict(scores: Vec<(&'static str, f32)>, threshold: f32, judged: &str) -> RunShieldResponse {
    let scores: Vec<CategoryScore> =
        scores.into_iter().map(|(code, score)| CategoryScore { code: code.into(), score, violated: score >= threshold }).collect();
    let categories: Vec<String> = scores.iter().filter(|score| score.violated).map(|score| score.code.clone()).collect();
    let violation = (!categories.is_empty()).then(|| Violation {
        level: Level::Error.into(),
        user_message: "This text looks like an attempt to give the assistant other instructions.".into(),
        categories,
        reason: reasons::UNSAFE.into(),
    });
    RunShieldResponse { violation, scores, judged_bytes: judged.len() as u64, ..RunShieldResponse::default() }
}
