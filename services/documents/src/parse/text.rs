//! Plain text, in whatever encoding it comes: paragraphs with their lines.

use encoding_rs::{Encoding, UTF_8, WINDOWS_1252};
use llama_stack_core::Result;

use super::written::{At, Written};
use crate::{Kind, charset};

/// By the byte order mark, then by what was said, then UTF-8 if it is, else windows-1252. Lines end with `\n`.
pub(super) fn decode(data: &[u8], media_type: &str) -> String {
    decode_as(data, charset::declared(media_type.as_bytes()))
}

/// As [`decode`], and a page may say it of itself.
pub(super) fn decode_page(data: &[u8], media_type: &str) -> String {
    decode_as(data, charset::declared(media_type.as_bytes()).or_else(|| charset::of_page(data)))
}

fn decode_as(data: &[u8], said: Option<&'static Encoding>) -> String {
    let valid = std::str::from_utf8(data).is_ok();
    // Who says "utf-8" and sends something else is mistaken; whatever is valid UTF-8 is hardly anything else.
    let encoding = said.filter(|said| *said != UTF_8 || valid).unwrap_or(if valid { UTF_8 } else { WINDOWS_1252 });
    let (text, ..) = encoding.decode(data);
    if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text.into_owned() }
}

/// Paragraphs: what stands between empty lines.
pub(super) fn read(text: &str, written: &mut Written) -> Result<()> {
    for (lines, paragraph) in parts(text, |_, _| true) {
        written.push(Kind::Text, paragraph, At { page: 0, lines })?;
    }
    Ok(())
}

/// Parts of a text, with their first and last lines, divided where empty lines are followed by one that `begins` a part:
/// it is told the text so far and that line.
pub(super) fn parts(text: &str, begins: impl Fn(&str, &str) -> bool) -> Vec<((u32, u32), &str)> {
    let (mut parts, mut number, mut at) = (Vec::new(), 0_u32, 0);
    // Where the part begins, its first line, where it ends, its last line.
    let mut open: Option<(usize, u32, usize, u32)> = None;
    let mut gap = false;
    for line in text.split_inclusive('\n') {
        number = number.saturating_add(1);
        let start = at;
        at += line.len();
        let line = line.trim_end();
        if line.is_empty() {
            gap = true;
            continue;
        }
        let end = start + line.len();
        open = match open {
            Some((first, line_start, before, line_end)) if gap && begins(&text[first..before], line) => {
                parts.push(((line_start, line_end), &text[first..before]));
                Some((start, number, end, number))
            }
            Some((first, line_start, ..)) => Some((first, line_start, end, number)),
            None => Some((start, number, end, number)),
        };
        gap = false;
    }
    parts.extend(open.map(|(first, line_start, end, line_end)| ((line_start, line_end), &text[first..end])));
    parts
}
