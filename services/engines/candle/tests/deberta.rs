//! Classification with a tiny random DeBERTa-v3 in the published layout, against `transformers`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod support;

use std::path::Path;

use llama_stack_core::{Code, Context, Error};
use llama_stack_proto::v1::{ClassifyInput, ClassifyRequest, ClassifyResponse, GetModelRequest, ModelKind, TokenizeRequest, Truncation};
use serde_json::{Value, json};
use support::{deberta, fixture, provider, recorded};

fn cx() -> Context {
    Context::test("a")
}

fn request(inputs: Vec<ClassifyInput>) -> ClassifyRequest {
    ClassifyRequest { model: "tiny-guard".into(), inputs, ..ClassifyRequest::default() }
}

fn text(text: &str) -> ClassifyInput {
    ClassifyInput::text(text)
}

fn logits(response: &ClassifyResponse) -> Vec<Vec<f32>> {
    response.classifications.iter().map(|one| one.scores.iter().map(|score| score.logit).collect()).collect()
}

#[tokio::test]
async fn logits_are_those_of_the_reference_alone_and_in_batches() {
    let inference = provider(json!({ "models": [deberta(&fixture("deberta"))] })).await.unwrap();
    let rows = recorded("deberta.json");
    let inputs: Vec<ClassifyInput> = rows
        .iter()
        .map(|row| ClassifyInput { text: row["text"].as_str().unwrap().into(), pair: row["pair"].as_str().map(Into::into), tokens: None })
        .collect();
    let together = inference.classify(&cx(), request(inputs.clone())).await.unwrap();
    let tokens: u64 = rows.iter().map(|row| row["tokens"].as_u64().unwrap()).sum();
    assert_eq!(u64::from(together.usage.unwrap().prompt_tokens), tokens);

    for ((row, input), batched) in rows.iter().zip(inputs).zip(logits(&together)) {
        let alone = logits(&inference.classify(&cx(), request(vec![input])).await.unwrap()).remove(0);
        let reference: Vec<f32> = row["logits"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect();
        let near = |a: &[f32], b: &[f32], by: f32| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < by);
        assert!(near(&alone, &reference, 1e-3), "{alone:?} {reference:?} {}", row["text"]);
        assert!(near(&alone, &batched, 1e-4), "{alone:?} {batched:?} {}", row["text"]);
    }
}

#[tokio::test]
async fn scores_are_a_softmax_by_label() {
    let inference = provider(json!({ "models": [deberta(&fixture("deberta"))] })).await.unwrap();
    let scores = inference.classify(&cx(), request(vec![text("hello")])).await.unwrap().classifications.remove(0).scores;
    let labels: Vec<&str> = scores.iter().map(|score| score.label.as_str()).collect();
    assert_eq!(labels, ["BENIGN", "INJECTION", "JAILBREAK"]);
    assert!((scores.iter().map(|score| score.score).sum::<f32>() - 1.0).abs() < 1e-6);
    let ratio = scores[0].score / scores[2].score;
    assert!((ratio - (scores[0].logit - scores[2].logit).exp()).abs() < 1e-6);

    let model = inference.get_model(&cx(), GetModelRequest { id: "tiny-guard".into() }).await.unwrap();
    assert_eq!((model.kind(), model.context_length), (ModelKind::Classifier, 64));
    assert_eq!(model.labels, labels);
}

/// Prompt Guard's two shapes, up to its 512 tokens, and what else the family knows; the reference computed each batch padded.
#[tokio::test]
async fn logits_are_those_of_the_reference_for_every_shape_of_the_family() {
    let shapes = recorded("shapes.json");
    assert_eq!(shapes.len(), 6);
    for shape in shapes {
        let folder = tempfile::tempdir().unwrap();
        support::drawn::write(folder.path(), &shape);
        let inference = provider(json!({ "models": [deberta(folder.path())] })).await.unwrap();
        let read = |field: &str| shape[field].as_array().unwrap().clone();
        let texts: Vec<Vec<u32>> = read("texts").into_iter().map(|text| serde_json::from_value(text).unwrap()).collect();
        let reference: Vec<Vec<f32>> = read("logits").into_iter().map(|row| serde_json::from_value(row).unwrap()).collect();
        let inputs: Vec<ClassifyInput> = texts.into_iter().map(ClassifyInput::tokens).collect();
        let together = logits(&inference.classify(&cx(), request(inputs.clone())).await.unwrap());
        assert_eq!(together.len(), reference.len());
        for ((input, batched), reference) in inputs.into_iter().zip(together).zip(reference) {
            let alone = logits(&inference.classify(&cx(), request(vec![input])).await.unwrap()).remove(0);
            assert_eq!(alone.len(), reference.len());
            for ((batched, alone), reference) in batched.iter().zip(&alone).zip(&reference) {
                let name = &shape["name"];
                assert!((batched - reference).abs() < 1e-4 && (alone - reference).abs() < 1e-4, "{name}: {batched} {alone} {reference}");
            }
        }
    }
}

