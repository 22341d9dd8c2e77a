//! Weights into memory, and what their tokenizer says.

use std::{
    path::PathBuf,
    pin::pin,
    sync::{Arc, OnceLock},
};

use llama_cpp_2::{
    LogOptions,
    llama_backend::LlamaBackend,
    model::{LlamaLoraAdapter, LlamaModel, params::LlamaModelParams},
    sampling::LlamaSampler,
    send_logs_to_tracing,
    token::LlamaToken,
};
use llama_stack_core::{Error, Result};
use llama_stack_models::{
    decode::{Defaults, Lexicon, Parts},
    template::ChatTemplate,
};

use crate::{
    config::{Kind, Options},
    warm::Folder,
};

/// What is to be loaded: files that are there and were checked.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) id: String,
    /// Of a split model the first part, which names the others.
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
    pub(crate) template: Option<ChatTemplate>,
    /// Tokens of a prompt and its answer together.
    pub(crate) context_length: u32,
    pub(crate) options: Options,
    /// Where kept prefixes survive a restart.
    pub(crate) folder: Option<Folder>,
}

/// Weights that are in memory.
pub(crate) struct Weights {
    pub(crate) model: Arc<LlamaModel>,
    pub(crate) adapters: Vec<(LlamaLoraAdapter, f32)>,
    pub(crate) source: Source,
}

/// llama.cpp itself, once per process.
///
/// # Errors
/// `FailedPrecondition` where it cannot start.
pub(crate) fn backend() -> Result<&'static LlamaBackend> {
    static BACKEND: OnceLock<Result<LlamaBackend, String>> = OnceLock::new();
    let backend = BACKEND.get_or_init(|| {
        send_logs_to_tracing(LogOptions::default());
        LlamaBackend::init().map_err(|error| error.to_string())
    });
    backend.as_ref().map_err(|error| Error::failed_precondition("llama.cpp cannot start").with_source(error.clone()))
}

/// Blocks; seconds for large files that are not in the page cache.
///
/// # Errors
/// `NotFound` for a file that is gone · `FailedPrecondition` (`model_unusable`) for what llama.cpp refuses.
pub(crate) fn load(source: Source) -> Result<Weights> {
    let must_be = |path: &PathBuf| {
        if path.exists() { Ok(()) } else { Err(Error::not_found(format!("model {:?}: {} is gone", source.id, path.display()))) }
    };
    must_be(&source.path)?;
    source.options.adapters.iter().try_for_each(|adapter| must_be(&adapter.path))?;
    let params = LlamaModelParams::default();
    let params = pin!(match source.options.gpu_layers {
        Some(layers) => params.with_n_gpu_layers(layers),
        None => params,
    });
    let model = LlamaModel::load_from_file(backend()?, &source.path, &params);
    let mut model = model.map_err(|_| unusable(&source.id, "llama.cpp refuses the file; the log says why"))?;
    let mut adapters = Vec::new();
    for adapter in &source.options.adapters {
        let loaded = model.lora_adapter_init(&adapter.path);
        let loaded = loaded.map_err(|_| unusable(&source.id, &format!("{} is no adapter for it", adapter.path.display())))?;
        adapters.push((loaded, adapter.scale));
    }
    Ok(Weights { model: Arc::new(model), adapters, source })
}

/// How the model reads and writes.
///
/// # Errors
/// `FailedPrecondition` (`model_unusable`) for a vocabulary without an end, or that cannot be read as bytes.
pub(crate) fn lexicon(weights: &Weights) -> Result<Lexicon> {
    let (model, source) = (weights.model.clone(), &weights.source);
    let grammars = llguidance::ParserFactory::new_simple(&LlamaSampler::llguidance_tok_env(&model));
    let grammars = grammars.map_err(|error| unusable(&source.id, &format!("its vocabulary cannot be read: {error}")))?;
    let vocabulary = model.vocab();
    let ends: Vec<u32> = vocabulary.tokens().filter(|token| vocabulary.is_eog(*token)).map(id).collect();
    if ends.is_empty() && source.kind == Kind::Chat {
        return Err(unusable(&source.id, "its file names no end token"));
    }
    let reader = model.clone();
    Ok(Lexicon::new(
        &source.id,
        Parts {
            encode: Box::new(move |text, special| Ok(tokens(&reader, text, special))),
            template: source.template.clone(),
            grammars: Arc::new(grammars),
            ends,
            defaults: Defaults::default(),
            context_length: source.context_length,
        },
    ))
}

/// A text's tokens; `special` adds what the tokenizer puts around one.
pub(crate) fn tokens(model: &LlamaModel, text: &str, special: bool) -> Vec<u32> {
    model.vocab().tokenize(text.as_bytes(), special, true).into_iter().map(id).collect()
}

/// Two texts as one, as cross-encoders were trained: begin, the first, end, separator, the second, end. A vocabulary has
/// some of these tokens.
pub(crate) fn pair(model: &LlamaModel, first: &str, second: &str) -> Vec<u32> {
    let vocabulary = model.vocab();
    let token = |wanted: bool, token: LlamaToken| (wanted && token.0 >= 0).then(|| id(token));
    let (begins, ends) = (vocabulary.should_add_bos(), vocabulary.should_add_eos());
    let separates = vocabulary.should_add_sep() || vocabulary.sep() != vocabulary.eos();
    let mut all: Vec<u32> = token(begins, vocabulary.bos()).into_iter().collect();
    all.extend(tokens(model, first, false));
    all.extend(token(ends, vocabulary.eos()));
    all.extend(token(separates, vocabulary.sep()));
    all.extend(tokens(model, second, false));
    all.extend(token(ends, vocabulary.eos()));
    all
}

fn id(token: LlamaToken) -> u32 {
    token.0.cast_unsigned()
}

pub(crate) fn unusable(id: &str, cause: &str) -> Error {
    Error::failed_precondition(format!("model {id:?} cannot be loaded: {cause}")).with_reason("model_unusable")
}
