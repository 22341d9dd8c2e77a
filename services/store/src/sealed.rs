//! Secrets of others that have to be kept: sealed with AES-256-GCM under a key that is not in the database.
//!
//! ```text
//! 0x00 "SEAL" 0x01 · id of the key, 8 bytes · nonce, 12 · what is sealed, and its tag, 16
//! ```
//!
//! No message of the contract begins with a zero byte, so what is sealed is told from what is not. What it belongs to (tenant and
//! id) is authenticated with it: a sealed secret that is moved to another row does not open.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest, rand,
};
use llama_stack_core::{Code, Error, Result, context::Secret};

const MARK: &[u8] = b"\0SEAL\x01";
/// Of a key's id.
const ID: usize = 8;
/// Of a key.
const KEY: usize = 32;

/// Seals with one key, and opens with that and older ones.
pub struct Sealer {
    /// The first one seals.
    keys: Vec<Key>,
}

struct Key {
    id: [u8; ID],
    key: LessSafeKey,
}

impl Key {
    fn new(text: &str) -> Result<Self> {
        let bytes = (0..text.len() / 2).map(|at| text.get(2 * at..2 * at + 2).and_then(|two| u8::from_str_radix(two, 16).ok()));
        let bytes = bytes.collect::<Option<Vec<u8>>>().filter(|bytes| bytes.len() == KEY && text.len() == 2 * KEY);
        let bytes = bytes.ok_or_else(|| {
            let message = "a secret key must be 64 hexadecimal digits: `openssl rand -hex 32` makes one";
            Error::invalid("secrets", message).with_reason("bad_secret_key")
        })?;
        let broken = |_| Error::internal("a secret key cannot be used");
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes).map_err(broken)?);
        let hash = digest::digest(&digest::SHA256, &[b"llama-stack secret key id".as_slice(), &bytes].concat());
        let mut id = [0; ID];
        id.copy_from_slice(&hash.as_ref()[..ID]);
        Ok(Self { id, key })
    }
}

impl Sealer {
    /// None without keys.
    ///
    /// # Errors
    /// `InvalidArgument` for a key that is not 64 hexadecimal digits. The key is not shown.
    pub fn new(keys: &[Secret]) -> Result<Option<Self>> {
        let keys = keys.iter().map(|key| Key::new(key.expose())).collect::<Result<Vec<_>>>()?;
        Ok(if keys.is_empty() { None } else { Some(Self { keys }) })
    }

    /// `of`: what it belongs to.
    pub(crate) fn seal(&self, of: &str, plain: &[u8]) -> Result<Vec<u8>> {
        let broken = |_| Error::internal("a secret could not be sealed");
        let Some(Key { id, key }) = self.keys.first() else { return Err(Error::internal("there is no key to seal with")) };
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(broken)?;
        let mut sealed = plain.to_vec();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(of.as_bytes()), &mut sealed).map_err(broken)?;
        Ok([MARK, id, &nonce, &sealed].concat())
    }

    /// # Errors
    /// `FailedPrecondition` for another key's (`wrong_secret_key`) · `DataLoss` for what was altered or moved.
    fn open(&self, of: &str, sealed: &[u8]) -> Result<Vec<u8>> {
        let damaged = || Error::new(Code::DataLoss, "a sealed secret is damaged").with_reason("store_damaged");
        let (id, rest) = sealed[MARK.len()..].split_at_checked(ID).ok_or_else(damaged)?;
        let (nonce, rest) = rest.split_at_checked(NONCE_LEN).ok_or_else(damaged)?;
        let key = self.keys.iter().find(|key| key.id == id).ok_or_else(other_key)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| damaged())?;
        let mut opened = rest.to_vec();
        let plain = key.key.open_in_place(nonce, Aad::from(of.as_bytes()), &mut opened).map_err(|_| damaged())?;
        Ok(plain.to_vec())
    }

    fn is_newest(&self, sealed: &[u8]) -> bool {
        let id = sealed.get(MARK.len()..MARK.len() + ID);
        is_sealed(sealed) && self.keys.first().is_some_and(|key| id == Some(key.id.as_slice()))
    }
}

