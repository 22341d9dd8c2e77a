//! From the port to the drain.

use futures::StreamExt;
use llama_stack_core::{Code, Manifest};
use llama_stack_server::{Stack, bind};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    client::{PATIENCE, chat, lines, manifest, options, start, start_with, streamed},
    scripted::Script,
};

const CHAT: &str = "/v1/chat/completions";

#[tokio::test]
async fn who_goes_away_ends_the_generation() {
    let server = start().await;
    // In the middle of a stream.
    let mut body = server.post(CHAT, &streamed("forever")).await.bytes_stream();
    body.next().await.unwrap().unwrap();
    drop(body);
    server.script.dropped().await;
    // Before anything was said.
    let asking = server.http.post(server.url(CHAT)).json(&chat("silent")).send();
    tokio::select! {
        answer = asking => panic!("it was answered: {answer:?}"),
        () = server.script.was_asked("silent") => {}
    }
    server.script.dropped().await;
}

#[tokio::test]
async fn a_drain_finishes_what_is_under_way_and_takes_nothing_new() {
    let server = start().await;
    let mut body = server.post(CHAT, &streamed("slow")).await.bytes_stream();
    let mut told = body.next().await.unwrap().unwrap().to_vec();
    server.stop.cancel();
    // The listener closes at once; what is under way does not.
    let refused = async {
        while TcpStream::connect(server.address).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, refused).await.expect("still accepting");
    assert!(!server.served.is_finished());
    server.script.go_on();
    while let Some(piece) = body.next().await {
        told.extend_from_slice(&piece.unwrap());
    }
    let told = lines(std::str::from_utf8(&told).unwrap());
    assert!(told.contains("and done") && told.ends_with("data: [DONE]"), "{told}");
    timeout(PATIENCE, server.served).await.expect("did not stop").unwrap().unwrap();
}

#[tokio::test]
async fn a_drain_is_told_while_requests_are_still_taken() {
    // A notice that no machine sleeps through.
    let server = start_with("server: { drain_notice_seconds: 3600 }\n").await;
    server.stop.cancel();
    let told = async { while server.get("/readyz").await.status() != 503 {} };
    timeout(PATIENCE, told).await.expect("still ready");
    assert_eq!(server.post(CHAT, &chat("hi")).await.status(), 200);
    assert!(!server.served.is_finished());
    // And it has an end.
    let server = start_with("server: { drain_notice_seconds: 1 }\n").await;
    server.stop.cancel();
    timeout(PATIENCE, server.served).await.expect("did not stop").unwrap().unwrap();
}

/// Neither connections that rest nor watchers of the health service keep a stack from stopping.
#[tokio::test]
async fn idle_connections_do_not_hold_up_a_drain() {
    let server = start().await;
    server.get("/livez").await.text().await.unwrap();
    let silent = TcpStream::connect(server.address).await.unwrap();
    let channel = tonic::transport::Endpoint::from_shared(server.url("")).unwrap().connect().await.unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(channel);
    let request = tonic_health::pb::HealthCheckRequest { service: "llama_stack.v1.Inference".into() };
    let mut watch = health.watch(request).await.unwrap().into_inner();
    assert_eq!(watch.next().await.unwrap().unwrap().status, 1, "serving");
    server.stop.cancel();
    assert_eq!(watch.next().await.unwrap().unwrap().status, 2, "not serving");
    timeout(PATIENCE, server.served).await.expect("did not stop").unwrap().unwrap();
    drop(silent);
}

/// As after a restart, when all clients come back: h2 takes small frames that nobody has read yet for a flood.
#[tokio::test]
async fn a_thousand_small_requests_at_once_share_one_connection() {
    let server = start().await;
    let channel = tonic::transport::Endpoint::from_shared(server.url("")).unwrap().connect().await.unwrap();
    let health = tonic_health::pb::health_client::HealthClient::new(channel);
    let asked = futures::future::join_all((0..1_000).map(|_| {
        let mut health = health.clone();
        async move { health.check(tonic_health::pb::HealthCheckRequest { service: "llama_stack.v1.Inference".into() }).await }
    }));
    for answer in timeout(PATIENCE, asked).await.expect("they wait for ever") {
        assert_eq!(answer.unwrap().into_inner().status, 1, "serving");
    }
}

#[tokio::test]
async fn a_drain_has_an_end() {
    let server = start_with("server: { drain_seconds: 1 }\n").await;
    let mut body = server.post(CHAT, &streamed("forever")).await.bytes_stream();
    body.next().await.unwrap().unwrap();
    server.stop.cancel();
    timeout(PATIENCE, server.served).await.expect("did not stop").unwrap().unwrap();
    server.script.dropped().await;
}

#[tokio::test]
async fn a_port_in_use_is_said_clearly() {
    let taken = bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = bind(&address).await.unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);
    assert!(error.message().contains(&address) && error.message().contains("in use"), "{error}");
    assert_eq!(bind("no host at all").await.unwrap_err().code(), Code::InvalidArgument);
}

/// A client that sends its head drop by drop is shown out.
#[tokio::test]
async fn a_slow_head_is_cut_off() {
    let server = start().await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\nx-slow: ").await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection was kept").unwrap();
}

#[tokio::test]
async fn a_check_finds_what_a_start_would() {
    let (script, home) = (Script::default(), TempDir::new().unwrap());
    let checked = Stack::check(manifest(""), &script.registry(), options(&home)).await.unwrap();
    assert_eq!((checked.providers[0].id.as_str(), checked.providers[0].status), ("scripted", 1));
    let text = "version: 1\nname: t\nproviders:\n  inference:\n    - id: a\n      type: inline::nope\n";
    let manifest = Manifest::parse(text, "m.yaml").unwrap();
    let error = Stack::check(manifest, &script.registry(), options(&home)).await.unwrap_err();
    let message = error.message();
    assert!(message.starts_with("m.yaml:6: providers.inference[0].type: no provider type \"inline::nope\"; there is: "), "{message}");
}
