//! One port for everything: HTTP/1.1, HTTP/2 without TLS, gRPC and gRPC-Web.
//!
//! ```text
//! accept ─ a place ─ TCP_NODELAY, keep-alive ─ HTTP/1 or 2 by its first bytes ─┬─ application/grpc* ── tonic
//!                                                                     └─ else ────────────── axum
//! token cancelled: health says no · still accepting, for drain_notice_seconds · stop accepting ·
//!                  requests under way end, for drain_seconds · close
//! ```

use std::{
    convert::Infallible,
    io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use ::http::{Request, Uri, uri::PathAndQuery};
use axum::{Router, body::Body};
use http_body::Body as _;
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

use llama_stack_core::{Code, Error, Result, manifest};

use crate::{
    Stack, check_exposure,
    connections::{Answers, Full, Paced, Peer, Places, Proxies, Seldom, Socket},
    grpc,
    history::AuditLog,
    http,
    identity::tls::{Failure, PeerCertificate, Tls},
    metrics::Metrics,
    openai::batches::InProcess,
};

/// Largest head of a request. Beyond it: 431.
const HEAD_BYTES: usize = 64 << 10;
/// Bytes that may come on one HTTP/2 connection before they are read; h2 counts 256 for each smaller frame, and closes a
/// connection on which frames for more than half of this wait. A small request is such a frame, and many may come at once.
const CONNECTION_WINDOW: u32 = 4 << 20;
/// The same, of one request.
const REQUEST_WINDOW: u32 = 1 << 20;
/// A peer that is gone without a word is noticed after about this long.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// A connection that ends for another's sake may finish what it says for so long.
const LAST_WORDS: Duration = Duration::from_secs(2);
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

        let audit = AuditLog::new(self.requests.clone());
        let greeting = self.tls.clone().map(|tls| Greeting { tls, metrics: self.metrics.clone(), audit });
        let connections = Connections::new(edge, greeting, &self.server, self.metrics.clone());
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
    async fn answer(
        self,
        request: Request<Incoming>,
        certificate: Option<PeerCertificate>,
        bounds: manifest::Connections,
        (peer, answers): (Arc<Peer>, Arc<Answers>),
    ) -> Result<axum::response::Response, Infallible> {
        let mut busy = peer.begin();
        let patience = Duration::from_secs(bounds.body_seconds);
        let mut request = request.map(|body| if body.is_end_stream() { Body::new(body) } else { Body::new(Paced::new(body, patience)) });
        let (address, crowded) = busy.of(request.headers());
        request.extensions_mut().insert(address);
        if let Some(crowded) = crowded {
            request.extensions_mut().insert(crowded);
        }
        if let Some(certificate) = certificate {
            request.extensions_mut().insert(certificate);
        }
        if let Some(uri) = renewed(request.uri()) {
            *request.uri_mut() = uri;
        }
        let router = if grpc::is_grpc(request.headers()) { self.grpc } else { self.http };
        let response = router.oneshot(request).await;
        response.map(|response| response.map(|body| Body::new(answers.watch(body, busy))))
    }
}

/// Llama Stack's clients before 0.3 know the OpenAI API under `/v1/openai`. Before anything looks at the path: one thing has one
/// name for those who let in, count and log.
fn renewed(uri: &Uri) -> Option<Uri> {
    let path = uri.path_and_query()?.as_str().strip_prefix("/v1/openai").filter(|path| path.starts_with("/v1/"))?;
    let path = path.parse::<PathAndQuery>().ok()?;
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path);
    Uri::from_parts(parts).ok()
}

/// TLS, and where it is told that there is none with a client.
#[derive(Clone)]
struct Greeting {
    tls: Arc<Tls>,
    metrics: Metrics,
    audit: AuditLog,
}

impl Greeting {
    /// A certificate that does not count is a refused credential; all else is noise, such as the looks of balancers and scanners.
    fn failed(&self, address: IpAddr, failure: &Failure) {
        let Failure { reason, error } = failure;
        self.metrics.handshake_failed(reason);
        if *reason == Failure::CERTIFICATE {
            self.audit.refused(address, "TLS handshake", "invalid_certificate", "");
        }
        tracing::debug!(%address, reason, error, "no TLS with a client");
    }
}

/// What whoever opens many connections must not fill the log with.
#[derive(Default)]
struct Lines {
    unaccepted: Seldom,
    refused: Seldom,
}

struct Connections {
    edge: Edge,
    /// None: plain HTTP.
    greeting: Option<Greeting>,
    bounds: manifest::Connections,
    places: Arc<Places>,
    metrics: Metrics,
    lines: Lines,
    protocols: Arc<auto::Builder<TokioExecutor>>,
    tasks: TaskTracker,
    /// Connections end after the requests that they have.
    ending: CancellationToken,
    /// Connections end now.
    cut: CancellationToken,
}

