//! Each kind of file, read in this process.

use llama_stack_core::{Code, Result};
use llama_stack_documents::{Block, InProcess, Kind, Limits, Parse as _, Parsed};

use crate::texts;

async fn parse(name: &str, media_type: &str, data: &[u8], text: usize) -> Result<Parsed> {
    InProcess::new(Limits { text, ..Limits::default() }).parse(name, media_type, data.to_vec().into()).await
}

const MOST: usize = 1 << 20;

async fn read(name: &str, data: &[u8]) -> Parsed {
    parse(name, "", data, MOST).await.unwrap()
}

async fn refused(name: &str, media_type: &str, data: &[u8]) -> String {
    let error = parse(name, media_type, data, MOST).await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
    error.reason().unwrap().to_owned()
}

fn lines(parsed: &Parsed) -> Vec<(u32, u32)> {
    parsed.blocks.iter().map(|block| (block.line_start, block.line_end)).collect()
}

#[tokio::test]
async fn text_is_paragraphs_in_any_encoding() {
    let parsed = read("a.txt", "one\r\ntwo\r\n\r\n\r\nGrüße\r\n".as_bytes()).await;
    assert_eq!((texts(&parsed), lines(&parsed)), (vec!["one\ntwo", "Grüße"], vec![(1, 2), (5, 5)]));
    assert_eq!(parsed.media_type, "text/plain");
    let wide: Vec<u8> = [0xff, 0xfe].into_iter().chain("Grüße".encode_utf16().flat_map(u16::to_le_bytes)).collect();
    for data in [wide.as_slice(), b"\xef\xbb\xbfGr\xc3\xbc\xc3\x9fe", b"Gr\xfc\xdfe"] {
        assert_eq!(texts(&read("a.txt", data).await), ["Grüße"]);
    }
    assert_eq!(parse("a.txt", "text/plain; charset=koi8-r", b"\xf0", MOST).await.unwrap().blocks[0].text, "П");
}

#[tokio::test]
async fn markdown_keeps_its_words_lines_and_headings() {
    let text = "---\ntitle: \"A guide\"\n---\n\n# Guide\n\nHello *you*,\nreader.\n\n## Install `it`\n\n- one\n- two\n\n```rust\nfn main() {\n\n}\n```\n\n## Use\n\n| a | b |\n|---|---|\n| 1 | 2 |\n";
    let parsed = read("guide.md", text.as_bytes()).await;
    assert_eq!(parsed.title, "A guide");
    let found: Vec<(&str, Kind, (u32, u32), &str)> = parsed
        .blocks
        .iter()
        .map(|Block { text, kind, line_start, line_end, heading, .. }| (text.as_str(), *kind, (*line_start, *line_end), heading.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            ("# Guide", Kind::Heading, (5, 5), ""),
            ("Hello *you*,\nreader.", Kind::Text, (7, 8), "Guide"),
            ("## Install `it`", Kind::Heading, (10, 10), "Guide"),
            ("- one\n- two", Kind::Text, (12, 13), "Guide > Install it"),
            ("```rust\nfn main() {\n\n}\n```", Kind::Code, (15, 19), "Guide > Install it"),
            ("## Use", Kind::Heading, (21, 21), "Guide"),
            ("| a | b |\n|---|---|\n| 1 | 2 |", Kind::Table, (23, 25), "Guide > Use"),
        ]
    );
}

#[tokio::test]
async fn a_page_reads_as_markdown() {
    let parsed =
        parse("x", "text/plain", b"<!DOCTYPE html><title>T &amp; U</title><h1>Top</h1><p>One <b>two</b>.<script>x()</script>", MOST)
            .await
            .unwrap();
    assert_eq!((parsed.title.as_str(), texts(&parsed)), ("T & U", vec!["# Top", "One two."]));
    assert_eq!((parsed.media_type.as_str(), lines(&parsed), parsed.blocks[1].heading.as_str()), ("text/html", vec![(0, 0), (0, 0)], "Top"));
}

