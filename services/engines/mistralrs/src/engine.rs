//! One mistral.rs engine: a thread that runs sequences, and what belongs to its weights.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use mistralrs::{
    Constraint, CustomLogitsProcessor, MistralRs, NormalRequest, Request, RequestMessage, Response, SamplingParams, StopTokens,
};
use tokio::sync::mpsc;

use llama_stack_models::decode::Lexicon;

/// Loaded weights. Dropping it ends the thread.
pub(crate) struct Engine {
    /// To the thread itself: mistral.rs's own handle would start a dead thread again, with the cache it died over.
    sender: mpsc::Sender<Request>,
    _runner: Arc<MistralRs>,
    pub(crate) lexicon: Arc<Lexicon>,
    /// Prompt tokens that are read in one step, which nothing can break off. None: all.
    step: Option<usize>,
    next_id: AtomicUsize,
}

/// How a sequence failed.
pub(crate) enum Failure {
    /// It alone: the engine goes on.
    Sequence(String),
    /// The thread has ended.
    Engine,
}

impl Engine {
    pub(crate) fn new(runner: Arc<MistralRs>, sender: mpsc::Sender<Request>, lexicon: Lexicon, step: Option<usize>) -> Self {
        Self { sender, _runner: runner, lexicon: Arc::new(lexicon), step, next_id: AtomicUsize::new(1) }
    }

