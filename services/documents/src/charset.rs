//! In which encoding a text says that it is.

use encoding_rs::Encoding;

/// A page says within its first bytes what it is written in.
const PRESCAN: usize = 1_024;

/// The encoding after `charset=`, as a media type has it.
pub fn declared(text: &[u8]) -> Option<&'static Encoding> {
    let lower = text.to_ascii_lowercase();
    let at = lower.windows(8).position(|window| window == b"charset=")? + 8;
    let rest = lower[at..].trim_ascii_start();
    let rest = rest.strip_prefix(b"\"").or_else(|| rest.strip_prefix(b"'")).unwrap_or(rest);
    let end = rest.iter().position(|byte| !(byte.is_ascii_alphanumeric() || b"-_:.".contains(byte))).unwrap_or(rest.len());
    Encoding::for_label(&rest[..end])
}

/// What a page says of itself.
pub fn of_page(page: &[u8]) -> Option<&'static Encoding> {
    declared(&page[..page.len().min(PRESCAN)])
}
