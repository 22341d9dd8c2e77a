//! gRPC: the services of the contract, health, reflection, and gRPC-Web, as one service on the common port.

use std::{collections::HashSet, sync::LazyLock};

use ::http::{HeaderMap, header};
use axum::{
    Router,
    extract::Request,
    middleware::{self, Next},
    response::Response,
};
use metrics::SharedString;
use tonic::{Status, codec::CompressionEncoding, server::NamedService, service::Routes};
use tonic_health::{ServingStatus, server::HealthReporter};
use tonic_reflection::server::Builder as Reflection;
use tonic_web::GrpcWebLayer;

use llama_stack_core::{
    Error, Result,
    grpc::{MAX_MESSAGE_BYTES, Served, from_form},
};
use llama_stack_proto::{
    DESCRIPTORS, RPCS,
    v1::{
        agents_server::AgentsServer, batches_server::BatchesServer, files_server::FilesServer, identity_server::IdentityServer,
        inference_server::InferenceServer, memory_server::MemoryServer, prompts_server::PromptsServer, safety_server::SafetyServer,
        stack_server::StackServer, telemetry_server::TelemetryServer, tools_server::ToolsServer,
    },
};

use crate::{
    Stack,
    connections::late_by_its_words,
    http::{AppState, cors, observe, site_guard},
    identity, limits,
};

/// `/package.Service/Method` of every method here: what may become a metric's label.
static METHODS: LazyLock<HashSet<String>> = LazyLock::new(methods);

fn methods() -> HashSet<String> {
    let health = ["/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"].map(str::to_owned);
    RPCS.iter().map(|rpc| format!("/llama_stack.v1.{}", rpc.replace('.', "/"))).chain(health).collect()
}

/// gRPC over HTTP/2, and gRPC-Web over any HTTP.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// The path of a method that there is, for labels.
pub(crate) fn route(path: &str) -> SharedString {
    if METHODS.contains(path) { path.to_owned().into() } else { SharedString::const_str("unknown gRPC method") }
}

/// Tells gRPC's health service how each service is.
pub(crate) struct Health {
    reporter: HealthReporter,
    services: Vec<&'static str>,
}

impl Health {
    /// Says `NOT_SERVING` to whoever asks or watches.
    pub(crate) async fn say_not_serving(&mut self) {
        for service in &self.services {
            self.reporter.set_service_status(service, ServingStatus::NotServing).await;
        }
    }

    /// Ends the watching: a watch never ends by itself, and the drain waits for every stream.
    pub(crate) async fn end_watches(&mut self) {
        for service in &self.services {
            self.reporter.clear_service_status(service).await;
        }
    }
}

/// # Errors
/// `Internal` where the contract's own descriptors cannot be read.
pub(crate) async fn router(stack: &Stack, state: &AppState) -> Result<(Router, Health)> {
    let (reporter, health_server) = tonic_health::server::health_reporter();
    let mut health = Health { reporter, services: vec![""] };
    let mut routes = Routes::builder();
    routes.add_service(health_server);

    // Each service takes messages up to the project's limit, compressed or not, and is known to health by its name.
    macro_rules! serve {
        ($server:ident, $service:expr) => {{
            let server = $server::new(Served($service.clone()))
                .max_decoding_message_size(MAX_MESSAGE_BYTES)
                .max_encoding_message_size(MAX_MESSAGE_BYTES)
                .accept_compressed(CompressionEncoding::Gzip);
            let name = named(&server);
            health.reporter.set_service_status(name, ServingStatus::Serving).await;
            health.services.push(name);
            routes.add_service(server);
        }};
    }
    serve!(InferenceServer, stack.inference);
    serve!(SafetyServer, stack.safety);
    serve!(MemoryServer, stack.memory);
    serve!(FilesServer, stack.files);
    serve!(BatchesServer, stack.batches);
    serve!(ToolsServer, stack.tools);
    serve!(AgentsServer, stack.agents);
    serve!(PromptsServer, stack.prompts);
    serve!(StackServer, stack.info);
    serve!(IdentityServer, stack.identity);
    serve!(TelemetryServer, stack.history);

    let broken = |error| Error::internal("the contract's descriptors cannot be read").with_source(error);
    let reflection = || {
        Reflection::configure()
            .register_encoded_file_descriptor_set(DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    routes.add_service(reflection().build_v1().map_err(broken)?);
    routes.add_service(reflection().build_v1alpha().map_err(broken)?);

    // The gate is around the limits: these know by then who calls.
    let router = routes
        .routes()
        .into_axum_router()
        .layer(middleware::from_fn(told_of_form))
        .layer(middleware::from_fn_with_state(state.clone(), limits::guard));
    let router = router.layer(middleware::from_fn_with_state(state.clone(), identity::grpc));
    // Around both, so that a refusal is translated as well.
    let mut router = router.layer(GrpcWebLayer::new());
    if let Some(cors) = cors(&stack.server.cors_origins) {
        router = router.layer(cors);
    }
    let router = router.layer(middleware::from_fn_with_state(state.clone(), site_guard));
    let router = router.layer(middleware::from_fn_with_state(state.clone(), observe));
    Ok((router, health))
}

/// A refusal without details is tonic's own, of a request that it could not read.
async fn told_of_form(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = Status::from_header_map(response.headers()).filter(|status| status.details().is_empty());
    match status.map(|status| (status.code(), late_by_its_words(status.message()).unwrap_or_else(|| from_form(&status)))) {
        Some((tonic::Code::Internal | tonic::Code::Unknown | tonic::Code::DataLoss, error)) => Status::from(error).into_http(),
        _ => response,
    }
}

fn named<S: NamedService>(_server: &S) -> &'static str {
    S::NAME
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_that_nobody_has_is_no_label() {
        assert_eq!(&*route("/llama_stack.v1.Inference/StreamChat"), "/llama_stack.v1.Inference/StreamChat");
        assert_eq!(&*route("/llama_stack.v1.Inference/Guess1234"), "unknown gRPC method");
    }
}
