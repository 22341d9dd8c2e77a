use std::time::Duration;

use ::http::{HeaderName, HeaderValue};
use tower_http::cors::{AllowHeaders, AllowMethods, AllowOrigin, CorsLayer};

/// What scripts of other origins may read beside the usual headers: the request's id, and what gRPC-Web needs.
const EXPOSED: [&str; 5] = ["x-request-id", "retry-after", "grpc-status", "grpc-message", "grpc-status-details-bin"];

/// None where no origin is allowed. An origin that is no header value is left out: no browser can send it.
pub(crate) fn layer(origins: &[String]) -> Option<CorsLayer> {
    if origins.is_empty() {
        return None;
    }
    let allowed = if origins.iter().any(|origin| origin == "*") {
        AllowOrigin::any()
    } else {
        AllowOrigin::list(origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok()))
    };
    let layer = CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods(AllowMethods::mirror_request())
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(EXPOSED.map(HeaderName::from_static))
        .max_age(Duration::from_secs(3600));
    Some(layer)
}