fn is_sealed(bytes: &[u8]) -> bool {
    bytes.starts_with(MARK)
}

fn other_key() -> Error {
    let message = "a kept secret is sealed with a key that this process has not: name it as key_file, or under old_key_files";
    Error::failed_precondition(message).with_field("secrets").with_reason("wrong_secret_key")
}

/// What was kept, whether it was sealed or not.
///
/// # Errors
/// As [`Sealer::open`].
pub(crate) fn opened(sealer: Option<&Sealer>, of: &str, kept: &[u8]) -> Result<Vec<u8>> {
    match (is_sealed(kept), sealer) {
        (false, _) => Ok(kept.to_vec()),
        (true, Some(sealer)) => sealer.open(of, kept),
        (true, None) => Err(other_key()),
    }
}

/// What should stand in place of what was kept. None: it is as it should be.
///
/// # Errors
/// As [`Sealer::open`].
pub(crate) fn anew(sealer: Option<&Sealer>, of: &str, kept: &[u8]) -> Result<Option<Vec<u8>>> {
    match sealer {
        None if is_sealed(kept) => Err(other_key()),
        None => Ok(None),
        Some(sealer) if sealer.is_newest(kept) => Ok(None),
        Some(sealer) => sealer.seal(of, &opened(Some(sealer), of, kept)?).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(keys: &[&str]) -> Sealer {
        let keys: Vec<Secret> = keys.iter().map(|digit| Secret::new(digit.repeat(64))).collect();
        Sealer::new(&keys).unwrap().unwrap()
    }

    #[test]
    fn only_the_key_opens_it_and_only_in_its_place() {
        let one = sealer(&["a"]);
        let sealed = one.seal("acme/weather", b"canary").unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"canary"));
        assert_ne!(sealed, one.seal("acme/weather", b"canary").unwrap(), "no two nonces are the same");
        assert_eq!(opened(Some(&one), "acme/weather", &sealed).unwrap(), b"canary");
        assert_eq!(opened(Some(&one), "other/weather", &sealed).unwrap_err().code(), Code::DataLoss);
        assert_eq!(opened(Some(&sealer(&["b"])), "acme/weather", &sealed).unwrap_err().reason(), Some("wrong_secret_key"));
        assert_eq!(opened(None, "acme/weather", &sealed).unwrap_err().reason(), Some("wrong_secret_key"));
        for at in MARK.len()..sealed.len() {
            let mut altered = sealed.clone();
            altered[at] ^= 1;
            assert!(opened(Some(&one), "acme/weather", &altered).is_err(), "byte {at}");
        }
    }

    #[test]
    fn what_an_older_key_sealed_opens_and_is_sealed_anew() {
        let sealed = sealer(&["a"]).seal("t/g", b"secret").unwrap();
        let rotated = sealer(&["b", "a"]);
        let anew = anew(Some(&rotated), "t/g", &sealed).unwrap().unwrap();
        assert_eq!(opened(Some(&sealer(&["b"])), "t/g", &anew).unwrap(), b"secret");
        assert_eq!(super::anew(Some(&rotated), "t/g", &anew).unwrap(), None);
        assert!(super::anew(Some(&rotated), "t/g", b"plain").unwrap().is_some(), "what was kept before there was a key");
    }

    #[test]
    fn a_key_is_64_digits_and_is_not_shown() {
        for wrong in ["", "abc", &"g".repeat(64), &"a".repeat(65), &"ä".repeat(32)] {
            let error = Sealer::new(&[Secret::new(wrong)]).err().unwrap();
            assert!(error.code() == Code::InvalidArgument && (wrong.is_empty() || !error.message().contains(wrong)), "{error}");
        }
        assert!(Sealer::new(&[]).unwrap().is_none());
    }
}
