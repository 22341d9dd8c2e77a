//! Peers that are slow, silent or many, and what they may take.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::client::{PATIENCE, Server, chat, start_with, streamed};

const CHAT: &str = "/v1/chat/completions";

async fn start_bounded(bounds: &str) -> Server {
    start_with(&format!("server: {{ connections: {{ {bounds} }} }}\n")).await
}

/// All that is answered until the server ends the connection.
async fn rest(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset is an end as well.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection does not end");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_ends_the_connection() {
    let server = start_bounded("head_seconds: 1").await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nx-slow: ").await.unwrap();
    assert!(!rest(&mut stream).await.contains("200"));
}

#[tokio::test]
async fn a_connection_that_asks_nothing_ends() {
    let server = start_bounded("silent_seconds: 1").await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"PRI * HTTP/2").await.unwrap();
    rest(&mut stream).await;
}

#[tokio::test]
async fn a_body_that_stops_is_408() {
    let server = start_bounded("body_seconds: 1").await;
    let forms = [
        (CHAT, "application/json", "{\"model\":"),
        ("/mcp", "application/json", "{\"jsonrpc\":"),
        (
            "/v1/files",
            "multipart/form-data; boundary=b",
            "--b\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nhalf",
        ),
    ];
    for (path, kind, body) in forms {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: {kind}\r\ncontent-length: 500\r\n\r\n{body}"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = rest(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("body_too_slow"), "{path}: {answer}");
    }
}

/// Whoever is refused before the body was read gets to send all of it, reads why, and asks again on the same connection.
#[tokio::test]
async fn a_refusal_spares_who_is_still_sending() {
    let server = start_with("").await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let body = vec![b'x'; 16 << 20];
    let refused = [
        ("POST /v1/nothing", "application/json", "404"),
        ("GET /v1/models", "application/json", "200"),
        ("POST /v1/embeddings", "text/plain", "400"),
    ];
    for (asked, kind, status) in refused {
        let head = format!("{asked} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", body.len());
        let sent = async {
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&body).await
        };
        timeout(PATIENCE, sent).await.expect("nobody reads it").unwrap_or_else(|error| panic!("{asked}: {error}"));
        let mut answer = vec![0; 64 << 10];
        let read = timeout(PATIENCE, stream.read(&mut answer)).await.expect("no answer").unwrap();
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{asked}: {answer}");
    }
}

