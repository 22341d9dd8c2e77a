//! Secrets of API keys: `lsk_<the key's id>_<256 random bits>`. The store has their hashes only.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use llama_stack_core::{Error, Result};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// What every secret begins with, so that scanners find one that got away.
pub(crate) const PREFIX: &str = "lsk_";
/// Of the random part, in bytes.
const BYTES: usize = 32;

/// A new secret of the key `key_<id>`, and its hash.
///
/// # Errors
/// `Internal` where the machine has no randomness.
pub(crate) fn issue(key_id: &str) -> Result<(String, String)> {
    let mut random = [0_u8; BYTES];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| Error::internal("the machine gives no randomness"))?;
    let secret = format!("{PREFIX}{}_{}", key_id.trim_start_matches("key_"), URL_SAFE_NO_PAD.encode(random));
    let hash = hash(&secret);
    Ok((secret, hash))
}

/// The id of the key whose secret this would be.
pub(crate) fn key_id(secret: &str) -> Option<String> {
    let (id, random) = secret.strip_prefix(PREFIX)?.split_at_checked(32)?;
    let well_formed = id.bytes().all(|byte| byte.is_ascii_hexdigit()) && random.starts_with('_') && random.len() <= 64;
    well_formed.then(|| format!("key_{id}"))
}

/// SHA-256 in hex. The secret has 256 random bits, so nothing slower is needed.
pub(crate) fn hash(secret: &str) -> String {
    hex::encode(Sha256::digest(secret.as_bytes()))
}

/// Whether a secret's hash is this one, in a time that does not tell where they differ.
pub(crate) fn is(secret: &str, expected: &str) -> bool {
    hash(secret).as_bytes().ct_eq(expected.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_names_its_key_and_matches_its_own_hash_alone() {
        let id = llama_stack_core::ids::new("key");
        let ((one, hash_of_one), (other, _)) = (issue(&id).unwrap(), issue(&id).unwrap());
        assert_ne!(one, other);
        assert_eq!(key_id(&one).as_deref(), Some(id.as_str()));
        assert!(is(&one, &hash_of_one) && !is(&other, &hash_of_one) && !is(&one, ""));
        for crooked in ["lsk_", "lsk_short_x", "sk-1", &one[..36], &format!("{one}{one}")] {
            assert_eq!(key_id(crooked), None, "{crooked}");
        }
    }
}
