//! What is connected to, over real sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::{
    io::{self, Write},
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request as Incoming, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response as Answer},
    routing::any,
};
use llama_stack_core::{Code, Context, Error, manifest::Egress};
use llama_stack_egress::{Client, Limits, Lookup, Request, Response, SystemDns};
use tokio::net::TcpListener;
use url::Url;

/// A server that answers `/to?URL` with a redirect there, and all else with what it was asked.
struct Server {
    address: SocketAddr,
    seen: Seen,
}

type Seen = Arc<Mutex<Vec<(String, HeaderMap)>>>;

async fn serve() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, seen) = (listener.local_addr().unwrap(), Seen::default());
    let app = Router::new().fallback(any(answer)).with_state(seen.clone());
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    Server { address, seen }
}

async fn answer(State(seen): State<Seen>, request: Incoming) -> Answer {
    let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
    seen.lock().unwrap().push((format!("{} {path}", request.method()), request.headers().clone()));
    match path.as_str() {
        "/to" => (StatusCode::FOUND, [(header::LOCATION, query)]).into_response(),
        "/round" => (StatusCode::FOUND, [(header::LOCATION, "/round".to_owned())]).into_response(),
        "/bomb" => ([(header::CONTENT_ENCODING, "gzip")], bomb()).into_response(),
        "/packed" => ([(header::CONTENT_ENCODING, "gzip")], packed(b"hello")).into_response(),
        "/torn" => ([(header::CONTENT_ENCODING, "gzip")], packed(b"hello")[..12].to_vec()).into_response(),
        "/odd" => ([(header::CONTENT_ENCODING, "br")], "x").into_response(),
        "/endless" => Body::from_stream(futures::stream::repeat_with(|| Ok::<_, io::Error>(vec![b'x'; 4096]))).into_response(),
        "/silent" => std::future::pending().await,
        _ => path.into_response(),
    }
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// 64 MiB in about 64 KiB.
fn bomb() -> Vec<u8> {
    packed(&vec![0; 64 << 20])
}

impl Server {
    fn url(&self, path: &str) -> Url {
        format!("http://{}{path}", self.address).parse().unwrap()
    }

    fn asked(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn headers(&self) -> HeaderMap {
        self.seen.lock().unwrap().last().unwrap().1.clone()
    }
}

fn limits() -> Limits {
    Limits { max_bytes: 100_000, ..Limits::default() }
}

/// Only the port of `server` is open.
fn allowing(server: &Server) -> Client {
    Client::new(Egress::default().with_server(&server.url("/")), limits())
}

async fn get(client: &Client, url: Url) -> Result<Response, Error> {
    client.send(&Context::test("a"), Request::get(url)).await
}

/// Answers with the next of a list of addresses, and with the last from then on.
struct Rebinding {
    answers: Vec<&'static str>,
    asked: AtomicUsize,
}

impl Rebinding {
    fn new(answers: &[&'static str]) -> Arc<Self> {
        Arc::new(Self { answers: answers.to_vec(), asked: AtomicUsize::new(0) })
    }
}

#[async_trait::async_trait]
impl Lookup for Rebinding {
    async fn lookup(&self, _name: &str) -> io::Result<Vec<IpAddr>> {
        let at = self.asked.fetch_add(1, Ordering::SeqCst).min(self.answers.len() - 1);
        Ok(self.answers[at].split(' ').map(|address| address.parse().unwrap()).collect())
    }
}

/// The check sees a public address, the connection would get this machine's.
#[tokio::test]
async fn a_name_that_turns_private_after_it_was_checked_is_not_connected_to() {
    let server = serve().await;
    let dns = Rebinding::new(&["93.184.216.34", "127.0.0.1"]);
    let client = Client::with_lookup(Egress::default(), limits(), dns.clone());
    let url: Url = format!("http://rebinding.example:{}/", server.address.port()).parse().unwrap();
    client.check(&url).await.unwrap();
    let error = get(&client, url).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::PermissionDenied, Some("egress_refused")));
    assert!(
        error.message().starts_with("rebinding.example may not be reached: 127.0.0.1 is this machine (loopback)"),
        "{}",
        error.message()
    );
    assert_eq!((dns.asked.load(Ordering::SeqCst), server.asked()), (2, 0));
}

/// The same for what speaks over a connection itself.
#[tokio::test]
async fn a_bare_connection_goes_where_it_may_and_nowhere_else() {
    let server = serve().await;
    let url: Url = format!("http://rebinding.example:{}/", server.address.port()).parse().unwrap();
    let client = Client::with_lookup(Egress::default(), limits(), Rebinding::new(&["93.184.216.34", "127.0.0.1"]));
    client.check(&url).await.unwrap();
    let error = client.connect(&url).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::PermissionDenied, Some("egress_refused")));
    assert_eq!(client.connect(&server.url("/")).await.unwrap_err().reason(), Some("egress_refused"), "its address written out");
    assert_eq!(allowing(&server).connect(&server.url("/")).await.unwrap().peer_addr().unwrap(), server.address);
}

