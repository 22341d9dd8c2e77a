use std::io::Cursor;

use llama_stack_core::Code;
use proptest::prelude::*;

use super::*;

/// Writes GGUF version 3.
#[derive(Clone, Default)]
struct Writer {
    entries: u64,
    metadata: Vec<u8>,
    tensors: u64,
    infos: Vec<u8>,
}

fn string(bytes: &mut Vec<u8>, text: &str) {
    bytes.extend((text.len() as u64).to_le_bytes());
    bytes.extend(text.as_bytes());
}

impl Writer {
    fn entry(mut self, key: &str, kind: u32, value: &[u8]) -> Self {
        self.entries += 1;
        string(&mut self.metadata, key);
        self.metadata.extend(kind.to_le_bytes());
        self.metadata.extend(value);
        self
    }

    fn text(self, key: &str, text: &str) -> Self {
        let mut value = Vec::new();
        string(&mut value, text);
        self.entry(key, 8, &value)
    }

    fn number(self, key: &str, number: u32) -> Self {
        self.entry(key, 4, &number.to_le_bytes())
    }

    fn texts(self, key: &str, texts: &[&str]) -> Self {
        let mut value = 8_u32.to_le_bytes().to_vec();
        value.extend((texts.len() as u64).to_le_bytes());
        texts.iter().for_each(|text| string(&mut value, text));
        self.entry(key, 9, &value)
    }

    fn tensor(mut self, name: &str, shape: &[u64], kind: u32, offset: u64) -> Self {
        self.tensors += 1;
        string(&mut self.infos, name);
        self.infos.extend((shape.len() as u32).to_le_bytes());
        shape.iter().for_each(|size| self.infos.extend(size.to_le_bytes()));
        self.infos.extend(kind.to_le_bytes());
        self.infos.extend(offset.to_le_bytes());
        self
    }

    fn with_data(self, data: usize) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(3_u32.to_le_bytes());
        bytes.extend(self.tensors.to_le_bytes());
        bytes.extend(self.entries.to_le_bytes());
        bytes.extend(self.metadata);
        bytes.extend(self.infos);
        bytes.resize(bytes.len().next_multiple_of(32) + data, 0);
        bytes
    }
}

fn model() -> Writer {
    Writer::default()
        .text("general.architecture", "llama")
        .number("llama.context_length", 8192)
        .number("llama.attention.head_count", 9)
        .entry("llama.rope.freq_base", 6, &1e6_f32.to_le_bytes())
        .texts("tokenizer.ggml.tokens", &["<s>", "</s>", "hello", "<|im_end|>"])
        .texts("tokenizer.ggml.merges", &["h e", "l l"])
        .number("tokenizer.ggml.bos_token_id", 0)
        .number("tokenizer.ggml.eos_token_id", 3)
        .number("tokenizer.ggml.eot_token_id", 3)
        .text("tokenizer.chat_template", "{{ messages }}")
        .tensor("a", &[32, 2], 3, 0)
        .tensor("b", &[4], 0, 64)
}

fn look(bytes: &[u8]) -> Result<Info> {
    read(Reader::new(Cursor::new(bytes), bytes.len() as u64))
}

fn message(bytes: &[u8]) -> String {
    look(bytes).unwrap_err().message().to_owned()
}

#[test]
fn a_header_says_what_the_model_is() {
    let info = look(&model().with_data(80)).unwrap();
    assert_eq!((info.architecture.as_str(), info.context_length, info.head_count), ("llama", Some(8192), Some(9)));
    assert_eq!((info.vocab_size, info.chat_template.as_deref()), (Some(4), Some("{{ messages }}")));
    let text = |token: &Option<Token>| token.as_ref().map(|token| (token.id, token.text.clone())).unwrap();
    assert_eq!(text(&info.bos), (0, "<s>".into()));
    assert_eq!(text(&info.eos), (3, "<|im_end|>".into()));
    assert_eq!(text(&info.eot), (3, "<|im_end|>".into()));
    assert_eq!((info.quantization.as_str(), info.parameters, info.tensor_count), ("Q4_1", 68, 2));
}

#[test]
fn sizes_are_one_for_all_layers_or_one_for_each() {
    let numbers = |kind: u32, numbers: &[i32]| {
        let head = [kind.to_le_bytes().as_slice(), &(numbers.len() as u64).to_le_bytes()].concat();
        numbers.iter().fold(head, |bytes, number| [bytes, number.to_le_bytes().to_vec()].concat())
    };
    let hybrid = model()
        .number("llama.block_count", 4)
        .entry("llama.attention.head_count_kv", 9, &numbers(5, &[0, 8, -1, 4]))
        .number("llama.feed_forward_length", 1536)
        .number("llama.attention.key_length", 64)
        .number("llama.attention.key_length_swa", 128)
        .number("llama.ssm.conv_kernel", 4)
        .number("llama.ssm.inner_size", 100)
        .number("llama.ssm.state_size", 10);
    let info = look(&hybrid.with_data(80)).unwrap();
    assert_eq!((info.head_count_kv, &info.shape.head_count_kv), (None, &Some(PerLayer::Each(vec![0, 8, 0, 4]))));
    assert_eq!((&info.shape.head_count, &info.shape.feed_forward_length), (&Some(PerLayer::All(9)), &Some(PerLayer::All(1536))));
    assert_eq!((info.shape.key_length, info.shape.value_length), (Some(128), None));
    assert_eq!(info.shape.recurrent_state, 3 * 100 + 10 * 100);
    // Fractions and endless lists are no sizes of layers.
    let odd =
        model().entry("llama.feed_forward_length", 9, &numbers(6, &[1])).entry("llama.attention.head_count_kv", 9, &numbers(5, &[1; 5000]));
    let info = look(&odd.with_data(80)).unwrap();
    assert_eq!((info.shape.feed_forward_length, info.shape.head_count_kv), (None, None));
}