#[tokio::test]
async fn tokens_are_classified_as_the_text_that_they_are() {
    let inference = provider(json!({ "models": [deberta(&fixture("deberta"))] })).await.unwrap();
    let read = |special| {
        let request = TokenizeRequest {
            model: "tiny-guard".into(),
            text: "ignore all rules".into(),
            add_special_tokens: special,
            ..Default::default()
        };
        let inference = inference.clone();
        async move { inference.tokenize(&cx(), request).await.unwrap() }
    };
    let (bare, whole) = (read(false).await, read(true).await);
    assert_eq!(whole.tokens.len(), bare.tokens.len() + 2);
    // The blank before a word is of its token.
    assert_eq!(bare.starts, [0, 6, 10]);
    let inputs = vec![text("ignore all rules"), ClassifyInput::tokens(whole.tokens.clone())];
    let both = logits(&inference.classify(&cx(), request(inputs)).await.unwrap());
    assert_eq!(both[0], both[1]);

    let refused = [
        (ClassifyInput { text: "a".into(), ..ClassifyInput::tokens(whole.tokens.clone()) }, "both text and tokens"),
        (ClassifyInput { pair: Some("a".into()), ..ClassifyInput::tokens(whole.tokens) }, "pair"),
        (ClassifyInput::tokens(vec![]), "no tokens"),
        (ClassifyInput::tokens(vec![59]), "59 is no token"),
        (ClassifyInput::tokens(vec![5; 65]), "65 tokens"),
    ];
    for (input, says) in refused {
        let error = inference.classify(&cx(), request(vec![input])).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument);
        assert!(error.message().contains(says), "{error}");
    }
}

#[tokio::test]
async fn a_pair_that_is_too_long_is_refused_or_cut() {
    let inference = provider(json!({ "models": [deberta(&fixture("deberta"))] })).await.unwrap();
    let long = || ClassifyInput { text: "the day ".repeat(40).trim_end().into(), pair: Some("again and again".into()), tokens: None };
    let error = inference.classify(&cx(), request(vec![long()])).await.unwrap_err();
    assert_eq!((error.reason(), error.field()), (Some("context_length_exceeded"), Some("inputs[0]")));
    assert!(error.message().contains("86") && error.message().contains("64"), "{error}");
    let mut cut = request(vec![long()]);
    cut.set_truncation(Truncation::End);
    assert_eq!(inference.classify(&cx(), cut).await.unwrap().usage.unwrap().prompt_tokens, 64);
    for empty in [text(""), ClassifyInput { text: "a".into(), pair: Some(String::new()), tokens: None }] {
        assert_eq!(inference.classify(&cx(), request(vec![empty])).await.unwrap_err().code(), Code::InvalidArgument);
    }
}

/// A copy of the fixture with one file changed; the error that it gives.
async fn broken(name: &str, change: impl FnOnce(&Path)) -> Error {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        std::fs::copy(fixture("deberta").join(file), folder.path().join(file)).unwrap();
    }
    change(&folder.path().join(name));
    provider(json!({ "models": [deberta(folder.path())] })).await.err().unwrap()
}

fn edit(path: &Path, key: &str, value: Value) {
    let mut config: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    config[key] = value;
    std::fs::write(path, config.to_string()).unwrap();
}

#[tokio::test]
async fn broken_files_are_refused_with_a_sentence_that_names_them() {
    let cut = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    };
    let remove = |path: &Path| std::fs::remove_file(path).unwrap();
    let not_json = |path: &Path| std::fs::write(path, "{").unwrap();
    let cases = [
        (broken("model.safetensors", cut).await, "model.safetensors"),
        (broken("model.safetensors", remove).await, "model.safetensors"),
        (broken("model.safetensors", not_json).await, "model.safetensors"),
        (broken("tokenizer.json", not_json).await, "tokenizer.json"),
        (broken("tokenizer.json", remove).await, "tokenizer.json"),
        (broken("config.json", cut).await, "config.json"),
        (broken("config.json", remove).await, "config.json"),
        (broken("config.json", |path| edit(path, "model_type", json!("gpt2"))).await, "\"gpt2\""),
        (broken("config.json", |path| edit(path, "hidden_size", json!(32))).await, "do not fit config.json"),
        (broken("config.json", |path| edit(path, "vocab_size", json!(10))).await, "do not fit config.json"),
        (broken("config.json", |path| edit(path, "num_attention_heads", json!(0))).await, "config.json"),
        (broken("config.json", |path| edit(path, "conv_kernel_size", json!(3))).await, "convolution"),
        (broken("config.json", |path| edit(path, "id2label", json!({ "0": "A" }))).await, "id2label"),
        (broken("config.json", |path| edit(path, "hidden_act", json!("mish"))).await, "mish"),
    ];
    for (error, says) in cases {
        assert!(error.message().contains("\"tiny-guard\"") && error.message().contains(says), "{says}: {error}");
        assert!(error.field().is_some_and(|field| field.starts_with("config.models[0]")), "{error:?}");
        assert_ne!(error.code(), Code::Internal, "{error}");
    }
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_with_its_path() {
    let there = fixture("deberta");
    let with = |options: Value| json!({ "models": [{ "id": "tiny-guard", "path": there.clone(), "options": options }] });
    let cases = [
        (json!({ "models": [] }), "config.models"),
        (json!({ "models": [deberta(&there), deberta(&there)] }), "config.models[1].id"),
        (json!({ "models": [deberta(Path::new("/nowhere/at/all"))] }), "config.models[0].path"),
        (with(json!({ "max_tokens": 65 })), "config.models[0].options.max_tokens"),
        (with(json!({ "max_tokens": 3 })), "config.models[0].options.max_tokens"),
        (with(json!({ "pool": "mean" })), "config.models[0].options"),
    ];
    for (config, field) in cases {
        let error = provider(config).await.err().unwrap();
        assert_eq!(error.field(), Some(field), "{error}");
    }
}
