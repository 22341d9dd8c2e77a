//! Passages: how long they are, where they are cut, and where they say that they stand.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use llama_stack_core::{Code, Context, Inference, Result};
use llama_stack_documents::{Block, CountTokens, Estimate, Kind as BlockKind, Parsed, chunk, contextual, validate, whole_text};
use llama_stack_proto::v1::{
    ChatChoice, ChatRequest, ChatResponse, ChunkingStrategy, ListModelsRequest, ListModelsResponse, Message, chunking_strategy::Kind,
};

/// Each word is a token, so that lengths can be seen.
struct Words;

impl CountTokens for Words {
    fn count(&self, text: &str) -> usize {
        text.split_whitespace().count()
    }
}

fn strategy(kind: Kind, max_chunk_tokens: u32, overlap_tokens: u32) -> ChunkingStrategy {
    ChunkingStrategy { kind: kind.into(), max_chunk_tokens, overlap_tokens }
}

fn block(kind: BlockKind, text: &str, page: u32, line_start: u32, heading: &str) -> Block {
    let line_end = if line_start == 0 { 0 } else { line_start + text.matches('\n').count() as u32 };
    Block { text: text.into(), page, line_start, line_end, heading: heading.into(), kind }
}

fn document(blocks: Vec<Block>) -> Parsed {
    Parsed { blocks, ..Parsed::default() }
}

/// A line for every ten words: `w0 … w9`, `w10 …`.
fn numbered(words: usize) -> String {
    let lines: Vec<String> = (0..words.div_ceil(10))
        .map(|line| (line * 10..words.min(line * 10 + 10)).map(|word| format!("w{word}")).collect::<Vec<_>>().join(" "))
        .collect();
    lines.join("\n")
}

#[test]
fn windows_have_their_length_and_overlap_exactly() {
    let parsed = document(vec![block(BlockKind::Text, &numbered(1_000), 3, 1, "")]);
    let passages = chunk(&parsed, &strategy(Kind::Static, 100, 40), &Words).unwrap();
    // 100, then 60 new words each.
    assert_eq!(passages.len(), 16);
    for (at, passage) in passages.iter().enumerate() {
        let words: Vec<&str> = passage.text.split_whitespace().collect();
        assert_eq!((words.len(), words[0]), (100, format!("w{}", at * 60).as_str()));
        let lines = (passage.position.line_start, passage.position.line_end);
        assert_eq!((lines, passage.position.page), ((at as u32 * 6 + 1, at as u32 * 6 + 10), 3));
    }
    assert!(passages[15].text.ends_with("w999"));
}

#[test]
fn nothing_of_a_text_is_lost_by_any_strategy() {
    let prose = (0..400).map(|at| format!("Sentence {at} says it. ")).collect::<String>();
    let parsed = document(vec![
        block(BlockKind::Heading, "# One", 0, 1, ""),
        block(BlockKind::Text, &prose, 0, 3, "One"),
        block(BlockKind::Code, &"let x = 1;\n".repeat(200), 0, 5, "One"),
        block(BlockKind::Text, &"x".repeat(5_000), 0, 300, "One"),
        block(BlockKind::Text, &"文字が続く文章。".repeat(300), 0, 301, "One"),
    ]);
    for kind in [Kind::Auto, Kind::Static, Kind::Sentence, Kind::Structure, Kind::Contextual] {
        for tokens in [&Words as &dyn CountTokens, &Estimate] {
            let passages = chunk(&parsed, &strategy(kind, 100, 0), tokens).unwrap();
            let said: String = passages.iter().flat_map(|passage| passage.text.split_whitespace()).collect();
            let there: String = parsed.blocks.iter().flat_map(|block| block.text.split_whitespace()).collect();
            assert_eq!(said, there, "{kind:?}");
            for passage in &passages {
                assert!(tokens.count(&passage.text) <= 100, "{kind:?}: {}", tokens.count(&passage.text));
            }
        }
    }
}

