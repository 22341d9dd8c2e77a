//! Tokens of a page, written down as they come.

use html5ever::{
    Attribute,
    tokenizer::{Tag, TagKind, TokenSinkResult, states::RawKind},
};
use url::Url;

/// Deeper lists and quotes are written as if they were not.
const MAX_DEPTH: usize = 8;
/// A longer address is not worth its place.
const MAX_URL: usize = 500;
const MAX_ALT: usize = 300;
const MAX_COLUMNS: usize = 64;

#[derive(Default)]
pub(super) struct Page {
    base: Option<Url>,
    most: usize,
    out: String,
    title: Option<String>,
    in_title: bool,
    /// Line ends before the next word.
    gap: usize,
    /// A space before the next word.
    space: bool,
    /// Nothing stands on the line yet but marks.
    fresh: bool,
    /// What the next word's line begins with.
    mark: String,
    /// Lists around this place: the next number, or none for bullets. Only what is shown is counted.
    lists: Vec<Option<u32>>,
    /// Lists beyond those.
    more_lists: usize,
    quotes: usize,
    pre: bool,
    link: Option<Link>,
    /// The element that is left out with all it holds, and how often it is nested in itself.
    skipped: Option<(String, usize)>,
    /// Of the row that is being written.
    cells: usize,
    /// The table has named columns, so it is a table of data, not one that arranges a page.
    columns: bool,
    ruled: bool,
}

struct Link {
    target: Option<String>,
    /// Where its text begins; none yet where it has no text.
    start: Option<usize>,
}

impl Page {
    pub(super) fn new(base: Option<Url>, most: usize) -> Self {
        Self { base, most, fresh: true, ..Self::default() }
    }

    pub(super) fn is_full(&self) -> bool {
        self.out.len() >= self.most
    }

    /// Title and text.
    pub(super) fn finish(mut self) -> (String, String) {
        self.close_link();
        let title = self.title.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        (title, self.out.trim_end().to_owned())
    }

    pub(super) fn text(&mut self, text: &str) {
        if self.skipped.is_some() || self.is_full() {
            return;
        }
        if self.in_title {
            self.title.get_or_insert_default().push_str(text);
        } else if self.pre {
            self.out.push_str(text);
        } else {
            self.space |= text.starts_with(char::is_whitespace);
            for (at, word) in text.split_whitespace().enumerate() {
                self.space |= at > 0;
                self.word(word);
            }
            self.space |= text.ends_with(char::is_whitespace);
        }
    }

    pub(super) fn tag(&mut self, tag: &Tag) -> TokenSinkResult<()> {
        let name: &str = &tag.name;
        let start = tag.kind == TagKind::StartTag;
        if let Some((skipped, depth)) = &mut self.skipped {
            if skipped == name {
                *depth = if start { *depth + usize::from(!tag.self_closing) } else { *depth - 1 };
                if *depth == 0 {
                    self.skipped = None;
                }
            }
        } else if start {
            self.open(name, tag);
        } else {
            self.close(name);
        }
        // What these hold is text to a parser, whatever it looks like.
        match name {
            "script" if start => TokenSinkResult::RawData(RawKind::ScriptData),
            "style" | "iframe" | "noembed" | "noframes" | "xmp" if start => TokenSinkResult::RawData(RawKind::Rawtext),
            "title" | "textarea" if start => TokenSinkResult::RawData(RawKind::Rcdata),
            _ => TokenSinkResult::Continue,
        }
    }

    fn open(&mut self, name: &str, tag: &Tag) {
        match name {
            "script" | "style" | "template" | "svg" | "math" | "canvas" | "object" | "audio" | "video" | "iframe" | "noembed"
            | "noframes" | "select" | "textarea"
                if !tag.self_closing =>
            {
                self.skipped = Some((name.to_owned(), 1));
            }
            "title" => self.in_title = self.title.is_none(),
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => {
                self.part(2);
                let level = usize::from(name.as_bytes()[1] - b'0');
                self.mark = format!("{} ", "#".repeat(level));
            }
            "a" => {
                self.close_link();
                self.link = Some(Link { target: attribute(&tag.attrs, "href").and_then(|href| self.resolve(href)), start: None });
            }
            "img" => self.image(&tag.attrs),
            "br" if self.pre => self.out.push('\n'),
            "br" => self.part(1),
            "hr" => {
                self.part(2);
                self.word("---");
                self.part(2);
            }
            "pre" if !self.pre => {
                self.part(2);
                self.word("```");
                self.out.push('\n');
                self.pre = true;
            }
            "code" if !self.pre => {
                self.word("`");
                self.space = false;
            }
            "ul" | "ol" | "menu" => self.open_list(name == "ol"),
            "li" => self.item(),
            "blockquote" => {
                self.part(2);
                self.quotes += 1;
            }
            "table" => {
                self.part(2);
                (self.cells, self.columns, self.ruled) = (0, false, false);
            }
            "tr" => self.end_row(),
            "td" | "th" => {
                self.columns |= name == "th";
                if self.cells > 0 {
                    self.space = true;
                    self.word("|");
                    self.space = true;
                }
                self.cells += 1;
            }
            _ => self.part(height(name)),
        }
    }

