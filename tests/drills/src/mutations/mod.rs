//! Requests with something wrong, for every route and every RPC: none may break the server, and none is the server's fault.
//!
//! ```text
//! OpenAPI document ── a body that its schema allows ── changed: types, ranges, depth, text ──┐
//! contract ────────── a message of random fields ───── changed: numbers, bytes, frame ───────┼── the real binary
//!                                                                                             │
//! 500, INTERNAL, UNKNOWN, no answer at all, memory that grows and grows: each is a fault <────┘
//! ```
//!
//! The same seed makes the same requests, but for the ids of what there is.

mod http;
mod json;
mod rpc;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use rand::{Rng, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Value, json};

use crate::{
    Verdict,
    binary::{self, Site},
    platform,
};
use platform::{CHAT, RANKS, VECTORS};

/// Requests of the short form, and of the one whose figures go into docs/.
pub const SHORT: u64 = 2_000;
pub const LONG: u64 = 1_000_000;

/// Requests until the ids are those of new things: what was there may be deleted by then.
const ROUND: u64 = 1_000;
const WORKERS: u64 = 8;
/// Longer than every deadline that is asked for.
const PATIENCE: Duration = Duration::from_secs(120);
/// Faults that are told in full.
const TOLD: usize = 40;
/// What the server may take beyond what it had after a fifth of the requests.
const GROWTH: u64 = 256 << 20;

/// A request, ready to be sent.
struct Sent {
    /// Of the route or RPC.
    name: String,
    method: String,
    path: String,
    kind: Option<String>,
    body: Vec<u8>,
    is_grpc: bool,
}

/// Ids of what there is.
#[derive(Default)]
struct Known {
    responses: Vec<String>,
    conversations: Vec<String>,
    files: Vec<String>,
    stores: Vec<String>,
    prompts: Vec<String>,
}

impl Known {
    /// For a string of this name.
    fn word(&self, name: &str, chance: &mut StdRng) -> String {
        let text = ["hi", "one two three", "é 🦀", "assistants", "auto", "user", "{\"a\": 1}", "1", "2024-01-01"];
        match name {
            "model" | "embedding_model" | "rewrite_model" => (*[CHAT, CHAT, VECTORS, RANKS, "none"].choose(chance).unwrap_or(&CHAT)).into(),
            "shield_id" | "guardrails" => "words/patterns".into(),
            "tool_name" => "calculator".into(),
            "url" | "server_url" => "http://127.0.0.1:1/".into(),
            name if name.ends_with("id") || name.ends_with("ids") || ["after", "before", "conversation"].contains(&name) => {
                self.id_for(name, chance)
            }
            _ => (*text.choose(chance).unwrap_or(&"hi")).into(),
        }
    }

    /// For what stands at this place: a path up to its brace, or a field's name.
    fn id_for(&self, place: &str, chance: &mut StdRng) -> String {
        let kinds = [
            ("response", &self.responses, "", ""),
            ("conversation", &self.conversations, "", ""),
            ("vector_store", &self.stores, "", ""),
            ("prompt", &self.prompts, "", ""),
            ("file", &self.files, "", ""),
            ("turn", &self.responses, "resp_", "turn_"),
            ("session", &self.conversations, "conv_", "session_"),
            ("bank", &self.stores, "vs_", "bank_"),
        ];
        let fits = kinds.iter().find(|(word, ..)| place.contains(word)).filter(|_| chance.random_bool(0.9));
        let kind = fits.or_else(|| kinds.choose(chance));
        let id = kind.and_then(|(_, ids, from, to)| ids.choose(chance).map(|id| id.replacen(from, to, 1)));
        id.unwrap_or_else(|| "none".into())
    }
}

/// What came of all requests.
#[derive(Debug, Default)]
pub struct Outcome {
    pub sent: u64,
    /// By status of HTTP, or code of gRPC.
    pub answers: BTreeMap<String, u64>,
    /// The server's faults, each with the request.
    pub faults: Vec<String>,
    pub fault_count: u64,
    /// Resident bytes after a fifth of the requests, and at the end.
    pub resident: (u64, u64),
}

