//! Paging over lists that are in memory. Tokens are opaque to callers: here the id after which to go on.

use crate::{Error, Result};

/// The page of `items` after `token`, in the order of `items`, and the token of the next.
///
/// # Errors
/// `InvalidArgument` for a token that this list never gave.
pub fn slice<T>(items: Vec<T>, id: impl Fn(&T) -> &str, size: u32, default: u32, token: &str) -> Result<(Vec<T>, String)> {
    let size = if size == 0 { default } else { size.min(1_000) } as usize;
    let start = if token.is_empty() {
        0
    } else {
        let found = items.iter().position(|item| id(item) == token);
        found.ok_or_else(|| Error::invalid("page_token", "page_token is not one that this list gave"))? + 1
    };
    let more = items.len() > start + size;
    let page: Vec<T> = items.into_iter().skip(start).take(size).collect();
    let next = if more { page.last().map(|item| id(item).to_owned()).unwrap_or_default() } else { String::new() };
    Ok((page, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_cover_the_list_once() {
        let all: Vec<String> = (0..7).map(|n| n.to_string()).collect();
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let (page, next) = slice(all.clone(), |item| item, 3, 3, &token).unwrap();
            seen.extend(page);
            if next.is_empty() {
                break;
            }
            token = next;
        }
        assert_eq!(seen, all);
        assert!(slice(all, |item| item, 3, 3, "nine").is_err());
    }
}