    /// What of a prompt is read in one step, no more than `most`, what token by token after it, and a token to end the sequence
    /// with: one that is not read, or it would end there. A prompt with all ends in it is read in one step.
    pub(crate) fn steps<'a>(&self, prompt: &'a [u32], most: usize) -> (&'a [u32], &'a [u32], u32) {
        let (first, unread) = prompt.split_at(self.step.unwrap_or(prompt.len()).min(prompt.len()).min(most));
        match self.lexicon.ends.iter().find(|end| !unread.contains(end)) {
            Some(end) => (first, unread, *end),
            None => (prompt, &[], self.lexicon.ends.first().copied().unwrap_or_default()),
        }
    }

    /// Runs one sequence until `chooser` ends it with `end`, and returns when the engine has let go of it.
    ///
    /// Never two at a time: on the CPU their texts would mix. Not to be dropped while it waits: the engine would stall
    /// or answer into the void.
    pub(crate) async fn run(
        &self,
        prompt: Vec<u32>,
        max_tokens: u32,
        end: u32,
        chooser: Arc<dyn CustomLogitsProcessor>,
    ) -> Result<(), Failure> {
        let (response, mut responses) = mpsc::channel(64);
        let ends = Some(StopTokens::Ids(vec![end]));
        let sampling = SamplingParams { max_len: Some(max_tokens as usize + 1), stop_toks: ends, ..SamplingParams::neutral() };
        let request = NormalRequest {
            messages: RequestMessage::CompletionTokens(prompt),
            // No temperature would be 1 to mistral.rs; 0 takes the one token that the chooser leaves.
            sampling_params: SamplingParams { temperature: Some(0.0), ..sampling },
            response,
            return_logprobs: false,
            is_streaming: true,
            id: self.next_id.fetch_add(1, Ordering::Relaxed),
            constraint: Constraint::None,
            suffix: None,
            tools: None,
            tool_choice: None,
            logits_processors: Some(vec![chooser]),
            return_raw_logits: false,
            web_search_options: None,
            model_id: None,
            truncate_sequence: false,
        };
        self.sender.send(Request::Normal(Box::new(request))).await.map_err(|_| Failure::Engine)?;
        let mut failure = None;
        // The channel closes when the engine drops the sequence: that alone is its acknowledgement, for a last chunk
        // is not sent where the text ends within a character.
        while let Some(response) = responses.recv().await {
            match response {
                Response::InternalError(error) | Response::ValidationError(error) => failure = Some(error.to_string()),
                Response::CompletionModelError(error, _) | Response::ModelError(error, _) => failure = Some(error),
                _ => {}
            }
        }
        failure.map_or(Ok(()), |failure| Err(Failure::Sequence(failure)))
    }

    /// Whether the thread still takes sequences.
    pub(crate) fn is_alive(&self) -> bool {
        !self.sender.is_closed()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use llama_stack_core::{Code, Context, Error};
    use llama_stack_models::{
        ModelSpec, ModelStore, OnProgress,
        decode::{Defaults, Generation, Made, Plan, Sampling},
    };
    use mistralrs::core::DetokenizationRequest;
    use serde_json::json;
    use tokio_util::task::TaskTracker;

    use crate::model::LocalModel;

    use super::*;

    async fn tiny() -> Arc<LocalModel> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../tests/fixtures/llama31/hf");
        let spec: ModelSpec = serde_json::from_value(json!({ "id": "tiny", "path": path })).unwrap();
        let home = tempfile::tempdir().unwrap();
        let quiet: OnProgress = Arc::new(|_| ());
        let files = spec.resolve(&ModelStore::open(home.path()).unwrap(), &quiet).await.unwrap();
        LocalModel::new(&spec, &files, 8, TaskTracker::new()).unwrap()
    }

    /// A greedy answer of `max_tokens`: its ends are banned.
    async fn answer(model: &Arc<LocalModel>, max_tokens: u32) -> Generation {
        let params = llama_stack_proto::v1::SamplingParams {
            logit_bias: (501..512).map(|id| (id, -100.0)).collect(),
            ..llama_stack_proto::v1::SamplingParams::greedy(max_tokens)
        };
        let sampling = Sampling::new(&params, Defaults::default());
        let plan = Plan { prompt: vec![501, 51, 264], sampling, grammar: None, max_tokens, choices: 1, score: None, score_prompt: false };
        model.generate(&Context::test("tenant-a"), plan).await.unwrap()
    }

    /// All tokens until the end, or the failure.
    async fn rest(mut generation: Generation) -> Result<Vec<u32>, Error> {
        let mut tokens = Vec::new();
        loop {
            match generation.next().await? {
                Made::Token { id, .. } => tokens.push(id),
                Made::Begun { .. } | Made::Prompt { .. } | Made::Last { .. } => {}
                Made::End { .. } => return Ok(tokens),
            }
        }
    }

    /// mistral.rs's thread panics over an answer that nobody waits for.
    async fn kill(engine: &Engine) {
        let (response, _) = mpsc::channel(1);
        let request = DetokenizationRequest { tokens: vec![0], skip_special_tokens: false, response };
        assert!(engine.sender.send(Request::Detokenize(request)).await.is_ok());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_answer_whose_engine_dies_is_told_and_the_next_is_made_by_a_new_one() {
        let model = tiny().await;
        let before = rest(answer(&model, 8).await).await.unwrap();
        let engine = model.engine().await.unwrap();
        let mut cut = answer(&model, 50_000).await;
        assert!(matches!(cut.next().await, Ok(Made::Token { .. })));
        // Read all along: what nobody reads is broken off for that.
        let cut = tokio::spawn(rest(cut));
        kill(&engine).await;
        let waiting = tokio::spawn({
            let model = model.clone();
            async move { rest(answer(&model, 8).await).await }
        });
        let error = cut.await.unwrap().unwrap_err();
        assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("engine_failed")), "{error:?}");
        assert!(error.retry_after().is_some());
        // It lets go of its sequences before it has ended.
        tokio::time::timeout(Duration::from_secs(60), engine.sender.closed()).await.expect("its thread goes on");
        assert_eq!(waiting.await.unwrap().unwrap(), before);
        assert!(!Arc::ptr_eq(&engine, &model.engine().await.unwrap()));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_engine_that_died_while_idle_is_replaced_before_the_next_answer() {
        let model = tiny().await;
        let before = rest(answer(&model, 8).await).await.unwrap();
        let engine = model.engine().await.unwrap();
        kill(&engine).await;
        engine.sender.closed().await;
        assert_eq!(rest(answer(&model, 8).await).await.unwrap(), before);
        assert!(!Arc::ptr_eq(&engine, &model.engine().await.unwrap()));
    }
}