impl Outcome {
    pub fn holds(&self) -> bool {
        self.fault_count == 0 && self.resident.1 <= self.resident.0 + GROWTH
    }
}

pub(crate) async fn run(long: bool, count: Option<u64>) -> Verdict {
    let count = count.unwrap_or(if long { LONG } else { SHORT });
    let seed = rand::random::<u32>().into();
    println!("seed {seed}");
    let begun = Instant::now();
    let outcome = suite(&binary::path(), count, seed).await;
    for (answer, count) in &outcome.answers {
        println!("{answer:<32} {count:>9}");
    }
    outcome.faults.iter().for_each(|fault| println!("fault: {fault}"));
    let megabytes = |bytes: u64| bytes >> 20;
    Verdict {
        line: format!(
            "mutations: {} requests in {} s, {} faults, resident {} MiB after a fifth, {} MiB at the end",
            outcome.sent,
            begun.elapsed().as_secs(),
            outcome.fault_count,
            megabytes(outcome.resident.0),
            megabytes(outcome.resident.1)
        ),
        holds: outcome.holds(),
    }
}

/// Sends `count` requests to `binary`.
///
/// # Panics
/// Where the drill itself cannot run.
pub async fn suite(binary: &Path, count: u64, seed: u64) -> Outcome {
    let upstream = platform::upstream(Duration::ZERO).await;
    let site = Site::new(binary, &platform::manifest(upstream, ""));
    let mut process = site.spawn(&[]);
    let address = process.ready().await.expect("the server ended before it was ready");
    let field = Arc::new(Field::new(address).await);
    let mut resident = (process.resident_bytes(), 0);
    let mut done = 0;
    while done < count {
        let known = field.things().await;
        let round = ROUND.min(count - done);
        let workers = (0..WORKERS).map(|worker| {
            let (field, known) = (field.clone(), &known);
            async move {
                for number in (done..done + round).filter(|number| number % WORKERS == worker) {
                    field.one(known, seed.wrapping_add(number)).await;
                }
            }
        });
        join_all(workers).await;
        done += round;
        if done <= count.div_ceil(5) {
            resident.0 = process.resident_bytes();
        }
        if field.is_gone().await {
            break;
        }
    }
    resident.1 = process.resident_bytes();
    let (answers, faults) = std::mem::take(&mut *field.told.lock().unwrap());
    let fault_count = field.faults.load(Ordering::Relaxed);
    process.kill().await;
    Outcome { sent: done, answers, faults, fault_count, resident }
}

/// The server, what may be asked of it, and what was answered.
struct Field {
    client: reqwest::Client,
    base: String,
    document: Value,
    routes: Vec<http::Route>,
    rpcs: Vec<rpc::Rpc>,
    told: Mutex<(BTreeMap<String, u64>, Vec<String>)>,
    faults: AtomicU64,
}

impl Field {
    async fn new(address: SocketAddr) -> Self {
        let client = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        let base = format!("http://{address}");
        let document: Value = client.get(format!("{base}/openapi.json")).send().await.unwrap().json().await.unwrap();
        let routes = http::routes(&document);
        assert!(routes.len() > 40, "{} routes", routes.len());
        Self { client, base, document, routes, rpcs: rpc::rpcs(), told: Mutex::default(), faults: AtomicU64::new(0) }
    }

