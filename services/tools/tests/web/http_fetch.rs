use super::*;

/// A fetch that may reach `server` and no other private address.
async fn fetch_from(server: &Server, config: Value) -> Arc<dyn Tools> {
    build_under(json!({ "allow": [server.address.to_string()] }), "inline::http-fetch", config).await.unwrap()
}

async fn fetch(tools: &dyn Tools, arguments: Value) -> (bool, String) {
    let (is_error, mut texts) = invoke(tools, &Context::test("a"), "http_fetch", arguments).await.unwrap();
    assert_eq!(texts.len(), 1);
    (is_error, texts.remove(0))
}

#[tokio::test]
async fn a_page_comes_as_markdown_with_where_it_came_from() {
    let server = Server::new().await;
    let tools = fetch_from(&server, json!({})).await;
    server.answers(200, "text/html; charset=utf-8", "<title>Hi</title><h1>Hello</h1><p>See <a href='/more'>more</a>.<script>x</script>");
    let url = format!("{}/page?a=b", server.url());
    let (is_error, text) = fetch(&*tools, json!({ "url": url, "headers": { "x-custom": "1" } })).await;
    let expected = format!(
        "status: 200\nurl: {url}\ncontent type: text/html; charset=utf-8\ntitle: Hi\n\n# Hello\n\nSee [more]({}/more).",
        server.url()
    );
    assert_eq!((is_error, text), (false, expected));
    assert_eq!((server.last().header("x-custom"), server.last().method.as_str()), ("1", "GET"));

    server.answers(200, "application/json", "[1,2,3,4,5,6,7,8,9]");
    let (_, text) = fetch(&*tools, json!({ "url": url, "max_chars": 6 })).await;
    assert!(text.ends_with("\n\n[1,2,3\n\n[cut after 6 characters; a larger max_chars shows more]"), "{text}");
    server.answers(404, "text/plain", "no such page");
    let (is_error, text) = fetch(&*tools, json!({ "url": url })).await;
    assert!(is_error && text.starts_with("status: 404\n") && text.ends_with("no such page"), "{text}");
    let (_, text) = fetch(&*tools, json!({ "url": url, "method": "HEAD" })).await;
    assert!(text.ends_with("[no body]") && server.last().method == Method::HEAD, "{text}");
}

#[tokio::test]
async fn what_is_not_open_to_tools_is_told() {
    let (server, secret) = (Server::new().await, Server::new().await);
    let tools = fetch_from(&server, json!({})).await;
    for url in [secret.url(), "http://169.254.169.254/latest/meta-data/".into(), "file:///etc/passwd".into(), "http://[::1]/".into()] {
        let (is_error, text) = fetch(&*tools, json!({ "url": url })).await;
        assert!(is_error && (text.contains("may not be reached") || text.contains("may not be opened")), "{text}");
    }
    server.answers(301, "text/plain", "");
    server.adds_header("location", &secret.url());
    let (is_error, text) = fetch(&*tools, json!({ "url": server.url() })).await;
    assert!(is_error && text.contains("egress: { allow: [\"127.0.0.1:"), "{text}");
    assert_eq!(secret.asked().len(), 0);
    let (is_error, text) = fetch(&*tools, json!({ "url": "not a url" })).await;
    assert!(is_error && text.contains("is no URL"), "{text}");
    let (is_error, text) = fetch(&*tools, json!({ "url": server.url(), "headers": { "Host": "other" } })).await;
    assert!(is_error && text.contains("leave it out"), "{text}");
}

#[tokio::test]
async fn a_model_posts_only_where_the_operator_says_so() {
    let server = Server::new().await;
    server.answers(200, "text/plain", "done");
    let post = json!({ "url": server.url(), "method": "POST", "body": "{\"a\":1}" });
    let reading = fetch_from(&server, json!({})).await;
    let (is_error, text) = fetch(&*reading, post.clone()).await;
    assert!(is_error && text.contains("allow_post") && server.asked().is_empty(), "{text}");
    let tool = only_tool(&*reading).await;
    assert_eq!((tool.on_interrupt(), tool.reads_untrusted, tool.changes_state), (OnInterrupt::Retry, true, true));

    let writing = fetch_from(&server, json!({ "allow_post": true })).await;
    let (is_error, text) = fetch(&*writing, post).await;
    assert!(!is_error && text.ends_with("\n\ndone"), "{text}");
    assert_eq!((server.last().json(), server.last().header("content-type")), (json!({ "a": 1 }), "application/json"));
    assert_eq!(only_tool(&*writing).await.on_interrupt(), OnInterrupt::Fail);
}

#[tokio::test]
async fn what_is_posted_carries_the_key_of_its_call() {
    let server = Server::new().await;
    server.answers(200, "text/plain", "done");
    let tools = fetch_from(&server, json!({ "allow_post": true })).await;
    let cx = Context::test("a").with_idempotency_key("key-1");
    let sent = async |arguments: Value| {
        let (is_error, texts) = invoke(&*tools, &cx, "http_fetch", arguments).await.unwrap();
        assert!(!is_error, "{texts:?}");
        server.last().header("idempotency-key").to_owned()
    };
    let posted = json!({ "url": server.url(), "method": "POST", "body": "{}", "headers": { "Idempotency-Key": "the model's" } });
    assert_eq!(sent(posted).await, "key-1");
    assert_eq!(sent(json!({ "url": server.url() })).await, "");
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_cut_and_the_note_says_so() {
    let server = Server::new().await;
    let tools = fetch_from(&server, json!({ "max_bytes": 1000 })).await;
    server.answers(200, "text/plain", "x".repeat(5000));
    let (is_error, text) = fetch(&*tools, json!({ "url": server.url() })).await;
    assert!(!is_error && text.ends_with("x\n\n[cut: only the first 1000 bytes were read]"), "{text}");
    let error = build_under(json!({}), "inline::http-fetch", json!({ "max_chars": 0 })).await.err().unwrap();
    assert_eq!(error.field(), Some("config.max_chars"));
}
