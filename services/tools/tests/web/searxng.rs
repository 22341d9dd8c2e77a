use super::*;

fn answer() -> Value {
    json!({
        "query": "rust async",
        "number_of_results": 0,
        "results": [
            {
                "url": "https://one.example/",
                "title": "One",
                "content": "First.",
                "publishedDate": "2026-10-01T00:00:00",
                "engine": "duckduckgo",
                "template": "default.html",
                "parsed_url": ["https", "one.example", "/", "", "", ""],
                "engines": ["duckduckgo", "brave"],
                "positions": [1, 2],
                "score": 3.0,
                "category": "general"
            },
            { "url": "", "title": "no address" },
            { "url": "https://two.example/", "title": "Two", "content": null, "publishedDate": null, "engine": "brave" }
        ],
        "answers": [],
        "corrections": [],
        "infoboxes": [],
        "suggestions": ["rust tokio"],
        "unresponsive_engines": [["google", "CAPTCHA"]]
    })
}

#[tokio::test]
async fn searxng_is_a_web_search() {
    let server = Server::new().await;
    // Below a path, and without a key.
    let tools = build("remote::searxng", json!({ "url": format!("{}/searx/", server.url()) })).await;
    server.answers_json(200, answer());
    let (is_error, texts) = search(&*tools, json!({ "query": "rust async", "freshness": "year" })).await;
    assert!(!is_error);
    assert_eq!(texts, ["[1] One\nhttps://one.example/\n2026-10-01T00:00:00\nFirst.", "[2] Two\nhttps://two.example/"]);
    let asked = server.last();
    assert_eq!((asked.method.as_str(), asked.path.as_str(), asked.header("authorization")), ("GET", "/searx/search", ""));
    for (name, value) in [("q", "rust async"), ("format", "json"), ("time_range", "year")] {
        assert_eq!(asked.query[name], value);
    }
    let tool = only_tool(&*tools).await;
    assert_eq!((tool.on_interrupt(), tool.reads_untrusted), (OnInterrupt::Retry, true));

    for (status, body, words) in
        [(403, "Forbidden", "settings.yml"), (429, "", "its limit is reached"), (500, "", "status 500"), (200, "<html>", "not of its API")]
    {
        server.answers(status, "text/html", body);
        let text = told(&*tools, "web_search", json!({ "query": "q" })).await;
        assert!(text.contains(words), "{text}");
    }
    let error = build_under(json!({}), "remote::searxng", json!({})).await.err().unwrap();
    assert_eq!(error.field(), Some("config.url"));
}
