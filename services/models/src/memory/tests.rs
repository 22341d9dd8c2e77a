use std::{collections::BTreeMap, io::Write};

use llama_stack_core::Code;
use proptest::prelude::*;

use super::*;

const GIB: u64 = 1 << 30;

/// Of a model whose head has `[layers, embedding, heads, KV heads, feed-forward, vocabulary]`.
fn header(sizes: [u32; 6], tensor_bytes: u64) -> gguf::Info {
    let [layers, embedding, heads, heads_kv, feed_forward, vocab] = sizes;
    gguf::Info {
        architecture: "llama".into(),
        block_count: Some(layers),
        embedding_length: Some(embedding),
        vocab_size: Some(vocab),
        tensor_bytes,
        shape: gguf::Shape {
            head_count: Some(PerLayer::All(heads)),
            head_count_kv: Some(PerLayer::All(heads_kv)),
            feed_forward_length: Some(PerLayer::All(feed_forward)),
            ..gguf::Shape::default()
        },
        ..gguf::Info::default()
    }
}

/// 8,029,995,008 weights in Q8_0 (34 bytes for 32), 266,304 in F32.
fn llama_8b() -> gguf::Info {
    header([32, 4096, 32, 8, 14_336, 128_256], 8_531_869_696 + 4 * 266_304)
}

fn footprint(info: gguf::Info) -> Footprint {
    Footprint::gguf(&[info], Load::default()).unwrap()
}

fn available(bytes: u64) -> Available {
    Available { bytes, limited: false }
}

#[test]
fn the_cache_of_known_models_is_what_their_shapes_give() {
    let per_token = |sizes, load| Footprint::gguf(&[header(sizes, 0)], load).unwrap().need(1024).kv_cache / 1024;
    let f16 = Load::default();
    // Layers · KV heads · head · keys and values · bytes.
    assert_eq!(per_token([32, 4096, 32, 8, 14_336, 128_256], f16), 32 * 8 * 128 * 2 * 2);
    assert_eq!(per_token([32, 4096, 32, 8, 14_336, 128_256], f16), 131_072);
    assert_eq!(per_token([80, 8192, 64, 8, 28_672, 128_256], f16), 327_680);
    assert_eq!(per_token([126, 16_384, 128, 8, 53_248, 128_256], f16), 516_096);
    // Qwen2.5-0.5B and SmolLM2-135M.
    assert_eq!(per_token([24, 896, 14, 2, 4864, 151_936], f16), 12_288);
    assert_eq!(per_token([30, 576, 9, 3, 1536, 49_152], f16), 23_040);
    let q8_0 = Load { kv: KvType::Q8_0, ..f16 };
    assert_eq!(per_token([32, 4096, 32, 8, 14_336, 128_256], q8_0), 131_072 / 2 * 34 / 32);
    let f32 = Load { kv: KvType::F32, ..f16 };
    assert_eq!(per_token([30, 576, 9, 3, 1536, 49_152], f32), 46_080);
    for (sizes, gib) in [([80, 8192, 64, 8, 28_672, 128_256], 40), ([126, 16_384, 128, 8, 53_248, 128_256], 63)] {
        assert_eq!(footprint(header(sizes, 0)).need(131_072).kv_cache, gib * GIB);
    }
}

#[test]
fn a_need_is_weights_and_cache_and_scratch() {
    let need = footprint(llama_8b()).need(8192);
    assert_eq!((need.weights, need.kv_cache), (8_532_934_912, GIB));
    // 512 tokens at a time: activations, one more row of logits than tokens, the mask; and the tokenizer.
    let activations = 2 * 4096 + (32 + 8) * (128 + 128) + 3 * 14_336;
    assert_eq!(need.scratch, 4 * (512 * activations + 513 * 128_256 + 512 * 8192) + 512 * 128_256);
    assert_eq!(need.total(), 8_532_934_912 + GIB + 471_454_720);
    // A context is rounded up to 256 cells, and a pass is no longer than it.
    assert_eq!(footprint(llama_8b()).need(1), footprint(llama_8b()).need(256));
    assert_eq!(footprint(llama_8b()).need(256).scratch, 4 * (256 * activations + 257 * 128_256 + 256 * 256) + 512 * 128_256);
}

#[test]
fn sequences_share_the_cache() {
    let many = Footprint::gguf(&[llama_8b()], Load { sequences: 8, ..Load::default() }).unwrap();
    let (one, many) = (footprint(llama_8b()).need(8192), many.need(8192));
    assert_eq!(many.kv_cache, one.kv_cache);
    assert_eq!(many.scratch - one.scratch, 7 * 4 * 128_256);
}

