//! A folder as models are published, of the Llama 3.1 architecture, against the reference implementation.

use std::sync::Arc;

use llama_stack_core::Inference;
use llama_stack_models::memory::Available;
use llama_stack_proto::v1::{CompleteRequest, FinishReason, GetModelRequest, SamplingParams, TokenizeRequest};
use serde_json::json;
use tokio::sync::OnceCell;

use crate::support::{
    llama31::{TINY, cases, folder},
    *,
};

async fn tiny() -> Arc<dyn Inference> {
    static CELL: OnceCell<Arc<dyn Inference>> = OnceCell::const_new();
    // Most prompts are longer than a step.
    let config = json!({ "models": [{ "id": TINY, "path": folder().join("hf"), "options": { "prompt_step": 16 } }] });
    CELL.get_or_init(|| async { build(config).await.unwrap() }).await.clone()
}

#[test]
fn a_prompt_becomes_the_tokens_of_the_reference() {
    on(async {
        let tiny = tiny().await;
        for case in cases() {
            case.is_tokenized_alike(&tiny).await;
        }
    });
}

/// One of the prompts is so long that it is answered otherwise where positions are not scaled as Llama 3.1 wants it.
#[test]
fn answers_and_their_logarithms_are_those_of_the_reference() {
    on(async {
        let tiny = tiny().await;
        for case in cases() {
            case.is_answered_alike(&tiny).await;
        }
    });
}

#[test]
fn a_folder_says_what_it_is() {
    on(async {
        let model = tiny().await.get_model(&cx(), GetModelRequest { id: TINY.into() }).await.unwrap();
        assert_eq!((model.context_length, model.metadata["quantization"].as_str()), (131_072, "bfloat16"));
    });
}

/// Numbers that a person can act on, before weights are read. The square that a prompt of the whole context would need in one
/// pass is told, and keeps nobody from shorter ones.
#[test]
fn a_context_that_does_not_fit_is_refused_with_numbers() {
    on(async {
        if Available::now().is_none_or(|available| available.bytes > 64 << 30) {
            eprintln!("skipped: this machine would hold it");
            return;
        }
        let mut spec = json!({ "id": TINY, "path": folder().join("hf") });
        for asked in [json!(null), json!(131_072)] {
            spec["context_length"] = asked;
            let tiny = build(json!({ "models": [spec.clone()], "load": "eager" })).await.unwrap();
            let metadata = tiny.get_model(&cx(), GetModelRequest { id: TINY.into() }).await.unwrap().metadata;
            assert_eq!((metadata["state"].as_str(), metadata["requests"].as_str()), ("loaded", "0"));
            assert!(metadata["memory_bytes"].parse::<u64>().unwrap() > 64 << 30, "{metadata:?}");
        }
        // Keys and values of 256 bytes for each of 2³⁰ tokens.
        let long = tempfile::tempdir().unwrap();
        for file in std::fs::read_dir(folder().join("hf")).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), long.path().join(file.file_name())).unwrap();
        }
        let config = std::fs::read_to_string(long.path().join("config.json")).unwrap();
        let config = config.replace("\"max_position_embeddings\": 131072", "\"max_position_embeddings\": 1073741824");
        std::fs::write(long.path().join("config.json"), config).unwrap();
        let spec = json!({ "id": TINY, "path": long.path(), "context_length": 1_u64 << 30 });
        let error = build(json!({ "models": [spec], "load": "eager" })).await.err().unwrap();
        assert_eq!((error.reason(), error.field()), (Some("out_of_memory"), Some("context_length")), "{error:?}");
        assert!(error.message().contains(TINY) && error.message().contains("is the largest that fits"), "{}", error.message());
    });
}

/// A turn may end with any of three tokens; `generation_config.json` names them.
#[test]
fn each_of_the_three_ends_ends_an_answer() {
    on(async {
        let tiny = tiny().await;
        for name in ["<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"] {
            let request = TokenizeRequest { model: TINY.into(), text: name.into(), ..TokenizeRequest::default() };
            let end = tiny.tokenize(&cx(), request).await.unwrap().tokens;
            assert_eq!(end.len(), 1, "{name} is one token");
            let sampling = SamplingParams { logit_bias: [(end[0], 100.0)].into(), ..SamplingParams::greedy(4) };
            let request = CompleteRequest { sampling: Some(sampling), ..CompleteRequest::text(TINY, "The river rose") };
            let answer = complete(&tiny, request).await;
            assert_eq!((answer.choices[0].text.as_str(), answer.choices[0].finish_reason()), ("", FinishReason::Stop), "{name}");
        }
    });
}

/// Near the reference, and no longer the same.
#[test]
fn weights_can_be_quantised_while_they_are_loaded() {
    on(async {
        let config = json!({ "models": [{ "id": TINY, "path": folder().join("hf"), "options": { "isq": "q8_0" } }] });
        let quantised = build(config).await.unwrap();
        let scored = || CompleteRequest {
            sampling: Some(SamplingParams::greedy(1)),
            logprobs: true,
            ..CompleteRequest::text(TINY, "The river rose")
        };
        let (near, exact) = (complete(&quantised, scored()).await, complete(&tiny().await, scored()).await);
        let (near, exact) = (&near.choices[0].logprobs[0], &exact.choices[0].logprobs[0]);
        assert_eq!(near.token_id, exact.token_id);
        let distance = (near.logprob - exact.logprob).abs();
        assert!(distance > 0.0 && distance < 0.2, "{} and {}", near.logprob, exact.logprob);
    });
}
