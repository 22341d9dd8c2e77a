//! HTTP: every route but gRPC's, and what they share.
//!
//! ```text
//! observe (request id, span, metrics, panics) ─ site (host, origin) ─ CORS ─ gate (who calls) ─ route ─ Caller (Context from headers) ─ Json ─ handler
//!                                                                                              ├─ console: the playground's pages
//!                                                                                              └─ unknown route 404, wrong method 405
//! ```

mod caller;
mod console;
mod cors;
mod error;
mod json;
mod observe;
mod params;
mod probes;
mod site;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use ::http::Method;
use axum::{Router, extract::Request, middleware};

use llama_stack_core::{
    Agents, Batches, Code, Error, Files, Identity, Inference, Memory, Prompts, Safety, Stack as Info, Telemetry, Tools,
};
use llama_stack_documents::Parse;

pub(crate) use caller::Caller;
pub(crate) use cors::layer as cors;
pub(crate) use error::{ApiError, ErrorBody};
pub(crate) use json::{Json, read};
pub(crate) use observe::{code, grpc_code, observe, route};
pub(crate) use params::{Path, Query};
pub(crate) use site::{Site, guard as site_guard};

use crate::{
    Stack,
    history::{self, Log},
    identity,
    limits::{self, Limits},
    mcp,
    metrics::Metrics,
    openapi::Api,
    safety, tools, vector_io,
};

/// What handlers reach. Cheap to clone.
#[derive(Clone)]
pub(crate) struct AppState(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) inference: Arc<dyn Inference>,
    pub(crate) safety: Arc<dyn Safety>,
    pub(crate) memory: Arc<dyn Memory>,
    pub(crate) tools: Arc<dyn Tools>,
    pub(crate) agents: Arc<dyn Agents>,
    pub(crate) files: Arc<dyn Files>,
    pub(crate) batches: Arc<dyn Batches>,
    pub(crate) parser: Arc<dyn Parse>,
    pub(crate) egress: llama_stack_egress::Client,
    pub(crate) mcp: mcp::Service,
    /// Origins that browsers may call from.
    pub(crate) origins: Vec<String>,
    pub(crate) site: Site,
    pub(crate) prompts: Arc<dyn Prompts>,
    pub(crate) identity: Arc<dyn Identity>,
    /// None: callers are not told apart.
    pub(crate) gate: Option<Arc<identity::Gate>>,
    pub(crate) metrics: Metrics,
    pub(crate) limits: Arc<Limits>,
    pub(crate) requests: Arc<Log>,
    pub(crate) history: Arc<dyn Telemetry>,
    pub(crate) info: Arc<dyn Info>,
    /// Largest request body, in bytes.
    pub(crate) max_body_bytes: usize,
    draining: AtomicBool,
}

impl AppState {
    /// `address`: where it listens.
    pub(crate) fn new(stack: &Stack, address: SocketAddr) -> Self {
        Self(Arc::new(Inner {
            inference: stack.inference.clone(),
            safety: stack.safety.clone(),
            memory: stack.memory.clone(),
            tools: stack.tools.clone(),
            agents: stack.agents.clone(),
            files: stack.files.clone(),
            batches: stack.batches.clone(),
            parser: stack.parser.clone(),
            egress: stack.egress.clone(),
            mcp: mcp::service(stack),
            origins: stack.server.cors_origins.clone(),
            site: Site::new(address, &stack.server.hosts, &stack.server.cors_origins),
            prompts: stack.prompts.clone(),
            identity: stack.identity.clone(),
            gate: stack.gate.clone(),
            metrics: stack.metrics.clone(),
            limits: stack.limits.clone(),
            requests: stack.requests.clone(),
            history: stack.history.clone(),
            info: stack.info.clone(),
            max_body_bytes: stack.server.max_body_bytes,
            draining: AtomicBool::new(false),
        }))
    }

    /// From now on `/readyz` says no.
    pub(crate) fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }
}

impl std::ops::Deref for AppState {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// Every HTTP route, with the documents that describe them.
pub(crate) fn api() -> Api {
    let mut api = Api::default();
    probes::routes(&mut api);
    crate::openai::routes(&mut api);
    crate::agents::routes(&mut api);
    crate::journal::routes(&mut api);
    safety::routes(&mut api);
    tools::routes(&mut api);
    vector_io::routes(&mut api);
    mcp::routes(&mut api);
    identity::routes(&mut api);
    history::routes(&mut api);
    crate::operate::routes(&mut api);
    api
}

/// The whole of HTTP as one service.
pub(crate) fn router(state: &AppState, origins: &[String]) -> Router {
    let mut router = api().into_router().fallback(unknown_route).method_not_allowed_fallback(wrong_method);
    // Within CORS, so that a browser may read a refusal.
    // The gate is around the limits: these know by then who calls.
    router = router.layer(middleware::from_fn_with_state(state.clone(), limits::guard));
    router = router.layer(middleware::from_fn_with_state(state.clone(), identity::http));
    if let Some(cors) = cors(origins) {
        router = router.layer(cors);
    }
    // A refusal for its host or origin is nothing that a foreign page should read.
    let router = router.merge(console::routes()).layer(middleware::from_fn_with_state(state.clone(), site_guard));
    router.layer(middleware::from_fn_with_state(state.clone(), observe)).with_state(state.clone())
}

async fn unknown_route(request: Request) -> ApiError {
    let message = format!("no route {} {}; GET /openapi.json lists what there is", request.method(), request.uri().path());
    ApiError::from(Error::new(Code::NotFound, message).with_reason("unknown_route"))
}

async fn wrong_method(method: Method, request: Request) -> ApiError {
    let message = format!("{} does not take {method}", request.uri().path());
    ApiError::from(Error::new(Code::InvalidArgument, message).with_reason("method_not_allowed"))
        .with_status(::http::StatusCode::METHOD_NOT_ALLOWED)
}
