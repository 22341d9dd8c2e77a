use super::*;

fn answer() -> Value {
    json!({
        "requestId": "b5947044c4b78efa9552a7c89b306d95",
        "resolvedSearchType": "neural",
        "results": [
            {
                "title": "One",
                "url": "https://one.example/",
                "publishedDate": "2026-10-01T00:00:00.000Z",
                "author": null,
                "score": 0.46,
                "id": "https://one.example/",
                "image": "https://one.example/i.png",
                "text": "The beginning\n\nof the page."
            },
            { "title": null, "url": "https://two.example/", "publishedDate": null, "id": "https://two.example/" }
        ],
        "costDollars": { "total": 0.005 }
    })
}

#[tokio::test]
async fn exa_is_a_web_search() {
    let server = Server::new().await;
    let tools = build("remote::exa-search", json!({ "url": server.url(), "api_key": "stack" })).await;
    server.answers_json(200, answer());
    let (is_error, texts) = search(&*tools, json!({ "query": "rust async", "freshness": "day" })).await;
    assert!(!is_error);
    assert_eq!(
        texts,
        ["[1] One\nhttps://one.example/\n2026-10-01T00:00:00.000Z\nThe beginning of the page.", "[2] \nhttps://two.example/"]
    );
    let asked = server.last();
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("POST", "/search"));
    let body = asked.json();
    assert_eq!((&body["query"], &body["numResults"]), (&json!("rust async"), &json!(5)));
    let since: jiff::Timestamp = body["startPublishedDate"].as_str().unwrap().parse().unwrap();
    let ago = jiff::Timestamp::now().duration_since(since).as_hours();
    assert!((23..=25).contains(&ago), "{ago} hours ago");
    let good = ("application/json", answer().to_string());
    keys_and_failures(&server, "remote::exa-search", "web_search", good, |asked| asked.header("x-api-key").into()).await;
}
