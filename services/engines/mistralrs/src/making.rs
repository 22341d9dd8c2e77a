//! The answers to one request, made one after the other.

use std::sync::Arc;

use llama_stack_core::Error;
use llama_stack_models::decode::{Making, broken};

use crate::{
    choosing::Choosing,
    engine::{Engine, Failure},
};

/// How the engine came out of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    Sound,
    /// Its thread has ended.
    Broken,
}

/// Makes all choices, each from the prompt anew, and returns when the engine is free. A reader that is gone ends it with
/// the step that is under way: a token, or the part of the prompt that mistral.rs is given at once.
pub(crate) async fn run(making: Making, engine: &Engine) -> After {
    for choice in 0..making.plan.choices {
        if making.is_cancelled() {
            break;
        }
        let scores = making.plan.score_prompt;
        let (first, unread, end) = engine.steps(&making.plan.prompt, if scores { 1 } else { usize::MAX });
        if scores && first.len() > 1 {
            making.fail(Error::invalid("prompt", "the prompt has every token in it that ends a text: it cannot be scored"));
            return After::Sound;
        }
        // A prompt that is scored, the chooser says itself.
        let forced: &[u32] = if scores { &[] } else { unread };
        let choosing = Arc::new(Choosing::new(making.chooser(choice, &engine.lexicon), forced, end));
        // At least the one that ends it.
        let tokens = making.plan.max_tokens.max(1).saturating_add(u32::try_from(unread.len()).unwrap_or(u32::MAX));
        let result = engine.run(first.to_vec(), tokens, end, choosing.clone()).await;
        let (error, after) = match result {
            Ok(()) if choosing.has_ended() => continue,
            Err(Failure::Sequence(cause)) => {
                tracing::error!(cause, "a sequence failed");
                let error = Error::internal("the engine could not compute the answer").with_reason("engine_error").with_source(cause);
                (error, After::Sound)
            }
            Ok(()) | Err(Failure::Engine) => (broken(), After::Broken),
        };
        making.fail(error);
        return after;
    }
    After::Sound
}
