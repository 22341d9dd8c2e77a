//! How long passages are, and by how much they overlap.

use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{ChunkingStrategy, chunking_strategy::Kind};

/// OpenAI's own defaults and range.
pub const DEFAULT_MAX_CHUNK_TOKENS: u32 = 800;
pub const DEFAULT_OVERLAP_TOKENS: u32 = 400;
const RANGE: std::ops::RangeInclusive<u32> = 100..=4096;

/// The strategy with its defaults written out.
///
/// A strategy without a length has 800 tokens. Only `static` overlaps where nothing is said, by 400 tokens or half of its
/// length, and it is never less than what was said: 0 with a length of one's own means none.
///
/// # Errors
/// `InvalidArgument`: the length is not 100 to 4,096 (`max_chunk_tokens`), or the overlap is more than half of it
/// (`overlap_tokens`).
pub fn validate(strategy: &ChunkingStrategy) -> Result<ChunkingStrategy> {
    let kind = match strategy.kind() {
        Kind::Unspecified => Kind::Auto,
        kind => kind,
    };
    if Kind::try_from(strategy.kind).is_err() {
        return Err(Error::invalid("chunking.kind", "chunking.kind is none of auto, static, sentence, structure and contextual"));
    }
    let most = if strategy.max_chunk_tokens == 0 { DEFAULT_MAX_CHUNK_TOKENS } else { strategy.max_chunk_tokens };
    if !RANGE.contains(&most) {
        let message = format!("chunking.max_chunk_tokens must be 100 to 4096, not {most}");
        return Err(Error::invalid("chunking.max_chunk_tokens", message));
    }
    let unsaid = strategy.max_chunk_tokens == 0 && strategy.overlap_tokens == 0;
    let overlap = if unsaid && kind == Kind::Static { DEFAULT_OVERLAP_TOKENS } else { strategy.overlap_tokens };
    if overlap > most / 2 {
        let message = format!("chunking.overlap_tokens must be at most half of max_chunk_tokens ({}), not {overlap}", most / 2);
        return Err(Error::invalid("chunking.overlap_tokens", message));
    }
    Ok(ChunkingStrategy { kind: kind.into(), max_chunk_tokens: most, overlap_tokens: overlap })
}
