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
    labelled(
        call,
        ToolResult { parts: response.parts, is_error: response.is_error, search_results: response.search_results, ..ToolResult::default() },
    )
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
