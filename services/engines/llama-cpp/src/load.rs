//! Weights into memory, and what their tokenizer says.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
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
    decode::{Defaults, Lexicon, Parts, Writing},
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
    /// The second model.
    pub(crate) draft: Option<Arc<Source>>,
}

/// Weights that are in memory.
pub(crate) struct Weights {
    pub(crate) model: Arc<LlamaModel>,
    /// With its scale. One: the bindings' call for a second one takes the first away.
    pub(crate) adapter: Option<(LlamaLoraAdapter, f32)>,
    pub(crate) source: Source,
}

/// What is read before anything is computed.
pub(crate) struct Loaded {
    pub(crate) lexicon: Arc<Lexicon>,
    pub(crate) weights: Weights,
    /// The second model, and the tokens that both have.
    pub(crate) second: Option<(Weights, u32)>,
}

impl Loaded {
    /// # Errors
    /// As [`load`], [`lexicon`] and [`common_vocabulary`].
    pub(crate) fn new(source: Source) -> Result<Self> {
        let weights = load(source)?;
        warn_of_types(&weights);
        let second = weights.source.draft.as_deref().map(|draft| {
            let second = load(draft.clone())?;
            let common = common_vocabulary(&weights, &second)?;
            Ok::<_, Error>((second, common))
        });
        Ok(Self { second: second.transpose()?, lexicon: Arc::new(lexicon(&weights)?), weights })
    }
}

/// What `work` on a model's files comes to. The bindings, and what reads vocabularies, panic on files that they did not expect.
///
/// # Errors
/// Its own · `FailedPrecondition` (`model_unusable`) with what it said when it panicked.
pub(crate) fn caught<T>(id: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let said = said(&*panic);
        tracing::error!(model = id, "the engine broke while it was loading");
        tracing::debug!(model = id, said, "what the panic said");
        Err(unusable(id, &format!("the engine broke on its files: {}", said.lines().next().unwrap_or_default())))
    })
}

/// A panic's words.
pub(crate) fn said(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it panicked")
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
    let adapter = source.options.adapters.first().map(|adapter| {
        let loaded = model.lora_adapter_init(&adapter.path);
        let loaded = loaded.map_err(|_| unusable(&source.id, &format!("{} is no adapter for it", adapter.path.display())))?;
        Ok::<_, Error>((loaded, adapter.scale))
    });
    let adapter = adapter.transpose()?;
    Ok(Weights { model: Arc::new(model), adapter, source })
}

/// How the model reads and writes.
///
/// # Errors
/// `FailedPrecondition` (`model_unusable`) for a vocabulary without an end, or that cannot be read as bytes.
pub(crate) fn lexicon(weights: &Weights) -> Result<Lexicon> {
    let (model, source) = (weights.model.clone(), &weights.source);
    let vocabulary = model.vocab();
    let ends: Vec<u32> = vocabulary.tokens().filter(|token| vocabulary.is_eog(*token)).map(id).collect();
    let writing = if source.kind == Kind::Chat {
        // Grammars end with the model's end, and cannot be made without one.
        if ends.is_empty() || vocabulary.eos().0 < 0 && vocabulary.eot().0 < 0 {
            return Err(unusable(&source.id, "its file names no end token"));
        }
        let grammars = llguidance::ParserFactory::new_simple(&LlamaSampler::llguidance_tok_env(&model));
        let grammars = grammars.map_err(|error| unusable(&source.id, &format!("its vocabulary cannot be read: {error}")))?;
        Writing::Grammars(Arc::new(grammars))
    } else {
        Writing::None(usize::try_from(model.n_vocab()).unwrap_or_default())
    };
    let reader = model.clone();
    Ok(Lexicon::new(
        &source.id,
        Parts {
            encode: Box::new(move |text, special| Ok(tokens(&reader, text, special))),
            template: source.template.clone(),
            writing,
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
/// some of these tokens; BERT's, of word pieces, separates and ends with one and the same.
pub(crate) fn pair(model: &LlamaModel, first: &str, second: &str) -> Vec<u32> {
    let vocabulary = model.vocab();
    let token = |wanted: bool, token: LlamaToken| (wanted && token.0 >= 0).then(|| id(token));
    // The bindings' call for the type of a vocabulary panics on this one.
    if model.meta_val_str("tokenizer.ggml.model").is_ok_and(|kind| kind == "bert") {
        let separator = || token(true, vocabulary.sep());
        let mut all: Vec<u32> = token(true, vocabulary.bos()).into_iter().collect();
        all.extend(tokens(model, first, false).into_iter().chain(separator()));
        all.extend(tokens(model, second, false).into_iter().chain(separator()));
        return all;
    }
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

/// Files of one family differ by some tokens at the end that nobody writes.
const MORE: u32 = 128;

/// The tokens that two models have alike, from the first on.
///
/// # Errors
/// `FailedPrecondition` (`model_unusable`) for vocabularies that differ, and for models that cannot take back a guess.
pub(crate) fn common_vocabulary(own: &Weights, second: &Weights) -> Result<u32> {
    let (id, other) = (&own.source.id, &second.source.id);
    if [own, second].iter().any(|weights| weights.model.is_recurrent() || weights.model.is_hybrid()) {
        return Err(unusable(id, "with a draft model: recurrent models cannot take back what was guessed wrong"));
    }
    let sizes = [own, second].map(|weights| weights.model.n_vocab().cast_unsigned());
    let common = sizes[0].min(sizes[1]);
    let [a, b] = [own, second].map(|weights| weights.model.vocab());
    let differs = (0..common.cast_signed()).map(LlamaToken).find(|token| a.text(*token) != b.text(*token));
    match differs {
        Some(token) => Err(unusable(id, &format!("the vocabulary of its draft model {other:?} differs, first in token {}", token.0))),
        None if sizes[0].abs_diff(sizes[1]) > MORE => {
            Err(unusable(id, &format!("it has {} tokens and its draft model {other:?} has {}", sizes[0], sizes[1])))
        }
        None => Ok(common),
    }
}

/// llama.cpp knows no types of texts and takes both of a pair for the first: scores of a model that tells them apart are not
/// those that it was trained to give.
fn warn_of_types(weights: &Weights) {
    let types = weights.model.meta_val_str("tokenizer.ggml.token_type_count").ok().and_then(|count| count.parse::<u32>().ok());
    if weights.source.kind == Kind::Reranker && types.is_some_and(|types| types > 1) {
        let id = &weights.source.id;
        tracing::warn!(
            model = id,
            "llama.cpp reads query and document as one kind of text; inline::candle runs this reranker as it was trained"
        );
    }
}

fn id(token: LlamaToken) -> u32 {
    token.0.cast_unsigned()
}

pub(crate) fn unusable(id: &str, cause: &str) -> Error {
    Error::failed_precondition(format!("model {id:?} cannot be loaded: {cause}")).with_reason("model_unusable")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_while_loading_is_an_error_that_says_what() {
        let error = caught("m", || -> Result<()> { panic!("token {} is not there\nand more", 7) }).unwrap_err();
        assert_eq!(error.reason(), Some("model_unusable"));
        assert!(error.message().contains("\"m\"") && error.message().ends_with("token 7 is not there"), "{error:?}");
        let own = caught("m", || -> Result<()> { Err(Error::not_found("gone")) }).unwrap_err();
        assert_eq!(own.message(), "gone");
    }
}
