//! `/v1/batches` as a client sees it: each endpoint, and what is wrong with a batch that cannot be run.

use std::time::Duration;

use llama_stack_core::grpc::channel;
use llama_stack_proto::v1::{GetBatchRequest, batches_client::BatchesClient};
use serde_json::{Value, json};

use crate::client::{Server, chat, start, start_with};

async fn upload(server: &Server, purpose: &str, text: &str) -> Value {
    let body = format!(
        "--line\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\n{purpose}\r\n--line\r\ncontent-disposition: form-data; \
         name=\"file\"; filename=\"in.jsonl\"\r\n\r\n{text}\r\n--line--\r\n"
    );
    let request = server.http.post(server.url("/v1/files")).header("content-type", "multipart/form-data; boundary=line");
    let file: Value = request.body(body).send().await.unwrap().json().await.unwrap();
    file["id"].clone()
}

/// The batch of these bodies, once it has ended.
async fn run(server: &Server, endpoint: &str, bodies: &[Value]) -> Value {
    let line =
        |(n, body): (usize, &Value)| json!({ "custom_id": format!("c{n}"), "method": "POST", "url": endpoint, "body": body }).to_string();
    let lines: Vec<String> = bodies.iter().enumerate().map(line).collect();
    let file = upload(server, "batch", &lines.join("\n")).await;
    let asked = json!({ "input_file_id": file, "endpoint": endpoint, "completion_window": "24h", "metadata": { "a": "b" } });
    let batch = server.json("POST", "/v1/batches", asked).await;
    ended(server, batch["id"].as_str().unwrap()).await
}

