//! Llama 3.1 as it was published: its tokenizer, its template and the scaling of its positions, against the reference.

use llama_stack_tests::conformance::local::{
    llama31::{TINY, TOLERANCE, cases, folder},
    on,
};
use serde_json::json;

/// Over 2,311 tokens a cache in half precision takes more.
const LONG: f32 = 0.03;

#[test]
fn a_tiny_llama_31_reads_and_answers_as_the_reference() {
    on(async {
        let spec = json!({ "id": TINY, "path": folder().join("gguf/model.gguf"), "context_length": 8_192 });
        let tiny = crate::SUBJECT.build(json!({ "models": [spec] })).await.unwrap();
        for case in cases() {
            case.is_tokenized_alike(&tiny).await;
            case.is_answered_within(if case.name == "long" { LONG } else { TOLERANCE }, &tiny).await;
        }
    });
}
