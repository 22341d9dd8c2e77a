//! Files, a question, and a search by the model that finds the right one: the real binary on its real models.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{Server, home_with_models, repository};

const FILES: [(&str, &str); 3] = [
    ("handbook.txt", "Every employee of Fjord Cycles has 31 days of paid leave a year."),
    ("menu.txt", "On Mondays the canteen has lentil soup, and on Fridays fish with potatoes."),
    ("garage.txt", "Bicycles are repaired in the garage behind the main building, from nine to five."),
];

/// The starter distribution, with a memory where it has none.
fn manifest() -> String {
    let starter = std::fs::read_to_string(repository().join("distributions/starter.yaml")).unwrap();
    if starter.lines().any(|line| line == "  memory:") {
        return starter;
    }
    starter.replacen("\n  tools:\n", "\n  memory:\n    - { id: banks, type: inline::sqlite }\n\n  tools:\n", 1)
}

struct Client<'a> {
    http: reqwest::Client,
    server: &'a Server,
}

impl Client<'_> {
    async fn send(&self, request: reqwest::RequestBuilder) -> Value {
        let response = request.send().await.unwrap();
        let status = response.status();
        let body: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
        assert!(status.is_success(), "{status}: {body}");
        body
    }

    async fn get(&self, path: &str) -> Value {
        self.send(self.http.get(format!("{}{path}", self.server.url))).await
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        let request = self.http.post(format!("{}{path}", self.server.url)).header("content-type", "application/json");
        self.send(request.body(body.to_string())).await
    }

    /// The id of an uploaded file.
    async fn upload(&self, name: &str, text: &str) -> String {
        let body = format!(
            "--line\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\nassistants\r\n--line\r\ncontent-disposition: form-data; \
             name=\"file\"; filename=\"{name}\"\r\ncontent-type: text/plain\r\n\r\n{text}\r\n--line--\r\n"
        );
        let request = self.http.post(format!("{}/v1/files", self.server.url));
        let file = self.send(request.header("content-type", "multipart/form-data; boundary=line").body(body)).await;
        file["id"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_small_model_searches_files_and_finds_the_right_one() {
    let home = home_with_models();
    let file = home.path().join("citations.yaml");
    std::fs::write(&file, manifest()).unwrap();
    let server = Server::start(home.path(), file.to_str().unwrap());
    let client = Client { http: reqwest::Client::new(), server: &server };

    let mut ids = Vec::new();
    for (name, text) in FILES {
        ids.push(client.upload(name, text).await);
    }
    let store = client.post("/v1/vector_stores", json!({ "name": "fjord", "file_ids": ids })).await;
    let store_path = format!("/v1/vector_stores/{}", store["id"].as_str().unwrap());
    let mut read = store.clone();
    for _ in 0..600 {
        read = client.get(&store_path).await;
        if read["status"] == "completed" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!((&read["status"], &read["file_counts"]["completed"]), (&json!("completed"), &json!(3)), "{read}");

    let question = "How many days of paid leave does every employee of Fjord Cycles have?";
    let found = client.post(&format!("{store_path}/search"), json!({ "query": question })).await;
    assert_eq!(found["data"][0]["file_id"], json!(ids[0]), "{found}");

    let answer = client
        .post(
            "/v1/responses",
            json!({
                "model": "qwen2.5-coder-0.5b-instruct", "input": question, "temperature": 0, "max_output_tokens": 200, "max_tool_calls": 1,
                "tools": [{ "type": "file_search", "vector_store_ids": [store["id"]], "max_num_results": 1 }],
                "tool_choice": { "type": "file_search" }, "include": ["file_search_call.results"],
            }),
        )
        .await;
    let output = answer["output"].as_array().unwrap();
    assert_eq!((&output[0]["type"], &output[0]["status"]), (&json!("file_search_call"), &json!("completed")), "{answer}");
    assert_eq!(output[0]["results"][0]["file_id"], json!(ids[0]), "{answer}");
    assert!(server.stop().success());
}
