//! What a GGUF file says of itself, read without trusting it.
//!
//! ```text
//! "GGUF" · version · counts │ metadata (key, type, value)* │ (tensor name, shape, type, offset)* │ pad │ tensor data
//! ```
//! Format: `docs/gguf.md` of ggml. No length in the file is believed before it is compared with the bytes there are, and nothing is
//! allocated by a count; the vocabulary is walked over, not loaded.

use std::{fs::File, path::Path};

use llama_stack_core::{Error, Result};

use crate::disk;

mod metadata;
mod reader;
mod shape;
mod tensors;

use metadata::Metadata;
use reader::Reader;

pub use shape::{PerLayer, Shape};

/// The header of a model.
#[derive(Clone, Debug, Default)]
pub struct Info {
    /// Of the format: 2 or 3.
    pub version: u32,
    /// For example `llama`, `qwen2`. Empty in the further parts of a split model: the first describes it.
    pub architecture: String,
    /// As its maker calls it.
    pub name: Option<String>,
    /// Tokens that it was trained for.
    pub context_length: Option<u32>,
    pub embedding_length: Option<u32>,
    pub block_count: Option<u32>,
    pub head_count: Option<u32>,
    /// Fewer than `head_count` with grouped-query attention. `None` also where layers differ: then see `shape`.
    pub head_count_kv: Option<u32>,
    pub shape: Shape,
    /// Frequencies of the positions are divided by factors of this file (`rope_freqs.weight`), as Llama 3.1 wants it.
    pub scaled_positions: bool,
    /// Files that the model is split into; 0 and 1 for a whole one.
    pub parts: u32,
    /// Tokens in the vocabulary.
    pub vocab_size: Option<u32>,
    pub bos: Option<Token>,
    /// Ends a text.
    pub eos: Option<Token>,
    /// Ends a turn, where that is another token.
    pub eot: Option<Token>,
    pub add_bos: Option<bool>,
    /// For example `gpt2` (byte-level BPE) or `llama` (SentencePiece).
    pub tokenizer: Option<String>,
    /// How text is split before BPE, for example `qwen2`.
    pub pre_tokenizer: Option<String>,
    /// Jinja.
    pub chat_template: Option<String>,
    /// The file's kind, for example `Q4_K_M`; where it names none, the type that most weights have.
    pub quantization: String,
    pub tensor_count: u64,
    /// Weights in this file.
    pub parameters: u64,
    /// Bytes of all tensors in this file.
    pub tensor_bytes: u64,
    /// Bytes.
    pub file_size: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub id: u32,
    /// As the vocabulary writes it.
    pub text: String,
}

/// Reads the header and compares the extent of all tensors with the size of the file. Blocks; some milliseconds.
///
/// # Errors
/// `InvalidArgument` (`model_file_invalid`) no GGUF, or one that contradicts itself or is of an unknown version ·
/// `DataLoss` (`model_file_truncated`) "truncated: needs N bytes, has M" · `NotFound` and others for the file itself.
pub fn inspect(path: &Path) -> Result<Info> {
    let file = File::open(path).map_err(|cause| disk::error(path, cause))?;
    let meta = file.metadata().map_err(|cause| disk::error(path, cause))?;
    if !meta.is_file() {
        return Err(disk::error(path, std::io::ErrorKind::IsADirectory.into()));
    }
    read(Reader::new(file, meta.len()))
}

/// [`inspect`] of bytes in memory, for fuzzers.
///
/// # Errors
/// As [`inspect`].
#[doc(hidden)]
pub fn inspect_bytes(bytes: &[u8]) -> Result<Info> {
    read(Reader::new(std::io::Cursor::new(bytes), bytes.len() as u64))
}

fn read<R: std::io::Read + std::io::Seek>(mut reader: Reader<R>) -> Result<Info> {
    if reader.len() < 4 || &reader.bytes::<4>()? != b"GGUF" {
        return Err(invalid("is not a GGUF file: it does not begin with `GGUF`"));
    }
    let version = match reader.u32()? {
        version @ (2 | 3) => version,
        1 => return Err(invalid("is of GGUF version 1, which is no longer read: convert it anew")),
        version if (1..=3).contains(&version.swap_bytes()) => return Err(invalid("is a big-endian GGUF file, which is not read here")),
        version => return Err(invalid(format!("is of GGUF version {version}; this build reads 2 and 3"))),
    };
    let (tensor_count, entries) = (reader.u64()?, reader.u64()?);
    let metadata = Metadata::read(&mut reader, entries)?;
    let alignment = metadata.number("general.alignment").unwrap_or(32);
    let tensors = tensors::read(&mut reader, tensor_count, alignment)?;
    if tensors.end > reader.len() {
        return Err(truncated(tensors.end, reader.len()));
    }
    let architecture = metadata.text("general.architecture").unwrap_or_default();
    if architecture.is_empty() && metadata.number("split.no").unwrap_or(0) == 0 {
        return Err(invalid("does not say its architecture (`general.architecture`)"));
    }
    let of_model = |key: &str| metadata.u32(&format!("{architecture}.{key}"));
    let mut tokens = metadata.tokens(&mut reader, &["bos", "eos", "eot"])?;
    Ok(Info {
        version,
        name: metadata.text("general.name"),
        context_length: of_model("context_length"),
        embedding_length: of_model("embedding_length"),
        block_count: of_model("block_count"),
        head_count: of_model("attention.head_count"),
        head_count_kv: of_model("attention.head_count_kv"),
        shape: Shape::read(&metadata, &architecture),
        scaled_positions: tensors.scaled_positions,
        parts: metadata.u32("split.count").unwrap_or(0),
        vocab_size: metadata.vocab_size(),
        bos: tokens.remove("bos"),
        eos: tokens.remove("eos"),
        eot: tokens.remove("eot"),
        add_bos: metadata.truth("tokenizer.ggml.add_bos_token"),
        tokenizer: metadata.text("tokenizer.ggml.model"),
        pre_tokenizer: metadata.text("tokenizer.ggml.pre"),
        chat_template: metadata.text("tokenizer.chat_template"),
        quantization: tensors::file_type(metadata.u32("general.file_type")).unwrap_or_else(|| tensors.most()).to_owned(),
        architecture,
        tensor_count,
        parameters: tensors.parameters,
        tensor_bytes: tensors.bytes,
        file_size: reader.len(),
    })
}

fn invalid(what: impl Into<String>) -> Error {
    Error::invalid("files", what).with_reason("model_file_invalid")
}

pub(crate) fn truncated(needs: u64, has: u64) -> Error {
    let message = format!("truncated: needs {needs} bytes, has {has}");
    Error::new(llama_stack_core::Code::DataLoss, message).with_reason("model_file_truncated")
}

#[cfg(test)]
mod tests;
