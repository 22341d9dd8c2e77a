//! Files that mean harm, from the upload to the search, over HTTP against the real binary: each gets a clear answer, and
//! the server goes on. What each reader does with them is tested in services/documents.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::{io::Write as _, path::Path, process::Command, sync::Arc, time::Duration};

use llama_stack_tests::{served, worded::Worded};
use serde_json::{Value, json};
use support::Server;
use zip::{ZipWriter, write::SimpleFileOptions};

fn manifest(model: &str) -> String {
    format!(
        "version: 1\nname: hostile\nproviders:\n  inference:\n    - {{ id: worded, type: remote::grpc, config: {{ url: \"{model}\" }} }}\n  \
         memory:\n    - {{ id: banks, type: inline::sqlite }}\n"
    )
}

struct Client {
    http: reqwest::Client,
    server: Server,
    store: String,
}

impl Client {
    async fn start(home: &Path, model: &str) -> Self {
        let file = home.join("hostile.yaml");
        std::fs::write(&file, manifest(model)).unwrap();
        let server = Server::start(home, file.to_str().unwrap());
        let mut client = Self { http: reqwest::Client::new(), server, store: String::new() };
        let (status, store) = client.post("/v1/vector_stores", json!({ "name": "s", "embedding_model": "worded" })).await;
        assert_eq!(status, 200, "{store}");
        client.store = store["id"].as_str().unwrap().to_owned();
        client
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, serde_json::from_str(&response.text().await.unwrap()).unwrap())
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.send(self.http.get(format!("{}{path}", self.server.url))).await
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let request = self.http.post(format!("{}{path}", self.server.url)).header("content-type", "application/json");
        self.send(request.body(body.to_string())).await
    }

    async fn upload(&self, name: &str, media_type: &str, content: &[u8]) -> (u16, Value) {
        let mut body = format!(
            "--line\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nassistants\r\n--line\r\ncontent-disposition: form-data; \
             name=\"file\"; filename=\"{name}\"\r\ncontent-type: {media_type}\r\n\r\n"
        )
        .into_bytes();
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n--line--\r\n");
        let request = self.http.post(format!("{}/v1/files", self.server.url));
        self.send(request.header("content-type", "multipart/form-data; boundary=line").body(body)).await
    }

    /// What became of a file in the vector store, once it is read or refused.
    async fn read(&self, file: &Value) -> Value {
        let (files, id) = (format!("/v1/vector_stores/{}/files", self.store), file["id"].as_str().unwrap());
        let (mut status, mut told) = self.post(&files, json!({ "file_id": id })).await;
        // Far longer than a file may be read for.
        for _ in 0..6_000 {
            assert_eq!(status, 200, "{told}");
            if told["status"] != "in_progress" {
                return told;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            (status, told) = self.get(&format!("{files}/{id}")).await;
        }
        panic!("{id} is still read: {told}");
    }

    /// Uploaded, and refused when it is read: the reason is the file's, and not a failure of the server.
    async fn is_refused(&self, name: &str, media_type: &str, content: &[u8]) {
        let (status, file) = self.upload(name, media_type, content).await;
        assert_eq!(status, 200, "{name}: {file}");
        let told = self.read(&file).await;
        let (code, message) = (told["last_error"]["code"].as_str(), told["last_error"]["message"].as_str().unwrap_or_default());
        assert_eq!(told["status"], "failed", "{name}: {told}");
        assert!(matches!(code, Some("invalid_file" | "unsupported_file")), "{name}: {told}");
        assert!(!message.is_empty() && !message.contains("panick") && !message.contains(".rs"), "{name}: {told}");
        self.goes_on(name).await;
    }

    /// The next file is read and found.
    async fn goes_on(&self, after: &str) {
        let (status, file) = self.upload("next.txt", "text/plain", format!("The heron came after {after}.").as_bytes()).await;
        assert_eq!((status, &self.read(&file).await["status"]), (200, &json!("completed")), "after {after}");
        let search = json!({ "query": format!("heron came after {after}"), "max_num_results": 1 });
        let (status, found) = self.post(&format!("/v1/vector_stores/{}/search", self.store), search).await;
        assert_eq!((status, &found["data"][0]["file_id"]), (200, &file["id"]), "after {after}: {found}");
    }
}

fn archive(name: &str, content: &[u8]) -> Vec<u8> {
    let mut zip = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file(name, SimpleFileOptions::default()).unwrap();
    zip.write_all(content).unwrap();
    zip.finish().unwrap().into_inner()
}

const DOCX: &str = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";

