//! A guard whose verdicts are fixed, in this process and as an OpenAI-compatible server: for tests of shields.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use async_trait::async_trait;
use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::post};
use futures::stream;
use llama_stack_core::{Context, Deps, Error, EventStream, Inference, Registry, Result};
use llama_stack_proto::v1::{
    ChatEvent, ChatRequest, CompleteEvent, CompleteRequest, FinishReason, ListModelsRequest, ListModelsResponse, Model, ModelKind,
    TokenLogprob, TokenizeRequest, TokenizeResponse, Usage, complete_request::Prompt, token_logprob::TopLogprob,
};
use serde::Deserialize;
use serde_json::{Value, json};

/// The id of its model.
pub const MODEL: &str = "llama-guard-3-1b";
/// As a prompt ends where the codes are wanted.
const CODES_WANTED: &str = "\n\nunsafe\n";

/// How unsafe the judged text is, and what the model writes of it.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Of `unsafe` against `safe`.
    pub p: f32,
    /// What both words have together.
    pub share: f32,
    pub text: String,
    /// Alternatives are told.
    pub logprobs: bool,
}

impl Answer {
    pub fn new(p: f32, text: &str) -> Self {
        Self { p, share: 1.0, text: text.into(), logprobs: true }
    }

    /// Without probabilities.
    pub fn words(text: &str) -> Self {
        Self { logprobs: false, ..Self::new(0.0, text) }
    }
}

/// A text with `bomb` is unsafe by S1 and S9, one with `stocks` by S6, one with `perhaps` at 0.3; all else is safe. An
/// override answers everything but the self-test's texts.
pub fn answer(judged: &str) -> Answer {
    match () {
        () if judged.contains("bomb") => Answer::new(0.98, "unsafe\nS1,S9"),
        () if judged.contains("stocks") => Answer::new(0.9, "unsafe\nS6"),
        () if judged.contains("perhaps") => Answer::new(0.3, "safe"),
        () => Answer::new(0.02, "safe"),
    }
}

/// The text between the last speaker's name and the end of the conversation.
pub fn judged(prompt: &str) -> String {
    let conversation = prompt.split("<BEGIN CONVERSATION>\n\n").nth(1).unwrap_or_default();
    let conversation = conversation.split("\n\n<END CONVERSATION>").next().unwrap_or_default();
    let begins = ["User: ", "Agent: "].iter().filter_map(|name| Some(conversation.rfind(name)? + name.len())).max();
    conversation[begins.unwrap_or_default()..].to_owned()
}

/// The guard as an `Inference`.
#[derive(Default)]
pub struct ScriptedGuard {
    /// The prompts that it was asked to continue, oldest first.
    pub prompts: Mutex<Vec<String>>,
    pub chats: AtomicUsize,
    /// Nobody answers.
    pub down: AtomicBool,
    /// In place of [`answer`], for texts that do not come from the self-test.
    pub says: Mutex<Option<Answer>>,
    /// An ordinary chat model: it says this whatever it is asked.
    pub chatters: Option<&'static str>,
    /// It tells nobody the tokens of a text.
    pub wordless: bool,
}

impl ScriptedGuard {
    pub fn says(&self, answer: Answer) {
        *self.says.lock().unwrap() = Some(answer);
    }

