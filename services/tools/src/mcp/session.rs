//! One session with a server, from its handshake to its end.

use std::{sync::Arc, time::Duration};

use llama_stack_core::{Deps, Result};
use rmcp::{
    ClientHandler, ClientLifecycleMode, ClientServiceExt, Peer, RoleClient,
    model::{ClientCapabilities, ClientConfig, Implementation, ProtocolVersion, SubscriptionFilter},
    service::{ClientCacheConfig, ClientInitializeError, NotificationContext, RunningService},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{config::Endpoint, failure::Failure, listing::Listed, stdio};
use crate::kept::Kept;

/// Between two attempts to be told of changes.
const LISTEN_AGAIN: Duration = Duration::from_secs(30);

pub(super) type List = Arc<Kept<Arc<Listed>>>;

/// Open until it is dropped, or the server goes away.
pub(super) struct Session {
    peer: Peer<RoleClient>,
    _ends: DropGuard,
}

impl Session {
    /// Connects and shakes hands: in the new way first, and where that comes to nothing, in the old.
    ///
    /// # Errors
    /// See [`Failure::open`].
    pub(super) async fn open(endpoint: &Endpoint, list: &List, deps: &Deps) -> Result<Self> {
        let modern = ClientLifecycleMode::Auto { preferred_versions: vec![ProtocolVersion::V_2026_07_28], legacy_version: None };
        let failure = Failure::of(endpoint, &deps.provider_id);
        let running = match shake_hands(endpoint, list, deps, modern).await? {
            Ok(running) => running,
            Err(error) if failure.is_final(&error) => return Err(failure.open(error)),
            // Some old servers end at a request that they do not know, or answer it with something that is no JSON-RPC.
            Err(first) => {
                tracing::debug!(provider = deps.provider_id, error = %first, "discovery failed; the older handshake is tried");
                let old = shake_hands(endpoint, list, deps, ClientLifecycleMode::Initialize).await?;
                old.map_err(|error| failure.open(error))?
            }
        };
        // Lists are kept here already.
        running.peer().set_response_cache_config(ClientCacheConfig::disabled()).await;
        let (peer, end) = (running.peer().clone(), CancellationToken::new());
        deps.tasks.spawn(keep(running, list.clone(), end.clone(), deps.shutdown.clone()));
        list.wake();
        Ok(Self { peer, _ends: end.drop_guard() })
    }

    pub(super) fn peer(&self) -> &Peer<RoleClient> {
        &self.peer
    }

    /// As the two have agreed.
    pub(super) fn protocol_version(&self) -> Option<String> {
        self.peer.peer_info().map(|info| info.protocol_version.to_string())
    }

    /// Whether a request may still be sent; a server that is gone over HTTP shows itself only by what becomes of it.
    pub(super) fn is_open(&self) -> bool {
        !self.peer.is_transport_closed()
    }
}

type Running = RunningService<RoleClient, Client>;

/// The outer error is this machine's, the inner one the server's.
async fn shake_hands(
    endpoint: &Endpoint,
    list: &List,
    deps: &Deps,
    mode: ClientLifecycleMode,
) -> Result<Result<Running, ClientInitializeError>> {
    let client = Client { list: list.clone() };
    match endpoint {
        Endpoint::Http(server) => Ok(client.serve_with_lifecycle(server.transport(), mode).await),
        Endpoint::Stdio(program) => {
            let (child, stderr) = program.start()?;
            if let Some(stderr) = stderr {
                deps.tasks.spawn(stdio::log(deps.provider_id.clone(), stderr));
            }
            Ok(client.serve_with_lifecycle(child, mode).await)
        }
    }
}

/// Follows the server's news until the session ends, and then lets go of it as the protocol wants: a child gets time to end.
async fn keep(running: Running, list: List, end: CancellationToken, shutdown: CancellationToken) {
    let peer = running.peer().clone();
    tokio::select! {
        () = end.cancelled() => {}
        () = shutdown.cancelled() => {}
        () = follow(&peer, &list) => {}
    }
    if let Err(error) = running.cancel().await {
        tracing::warn!(%error, "an MCP session ended in disorder");
    }
}

/// Since 2026-07-28 a client is told of changes only where it asks to be. Older servers just say so, see [`Client`].
async fn follow(peer: &Peer<RoleClient>, list: &List) {
    let asks = peer.peer_info().is_some_and(|info| {
        let tells = info.capabilities.tools.as_ref().is_some_and(|tools| tools.list_changed == Some(true));
        tells && !info.protocol_version.has_initialize()
    });
    while asks && !peer.is_transport_closed() {
        if let Ok(mut news) = peer.listen(SubscriptionFilter::builder().tools_list_changed().build()).await {
            // What changed before is not told.
            list.forget();
            while let Ok(Some(_)) = news.next().await {
                list.forget();
            }
        }
        tokio::time::sleep(LISTEN_AGAIN).await;
    }
    std::future::pending().await
}

/// What the server may ask of us: nothing. It may tell that its list has changed.
struct Client {
    list: List,
}

impl ClientHandler for Client {
    fn get_info(&self) -> ClientConfig {
        ClientConfig::new(ClientCapabilities::default(), Implementation::new("llama-stack", env!("CARGO_PKG_VERSION")))
            .with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE)
    }

    async fn on_tool_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.list.forget();
    }
}
