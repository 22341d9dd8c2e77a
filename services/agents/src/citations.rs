//! Citations: which passage a part of an answer rests on.
//!
//! Passages that a search found are shown to the model with numbers, and it is asked to write the number of a passage
//! after what it took from there: `[2]`, `[1, 3]` or `【2】`. Such a mark stays in the text, so that the words are the same
//! whether they are streamed or read back; what it stands for is noted beside the text. A mark whose number names no
//! passage is text like any other, as is one within code.
//!
//! Pages that a web search found are cited by their addresses, as a link or alone.

use std::{collections::HashMap, ops::Range};

use llama_stack_proto::v1::{Citation, Message, Part, SearchResult, ToolResult, part::Content};

/// Of what is quoted of a passage: enough to find it again.
const MAX_QUOTE_BYTES: usize = 600;
/// The tool whose results are pages of the web.
const WEB_SEARCH: &str = "web_search";

/// Passages by their numbers.
pub(crate) type Sources<'a> = HashMap<u32, &'a SearchResult>;

/// The passages that a conversation has shown so far. Of two with the same number the later counts: it is the one that
/// the model has read last.
pub(crate) fn sources<'a>(messages: impl IntoIterator<Item = &'a Message>) -> Sources<'a> {
    let results = messages.into_iter().flat_map(Message::tool_results).flat_map(|result| &result.search_results);
    results.filter(|result| result.number != 0).map(|result| (result.number, result)).collect()
}

/// A page that a search of the web has found.
pub(crate) struct Page<'a> {
    /// The URL without a last `/`.
    address: &'a str,
    url: &'a str,
    title: &'a str,
}

/// The pages that a conversation has shown so far, oldest first.
pub(crate) fn pages<'a>(messages: impl IntoIterator<Item = &'a Message>) -> Vec<Page<'a>> {
    let searches = messages.into_iter().flat_map(Message::tool_results).filter(|result| result.name == WEB_SEARCH);
    searches.flat_map(ToolResult::web_pages).map(|(url, title)| Page { address: url.trim_end_matches('/'), url, title }).collect()
}

/// Notes beside each text of an answer what its marks and its links stand for.
pub(crate) fn cite(message: &mut Message, sources: &Sources<'_>, pages: &[Page<'_>]) {
    if sources.is_empty() && pages.is_empty() {
        return;
    }
    for Part { content, citations, .. } in &mut message.parts {
        if let Some(Content::Text(text)) = content {
            *citations = of_text(text, sources, pages);
        }
    }
}

fn of_text(text: &str, sources: &Sources<'_>, pages: &[Page<'_>]) -> Vec<Citation> {
    let mut citations = Vec::new();
    for Mark { place, numbers } in marks(text) {
        let (Ok(start), Ok(end)) = (u32::try_from(place.start), u32::try_from(place.end)) else { break };
        let found = numbers.iter().filter_map(|number| sources.get(number));
        citations.extend(found.map(|source| citation(start, end, source)));
    }
    for (place, page) in links(text, pages) {
        let (Ok(start), Ok(end)) = (u32::try_from(place.start), u32::try_from(place.end)) else { break };
        citations.push(Citation { start, end, url: page.url.to_owned(), title: page.title.to_owned(), ..Citation::default() });
    }
    citations.sort_by_key(|citation| citation.start);
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

/// Where a text names pages: links as a whole, and addresses that stand alone.
fn links<'p, 'a>(text: &str, pages: &'p [Page<'a>]) -> Vec<(Range<usize>, &'p Page<'a>)> {
    let (mut links, mut at) = (Vec::new(), 0);
    if pages.is_empty() {
        return links;
    }
    while let Some(rest) = text.get(at..) {
        let Some(found) = rest.find(['h', '`']) else { break };
        let (start, rest) = (at + found, rest.get(found..).unwrap_or_default());
        if rest.starts_with('`') {
            at = start + code(rest);
            continue;
        }
        let named = pages.iter().filter_map(|page| Some((address(rest, page)?, page)));
        // Of two whose addresses begin alike the longer is meant; of two that are the same, the later search counts.
        match named.max_by_key(|(length, _)| *length) {
            Some((length, page)) => {
                links.push((link(text, start..start + length), page));
                at = start + length;
            }
            None => at = start + 1,
        }
    }
    links
}

/// How long the page's address is, if this text begins with it.
fn address(text: &str, page: &Page<'_>) -> Option<usize> {
    let rest = text.strip_prefix(page.address)?;
    let rest = rest.strip_prefix('/').unwrap_or(rest);
    ends_before(rest).then(|| text.len() - rest.len())
}

