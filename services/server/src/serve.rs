//! One port for everything: HTTP/1.1, HTTP/2 without TLS, gRPC and gRPC-Web.
//!
//! ```text
//! accept ─ TCP_NODELAY, keep-alive ─ HTTP/1 or 2 by its first bytes ─┬─ application/grpc* ── tonic
//!                                                                     └─ else ────────────── axum
//! token cancelled: health says no · still accepting, for drain_notice_seconds · stop accepting ·
//!                  requests under way end, for drain_seconds · close
//! ```

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use ::http::Request;
use axum::{Router, body::Body};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use llama_stack_core::{Code, Error, Result};

use crate::{
    Stack, check_exposure, grpc, http,
    identity::tls::{PeerCertificate, Tls},
    openai::batches::InProcess,
};

/// A connection has this long to send its first request, and each later request's head: a slow sender holds no place.
const HEAD: Duration = Duration::from_secs(10);
/// For a new connection that has asked nothing yet. gRPC clients connect before they need to.
const SILENCE: Duration = Duration::from_secs(60);
/// Largest head of a request. Beyond it: 431.
const HEAD_BYTES: usize = 64 << 10;
/// Requests at once on one HTTP/2 connection. (Streams that a client resets in a flood are bounded by hyper's defaults.)
const STREAMS: u32 = 1_024;
/// Bytes that may come on one HTTP/2 connection before they are read; h2 counts 256 for each smaller frame, and closes a
/// connection on which frames for more than half of this wait. A small request is such a frame, and many may come at once.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// The same, of one request.
const REQUEST_WINDOW: u32 = 1 << 20;
/// A peer that is gone without a word is noticed after about this long.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How often metrics are folded into their buckets.
const FOLD: Duration = Duration::from_secs(5);

/// Binds `listen`, for example `127.0.0.1:8321`; port 0 takes a free one.
///
/// # Errors
/// `AlreadyExists` for a port in use · `PermissionDenied` · `InvalidArgument` for an address that is none of this machine's.
pub async fn bind(listen: &str) -> Result<TcpListener> {
    TcpListener::bind(listen).await.map_err(|error| {
        let (code, what) = match error.kind() {
            io::ErrorKind::AddrInUse => (Code::AlreadyExists, "the port is in use; stop what holds it, or choose another with --port"),
            io::ErrorKind::PermissionDenied => (Code::PermissionDenied, "this user may not listen there; ports below 1024 want privileges"),
            _ => (Code::InvalidArgument, "this is no address to listen on; it must be host:port, with a host of this machine"),
        };
        Error::new(code, format!("{listen}: {what}")).with_field("server.listen").with_source(error)
    })
}

impl Stack {
    /// Serves until `shutdown` is cancelled, `drain_notice_seconds` have passed, and what was under way has ended, or
    /// `drain_seconds` have passed as well. Then closes the stack. Turns that a crash cut off go on before the first request is taken.
    ///
    /// # Errors
    /// `FailedPrecondition` a listener that others reach, where callers need no credential · `Internal` where gRPC cannot be
    /// set up.
    pub async fn serve(mut self, listener: TcpListener, shutdown: CancellationToken) -> Result<()> {
        let address = listener.local_addr().map_err(|error| Error::internal("the listener has no address").with_source(error))?;
        check_exposure(&self.server, address)?;
        self.guarded();
        let state = http::AppState::new(&self, address);
        let (grpc, mut health) = grpc::router(&self, &state).await?;
        let edge = Edge { http: http::router(&state, &self.server.cors_origins), grpc };
        self.tasks.spawn(fold_metrics(self.metrics.clone(), self.shutdown.clone()));
        // Before the first request, which might be for one of them.
        match self.runtime.recover().await {
            Ok(turns) => tracing::debug!(turns, "unfinished turns taken up"),
            Err(error) => tracing::error!(code = error.code().name(), message = error.message(), "unfinished turns could not be taken up"),
        }

        if let Some(tls) = &self.tls {
            self.tasks.spawn(tls.clone().watch(self.shutdown.clone()));
        }
        self.batcher.start(Arc::new(InProcess(http::router(&state, &[]))));

        let connections = Connections::new(edge, self.tls.clone());
        connections.accept(&listener, shutdown.cancelled()).await;
        state.drain();
        health.say_not_serving().await;
        let notice = Duration::from_secs(self.server.drain_notice_seconds);
        if !notice.is_zero() {
            tracing::info!(seconds = notice.as_secs(), "not ready any more; requests are still taken");
            connections.accept(&listener, tokio::time::sleep(notice)).await;
        }
        drop(listener);
        tracing::info!(connections = connections.tasks.len(), "draining");
        health.end_watches().await;
        connections.drain(Duration::from_secs(self.server.drain_seconds)).await;
        self.close().await;
        Ok(())
    }
}

