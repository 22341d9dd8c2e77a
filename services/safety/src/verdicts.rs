//! Verdicts that are known: the same text is not judged twice by the same shield.
//!
//! A key is a hash of the tenant, the shield, the stage and what the shield reads: the last message, or, where it reads
//! the conversation, all of it. A message is judged as a whole, so a text that is spread over its parts is seen; a history
//! whose messages were judged one by one costs nothing again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use llama_stack_proto::v1::{RunShieldRequest, RunShieldResponse};
use prost::Message as _;
use quick_cache::{Weighter, sync::Cache};
use sha2::{Digest, Sha256};

use crate::{judged, reasons};

/// Bytes of all verdicts together.
const MAX_BYTES: u64 = 16 << 20;
/// What an entry needs beside its verdict.
const ENTRY_BYTES: u64 = 160;
/// A shield of another process may become a better one.
const KEPT_FOR: Duration = Duration::from_secs(3_600);

type Key = [u8; 32];

/// What is used least goes first.
pub(crate) struct Verdicts(Cache<Key, Kept, Bytes>);

#[derive(Clone)]
struct Kept {
    verdict: Arc<RunShieldResponse>,
    since: Instant,
}

#[derive(Clone)]
struct Bytes;

impl Weighter<Key, Kept> for Bytes {
    fn weight(&self, _: &Key, kept: &Kept) -> u64 {
        kept.verdict.encoded_len() as u64 + ENTRY_BYTES
    }
}

impl Default for Verdicts {
    fn default() -> Self {
        Self::of(MAX_BYTES)
    }
}

impl Verdicts {
    fn of(max_bytes: u64) -> Self {
        let entries = usize::try_from(max_bytes / (2 * ENTRY_BYTES)).unwrap_or(usize::MAX);
        Self(Cache::with_weighter(entries, max_bytes, Bytes))
    }

    pub(crate) fn clear(&self) {
        self.0.clear();
    }

    /// The verdict of the same question, if it was asked before.
    pub(crate) fn known(&self, key: &Key, request: &RunShieldRequest) -> Option<RunShieldResponse> {
        let kept = self.0.get(key).filter(|kept| kept.since.elapsed() < KEPT_FOR)?;
        Some(RunShieldResponse { judged_bytes: 0, known_bytes: last_bytes(request), ..(*kept.verdict).clone() })
    }

    /// Keeps a verdict; what is none, because the shield failed, is forgotten.
    pub(crate) fn keep(&self, key: Key, verdict: &RunShieldResponse) {
        if !verdict.violation.as_ref().is_some_and(|violation| reasons::is_failure(&violation.reason)) {
            self.0.insert(key, Kept { verdict: Arc::new(verdict.clone()), since: Instant::now() });
        }
    }
}

/// Bytes of what is judged: the last message's.
pub(crate) fn last_bytes(request: &RunShieldRequest) -> u64 {
    request.messages.last().map_or(0, judged::bytes)
}

/// What the question is. Each field is preceded by its length, so that no two questions are written alike.
pub(crate) fn key(tenant: &str, request: &RunShieldRequest, reads_conversation: bool) -> Key {
    let mut hash = Sha256::new();
    let mut add = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    add(tenant.as_bytes());
    add(request.shield_id.as_bytes());
    add(&request.stage.to_le_bytes());
    let from = if reads_conversation { 0 } else { request.messages.len().saturating_sub(1) };
    request.messages.iter().skip(from).for_each(|message| add(&message.encode_to_vec()));
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use llama_stack_proto::v1::{Message, ShieldStage};

    use super::*;

    fn asks(texts: &[&str]) -> RunShieldRequest {
        let messages = texts.iter().map(|text| Message::user(*text)).collect();
        RunShieldRequest { shield_id: "s".into(), messages, stage: ShieldStage::Input.into(), ..Default::default() }
    }

    #[test]
    fn a_question_is_who_asks_whom_where_and_what() {
        let one = key("a", &asks(&["x"]), false);
        assert_eq!(one, key("a", &asks(&["before", "x"]), false));
        assert_ne!(key("a", &asks(&["x"]), true), key("a", &asks(&["before", "x"]), true));
        assert_ne!(one, key("b", &asks(&["x"]), false));
        assert_ne!(one, key("a", &RunShieldRequest { shield_id: "t".into(), ..asks(&["x"]) }, false));
        assert_ne!(one, key("a", &RunShieldRequest { stage: ShieldStage::Output.into(), ..asks(&["x"]) }, false));
        assert_ne!(key("a", &asks(&["x", "y"]), true), key("a", &asks(&["xy"]), true));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let verdicts = Verdicts::of(100 * ENTRY_BYTES);
        for n in 0..1_000u32 {
            verdicts.keep(key("a", &asks(&[&n.to_string()]), false), &RunShieldResponse::default());
        }
        assert!(verdicts.0.weight() <= 100 * ENTRY_BYTES && !verdicts.0.is_empty());
    }
}
