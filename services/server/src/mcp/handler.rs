use std::sync::Arc;

use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorCode, Implementation, JsonObject, ListToolsResult,
        PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool, ToolAnnotations,
    },
    service::RequestContext,
};
use serde_json::{Value, json};

use llama_stack_core::{Agents, Code, Context, Error, Memory, Result, Tools};
use llama_stack_proto::v1::{self, InvokeToolRequest, OnInterrupt};
use llama_stack_tools::mcp::IDEMPOTENCY_KEY;

use super::{agents, banks, content, span};
use crate::{
    telemetry::{Span, Telemetry},
    tools::{every_tool, parameters},
};

/// What answers each request.
#[derive(Clone)]
pub(crate) struct Handler {
    pub(super) tools: Arc<dyn Tools>,
    pub(super) agents: Arc<dyn Agents>,
    pub(super) memory: Arc<dyn Memory>,
    pub(super) telemetry: Option<Arc<Telemetry>>,
}

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("llama-stack", env!("CARGO_PKG_VERSION")))
    }

    /// All on one page: tools first, then agents, then banks.
    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let cx = caller(&context)?;
        let listed = async {
            let tools = every_tool(&*self.tools, &cx, String::new()).await?;
            let agents = agents::named(&*self.agents, &cx, &tools).await?;
            let mut all = tools.iter().map(as_mcp).collect::<Result<Vec<Tool>>>()?;
            all.extend(agents.iter().map(|(name, agent)| agents::as_tool(name, agent)));
            let taken = all.iter().map(|tool| tool.name.clone().into_owned()).collect();
            let banks = banks::named(&*self.memory, &cx, taken).await?;
            all.extend(banks.iter().map(|(name, bank)| banks::as_tool(name, bank)));
            Ok(all)
        };
        Ok(ListToolsResult::with_all_items(listed.await.map_err(refused)?))
    }

    async fn call_tool(&self, request: CallToolRequestParams, context: RequestContext<RoleServer>) -> Result<CallToolResponse, ErrorData> {
        let (mut span, cx) = span::begin(self.telemetry.as_deref(), caller(&context)?, &context);
        let answer = tokio::select! {
            // The client has gone, or wants it no longer.
            () = context.ct.cancelled() => {
                span::given_up(span.take());
                Err(refused(Error::new(Code::Cancelled, "the call was cancelled")))
            }
            result = self.call(&cx, &mut span, request) => result.map_err(refused),
        };
        span::end(&mut span, &answer);
        answer.map(CallToolResponse::Complete)
    }
}

impl Handler {
    async fn call(&self, cx: &Context, span: &mut Option<Span>, request: CallToolRequestParams) -> Result<CallToolResult> {
        let (name, arguments) = (request.name.into_owned(), request.arguments.unwrap_or_default());
        let tools = every_tool(&*self.tools, cx, String::new()).await?;
        if tools.iter().any(|tool| name_of(tool) == name) {
            span::found(span, &name);
            let request = InvokeToolRequest { name, arguments: Value::Object(arguments).to_string(), call_id: String::new() };
            let response = cx.within(self.tools.invoke_tool(cx, request)).await?;
            let content = response.parts.into_iter().map(content::block).collect::<Result<_>>()?;
            return Ok(if response.is_error { CallToolResult::error(content) } else { CallToolResult::success(content) });
        }
        let agents = agents::named(&*self.agents, cx, &tools).await?;
        let taken = tools.iter().map(|tool| name_of(tool).to_owned()).chain(agents.iter().map(|(name, _)| name.clone())).collect();
        let Some((_, agent)) = agents.into_iter().find(|(of, _)| *of == name) else {
            let banks = banks::named(&*self.memory, cx, taken).await?;
            if let Some((_, bank)) = banks.into_iter().find(|(of, _)| *of == name) {
                span::found(span, &name);
                return banks::search(&*self.memory, cx, &bank, &arguments).await;
            }
            return Err(Error::not_found(format!("no tool {name:?}; tools/list says what there is")));
        };
        span::found(span, &name);
        match arguments.get("input").and_then(Value::as_str) {
            Some(input) => cx.within(agents::ask(&*self.agents, cx, &agent.id, input)).await,
            None => Ok(CallToolResult::error(vec![ContentBlock::text(format!("{name} needs one argument: input, a text"))])),
        }
    }
}

pub(super) fn name_of(tool: &v1::Tool) -> &str {
    tool.definition.as_ref().map_or("", |definition| definition.name.as_str())
}

/// Who asks, as the HTTP edge read it; the key and the trace of the message itself come before those of the headers.
fn caller(context: &RequestContext<RoleServer>) -> Result<Context, ErrorData> {
    let parts = context.extensions.get::<::http::request::Parts>();
    let edge = parts.and_then(|parts| parts.extensions.get::<Context>());
    let mut cx = edge.cloned().ok_or_else(|| refused(Error::internal("a request came without its caller")))?;
    let said = |field: &str| context.meta.0.0.get(field).and_then(Value::as_str);
    if let Some(key) = said(IDEMPOTENCY_KEY).filter(|key| !key.is_empty() && key.len() <= 256) {
        cx = cx.with_idempotency_key(key);
    }
    if let Some(trace) = context.meta.0.get_traceparent() {
        cx = cx.with_trace(trace);
    }
    Ok(cx)
}

/// The platform's failure, as JSON-RPC has it.
fn refused(error: Error) -> ErrorData {
    let code = match error.code() {
        Code::InvalidArgument | Code::NotFound | Code::TooLarge => ErrorCode::INVALID_PARAMS,
        _ => ErrorCode::INTERNAL_ERROR,
    };
    if code == ErrorCode::INTERNAL_ERROR && error.code() != Code::Cancelled {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        tracing::warn!(code = error.code().name(), message = error.message(), ?cause, "MCP request failed");
    }
    ErrorData::new(code, error.message().to_owned(), Some(json!({ "code": error.code().name(), "reason": error.reason() })))
}

fn as_mcp(tool: &v1::Tool) -> Result<Tool> {
    let definition = tool.definition.clone().unwrap_or_default();
    let schema: JsonObject = match parameters(&definition.name, &definition.parameters)? {
        Value::Object(schema) => schema,
        _ => return Err(Error::internal(format!("the schema of tool {:?} is not an object", definition.name))),
    };
    let mut made = Tool::new(definition.name, definition.description, schema);
    let hints = ToolAnnotations::new().read_only(!tool.changes_state).open_world(tool.reads_untrusted);
    made.annotations = Some(hints.idempotent(tool.on_interrupt() == OnInterrupt::Retry));
    Ok(made)
}
