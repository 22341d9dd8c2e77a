//! Fingerprints: of a request, to tell a repetition from a reuse of its key, and of a tool call, as its idempotency key.

use std::fmt::Display;

use llama_stack_proto::v1::{CreateTurnRequest, ToolCall, ToolDefinition};
use prost::Message as _;
use sha2::{Digest, Sha256};

/// The key under which a tool sees a call, however often it is sent: the same turn, step and call give the same key.
pub(crate) fn call_key(turn_id: &str, step_id: &str, call_id: &str) -> String {
    of(&[turn_id, step_id, call_id])
}

/// The id of the question whether a call may run: it stands for these exact arguments.
pub(crate) fn approval_id(turn_id: &str, call: &ToolCall, asked_by: &str) -> String {
    let mut hash = of(&[turn_id, &call.id, &call.name, &call.arguments, asked_by]);
    hash.truncate(32);
    format!("mcpr_{hash}")
}

/// Of a tool as a model sees it.
pub(crate) fn of_definition(definition: &ToolDefinition) -> String {
    of(&[&definition.name, &definition.description, &definition.parameters])
}

pub(crate) fn of(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize())
}

/// Equal for equal requests. Maps have no order in memory, so they are taken out and hashed by key.
pub(crate) fn of_request(request: &CreateTurnRequest) -> String {
    let mut rest = request.clone();
    let mut hash = Sha256::new();
    sorted(&mut hash, &std::mem::take(&mut rest.metadata));
    if let Some(config) = &mut rest.config {
        sorted(&mut hash, &std::mem::take(&mut config.metadata));
        config.mcp_servers.iter_mut().for_each(|server| sorted(&mut hash, &std::mem::take(&mut server.headers)));
        if let Some(sampling) = &mut config.sampling {
            sorted(&mut hash, &std::mem::take(&mut sampling.logit_bias));
        }
    }
    hash.update(rest.encode_to_vec());
    hex::encode(hash.finalize())
}

fn sorted<K: Ord + Display, V: Display>(hash: &mut Sha256, map: &std::collections::HashMap<K, V>) {
    let mut entries: Vec<(&K, &V)> = map.iter().collect();
    entries.sort_by(|a, b| a.0.cmp(b.0));
    hash.update(entries.len().to_le_bytes());
    for (key, value) in entries {
        for text in [key.to_string(), value.to_string()] {
            hash.update(text.len().to_le_bytes());
            hash.update(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(keys: impl Iterator<Item = u32>) -> CreateTurnRequest {
        CreateTurnRequest { metadata: keys.map(|n| (format!("k{n}"), n.to_string())).collect(), ..CreateTurnRequest::default() }
    }

    #[test]
    fn the_order_of_a_map_does_not_matter_and_its_content_does() {
        let one = of_request(&request(0..16));
        assert_eq!(one, of_request(&request((0..16).rev())));
        assert_ne!(one, of_request(&request(0..15)));
    }

    #[test]
    fn each_call_has_its_own_key() {
        let key = call_key("t", "s", "c");
        assert_eq!(key, call_key("t", "s", "c"));
        for other in [call_key("ts", "", "c"), call_key("t", "s", "d"), call_key("t", "sc", "")] {
            assert_ne!(key, other);
        }
    }
}
