//! Loading, unloading, and files that this engine cannot use.

use std::{path::Path, sync::Arc, time::Duration};

use llama_stack_core::{Context, Deps, Inference, Registry, forget::Keepers};
use llama_stack_proto::v1::{CompleteRequest, EmbedRequest, GetModelRequest, SamplingParams};
use llama_stack_tests::conformance::local::{SMOL, complete, cx, home, on, smol_spec, story};
use serde_json::{Value, json};

#[test]
fn a_model_that_nobody_uses_is_unloaded_and_comes_back() {
    on(async {
        let config = json!({ "models": [smol_spec()], "load": "lazy", "keep_alive_seconds": 1 });
        let smol = crate::SUBJECT.build(config).await.unwrap();
        let state = async || smol.get_model(&cx(), GetModelRequest { id: SMOL.into() }).await.unwrap().metadata["state"].clone();
        assert_eq!(state().await, "unloaded");
        let first = complete(&smol, story(4)).await;
        // A second may be over before anybody looks: then it is asked again.
        let mut looks = 1;
        while state().await != "loaded" {
            assert!(looks < 10, "it is unloaded while it is used");
            complete(&smol, story(4)).await;
            looks += 1;
        }
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
        assert_eq!(missing.field(), Some("options.adapters[0].path"), "{missing:?}");
        assert!(missing.message().contains("/nowhere/adapter.gguf"), "{missing:?}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"GGUF but not an adapter, and long enough to be looked at").unwrap();
        let wrong = ask(file.path().to_str().unwrap()).await;
        assert_eq!(wrong.reason(), Some("model_unusable"), "{wrong:?}");
    });
}

#[test]
fn an_option_out_of_its_range_is_refused_with_the_range() {
    on(async {
        for (option, value, range) in
            [("parallel", 0, "1 to 64"), ("parallel", 65, "1 to 64"), ("batch", 0, "1 to 512"), ("batch", 513, "1 to 512")]
        {
            let mut spec = smol_spec();
            spec["options"][option] = json!(value);
            let error = crate::SUBJECT.build(json!({ "models": [spec], "load": "lazy" })).await.err().unwrap();
            assert_eq!(error.field(), Some(format!("options.{option}").as_str()), "{error:?}");
            assert!(error.message().contains(range) && error.message().contains(SMOL), "{}", error.message());
        }
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
    kept_at(home, json!({})).await
}

async fn kept_at(home: &Path, more: Value) -> (Arc<dyn Inference>, Deps) {
    let mut registry = Registry::default();
    llama_stack_engine_llama_cpp::register(&mut registry);
    let mut spec = smol_spec();
    spec["context_length"] = json!(1_024);
    spec["options"] = json!({ "keep_on_disk_megabytes": 64 });
    let mut deps = Deps::new(home);
    deps.extensions.insert(Keepers::default());
    let mut config = json!({ "models": [spec] });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    (registry.inference.build("inline::llama-cpp", config, deps.clone()).await.unwrap(), deps)
}

/// In memory, and on disk under whatever model.
#[test]
fn what_a_tenant_had_read_is_forgotten_and_nobody_elses() {
    on(async {
        let home = home();
        let text = "A bridge is a promise that somebody made to people who were not born yet. ".repeat(4);
        let request = || CompleteRequest { sampling: Some(SamplingParams::greedy(4)), ..CompleteRequest::text(SMOL, text.clone()) };
        let cached = async |smol: &Arc<dyn Inference>, tenant: &str| {
            smol.complete(&Context::test(tenant), request()).await.unwrap().usage.unwrap().cached_tokens
        };
        let (smol, deps) = at(&home).await;
        assert_eq!((cached(&smol, "a").await, cached(&smol, "b").await), (0, 0));
        deps.shutdown.cancel();
        deps.tasks.close();
        deps.tasks.wait().await;
        drop(smol);

        // Nothing is loaded: it is on disk alone.
        let (smol, deps) = kept_at(&home, json!({ "load": "lazy" })).await;
        let keepers = deps.extensions.get::<Keepers>().unwrap().clone();
        assert_eq!(keepers.forget("a").await.unwrap(), 1);
        assert_eq!(cached(&smol, "a").await, 0);
        assert!(cached(&smol, "b").await > 40);
        // It is in memory again.
        assert!(cached(&smol, "a").await > 40);
        assert!(keepers.forget("a").await.unwrap() > 0);
        assert_eq!(cached(&smol, "a").await, 0);
        assert!(cached(&smol, "b").await > 40);
        deps.shutdown.cancel();
    });
}

/// While its model sleeps a conversation is on the disk.
#[test]
fn a_conversation_is_still_known_after_its_model_was_unloaded() {
    on(async {
        let (smol, deps) = kept_at(&home(), json!({ "load": "lazy", "keep_alive_seconds": 1 })).await;
        let text = "Whoever keeps a garden knows that the weather listens to nobody. ".repeat(4);
        let request = || CompleteRequest { sampling: Some(SamplingParams::greedy(4)), ..CompleteRequest::text(SMOL, text.clone()) };
        let first = complete(&smol, request()).await;
        let unloaded = async {
            while smol.get_model(&cx(), GetModelRequest { id: SMOL.into() }).await.unwrap().metadata["state"] == "loaded" {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), unloaded).await.expect("it stayed");
        let again = complete(&smol, request()).await;
        assert_eq!(again.choices, first.choices);
        assert!(again.usage.unwrap().cached_tokens > 40, "{:?}", again.usage);
        deps.shutdown.cancel();
    });
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

/// The same small weights under two names, in a budget that holds one of them.
#[test]
fn within_a_budget_one_model_makes_room_for_another_and_comes_back() {
    on(async {
        let named = |id: &str| {
            let mut spec = smol_spec();
            (spec["id"], spec["context_length"]) = (json!(id), json!(256));
            spec
        };
        let config = |megabytes: u64| json!({ "models": [named("one"), named("two")], "load": "lazy", "memory_megabytes": megabytes });
        let model = async |smol: &Arc<dyn Inference>, id: &str| {
            let model = smol.get_model(&cx(), GetModelRequest { id: id.into() }).await.unwrap();
            (model.metadata["state"].clone(), model.metadata["memory_bytes"].parse::<u64>().unwrap())
        };
        let need = model(&crate::SUBJECT.build(config(100_000)).await.unwrap(), "one").await.1.div_ceil(1 << 20);

        let smol = crate::SUBJECT.build(config(need + need / 2)).await.unwrap();
        let states = async || (model(&smol, "one").await.0, model(&smol, "two").await.0);
        let ask = async |id: &str| complete(&smol, CompleteRequest { model: id.into(), ..story(3) }).await.choices;
        let said = ask("one").await;
        assert_eq!(states().await, ("loaded".to_owned(), "unloaded".to_owned()));
        assert_eq!(ask("two").await, said);
        assert_eq!(states().await, ("unloaded".to_owned(), "loaded".to_owned()));
        assert_eq!(ask("one").await, said);
        assert_eq!(states().await, ("loaded".to_owned(), "unloaded".to_owned()));

        // Both fit.
        let smol = crate::SUBJECT.build(config(2 * need)).await.unwrap();
        for id in ["one", "two"] {
            complete(&smol, CompleteRequest { model: id.into(), ..story(1) }).await;
        }
        assert_eq!((model(&smol, "one").await.0, model(&smol, "two").await.0), ("loaded".to_owned(), "loaded".to_owned()));

        // What could never be loaded is told at the start.
        let error = crate::SUBJECT.build(config(need / 2)).await.err().unwrap();
        assert_eq!(error.reason(), Some("out_of_memory"), "{error:?}");
        assert!(error.message().contains("memory_megabytes"), "{}", error.message());
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