impl Connections {
    fn new(edge: Edge, greeting: Option<Greeting>, server: &manifest::Server, metrics: Metrics) -> Self {
        let (bounds, proxies) = (server.connections, Proxies(server.trusted_proxies.clone(), server.proxy_header));
        Self {
            edge,
            greeting,
            bounds,
            places: Places::new(bounds.max, bounds.per_address, proxies),
            metrics,
            lines: Lines::default(),
            protocols: Arc::new(protocols(bounds)),
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
                Ok((stream, address)) => self.spawn(stream, address.ip().to_canonical()),
                // Mostly too many open files: connections that end make room.
                Err(error) => {
                    if let Some(count) = self.lines.unaccepted.due(Instant::now()) {
                        tracing::warn!(%error, count, "a connection could not be accepted");
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn spawn(&self, stream: TcpStream, address: IpAddr) {
        let peer = match self.places.enter(address) {
            Ok(peer) => peer,
            Err(full) => {
                self.metrics.connection_refused(full.name());
                match full {
                    Full::Max => {
                        if let Some(count) = self.lines.refused.due(Instant::now()) {
                            tracing::warn!(count, "connections are refused: as many as may be are there, and each is busy");
                        }
                    }
                    Full::PerAddress => tracing::debug!(%address, "a connection is refused: its address has as many as it may"),
                }
                return;
            }
        };
        if let Err(error) = set_options(&stream) {
            // The peer has gone already.
            tracing::debug!(%error, "socket options could not be set");
            return;
        }
        let (greeting, cut) = (self.greeting.clone(), self.cut.clone());
        let connection = Connection {
            edge: self.edge.clone(),
            protocols: self.protocols.clone(),
            bounds: self.bounds,
            peer,
            ending: self.ending.clone(),
            cut: self.cut.clone(),
        };
        // Before it has asked anything it is among the idle, and may have to make room.
        let given_up = connection.peer.ending.clone();
        self.tasks.spawn(async move {
            let Some(greeting) = greeting else { return connection.answer(stream, None).await };
            let greeted = tokio::select! {
                greeted = greeting.tls.accept(stream) => greeted,
                () = cut.cancelled() => return,
                () = given_up.cancelled() => return,
            };
            match greeted {
                Ok((stream, certificate)) => connection.answer(stream, certificate).await,
                Err(failure) => greeting.failed(address, &failure),
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

/// One connection.
struct Connection {
    edge: Edge,
    protocols: Arc<auto::Builder<TokioExecutor>>,
    bounds: manifest::Connections,
    peer: Arc<Peer>,
    ending: CancellationToken,
    cut: CancellationToken,
}

impl Connection {
    /// To its end.
    async fn answer(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, certificate: Option<PeerCertificate>) {
        let Self { edge, protocols, bounds, peer, ending, cut } = self;
        let (asked, answers) = (CancellationToken::new(), Arc::new(Answers::default()));
        let (first, of_answers, place) = (asked.clone(), answers.clone(), peer.clone());
        let service = hyper::service::service_fn(move |request| {
            first.cancel();
            edge.clone().answer(request, certificate.clone(), bounds, (place.clone(), of_answers.clone()))
        });
        let unread = Duration::from_secs(bounds.unread_seconds);
        let connection = protocols.serve_connection(TokioIo::new(Socket::new(stream, unread)), service);
        let mut connection = std::pin::pin!(connection);
        let silent = async {
            if tokio::time::timeout(Duration::from_secs(bounds.silent_seconds), asked.cancelled()).await.is_ok() {
                std::future::pending::<()>().await;
            }
        };
        let watching = give_up(answers, unread);
        // Ends once the connection may be cut although something is under way.
        let last_words = async {
            peer.ending.cancelled().await;
            tokio::time::sleep(LAST_WORDS).await;
        };
        let (mut watching, mut last_words) = (std::pin::pin!(watching), std::pin::pin!(last_words));
        let end = either(ending.cancelled(), either(peer.ending.cancelled(), silent));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = cut.cancelled() => return,
            () = watching.as_mut() => return,
            () = end => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection.as_mut() => ended,
                    () = cut.cancelled() => return,
                    () = watching.as_mut() => return,
                    () = last_words.as_mut() => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(error, "connection broke");
        }
    }
}

async fn give_up(answers: Arc<Answers>, unread: Duration) {
    let mut looks = tokio::time::interval((unread / 4).max(Duration::from_millis(250)));
    loop {
        looks.tick().await;
        answers.give_up(unread);
    }
}

async fn either(one: impl Future<Output = ()>, other: impl Future<Output = ()>) {
    tokio::select! {
        () = one => {}
        () = other => {}
    }
}

fn protocols(bounds: manifest::Connections) -> auto::Builder<TokioExecutor> {
    let head = Duration::from_secs(bounds.head_seconds);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(head).max_buf_size(HEAD_BYTES).max_headers(128);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(REQUEST_WINDOW)
        // A flood of streams that are opened and reset is bounded by hyper's defaults.
        .max_concurrent_streams(bounds.max_streams)
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

async fn fold_metrics(metrics: Metrics, shutdown: CancellationToken) {
    while tokio::time::timeout(FOLD, shutdown.cancelled()).await.is_err() {
        metrics.fold();
    }
}