    /// Forgets what it was asked.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.prompts.lock().unwrap())
    }

    fn answer(&self, judged: &str) -> Answer {
        if let Some(words) = self.chatters {
            return Answer { share: 0.02, ..Answer::new(0.5, words) };
        }
        let of_the_test = judged.contains("soup") || judged.contains("pipe bomb");
        self.says.lock().unwrap().clone().filter(|_| !of_the_test).unwrap_or_else(|| answer(judged))
    }

    fn reachable(&self) -> Result<()> {
        if self.down.load(Ordering::SeqCst) { Err(Error::unavailable("the guard is down")) } else { Ok(()) }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {}

/// Registers the type `test::guard`.
pub fn register(registry: &mut Registry) {
    registry.inference.add("test::guard", |_: Config, _: Deps| async { Ok(Arc::new(ScriptedGuard::default()) as Arc<dyn Inference>) });
}

/// Words of an answer that is cut at `max_tokens`, the first with its alternatives. A guard's first word is one token.
fn pieces(answer: &Answer, max_tokens: u32) -> Vec<(String, Vec<TokenLogprob>)> {
    let cut = answer.text.find(|c: char| !c.is_ascii_alphabetic()).filter(|cut| *cut > 0).unwrap_or(answer.text.len());
    let top = |token: &str, p: f32| TopLogprob { token: token.into(), logprob: p.ln(), ..TopLogprob::default() };
    let alternatives = vec![top("unsafe", answer.p * answer.share), top("safe", (1.0 - answer.p) * answer.share)];
    let first = TokenLogprob { token: answer.text[..cut].into(), top: alternatives, ..TokenLogprob::default() };
    let words = answer.text[cut..].chars().map(String::from);
    let words = std::iter::once(answer.text[..cut].to_owned()).chain(words).take(max_tokens as usize);
    let told = |index: usize| if answer.logprobs && index == 0 { vec![first.clone()] } else { Vec::new() };
    words.enumerate().map(|(index, word)| (word, told(index))).collect()
}

#[async_trait]
impl Inference for ScriptedGuard {
    async fn list_models(&self, _: &Context, _: ListModelsRequest) -> Result<ListModelsResponse> {
        self.reachable()?;
        let model = Model { id: MODEL.into(), kind: ModelKind::Chat.into(), context_length: 4096, ..Model::default() };
        Ok(ListModelsResponse { models: vec![model], next_page_token: String::new() })
    }

    /// A token per character.
    async fn tokenize(&self, _: &Context, request: TokenizeRequest) -> Result<TokenizeResponse> {
        self.reachable()?;
        if self.wordless {
            return Err(Error::unimplemented("Tokenize"));
        }
        assert!(!request.add_special_tokens, "the prompt has its begin token");
        Ok(TokenizeResponse { tokens: request.text.chars().map(u32::from).collect(), ..TokenizeResponse::default() })
    }

    async fn stream_complete(&self, _: &Context, request: CompleteRequest) -> Result<EventStream<CompleteEvent>> {
        self.reachable()?;
        let sampling = request.sampling.unwrap();
        assert_eq!(sampling.temperature, Some(0.0), "a verdict is no matter of chance");
        let prompt = match request.prompt.unwrap() {
            Prompt::Text(text) => text,
            Prompt::Tokens(tokens) => tokens.ids.into_iter().filter_map(char::from_u32).collect(),
        };
        let mut answer = self.answer(&judged(&prompt));
        if prompt.ends_with(CODES_WANTED) {
            answer = Answer::words(answer.text.split_once('\n').map_or("S2", |(_, codes)| codes));
        }
        self.prompts.lock().unwrap().push(prompt);
        let said = pieces(&answer, sampling.max_tokens.unwrap()).into_iter().map(|(text, logprobs)| {
            let event = CompleteEvent { logprobs, ..CompleteEvent::text(0, text) };
            Ok(event)
        });
        let ending = [Ok(CompleteEvent::finish(0, FinishReason::Stop)), Ok(CompleteEvent::usage(Usage::default()))];
        Ok(Box::pin(stream::iter(said.chain(ending).collect::<Vec<_>>())))
    }

    async fn stream_chat(&self, _: &Context, request: ChatRequest) -> Result<EventStream<ChatEvent>> {
        self.reachable()?;
        self.chats.fetch_add(1, Ordering::SeqCst);
        let answer = self.answer(&request.messages.last().unwrap().joined_text());
        let said = pieces(&answer, 64).into_iter().map(|(text, logprobs)| Ok(ChatEvent { logprobs, ..ChatEvent::text(0, text) }));
        let ending = [Ok(ChatEvent::finish(0, FinishReason::Stop)), Ok(ChatEvent::usage(Usage::default()))];
        Ok(Box::pin(stream::iter(said.chain(ending).collect::<Vec<_>>())))
    }
}

/// The guard as a server with `/v1/models`, `/v1/completions` and `/v1/moderations`. Ends when it is dropped.
pub struct Upstream {
    /// Up to and with `/v1`.
    pub url: String,
    seen: Arc<Mutex<Vec<Value>>>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.server.abort();
    }
}

#[derive(Clone)]
struct Serving {
    seen: Arc<Mutex<Vec<Value>>>,
    /// The most alternatives that it tells.
    logprobs: u64,
}

impl Upstream {
    /// `logprobs`: the most alternatives that the server tells; it refuses who asks for more.
    pub async fn start(logprobs: u64) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        let serving = Serving { seen: Arc::default(), logprobs };
        let models = json!({ "object": "list", "data": [{ "id": MODEL, "object": "model" }] });
        let router = Router::new()
            .route("/v1/models", axum::routing::get(move || std::future::ready(Json(models.clone()))))
            .route("/v1/completions", post(completions))
            .route("/v1/moderations", post(moderations))
            .with_state(serving.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, seen: serving.seen, server }
    }

    /// The bodies that were sent to it since it was last asked.
    pub fn seen(&self) -> Vec<Value> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

async fn completions(State(serving): State<Serving>, Json(body): Json<Value>) -> axum::response::Response {
    serving.seen.lock().unwrap().push(body.clone());
    if body["logprobs"].as_u64().unwrap_or_default() > serving.logprobs {
        let message = format!("logprobs must be at most {}", serving.logprobs);
        return (StatusCode::BAD_REQUEST, Json(json!({ "error": { "message": message, "type": "invalid_request_error" } })))
            .into_response();
    }
    let prompt = body["prompt"].as_str().unwrap();
    let answer = answer(&judged(prompt));
    if prompt.ends_with(CODES_WANTED) {
        let codes = answer.text.split_once('\n').map_or("", |(_, codes)| codes);
        return Json(json!({ "choices": [{ "index": 0, "text": codes, "finish_reason": "stop" }] })).into_response();
    }
    let one = body["max_tokens"] == 1;
    let word = answer.text.split('\n').next().unwrap();
    let logprobs = body["logprobs"].is_u64().then(|| {
        json!({ "tokens": [word], "token_logprobs": [-0.1], "top_logprobs": [{ "unsafe": answer.p.ln(), "safe": (1.0 - answer.p).ln() }] })
    });
    let text = if one { word } else { answer.text.as_str() };
    Json(json!({ "choices": [{ "index": 0, "text": text, "finish_reason": "length", "logprobs": logprobs }] })).into_response()
}

/// `bomb` is violence; `401` and `garbage` are what they say.
async fn moderations(State(serving): State<Serving>, Json(body): Json<Value>) -> axum::response::Response {
    serving.seen.lock().unwrap().push(body.clone());
    let text = body["input"].to_string();
    if text.contains("401") {
        return (StatusCode::UNAUTHORIZED, Json(json!({ "error": { "message": "bad key sk-1" } }))).into_response();
    }
    if text.contains("garbage") {
        return Json(json!({ "hello": "world" })).into_response();
    }
    let violent = text.contains("bomb");
    let score = if violent { 0.75 } else { 0.125 };
    let result = json!({
        "flagged": violent,
        "categories": { "violence": violent, "hate": false },
        "category_scores": { "violence": score, "hate": 0.25 },
    });
    Json(json!({ "id": "modr-1", "model": "m", "results": [result] })).into_response()
}