#[test]
fn a_prompt_in_one_pass_needs_its_square() {
    let whole = Load { ubatch: None, all_logits: false, kv: KvType::F32, weights: Weights::TokenTableF32, ..Load::default() };
    let need = Footprint::gguf(&[llama_8b()], whole).unwrap().need(8192);
    assert_eq!(need.weights, 8_532_934_912 + 128_256 * 4096 * 4);
    assert_eq!(need.kv_cache, 2 * GIB);
    assert_eq!(need.scratch, 4 * (8192 * 61_440 + 2 * 128_256 + 8192 * 8192) + 512 * 128_256);
    let scores = Footprint::gguf(&[llama_8b()], Load { flash_attention: false, ..whole }).unwrap().need(8192);
    assert_eq!(scores.scratch - need.scratch, 4 * 32 * 8192 * 8192);
}

#[test]
fn what_a_header_leaves_open_counts_as_the_greater() {
    let mut odd = llama_8b();
    // Lengths of heads of their own, as Gemma's.
    odd.shape.key_length = Some(256);
    odd.shape.value_length = Some(256);
    assert_eq!(footprint(odd.clone()).need(1024).kv_cache, 1024 * 2 * 131_072);
    // Layers without attention, and layers that the list does not reach.
    odd.shape.head_count_kv = Some(PerLayer::Each(vec![0, 0, 8, 4]));
    odd.shape.recurrent_state = 100;
    let layers = 8 + 4 + 28 * 8;
    assert_eq!(footprint(odd.clone()).need(1024).kv_cache, 1024 * layers * 2 * 256 * 2 + 32 * 100 * 4);
    // A mixture of experts: all that one token goes through.
    let dense = footprint(odd.clone()).need(256).scratch;
    odd.shape.expert_feed_forward_length = Some(10_000);
    odd.shape.expert_used_count = Some(4);
    assert_eq!(footprint(odd.clone()).need(256).scratch - dense, 4 * 256 * 3 * (40_000 - 14_336));
    odd.block_count = None;
    assert_eq!(Footprint::gguf(&[odd], Load::default()).unwrap_err().code(), Code::InvalidArgument);
}

#[test]
fn parts_and_projectors_count_as_weights() {
    let part = gguf::Info { tensor_bytes: 1000, ..gguf::Info::default() };
    let projector = gguf::Info { architecture: "clip".into(), block_count: Some(2), embedding_length: Some(8), ..part.clone() };
    let whole = Footprint::gguf(&[projector, llama_8b(), part], Load::default()).unwrap().need(1024);
    assert_eq!((whole.weights, whole.kv_cache), (8_532_934_912 + 2000, 1024 * 131_072));
}

/// No header makes the arithmetic overflow: a lie about sizes is refused for want of memory.
#[test]
fn absurd_sizes_do_not_fit_anywhere() {
    let mut info = header([u32::MAX; 6], u64::MAX);
    info.shape.head_count = Some(PerLayer::All(1));
    info.shape.recurrent_state = u64::MAX;
    let absurd = footprint(info);
    assert_eq!(absurd.need(u32::MAX).total(), u64::MAX);
    assert_eq!(absurd.largest_context(64 * GIB), 0);
}

#[test]
fn a_folder_of_safetensors_becomes_f32_on_a_cpu() {
    let dir = tempfile::tempdir().unwrap();
    let header = r#"{"model.embed_tokens.weight":{"dtype":"BF16","shape":[100,8],"data_offsets":[0,1600]},
        "packed":{"dtype":"I32","shape":[3],"data_offsets":[1600,1612]},"norm":{"dtype":"F32","shape":[8],"data_offsets":[1612,1644]}}"#;
    let mut file = std::fs::File::create(dir.path().join("model.safetensors")).unwrap();
    file.write_all(&[&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 1644]].concat()).unwrap();
    std::fs::write(
        dir.path().join("config.json"),
        r#"{"num_hidden_layers":2,"hidden_size":8,"num_attention_heads":4,"num_key_value_heads":1}"#,
    )
    .unwrap();
    let files = ["config.json", "model.safetensors"].map(|name| (name.to_owned(), dir.path().join(name)));
    let files = Resolved {
        id: "m".into(),
        dir: dir.path().to_owned(),
        files: BTreeMap::from(files),
        gguf: None,
        chat_template: None,
        context_length: None,
        license: None,
    };
    let cpu = Load { weights: Weights::F32, kv: KvType::F32, ..Load::default() };
    let need = Footprint::of(&files, cpu).unwrap().need(256);
    assert_eq!((need.weights, need.kv_cache), (4 * 800 + 4 * 3 + 4 * 8, 256 * 2 * 2 * 2 * 4));
    assert_eq!(need.scratch, 4 * (256 * (2 * 8 + 5 * 4 + 3 * 32) + 257 * 100 + 256 * 256) + 512 * 100);
    let stored = Footprint::of(&files, Load::default()).unwrap().need(256);
    assert_eq!(stored.weights, dir.path().join("model.safetensors").metadata().unwrap().len());
    std::fs::remove_file(dir.path().join("config.json")).unwrap();
    assert!(Footprint::of(&files, cpu).unwrap_err().message().starts_with("model \"m\": "));
}