    fn close(&mut self, name: &str) {
        match name {
            "title" => self.in_title = false,
            "a" => self.close_link(),
            "pre" if self.pre => {
                self.pre = false;
                if !self.out.ends_with('\n') {
                    self.out.push('\n');
                }
                self.out.push_str("```");
                self.part(2);
            }
            "code" if !self.pre => {
                // Nothing was in between.
                if self.out.ends_with('`') {
                    self.out.pop();
                } else {
                    self.out.push('`');
                }
            }
            "ul" | "ol" | "menu" => {
                if self.more_lists > 0 {
                    self.more_lists -= 1;
                } else {
                    self.lists.pop();
                }
                self.part(if self.lists.is_empty() { 2 } else { 1 });
            }
            "blockquote" => {
                self.part(2);
                self.quotes = self.quotes.saturating_sub(1);
            }
            "tr" => self.end_row(),
            "table" => {
                self.end_row();
                self.columns = false;
                self.part(2);
            }
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => {
                self.mark.clear();
                self.part(2);
            }
            _ => self.part(height(name)),
        }
    }

    /// At least so many line ends before the next word. Within a cell of data there are none.
    fn part(&mut self, lines: usize) {
        if lines == 0 || self.pre {
            return;
        }
        if self.columns && self.cells > 0 {
            self.space = true;
            return;
        }
        self.gap = self.gap.max(lines);
        self.space = false;
    }

    fn word(&mut self, word: &str) {
        if self.gap > 0 {
            if !self.out.is_empty() {
                self.out.push_str(if self.gap > 1 { "\n\n" } else { "\n" });
            }
            (self.gap, self.fresh) = (0, true);
        }
        if self.fresh {
            self.out.push_str(&"> ".repeat(self.quotes.min(MAX_DEPTH)));
            if self.mark.is_empty() {
                self.out.push_str(&"  ".repeat(self.lists.len()));
            }
            self.out.push_str(&std::mem::take(&mut self.mark));
        } else if self.space {
            self.out.push(' ');
        }
        (self.fresh, self.space) = (false, false);
        if let Some(Link { start: start @ None, .. }) = &mut self.link {
            *start = Some(self.out.len());
        }
        self.out.push_str(word);
    }

    fn open_list(&mut self, numbered: bool) {
        self.part(if self.lists.is_empty() { 2 } else { 1 });
        if self.lists.len() < MAX_DEPTH {
            self.lists.push(numbered.then_some(1));
        } else {
            self.more_lists += 1;
        }
    }

    fn item(&mut self) {
        self.part(1);
        let indent = "  ".repeat(self.lists.len().saturating_sub(1));
        self.mark = match self.lists.last_mut() {
            Some(Some(number)) => {
                *number += 1;
                format!("{indent}{}. ", *number - 1)
            }
            _ => format!("{indent}- "),
        };
    }

    fn end_row(&mut self) {
        let cells = std::mem::take(&mut self.cells);
        self.part(1);
        if cells > 0 && self.columns && !self.ruled {
            self.word(&vec!["---"; cells.min(MAX_COLUMNS)].join(" | "));
            self.ruled = true;
            self.part(1);
        }
    }

    fn close_link(&mut self) {
        let Some(Link { target: Some(target), start: Some(start) }) = self.link.take() else { return };
        if self.pre {
            return;
        }
        let text = self.out.split_off(start);
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        self.out.push_str(&format!("[{text}]({target})"));
    }

    fn image(&mut self, attributes: &[Attribute]) {
        let alt = attribute(attributes, "alt").unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
        if alt.is_empty() || self.pre {
            return;
        }
        let alt: String = alt.chars().take(MAX_ALT).collect();
        let source = attribute(attributes, "src").and_then(|source| self.resolve(source));
        self.word(&source.map_or_else(|| format!("![{alt}]"), |source| format!("![{alt}]({source})")));
    }

    /// Where a link leads, if that is the web.
    fn resolve(&self, reference: &str) -> Option<String> {
        let reference = reference.trim();
        if reference.starts_with('#') || reference.len() > MAX_URL {
            return None;
        }
        let url = Url::options().base_url(self.base.as_ref()).parse(reference).ok()?;
        let text = url.as_str();
        (matches!(url.scheme(), "http" | "https") && text.len() <= MAX_URL).then(|| text.to_owned())
    }
}

fn attribute<'a>(attributes: &'a [Attribute], name: &str) -> Option<&'a str> {
    attributes.iter().find(|attribute| &*attribute.name.local == name).map(|attribute| &*attribute.value)
}

/// How far an element stands from what is around it, in line ends.
fn height(name: &str) -> usize {
    match name {
        "p" | "dl" | "figure" | "article" | "section" => 2,
        "address" | "aside" | "body" | "button" | "caption" | "center" | "dd" | "details" | "div" | "dt" | "fieldset" | "figcaption"
        | "footer" | "form" | "header" | "label" | "legend" | "li" | "main" | "nav" | "search" | "summary" | "tbody" | "thead"
        | "tfoot" => 1,
        _ => 0,
    }
}