/// Small pieces, each in time, are slow as well.
#[tokio::test]
async fn a_body_that_drips_is_408() {
    let server = start_bounded("body_seconds: 1").await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (mut reader, mut writer) = stream.into_split();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: 5000\r\n\r\n"
    );
    writer.write_all(head.as_bytes()).await.unwrap();
    let dripping = tokio::spawn(async move {
        while writer.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    let mut answer = vec![0; 12];
    timeout(PATIENCE, reader.read_exact(&mut answer)).await.expect("it may drip for ever").unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 408");
    dripping.abort();
}

#[tokio::test]
async fn a_grpc_message_that_stops_is_deadline_exceeded() {
    let server = start_bounded("body_seconds: 1").await;
    let head = b"\0\0\0\x01\0half".to_vec();
    let body = futures::stream::once(async { Ok::<_, std::io::Error>(head) });
    let body = futures::StreamExt::chain(body, futures::stream::pending());
    let request = server.http.post(server.url("/llama_stack.v1.Inference/ListModels"));
    let request = request.header("content-type", "application/grpc-web+proto").body(reqwest::Body::wrap_stream(body));
    let response = request.send().await.unwrap();
    let header = response.headers().get("grpc-status").map(|code| code.to_str().unwrap().to_owned());
    let trailer = response.text().await.unwrap_or_default();
    assert!(header.as_deref() == Some("4") || trailer.contains("grpc-status:4"), "{header:?} {trailer:?}");
}

/// The model goes on without end; once its reader is held to be gone, it stops.
#[tokio::test]
async fn an_answer_that_nobody_reads_is_given_up() {
    let server = start_bounded("unread_seconds: 1").await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    socket2::SockRef::from(&stream).set_recv_buffer_size(4_096).unwrap();
    let body = streamed("flood").to_string();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    server.script.dropped().await;
}

#[tokio::test]
async fn beyond_the_most_the_longest_idle_connection_ends() {
    let server = start_bounded("max: 2").await;
    let mut idle = TcpStream::connect(server.address).await.unwrap();
    // Busy up to the end of this test.
    let busy = server.post(CHAT, &streamed("slow")).await;
    assert_eq!(busy.status(), StatusCode::OK);
    let other = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
    let response = other.post(server.url(CHAT)).json(&chat("hi")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(rest(&mut idle).await, "");
    server.script.go_on();
    assert!(busy.text().await.unwrap().contains("[DONE]"));
}

#[tokio::test]
async fn one_address_has_so_many_connections_and_the_next_is_closed_at_once() {
    let server = start_bounded("per_address: 2").await;
    let first = TcpStream::connect(server.address).await.unwrap();
    let second = TcpStream::connect(server.address).await.unwrap();
    let mut third = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(rest(&mut third).await, "");
    // One that ends makes room, and what was refused is counted.
    drop(first);
    let asked = async {
        loop {
            match server.http.get(server.url("/metrics")).send().await {
                Ok(response) => return response.text().await.unwrap(),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    let metrics = timeout(PATIENCE, asked).await.expect("the place was not given back");
    let refused = metrics.lines().find_map(|line| line.strip_prefix("llama_stack_connections_refused_total{limit=\"per_address\"} "));
    assert!(refused.unwrap().parse::<u64>().unwrap() >= 1, "{metrics}");
    drop(second);
}

async fn send_all(stream: &mut TcpStream, path: &str, body: &[u8]) -> std::io::Result<()> {
    let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    for piece in body.chunks(100_000) {
        stream.write_all(piece).await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Its connections are not counted, for all callers are behind it; what each of them has under way is.
#[tokio::test]
async fn behind_a_trusted_proxy_one_address_has_so_many_requests_and_another_its_own() {
    let server = start_with("server: { trusted_proxies: [127.0.0.1], connections: { per_address: 1 } }\n").await;
    let _idle = [TcpStream::connect(server.address).await.unwrap(), TcpStream::connect(server.address).await.unwrap()];
    let ask = |from: &str, body: serde_json::Value| {
        let request = server.http.post(server.url(CHAT)).header("x-forwarded-for", format!("6.6.6.6, {from}"));
        request.json(&body).send()
    };
    let slow = ask("192.0.2.1", streamed("slow")).await.unwrap();
    assert_eq!(slow.status(), StatusCode::OK);
    let refused = ask("192.0.2.1", chat("hi")).await.unwrap();
    assert_eq!((refused.status(), refused.headers()["retry-after"].to_str().unwrap()), (StatusCode::TOO_MANY_REQUESTS, "1"));
    assert!(refused.text().await.unwrap().contains("this address has 1 requests under way"));
    assert_eq!(ask("192.0.2.2", chat("hi")).await.unwrap().status(), StatusCode::OK);
    server.script.go_on();
    slow.text().await.unwrap();
    let again = async {
        while ask("192.0.2.1", chat("hi")).await.unwrap().status() != StatusCode::OK {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, again).await.expect("the place was not given back");
}

/// A client that sends all before it reads sees the refusal, not a connection that broke.
#[tokio::test]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    let server = start_bounded("").await;
    let large = "x".repeat(600_000);
    for path in ["/v1/nothing", "/v1/vector_stores/%ff"] {
        let mut sent = Ok(());
        for _ in 0..10 {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            let begun = Instant::now();
            sent = send_all(&mut stream, path, large.as_bytes()).await;
            if sent.is_ok() {
                let answer = rest(&mut stream).await;
                assert!(answer.starts_with("HTTP/1.1 40"), "{path}: {answer}");
                break;
            }
            // The server reads on for two seconds: a machine that stood still for so long has not shown anything.
            assert!(begun.elapsed() > Duration::from_secs(1), "{path}: {sent:?}");
        }
        sent.unwrap();
    }
}
