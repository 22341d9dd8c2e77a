//! `x-request-id`: the caller's, where it is one, else ours. On every response and in every log line of a request.

use ::http::{HeaderMap, HeaderName, HeaderValue};

use llama_stack_core::ids;

pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// The request's id; made and written into `headers` where the caller sent none that can be used.
pub(crate) fn ensure(headers: &mut HeaderMap) -> HeaderValue {
    if let Some(id) = headers.get(&HEADER)
        && usable(id.as_bytes())
    {
        return id.clone();
    }
    // An id of ours is ASCII, so this cannot fail.
    let id = HeaderValue::from_str(&ids::new("req")).unwrap_or(HeaderValue::from_static("req"));
    headers.insert(HEADER, id.clone());
    id
}

/// 1 to 128 of `[A-Za-z0-9_.:-]`: harmless in logs and in other servers' headers.
fn usable(id: &[u8]) -> bool {
    (1..=128).contains(&id.len()) && id.iter().all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_callers_id_is_kept_and_a_crooked_one_replaced() {
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::from_static("abc-1"));
        assert_eq!(ensure(&mut headers), "abc-1");
        headers.insert(HEADER, HeaderValue::from_static("a\"b level=error"));
        let made = ensure(&mut headers);
        assert!(made.to_str().unwrap().starts_with("req_"), "{made:?}");
        assert_eq!(headers[&HEADER], made);
    }
}