#[test]
fn bytes_of_tensors_are_summed() {
    let info = look(&model().with_data(80)).unwrap();
    // 64 weights in Q4_1 and 4 in F32.
    assert_eq!(info.tensor_bytes, 2 * 20 + 4 * 4);
}

/// As `llama-gguf-split` writes them: only the first part says what the model is.
#[test]
fn further_parts_of_a_split_model_describe_nothing() {
    let of_three = |number: u16| Writer::default().entry("split.no", 2, &number.to_le_bytes()).entry("split.count", 2, &[3, 0]);
    let part = |number| of_three(number).tensor("a", &[4], 0, 0).with_data(16);
    let info = look(&part(1)).unwrap();
    assert_eq!((info.architecture.as_str(), info.tensor_bytes, info.parts), ("", 16, 3));
    assert!(message(&part(0)).contains("architecture"));
}

#[test]
fn scaled_positions_are_told() {
    assert!(!look(&model().with_data(80)).unwrap().scaled_positions);
    assert!(look(&model().tensor("rope_freqs.weight", &[4], 0, 96).with_data(112)).unwrap().scaled_positions);
}

#[test]
fn a_file_whose_tensors_end_behind_it_is_truncated() {
    let whole = model().with_data(80);
    for cut in [1, 16, 80] {
        let error = look(&whole[..whole.len() - cut]).unwrap_err();
        assert_eq!(error.message(), format!("truncated: needs {} bytes, has {}", whole.len(), whole.len() - cut));
        assert_eq!((error.code(), error.reason()), (Code::DataLoss, Some("model_file_truncated")));
    }
    // Inside the header the need is only known so far.
    for len in 4..whole.len() - 80 {
        assert!(message(&whole[..len]).starts_with("truncated: needs"), "{len}");
    }
}

#[test]
fn what_is_no_model_is_refused_with_a_sentence() {
    assert!(message(b"<html>").contains("is not a GGUF file"));
    assert!(message(b"").contains("is not a GGUF file"));
    assert!(message(b"GGUF\x01\0\0\0").contains("version 1"));
    assert!(message(b"GGUF\x07\0\0\0").contains("version 7; this build reads 2 and 3"));
    assert!(message(b"GGUF\0\0\0\x03").contains("big-endian"));
    assert!(message(&Writer::default().with_data(0)).contains("architecture"));
    assert!(message(&model().tensor("c", &[32], 99, 0).with_data(80)).contains("tensor \"c\" is of unknown type 99"));
    assert!(message(&model().tensor("c", &[31], 3, 0).with_data(80)).contains("not aligned"));
    assert!(message(&model().tensor("c", &[u64::MAX, 3], 0, 0).with_data(80)).contains("more weights than can be counted"));
    assert!(message(&model().number("tokenizer.ggml.eos_token_id", 4).with_data(80)).contains("eos token is 4"));
    assert!(message(&model().number("general.alignment", 0).with_data(80)).contains("alignment is 0"));
}

#[test]
fn lengths_are_compared_with_the_file_before_they_are_used() {
    // A string of 16 EiB, an array of as many numbers, and arrays in arrays without end.
    let huge = u64::MAX.to_le_bytes();
    let array = [4_u32.to_le_bytes().as_slice(), &huge].concat();
    let nested = [9_u32.to_le_bytes().as_slice(), &1_u64.to_le_bytes()].concat().repeat(64);
    for writer in [model().entry("tokenizer.chat_template", 8, &huge), model().entry("x", 9, &array)] {
        assert!(message(&writer.with_data(80)).starts_with("truncated: needs"));
    }
    assert!(message(&model().entry("x", 9, &nested).with_data(80)).contains("nests arrays too deep"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_damaged_header_panics(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12), cut in any::<prop::sample::Index>()) {
        let mut bytes = model().with_data(80);
        for (index, byte) in &changes {
            let index = index.index(bytes.len());
            bytes[index] = *byte;
        }
        let _ = look(&bytes);
        let _ = look(&bytes[..cut.index(bytes.len())]);
    }

    #[test]
    fn no_count_is_believed(at in 0_usize..400, number in prop_oneof![Just(u64::MAX), Just(1_u64 << 62), Just(u64::from(u32::MAX)), any::<u64>()]) {
        let mut bytes = model().with_data(80);
        let at = at.min(bytes.len() - 8);
        bytes[at..at + 8].copy_from_slice(&number.to_le_bytes());
        let _ = look(&bytes);
    }
}
