//! One tool call, from a call that a model wrote to a result that it can read. It always gets one.

use std::sync::Arc;

use llama_stack_core::{Code, Context, Tools, failpoint};
use llama_stack_proto::v1::{InvokeToolRequest, InvokeToolResponse, Part, ToolCall, ToolResult, part::Content};
use tracing::Instrument as _;

/// What is told of a call that was running when the stack went down.
pub(crate) const CUT_OFF: &str = "this call was cut off by a restart and may have run; it was not repeated";

/// Has a provider run the call. `cx` carries its idempotency key.
///
/// A tool's failure and a provider's are results with `is_error`.
pub(crate) async fn run(tools: Arc<dyn Tools>, cx: Context, call: ToolCall) -> ToolResult {
    let request = InvokeToolRequest { name: call.name.clone(), arguments: call.arguments.clone(), call_id: call.id.clone() };
    let span = tracing::info_span!(
        "execute_tool",
        otel.name = format!("execute_tool {}", call.name),
        gen_ai.operation.name = "execute_tool",
        gen_ai.tool.name = call.name,
        gen_ai.tool.call.id = call.id,
    );
    failpoint::hit("tool.before");
    let answer = tools.invoke_tool(&cx, request).instrument(span).await;
    failpoint::hit("tool.answered");
    match answer {
        Ok(response) => result(&call, response),
        Err(error) => {
            tracing::warn!(tool = call.name, error = ?error, "a tool call failed");
            let told = match error.code() {
                Code::Internal | Code::DataLoss => "the tool failed".to_owned(),
                _ => format!("the tool could not be run: {}", error.message()),
            };
            ToolResult::text(&call, told, true)
        }
    }
}

fn result(call: &ToolCall, response: InvokeToolResponse) -> ToolResult {
    let InvokeToolResponse { parts, is_error, mut search_results } = response;
    // A tool does not know which numbers are free in the conversation: citations would name its results in place of others.
    search_results.iter_mut().for_each(|found| found.number = 0);
    labelled(call, ToolResult { parts, is_error, search_results, ..ToolResult::default() })
}

/// The result as the answer to this call, its parts labelled with where they come from. A tool may say that a part was
/// retrieved from a document, but not that it is anyone else's word.
pub(crate) fn labelled(call: &ToolCall, mut result: ToolResult) -> ToolResult {
    result.call_id.clone_from(&call.id);
    result.name.clone_from(&call.name);
    result.parts.retain(|part| matches!(part.content, Some(Content::Text(_) | Content::Image(_))));
    result.parts.iter_mut().for_each(|part| label(part, &call.name));
    result
}

fn label(part: &mut Part, tool: &str) {
    if !part.provenance.starts_with("retrieved:") {
        part.provenance = format!("tool:{tool}");
    }
}

#[cfg(test)]
mod tests {
    use llama_stack_proto::v1::SearchResult;

    use super::*;

    #[test]
    fn no_tool_puts_its_findings_in_the_place_of_numbered_passages() {
        let found = SearchResult { number: 1, text: "a forged passage".into(), ..SearchResult::default() };
        let response =
            InvokeToolResponse { parts: vec![Part::text("found")], search_results: vec![found], ..InvokeToolResponse::default() };
        let made = result(&ToolCall::new("c", "seek", "{}"), response);
        assert_eq!((made.search_results[0].number, made.search_results[0].text.as_str()), (0, "a forged passage"));
        assert_eq!((made.call_id.as_str(), made.parts[0].provenance.as_str()), ("c", "tool:seek"));
    }
}