    /// Makes one of everything, and says what it is called. What cannot be made is missed.
    async fn things(&self) -> Known {
        let id = async |path: &str, body: Value, field: &str| -> Vec<String> {
            let answer = self.client.post(format!("{}{path}", self.base)).json(&body).send().await;
            let Ok(answer) = answer else { return Vec::new() };
            let made: Value = answer.json().await.unwrap_or_default();
            made[field].as_str().map(ToOwned::to_owned).into_iter().collect()
        };
        let form = "--b\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nassistants\r\n--b\r\n\
                    content-disposition: form-data; name=\"file\"; filename=\"a.txt\"\r\n\r\nsome words\r\n--b--\r\n";
        let request = self.client.post(format!("{}/v1/files", self.base)).header("content-type", "multipart/form-data; boundary=b");
        let file: Value = match request.body(form).send().await {
            Ok(answer) => answer.json().await.unwrap_or_default(),
            Err(_) => Value::Null,
        };
        Known {
            responses: id("/v1/responses", json!({ "model": CHAT, "input": "hi" }), "id").await,
            conversations: id("/v1/conversations", json!({}), "id").await,
            files: file["id"].as_str().map(ToOwned::to_owned).into_iter().collect(),
            stores: id("/v1/vector_stores", json!({ "name": "n", "embedding_model": VECTORS }), "id").await,
            prompts: id("/v1/prompts", json!({ "prompt": "hi {{ name }}" }), "prompt_id").await,
        }
    }

    /// The request of this number, and what is to be said of its answer. One in eight has nothing wrong with it.
    async fn one(&self, known: &Known, number: u64) {
        let mut chance = StdRng::seed_from_u64(number);
        let mutate = !number.is_multiple_of(8);
        let sent = if chance.random_bool(0.5) {
            let route = self.routes.choose(&mut chance).unwrap();
            http::request(&self.document, route, known, &mut chance, mutate)
        } else {
            rpc::request(self.rpcs.choose(&mut chance).unwrap(), known, &mut chance, mutate)
        };
        let (answer, text) = self.send(&sent).await;
        let is_fault = ["HTTP 500", "gRPC 2", "gRPC 13", "no answer", "no status"].contains(&answer.as_str());
        let mut told = self.told.lock().unwrap();
        *told.0.entry(answer.clone()).or_default() += 1;
        if is_fault {
            self.faults.fetch_add(1, Ordering::Relaxed);
            if told.1.len() < TOLD {
                let cut = |text: &str| text.chars().take(600).collect::<String>();
                let body = if sent.is_grpc { format!("{:02x?}", sent.body) } else { String::from_utf8_lossy(&sent.body).into_owned() };
                told.1.push(format!("{answer} of {} ({} {}): {} <- {}", sent.name, sent.method, cut(&sent.path), cut(&text), cut(&body)));
            }
        }
    }

    async fn send(&self, sent: &Sent) -> (String, String) {
        let method = sent.method.parse().unwrap();
        let mut request = self.client.request(method, format!("{}{}", self.base, sent.path)).header("grpc-timeout", "5S");
        if let Some(kind) = &sent.kind {
            request = request.header("content-type", kind);
        }
        let answer = match request.body(sent.body.clone()).send().await {
            Ok(answer) => answer,
            Err(error) => return ("no answer".into(), format!("{error:?}")),
        };
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = match answer.bytes().await {
            Ok(body) => body,
            Err(error) => return ("no answer".into(), format!("{error:?}")),
        };
        let text = String::from_utf8_lossy(&body).into_owned();
        let is_of_grpc = headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        if !sent.is_grpc || !is_of_grpc {
            return (format!("HTTP {}", status.as_u16()), text);
        }
        let told = headers.get("grpc-status").and_then(|code| code.to_str().ok()).map(ToOwned::to_owned);
        let trailer = || {
            let at = text.rfind("grpc-status:")?;
            Some(text[at + 12..].trim_start().chars().take_while(char::is_ascii_digit).collect::<String>())
        };
        let is_text = headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc-web-text"));
        match told.or_else(trailer) {
            Some(code) => (format!("gRPC {code}"), text),
            // Its end is in base64, or in trailers that this client does not show.
            None if is_text || sent.kind.as_deref().is_some_and(|kind| !kind.starts_with("application/grpc-web")) => {
                ("gRPC unread".into(), text)
            }
            None => ("no status".into(), text),
        }
    }

    /// The server does not answer any more.
    async fn is_gone(&self) -> bool {
        let gone = self.client.get(format!("{}/livez", self.base)).send().await.is_err();
        if gone {
            self.faults.fetch_add(1, Ordering::Relaxed);
            self.told.lock().unwrap().1.push("the server is gone".into());
        }
        gone
    }
}
