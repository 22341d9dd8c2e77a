use super::*;

fn answer() -> Value {
    json!({
        "query": "rust async",
        "follow_up_questions": null,
        "answer": null,
        "images": [],
        "results": [
            { "title": "One", "url": "https://one.example/", "content": "First\n  snippet.", "score": 0.98, "raw_content": null },
            { "title": "Two", "url": "https://two.example/", "content": "Second.", "score": 0.5, "published_date": "Thu, 01 Oct 2026 08:00:00 GMT" }
        ],
        "response_time": 1.09,
        "request_id": "r"
    })
}

#[tokio::test]
async fn tavily_is_a_web_search() {
    let server = Server::new().await;
    let tools = build("remote::tavily-search", json!({ "url": server.url(), "api_key": "stack" })).await;
    server.answers_json(200, answer());
    let (is_error, texts) = search(&*tools, json!({ "query": "rust async", "count": 3, "freshness": "month" })).await;
    assert!(!is_error);
    assert_eq!(
        texts,
        ["[1] One\nhttps://one.example/\nFirst snippet.", "[2] Two\nhttps://two.example/\nThu, 01 Oct 2026 08:00:00 GMT\nSecond."]
    );
    let asked = server.last();
    assert_eq!((asked.method.as_str(), asked.path.as_str(), asked.header("content-type")), ("POST", "/search", "application/json"));
    let body = asked.json();
    assert_eq!((&body["query"], &body["max_results"], &body["time_range"]), (&json!("rust async"), &json!(3), &json!("month")));
    let good = ("application/json", answer().to_string());
    let key = |asked: &Asked| asked.header("authorization").trim_start_matches("Bearer ").to_owned();
    keys_and_failures(&server, "remote::tavily-search", "web_search", good, key).await;
    // Its own status for a plan that is used up.
    server.answers_json(432, json!({ "detail": { "error": "limit" } }));
    assert!(told(&*tools, "web_search", json!({ "query": "q" })).await.contains("its limit is reached"));
}
