//! One tool call, from a call that a model wrote to a result that it can read. It always gets one.

use std::sync::Arc;

use llama_stack_core::{Code, Context, Tools, failpoint};
use llama_stack_proto::v1::{InvokeToolRequest, InvokeToolResponse, OnInterrupt, Part, ToolCall, ToolResult, part::Content};
use tracing::Instrument as _;

use crate::toolbox::{Runner, Toolbox};

/// What is told of a call that was running when the stack went down.
const CUT_OFF: &str = "this call was cut off by a restart and may have run; it was not repeated";

/// Runs the call. `cx` carries its idempotency key; `cut_off`: it was begun before, by a process that is gone.
///
/// A call that nobody can run, a tool's failure and a provider's are all results with `is_error`.
pub(crate) async fn run(tools: Option<Arc<dyn Tools>>, toolbox: &Toolbox, cx: Context, call: ToolCall, cut_off: bool) -> ToolResult {
    let on_interrupt = match toolbox.runner(&call) {
        Ok(Runner::Stack(on_interrupt)) => on_interrupt,
        // The plan gives a client's calls to the client.
        Ok(Runner::Client) => return ToolResult::text(&call, "this tool is the client's", true),
        Err(told) => return ToolResult::text(&call, told, true),
    };
    if cut_off && on_interrupt != OnInterrupt::Retry {
        return ToolResult::text(&call, CUT_OFF, true);
    }
    let Some(tools) = tools else { return ToolResult::text(&call, "this stack has no tools", true) };
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
    labelled(call, ToolResult { parts: response.parts, is_error: response.is_error, ..ToolResult::default() })
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
