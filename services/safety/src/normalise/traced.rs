//! Text that knows where each of its characters came from.

use std::ops::Range;

/// A text made from another one, and for each of its characters the bytes of the source that it stands for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traced {
    text: String,
    /// By where a character starts in `text`, ascending: the source's bytes.
    spans: Vec<(usize, Range<usize>)>,
}

impl Traced {
    /// The source itself.
    pub(crate) fn of(source: &str) -> Self {
        let mut traced = Self::with_capacity(source.len());
        for (at, c) in source.char_indices() {
            traced.push(c, at..at + c.len_utf8());
        }
        traced
    }

    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), spans: Vec::with_capacity(bytes) }
    }

    /// `c` stands for these bytes of the source.
    pub(crate) fn push(&mut self, c: char, source: Range<usize>) {
        self.spans.push((self.text.len(), source));
        self.text.push(c);
    }

    /// Every character of `text` stands for all these bytes: what was decoded can't be taken apart.
    pub(crate) fn push_str(&mut self, text: &str, source: &Range<usize>) {
        for c in text.chars() {
            self.push(c, source.clone());
        }
    }

    /// A part of another text of the same source.
    pub(crate) fn push_from(&mut self, other: &Self, range: Range<usize>) {
        for (at, c) in other.text[range.clone()].char_indices() {
            let at = range.start + at;
            self.push(c, other.source(at..at + c.len_utf8()));
        }
    }

    /// This text, whose places are those in `middle`, with the places in `middle`'s source.
    pub(crate) fn over(mut self, middle: &Self) -> Self {
        for (_, source) in &mut self.spans {
            *source = middle.source(source.clone());
        }
        self
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The characters with where they start and what they stand for.
    pub(crate) fn chars(&self) -> impl Iterator<Item = (usize, char, Range<usize>)> + '_ {
        self.text.char_indices().zip(&self.spans).map(|((at, c), (_, source))| (at, c, source.clone()))
    }

    /// The bytes of the source that a range of this text stands for.
    pub(crate) fn source(&self, range: Range<usize>) -> Range<usize> {
        let first = self.spans.partition_point(|(at, _)| *at <= range.start).saturating_sub(1);
        let end = self.spans.partition_point(|(at, _)| *at < range.end);
        let spans = self.spans.get(first..end.max(first)).unwrap_or_default();
        let start = spans.iter().map(|(_, source)| source.start).min();
        let end = spans.iter().map(|(_, source)| source.end).max();
        start.unwrap_or_default()..end.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_leads_back_to_its_source() {
        let source = "a\u{200b}ñ=";
        let whole = Traced::of(source);
        let mut stripped = Traced::default();
        stripped.push_from(&whole, 0..1);
        stripped.push_from(&whole, 4..6);
        stripped.push_str("xyz", &(6..7));
        assert_eq!(stripped.text(), "añxyz");
        assert_eq!(&source[stripped.source(0..3)], "a\u{200b}ñ");
        assert_eq!(stripped.source(4..5), 6..7);
    }
}
