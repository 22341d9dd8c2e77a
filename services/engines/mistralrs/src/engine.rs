//! One mistral.rs engine: a thread that runs sequences, and what belongs to its weights.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use mistralrs::{
    Constraint, CustomLogitsProcessor, MistralRs, NormalRequest, Request, RequestMessage, Response, SamplingParams,
    llguidance::ParserFactory,
};
use tokio::sync::mpsc;

use llama_stack_core::{Error, Result};

use crate::{sampler::Defaults, text::Vocabulary};

/// A text, and whether to add what the tokenizer puts around one. A function, for the tokenizer's type belongs to
/// whichever version mistral.rs was built with.
pub(crate) type Encode = Box<dyn Fn(&str, bool) -> Result<Vec<u32>, String> + Send + Sync>;

/// Loaded weights. Dropping it ends the thread.
pub(crate) struct Engine {
    /// To the thread itself: mistral.rs's own handle would start a dead thread again, with the cache it died over.
    sender: mpsc::Sender<Request>,
    _runner: Arc<MistralRs>,
    encode: Encode,
    pub(crate) vocabulary: Vocabulary,
    pub(crate) grammars: Arc<ParserFactory>,
    /// Tokens with which the model ends its answer; never empty, and the first one ends a sequence of the engine.
    pub(crate) ends: Arc<[u32]>,
    pub(crate) defaults: Defaults,
    /// Tokens of prompt and answer that the weights were made for.
    pub(crate) context_length: u32,
    next_id: AtomicUsize,
}

/// How a sequence failed.
pub(crate) enum Failure {
    /// It alone: the engine goes on.
    Sequence(String),
    /// The thread has ended.
    Engine,
}

/// What [`crate::load`] found beside the weights.
pub(crate) struct Parts {
    pub(crate) encode: Encode,
    pub(crate) grammars: Arc<ParserFactory>,
    pub(crate) ends: Vec<u32>,
    pub(crate) defaults: Defaults,
    pub(crate) context_length: u32,
}

impl Engine {
    pub(crate) fn new(runner: Arc<MistralRs>, sender: mpsc::Sender<Request>, parts: Parts) -> Self {
        Self {
            sender,
            _runner: runner,
            vocabulary: Vocabulary::new(parts.grammars.tok_env().clone()),
            encode: parts.encode,
            grammars: parts.grammars,
            ends: parts.ends.into(),
            defaults: parts.defaults,
            context_length: parts.context_length,
            next_id: AtomicUsize::new(1),
        }
    }

    /// A text as tokens; `special` adds what the tokenizer puts around a text. Names of special tokens within the text
    /// become those tokens.
    ///
    /// # Errors
    /// `InvalidArgument` for a text that the tokenizer refuses.
    pub(crate) fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>> {
        (self.encode)(text, special).map_err(|error| Error::invalid("prompt", "the prompt cannot be turned into tokens").with_source(error))
    }

    /// Runs one sequence until `chooser` ends it, and returns when the engine has let go of it.
    ///
    /// Never two at a time: on the CPU their texts would mix. Not to be dropped while it waits: the engine would stall
    /// or answer into the void.
    pub(crate) async fn run(&self, prompt: Vec<u32>, max_tokens: u32, chooser: Arc<dyn CustomLogitsProcessor>) -> Result<(), Failure> {
        let (response, mut responses) = mpsc::channel(64);
        let sampling = SamplingParams { max_len: Some(max_tokens as usize + 1), ..SamplingParams::neutral() };
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
