//! `remote::mcp`: tools of a Model Context Protocol server.
//!
//! ```text
//! McpTools ── Connection (one per key) ── Session ─┬─ http   streamable HTTP
//!    │            │ list, until it changes         └─ stdio  a child process
//!    │            └ opened at the first use, again after a break
//!    ├─ listing   MCP's tools → ours: names that fit, what the annotations say
//!    └─ content   MCP's results → ours
//! ```
//!
//! Both generations of the protocol: `server/discover` (2026-07-28, no sessions) is tried first, and where the server does
//! not know it, `initialize` (2024-11-05 to 2025-11-25). The HTTP+SSE transport of 2024-11-05 is not supported.

mod config;
mod connection;
mod content;
mod failure;
#[doc(hidden)]
pub mod fuzz;
mod http;
mod listing;
mod session;
mod span;
mod stdio;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use llama_stack_core::{Context, Deps, Error, Result, Tools, context::Secret, trace::Tracer};
use llama_stack_proto::v1::{InvokeToolRequest, InvokeToolResponse, ListToolsRequest, ListToolsResponse, McpServer};
use rmcp::{
    ServiceError,
    model::{CallToolRequestParams, CallToolResponse, ErrorCode, JsonObject, MetaObject, RequestMetaObject},
};

pub(crate) use self::config::Config;
pub use self::listing::fit_name;
use self::{
    config::Endpoint,
    connection::Connection,
    failure::{Failure, Shown},
    listing::Naming,
    span::CallSpan,
};
use crate::{timeout, told};

/// Where a call's idempotency key stands in its `_meta`.
pub const IDEMPOTENCY_KEY: &str = "llama-stack/idempotency-key";

/// Callers with a key of their own whose connections are kept; the one that was made first gives way.
const MAX_OWN: usize = 64;

pub(crate) async fn build(config: Config, deps: Deps) -> Result<Arc<dyn Tools>> {
    Ok(Arc::new(McpTools::new(config, &deps)?))
}

/// The tools of the MCP server that a turn names. It is connected at its first use, and let go of with what
/// is returned. Background work belongs to the `tasks` and ends with the `shutdown` of `deps`.
///
/// # Errors
/// On the fields of `server`: `InvalidArgument` for a URL or header that is none, or a server that is named by its
/// `connector_id`, which is a tool group of this stack and not connected to.
pub async fn connect(server: &McpServer, deps: &Deps) -> Result<Arc<dyn Tools>> {
    if server.url.is_empty() {
        let message = format!("MCP server {:?}: url is empty; only a server with a URL can be connected to", server.label);
        return Err(Error::invalid("url", message));
    }
    let deps = Deps { provider_id: server.label.clone(), at_run_time: true, ..deps.clone() };
    let unprefixed = |error: Error| match error.field().and_then(|field| field.strip_prefix("config.")).map(str::to_owned) {
        Some(field) => error.with_field(field),
        None => error,
    };
    Ok(Arc::new(McpTools::new(Config::of(server), &deps).map_err(unprefixed)?))
}

struct McpTools {
    id: String,
    shared: Arc<Connection>,
    /// Connections of callers that brought a key, oldest first.
    own: Mutex<VecDeque<(Secret, Arc<Connection>)>>,
    call_limit: Duration,
    /// None: no traces are sent.
    tracer: Option<Arc<dyn Tracer>>,
}

impl McpTools {
    fn new(config: Config, deps: &Deps) -> Result<Self> {
        let endpoint = config.endpoint(deps)?;
        let naming = Naming { provider: deps.provider_id.clone(), prefix: config.prefix, allowed: config.allowed_tools };
        let (list_limit, list_age) = (timeout::seconds(config.list_timeout_seconds), timeout::seconds(config.list_age_seconds));
        Ok(Self {
            id: deps.provider_id.clone(),
            shared: Connection::new(endpoint, Arc::new(naming), deps, list_limit, list_age),
            own: Mutex::default(),
            call_limit: timeout::seconds(config.timeout_seconds),
            tracer: deps.extensions.get::<Arc<dyn Tracer>>().cloned(),
        })
    }

