//! Citations: which passage a part of an answer rests on.
//!
//! Passages that a search found are shown to the model with numbers, and it is asked to write the number of a passage
//! after what it took from there: `[2]`, `[1, 3]` or `【2】`. Such a mark stays in the text, so that the words are the same
//! whether they are streamed or read back; what it stands for is noted beside the text. A mark whose number names no
//! passage is text like any other, as is one within code.

use std::{collections::HashMap, ops::Range};

use llama_stack_proto::v1::{Citation, Message, Part, SearchResult, part::Content};

/// Of what is quoted of a passage: enough to find it again.
const MAX_QUOTE_BYTES: usize = 600;

/// Passages by their numbers.
pub(crate) type Sources<'a> = HashMap<u32, &'a SearchResult>;

/// The passages that a conversation has shown so far. Of two with the same number the later counts: it is the one that
/// the model has read last.
pub(crate) fn sources<'a>(messages: impl IntoIterator<Item = &'a Message>) -> Sources<'a> {
    let results = messages.into_iter().flat_map(Message::tool_results).flat_map(|result| &result.search_results);
    results.filter(|result| result.number != 0).map(|result| (result.number, result)).collect()
}

/// Notes beside each text of an answer what its marks stand for.
pub(crate) fn cite(message: &mut Message, sources: &Sources<'_>) {
    if sources.is_empty() {
        return;
    }
    for Part { content, citations, .. } in &mut message.parts {
        if let Some(Content::Text(text)) = content {
            *citations = of_text(text, sources);
        }
    }
}

fn of_text(text: &str, sources: &Sources<'_>) -> Vec<Citation> {
    let mut citations = Vec::new();
    for Mark { place, numbers } in marks(text) {
        let (Ok(start), Ok(end)) = (u32::try_from(place.start), u32::try_from(place.end)) else { break };
        let found = numbers.iter().filter_map(|number| sources.get(number));
        citations.extend(found.map(|source| citation(start, end, source)));
    }
    citations
}

fn citation(start: u32, end: u32, source: &SearchResult) -> Citation {
    Citation {
        start,
        end,
        bank_id: source.bank_id.clone(),
        document_id: source.document_id.clone(),
        file_id: source.file_id.clone(),
        filename: source.filename.clone(),
        page: source.page,
        quote: beginning(&source.text, MAX_QUOTE_BYTES).to_owned(),
        ..Citation::default()
    }
}

/// Whole words, as many as fit.
fn beginning(text: &str, max: usize) -> &str {
    if text.len() <= max {
        return text;
    }
    let cut = text.get(..text.floor_char_boundary(max)).unwrap_or_default();
    cut.rfind(char::is_whitespace).and_then(|end| cut.get(..end)).unwrap_or(cut)
}

/// Something like `[1, 2]`, in bytes of its text.
#[derive(Debug, PartialEq)]
struct Mark {
    place: Range<usize>,
    numbers: Vec<u32>,
}

fn marks(text: &str) -> Vec<Mark> {
    let (mut marks, mut at) = (Vec::new(), 0);
    while let Some(rest) = text.get(at..) {
        let Some(found) = rest.find(['[', '【', '`']) else { break };
        let (start, rest) = (at + found, rest.get(found..).unwrap_or_default());
        at = start
            + match rest.chars().next() {
                Some('`') => code(rest),
                _ => match mark(rest) {
                    Some((length, numbers)) => {
                        marks.push(Mark { place: start..start + length, numbers });
                        length
                    }
                    None => rest.chars().next().map_or(1, char::len_utf8),
                },
            };
    }
    marks
}

/// How long the code is that begins with these backticks. As in Markdown it ends with as many; a fence without an end
/// goes to the end of the text.
fn code(text: &str) -> usize {
    let ticks = text.bytes().take_while(|byte| *byte == b'`').count();
    let mut at = ticks;
    while let Some(found) = text.get(at..).and_then(|rest| rest.find('`')) {
        let run = text.bytes().skip(at + found).take_while(|byte| *byte == b'`').count();
        at += found + run;
        if run == ticks {
            return at;
        }
    }
    if ticks >= 3 { text.len() } else { ticks }
}

/// The mark with which this text begins: its length, and its numbers.
fn mark(text: &str) -> Option<(usize, Vec<u32>)> {
    let (open, close) = if text.starts_with('[') { ('[', ']') } else { ('【', '】') };
    let inside = text.strip_prefix(open)?;
    let inside = inside.get(..inside.find(close)?)?;
    // Some models add what they have learned elsewhere: `【1†source】`.
    let listed = if open == '【' { inside.split('†').next().unwrap_or_default() } else { inside };
    let length = open.len_utf8() + inside.len() + close.len_utf8();
    // `[1](https://…)` is a link.
    if text.get(length..).is_some_and(|after| after.starts_with('(')) {
        return None;
    }
    let number = |text: &str| {
        let text = text.trim();
        let digits = (1..=6).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        if digits { text.parse::<u32>().ok() } else { None }
    };
    let numbers: Option<Vec<u32>> = listed.split(',').map(number).collect();
    Some((length, numbers?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<(&str, Vec<u32>)> {
        marks(text).into_iter().map(|mark| (&text[mark.place], mark.numbers)).collect()
    }

    #[test]
    fn marks_are_found_where_they_are_marks() {
        assert_eq!(found("Oslo [1], Bergen [2, 3].[4]"), [("[1]", vec![1]), ("[2, 3]", vec![2, 3]), ("[4]", vec![4])]);
        assert_eq!(found("née 【1】 and 【12†source】"), [("【1】", vec![1]), ("【12†source】", vec![12])]);
        for none in ["[a]", "[]", "[1](x)", "[-1]", "[1", "[1;2]", "`a[1]`", "``x`[1]``", "```\na[1]", "[1234567]", "[1,]", "[[x]"] {
            assert_eq!(found(none), [], "{none}");
        }
        assert_eq!(found("[[1]] ` [2]"), [("[1]", vec![1]), ("[2]", vec![2])]);
        assert_eq!(found("`x` [1] ```\n[2]\n``` [3]"), [("[1]", vec![1]), ("[3]", vec![3])]);
    }

    #[test]
    fn a_mark_says_which_passage_and_one_without_a_passage_says_nothing() {
        let result = SearchResult {
            bank_id: "b".into(),
            document_id: "d".into(),
            filename: "a.md".into(),
            text: "words ".repeat(200),
            page: 3,
            number: 7,
            ..SearchResult::default()
        };
        let mut message = Message::assistant("né [7] [8] [9, 7]");
        cite(&mut message, &[(7, &result)].into());
        let citations = &message.parts[0].citations;
        let places: Vec<(u32, u32)> = citations.iter().map(|citation| (citation.start, citation.end)).collect();
        assert_eq!(places, [(4, 7), (12, 18)]);
        assert_eq!((citations[0].filename.as_str(), citations[0].page), ("a.md", 3));
        assert!(citations[0].quote.ends_with("words") && citations[0].quote.len() <= MAX_QUOTE_BYTES);
    }

    proptest::proptest! {
        #[test]
        fn any_text_has_marks_that_lie_in_it(text in "[\\[\\]【】†`0-9, aé(]{0,40}") {
            let mut end = 0;
            for mark in marks(&text) {
                proptest::prop_assert!(mark.place.start >= end && text.get(mark.place.clone()).is_some());
                proptest::prop_assert!(!mark.numbers.is_empty());
                end = mark.place.end;
            }
        }
    }
}
