//! An OpenAI-compatible server that answers at once: what is left of a measured time is the stack's.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

const WHOLE: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1700000000,"model":"instant","choices":[{"index":0,"message":{"role":"assistant","content":"Hello there, how are you?"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":7,"total_tokens":16}}"#;

const STREAM: &str = concat!(
    r#"data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"instant","choices":[{"index":0,"delta":{"role":"assistant","content":"Hello"},"finish_reason":null}]}"#,
    "\n\n",
    r#"data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"instant","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
    "\n\n",
    r#"data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"instant","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}"#,
    "\n\ndata: [DONE]\n\n",
);

/// Serves until the program ends.
pub(crate) async fn start() -> SocketAddr {
    start_after(Duration::ZERO).await
}

/// The same, with answers that begin after so long: a model elsewhere that reads its prompt first.
pub(crate) async fn start_after(prefill: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            socket.set_nodelay(true).unwrap();
            let service = service_fn(move |request| answer(prefill, request));
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service));
        }
    });
    address
}

async fn answer(prefill: Duration, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    if !prefill.is_zero() {
        tokio::time::sleep(prefill).await;
    }
    let streamed = body.windows(13).any(|window| window == b"\"stream\":true");
    let (kind, body) = if streamed { ("text/event-stream", STREAM) } else { ("application/json", WHOLE) };
    Ok(Response::builder().header("content-type", kind).body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap())
}
