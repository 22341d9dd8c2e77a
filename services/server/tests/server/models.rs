use serde_json::Value;

use crate::client::start;

#[tokio::test]
async fn models_are_listed_and_found_by_id() {
    let server = start().await;
    let list: Value = server.get("/v1/models").await.json().await.unwrap();
    let ids: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["parrot", "org/vectors"]);
    // Where Llama Stack's older clients look for it.
    let old: Value = server.get("/v1/openai/v1/models?x=1").await.json().await.unwrap();
    assert_eq!(old, list);
    for other in ["/v1/openai/models", "/v1/openai/v10/models", "/v1/openai/v1/openai/v1/models"] {
        assert_eq!(server.get(other).await.status(), 404, "{other}");
    }
    // Ids have slashes, as they are and as clients escape them.
    for path in ["/v1/models/org/vectors", "/v1/models/org%2Fvectors"] {
        let model: Value = server.get(path).await.json().await.unwrap();
        insta::allow_duplicates! { insta::assert_json_snapshot!(model) }
    }
}
