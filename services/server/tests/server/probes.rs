use serde_json::Value;

use crate::client::{chat, start, start_with};

#[tokio::test]
async fn a_stack_that_serves_says_so() {
    let server = start().await;
    for path in ["/v1/health", "/livez", "/readyz"] {
        let response = server.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.text().await.unwrap(), r#"{"status":"OK"}"#);
    }
}

#[tokio::test]
async fn metrics_count_requests_and_tokens() {
    let server = start().await;
    server.answer("/v1/chat/completions", &chat("hi")).await;
    server.get("/no/such/route").await;
    let text = server.get("/metrics").await.text().await.unwrap();
    for line in [
        r#"llama_stack_requests_total{route="/v1/chat/completions",method="POST",code="200"} 1"#,
        r#"llama_stack_requests_total{route="unknown",method="GET",code="404"} 1"#,
        r#"llama_stack_tokens_total{model="parrot",direction="input"} 7"#,
        r#"llama_stack_tokens_total{model="parrot",direction="output"} 2"#,
        r#"llama_stack_request_duration_seconds_count{route="/v1/chat/completions"} 1"#,
        // This request itself.
        "llama_stack_requests_in_flight 1",
    ] {
        assert!(text.lines().any(|there| there == line), "{line}\n{text}");
    }
}

#[tokio::test]
async fn the_document_is_served() {
    let server = start().await;
    let document: Value = server.get("/openapi.json").await.json().await.unwrap();
    assert_eq!(document["openapi"], "3.1.0");
    assert_eq!(document, llama_stack_server::openapi_document());
}

#[tokio::test]
async fn a_request_id_is_kept_or_made() {
    let server = start().await;
    let request = server.http.get(server.url("/livez")).header("x-request-id", "mine-1");
    assert_eq!(request.send().await.unwrap().headers()["x-request-id"], "mine-1");
    let made = server.get("/no/such/route").await;
    assert!(made.headers()["x-request-id"].to_str().unwrap().starts_with("req_"));
}

#[tokio::test]
async fn only_origins_of_the_manifest_may_call_from_browsers() {
    let server = start_with("server: { cors_origins: [\"https://app.example\"] }\n").await;
    let preflight = async |origin: &str| {
        let url = server.url("/v1/chat/completions");
        let request = server.http.request(reqwest::Method::OPTIONS, url).header("origin", origin);
        let response = request.header("access-control-request-method", "POST").send().await.unwrap();
        response.headers().get("access-control-allow-origin").map(|origin| origin.to_str().unwrap().to_owned())
    };
    assert_eq!(preflight("https://app.example").await.as_deref(), Some("https://app.example"));
    assert_eq!(preflight("https://evil.example").await, None);
}
