use super::*;

const ANSWER: &str = "Query:\n\"10 densest elemental metals\"\n\nInput interpretation:\n10 densest metallic elements | by mass density\n\nResult:\n1 | hassium | 41 g/cm^3\n\nWolfram|Alpha website result for \"10 densest elemental metals\":\nhttps://www.wolframalpha.com/input?i=10+densest+elemental+metals\n";

#[tokio::test]
async fn wolfram_alpha_answers_or_says_that_it_did_not_understand() {
    let server = Server::new().await;
    let tools = build("remote::wolfram-alpha", json!({ "url": server.url(), "api_key": "stack" })).await;
    server.answers(200, "text/plain;charset=utf-8", ANSWER);
    let (is_error, texts) =
        invoke(&*tools, &Context::test("a"), "wolfram_alpha", json!({ "query": "10 densest elemental metals" })).await.unwrap();
    assert_eq!((is_error, texts), (false, vec![ANSWER.trim().to_owned()]));
    let asked = server.last();
    assert_eq!((asked.method.as_str(), asked.path.as_str()), ("GET", "/api/v1/llm-api"));
    assert_eq!((asked.query["input"].as_str(), asked.query["maxchars"].as_str()), ("10 densest elemental metals", "6800"));
    assert!(!asked.query.contains_key("appid"), "a key in a URL ends up in logs");

    server.answers(501, "text/plain", "Wolfram|Alpha did not understand your input\nThings to try instead: population france");
    assert!(told(&*tools, "wolfram_alpha", json!({ "query": "wug" })).await.contains("population france"));
    server.answers(501, "text/plain", "");
    assert!(told(&*tools, "wolfram_alpha", json!({ "query": "wug" })).await.contains("in other words"));
    assert!(told(&*tools, "wolfram_alpha", json!({ "query": "" })).await.contains("query is empty"));
    let key = |asked: &Asked| asked.header("authorization").trim_start_matches("Bearer ").to_owned();
    keys_and_failures(&server, "remote::wolfram-alpha", "wolfram_alpha", ("text/plain", ANSWER.into()), key).await;
}
