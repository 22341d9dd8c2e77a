//! An OpenAI-compatible server whose model does what the last plan in the conversation says.

use std::{
    collections::HashSet,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch};

use super::plan::Plan;

/// The id of its model.
pub(crate) const MODEL: &str = "planned";

/// A running server, until the program ends.
#[derive(Clone)]
pub(crate) struct Model {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    /// Answers are given while this is true; until then callers wait.
    answering: watch::Sender<bool>,
    /// The turns that have asked, since this was last cleared.
    asked: Mutex<HashSet<u64>>,
    /// Changes with `asked`.
    count: watch::Sender<usize>,
}

impl Model {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State { answering: watch::Sender::new(true), asked: Mutex::default(), count: watch::Sender::new(0) });
        let model = Self { address, state: state.clone() };
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                // The peer may be gone: it is killed all the time.
                let _ = socket.set_nodelay(true);
                let state = state.clone();
                let service = service_fn(move |request| answer(state.clone(), request));
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service));
            }
        });
        model
    }

    /// From now on callers wait, until [`Model::release`].
    pub(crate) fn hold(&self) {
        self.state.answering.send_replace(false);
    }

    pub(crate) fn release(&self) {
        self.state.answering.send_replace(true);
    }

    pub(crate) fn forget_who_asked(&self) {
        self.state.asked.lock().unwrap().clear();
        self.state.count.send_replace(0);
    }

    /// Returns once so many turns have asked.
    pub(crate) async fn asked_by(&self, turns: usize) {
        self.state.count.subscribe().wait_for(|count| *count >= turns).await.unwrap();
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let Some((plan, results)) = serde_json::from_slice(&body).ok().and_then(|body| read(&body)) else {
        return Ok(Response::builder().status(400).body(Full::from(r#"{"error":{"message":"no plan in sight"}}"#)).unwrap());
    };
    let count = {
        let mut asked = state.asked.lock().unwrap();
        asked.insert(plan.number);
        asked.len()
    };
    state.count.send_if_modified(|known| std::mem::replace(known, count) != count);
    // The sender lives as long as the server.
    let _ = state.answering.subscribe().wait_for(|answering| *answering).await;
    let body = stream(&plan, &results);
    Ok(Response::builder().header("content-type", "text/event-stream").body(Full::from(body)).unwrap())
}

/// The newest plan, and the results of its calls so far, in the order of the plan.
fn read(request: &Value) -> Option<(Plan, Vec<String>)> {
    let messages = request["messages"].as_array()?;
    let at = messages.iter().rposition(|message| message["role"] == "user")?;
    let plan = Plan::parse(&text(&messages[at]["content"]))?;
    let result = |call: usize| {
        let id = plan.call_id(call);
        messages[at..].iter().find(|message| message["tool_call_id"] == id.as_str()).map(|message| text(&message["content"]))
    };
    let results = (0..plan.calls().count()).map_while(result).collect();
    Some((plan, results))
}

/// Content is a text, or a list of parts.
fn text(content: &Value) -> String {
    let parts = content.as_array().into_iter().flatten().filter_map(|part| part["text"].as_str());
    content.as_str().map_or_else(|| parts.collect(), ToOwned::to_owned)
}

fn stream(plan: &Plan, results: &[String]) -> String {
    let mut chunks = Vec::new();
    let mut left = results.len();
    let round = plan.rounds.iter().position(|round| {
        let answered = round.len() <= left;
        left = left.saturating_sub(round.len());
        !answered
    });
    let finish = match round {
        Some(round) => {
            for (index, call) in plan.round(round).iter().enumerate() {
                let function = json!({ "name": call.tool.name(), "arguments": plan.arguments(call.index) });
                let call = json!({ "index": index, "id": plan.call_id(call.index), "type": "function", "function": function });
                chunks.push(json!({ "delta": { "tool_calls": [call] } }));
            }
            "tool_calls"
        }
        None => {
            let answer = plan.answer(results);
            chunks.extend(answer.split_inclusive(' ').map(|word| json!({ "delta": { "content": word } })));
            "stop"
        }
    };
    chunks.push(json!({ "delta": {}, "finish_reason": finish }));
    let mut lines = String::new();
    for mut chunk in chunks {
        chunk["index"] = json!(0);
        let chunk = json!({ "id": "1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [chunk] });
        lines.push_str(&format!("data: {chunk}\n\n"));
    }
    let usage = json!({ "prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2 });
    let usage = json!({ "id": "1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, "choices": [], "usage": usage });
    lines + &format!("data: {usage}\n\ndata: [DONE]\n\n")
}
