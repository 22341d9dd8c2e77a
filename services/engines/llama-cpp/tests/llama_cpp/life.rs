//! Loading, unloading, and files that this engine cannot use.

use std::{path::Path, sync::Arc, time::Duration};

use llama_stack_core::{Context, Deps, Inference, Registry};
use llama_stack_proto::v1::{CompleteRequest, EmbedRequest, GetModelRequest, SamplingParams};
use llama_stack_tests::conformance::local::{SMOL, complete, cx, home, on, smol_spec, story};
use serde_json::json;

#[test]
fn a_model_that_nobody_uses_is_unloaded_and_comes_back() {
    on(async {
        let config = json!({ "models": [smol_spec()], "load": "lazy", "keep_alive_seconds": 1 });
        let smol = crate::SUBJECT.build(config).await.unwrap();
        let state = async || smol.get_model(&cx(), GetModelRequest { id: SMOL.into() }).await.unwrap().metadata["state"].clone();
        assert_eq!(state().await, "unloaded");
        let first = complete(&smol, story(4)).await;
        assert_eq!(state().await, "loaded");
        let unloaded = async {
            while state().await == "loaded" {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), unloaded).await.expect("it stayed");
        assert_eq!(complete(&smol, story(4)).await.choices, first.choices);
    });
}

/// Who looks while others wait for the model, or use it, is told just that.
#[test]
fn a_model_that_is_being_loaded_or_used_says_so() {
    on(async {
        let smol = crate::SUBJECT.build(json!({ "models": [smol_spec()], "load": "lazy" })).await.unwrap();
        let mut seen = Vec::new();
        let watch = async {
            loop {
                let model = smol.get_model(&cx(), GetModelRequest { id: SMOL.into() }).await.unwrap();
                if seen.last() != Some(&model.metadata["state"]) {
                    seen.push(model.metadata["state"].clone());
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let many = futures::future::join_all((0..4).map(|_| complete(&smol, story(8))));
        tokio::select! {
            answers = many => assert_eq!(answers.len(), 4),
            () = watch => {}
        }
        let since = seen.iter().position(|state| state != "unloaded").unwrap();
        assert!(since <= 1 && seen[since..] == ["loading", "loaded"], "{seen:?}");
    });
}

#[test]
fn a_context_beyond_the_model_is_refused() {
    on(async {
        let mut spec = smol_spec();
        spec["context_length"] = json!(1_000_000);
        let error = crate::SUBJECT.build(json!({ "models": [spec], "load": "lazy" })).await.err().unwrap();
        assert!(error.message().contains("8192") && error.message().contains("1000000"), "{error:?}");
        assert_eq!(error.field(), Some("context_length"));
    });
}

#[test]
fn an_adapter_that_is_not_there_or_none_is_refused() {
    on(async {
        let ask = async |path: &str| {
            let mut spec = smol_spec();
            spec["options"] = json!({ "adapters": [{ "path": path }] });
            crate::SUBJECT.build(json!({ "models": [spec], "load": "eager" })).await.err().unwrap()
        };
        let missing = ask("/nowhere/adapter.gguf").await;
        assert!(missing.message().contains("/nowhere/adapter.gguf is gone"), "{missing:?}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"GGUF but not an adapter, and long enough to be looked at").unwrap();
        let wrong = ask(file.path().to_str().unwrap()).await;
        assert_eq!(wrong.reason(), Some("model_unusable"), "{wrong:?}");
    });
}

#[test]
fn a_chat_model_is_not_asked_for_vectors() {
    on(async {
        let smol = crate::SUBJECT.smol().await;
        let request = EmbedRequest { model: SMOL.into(), ..EmbedRequest::default() };
        let error = smol.embed(&cx(), request).await.unwrap_err();
        assert_eq!(error.reason(), Some("wrong_model_kind"), "{error:?}");
    });
}

/// The small model, as a stack in this home would have it.
async fn at(home: &Path) -> (Arc<dyn Inference>, Deps) {
    let mut registry = Registry::default();
    llama_stack_engine_llama_cpp::register(&mut registry);
    let mut spec = smol_spec();
    spec["context_length"] = json!(1_024);
    spec["options"] = json!({ "keep_on_disk_megabytes": 64 });
    let deps = Deps::new(home);
    (registry.inference.build("inline::llama-cpp", json!({ "models": [spec] }), deps.clone()).await.unwrap(), deps)
}

#[test]
fn a_conversation_is_still_known_after_a_restart_and_only_to_its_tenant() {
    on(async {
        let home = home();
        let text = "The first thing to know about rivers is that they are older than the towns beside them. ".repeat(3);
        let request = || CompleteRequest { sampling: Some(SamplingParams::greedy(6)), ..CompleteRequest::text(SMOL, text.clone()) };
        let ask = async |smol: &Arc<dyn Inference>, tenant: &str| {
            let response = smol.complete(&Context::test(tenant), request()).await.unwrap();
            (response.choices, response.usage.unwrap().cached_tokens)
        };
        let (smol, deps) = at(&home).await;
        let (said, cached) = ask(&smol, "a").await;
        assert_eq!(cached, 0);
        deps.shutdown.cancel();
        deps.tasks.close();
        deps.tasks.wait().await;
        drop(smol);

        let (smol, deps) = at(&home).await;
        assert_eq!(ask(&smol, "b").await.1, 0, "another tenant's text is not known to it");
        let (again, cached) = ask(&smol, "a").await;
        assert!(cached > 40, "{cached}");
        assert_eq!(again, said);
        deps.shutdown.cancel();
    });
}

/// Numbers that a person can act on, before anything is loaded.
#[test]
fn a_model_that_does_not_fit_is_refused_with_numbers() {
    on(async {
        let mut spec = smol_spec();
        // 22.5 KiB a token: some hundred terabytes.
        spec["options"] = json!({ "cache_tokens": 4_000_000_000u32 });
        let error = crate::SUBJECT.build(json!({ "models": [spec], "load": "eager" })).await.err().unwrap();
        assert_eq!(error.reason(), Some("out_of_memory"), "{error:?}");
        assert!(error.message().contains("GiB are available") && error.message().contains(SMOL), "{}", error.message());
    });
}
