//! The committed dashboard asks for what is exported.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::client::{chat, start, start_with, streamed};

const DASHBOARD: &str = include_str!("../../../../packaging/grafana/llama-stack.json");

/// The names of this stack's metrics in a query.
fn names(query: &str) -> impl Iterator<Item = &str> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("llama_stack_"))
}

fn queries(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "expr" || name == "query" => found.push(text.clone()),
                    value => queries(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| queries(item, found)),
        _ => {}
    }
}

#[tokio::test]
async fn every_metric_of_the_dashboard_is_exported() {
    let upstream = start().await;
    let upstreams = format!("[{{ id: a, type: remote::grpc, config: {{ url: \"{}\" }} }}]", upstream.url(""));
    let pool = format!("    - {{ id: pool, type: remote::pool, config: {{ upstreams: {upstreams} }} }}\n");
    let rest = "  safety:\n    - { id: grumpy, type: test::grumpy }\nlimits: { principals: { default/ann: { concurrent_requests: 1 } } }\n";
    let server = start_with(&format!("{pool}{rest}")).await;
    let mut of_pool = chat("hi");
    of_pool["model"] = "pool/parrot".into();
    server.answer("/v1/chat/completions", &of_pool).await;
    server.answer("/v1/chat/completions", &chat("hi")).await;
    server.transcript("/v1/chat/completions", &streamed("hi")).await;
    server.answer("/v1/embeddings", &json!({ "model": "org/vectors", "input": "hi" })).await;
    server.answer("/v1/moderations", &json!({ "model": "grumpy", "input": "hi" })).await;
    // One that the limits refuse.
    let ask = |body: Value| {
        let request = server.http.post(server.url("/v1/chat/completions")).header("x-llama-stack-principal", "ann");
        request.json(&body).send()
    };
    let held = ask(streamed("forever")).await.unwrap();
    assert_eq!(ask(chat("hi")).await.unwrap().status(), 429);
    drop(held);

    let exported = server.get("/metrics").await.text().await.unwrap();
    for (state, value) in [("closed", 1), ("open", 0), ("half_open", 0)] {
        let line = format!("llama_stack_upstream_state{{pool=\"pool\",upstream=\"pool/a\",state=\"{state}\"}} {value}");
        assert!(exported.contains(&line), "no {line}: {exported}");
    }
    let exported: BTreeSet<&str> = exported.lines().filter(|line| !line.starts_with('#')).flat_map(|line| names(line).take(1)).collect();
    let mut asked = Vec::new();
    queries(&serde_json::from_str(DASHBOARD).unwrap(), &mut asked);
    let asked: BTreeSet<&str> = asked.iter().flat_map(|query| names(query)).collect();
    assert!(asked.len() > 8, "{asked:?}");
    let missing: Vec<_> = asked.difference(&exported).collect();
    assert!(missing.is_empty(), "the dashboard asks for {missing:?}; there is {exported:?}");
}
