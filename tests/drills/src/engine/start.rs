//! The distributions that run models: from exec to the first token, and memory after it.

use std::{net::SocketAddr, time::Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use llama_stack_tests::conformance::local::{QWEN, SMOL};
use serde_json::json;

use crate::{
    binary::Server,
    figures::{median, millis},
};

pub(super) async fn run() {
    println!("\n{:<28} {:>12} {:>16} {:>12}", "llama-stack run", "ready ms", "first token ms", "memory MiB");
    for (distribution, model) in [("tiny", SMOL), ("starter", QWEN)] {
        let (mut ready, mut first, mut memory) = (Vec::new(), Vec::new(), Vec::new());
        // The first of all may have models to fetch.
        for round in 0..6 {
            let begun = Instant::now();
            let server = Server::distribution(distribution).await;
            one_token(server.address, model).await;
            let first_token = begun.elapsed();
            if round > 0 {
                ready.push(millis(server.ready));
                first.push(millis(first_token));
                memory.push(server.resident_bytes() as f64 / f64::from(1 << 20));
            }
        }
        println!("{distribution:<28} {:>12.0} {:>16.0} {:>12.0}", median(ready), median(first), median(memory));
    }
}

async fn one_token(address: SocketAddr, model: &str) {
    let body = json!({ "model": model, "messages": [{ "role": "user", "content": "Say hello." }], "max_tokens": 1 });
    let request = Request::post(format!("http://{address}/v1/chat/completions")).header("content-type", "application/json");
    let request = request.body(Full::new(Bytes::from(body.to_string()))).unwrap();
    let answer = Client::builder(TokioExecutor::new()).build_http().request(request).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(status.is_success(), "{}", String::from_utf8_lossy(&body));
}
