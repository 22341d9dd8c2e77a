//! Files, a question, a search by the model that finds the right one, and an answer that cites it: the real binary on its real models.

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

const CHAT: &str = "qwen2.5-coder-0.5b-instruct";

/// The starter distribution, whose chat model writes the lines of contextual passages.
fn manifest() -> String {
    let starter = std::fs::read_to_string(repository().join("distributions/starter.yaml")).unwrap();
    let (plain, contextual) = ("type: inline::sqlite }", format!("type: inline::sqlite, config: {{ contextual_model: {CHAT} }} }}"));
    assert!(starter.contains(plain));
    starter.replacen(plain, &contextual, 1)
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

    /// The path of a vector store that has read these files.
    async fn store(&self, body: Value) -> (String, Value) {
        let store = self.post("/v1/vector_stores", body).await;
        let path = format!("/v1/vector_stores/{}", store["id"].as_str().unwrap());
        let mut read = store;
        for _ in 0..1_200 {
            read = self.get(&path).await;
            if read["status"] == "completed" {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!((&read["status"], &read["file_counts"]["failed"]), (&json!("completed"), &json!(0)), "{read}");
        (path, read)
    }
}

#[tokio::test]
async fn a_small_model_searches_files_and_answers_from_the_right_one_which_it_cites() {
    let home = home_with_models();
    let file = home.path().join("citations.yaml");
    std::fs::write(&file, manifest()).unwrap();
    let server = Server::start(home.path(), file.to_str().unwrap());
    let client = Client { http: reqwest::Client::new(), server: &server };

    let mut ids = Vec::new();
    for (name, text) in FILES {
        ids.push(client.upload(name, text).await);
    }
    let (path, store) = client.store(json!({ "name": "fjord", "file_ids": ids })).await;
    assert_eq!(store["file_counts"]["completed"], json!(3));

    let question = "How many days of paid leave does every employee of Fjord Cycles have?";
    let found = client.post(&format!("{path}/search"), json!({ "query": question })).await;
    assert_eq!(found["data"][0]["file_id"], json!(ids[0]), "{found}");

    let answer = client
        .post(
            "/v1/responses",
            json!({
                "model": CHAT, "input": "Where are bicycles repaired?", "temperature": 0, "max_output_tokens": 200, "max_tool_calls": 1,
                "tools": [{ "type": "file_search", "vector_store_ids": [store["id"]], "max_num_results": 1 }],
                "tool_choice": { "type": "file_search" }, "include": ["file_search_call.results"],
            }),
        )
        .await;
    let output = answer["output"].as_array().unwrap();
    assert_eq!((&output[0]["type"], &output[0]["status"]), (&json!("file_search_call"), &json!("completed")), "{answer}");
    assert_eq!(output[0]["results"][0]["file_id"], json!(ids[2]), "{answer}");
    // It has made its one call, and answers.
    let said = &output[1]["content"][0];
    assert_eq!((&answer["status"], &output[1]["type"]), (&json!("completed"), &json!("message")), "{answer}");
    assert!(said["text"].as_str().unwrap().contains("garage behind the main building"), "{answer}");
    let cited = &said["annotations"][0];
    assert_eq!((&cited["type"], &cited["file_id"]), (&json!("file_citation"), &json!(ids[2])), "{answer}");
    assert!(server.stop().success());
}

/// What the model writes about a passage is searched with it, and is no part of it.
#[tokio::test]
async fn a_small_model_says_what_a_passage_is_about_and_the_passage_stays_what_it_is() {
    let home = home_with_models();
    let file = home.path().join("contextual.yaml");
    std::fs::write(&file, manifest()).unwrap();
    let server = Server::start(home.path(), file.to_str().unwrap());
    let client = Client { http: reqwest::Client::new(), server: &server };

    let (name, text) = FILES[2];
    let id = client.upload(name, text).await;
    let mut found = Vec::new();
    for chunking in ["auto", "contextual"] {
        let (path, _) = client.store(json!({ "file_ids": [id], "chunking_strategy": { "type": chunking } })).await;
        let query = json!({ "query": "a workshop for two wheels", "search_mode": "vector" });
        let searched = client.post(&format!("{path}/search"), query).await;
        let content = client.get(&format!("{path}/files/{id}/content")).await;
        assert_eq!(content["data"][0]["text"], json!(text), "{content}");
        assert_eq!(searched["data"][0]["content"][0]["text"], json!(text), "{searched}");
        found.push(searched["data"][0]["score"].as_f64().unwrap());
    }
    assert!((found[0] - found[1]).abs() > 1e-4, "the passage was embedded as it is: {found:?}");
    assert!(server.stop().success());
}