/// Both halves of the port.
#[derive(Clone)]
struct Edge {
    http: Router,
    grpc: Router,
}

impl Edge {
    async fn answer(self, mut request: Request<Incoming>, peer: Option<PeerCertificate>) -> Result<axum::response::Response, Infallible> {
        if let Some(peer) = peer {
            request.extensions_mut().insert(peer);
        }
        let router = if grpc::is_grpc(request.headers()) { self.grpc } else { self.http };
        router.oneshot(request.map(Body::new)).await
    }
}

struct Connections {
    edge: Edge,
    /// None: plain HTTP.
    tls: Option<Arc<Tls>>,
    protocols: Arc<auto::Builder<TokioExecutor>>,
    tasks: TaskTracker,
    /// Connections end after the requests that they have.
    ending: CancellationToken,
    /// Connections end now.
    cut: CancellationToken,
}

impl Connections {
    fn new(edge: Edge, tls: Option<Arc<Tls>>) -> Self {
        Self {
            edge,
            tls,
            protocols: Arc::new(protocols()),
            tasks: TaskTracker::new(),
            ending: CancellationToken::new(),
            cut: CancellationToken::new(),
        }
    }

    async fn accept(&self, listener: &TcpListener, until: impl Future<Output = ()>) {
        let mut until = std::pin::pin!(until);
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut until => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => self.spawn(stream),
                // Mostly too many open files: connections that end make room.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn spawn(&self, stream: TcpStream) {
        if let Err(error) = set_options(&stream) {
            // The peer has gone already.
            tracing::debug!(%error, "socket options could not be set");
            return;
        }
        let (edge, protocols, tls) = (self.edge.clone(), self.protocols.clone(), self.tls.clone());
        let (ending, cut) = (self.ending.clone(), self.cut.clone());
        self.tasks.spawn(async move {
            let Some(tls) = tls else { return answer(stream, None, edge, &protocols, ending, cut).await };
            let greeted = tokio::select! {
                greeted = tls.accept(stream) => greeted,
                () = cut.cancelled() => return,
            };
            match greeted {
                Ok((stream, peer)) => answer(stream, peer, edge, &protocols, ending, cut).await,
                Err(error) => tracing::debug!(error, "no TLS with a client"),
            }
        });
    }

    /// Waits for the requests under way, at most for `patience`; then cuts what is left.
    async fn drain(&self, patience: Duration) {
        self.ending.cancel();
        self.tasks.close();
        if tokio::time::timeout(patience, self.tasks.wait()).await.is_err() {
            tracing::warn!(connections = self.tasks.len(), "the drain's time is over; connections are cut");
            self.cut.cancel();
            self.tasks.wait().await;
        }
    }
}

/// One connection, to its end.
async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: Option<PeerCertificate>,
    edge: Edge,
    protocols: &auto::Builder<TokioExecutor>,
    ending: CancellationToken,
    cut: CancellationToken,
) {
    let asked = CancellationToken::new();
    let first = asked.clone();
    let service = hyper::service::service_fn(move |request| {
        first.cancel();
        edge.clone().answer(request, peer.clone())
    });
    let connection = protocols.serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let silent = async {
        if tokio::time::timeout(SILENCE, asked.cancelled()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = cut.cancelled() => return,
        () = either(ending.cancelled(), silent) => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = cut.cancelled() => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error, "connection broke");
    }
}

async fn either(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    tokio::select! {
        () = one => {}
        () = other => {}
    }
}

fn protocols() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(HEAD_BYTES).max_headers(128);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(REQUEST_WINDOW)
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_BYTES as u32)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    builder
}

/// Small answers leave at once: with Nagle's algorithm they wait for the peer's delayed acknowledgement, 40 ms.
fn set_options(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE))
}

async fn fold_metrics(metrics: crate::metrics::Metrics, shutdown: CancellationToken) {
    while tokio::time::timeout(FOLD, shutdown.cancelled()).await.is_err() {
        metrics.fold();
    }
}
