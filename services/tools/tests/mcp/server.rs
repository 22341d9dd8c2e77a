//! An MCP server over HTTP, that shows what it was asked.

use std::{
    borrow::Cow,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{Router, extract::Request, http::StatusCode, middleware, response::IntoResponse};
use rmcp::{
    ErrorData, Peer, RoleServer, ServerHandler,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ListToolsResult, PaginatedRequestParams, ProtocolVersion,
        ServerCapabilities, ServerConfig, SubscriptionFilter, Tool, ToolAnnotations,
    },
    service::{NotificationContext, RequestContext, SubscriptionContext, SubscriptionSink},
    transport::{StreamableHttpServerConfig, StreamableHttpService, streamable_http_server::session::local::LocalSessionManager},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Which versions of the protocol a server speaks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// `initialize`, sessions, and a stream for the server's news.
    Old,
    /// `server/discover`, no sessions, and a subscription for news.
    New,
}

pub struct Seen {
    pub generation: Generation,
    /// What the server lists.
    pub tools: Mutex<Vec<&'static str>>,
    /// The bearer token that it wants.
    pub token: Mutex<Option<&'static str>>,
    /// Names, arguments and `_meta` of the calls.
    pub calls: Mutex<Vec<Value>>,
    /// How often its tools were listed, page by page.
    pub lists: Mutex<Vec<Option<String>>>,
    /// The headers `x-team` that came.
    pub teams: Mutex<Vec<String>>,
    pub cancelled: Notify,
    pub slow_begun: Notify,
    peers: Mutex<Vec<Peer<RoleServer>>>,
    sinks: Mutex<Vec<SubscriptionSink>>,
    pub subscribed: Notify,
}

impl Seen {
    pub fn new(generation: Generation) -> Arc<Self> {
        Arc::new(Self {
            generation,
            tools: Mutex::new(vec!["weather", "fails", "slow", "a.dotted"]),
            token: Mutex::default(),
            calls: Mutex::default(),
            lists: Mutex::default(),
            teams: Mutex::default(),
            cancelled: Notify::new(),
            slow_begun: Notify::new(),
            peers: Mutex::default(),
            sinks: Mutex::default(),
            subscribed: Notify::new(),
        })
    }

    /// Offers other tools, and says so.
    pub async fn change(&self, tools: &[&'static str]) {
        *self.tools.lock().unwrap() = tools.to_vec();
        let (peers, sinks) = (self.peers.lock().unwrap().clone(), self.sinks.lock().unwrap().clone());
        for peer in peers {
            peer.notify_tool_list_changed().await.unwrap();
        }
        for sink in sinks {
            sink.notify_tool_list_changed().await.unwrap();
        }
    }

    pub fn last_call(&self) -> Value {
        self.calls.lock().unwrap().last().cloned().expect("nothing was called")
    }
}

#[derive(Clone)]
struct Weather(Arc<Seen>);

impl ServerHandler for Weather {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().enable_tool_list_changed().build())
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        match self.0.generation {
            Generation::Old => Cow::Borrowed(ProtocolVersion::known_up_to(&ProtocolVersion::V_2025_11_25)),
            Generation::New => Cow::Owned(vec![ProtocolVersion::V_2026_07_28]),
        }
    }

    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        self.0.peers.lock().unwrap().push(context.peer);
    }

    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        Some(requested.clone())
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        self.0.sinks.lock().unwrap().push(context.sink().clone());
        self.0.subscribed.notify_one();
        context.cancelled().await;
        Ok(())
    }

    /// Two on a page.
    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let cursor = request.and_then(|request| request.cursor);
        self.0.lists.lock().unwrap().push(cursor.clone());
        let start: usize = cursor.map_or(0, |cursor| cursor.parse().unwrap());
        let tools = self.0.tools.lock().unwrap().clone();
        let mut page = ListToolsResult::with_all_items(tools.iter().skip(start).take(2).map(|name| tool(name)).collect());
        page.next_cursor = (start + 2 < tools.len()).then(|| (start + 2).to_string());
        Ok(page)
    }

    async fn call_tool(&self, request: CallToolRequestParams, context: RequestContext<RoleServer>) -> Result<CallToolResponse, ErrorData> {
        let call = json!({ "name": request.name, "arguments": request.arguments, "meta": context.meta });
        self.0.calls.lock().unwrap().push(call);
        if !self.0.tools.lock().unwrap().contains(&request.name.as_ref()) {
            return Err(ErrorData::invalid_params(format!("unknown tool: {}", request.name), None));
        }
        let city = request.arguments.as_ref().and_then(|arguments| arguments.get("city")).and_then(Value::as_str);
        let result = match (request.name.as_ref(), city) {
            ("slow", _) => {
                self.0.slow_begun.notify_one();
                context.ct.cancelled().await;
                self.0.cancelled.notify_one();
                CallToolResult::success(vec![])
            }
            ("fails", _) => CallToolResult::error(vec![ContentBlock::text("it is broken")]),
            (_, None) => return Err(ErrorData::invalid_params("city: missing field", None)),
            ("sunrise", Some(city)) => CallToolResult::success(vec![ContentBlock::text(format!("at six in {city}"))]),
            (_, Some(city)) => CallToolResult::success(vec![ContentBlock::text(format!("sunny in {city}"))]),
        };
        Ok(CallToolResponse::Complete(result))
    }
}

fn tool(name: &'static str) -> Tool {
    let schema = match name {
        "slow" | "fails" => json!({ "type": "object" }),
        _ => json!({ "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] }),
    };
    let mut tool = Tool::new(name, "Tells.", schema.as_object().unwrap().clone());
    tool.annotations = (name == "weather").then(|| ToolAnnotations::new().read_only(true));
    tool
}

/// Notes who asks, and whether it shows the wrong token.
fn refused(seen: &Seen, request: &Request) -> bool {
    let text = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    seen.teams.lock().unwrap().extend(text("x-team"));
    let wanted = seen.token.lock().unwrap().map(|token| format!("Bearer {token}"));
    wanted.is_some() && text("authorization") != wanted
}

/// Serves until it is stopped.
pub struct Server {
    pub address: SocketAddr,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

impl Server {
    pub async fn start(seen: &Arc<Seen>) -> Self {
        Self::on("127.0.0.1:0".parse().unwrap(), seen).await
    }

    pub async fn on(address: SocketAddr, seen: &Arc<Seen>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let (address, stop, weather) = (listener.local_addr().unwrap(), CancellationToken::new(), Weather(seen.clone()));
        let config = StreamableHttpServerConfig::default().with_cancellation_token(stop.clone());
        let service = StreamableHttpService::new(move || Ok(weather.clone()), Arc::new(LocalSessionManager::default()), config);
        let guard = seen.clone();
        let guarded = middleware::from_fn(move |request: Request, next: middleware::Next| {
            let refused = refused(&guard, &request);
            async move {
                if refused { (StatusCode::UNAUTHORIZED, [("www-authenticate", "Bearer")]).into_response() } else { next.run(request).await }
            }
        });
        let app = Router::new().route_service("/mcp", service).layer(guarded);
        let stopped = stop.clone();
        let served = tokio::spawn(async move {
            axum::serve(listener, app).with_graceful_shutdown(stopped.cancelled_owned()).await.unwrap();
        });
        Self { address, stop, served }
    }

    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// Closes its sessions and its connections.
    pub async fn stop(self) {
        self.stop.cancel();
        self.served.await.unwrap();
    }
}