#[tokio::test(flavor = "multi_thread")]
async fn files_that_mean_harm_are_answered_and_the_server_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let model = served::inference(Arc::new(Worded::default())).await;
    let client = Client::start(home.path(), &model.url).await;

    // 160 MB in 160 kB.
    client.is_refused("bomb.docx", DOCX, &archive("word/document.xml", &vec![b' '; 160 << 20])).await;
    let mut laughs = String::from("<?xml version=\"1.0\"?><!DOCTYPE d [<!ENTITY a \"ha\">");
    for (one, before) in "bcdefghij".chars().zip("abcdefghi".chars()) {
        laughs.push_str(&format!("<!ENTITY {one} \"{}\">", format!("&{before};").repeat(10)));
    }
    laughs.push_str("]><w:document><w:body><w:p><w:r><w:t>&j;</w:t></w:r></w:p></w:body></w:document>");
    client.is_refused("laughs.docx", DOCX, &archive("word/document.xml", laughs.as_bytes())).await;
    let mut line = String::from("[");
    while line.len() < 100 << 20 {
        line.push_str("\"some words that mean nothing, again and again\",");
    }
    line.push_str("1]");
    client.is_refused("line.json", "application/json", line.as_bytes()).await;
    drop(line);
    let circle = "%PDF-1.4\n1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\n2 0 obj\n<< /Type /Pages /Kids [2 0 R 2 0 R] /Count 2 >>\n\
                  endobj\ntrailer\n<< /Root 1 0 R /Size 3 >>\n%%EOF\n";
    client.is_refused("circle.pdf", "application/pdf", circle.as_bytes()).await;

    // Another kind than they say they are.
    client.is_refused("really-a-picture.pdf", "application/pdf", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0").await;
    let (status, file) = client.upload("really-text.docx", DOCX, b"only some words").await;
    assert_eq!((status, &client.read(&file).await["status"]), (200, &json!("completed")), "text is read as what it is");
    client.goes_on("really-text.docx").await;
    client.is_refused("program.bin", "application/octet-stream", &[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0]).await;
    assert!(client.server.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_sizes_that_mean_harm_are_answered_and_the_server_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let model = served::inference(Arc::new(Worded::default())).await;
    let client = Client::start(home.path(), &model.url).await;

    // A path names nothing on the disk.
    for (name, kept) in [("../../../escape.txt", "escape.txt"), ("/etc/escape.txt", "escape.txt"), ("..\\\\..\\\\escape.txt", "escape.txt")]
    {
        let (status, file) = client.upload(name, "text/plain", name.as_bytes()).await;
        assert_eq!((status, &file["filename"]), (200, &json!(kept)), "{file}");
        assert_eq!(client.read(&file).await["status"], "completed");
    }
    for above in home.path().ancestors().take(4) {
        assert!(!above.join("escape.txt").exists(), "a file was written to {}", above.display());
    }
    for name in ["..", "../", "."] {
        let (status, told) = client.upload(name, "text/plain", b"words").await;
        assert_eq!((status, &told["error"]["code"]), (400, &json!("invalid_filename")), "{name}: {told}");
    }
    let (status, told) = client.upload("empty.txt", "text/plain", b"").await;
    assert_eq!((status, &told["error"]["code"]), (400, &json!("empty_file")), "{told}");
    client.goes_on("empty.txt").await;

    // 20 MB go through, and come back as they were.
    let large: Vec<u8> = (0..20_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let (status, file) = client.upload("large.bin", "application/octet-stream", &large).await;
    assert_eq!((status, &file["bytes"]), (200, &json!(large.len())), "{file}");
    let path = format!("{}/v1/files/{}/content", client.server.url, file["id"].as_str().unwrap());
    assert!(client.http.get(path).send().await.unwrap().bytes().await.unwrap() == large, "the content is another one");
    client.goes_on("large.bin").await;
    assert!(client.server.stop().success());
}

/// The kernel sends a signal to who writes beyond `ulimit -f`, which ends a process that does not listen to it.
#[tokio::test]
async fn a_file_that_may_not_grow_so_large_here_is_refused_and_the_server_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("small.yaml");
    std::fs::write(&file, "version: 1\nname: small\n").unwrap();
    // Blocks of 512 or of 1,024 bytes, as the shell counts.
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -f 2000; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_llama-stack"), "run"]).arg(&file);
    limited.args(["--port", "0", "--json"]).env("LLAMA_STACK_HOME", home.path());
    let client = Client { http: reqwest::Client::new(), server: Server::run(&mut limited), store: String::new() };
    let (status, told) = client.upload("large.bin", "application/octet-stream", &vec![7; 3 << 20]).await;
    assert_eq!((status, told["error"]["code"].as_str()), (503, Some("disk_failed")), "{told}");
    let (status, told) = client.upload("small.bin", "application/octet-stream", b"small").await;
    assert_eq!(status, 200, "{told}");
}
