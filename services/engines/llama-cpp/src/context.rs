//! The one place that calls llama.cpp's context. It asserts, and ends the process, where a caller is wrong: conditions are
//! checked here first and become errors.

use std::{num::NonZeroU32, path::Path};

use llama_cpp_2::{
    context::{
        LlamaContext,
        params::{KvCacheType, LlamaContextParams, LlamaPoolingType},
    },
    llama_batch::LlamaBatch,
    token::LlamaToken,
};
use llama_stack_core::{Error, Result};
use llama_stack_models::batching::{Backend, Entry, Sequence};

use crate::{
    config::{CacheType, Kind, Pooling},
    load::{Weights, backend, unusable},
};

/// Of llama.cpp's `llama_flash_attn_type`: attention in one pass. Below 64 tokens a step it rounds alike for any number
/// of them, which the other does not; and a quantised cache needs it.
const FUSED: i32 = 1;

/// A cache and the weights, as the scheduler sees them.
pub(crate) struct Context<'a> {
    context: LlamaContext<'a>,
    batch: LlamaBatch<'static>,
    /// Where each sequence ends; llama.cpp asserts that positions go on from there.
    lengths: Vec<u32>,
    /// Of the last call: which entries have logits.
    wanted: Vec<bool>,
    logits: Vec<f32>,
    vocabulary: u32,
}

/// What a context is made for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) cells: u32,
    pub(crate) sequences: u32,
    pub(crate) batch: u32,
}

impl<'a> Context<'a> {
    /// # Errors
    /// `FailedPrecondition` (`model_unusable`), most often for want of memory.
    pub(crate) fn new(weights: &'a mut Weights, shape: Shape) -> Result<Self> {
        let Weights { model, adapter, source } = weights;
        let threads = i32::try_from(source.options.threads()).unwrap_or(i32::MAX);
        let cache = match source.options.cache_type {
            CacheType::F16 => KvCacheType::F16,
            CacheType::Q8 => KvCacheType::Q8_0,
        };
        let params = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(shape.cells))
            .with_n_batch(shape.batch)
            .with_n_ubatch(shape.batch)
            .with_n_seq_max(shape.sequences)
            .with_n_threads(threads)
            .with_n_threads_batch(threads)
            .with_type_k(cache)
            .with_type_v(cache)
            // Parts of a sequence can only be shared and cut in one cache for all.
            .with_kv_unified(true)
            .with_swa_full(true)
            .with_flash_attention_policy(FUSED)
            .with_no_perf(true)
            .with_embeddings(source.kind != Kind::Chat);
        let params = match (source.kind, source.options.pooling) {
            (Kind::Reranker, _) => params.with_pooling_type(LlamaPoolingType::Rank),
            (Kind::Embedding, Some(Pooling::Mean)) => params.with_pooling_type(LlamaPoolingType::Mean),
            (Kind::Embedding, Some(Pooling::Cls)) => params.with_pooling_type(LlamaPoolingType::Cls),
            (Kind::Embedding, Some(Pooling::Last)) => params.with_pooling_type(LlamaPoolingType::Last),
            (Kind::Embedding, None) | (Kind::Chat, _) => params,
        };
        let context = model.new_context(backend()?, params);
        let mut context = context.map_err(|_| unusable(&source.id, "llama.cpp makes no context for it; the log says why"))?;
        if let Some((adapter, scale)) = adapter {
            context
                .lora_adapter_set(adapter, *scale)
                .map_err(|error| unusable(&source.id, "an adapter does not fit it").with_source(error))?;
        }
        let batch = LlamaBatch::new(shape.batch as usize, 1);
        let lengths = vec![0; shape.sequences as usize];
        Ok(Self { context, batch, lengths, wanted: Vec::new(), logits: Vec::new(), vocabulary: model.n_vocab().cast_unsigned() })
    }

    fn fill(&mut self, entries: &[Entry]) -> Result<()> {
        let mut lengths = self.lengths.clone();
        self.batch.clear();
        self.wanted.clear();
        for entry in entries {
            let length = lengths.get_mut(entry.sequence as usize).ok_or_else(|| misuse("a sequence that there is not"))?;
            if entry.position != *length {
                return Err(misuse("a token that does not follow its sequence's last"));
            }
            *length += 1;
            let (token, position, sequence) = (signed(entry.token)?, signed(entry.position)?, signed(entry.sequence)?);
            if entry.token >= self.vocabulary {
                return Err(misuse("a token that the vocabulary does not have"));
            }
            self.batch
                .add(LlamaToken(token), position, &[sequence], entry.logits)
                .map_err(|error| misuse("a batch that is too long").with_source(error))?;
            self.wanted.push(entry.logits);
        }
        Ok(())
    }

    fn count(&mut self, entries: &[Entry]) {
        for entry in entries {
            if let Some(length) = self.lengths.get_mut(entry.sequence as usize) {
                *length = entry.position + 1;
            }
        }
    }

    /// Writes a sequence, and the tokens that it holds, to a file.
    ///
    /// # Errors
    /// `Internal` where it cannot be written.
    pub(crate) fn save(&self, sequence: Sequence, tokens: &[u32], path: &Path) -> Result<()> {
        let tokens = tokens.iter().map(|token| signed(*token).map(LlamaToken)).collect::<Result<Vec<LlamaToken>>>()?;
        self.context.state_seq_save_file(path, signed(sequence)?, &tokens).map(drop).map_err(|error| failed(&error))
    }

    /// Reads a file into an empty sequence; its tokens.
    ///
    /// # Errors
    /// `Internal` for a file that is of another model or damaged; the sequence is empty then.
    pub(crate) fn restore(&mut self, sequence: Sequence, most: usize, path: &Path) -> Result<Vec<u32>> {
        if self.lengths.get(sequence as usize) != Some(&0) {
            return Err(misuse("a sequence that is not empty"));
        }
        let read = self.context.state_seq_load_file(path, signed(sequence)?, most);
        match read {
            Ok((tokens, _)) if tokens.iter().all(|token| token.0.cast_unsigned() < self.vocabulary) => {
                self.lengths[sequence as usize] = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
                Ok(tokens.into_iter().map(|token| token.0.cast_unsigned()).collect())
            }
            read => {
                drop(self.context.clear_kv_cache_seq(Some(sequence), None, None));
                Err(read.map_or_else(|error| failed(&error), |_| misuse("tokens that the vocabulary does not have")))
            }
        }
    }

    /// The pooled vectors of whole sequences, which no cache is kept for; all in one call.
    ///
    /// # Errors
    /// `Internal` where llama.cpp fails.
    pub(crate) fn pooled(&mut self, texts: &[&[u32]]) -> Result<Vec<Vec<f32>>> {
        self.context.clear_kv_cache();
        self.lengths.fill(0);
        let mut entries = Vec::new();
        for (sequence, text) in (0u32..).zip(texts) {
            entries.extend((0u32..).zip(*text).map(|(position, token)| Entry { sequence, position, token: *token, logits: true }));
        }
        self.fill(&entries)?;
        self.context.decode(&mut self.batch).map_err(|error| failed(&error))?;
        let vector = |sequence: usize| -> Result<Vec<f32>> {
            let sequence = i32::try_from(sequence).map_err(|_| misuse("a sequence that there is not"))?;
            Ok(self.context.embeddings_seq_ith(sequence).map_err(|error| failed(&error))?.to_vec())
        };
        (0..texts.len()).map(vector).collect()
    }
}