/// Whether an address has ended where this text begins.
fn ends_before(text: &str) -> bool {
    let goes_on = |c: char| c.is_alphanumeric() || "/-_~%&=#+@$(".contains(c);
    let mut chars = text.chars();
    match chars.next() {
        None => true,
        // The end of a sentence, unless the address goes on behind it.
        Some('.' | ',' | ';' | ':' | '!' | '?') => !chars.next().is_some_and(goes_on),
        Some(next) => !goes_on(next),
    }
}

/// The whole of `[label](address)`, where the address stands in one.
fn link(text: &str, address: Range<usize>) -> Range<usize> {
    let before = text.get(..address.start).and_then(|before| before.strip_suffix("]("));
    let label = before.and_then(|before| Some((before.rfind('[')?, before)));
    let label = label.filter(|(start, before)| before.get(*start..).is_some_and(|label| !label.contains([']', '\n'])));
    let closed = text.get(address.end..).is_some_and(|after| after.starts_with(')'));
    match label {
        Some((start, _)) if closed => start..address.end + 1,
        _ => address,
    }
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
        cite(&mut message, &[(7, &result)].into(), &[]);
        let citations = &message.parts[0].citations;
        let places: Vec<(u32, u32)> = citations.iter().map(|citation| (citation.start, citation.end)).collect();
        assert_eq!(places, [(4, 7), (12, 18)]);
        assert_eq!((citations[0].filename.as_str(), citations[0].page), ("a.md", 3));
        assert!(citations[0].quote.ends_with("words") && citations[0].quote.len() <= MAX_QUOTE_BYTES);
    }

    /// What a search of the web found.
    fn searched(pages: &[(&str, &str)]) -> Message {
        let call = llama_stack_proto::v1::ToolCall::new("c", WEB_SEARCH, "{}");
        let part = |(n, (title, url)): (usize, &(&str, &str))| Part::text(format!("[{}] {title}\n{url}\nWords.\n\n", n + 1));
        let parts = pages.iter().enumerate().map(part).chain([Part::text("no page")]).collect();
        Message::tool(vec![ToolResult { parts, ..ToolResult::text(&call, "", false) }])
    }

    #[test]
    fn pages_are_cited_by_their_addresses() {
        let shown = [searched(&[("One", "https://a.example/"), ("Two", "https://a.example/b?c=1"), ("Three", "https://b.example/x")])];
        let pages = pages(&shown);
        let cited = |text: &str| {
            let mut message = Message::assistant(text);
            cite(&mut message, &Sources::new(), &pages);
            let of = |citation: &Citation| {
                (text.get(citation.start as usize..citation.end as usize).unwrap().to_owned(), citation.title.clone())
            };
            message.parts[0].citations.iter().map(of).collect::<Vec<_>>()
        };
        let one = |text: &str, title: &str| vec![(text.to_owned(), title.to_owned())];
        assert_eq!(cited("née ([Two](https://a.example/b?c=1))."), one("[Two](https://a.example/b?c=1)", "Two"));
        assert_eq!(cited("See https://a.example, or not"), one("https://a.example", "One"));
        assert_eq!(cited("See https://a.example/."), one("https://a.example/", "One"));
        assert_eq!(cited("[1] https://b.example/x?"), one("https://b.example/x", "Three"));
        assert_eq!(cited("<https://b.example/x>"), one("https://b.example/x", "Three"));
        let other =
            ["https://a.example/c", "https://a.example.org", "https://b.example/x.html", "`https://a.example`", "http://a.example", "h"];
        for other in other {
            assert_eq!(cited(other), [], "{other}");
        }
        assert_eq!(cited("[x] y](https://a.example)"), one("https://a.example", "One"));
    }

    #[test]
    fn only_a_search_of_the_web_finds_pages() {
        let mut message = searched(&[("One", "https://a.example/")]);
        if let Some(Content::ToolResult(result)) = &mut message.parts[0].content {
            result.name = "read".into();
        }
        assert!(pages(&[message]).is_empty());
    }

    proptest::proptest! {
        #[test]
        fn any_text_has_links_that_lie_in_it(text in "[\\[\\]()`h/: .é]{0,20}(https://a\\.example/?)?[\\[\\]()`h/: .é]{0,20}") {
            let shown = [searched(&[("One", "https://a.example/")])];
            for (place, _) in links(&text, &pages(&shown)) {
                proptest::prop_assert!(text.get(place).is_some_and(|link| link.contains("https://a.example")));
            }
        }

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
