//! Requests for every route of the OpenAPI document.

use rand::{Rng, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Value, json};

use super::{
    Known, Sent,
    json::{Words, change, sample, spoil},
};

/// A method of a path, and the schema of its body.
pub(super) struct Route {
    method: String,
    path: String,
    body: Option<Body>,
}

enum Body {
    Json(Value),
    Form,
}

/// Every route that the document describes.
pub(super) fn routes(document: &Value) -> Vec<Route> {
    let mut routes = Vec::new();
    for (path, methods) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let content = &operation["requestBody"]["content"];
            let body = match (&content["application/json"]["schema"], &content["multipart/form-data"]) {
                (schema, _) if !schema.is_null() => Some(Body::Json(schema.clone())),
                (_, form) if !form.is_null() => Some(Body::Form),
                _ if path == "/mcp" => Some(Body::Json(Value::Null)),
                _ => None,
            };
            routes.push(Route { method: method.to_uppercase(), path: path.clone(), body });
        }
    }
    routes
}

/// A request that the route may take; with `mutate`, one with something wrong.
pub(super) fn request(document: &Value, route: &Route, known: &Known, chance: &mut StdRng, mutate: bool) -> Sent {
    let path = filled(&route.path, known, chance) + &query(&route.method, known, chance, mutate);
    let (mut kind, mut body) = match &route.body {
        None => (None, Vec::new()),
        Some(Body::Form) => (Some("multipart/form-data; boundary=b".to_owned()), form(known, chance)),
        Some(Body::Json(schema)) => {
            let mut value = match route.path.as_str() {
                "/mcp" => mcp(chance),
                "/v1/chat/completions" | "/v1/responses" if chance.random_bool(0.5) => usual(&route.path, chance),
                _ => sample(document, schema, "", &Words { known }, chance, 0),
            };
            if mutate {
                (0..chance.random_range(0..4)).for_each(|_| change(&mut value, chance));
            }
            (Some("application/json".to_owned()), value.to_string().into_bytes())
        }
    };
    let mut method = route.method.clone();
    if mutate && chance.random_bool(0.15) {
        body = spoil(body, chance);
    }
    if mutate && chance.random_bool(0.04) {
        kind = ["text/plain", "application/json; charset=utf-16", "multipart/form-data", "application/grpc-web+proto", "x"]
            .choose(chance)
            .map(|kind| (*kind).to_owned());
    }
    if mutate && chance.random_bool(0.02) {
        method = ["PUT", "PATCH", "OPTIONS", "HEAD", "TRACE", "POST", "GET"].choose(chance).map_or(method, |method| (*method).to_owned());
    }
    Sent { name: format!("{} {}", route.method, route.path), method, path, kind, body, is_grpc: false }
}

/// Braces become ids that there are, or none that could be.
fn filled(path: &str, known: &Known, chance: &mut StdRng) -> String {
    let mut path = path.to_owned();
    while let (Some(open), Some(close)) = (path.find('{'), path.find('}')) {
        let odd = ["none", "%00", "%ff%fe", "..%2f..", "%F0%9F%A6%80", "0", "-1", "resp_", "vs_%20"];
        let id = match chance.random_range(0..10) {
            0 => (*odd.choose(chance).unwrap_or(&"none")).to_owned(),
            1 => "x".repeat(3_000),
            _ => known.id_for(&path[..open], chance),
        };
        path.replace_range(open..=close, &id);
    }
    path
}

fn query(method: &str, known: &Known, chance: &mut StdRng, mutate: bool) -> String {
    if method != "GET" || chance.random_bool(0.5) {
        return String::new();
    }
    let names = ["limit", "after", "before", "order", "purpose", "filter", "include", "page_token", "stream", "starting_after"];
    let values = ["1", "20", "asc", "desc", "true"];
    let odd = ["0", "-1", "99999999999999999999", "", "%00", "%ff", "NaN", "1e9", "a%26b", "[]"];
    let pairs: Vec<String> = (0..chance.random_range(1..4))
        .map(|_| {
            let value = match mutate && chance.random_bool(0.5) {
                true => (*odd.choose(chance).unwrap_or(&"")).to_owned(),
                false if chance.random_bool(0.3) => known.id_for("", chance),
                false => (*values.choose(chance).unwrap_or(&"")).to_owned(),
            };
            format!("{}={value}", names.choose(chance).unwrap_or(&"limit"))
        })
        .collect();
    format!("?{}", pairs.join("&"))
}

fn form(known: &Known, chance: &mut StdRng) -> Vec<u8> {
    let names = ["a.txt", "a.md", "a.pdf", "a.csv", "ü.json", "a.jsonl", ""];
    let name = names.choose(chance).copied().unwrap_or_default();
    let purpose = ["assistants", "batch", "user_data", "vision", "x"].choose(chance).copied().unwrap_or_default();
    let text = known.word("text", chance);
    format!(
        "--b\r\ncontent-disposition: form-data; name=\"purpose\"\r\n\r\n{purpose}\r\n--b\r\n\
         content-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\r\n{text}\r\n--b--\r\n"
    )
    .into_bytes()
}

fn mcp(chance: &mut StdRng) -> Value {
    let (method, params) = match chance.random_range(0..4) {
        0 => ("initialize", json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "d", "version": "1" } })),
        1 => ("tools/list", json!({})),
        2 => ("tools/call", json!({ "name": "calculator", "arguments": { "expression": "1+1" } })),
        _ => ("ping", json!({})),
    };
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })
}

/// Requests as clients send them, with what schemas alone seldom bring together.
fn usual(path: &str, chance: &mut StdRng) -> Value {
    let tool = json!({ "type": "object", "properties": { "a": { "type": "number" } } });
    let stream = chance.random_bool(0.3);
    if path == "/v1/responses" {
        let tools =
            json!([{ "type": "function", "name": "add", "parameters": tool }, { "type": "file_search", "vector_store_ids": ["vs_x"] }]);
        let input = json!([{ "type": "message", "role": "user", "content": [{ "type": "input_text", "text": "hi" }] }]);
        return json!({ "model": super::CHAT, "input": input, "tools": tools, "stream": stream, "metadata": { "a": "b" }, "temperature": 0.5 });
    }
    let messages = json!([
        { "role": "system", "content": "Be brief." },
        { "role": "user", "content": [{ "type": "text", "text": "hi" }, { "type": "image_url", "image_url": { "url": "data:image/png;base64,aGk=" } }] },
        { "role": "assistant", "content": null, "tool_calls": [{ "id": "c1", "type": "function", "function": { "name": "add", "arguments": "{}" } }] },
        { "role": "tool", "tool_call_id": "c1", "content": "2" },
    ]);
    json!({
        "model": super::CHAT, "messages": messages, "stream": stream, "n": 2, "temperature": 1, "top_p": 0.5, "seed": 7, "stop": ["x"],
        "tools": [{ "type": "function", "function": { "name": "add", "description": "adds", "parameters": tool } }],
        "response_format": { "type": "json_schema", "json_schema": { "name": "n", "schema": tool } }, "logit_bias": { "5": 1 },
    })
}
