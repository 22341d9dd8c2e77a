//! A stack with banks in both embedded indexes, clients that write to it, and what they were told is kept.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use llama_stack_core::{
    Context, Inference, Memory, Principal,
    grpc::{Remote, channel},
};
use llama_stack_proto::v1::{
    Bank, BankKind, CreateBankRequest, DeleteDocumentsRequest, Document, InsertDocumentsRequest, QueryRequest, SearchMode,
    document::Content, memory_client::MemoryClient,
};
use llama_stack_tests::served::OnSocket;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use crate::{parrot, support::Server};

/// Memory providers, by their ids in the manifest.
pub const INDEXES: [&str; 2] = ["words", "edge"];
/// What each writer has acknowledged before the backup begins.
const BEFORE: usize = 12;

/// A folder with a manifest, and the model that it names.
pub struct World {
    pub home: TempDir,
    pub manifest: PathBuf,
    model: OnSocket<dyn Inference>,
}

impl World {
    pub async fn new(store: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let model = parrot::start().await;
        let manifest = home.path().join("kept.yaml");
        std::fs::write(&manifest, text(&model.url, store)).unwrap();
        Self { home, manifest, model }
    }

    /// Another folder with the same manifest on another store: where to restore to.
    pub fn elsewhere(&self, store: &str) -> (TempDir, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let manifest = home.path().join("kept.yaml");
        std::fs::write(&manifest, text(&self.model.url, store)).unwrap();
        (home, manifest)
    }

    pub fn start(&self) -> Server {
        Server::start(self.home.path(), self.manifest.to_str().unwrap())
    }
}

fn text(model: &str, store: &str) -> String {
    format!(
        "version: 1\nname: kept\n{store}\nproviders:\n  inference:\n    - {{ id: parrot, type: remote::grpc, config: {{ url: \"{model}\" }} }}\n  \
         memory:\n    - {{ id: words, type: inline::sqlite }}\n    - {{ id: edge, type: inline::qdrant-edge }}\n"
    )
}

/// A caller of a stack that takes everybody at their word.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    pub memory: Arc<dyn Memory>,
    pub cx: Context,
}

impl Client {
    pub fn of(server: &Server) -> Self {
        Self::called(server, "ann")
    }

    pub fn called(server: &Server, principal: &str) -> Self {
        let memory = Remote::<MemoryClient<Channel>>::new(channel(&server.url, Duration::from_secs(5)).unwrap());
        let principal = Principal { id: principal.into(), tenant: "acme".into(), roles: Vec::new() };
        Self { http: reqwest::Client::new(), url: server.url.clone(), memory: Arc::new(memory), cx: Context::new(principal) }
    }