/// The same name and server pass where the manifest allows the address: so it was the guard that refused, not the network.
#[tokio::test]
async fn a_name_reaches_an_address_that_is_allowed_on_that_port_alone() {
    let (open, shut) = (serve().await, serve().await);
    let egress = Egress { allow: vec![format!("127.0.0.1:{}", open.address.port()).parse().unwrap()], ..Egress::default() };
    let client = Client::with_lookup(egress, limits(), Rebinding::new(&["10.0.0.1 127.0.0.1"]));
    let url = |server: &Server| format!("http://name.example:{}/hello", server.address.port()).parse::<Url>().unwrap();
    assert_eq!(&get(&client, url(&open)).await.unwrap().body[..], b"/hello");
    assert_eq!(get(&client, url(&shut)).await.unwrap_err().reason(), Some("egress_refused"));
    assert_eq!((open.asked(), shut.asked()), (1, 0));
}

#[tokio::test]
async fn each_hop_of_a_redirect_is_checked() {
    let (open, shut) = (serve().await, serve().await);
    let client = allowing(&open);
    let port = shut.address.port();
    let hosts = ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "127.1"];
    for target in hosts.map(|host| format!("http://{host}:{port}/")) {
        let error = get(&client, open.url(&format!("/to?{target}"))).await.unwrap_err();
        assert_eq!(error.reason(), Some("egress_refused"), "{target}: {error:?}");
    }
    for target in ["http://169.254.169.254/latest/", "file:///etc/passwd", "http://[::1]/", "//10.0.0.1/"] {
        let error = get(&client, open.url(&format!("/to?{target}"))).await.unwrap_err();
        assert_eq!(error.reason(), Some("egress_refused"), "{target}: {error:?}");
    }
    assert_eq!(shut.asked(), 0);
    let there = get(&client, open.url(&format!("/to?{}", open.url("/there")))).await.unwrap();
    assert_eq!((there.url, &there.body[..]), (open.url("/there"), &b"/there"[..]));
}

#[tokio::test]
async fn keys_do_not_follow_a_redirect_to_another_origin() {
    let (first, second) = (serve().await, serve().await);
    let client = Client::new(Egress::default().with_server(&first.url("/")).with_server(&second.url("/")), limits());
    let request = |to: Url| Request::get(first.url(&format!("/to?{to}"))).with_header("x-api-key", "k").unwrap();
    client.send(&Context::test("a"), request(first.url("/"))).await.unwrap();
    assert!(first.headers().contains_key("x-api-key"));
    client.send(&Context::test("a"), request(second.url("/"))).await.unwrap();
    assert!(!second.headers().contains_key("x-api-key"));
    let mut url = first.url(&format!("/to?{}", second.url("/")));
    url.set_username("user").unwrap();
    let there = get(&client, url).await.unwrap();
    assert!(first.headers().contains_key("authorization") && !second.headers().contains_key("authorization"));
    assert_eq!(there.url.username(), "");
}

#[tokio::test]
async fn redirects_end() {
    let server = serve().await;
    let error = get(&allowing(&server), server.url("/round")).await.unwrap_err();
    assert_eq!((error.reason(), server.asked()), (Some("too_many_redirects"), 6));
}

#[tokio::test]
async fn a_body_ends_at_the_limit_packed_or_not() {
    let server = serve().await;
    let client = allowing(&server);
    for path in ["/endless", "/bomb"] {
        let response = get(&client, server.url(path)).await.unwrap();
        assert!(!response.complete && response.body.len() <= 100_000, "{path}: {}", response.body.len());
        assert_eq!(response.json::<u8>().unwrap_err().code(), Code::TooLarge);
    }
    let response = get(&client, server.url("/packed")).await.unwrap();
    assert_eq!((&response.body[..], response.complete), (&b"hello"[..], true));
    for path in ["/torn", "/odd"] {
        assert_eq!(get(&client, server.url(path)).await.unwrap_err().reason(), Some("upstream_malformed"), "{path}");
    }
}

#[tokio::test]
async fn a_server_that_says_nothing_is_left() {
    let server = serve().await;
    let brief = Limits { total: Duration::from_millis(50), ..limits() };
    let client = Client::new(Egress::default().with_server(&server.url("/")), brief);
    let error = get(&client, server.url("/silent")).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::DeadlineExceeded, Some("upstream_timeout")));
    let hurried = Context::test("a").with_timeout(Duration::from_millis(20));
    let error = allowing(&server).send(&hurried, Request::get(server.url("/silent"))).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::DeadlineExceeded, None));
}

#[tokio::test]
async fn a_client_for_a_library_keeps_to_the_rules_too() {
    let (open, shut) = (serve().await, serve().await);
    let egress = Egress { allow: vec![format!("localhost:{}", open.address.port()).parse().unwrap()], ..Egress::default() };
    let client = Client::with_lookup(egress, limits(), Arc::new(SystemDns));
    assert_eq!(client.for_origin(&shut.url("/")).err().unwrap().reason(), Some("egress_refused"));
    let url = |server: &Server, path: &str| format!("http://localhost:{}{path}", server.address.port());
    let plain = client.for_origin(&url(&open, "/").parse().unwrap()).unwrap();
    assert_eq!(plain.get(url(&open, "/x")).send().await.unwrap().text().await.unwrap(), "/x");
    assert_eq!(plain.get(url(&open, &format!("/to?{}", shut.url("/")))).send().await.unwrap().status(), 302);
    let other = client.for_origin(&url(&shut, "/").parse().unwrap()).unwrap();
    other.get(url(&shut, "/x")).send().await.unwrap_err();
    assert_eq!(shut.asked(), 0);
}
