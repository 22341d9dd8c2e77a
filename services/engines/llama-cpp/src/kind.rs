//! What a file is for, by its header.

use llama_stack_core::{Error, Result};
use llama_stack_models::{Resolved, gguf, template::SpecialTokens};

use crate::config::{Kind, Options};

/// Architectures whose models embed text and write none, as llama.cpp names them.
const ENCODERS: [&str; 9] =
    ["bert", "nomic-bert", "nomic-bert-moe", "neo-bert", "jina-bert-v2", "jina-bert-v3", "modern-bert", "eurobert", "gemma-embedding"];

/// What the header says.
pub(crate) struct Found {
    pub(crate) info: gguf::Info,
    pub(crate) kind: Kind,
    /// Tokens; the manifest's number where it is smaller.
    pub(crate) context_length: u32,
    pub(crate) special: SpecialTokens,
}

impl Found {
    /// # Errors
    /// `InvalidArgument` for files without a GGUF, or one that does not say what is needed.
    pub(crate) fn new(files: &Resolved, options: &Options) -> Result<Self> {
        let Some(info) = files.gguf.clone() else {
            let message = "inline::llama-cpp runs GGUF files, and there is none; for safetensors take inline::mistralrs";
            return Err(Error::invalid("files", message));
        };
        let own = info.context_length.ok_or_else(|| Error::invalid("files", "the GGUF file does not say its context length"))?;
        if let Some(asked) = files.context_length.filter(|asked| *asked > own || *asked == 0) {
            let message = format!("context_length is {asked}; the model was made for 1 to {own} tokens");
            return Err(Error::invalid("context_length", message));
        }
        let encoder = ENCODERS.contains(&info.architecture.as_str());
        let kind = options.kind.unwrap_or(if encoder { Kind::Embedding } else { Kind::Chat });
        if kind == Kind::Chat && encoder {
            let message = format!("options.kind is chat; a model of architecture {:?} writes no text", info.architecture);
            return Err(Error::invalid("options.kind", message));
        }
        let text = |token: &Option<gguf::Token>| token.as_ref().map(|token| token.text.clone()).unwrap_or_default();
        let special = SpecialTokens { bos: text(&info.bos), eos: text(&info.eos) };
        Ok(Self { kind, context_length: files.context_length.unwrap_or(own), special, info })
    }
}
