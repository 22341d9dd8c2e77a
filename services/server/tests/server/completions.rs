use insta::{assert_json_snapshot, assert_snapshot};
use serde_json::json;

use crate::client::start;

const PATH: &str = "/v1/completions";

#[tokio::test]
async fn a_text_is_continued() {
    let server = start().await;
    let body = json!({ "model": "parrot", "prompt": "Once", "logprobs": 1 });
    assert_json_snapshot!(server.answer(PATH, &body).await);
}

/// Choices are numbered over all prompts, and tokens are counted over all.
#[tokio::test]
async fn several_prompts_in_one_request() {
    let server = start().await;
    let mut body = json!({ "model": "parrot", "prompt": ["One", "Two"] });
    let answer = server.answer(PATH, &body).await;
    let texts: Vec<_> = answer["choices"].as_array().unwrap().iter().map(|choice| (&choice["index"], &choice["text"])).collect();
    assert_eq!(texts, [(&json!(0), &json!("One!")), (&json!(1), &json!("Two!"))]);
    assert_eq!(answer["usage"]["prompt_tokens"], 14);

    body["stream"] = true.into();
    let told = server.transcript(PATH, &body).await;
    for (index, text) in [(0, "One!"), (1, "Two!")] {
        assert!(told.contains(&format!(r#""choices":[{{"index":{index},"text":"{text}""#)), "{told}");
    }
}

#[tokio::test]
async fn a_continuation_is_streamed() {
    let server = start().await;
    let body = json!({ "model": "parrot", "prompt": "Once", "stream": true, "stream_options": { "include_usage": true } });
    assert_snapshot!(server.transcript(PATH, &body).await);
}

/// Only of an echo: of the prompt alone the scores may be wanted.
#[tokio::test]
async fn an_answer_of_no_tokens_is_an_echos() {
    let server = start().await;
    let body = |echo: bool| json!({ "model": "parrot", "prompt": "Once", "echo": echo, "logprobs": 1, "max_tokens": 0 });
    assert!(server.answer(PATH, &body(true)).await["choices"][0]["text"].as_str().unwrap().starts_with("Once"));
    let refused = server.post(PATH, &body(false)).await;
    assert_eq!(refused.status(), 400);
    assert_eq!(refused.json::<serde_json::Value>().await.unwrap()["error"]["param"], "max_tokens");
}

/// Tokens stand where they are in the text, which begins with the prompt.
#[tokio::test]
async fn an_echo_moves_the_places_of_tokens() {
    let server = start().await;
    let mut body = json!({ "model": "parrot", "prompt": "Once", "echo": true, "logprobs": 1 });
    let choice = server.answer(PATH, &body).await["choices"][0].clone();
    assert_eq!((&choice["text"], &choice["logprobs"]["text_offset"]), (&json!("Once!"), &json!([4])));
    body["stream"] = true.into();
    let told = server.transcript(PATH, &body).await;
    assert!(told.contains(r#""text_offset":[4]"#), "{told}");
}
