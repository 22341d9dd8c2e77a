//! An answer, as a model reads it.

use http::header::CONTENT_TYPE;
use llama_stack_documents::html;
use llama_stack_egress::Response;

use super::charset;

/// Status, URL, type, then at most `most` characters of text, and what is missing.
pub(super) fn show(response: &Response, most: usize) -> String {
    let declared = response.header(CONTENT_TYPE);
    let mut shown = format!("status: {}\nurl: {}\ncontent type: {}\n", response.status, response.url, declared.unwrap_or("not said"));
    if response.body.is_empty() {
        shown.push_str("\n[no body]");
        return shown;
    }
    let kind = kind(declared, &response.body);
    if kind == Kind::Other {
        let size = response.body.len();
        let size = if response.complete { format!("{size}") } else { format!("more than {size}") };
        shown.push_str(&format!("\n[{size} bytes that are not text, not shown]"));
        return shown;
    }
    let text = charset::decode(&response.body, declared, kind == Kind::Page);
    let (text, complete) = match kind {
        Kind::Page => {
            // A character is up to four bytes.
            let page = html::markdown(&text, Some(response.url.clone()), most.saturating_mul(4));
            if !page.title.is_empty() {
                let title: String = page.title.chars().take(300).collect();
                shown.push_str(&format!("title: {title}\n"));
            }
            (page.text, page.complete)
        }
        _ => (text.into_owned(), true),
    };
    let end = text.char_indices().nth(most).map(|(at, _)| at);
    shown.push('\n');
    shown.push_str(&text[..end.unwrap_or(text.len())]);
    if end.is_some() {
        shown.push_str(&format!("\n\n[cut after {most} characters; a larger max_chars shows more]"));
    } else if !complete || !response.complete {
        shown.push_str(&format!("\n\n[cut: only the first {} bytes were read]", response.body.len()));
    }
    shown
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Page,
    Text,
    Other,
}

/// By what the server says; where it says nothing, by what it looks like.
fn kind(declared: Option<&str>, body: &[u8]) -> Kind {
    let essence = declared.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "text/html" | "application/xhtml+xml" => Kind::Page,
        "" | "application/octet-stream" | "unknown/unknown" => guess(body),
        "application/json"
        | "application/xml"
        | "application/javascript"
        | "application/yaml"
        | "application/x-yaml"
        | "application/toml"
        | "application/x-ndjson"
        | "application/jsonl"
        | "application/sql"
        | "application/graphql"
        | "application/x-sh"
        | "application/rtf"
        | "image/svg+xml" => Kind::Text,
        other if other.starts_with("text/") || other.ends_with("+json") || other.ends_with("+xml") || other.ends_with("+yaml") => {
            Kind::Text
        }
        _ => Kind::Other,
    }
}

fn guess(body: &[u8]) -> Kind {
    let head = &body[..body.len().min(1024)];
    // The head may end within a character.
    let text = std::str::from_utf8(head).map_or_else(|error| error.error_len().is_none(), |_| true);
    if !text || head.contains(&0) {
        return Kind::Other;
    }
    let head = head.trim_ascii_start().to_ascii_lowercase();
    if head.starts_with(b"<!doctype html") || head.starts_with(b"<html") { Kind::Page } else { Kind::Text }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue};

    use super::*;

    fn response(kind: &'static str, body: &[u8]) -> Response {
        let mut headers = HeaderMap::new();
        if !kind.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        }
        Response { status: 200, url: "https://a.example/x".parse().unwrap(), headers, body: Bytes::copy_from_slice(body), complete: true }
    }

    #[test]
    fn each_kind_of_body_is_shown_in_its_way() {
        let shown = |kind, body: &[u8]| show(&response(kind, body), 1000);
        assert_eq!(
            shown("text/html; charset=utf-8", "<title>T</title><h1>Ü</h1><a href=y>z</a>".as_bytes()),
            "status: 200\nurl: https://a.example/x\ncontent type: text/html; charset=utf-8\ntitle: T\n\n# Ü\n\n[z](https://a.example/y)"
        );
        assert_eq!(
            shown("application/json", br#"{"a":  1}"#),
            "status: 200\nurl: https://a.example/x\ncontent type: application/json\n\n{\"a\":  1}"
        );
        assert!(shown("application/problem+json", b"{}").ends_with("\n\n{}"));
        assert!(shown("text/plain", b"<b>as is</b>").ends_with("\n\n<b>as is</b>"));
        assert!(shown("", b" <!DOCTYPE html><p>guessed").ends_with("\n\nguessed"));
        assert!(shown("", b"plain").ends_with("content type: not said\n\nplain"));
        assert!(shown("image/png", b"\x89PNG").ends_with("\n\n[4 bytes that are not text, not shown]"));
        assert!(shown("application/octet-stream", b"a\0b").ends_with("[3 bytes that are not text, not shown]"));
        assert!(shown("text/plain", b"").ends_with("\n\n[no body]"));
    }

    #[test]
    fn what_is_cut_is_said() {
        let shown = show(&response("text/plain", "äöüß".as_bytes()), 2);
        assert!(shown.ends_with("\n\näö\n\n[cut after 2 characters; a larger max_chars shows more]"), "{shown}");
        assert!(!show(&response("text/plain", "äö".as_bytes()), 2).contains("cut"));
        let shown = show(&response("text/html", "<p>word word</p>".repeat(10_000).as_bytes()), 50);
        assert!(shown.ends_with("[cut after 50 characters; a larger max_chars shows more]"), "{shown}");
        let partial = Response { complete: false, ..response("text/plain", b"abc") };
        assert!(show(&partial, 100).ends_with("abc\n\n[cut: only the first 3 bytes were read]"));
    }
}
