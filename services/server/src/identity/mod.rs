//! Who calls, at the edge of both halves of the port: one gate, before any handler.
//!
//! ```text
//! TLS: client certificate ─┐
//! Authorization: Bearer ───┴─ Attempts of the address ─ Authenticator ─> Authenticated in the request's extensions ─> Context ─> Guarded<dyn …>
//! HTTP route ─ routes::access: public, an action of its own, or the services' ┘
//! ```

mod api_keys;
mod attempts;
mod edge;
mod exposure;
mod routes;
pub(crate) mod tls;

use std::sync::Arc;

use llama_stack_core::{Identity, Manifest, Result, guard::Guarded, manifest::Mtls};
use llama_stack_identity::{ApiKeyBook, Authenticator, Authorizer, Policies};
use llama_stack_store::Store;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use api_keys::routes;
pub(crate) use edge::{grpc, http};
pub use exposure::{check_exposure, check_listen};
pub(crate) use routes::{Route, route};

use crate::{Options, Stack, assemble, history::AuditLog};
use attempts::Attempts;

/// Tells callers apart, and says what they may do.
pub(crate) struct Gate {
    authenticator: Authenticator,
    authorizer: Arc<Authorizer>,
    mtls: Option<Mtls>,
    /// Roles whose holders speak for others.
    delegates: Vec<String>,
    attempts: Attempts,
    /// Where refused credentials are written down.
    audit: AuditLog,
}

impl Gate {
    /// None where the manifest has no `server.auth`. Its policies are read again when their files change, until `shutdown`.
    ///
    /// # Errors
    /// `InvalidArgument`, with the manifest's line, or the file and line of a policy.
    pub(crate) fn from_manifest(
        manifest: &Manifest,
        store: &Store,
        audit: AuditLog,
        tasks: &TaskTracker,
        shutdown: &CancellationToken,
    ) -> Result<Option<Self>> {
        let (Some(authenticator), Some(auth)) = (Authenticator::from_manifest(manifest, store)?, &manifest.server.auth) else {
            return Ok(None);
        };
        let policies = Arc::new(Policies::from_manifest(manifest)?);
        tasks.spawn(policies.clone().watch(shutdown.clone()));
        let told = audit.clone();
        let authorizer = Authorizer::new(policies, store.clone()).telling(Box::new(move |cx, decision| told.access(cx, decision)));
        let authorizer = Arc::new(authorizer);
        let (mtls, delegates, attempts) = (auth.mtls.clone(), auth.delegates.clone(), Attempts::new(auth.attempts));
        Ok(Some(Self { authenticator, authorizer, mtls, delegates, attempts, audit }))
    }
}

impl Stack {
    /// Puts the guard before every service that callers reach. What runs inside, as the turns of agents, is not asked again.
    pub(crate) fn guarded(&mut self) {
        let Some(gate) = &self.gate else { return };
        let guard = gate.authorizer.clone();
        macro_rules! guard {
            ($($service:ident),*) => { $(self.$service = Arc::new(Guarded::new(self.$service.clone(), guard.clone()));)* };
        }
        guard!(inference, safety, memory, files, batches, tools, agents, prompts, info, identity, history);
    }
}

/// Whether the certificate that a manifest names, if it does, can be shown.
///
/// # Errors
/// `InvalidArgument`, with the manifest's line: a file that cannot be read, or is not what it should be.
pub fn check_tls(manifest: &Manifest) -> Result<()> {
    tls::Tls::from_manifest(manifest).map(drop)
}

/// The API keys of a distribution's store, where no stack runs: for the first key.
///
/// # Errors
/// As opening its store.
pub async fn offline_keys(manifest: &Manifest, options: &Options) -> Result<Arc<dyn Identity>> {
    let store = assemble::store(manifest, &options.home).await?;
    Ok(Arc::new(ApiKeyBook::new(store)))
}