impl Backend for Context<'_> {
    fn decode(&mut self, entries: &[Entry]) -> Result<()> {
        self.fill(entries)?;
        self.context.decode(&mut self.batch).map_err(|error| failed(&error))?;
        self.count(entries);
        Ok(())
    }

    fn logits(&mut self, index: usize) -> &mut [f32] {
        self.logits.clear();
        // llama.cpp's own buffer is shared by all rows; a chooser changes what it is given.
        if let (Some(true), Ok(row)) = (self.wanted.get(index), i32::try_from(index)) {
            self.logits.extend_from_slice(self.context.get_logits_ith(row));
        }
        &mut self.logits
    }

    fn share(&mut self, from: Sequence, to: Sequence, length: u32) {
        let fits = self.lengths.get(from as usize).is_some_and(|have| *have >= length) && self.lengths.get(to as usize) == Some(&0);
        if let (true, Ok(source), Ok(target)) = (fits, i32::try_from(from), i32::try_from(to)) {
            // The sequences are known and the range is one that was computed: nothing is left to fail.
            drop(self.context.copy_kv_cache_seq(source, target, Some(0), Some(length)));
            self.lengths[to as usize] = length;
        }
    }

    fn cut(&mut self, sequence: Sequence, length: u32) {
        let Some(have) = self.lengths.get_mut(sequence as usize).filter(|have| **have > length) else { return };
        *have = length;
        // Part of a sequence of a recurrent model cannot be removed; for these the scheduler shares and guesses nothing.
        drop(self.context.clear_kv_cache_seq(Some(sequence), Some(length), None));
    }
}

fn signed(value: u32) -> Result<i32> {
    i32::try_from(value).map_err(|_| misuse("a number beyond what llama.cpp counts"))
}

/// A fault of ours that would have ended the process.
fn misuse(what: &str) -> Error {
    Error::internal("the engine could not compute the answer").with_reason("engine_error").with_source(format!("asked for {what}"))
}

fn failed(error: &dyn std::fmt::Display) -> Error {
    Error::internal("the engine could not compute the answer").with_reason("engine_error").with_source(error.to_string())
}
