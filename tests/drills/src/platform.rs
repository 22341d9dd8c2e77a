//! A whole platform on a scripted upstream: models that answer at once, banks, files, tools and a shield.
//!
//! For drills in which what is asked does not matter, but that everything answers.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The ids of its models.
pub(crate) const CHAT: &str = "instant";
pub(crate) const VECTORS: &str = "vectors";
pub(crate) const RANKS: &str = "ranks";
/// Numbers of a vector.
pub(crate) const DIMENSION: usize = 8;

/// Starts the upstream, until the program ends. Each answer takes `time`.
pub(crate) async fn upstream(time: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let Ok((socket, _)) = listener.accept().await else { continue };
            let _ = socket.set_nodelay(true);
            let service = service_fn(move |request| answer(request, time));
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service));
        }
    });
    address
}

/// A manifest of everything that needs no weights, with `more` at its end.
pub(crate) fn manifest(upstream: SocketAddr, more: &str) -> String {
    format!(
        "version: 1
name: drill
providers:
  inference:
    - id: instant
      type: remote::openai
      config:
        url: \"http://{upstream}/v1\"
        models:
          - {{ id: {CHAT}, context_length: 8192 }}
          - {{ id: {VECTORS}, kind: embedding, embedding_dimension: {DIMENSION} }}
          - {{ id: {RANKS}, kind: reranker }}
  safety:
    - {{ id: words, type: inline::patterns, config: {{ rules: [{{ name: words, keywords: [xyzzy] }}] }} }}
  memory:
    - {{ id: banks, type: inline::sqlite }}
  tools:
    - {{ id: builtin, type: inline::builtin }}
store: {{ durability: process }}
{more}"
    )
}

async fn answer(request: Request<Incoming>, time: Duration) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
    let usage = json!({ "prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11 });
    let (kind, body) = match path.rsplit('/').next().unwrap_or_default() {
        "embeddings" => {
            let count = asked["input"].as_array().map_or(1, Vec::len);
            let vector = |index: usize| (0..DIMENSION).map(|at| ((index + at) % 7) as f32 - 2.5).collect::<Vec<_>>();
            let data: Vec<Value> =
                (0..count).map(|index| json!({ "object": "embedding", "index": index, "embedding": vector(index) })).collect();
            ("application/json", json!({ "object": "list", "model": VECTORS, "data": data, "usage": usage }).to_string())
        }
        "rerank" => {
            let count = asked["documents"].as_array().map_or(0, Vec::len);
            let count = asked["top_n"].as_u64().filter(|n| *n > 0).map_or(count, |n| count.min(n as usize));
            let results: Vec<Value> = (0..count).map(|index| json!({ "index": index, "relevance_score": 0.5 })).collect();
            ("application/json", json!({ "results": results, "usage": usage }).to_string())
        }
        "completions" => {
            let of_chat = path.ends_with("chat/completions");
            let choices: Vec<u64> = (0..asked["n"].as_u64().unwrap_or(1).clamp(1, 128)).collect();
            if asked["stream"] == true {
                ("text/event-stream", streamed(&choices, of_chat, &usage))
            } else {
                ("application/json", whole(&choices, of_chat, &usage))
            }
        }
        _ => ("application/json", json!({ "object": "list", "data": [{ "id": CHAT, "object": "model" }] }).to_string()),
    };
    Ok(Response::builder().header("content-type", kind).body(Full::new(Bytes::from(body))).unwrap())
}

fn whole(choices: &[u64], of_chat: bool, usage: &Value) -> String {
    let choice = |index: &u64| match of_chat {
        true => json!({ "index": index, "message": { "role": "assistant", "content": "Hello there" }, "finish_reason": "stop" }),
        false => json!({ "index": index, "text": "Hello there", "finish_reason": "stop" }),
    };
    let choices: Vec<Value> = choices.iter().map(choice).collect();
    let object = if of_chat { "chat.completion" } else { "text_completion" };
    json!({ "id": "1", "object": object, "created": 1, "model": CHAT, "choices": choices, "usage": usage }).to_string()
}

fn streamed(choices: &[u64], of_chat: bool, usage: &Value) -> String {
    let object = if of_chat { "chat.completion.chunk" } else { "text_completion" };
    let mut events = String::new();
    let mut tell = |choices: Value, usage: &Value| {
        let chunk = json!({ "id": "1", "object": object, "created": 1, "model": CHAT, "choices": choices, "usage": usage });
        events.push_str(&format!("data: {chunk}\n\n"));
    };
    for index in choices {
        for word in ["Hello", " there"] {
            let choice = match of_chat {
                true => json!({ "index": index, "delta": { "role": "assistant", "content": word }, "finish_reason": null }),
                false => json!({ "index": index, "text": word, "finish_reason": null }),
            };
            tell(json!([choice]), &Value::Null);
        }
        let end = match of_chat {
            true => json!({ "index": index, "delta": {}, "finish_reason": "stop" }),
            false => json!({ "index": index, "text": "", "finish_reason": "stop" }),
        };
        tell(json!([end]), &Value::Null);
    }
    tell(json!([]), usage);
    events + "data: [DONE]\n\n"
}
