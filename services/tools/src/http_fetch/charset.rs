//! In which encoding a text is, and the text.
//!
//! Source: the order of the HTML standard's "determining the character encoding": byte order mark, then what the server
//! says, then what the page says of itself.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};
use llama_stack_documents::charset;

pub(super) fn decode<'a>(bytes: &'a [u8], content_type: Option<&str>, page: bool) -> Cow<'a, str> {
    let said = content_type.and_then(|declared| charset::declared(declared.as_bytes()));
    let said = said.or_else(|| if page { charset::of_page(bytes) } else { None });
    // It heeds a byte order mark before all else.
    said.unwrap_or_else(|| guess(bytes)).decode(bytes).0
}

fn guess(bytes: &[u8]) -> &'static Encoding {
    match std::str::from_utf8(bytes) {
        // A body that was cut may end within a character.
        Err(error) if error.error_len().is_some() => WINDOWS_1252,
        _ => UTF_8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_goes_before_the_page_and_both_before_a_guess() {
        let latin = b"<meta charset='utf-8'>\xfc";
        assert!(decode(latin, Some("text/html; charset=ISO-8859-1"), true).ends_with('ü'));
        assert!(decode(b"<meta charset=\"windows-1251\">\xff", None, true).ends_with('я'));
        assert!(decode(b"<meta http-equiv=x content='text/html; charset=shift_jis'>\x82\xa0", None, true).ends_with('あ'));
        assert_eq!(decode("ü".as_bytes(), Some("text/plain"), false), "ü");
        assert_eq!(decode(b"\xfc", Some("text/plain; charset=nonsense"), false), "ü");
        assert_eq!(decode(b"\xff\xfeu\0", Some("text/plain; charset=utf-8"), false), "u");
    }
}
