use serde_json::json;

use crate::client::start;

const PATH: &str = "/v1/embeddings";

#[tokio::test]
async fn a_text_becomes_a_vector() {
    let server = start().await;
    let body = json!({ "model": "org/vectors", "input": "hi" });
    insta::assert_json_snapshot!(server.answer(PATH, &body).await);
}

/// Little-endian floats, as the OpenAI clients ask for by default.
#[tokio::test]
async fn vectors_come_as_base64() {
    let server = start().await;
    let body = json!({ "model": "org/vectors", "input": ["a", "b"], "encoding_format": "base64" });
    let answer = server.answer(PATH, &body).await;
    // 1.0 is 00 00 80 3f, 0.5 is 00 00 00 3f.
    assert_eq!(answer["data"][1]["embedding"], "AACAPwAAAD8=");
    // Null is as good as nothing, here as in every field that may be left out.
    let body = json!({ "model": "org/vectors", "input": "a", "encoding_format": null });
    assert!(server.answer(PATH, &body).await["data"][0]["embedding"].is_array());
}

#[tokio::test]
async fn tokens_are_taken_as_texts_are() {
    let server = start().await;
    for (input, vectors) in [(json!([1, 2, 3]), 1), (json!([[1], [2, 3]]), 2), (json!(["a", "b", "c"]), 3)] {
        let answer = server.answer(PATH, &json!({ "model": "org/vectors", "input": input })).await;
        assert_eq!(answer["data"].as_array().unwrap().len(), vectors);
    }
}

#[tokio::test]
async fn what_is_too_long_is_refused_or_cut_as_it_was_asked_for() {
    let server = start().await;
    let long = |truncate: Option<bool>| json!({ "model": "org/vectors", "input": ["a", "longer than it reads"], "truncate": truncate });
    let cut = server.answer(PATH, &long(Some(true))).await;
    assert_eq!((cut["truncated_inputs"].as_u64(), cut["data"].as_array().unwrap().len()), (Some(1), 2));
    for truncate in [None, Some(false)] {
        assert_eq!(server.post(PATH, &long(truncate)).await.status(), 400);
    }
    assert!(server.answer(PATH, &json!({ "model": "org/vectors", "input": "a", "truncate": true })).await["truncated_inputs"].is_null());
}
