//! Pages of lists that are in the database. A token is where a list goes on, sealed under a key that all processes of the database share
//! and bound to whose list of what it is: nobody reads in it what they may not see, and it opens for that list alone.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use llama_stack_core::{Code, Error, Result};

use crate::{Store, failure};

const DEFAULT_SIZE: u32 = 100;
const MAX_SIZE: u32 = 1_000;

/// Sorts after every id.
const END: &str = "\u{10FFFF}";

/// A migration made it.
const KEY: &str = "SELECT key FROM page_keys WHERE id = 1";

/// What tokens are sealed under.
#[derive(Clone)]
pub(crate) struct Key(Arc<LessSafeKey>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Key {
    /// `None`: these are no 32 bytes.
    fn new(bytes: &[u8]) -> Option<Self> {
        Some(Self(Arc::new(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, bytes).ok()?))))
    }

    fn seal(&self, list: &str, after: &str) -> Result<String> {
        let broken = |_| Error::internal("the token of a page could not be sealed");
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(broken)?;
        let mut sealed = after.as_bytes().to_vec();
        self.0.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(list.as_bytes()), &mut sealed).map_err(broken)?;
        Ok(URL_SAFE_NO_PAD.encode([nonce.as_slice(), &sealed].concat()))
    }

    /// `None`: this list never gave it.
    fn open(&self, list: &str, token: &str) -> Option<String> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut opened = sealed.to_vec();
        let after = self.0.open_in_place(nonce, Aad::from(list.as_bytes()), &mut opened).ok()?;
        String::from_utf8(after.to_vec()).ok()
    }
}

/// A page that is asked for.
#[derive(Debug)]
pub(crate) struct Page {
    key: Key,
    list: String,
    size: usize,
    after: Option<String>,
}

impl Store {
    /// `list`: whose it is, what is listed and by which filter. A token serves no other.
    ///
    /// # Errors
    /// `InvalidArgument` for a token that this list never gave.
    pub(crate) async fn page(&self, list: &[&str], size: u32, token: &str) -> Result<Page> {
        let key = self.2.get_or_try_init(|| async {
            let rows = self.read(KEY, &[]).await?;
            let bytes = rows.first().map(|row| row.bytes(0)).transpose().map_err(|error| failure::report(&error))?;
            let missing = || Error::new(Code::DataLoss, "the database has no key for the tokens of pages").with_reason("store_damaged");
            bytes.and_then(Key::new).ok_or_else(missing)
        });
        Page::new(key.await?.clone(), list.join("\0"), size, token)
    }
}

impl Page {
    fn new(key: Key, list: String, size: u32, token: &str) -> Result<Self> {
        let size = if size == 0 { DEFAULT_SIZE } else { size.min(MAX_SIZE) } as usize;
        let after = if token.is_empty() { None } else { Some(key.open(&list, token).ok_or_else(crooked)?) };
        Ok(Self { key, list, size, after })
    }

    /// Greater ids come next.
    pub(crate) fn oldest_first(&self) -> &str {
        self.after.as_deref().unwrap_or("")
    }

    /// Smaller ids come next.
    pub(crate) fn newest_first(&self) -> &str {
        self.after.as_deref().unwrap_or(END)
    }

    /// One row more than the page holds, to see whether there is another.
    pub(crate) fn limit(&self) -> i64 {
        self.size as i64 + 1
    }

    /// Cuts the rows to the page, and gives the next one's token, empty at the end.
    pub(crate) fn cut<T>(&self, mut rows: Vec<T>, id: impl Fn(&T) -> &str) -> Result<(Vec<T>, String)> {
        if rows.len() <= self.size {
            return Ok((rows, String::new()));
        }
        rows.truncate(self.size);
        let next = rows.last().map(|row| self.token(id(row))).transpose()?;
        Ok((rows, next.unwrap_or_default()))
    }

    /// The token with which the list goes on after this.
    pub(crate) fn token(&self, after: &str) -> Result<String> {
        self.key.seal(&self.list, after)
    }
}

/// The id that a token of this list goes on after, for fuzzers.
#[doc(hidden)]
pub fn page_after(list: &str, token: &str) -> Option<String> {
    Key::new(&[0; 32])?.open(list, token)
}

pub(crate) fn crooked() -> Error {
    Error::invalid("page_token", "page_token is not one that this list gave").with_reason("bad_page_token")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(list: &str, size: u32, token: &str) -> Result<Page> {
        Page::new(Key::new(&[7; 32]).unwrap(), list.into(), size, token)
    }

    #[test]
    fn a_token_serves_its_own_list_only_and_is_not_read() {
        let (page_of_one, token) = page("agents", 1, "").unwrap().cut(vec!["agent_b", "agent_a"], |id| id).unwrap();
        assert_eq!(page_of_one, ["agent_b"]);
        assert_eq!(page("agents", 1, &token).unwrap().newest_first(), "agent_b");
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        assert!(!bytes.windows(5).any(|five| five == b"agent"), "{token}");
        // With any one of its bits changed it is none.
        for at in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[at / 8] ^= 1 << (at % 8);
            assert!(page("agents", 1, &URL_SAFE_NO_PAD.encode(changed)).is_err(), "bit {at}");
        }
        for (list, token) in [("turns", token.as_str()), ("agents", "b"), ("agents", "!"), ("agents", "YWdlbnRzCmFnZW50X2I")] {
            let error = page(list, 1, token).unwrap_err();
            assert_eq!((error.field(), error.reason()), (Some("page_token"), Some("bad_page_token")));
        }
    }

    #[test]
    fn a_size_has_a_default_and_a_bound() {
        let limit = |size| page("agents", size, "").unwrap().limit();
        assert_eq!([limit(0), limit(7), limit(u32::MAX)], [101, 8, 1_001]);
    }
}
