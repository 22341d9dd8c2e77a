//! The gate: who a request is from is found out once, here, for HTTP and gRPC alike.

use ::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tonic::{Status, metadata::MetadataMap};

use llama_stack_core::{Authenticated, Code, Context, Error, Result, context::DELEGATE};
use llama_stack_identity::from_certificate;

use super::{
    Gate,
    attempts::REASON,
    routes::{self, Access},
    tls::PeerCertificate,
};
use crate::{
    connections::PeerAddress,
    grpc,
    http::{ApiError, AppState, route},
    metrics::Metrics,
    request_id,
};

/// What a caller may only be found to be, not say.
const CLAIMED: [&str; 3] = ["x-llama-stack-principal", "x-llama-stack-tenant", "x-llama-stack-roles"];

impl Gate {
    /// Finds out who it is, where its address has an attempt left.
    ///
    /// # Errors
    /// `ResourceExhausted` it has none · as [`llama_stack_identity::Authenticator::authenticate`].
    async fn admit(&self, request: &mut Request) -> Result<()> {
        let shows = request.headers().contains_key(header::AUTHORIZATION)
            || (self.mtls.is_some() && request.extensions().get::<PeerCertificate>().is_some());
        // Requests that show nothing are no attempts.
        let address = request.extensions().get::<PeerAddress>().map(|PeerAddress(address)| *address).filter(|_| shows);
        let Some(address) = address else { return self.identify(request).await };
        let place = self.attempts.begin(address).await?;
        let identified = self.identify(request).await;
        if identified.as_ref().is_err_and(|error| error.code() == Code::Unauthenticated) {
            place.failed();
        }
        identified
    }

    /// Leaves who it is in the extensions. The credential itself goes no further.
    ///
    /// # Errors
    /// As [`llama_stack_identity::Authenticator::authenticate`].
    async fn identify(&self, request: &mut Request) -> Result<()> {
        let certificate = match (&self.mtls, request.extensions().get::<PeerCertificate>()) {
            (Some(mtls), Some(certificate)) => Some(from_certificate(mtls, &certificate.0)?),
            _ => None,
        };
        let wrong = |message: &str| Error::new(Code::Unauthenticated, message).with_reason("invalid_authorization");
        if request.headers().get_all(header::AUTHORIZATION).iter().nth(1).is_some() {
            return Err(wrong("authorization came more than once"));
        }
        let shown = request.headers_mut().remove(header::AUTHORIZATION);
        let unreadable = |_| wrong("authorization must be Bearer and an API key or a token");
        let shown = shown.as_ref().map(|shown| shown.to_str().map_err(unreadable)).transpose()?;
        if let Some(who) = self.authenticator.authenticate(shown, certificate.as_ref()).await? {
            let who = self.spoken_for(who, request.headers())?;
            // For whoever reads headers alone.
            claim(request.headers_mut(), &who);
            request.extensions_mut().insert(who);
        }
        Ok(())
    }

    /// Writes a refused credential down: of who shows it no more is known than where they are, and what they asked for. One that was
    /// not looked at is counted.
    fn note(&self, request: &Request, error: &Error, metrics: &Metrics) {
        if error.reason() == Some(REASON) {
            metrics.refused(REASON.to_owned());
        }
        let Some(PeerAddress(address)) = request.extensions().get::<PeerAddress>() else { return };
        if error.code() != Code::Unauthenticated {
            return;
        }
        let (route, headers) = (route(request), request.headers());
        let action = if grpc::is_grpc(headers) { route.to_string() } else { format!("{} {route}", request.method()) };
        let id = headers.get(request_id::HEADER).and_then(|id| id.to_str().ok()).unwrap_or_default();
        self.audit.refused(*address, &action, error.reason().unwrap_or("unauthenticated"), id);
    }

    /// Whom a delegate's headers name, and itself where they name nobody. The credential tells of both.
    ///
    /// # Errors
    /// `InvalidArgument` a name that can be nobody's.
    fn spoken_for(&self, who: Authenticated, headers: &HeaderMap) -> Result<Authenticated> {
        let is_delegate = who.principal.roles.iter().any(|role| self.delegates.contains(role));
        if !is_delegate || !headers.contains_key(CLAIMED[0]) {
            return Ok(who);
        }
        let mut claimed = HeaderMap::new();
        for name in CLAIMED {
            for value in headers.get_all(name) {
                claimed.append(HeaderName::from_static(name), value.clone());
            }
        }
        let named = Context::from_metadata(&MetadataMap::from_headers(claimed))?;
        Ok(Authenticated {
            principal: named.principal().clone(),
            attributes: Default::default(),
            credential: format!("{DELEGATE}{}", who.credential),
            quota: who.quota,
            key_tenant: Some(who.principal.tenant),
        })
    }
}

fn claim(headers: &mut HeaderMap, who: &Authenticated) {
    let (principal, roles) = (&who.principal, who.principal.roles.join(","));
    for (name, value) in CLAIMED.into_iter().zip([&principal.id, &principal.tenant, &roles]) {
        headers.remove(name);
        if let Ok(value) = HeaderValue::from_str(value)
            && !value.is_empty()
        {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// A request of this process's own: no request from outside has a context yet.
fn is_inner(request: &Request) -> bool {
    request.extensions().get::<Context>().is_some()
}

pub(crate) async fn http(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let Some(gate) = state.gate.as_ref().filter(|_| !is_inner(&request)) else { return next.run(request).await };
    let access = request.extensions().get::<MatchedPath>().map(|path| routes::access(path.as_str()));
    if access == Some(Some(Access::Public)) {
        return next.run(request).await;
    }
    if let Err(error) = gate.admit(&mut request).await {
        gate.note(&request, &error, &state.metrics);
        return refused(error);
    }
    let allowed = match access {
        // There is no such route: told below, to those who may ask.
        None | Some(Some(Access::Services(_))) => Ok(()),
        Some(Some(Access::Action(action))) => context(&request).and_then(|cx| gate.authorizer.allow(&cx, action)),
        Some(Some(Access::Public)) => Ok(()),
        Some(None) => Err(Error::new(Code::PermissionDenied, "no policy knows this route").with_reason("not_authorized")),
    };
    match allowed {
        Ok(()) => next.run(request).await,
        Err(error) => refused(error),
    }
}

fn context(request: &Request) -> Result<Context> {
    Context::from_request(&MetadataMap::from_headers(request.headers().clone()), request.extensions())
}

fn refused(error: Error) -> Response {
    let unauthenticated = error.code() == Code::Unauthenticated;
    let mut response = ApiError::from(error).into_response();
    if unauthenticated {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// Health is everybody's; all else wants a caller. What they may do, the guard before each service says.
pub(crate) async fn grpc(State(state): State<AppState>, mut request: Request, next: Next) -> Response {
    let Some(gate) = state.gate.as_ref().filter(|_| !is_inner(&request)) else { return next.run(request).await };
    if request.uri().path().starts_with("/grpc.health.v1.Health/") {
        return next.run(request).await;
    }
    match gate.admit(&mut request).await {
        Ok(()) => next.run(request).await,
        Err(error) => {
            gate.note(&request, &error, &state.metrics);
            Status::from(error).into_http::<Body>()
        }
    }
}