    pub async fn send(&self, method: &str, path: &str, kind: &str, body: String) -> (u16, String) {
        let request = self.http.request(method.parse().unwrap(), format!("{}{path}", self.url)).header("content-type", kind).body(body);
        let request = request.header("x-llama-stack-tenant", self.cx.tenant()).header("x-llama-stack-principal", &self.cx.principal().id);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn json(&self, method: &str, path: &str, kind: &str, body: String) -> Value {
        let (status, text) = self.send(method, path, kind, body).await;
        assert_eq!(status, 200, "{method} {path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    pub async fn bank(&self, provider: &str) -> Bank {
        let request = CreateBankRequest {
            name: "docs".into(),
            kind: BankKind::Keyword.into(),
            provider_id: provider.into(),
            ..CreateBankRequest::default()
        };
        self.memory.create_bank(&self.cx, request).await.unwrap()
    }

    pub async fn insert(&self, bank: &str, id: &str, text: &str) {
        let document = Document { id: id.into(), content: Some(Content::Text(text.into())), ..Document::default() };
        let request = InsertDocumentsRequest { bank_id: bank.into(), documents: vec![document], ..InsertDocumentsRequest::default() };
        let answer = self.memory.insert_documents(&self.cx, request).await.unwrap();
        assert!(answer.failures.is_empty(), "{:?}", answer.failures);
    }

    /// The documents that are found by a word.
    pub async fn found(&self, bank: &str, word: &str) -> Vec<String> {
        let request =
            QueryRequest { bank_ids: vec![bank.into()], text: word.into(), mode: SearchMode::Keyword.into(), ..QueryRequest::default() };
        let found = self.memory.query(&self.cx, request).await.unwrap().chunks;
        found.into_iter().map(|hit| hit.chunk.unwrap().document_id).collect()
    }

    pub async fn upload(&self, text: &str) -> String {
        let form = format!(
            "--line\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nassistants\r\n--line\r\ncontent-disposition: form-data; \
             name=\"file\"; filename=\"a.txt\"\r\n\r\n{text}\r\n--line--\r\n"
        );
        let file = self.json("POST", "/v1/files", "multipart/form-data; boundary=line", form).await;
        file["id"].as_str().unwrap().to_owned()
    }

    pub async fn say(&self, text: &str) -> String {
        let body = json!({ "model": "parrot", "input": text }).to_string();
        let response = self.json("POST", "/v1/responses", "application/json", body).await;
        response["id"].as_str().unwrap().to_owned()
    }
}

/// Something that was acknowledged.
#[derive(Clone, Debug)]
pub enum Kept {
    Document { bank: String, id: String, word: String },
    Response { id: String, text: String },
    File { id: String, text: String },
}

impl Kept {
    pub async fn is_there(&self, client: &Client) -> bool {
        match self {
            Self::Document { bank, id, word } => client.found(bank, word).await == [id.as_str()],
            Self::Response { id, text } => {
                let (status, body) = client.send("GET", &format!("/v1/responses/{id}"), "application/json", String::new()).await;
                status == 200 && body.contains(text)
            }
            Self::File { id, text } => {
                let (status, body) = client.send("GET", &format!("/v1/files/{id}/content"), "application/json", String::new()).await;
                status == 200 && &body == text
            }
        }
    }
}

/// Clients that write until they are told to stop.
pub struct Writers {
    stop: Arc<AtomicBool>,
    kept: Arc<Mutex<Vec<Kept>>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writers {
    /// Returns once each of them was told often enough that something is kept.
    pub async fn start(client: &Client) -> Self {
        let (stop, kept, mut tasks) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Vec<Kept>>>::default(), Vec::new());
        let mut enough = Vec::new();
        let mut writer = |number: usize, bank: Option<String>| {
            let (client, stop, kept) = (client.clone(), stop.clone(), kept.clone());
            let (told, heard) = tokio::sync::oneshot::channel();
            enough.push(heard);
            tasks.push(tokio::spawn(async move {
                let (mut told, mut passing) = (Some(told), Vec::new());
                for round in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    let one = write(&client, number, round, bank.as_deref(), &mut passing).await;
                    kept.lock().unwrap().push(one);
                    if round + 1 == BEFORE {
                        told.take().unwrap().send(()).unwrap();
                    }
                }
            }));
        };
        for (number, provider) in INDEXES.into_iter().enumerate() {
            let bank = client.bank(provider).await.id;
            writer(number, Some(bank));
        }
        writer(2, None);
        writer(3, None);
        for heard in enough {
            heard.await.unwrap();
        }
        Self { stop, kept, tasks }
    }

    /// What was acknowledged until now.
    pub fn kept(&self) -> Vec<Kept> {
        self.kept.lock().unwrap().clone()
    }

    /// All that was acknowledged.
    pub async fn stop(self) -> Vec<Kept> {
        self.stop.store(true, Ordering::SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
        self.kept.lock().unwrap().clone()
    }
}

/// Writes something to keep, and something that is deleted in the next round.
async fn write(client: &Client, number: usize, round: usize, bank: Option<&str>, passing: &mut Vec<String>) -> Kept {
    let word = format!("quokka{number}x{round}");
    let text = format!("Of {word} this says little.");
    match (bank, number) {
        (Some(bank), _) => {
            client.insert(bank, &word, &text).await;
            let gone = passing.pop();
            client.insert(bank, &format!("passing{round}"), "This does not stay for long.").await;
            passing.push(format!("passing{round}"));
            if let Some(id) = gone {
                let request = DeleteDocumentsRequest { bank_id: bank.into(), document_ids: vec![id], ..DeleteDocumentsRequest::default() };
                client.memory.delete_documents(&client.cx, request).await.unwrap();
            }
            Kept::Document { bank: bank.into(), id: word.clone(), word }
        }
        (None, 2) => Kept::Response { id: client.say(&text).await, text },
        (None, _) => {
            let id = client.upload(&text).await;
            let gone = passing.pop();
            passing.push(client.upload(&format!("{text} It does not stay.")).await);
            if let Some(id) = gone {
                let (status, body) = client.send("DELETE", &format!("/v1/files/{id}"), "application/json", String::new()).await;
                assert_eq!(status, 200, "{body}");
            }
            Kept::File { id, text }
        }
    }
}

/// `llama-stack` with these arguments, while this test's own tasks go on.
pub async fn call(home: &Path, arguments: &[&str]) -> crate::support::Said {
    let (home, arguments) = (home.to_owned(), arguments.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
    let run = move || crate::support::call(&home, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await.unwrap()
}