    /// The caller's own, where it brought a key and none is configured; else the one of all.
    fn connection(&self, cx: &Context) -> Arc<Connection> {
        let wanted = match self.shared.endpoint() {
            Endpoint::Http(server) if matches!(server.shown(), Shown::None) => cx.provider_key(&self.id),
            _ => None,
        };
        let Some(key) = wanted.filter(|key| !key.is_empty()) else { return self.shared.clone() };
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, connection)) = own.iter().find(|(of, _)| of == key) {
            return connection.clone();
        }
        let connection = self.shared.with_key(key);
        if own.len() >= MAX_OWN {
            own.pop_front();
        }
        own.push_back((key.clone(), connection.clone()));
        connection
    }

    async fn call(&self, cx: &Context, connection: &Arc<Connection>, original: &str, call: Call<'_>) -> Result<InvokeToolResponse> {
        let (mut span, below) = span::begin(self.tracer.as_deref(), cx, connection.endpoint(), original);
        let name = call.name;
        let work = async {
            let answer = self.exchange(&below, &mut span, connection, original, call).await;
            span.end(&answer);
            answer
        };
        let answer = timeout::limited(cx, name, self.call_limit, work).await;
        span.late(&answer);
        answer
    }

    async fn exchange(
        &self,
        cx: &Context,
        span: &mut CallSpan,
        connection: &Arc<Connection>,
        original: &str,
        call: Call<'_>,
    ) -> Result<InvokeToolResponse> {
        let session = connection.session().await?;
        span.connected(&session);
        let mut params = CallToolRequestParams::new(original.to_owned()).with_arguments(call.arguments);
        params.meta = meta(cx);
        // Dropped before its answer, a call is cancelled: the server is told so.
        match session.peer().call_tool_once(params).await {
            Ok(CallToolResponse::Complete(result)) => Ok(content::response(call.name, result)),
            Ok(_) => Ok(told(call.name, format!("{} asks for input, or for patience, that it cannot be given here", call.name))),
            Err(ServiceError::McpError(error)) => {
                span.refused(error.code.0);
                let unknown = matches!(error.code, ErrorCode::INVALID_PARAMS | ErrorCode::METHOD_NOT_FOUND);
                if unknown {
                    // The tool may be gone, which only its list tells for sure.
                    connection.list_again();
                    let listed = cx.within(connection.listed()).await?;
                    if listed.original(call.name).is_none() {
                        return Err(listed.unknown(call.name));
                    }
                }
                Ok(told(call.name, format!("{} refused the call: {}", call.name, error.message)))
            }
            Err(error) => {
                connection.broken(&session);
                Err(Failure::of(connection.endpoint(), &self.id).call(error))
            }
        }
    }
}

struct Call<'a> {
    name: &'a str,
    arguments: JsonObject,
}

/// What the server needs to know of the caller: the key under which a call may be made once, and its trace.
fn meta(cx: &Context) -> Option<RequestMetaObject> {
    let mut meta = MetaObject::new();
    if let Some(key) = cx.idempotency_key() {
        meta.0.insert(IDEMPOTENCY_KEY.into(), key.into());
    }
    if let Some(trace) = cx.trace() {
        meta.set_traceparent(trace);
    }
    (!meta.0.is_empty()).then(|| RequestMetaObject(meta))
}

#[async_trait::async_trait]
impl Tools for McpTools {
    async fn list_tools(&self, cx: &Context, request: ListToolsRequest) -> Result<ListToolsResponse> {
        let connection = self.connection(cx);
        let listed = cx.within(connection.listed()).await?;
        crate::page(listed.tools.clone(), &request)
    }

    async fn invoke_tool(&self, cx: &Context, request: InvokeToolRequest) -> Result<InvokeToolResponse> {
        let connection = self.connection(cx);
        let listed = cx.within(connection.listed()).await?;
        let Some(original) = listed.original(&request.name) else { return Err(listed.unknown(&request.name)) };
        let name = request.name.as_str();
        let arguments = if request.arguments.trim().is_empty() { "{}" } else { request.arguments.as_str() };
        let arguments = match serde_json::from_str(arguments) {
            Ok(arguments) => arguments,
            Err(error) => return Ok(told(name, format!("the arguments of {name} must be one JSON object: {error}"))),
        };
        self.call(cx, &connection, original, Call { name, arguments }).await
    }
}