#[test]
fn configurations_of_other_models_are_understood() {
    let sizes = |config| config::of(&config, &[]).unwrap();
    let of_layer = |sizes: &Sizes| (sizes.heads_kv.greatest(), sizes.key, sizes.value);
    let llama =
        sizes(serde_json::json!({ "num_hidden_layers": 16, "hidden_size": 2048, "num_attention_heads": 32, "num_key_value_heads": 8,
        "head_dim": 64, "intermediate_size": 8192, "vocab_size": 128_256 }));
    assert_eq!((llama.layers, of_layer(&llama), llama.vocab), (16, (8, 64, 64), 128_256));
    // The language model of a larger one, whose heads are left to defaults.
    let gemma = sizes(serde_json::json!({ "text_config": { "num_hidden_layers": 34, "hidden_size": 2560, "intermediate_size": 10_240 } }));
    assert_eq!((gemma.layers, of_layer(&gemma)), (34, (1, 2560, 2560)));
    let deepseek = sizes(serde_json::json!({ "num_hidden_layers": 61, "hidden_size": 7168, "num_attention_heads": 128,
        "num_key_value_heads": 128, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "intermediate_size": 18_432,
        "moe_intermediate_size": 2048, "num_experts_per_tok": 8 }));
    assert_eq!((of_layer(&deepseek), deepseek.feed_forward), ((128, 192, 128), 18_432));
    let error = config::of(&serde_json::json!({ "hidden_size": 8 }), &[]).err().unwrap();
    assert_eq!(error.message(), "config.json does not say num_hidden_layers");
}

#[test]
fn a_refusal_says_the_numbers_and_what_would_fit() {
    let model = footprint(llama_8b());
    assert!(model.check(available(26 * GIB), 131_072, 2048).is_ok());
    let error = model.check(available(12 * GIB), 131_072, 2048).unwrap_err();
    assert_eq!((error.code(), error.reason(), error.field()), (Code::FailedPrecondition, Some("out_of_memory"), Some("context_length")));
    assert_eq!(
        error.message(),
        "needs 24.7 GiB of memory (weights 8.0 GiB, KV cache of 131072 tokens 16.0 GiB, scratch 0.7 GiB) and 12.0 GiB are available: \
         a context_length of 29184 is the largest that fits"
    );
    assert!(model.check(available(12 * GIB), 29_184, 2048).is_ok());
    assert!(model.check(available(12 * GIB), 29_185, 2048).is_err());
}

#[test]
fn a_refusal_says_what_is_missing_where_no_context_would_do() {
    let model = footprint(llama_8b());
    let message = |bytes, limited, minimum| model.check(Available { bytes, limited }, 4096, minimum).unwrap_err().message().to_owned();
    assert!(message(6 * GIB, false, 2048).ends_with("and 6.0 GiB are available: not even the weights fit, 2.0 GiB are missing"));
    let limited = message(8 * GIB + GIB / 2, true, 4096);
    assert!(
        limited.contains("8.5 GiB are available under the limit of its control group: not even 4096 tokens of context fit"),
        "{limited}"
    );
    // A smaller context was asked for than the minimum: that one is the measure.
    assert!(model.check(available(8 * GIB), 256, 2048).unwrap_err().message().contains("not even 256 tokens"));
}

#[test]
fn this_machine_has_some_memory() {
    let available = Available::now().unwrap();
    assert!(available.bytes > 1 << 20);
}

#[test]
fn cache_types_have_the_names_of_llama_cpp() {
    for (name, bytes) in
        [("f32", 128), ("f16", 64), ("bf16", 64), ("q8_0", 34), ("q5_1", 24), ("q5_0", 22), ("q4_1", 20), ("q4_0", 18), ("iq4_nl", 18)]
    {
        let kind: KvType = serde_json::from_value(name.into()).unwrap();
        assert_eq!(kind.row(32), bytes, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_largest_context_told_fits_and_the_next_does_not(
        sizes in [1_u32..200, 64_u32..20_000, 1_u32..130, 1_u32..130, 64_u32..60_000, 100_u32..300_000],
        (weights, more) in (0_u64..500 * GIB, 0_u64..300 * GIB),
        (whole, flash_attention, sequences) in (any::<bool>(), any::<bool>(), 1_u32..64),
        (asked, minimum) in (1_u32..2_000_000, 0_u32..8192),
    ) {
        let load = Load { ubatch: (!whole).then_some(512), flash_attention, sequences, ..Load::default() };
        let model = Footprint::gguf(&[header(sizes, weights)], load).unwrap();
        let there = weights + more;
        let largest = model.largest_context(there);
        prop_assert_eq!(largest % 256, 0);
        prop_assert!(largest == 0 || model.need(largest).total() <= there);
        prop_assert!(largest > u32::MAX - 256 || model.need(largest + 256).total() > there);
        // And the check agrees, for what was asked and for its own advice.
        prop_assert_eq!(model.check(available(there), asked, minimum).is_ok(), asked <= largest);
        prop_assert!(largest == 0 || model.check(available(there), largest, minimum).is_ok());
    }
}