async fn ended(server: &Server, id: &str) -> Value {
    let path = format!("/v1/batches/{id}");
    for _ in 0..600 {
        let batch = server.json("GET", &path, Value::Null).await;
        if ["completed", "failed", "cancelled", "expired"].contains(&batch["status"].as_str().unwrap()) {
            return batch;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the batch did not end");
}

async fn content(server: &Server, id: &Value) -> Vec<Value> {
    let path = format!("/v1/files/{}/content", id.as_str().unwrap());
    let text = server.get(&path).await.text().await.unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn every_endpoint_answers_in_a_batch_as_it_does_alone() {
    let server = start_with("  safety:\n    - { id: grumpy, type: test::grumpy }\n").await;
    let asked = [
        ("/v1/chat/completions", chat("hi"), "/choices/0/message/content", json!("Hello")),
        ("/v1/completions", json!({ "model": "parrot", "prompt": "hi" }), "/choices/0/text", json!("hi!")),
        ("/v1/embeddings", json!({ "model": "org/vectors", "input": "hi" }), "/data/0/embedding/1", json!(0.5)),
        ("/v1/responses", json!({ "model": "parrot", "input": "hi" }), "/output/0/content/0/text", json!("Hello")),
        ("/v1/moderations", json!({ "model": "grumpy", "input": "Hello" }), "/results/0/flagged", json!(true)),
    ];
    for (endpoint, body, place, wanted) in asked {
        let batch = run(&server, endpoint, &[body.clone(), body, json!({ "model": 5 })]).await;
        assert_eq!((&batch["status"], &batch["object"], &batch["errors"]), (&json!("completed"), &json!("batch"), &Value::Null), "{batch}");
        assert_eq!(batch["request_counts"], json!({ "total": 3, "completed": 2, "failed": 1 }), "{endpoint} {batch}");
        assert_eq!((&batch["endpoint"], &batch["metadata"]), (&json!(endpoint), &json!({ "a": "b" })));
        let output = content(&server, &batch["output_file_id"]).await;
        assert_eq!(output.len(), 2);
        // The sums of what the answers themselves say, and the model that they name.
        let sum = |places: [&str; 2]| -> u64 {
            let of = |answer: &Value| places.iter().find_map(|place| answer["response"]["body"]["usage"][*place].as_u64());
            output.iter().filter_map(of).sum()
        };
        let (input, written) = (sum(["prompt_tokens", "input_tokens"]), sum(["completion_tokens", "output_tokens"]));
        let usage = &batch["usage"];
        assert_eq!((&usage["input_tokens"], &usage["output_tokens"]), (&json!(input), &json!(written)), "{endpoint} {batch}");
        assert_eq!(usage["total_tokens"], json!(input + written));
        assert!(usage["input_tokens_details"]["cached_tokens"].is_u64() && usage["output_tokens_details"]["reasoning_tokens"].is_u64());
        assert_eq!(batch["model"], output[0]["response"]["body"]["model"], "{endpoint} {batch}");
        for answer in &output {
            assert_eq!(answer["response"]["body"].pointer(place), Some(&wanted), "{endpoint} {answer}");
        }
        let errors = content(&server, &batch["error_file_id"]).await;
        assert_eq!((&errors[0]["custom_id"], &errors[0]["response"]["status_code"]), (&json!("c2"), &json!(400)), "{errors:?}");
        assert!(errors[0]["response"]["body"]["error"]["message"].is_string());
    }
    // The same rows over gRPC.
    let list = server.json("GET", "/v1/batches?limit=2", Value::Null).await;
    assert_eq!((list["data"].as_array().unwrap().len(), &list["has_more"]), (2, &json!(true)));
    let mut grpc = BatchesClient::new(channel(&server.url(""), Duration::from_secs(5)).unwrap());
    let id = list["first_id"].as_str().unwrap().to_owned();
    let batch = grpc.get_batch(GetBatchRequest { id: id.clone() }).await.unwrap().into_inner();
    assert_eq!((batch.id, batch.endpoint.as_str(), batch.completed), (id, "/v1/moderations", 2));
    let rest = server.json("GET", &format!("/v1/batches?after={}", list["last_id"].as_str().unwrap()), Value::Null).await;
    assert_eq!((rest["data"].as_array().unwrap().len(), &rest["has_more"]), (3, &json!(false)));
}

#[tokio::test]
async fn what_cannot_be_run_is_said_by_line_or_by_field() {
    let server = start().await;
    let file = upload(&server, "batch", "{\"custom_id\":\"a\"}\nnonsense").await;
    let asked = |file: &Value, endpoint: &str| json!({ "input_file_id": file, "endpoint": endpoint, "completion_window": "24h" });
    let batch = server.json("POST", "/v1/batches", asked(&file, "/v1/embeddings")).await;
    assert_eq!((&batch["status"], &batch["output_file_id"], &batch["model"]), (&json!("validating"), &Value::Null, &Value::Null));
    let batch = ended(&server, batch["id"].as_str().unwrap()).await;
    assert_eq!((&batch["status"], &batch["errors"]["object"]), (&json!("failed"), &json!("list")));
    let told: Vec<(&Value, &Value)> =
        batch["errors"]["data"].as_array().unwrap().iter().map(|error| (&error["line"], &error["code"])).collect();
    assert_eq!(told, [(&json!(1), &json!("missing_required_parameter")), (&json!(2), &json!("invalid_json_line"))]);
    assert!(batch["failed_at"].is_i64() && batch["completed_at"].is_null());

    let notes = upload(&server, "assistants", "text").await;
    for (body, status, param) in [
        (asked(&json!("file-none"), "/v1/embeddings"), 404, "input_file_id"),
        (asked(&notes, "/v1/embeddings"), 400, "input_file_id"),
        (asked(&file, "/v1/images"), 400, "endpoint"),
        (json!({ "endpoint": "/v1/embeddings" }), 400, "input_file_id"),
        (json!({ "input_file_id": file, "endpoint": "/v1/embeddings", "completion_window": "soon" }), 400, "completion_window"),
    ] {
        let refused = server.refused("POST", "/v1/batches", body.clone()).await;
        assert_eq!((refused.0, refused.1), (status, json!(param)), "{body}");
    }
    assert_eq!(server.refused("GET", "/v1/batches/batch_0", Value::Null).await, (404, json!("id"), json!("batch_not_found")));
    assert_eq!(server.refused("POST", "/v1/batches/batch_0/cancel", Value::Null).await.0, 404);
    assert_eq!(server.refused("GET", "/v1/batches?limit=0", Value::Null).await.1, "limit");
    assert_eq!(server.refused("GET", "/v1/batches?after=!", Value::Null).await.1, "after");
}
