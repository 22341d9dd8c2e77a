//! A load generator: one request after the other on kept connections, as bare as can be.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::figures::Times;

/// A request that is sent again and again.
pub(crate) struct Shot {
    bytes: Vec<u8>,
    /// The answer is complete when its body ends in this, or, for `None`, when its `content-length` is met.
    until: Option<&'static [u8]>,
}

impl Shot {
    pub(crate) fn chat(model: &str, stream: bool) -> Self {
        let body = format!(
            r#"{{"model":"{model}","messages":[{{"role":"system","content":"Be brief."}},{{"role":"user","content":"Say hello to the world, please."}}],"temperature":0,"stream":{stream}}}"#
        );
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        Self { bytes: (head + &body).into_bytes(), until: stream.then_some(b"data: [DONE]\n\n") }
    }
}

/// Sends `count` shots over each of `connections`. Times to the whole answer, and to its first byte of content.
pub(crate) async fn fire(address: SocketAddr, shot: &Shot, connections: usize, count: usize) -> Fired {
    let begun = Instant::now();
    let fired = join_all((0..connections).map(|_| one_connection(address, shot, count))).await;
    let elapsed = begun.elapsed();
    let (whole, first): (Vec<Vec<Duration>>, Vec<Vec<Duration>>) = fired.into_iter().unzip();
    Fired {
        whole: Times::new(whole.into_iter().flatten().collect()),
        first: Times::new(first.into_iter().flatten().collect()),
        per_second: (connections * count) as f64 / elapsed.as_secs_f64(),
    }
}

pub(crate) struct Fired {
    pub(crate) whole: Times,
    pub(crate) first: Times,
    pub(crate) per_second: f64,
}

async fn one_connection(address: SocketAddr, shot: &Shot, count: usize) -> (Vec<Duration>, Vec<Duration>) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    let (mut whole, mut first) = (Vec::with_capacity(count), Vec::with_capacity(count));
    let mut buffer = Vec::with_capacity(16 << 10);
    for _ in 0..count {
        let begun = Instant::now();
        socket.write_all(&shot.bytes).await.unwrap();
        buffer.clear();
        let mut seen = None;
        while !is_whole(&buffer, shot.until) {
            assert!(socket.read_buf(&mut buffer).await.unwrap() > 0, "the server hung up: {}", String::from_utf8_lossy(&buffer));
            if seen.is_none() && contains(&buffer, b"Hello") {
                seen = Some(begun.elapsed());
            }
        }
        assert!(buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer));
        whole.push(begun.elapsed());
        first.push(seen.expect("the answer has no content"));
    }
    (whole, first)
}

fn is_whole(buffer: &[u8], until: Option<&[u8]>) -> bool {
    if let Some(end) = until {
        // A chunked body ends in an empty chunk; a body of known length, in its last bytes.
        return contains(buffer, end) && (buffer.ends_with(b"0\r\n\r\n") || buffer.ends_with(end));
    }
    let Some(head) = buffer.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("an answer of unknown length");
    buffer.len() >= head + 4 + length.trim().parse::<usize>().unwrap()
}

fn contains(buffer: &[u8], wanted: &[u8]) -> bool {
    buffer.windows(wanted.len()).any(|window| window == wanted)
}