#[test]
fn sentences_stay_whole_and_know_their_lines() {
    let text = (0..60).map(|at| format!("This is the sentence number {at} here.")).collect::<Vec<_>>().join("\n");
    let parsed = document(vec![block(BlockKind::Text, &text, 2, 11, "Top > Sub")]);
    let passages = chunk(&parsed, &strategy(Kind::Sentence, 100, 14), &Words).unwrap();
    for passage in &passages {
        assert!(passage.text.starts_with("This is the") && passage.text.ends_with("here."), "{}", passage.text);
        assert_eq!((passage.position.page, passage.position.heading.as_str()), (2, "Top > Sub"));
    }
    // Fourteen sentences of seven words; the last two come again.
    assert_eq!((passages[0].position.line_start, passages[0].position.line_end), (11, 24));
    assert_eq!((passages[1].position.line_start, passages[1].position.line_end), (23, 36));
}

#[test]
fn sections_and_functions_are_not_torn() {
    let words = |count: usize, word: &str| vec![word; count].join(" ");
    let parsed = document(vec![
        block(BlockKind::Heading, "# Guide", 0, 1, ""),
        block(BlockKind::Heading, "## Install", 0, 3, "Guide"),
        block(BlockKind::Text, &words(60, "install"), 0, 5, "Guide > Install"),
        block(BlockKind::Heading, "## Use", 0, 7, "Guide"),
        block(BlockKind::Text, &words(60, "use"), 0, 9, "Guide > Use"),
    ]);
    let passages = chunk(&parsed, &strategy(Kind::Structure, 100, 0), &Words).unwrap();
    let found: Vec<(&str, u32, u32)> = passages
        .iter()
        .map(|passage| (passage.position.heading.as_str(), passage.position.line_start, passage.position.line_end))
        .collect();
    assert_eq!(found.last(), Some(&("Guide > Use", 7, 9)));
    assert!(passages.iter().all(|passage| !(passage.text.contains("install") && passage.text.contains("use"))));

    let function = |name: &str| format!("fn {name}() {{\n{}}}\n", "    step one two three four five;\n".repeat(8));
    let parsed = document((0..4_u32).map(|at| block(BlockKind::Code, &function(&format!("f{at}")), 0, at * 10 + 1, "")).collect());
    let passages = chunk(&parsed, &strategy(Kind::Auto, 120, 0), &Words).unwrap();
    assert_eq!(passages.iter().map(|passage| passage.position.line_start).collect::<Vec<_>>(), [1, 21]);
    assert!(passages[1].text.starts_with("fn f2() {\n    step"));
}

#[test]
fn auto_stays_within_what_the_model_reads() {
    struct Small;
    impl CountTokens for Small {
        fn count(&self, text: &str) -> usize {
            Words.count(text)
        }
        fn window(&self) -> Option<usize> {
            Some(50)
        }
    }
    let parsed = document(vec![block(BlockKind::Text, &numbered(500), 0, 1, "")]);
    let passages = chunk(&parsed, &ChunkingStrategy::default(), &Small).unwrap();
    assert!(passages.iter().all(|passage| Words.count(&passage.text) <= 50) && passages.len() >= 10);
    assert_eq!(chunk(&parsed, &strategy(Kind::Static, 500, 0), &Small).unwrap().len(), 1);
}

#[test]
fn lengths_out_of_range_are_named() {
    for (most, overlap, field) in [
        (99, 0, "chunking.max_chunk_tokens"),
        (4_097, 0, "chunking.max_chunk_tokens"),
        (100, 51, "chunking.overlap_tokens"),
        (0, 401, "chunking.overlap_tokens"),
    ] {
        let error = validate(&strategy(Kind::Static, most, overlap)).unwrap_err();
        assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some(field)));
    }
    let full = validate(&strategy(Kind::Static, 0, 0)).unwrap();
    assert_eq!((full.max_chunk_tokens, full.overlap_tokens), (800, 400));
    let own = validate(&strategy(Kind::Static, 200, 0)).unwrap();
    assert_eq!((own.max_chunk_tokens, own.overlap_tokens), (200, 0));
    assert_eq!(validate(&ChunkingStrategy::default()).unwrap().kind(), Kind::Auto);
    assert!(validate(&ChunkingStrategy { kind: 99, ..ChunkingStrategy::default() }).is_err());
    assert!(chunk(&Parsed::default(), &ChunkingStrategy::default(), &Words).unwrap().is_empty());
}

