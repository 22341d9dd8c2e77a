//! Pages for models: what they say, as Markdown.
//!
//! From tokens, not from a tree: a page is anybody's, and a tree takes time and stack that grow with how deep and how
//! crookedly it is nested. Here both grow with its length alone.

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use html5ever::{
    TokenizerResult,
    tendril::StrTendril,
    tokenizer::{BufferQueue, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts},
};
use url::Url;

mod page;

use page::Page;

/// Read at once. Between two pieces it is seen whether it is enough.
const PIECE: usize = 16 << 10;
/// For one page. Even tokens can be made to cost: of a tag's attributes, each is compared with all before it.
const PATIENCE: Duration = Duration::from_secs(2);

/// A page.
pub struct Markdown {
    pub title: String,
    pub text: String,
    /// Whether it is all of it.
    pub complete: bool,
}

/// Turns a page into Markdown of about `most` bytes. Links are made absolute by `base`.
pub fn markdown(html: &str, base: Option<Url>, most: usize) -> Markdown {
    let tokenizer = Tokenizer::new(Sink(RefCell::new(Page::new(base, most))), TokenizerOpts::default());
    let (queue, begun, mut rest) = (BufferQueue::default(), Instant::now(), html);
    while !rest.is_empty() && !tokenizer.sink.0.borrow().is_full() && begun.elapsed() < PATIENCE {
        let (piece, after) = rest.split_at(rest.ceil_char_boundary(PIECE));
        rest = after;
        queue.push_back(StrTendril::from_slice(piece));
        while !matches!(tokenizer.feed(&queue), TokenizerResult::Done) {}
    }
    let complete = rest.is_empty() && !tokenizer.sink.0.borrow().is_full();
    tokenizer.end();
    let (title, text) = tokenizer.sink.0.into_inner().finish();
    Markdown { title, text, complete }
}

/// A sentence or two of HTML as plain text.
pub fn text(html: &str) -> String {
    markdown(html, None, usize::MAX).text.split_whitespace().collect::<Vec<_>>().join(" ")
}

struct Sink(RefCell<Page>);

impl TokenSink for Sink {
    type Handle = ();

    fn process_token(&self, token: Token, _line: u64) -> TokenSinkResult<()> {
        match token {
            Token::TagToken(tag) => self.0.borrow_mut().tag(&tag),
            Token::CharacterTokens(text) => {
                self.0.borrow_mut().text(&text);
                TokenSinkResult::Continue
            }
            _ => TokenSinkResult::Continue,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(html: &str) -> String {
        markdown(html, "https://a.example/dir/page".parse().ok(), usize::MAX).text
    }

    #[test]
    fn a_page_reads_as_it_is_written() {
        let html = "<!doctype html><html><head><title> A &amp; B </title><style>p{}</style><script>if (a<b) alert('</p>')</script></head>
            <body><h1>Top</h1><p>One  <b>two</b>
            three.</p><ul><li>first</li><li>second<ol><li>inner<li>other</ol></li></ul><blockquote><p>said</p></blockquote>
            <pre><code>let a = 1;
  let b = &lt;2&gt;;</code></pre><p>Use <code>cargo test</code>, then<br>go.<hr><p>end</body></html>";
        let page = markdown(html, None, usize::MAX);
        assert_eq!(page.title, "A & B");
        assert!(page.complete);
        assert_eq!(
            page.text,
            "# Top\n\nOne two three.\n\n- first\n- second\n  1. inner\n  2. other\n\n> said\n\n```\nlet a = 1;\n  let b = <2>;\n```\n\nUse `cargo test`, then\ngo.\n\n---\n\nend"
        );
    }

    #[test]
    fn links_are_absolute_and_only_to_the_web() {
        assert_eq!(read("see <a href='../x?y=1'>the  <b>docs</b></a>."), "see [the docs](https://a.example/x?y=1).");
        assert_eq!(read("<a href='/card'><h3>Card</h3><p>more</p></a>after"), "### [Card more](https://a.example/card)\n\nafter");
        for href in ["#top", "javascript:alert(1)", "mailto:a@b", "data:text/html,x", "http://["] {
            assert_eq!(read(&format!("<a href=\"{href}\">here</a>")), "here", "{href}");
        }
        assert_eq!(read("<a href=/1>one<a href=/2>two</a>"), "[one](https://a.example/1)[two](https://a.example/2)");
        assert_eq!(read("<img src=/i.png alt='a cat'><img src=x.png>"), "![a cat](https://a.example/i.png)");
    }

    #[test]
    fn a_table_has_rows_and_cells() {
        let html = "<table><tr><th>Name<th>Age</tr><tr><td><p>Ann</p></td><td>7</td></tr></table>";
        assert_eq!(read(html), "Name | Age\n--- | ---\nAnn | 7");
        assert_eq!(read("<table><tr><td>one<td>two<tr><td>three</table>"), "one | two\nthree");
    }

    #[test]
    fn what_is_not_text_is_left_out() {
        assert_eq!(read("a<svg><text>no</text><svg></svg></svg>b<template>no</template>c<select><option>no</select>d"), "abcd");
        assert_eq!(read("<iframe>no</iframe><!-- no -->yes"), "yes");
        assert_eq!(text("The &quot;best&quot; <strong>Rust</strong> &amp; C"), "The \"best\" Rust & C");
        assert_eq!(read("1 < 2 and a <- b"), "1 < 2 and a <- b");
    }

    /// Each of these is slow, or overruns the stack, where a tree is built.
    #[test]
    fn a_hostile_page_comes_to_an_end() {
        for (html, times) in [
            ("<div>", 400_000),
            ("<b><p>", 300_000),
            ("<ul><li>", 200_000),
            ("<blockquote>x", 100_000),
            ("<table><tr><td>", 100_000),
            ("<a href=/>", 100_000),
        ] {
            let page = markdown(&html.repeat(times), "https://a.example/".parse().ok(), 100_000);
            assert!(page.text.len() < 200_000, "{html}");
        }
        let attributes: String = (0..200_000).map(|at| format!(" a{at}")).collect();
        assert_eq!(markdown(&format!("<p{attributes}>"), None, 100).text, "");
    }

    #[test]
    fn a_long_page_is_cut_and_says_so() {
        let page = markdown(&"<p>word word</p>".repeat(100_000), None, 5_000);
        assert!(!page.complete && page.text.len() >= 5_000 && page.text.len() < 100_000);
    }
}