#[tokio::test]
async fn functions_stay_together() {
    let code = "use a;\nuse b;\n\nfn one() {\n    x();\n\n    y();\n}\n\n/// Two.\nfn two() {\n}\n";
    let parsed = read("a.rs", code.as_bytes()).await;
    assert_eq!((texts(&parsed).len(), lines(&parsed)), (3, vec![(1, 2), (4, 8), (10, 12)]));
    assert!(parsed.blocks.iter().all(|block| block.kind == Kind::Code));
    let python = read("a.py", b"def f():\n    return 1\n\n\ntry:\n    f()\n\nexcept E:\n    pass\n").await;
    assert_eq!(lines(&python), [(1, 2), (5, 9)]);
}

#[tokio::test]
async fn rows_name_their_columns() {
    let parsed = read("a.csv", "name;age\nAnn;7\n\"Bob\nB.\";\nCid;9;x\n".as_bytes()).await;
    assert_eq!(texts(&parsed), ["name | age", "name: Ann | age: 7", "name: Bob\nB.", "name: Cid | age: 9 | x"]);
    assert_eq!(lines(&parsed), [(1, 1), (2, 2), (3, 4), (5, 5)]);
    assert_eq!(texts(&read("a.tsv", b"1\t2\n3\t4\n").await), ["1 | 2", "3 | 4"]);
}

#[tokio::test]
async fn json_is_taken_apart_by_its_members() {
    let long = "x".repeat(5_000);
    let text = format!("{{\n  \"a\": 1,\n  \"b\": {{\n    \"c\": [1, 2],\n    \"d\": \"{long}\"\n  }}\n}}");
    let parsed = read("a.json", text.as_bytes()).await;
    assert_eq!(texts(&parsed), ["a: 1", "c: [1, 2]", &format!("d: \"{long}\"")]);
    assert_eq!((lines(&parsed), parsed.blocks[1].heading.as_str()), (vec![(2, 2), (4, 4), (5, 5)], "b"));
    assert_eq!(texts(&read("a.jsonl", b"{\"a\":1}\n\n{\"a\":2}\n").await), ["{\"a\":1}", "{\"a\":2}"]);
    assert_eq!(refused("a.json", "", b"{\"a\": }").await, "malformed_file");
    let error = parse("a.jsonl", "", b"{}\n{\n", MOST).await.unwrap_err();
    assert!(error.message().contains("line 2"), "{error}");
    // Deeper than any stack.
    let deep = format!("{}1{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    assert!(parse("a.json", "", deep.as_bytes(), 8 << 20).await.is_ok_and(|parsed| parsed.blocks.len() == 1));
}

#[tokio::test]
async fn what_the_bytes_say_goes_before_the_name_and_what_was_said() {
    for (name, media_type, data, reason) in [
        ("a.txt", "text/plain", b"\x89PNG\r\n\x1a\n....".as_slice(), "unsupported_media_type"),
        ("a.txt", "text/plain", b"a\0b", "unsupported_media_type"),
        ("a.pdf", "application/pdf", b"\xff\xfe\xfd\xfc\x80\x81", "malformed_file"),
        ("a.docx", "", b"PK\x03\x04 and no more", "malformed_file"),
        ("a.txt", "", b"", "empty_file"),
        ("a.md", "", b" \n\t\n", "empty_file"),
        ("a.pdf", "", b"%PDF-1.7\nnothing", "malformed_file"),
    ] {
        assert_eq!(refused(name, media_type, data).await, reason, "{name}");
    }
    assert_eq!(texts(&read("a.pdf", b"just words").await), ["just words"]);
    assert_eq!(read("README", b"words").await.media_type, "text/plain");
    assert_eq!(parse("README", "text/markdown", b"# A", MOST).await.unwrap().blocks[0].kind, Kind::Heading);
}

#[tokio::test]
async fn a_text_over_its_bound_is_refused() {
    let error = parse("a.txt", "", &b"word \n\n".repeat(1_000), 2_000).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::ResourceExhausted, Some("parser_limits")));
}