#[test]
fn an_estimate_is_near_what_tokenizers_say() {
    // 12 words and a full stop; WordPiece has 13.
    assert!((13..=20).contains(&Estimate.count("The quick brown fox jumps over the lazy dog again and again.")));
    assert_eq!(Estimate.count("文字列"), 3);
    assert_eq!(Estimate.count(""), 0);
}

/// Answers with how long its prompt is, and the beginning of the passage in it.
struct Teller;

#[async_trait::async_trait]
impl Inference for Teller {
    async fn list_models(&self, _: &Context, _: ListModelsRequest) -> Result<ListModelsResponse> {
        Ok(ListModelsResponse::default())
    }

    async fn chat(&self, _: &Context, request: ChatRequest) -> Result<ChatResponse> {
        let prompt = request.messages[1].joined_text();
        let passage = prompt.split("<passage>\n").nth(1).unwrap();
        let said = format!("About {}\nof a prompt of {} bytes.", passage.split_whitespace().next().unwrap(), prompt.len() / 1_000 * 1_000);
        let message = Some(Message::assistant(said));
        Ok(ChatResponse { choices: vec![ChatChoice { message, ..ChatChoice::default() }], ..ChatResponse::default() })
    }
}

#[tokio::test]
async fn a_model_says_a_line_about_each_passage_from_a_bounded_prompt() {
    let text = numbered(20_000);
    let parsed = document(vec![block(BlockKind::Text, &text, 0, 1, "")]);
    let passages = chunk(&parsed, &strategy(Kind::Contextual, 100, 0), &Words).unwrap();
    let lines = contextual(&Context::test("acme"), &passages[..20], &text, &Teller, "m").await.unwrap();
    assert_eq!(lines.len(), 20);
    // A line, of the right passage; the prompts do not grow with the document.
    assert_eq!((lines[0].as_str(), lines[7].as_str()), ("About w0 of a prompt of 4000 bytes.", "About w700 of a prompt of 6000 bytes."));
}

/// Says whether it is told what stands around the passage.
struct Looker;

#[async_trait::async_trait]
impl Inference for Looker {
    async fn list_models(&self, _: &Context, _: ListModelsRequest) -> Result<ListModelsResponse> {
        Ok(ListModelsResponse::default())
    }

    async fn chat(&self, _: &Context, request: ChatRequest) -> Result<ChatResponse> {
        let prompt = request.messages[1].joined_text();
        let around = prompt.split("<around>\n").nth(1).and_then(|rest| rest.split("\n</around>").next()).unwrap();
        let passage = prompt.split("<passage>\n").nth(1).and_then(|rest| rest.split("\n</passage>").next()).unwrap();
        let said = if around.len() > passage.len() && around.contains(passage) { "around" } else { "alone" };
        let message = Some(Message::assistant(said));
        Ok(ChatResponse { choices: vec![ChatChoice { message, ..ChatChoice::default() }], ..ChatResponse::default() })
    }
}

#[tokio::test]
async fn a_model_is_told_what_stands_around_a_passage_of_several_blocks() {
    let kinds = [BlockKind::Heading, BlockKind::Text, BlockKind::Table, BlockKind::Table, BlockKind::Code];
    let blocks =
        (0..60_u32).map(|n| block(kinds[n as usize % kinds.len()], &format!("Block {n} has ten words, and a few more."), 0, n + 1, ""));
    let parsed = document(blocks.collect());
    let passages = chunk(&parsed, &strategy(Kind::Contextual, 100, 0), &Words).unwrap();
    assert!(passages.len() > 3 && passages.iter().all(|passage| passage.text.lines().count() > 1));
    let lines = contextual(&Context::test("acme"), &passages, &whole_text(&parsed), &Looker, "m").await.unwrap();
    assert!(lines.iter().all(|line| line == "around"), "{lines:?}");
}
