//! The texts of a message, and the message without what was found in them.

use llama_stack_proto::v1::{Message, Part, part::Content};

use super::{Hit, Level};

/// A text of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece<'a> {
    /// Index of the part.
    pub(crate) part: u32,
    /// Bytes of the part's text before this piece: the texts of a tool's result count as one text.
    pub(crate) offset: usize,
    pub(crate) text: &'a str,
    /// Arguments of a call: JSON, so that its strings are texts in another writing.
    pub(crate) json: bool,
}

/// Every text of a message, in order: what people and models read, and the arguments of calls.
pub(crate) fn pieces(message: &Message) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    for (index, part) in message.parts.iter().enumerate() {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        let mut offset = 0;
        each(part, &mut |text, json| {
            pieces.push(Piece { part: index, offset, text, json });
            offset += text.len();
        });
    }
    pieces
}

fn each<'a>(part: &'a Part, visit: &mut impl FnMut(&'a str, bool)) {
    match &part.content {
        Some(Content::Text(text) | Content::Refusal(text) | Content::Reasoning(text)) => visit(text, false),
        Some(Content::ToolCall(call)) => visit(&call.arguments, true),
        Some(Content::ToolResult(result)) => result.parts.iter().for_each(|part| each(part, visit)),
        Some(Content::Image(_)) | None => {}
    }
}

/// The message with what was found at [`Level::Redact`] replaced by its mark; all else as it was. Citations whose place
/// held something that was taken out are dropped, and those behind it move with their text.
pub(crate) fn redact(message: &Message, pieces: &[Piece<'_>], hits: &[Vec<Hit>]) -> Message {
    let mut texts = pieces.iter().zip(hits).map(|(piece, hits)| edits(piece.text, hits));
    let mut redacted = message.clone();
    for part in &mut redacted.parts {
        replace(part, &mut texts);
    }
    redacted
}

struct Edit<'a> {
    start: usize,
    end: usize,
    mark: &'a str,
}

/// What is replaced, in order and apart: where findings overlap, the widest of them names the mark.
fn edits<'a>(text: &str, hits: &'a [Hit]) -> Vec<Edit<'a>> {
    let mut sorted: Vec<&Hit> = hits.iter().filter(|hit| hit.level == Level::Redact && hit.range.end <= text.len()).collect();
    sorted.sort_by_key(|hit| (hit.range.start, usize::MAX - hit.range.end));
    let mut edits: Vec<(Edit<'a>, usize)> = Vec::new();
    for hit in sorted {
        let (start, end) = (floor(text, hit.range.start), ceil(text, hit.range.end));
        match edits.last_mut() {
            Some((last, widest)) if start < last.end => {
                last.end = last.end.max(end);
                if end - start > *widest {
                    (last.mark, *widest) = (&hit.mark, end - start);
                }
            }
            _ => edits.push((Edit { start, end, mark: &hit.mark }, end - start)),
        }
    }
    edits.into_iter().map(|(edit, _)| edit).collect()
}

fn floor(text: &str, at: usize) -> usize {
    (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

fn ceil(text: &str, at: usize) -> usize {
    (at..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len())
}

fn replace<'a>(part: &mut Part, texts: &mut impl Iterator<Item = Vec<Edit<'a>>>) {
    let is_text = matches!(part.content, Some(Content::Text(_)));
    let edits = match &mut part.content {
        Some(Content::Text(text) | Content::Refusal(text) | Content::Reasoning(text)) => write(text, texts.next()),
        Some(Content::ToolCall(call)) => write(&mut call.arguments, texts.next()),
        Some(Content::ToolResult(result)) => {
            for part in &mut result.parts {
                replace(part, texts);
            }
            return;
        }
        Some(Content::Image(_)) | None => return,
    };
    if is_text && !edits.is_empty() {
        part.citations.retain_mut(|citation| {
            let (start, end) = (citation.start as usize, citation.end as usize);
            let mut moved = 0_i64;
            for edit in &edits {
                if edit.end <= start {
                    moved += edit.mark.len() as i64 - (edit.end - edit.start) as i64;
                } else if edit.start < end.max(start + 1) {
                    return false;
                }
            }
            citation.start = u32::try_from(i64::from(citation.start) + moved).unwrap_or_default();
            citation.end = u32::try_from(i64::from(citation.end) + moved).unwrap_or_default();
            true
        });
    }
}

fn write<'a>(text: &mut String, edits: Option<Vec<Edit<'a>>>) -> Vec<Edit<'a>> {
    let edits = edits.unwrap_or_default();
    let mut written = String::with_capacity(text.len());
    let mut done = 0;
    for edit in &edits {
        written.push_str(&text[done..edit.start]);
        written.push_str(edit.mark);
        done = edit.end;
    }
    written.push_str(&text[done..]);
    *text = written;
    edits
}

#[cfg(test)]
mod tests {
    use llama_stack_proto::v1::{Citation, ToolCall, ToolResult};

    use super::*;

    fn hit(range: std::ops::Range<usize>, mark: &str) -> Hit {
        Hit { code: "X".into(), range, detail: String::new(), level: Level::Redact, mark: mark.into() }
    }

    #[test]
    fn what_was_found_is_replaced_and_all_else_stays() {
        let mut cited = Part::text("see a@b.c here and there").with_provenance("user");
        cited.citations = vec![Citation { start: 4, end: 9, ..Default::default() }, Citation { start: 15, end: 18, ..Default::default() }];
        let result = ToolResult::text(&ToolCall::new("1", "mail", "{}"), "from a@b.c", false);
        let message = Message::new(llama_stack_proto::v1::Role::User, vec![cited, Part::from(result)]);
        let all = pieces(&message);
        let redacted = redact(&message, &all, &[vec![hit(4..9, "[M]"), hit(5..7, "[wrong]")], vec![hit(5..10, "[M]")]]);
        assert_eq!(redacted.parts[0].as_text(), Some("see [M] here and there"));
        assert_eq!(redacted.parts[0].provenance, "user");
        assert_eq!(redacted.parts[0].citations.iter().map(|c| (c.start, c.end)).collect::<Vec<_>>(), [(13, 16)]);
        assert_eq!(redacted.tool_results().next().map(ToolResult::joined_text).as_deref(), Some("from [M]"));
    }
}
