//! An upstream whose every byte the test decides.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
    sync::Notify,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

/// For what has to happen some time, on the busiest machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What a server does with one request.
#[derive(Clone)]
pub(crate) enum Step {
    Send(Vec<u8>),
    /// Lets the client read what was sent.
    Pause(Duration),
    /// Sends nothing more and waits until the client goes away.
    Hang,
    Close,
}

#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) line: String,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Recorded {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Answers with a script, and remembers. Stops when it is dropped.
pub(crate) struct Server {
    pub(crate) url: String,
    seen: Arc<Seen>,
    _accepting: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<Recorded>>,
    connections: AtomicUsize,
    /// Clients that went away while the server hung.
    gone: Notify,
}

type Script = dyn Fn(usize, &Recorded) -> Vec<Step> + Send + Sync;

impl Server {
    /// `script` gets the number of the request, from 0, and the request.
    pub(crate) async fn start(script: impl Fn(usize, &Recorded) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::start_with(None, Arc::new(script)).await
    }

    /// As [`Server::start`], over TLS.
    pub(crate) async fn start_tls(tls: TlsAcceptor, script: impl Fn(usize, &Recorded) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::start_with(Some(tls), Arc::new(script)).await
    }

    async fn start_with(tls: Option<TlsAcceptor>, script: Arc<Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}/v1", listener.local_addr().unwrap());
        let seen = Arc::new(Seen::default());
        let accepting = {
            let seen = seen.clone();
            tokio::spawn(async move {
                let mut serving = tokio::task::JoinSet::new();
                loop {
                    let (socket, _) = listener.accept().await.unwrap();
                    socket.set_nodelay(true).unwrap();
                    seen.connections.fetch_add(1, Ordering::SeqCst);
                    let (seen, script) = (seen.clone(), script.clone());
                    match tls.clone() {
                        None => serving.spawn(serve(socket, seen, script)),
                        Some(tls) => serving.spawn(async move {
                            // A client that does not trust the certificate goes away here.
                            if let Ok(socket) = tls.accept(socket).await {
                                serve(socket, seen, script).await;
                            }
                        }),
                    };
                }
            })
        };
        Self { url, seen, _accepting: AbortOnDropHandle::new(accepting) }
    }

    pub(crate) fn requests(&self) -> Vec<Recorded> {
        self.seen.requests.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Waits until it has been asked.
    pub(crate) async fn asked(&self) {
        let asked = async {
            while self.requests().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asked).await.expect("nobody asked");
    }

    /// Waits until a hanging server has seen its client go.
    pub(crate) async fn client_gone(&self) {
        tokio::time::timeout(PATIENCE, self.seen.gone.notified()).await.expect("the connection stayed open");
    }
}

/// An address at which nobody listens; it is nobody else's while the socket is there.
pub(crate) fn nobody() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

async fn serve(mut socket: impl AsyncRead + AsyncWrite + Unpin, seen: Arc<Seen>, script: Arc<Script>) {
    let mut buffer = Vec::new();
    while let Some(request) = read(&mut socket, &mut buffer).await {
        let number = {
            let mut requests = seen.requests.lock().unwrap();
            requests.push(request.clone());
            requests.len() - 1
        };
        for step in script(number, &request) {
            match step {
                Step::Send(bytes) => {
                    if socket.write_all(&bytes).await.is_err() || socket.flush().await.is_err() {
                        return;
                    }
                }
                Step::Pause(time) => tokio::time::sleep(time).await,
                Step::Hang => {
                    let mut byte = [0];
                    while socket.read(&mut byte).await.is_ok_and(|read| read > 0) {}
                    seen.gone.notify_one();
                    return;
                }
                Step::Close => return,
            }
        }
    }
}

async fn read(socket: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<Recorded> {
    let head = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
            buffer.drain(..end + 4);
            break head;
        }
        if socket.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap().to_owned();
    let headers: HashMap<String, String> =
        lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
    let length: usize = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    while buffer.len() < length {
        if socket.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    Some(Recorded { line, headers, body: buffer.drain(..length).collect() })
}

/// A whole answer on a connection that stays open.
pub(crate) fn answer(status: u16, headers: &str, body: &str) -> Vec<Step> {
    let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    vec![Step::Send([head.as_bytes(), body.as_bytes()].concat())]
}

pub(crate) fn json(body: &Value) -> Vec<Step> {
    answer(200, "", &body.to_string())
}

/// The head of an event stream in chunks.
pub(crate) fn stream_head() -> Step {
    Step::Send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec())
}

pub(crate) fn chunk(bytes: &[u8]) -> Step {
    Step::Send([format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat())
}

pub(crate) fn last_chunk() -> Step {
    Step::Send(b"0\r\n\r\n".to_vec())
}

/// A whole event stream, properly ended.
pub(crate) fn stream(text: &str) -> Vec<Step> {
    vec![stream_head(), chunk(text.as_bytes()), last_chunk()]
}

/// One event of a chat.
pub(crate) fn said(text: &str) -> String {
    format!("data: {}\n\n", json!({ "choices": [{ "index": 0, "delta": { "content": text } }] }))
}

pub(crate) const FINISHED: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
pub(crate) const DONE: &str = "data: [DONE]\n\n";

/// A whole answer of one word.
pub(crate) fn spoken(text: &str) -> Value {
    json!({
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": text }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3 },
    })
}
