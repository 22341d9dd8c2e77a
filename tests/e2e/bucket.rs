//! Files in a bucket, through a whole stack: uploaded over HTTP, read into a vector store, found again.

use std::{path::Path, time::Duration};

use llama_stack_tests::s3::{BUCKET, Mood, Server};
use serde_json::{Value, json};

use crate::memory::Served;

const LAWS: &str = "The king may not veto a law.\n\nThe parliament makes the laws of the country.\n";

fn manifest(bucket: &Server) -> String {
    let of = bucket.config();
    format!(
        "version: 1\nname: e2e\nproviders:\n  inference:\n    - {{ id: worded, type: test::worded }}\n  memory:\n    - {{ id: banks, type: inline::sqlite }}\n\
         files:\n  s3:\n    bucket: {BUCKET}\n    prefix: {}\n    endpoint: {}\n    allow_http: true\n    access_key_id: test-id\n    secret_access_key: test-secret\n    timeout_seconds: 1\n",
        of.prefix,
        of.endpoint.unwrap()
    )
}

struct Client {
    http: reqwest::Client,
    url: String,
}

impl Client {
    async fn ask(&self, method: reqwest::Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.header("content-type", "application/json").body(body.to_string());
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).unwrap())
    }

    async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.ask(reqwest::Method::GET, path, None).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.ask(reqwest::Method::POST, path, Some(body)).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    async fn upload(&self, name: &str, content: &[u8]) -> (u16, Value) {
        let field = |head: &str| format!("--line\r\ncontent-disposition: form-data; {head}\r\n\r\n");
        let mut form =
            format!("{}assistants\r\n{}", field("name=\"purpose\""), field(&format!("name=\"file\"; filename=\"{name}\""))).into_bytes();
        form.extend_from_slice(content);
        form.extend_from_slice(b"\r\n--line--\r\n");
        let request = self.http.post(format!("{}/v1/files", self.url)).header("content-type", "multipart/form-data; boundary=line");
        let answer = request.body(form).send().await.unwrap();
        (answer.status().as_u16(), serde_json::from_str(&answer.text().await.unwrap()).unwrap())
    }

    async fn content(&self, id: &str) -> (u16, Vec<u8>) {
        let answer = self.http.get(format!("{}/v1/files/{id}/content", self.url)).send().await.unwrap();
        (answer.status().as_u16(), answer.bytes().await.unwrap().to_vec())
    }

    /// The store, once its files have been read.
    async fn filled(&self, store: &str) -> Value {
        loop {
            let there = self.get(&format!("/v1/vector_stores/{store}")).await;
            if there["status"] != "in_progress" {
                return there;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Contents on the disk of the stack, whole or half.
fn contents(home: &Path) -> usize {
    let mut count = 0;
    if !home.exists() {
        return count;
    }
    for entry in std::fs::read_dir(home).unwrap().map(Result::unwrap) {
        let path = entry.path();
        count += if path.is_dir() { contents(&path) } else { usize::from(path.file_name().is_some_and(|name| name != "lock")) };
    }
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_a_bucket_is_uploaded_indexed_found_and_deleted() {
    let bucket = Server::start().await;
    let stack = Served::with(&manifest(&bucket)).await;
    let client = Client { http: reqwest::Client::new(), url: stack.url.clone() };
    let (status, file) = client.upload("laws.txt", LAWS.as_bytes()).await;
    assert_eq!(status, 200, "{file}");
    let id = file["id"].as_str().unwrap();
    let keys = bucket.keys();
    assert!(keys.len() == 1 && keys[0].starts_with("stack/one/") && keys[0].ends_with(id), "{keys:?}");
    assert_eq!(contents(&stack.home.path().join("files")), 0, "nothing of it is on the disk");

    let store = client.post("/v1/vector_stores", json!({ "name": "laws", "file_ids": [id] })).await;
    let store = store["id"].as_str().unwrap();
    let filled = client.filled(store).await;
    assert_eq!((&filled["file_counts"]["completed"], &filled["file_counts"]["total"]), (&json!(1), &json!(1)), "{filled}");
    let search = format!("/v1/vector_stores/{store}/search");
    let found = client.post(&search, json!({ "query": "may the king veto?" })).await;
    let first = &found["data"][0];
    assert_eq!((&first["file_id"], &first["filename"]), (&json!(id), &json!("laws.txt")), "{found}");
    assert!(first["content"][0]["text"].as_str().unwrap().contains("may not veto"), "{found}");
    assert_eq!(client.content(id).await, (200, LAWS.as_bytes().to_vec()));

    // A large one goes in parts, and comes back as it was.
    let large: Vec<u8> = (0..9_000_000_u32).map(|at| (at % 251) as u8).collect();
    let (status, second) = client.upload("large.bin", &large).await;
    assert_eq!(status, 200, "{second}");
    let (status, back) = client.content(second["id"].as_str().unwrap()).await;
    assert!(status == 200 && back == large);
    assert!(bucket.held.lock().unwrap().put.ends_with(&[8 << 20, 9_000_000 - (8 << 20)]));

    // Without the bucket no file is to be had, and what was read is still found.
    bucket.mood.send_replace(Mood::Fails);
    let (status, refused) = client.upload("other.txt", b"other").await;
    assert_eq!((status, &refused["error"]["code"]), (503, &json!("storage_failed")), "{refused}");
    assert_eq!(client.content(id).await.0, 503);
    assert_eq!(client.post(&search, json!({ "query": "who makes the laws" })).await["data"][0]["file_id"], json!(id));
    bucket.mood.send_replace(Mood::Well);

    let (status, deleted) = client.ask(reqwest::Method::DELETE, &format!("/v1/files/{id}"), None).await;
    assert!(status == 200 && deleted["deleted"] == true, "{deleted}");
    assert_eq!((bucket.keys().len(), client.content(id).await.0), (1, 404));
    // And what the store had read of it.
    assert_eq!(client.post(&search, json!({ "query": "may the king veto?" })).await["data"], json!([]));
    assert_eq!(client.filled(store).await["file_counts"]["total"], json!(0));
    stack.stop().await;
}
