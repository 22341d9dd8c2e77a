//! Shields of a turn. One that cannot judge lets nothing pass.

use std::sync::Arc;

use llama_stack_core::{Context, Safety};
use llama_stack_proto::v1::{
    Message, Part, Role, RunShieldRequest, RunShieldResponse, ShieldStep, Violation, part::Content, violation::Level,
};

/// What an end user is told where a shield gives no words of its own.
const REFUSAL: &str = "I can't help with that.";

/// Judges the last of `messages`; the step with its verdict.
pub(crate) async fn judge(safety: Option<Arc<dyn Safety>>, cx: Context, shield: ShieldStep, messages: Arc<Vec<Message>>) -> ShieldStep {
    let request =
        RunShieldRequest { shield_id: shield.shield_id.clone(), messages: messages.to_vec(), stage: shield.stage, ..Default::default() };
    let verdict = match &safety {
        Some(safety) => safety.run_shield(&cx, request).await,
        None => Err(llama_stack_core::Error::unavailable("this stack has no safety provider")),
    };
    let mut verdict = verdict.unwrap_or_else(|error| {
        tracing::warn!(shield = shield.shield_id, error = ?error, "a shield failed: nothing passes");
        failed()
    });
    if let Some(violation) = &mut verdict.violation
        && violation.user_message.is_empty()
    {
        violation.user_message = REFUSAL.into();
    }
    ShieldStep { verdict: Some(verdict), ..shield }
}

fn failed() -> RunShieldResponse {
    let violation = Violation {
        level: Level::Error.into(),
        user_message: "This could not be checked, so it was not let through.".into(),
        categories: Vec::new(),
        reason: "shield_failed".into(),
    };
    RunShieldResponse { violation: Some(violation), scores: Vec::new(), ..Default::default() }
}

/// All that came from outside in this input, as one message: a shield judges the last message only, and what an earlier
/// one holds must not slip by.
pub(crate) fn judged_input(input: &[Message]) -> Message {
    let mut parts: Vec<Part> = Vec::new();
    for message in input.iter().filter(|message| matches!(message.role(), Role::User | Role::Tool)) {
        for part in &message.parts {
            match &part.content {
                Some(Content::ToolResult(result)) => parts.extend(result.parts.iter().cloned()),
                _ => parts.push(part.clone()),
            }
        }
    }
    Message::new(Role::User, parts)
}

/// Whether there is anything to judge in what a model said.
pub(crate) fn says_something(message: &Message) -> bool {
    message.parts.iter().any(|part| matches!(part.content, Some(Content::Text(_) | Content::Reasoning(_) | Content::Refusal(_))))
}
