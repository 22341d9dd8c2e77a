use super::*;

fn answer() -> Value {
    json!({
        "type": "search",
        "query": { "original": "rust async", "more_results_available": true },
        "web": {
            "type": "search",
            "results": [
                {
                    "title": "Async &amp; await",
                    "url": "https://one.example/async",
                    "is_source_local": false,
                    "description": "The <strong>async</strong> book &#x27;explains&#x27;.",
                    "page_age": "2026-10-01T08:00:00",
                    "age": "October 1, 2026",
                    "profile": { "name": "One" },
                    "language": "en",
                    "family_friendly": true
                },
                { "title": "Two", "url": "https://two.example/", "description": "Second." },
                { "title": "Three", "url": "https://three.example/", "description": "One too many." }
            ]
        }
    })
}

#[tokio::test]
async fn brave_search_is_a_web_search() {
    let server = Server::new().await;
    let tools = build("remote::brave-search", json!({ "url": server.url(), "api_key": "stack" })).await;
    server.answers_json(200, answer());
    let (is_error, texts) = search(&*tools, json!({ "query": "rust async", "count": 2, "freshness": "week" })).await;
    assert!(!is_error);
    assert_eq!(
        texts,
        [
            "[1] Async & await\nhttps://one.example/async\n2026-10-01T08:00:00\nThe async book 'explains'.",
            "[2] Two\nhttps://two.example/\nSecond."
        ]
    );
    let asked = server.last();
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("GET", "/res/v1/web/search"));
    for (name, value) in [("q", "rust async"), ("count", "2"), ("freshness", "pw")] {
        assert_eq!(asked.query[name], value);
    }
    // The API leaves out `web` where it found nothing.
    server.answers_json(200, json!({ "type": "search", "query": {} }));
    assert_eq!(search(&*tools, json!({ "query": "xyzzy" })).await, (false, vec!["no results for \"xyzzy\"".into()]));
    let good = ("application/json", answer().to_string());
    keys_and_failures(&server, "remote::brave-search", "web_search", good, |asked| asked.header("x-subscription-token").into()).await;
}
