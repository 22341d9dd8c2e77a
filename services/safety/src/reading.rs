//! What a classifier reads of a message, and what it answers.

use llama_stack_proto::v1::{CategoryScore, Message, Part, RunShieldResponse, Violation, part::Content, violation::Level};

/// All that a message says, as one text: words cut up over several parts are judged together. Calls are their tool's name and
/// arguments, results their texts; images say nothing to a classifier of text.
pub(crate) fn text(message: &Message) -> String {
    let mut text = String::new();
    message.parts.iter().for_each(|part| append(part, &mut text));
    text
}

fn append(part: &Part, text: &mut String) {
    match &part.content {
        Some(Content::Text(said) | Content::Refusal(said) | Content::Reasoning(said)) => text.push_str(said),
        Some(Content::ToolCall(call)) => {
            on_a_new_line(text);
            text.extend([call.name.as_str(), " ", call.arguments.as_str(), "\n"]);
        }
        Some(Content::ToolResult(result)) => {
            on_a_new_line(text);
            result.parts.iter().for_each(|part| append(part, text));
        }
        Some(Content::Image(_)) | None => {}
    }
}

fn on_a_new_line(text: &mut String) {
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
}

/// The text, and what it says to a reader who sees through a disguise.
pub(crate) fn variants(text: &str) -> Vec<String> {
    vec![text.to_owned()]
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
        reason: "unsafe".into(),
    });
    RunShieldResponse { violation, scores, judged_bytes: judged.len() as u64, ..RunShieldResponse::default() }
}
