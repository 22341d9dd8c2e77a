//! Pages of lists that are in the database. A token is the list's name and the id after which to go on.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use llama_stack_core::{Error, Result};

const DEFAULT_SIZE: u32 = 100;
const MAX_SIZE: u32 = 1_000;

/// Sorts after every id.
const END: &str = "\u{10FFFF}";

pub(crate) struct Page {
    list: String,
    size: usize,
    after: Option<String>,
}

impl Page {
    /// `list` names what is listed and by which filter, so that a token serves no other list.
    ///
    /// # Errors
    /// `InvalidArgument` for a token that this list never gave.
    pub(crate) fn new(list: String, size: u32, token: &str) -> Result<Self> {
        let size = if size == 0 { DEFAULT_SIZE } else { size.min(MAX_SIZE) } as usize;
        let after = if token.is_empty() { None } else { Some(read_token(&list, token).ok_or_else(crooked)?) };
        Ok(Self { list, size, after })
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
    pub(crate) fn cut<T>(&self, mut rows: Vec<T>, id: impl Fn(&T) -> &str) -> (Vec<T>, String) {
        if rows.len() <= self.size {
            return (rows, String::new());
        }
        rows.truncate(self.size);
        let next = rows.last().map(|row| token(&self.list, id(row)));
        (rows, next.unwrap_or_default())
    }
}

/// The token with which a list goes on after this.
pub(crate) fn token(list: &str, after: &str) -> String {
    URL_SAFE_NO_PAD.encode(format!("{list}\n{after}"))
}

fn read_token(list: &str, token: &str) -> Option<String> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    let (of, id) = text.rsplit_once('\n')?;
    (of == list && !id.is_empty() && !id.contains('\0')).then(|| id.to_owned())
}

/// The id that a token of this list goes on after, for fuzzers.
#[doc(hidden)]
pub fn page_after(list: &str, token: &str) -> Option<String> {
    read_token(list, token)
}

pub(crate) fn crooked() -> Error {
    Error::invalid("page_token", "page_token is not one that this list gave").with_reason("bad_page_token")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_serves_its_own_list_only() {
        let agents = Page::new("agents".into(), 1, "").unwrap();
        let (page, token) = agents.cut(vec!["b", "a"], |id| id);
        assert_eq!(page, ["b"]);
        assert_eq!(Page::new("agents".into(), 1, &token).unwrap().newest_first(), "b");
        for (list, token) in [("turns", token.as_str()), ("agents", "b"), ("agents", "!"), ("agents", "YWdlbnRzCg")] {
            assert_eq!(Page::new(list.into(), 1, token).err().unwrap().field(), Some("page_token"));
        }
    }

    #[test]
    fn a_size_has_a_default_and_a_bound() {
        let limit = |size| Page::new("agents".into(), size, "").unwrap().limit();
        assert_eq!([limit(0), limit(7), limit(u32::MAX)], [101, 8, 1_001]);
    }
}
