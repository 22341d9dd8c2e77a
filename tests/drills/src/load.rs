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

/// What clients of a busy server see, who take a refusal for an answer.
#[derive(Default)]
pub(crate) struct Seen {
    /// Times of answers with 200, in the order of their ends.
    pub(crate) answered: Vec<Duration>,
    /// Times of refusals: 429 and 503.
    pub(crate) refused: Vec<Duration>,
    /// Anything else, for example a connection that broke.
    pub(crate) broken: usize,
}

impl Seen {
    pub(crate) fn add(&mut self, other: Self) {
        self.answered.extend(other.answered);
        self.refused.extend(other.refused);
        self.broken += other.broken;
    }
}

/// Sends shots over each of `connections` until `time` is over. Who is refused comes back after `pause`.
pub(crate) async fn press(address: SocketAddr, shot: &Shot, connections: usize, time: Duration, pause: Duration) -> Seen {
    let begun = Instant::now();
    let clients = (0..connections).map(|_| async move {
        let mut seen = Seen::default();
        let mut socket = None;
        while begun.elapsed() < time {
            match one_shot(address, shot, &mut socket, &mut seen).await {
                Ok(true) => {}
                Ok(false) => tokio::time::sleep(pause).await,
                Err(_) => {
                    seen.broken += 1;
                    socket = None;
                    tokio::time::sleep(pause).await;
                }
            }
        }
        seen
    });
    let mut all = Seen::default();
    join_all(clients).await.into_iter().for_each(|seen| all.add(seen));
    all
}

/// False: it was refused.
async fn one_shot(address: SocketAddr, shot: &Shot, socket: &mut Option<TcpStream>, seen: &mut Seen) -> std::io::Result<bool> {
    let begun = Instant::now();
    if socket.is_none() {
        let fresh = TcpStream::connect(address).await?;
        fresh.set_nodelay(true)?;
        *socket = Some(fresh);
    }
    let Some(stream) = socket else { return Ok(false) };
    stream.write_all(&shot.bytes).await?;
    let mut buffer = Vec::with_capacity(4 << 10);
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        // Refusals have a length, whatever was asked for.
        let until = if buffer.starts_with(b"HTTP/1.1 200") { shot.until } else { None };
        if contains(&buffer, b"\r\n\r\n") && is_whole(&buffer, until) {
            break;
        }
    }
    match &buffer[9..12] {
        b"200" => seen.answered.push(begun.elapsed()),
        b"429" | b"503" => seen.refused.push(begun.elapsed()),
        _ => seen.broken += 1,
    }
    Ok(&buffer[9..12] == b"200")
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
