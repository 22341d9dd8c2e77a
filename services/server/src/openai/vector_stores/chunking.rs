//! How files are cut into chunks, as the OpenAI API says it.

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{ChunkingStrategy, chunking_strategy::Kind};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const MIN_TOKENS: u32 = 100;
const MAX_TOKENS: u32 = 4_096;
/// What `auto` is.
const AUTO_TOKENS: u32 = 800;
const AUTO_OVERLAP: u32 = 400;

/// `auto` and `static` are OpenAI's; the others this stack has besides.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Chunking {
    Auto,
    Static {
        r#static: Sizes,
    },
    /// Ends chunks where sentences end.
    Sentence {
        sizes: Option<Sizes>,
    },
    /// Keeps headings, lists and functions together.
    Structure {
        sizes: Option<Sizes>,
    },
    /// A model writes a line of context for each chunk.
    Contextual {
        sizes: Option<Sizes>,
    },
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[schemars(rename = "ChunkSizes")]
pub(super) struct Sizes {
    /// 100 to 4,096.
    max_chunk_size_tokens: u32,
    /// At most half of `max_chunk_size_tokens`.
    chunk_overlap_tokens: u32,
}

/// # Errors
/// `InvalidArgument` for sizes out of their bounds.
pub(super) fn read(field: &str, chunking: Option<&Chunking>) -> Result<Option<ChunkingStrategy>> {
    let (kind, name, sizes) = match chunking {
        None => return Ok(None),
        Some(Chunking::Auto) => (Kind::Auto, "", None),
        Some(Chunking::Static { r#static }) => (Kind::Static, "static", Some(*r#static)),
        Some(Chunking::Sentence { sizes }) => (Kind::Sentence, "sizes", *sizes),
        Some(Chunking::Structure { sizes }) => (Kind::Structure, "sizes", *sizes),
        Some(Chunking::Contextual { sizes }) => (Kind::Contextual, "sizes", *sizes),
    };
    let mut read = ChunkingStrategy { kind: kind.into(), ..ChunkingStrategy::default() };
    if let Some(Sizes { max_chunk_size_tokens: most, chunk_overlap_tokens: overlap }) = sizes {
        let wrong = |key: &str, message: String| Err(Error::invalid(format!("{field}.{name}.{key}"), message));
        if !(MIN_TOKENS..=MAX_TOKENS).contains(&most) {
            return wrong("max_chunk_size_tokens", format!("max_chunk_size_tokens must be {MIN_TOKENS} to {MAX_TOKENS}, not {most}"));
        }
        if overlap > most / 2 {
            let message = format!("chunk_overlap_tokens must be at most half of max_chunk_size_tokens ({}), not {overlap}", most / 2);
            return wrong("chunk_overlap_tokens", message);
        }
        (read.max_chunk_tokens, read.overlap_tokens) = (most, overlap);
    }
    Ok(Some(read))
}

/// As a file shows it: OpenAI shows `auto` as the sizes that it comes to.
pub(super) fn show(chunking: Option<&ChunkingStrategy>) -> Value {
    let chunking = chunking.copied().unwrap_or_default();
    let (most, overlap) = match (chunking.max_chunk_tokens, chunking.overlap_tokens) {
        (0, _) => (AUTO_TOKENS, AUTO_OVERLAP),
        sizes => sizes,
    };
    let sizes = Sizes { max_chunk_size_tokens: most, chunk_overlap_tokens: overlap };
    let own = |name: &str| json!({ "type": name, "sizes": sizes });
    match chunking.kind() {
        Kind::Unspecified | Kind::Auto | Kind::Static => json!({ "type": "static", "static": sizes }),
        Kind::Sentence => own("sentence"),
        Kind::Structure => own("structure"),
        Kind::Contextual => own("contextual"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(chunking: Value) -> Option<String> {
        let chunking: Chunking = serde_json::from_value(chunking).unwrap();
        read("chunking_strategy", Some(&chunking)).err().map(|error| error.field().unwrap_or_default().to_owned())
    }

    #[test]
    fn sizes_have_bounds() {
        let sizes = |most: u32, overlap: u32| json!({ "type": "static", "static": { "max_chunk_size_tokens": most, "chunk_overlap_tokens": overlap } });
        for good in [sizes(100, 50), sizes(4_096, 0), json!({ "type": "auto" }), json!({ "type": "sentence" })] {
            assert_eq!(field(good), None);
        }
        for wrong in [sizes(99, 0), sizes(4_097, 0)] {
            assert_eq!(field(wrong).unwrap(), "chunking_strategy.static.max_chunk_size_tokens");
        }
        assert_eq!(field(sizes(100, 51)).unwrap(), "chunking_strategy.static.chunk_overlap_tokens");
    }
}
