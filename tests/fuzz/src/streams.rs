//! What models, upstreams and tool servers send.

use std::collections::HashSet;

use bytes::Bytes;
use llama_stack_core::fold::ChatFold;
use llama_stack_inference::fuzz;
use llama_stack_models::tool_calls::{Piece, ToolCallParser};
use llama_stack_proto::v1::ToolDefinition;

/// Where to cut: the first byte says how often, the rest is what is cut.
fn cut(data: &[u8]) -> (&[u8], usize) {
    match data.split_first() {
        Some((size, rest)) => (rest, 1 + usize::from(*size % 16)),
        None => (data, 1),
    }
}

/// A stream reads the same however it is cut.
pub(crate) fn sse(data: &[u8]) {
    let (body, size) = cut(data);
    let whole = fuzz::events([Bytes::copy_from_slice(body)]).expect("a short stream is within all bounds");
    let pieces = fuzz::events(body.chunks(size).map(Bytes::copy_from_slice)).expect("a short stream is within all bounds");
    assert_eq!(whole, pieces);
    assert!(whole.iter().map(|(_, data)| data.len()).sum::<usize>() <= body.len(), "more was read than was sent");
}

/// What an upstream says is an answer, which can be folded, or an error.
pub(crate) fn answers(data: &[u8]) {
    let (body, n) = cut(data);
    let Ok(events) = fuzz::answers(Bytes::copy_from_slice(body), n as u32) else { return };
    let mut fold = ChatFold::default();
    for event in events {
        fold.push(event).expect("events of one answer can be folded");
    }
}

/// Calls and text do not depend on how the text was cut; without tools it passes as it is.
pub(crate) fn tool_calls(data: &[u8]) {
    let (body, size) = cut(data);
    let text = String::from_utf8_lossy(body);
    let tools = ["add", "get_weather", "brave_search", "code_interpreter"];
    let tools = tools.map(|name| ToolDefinition { name: name.into(), ..ToolDefinition::default() });
    let whole = read(&tools, std::iter::once(&*text));
    let characters: Vec<char> = text.chars().collect();
    let pieces: Vec<String> = characters.chunks(size).map(|piece| piece.iter().collect()).collect();
    assert_eq!(whole, read(&tools, pieces.iter().map(String::as_str)));
    let named: HashSet<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
    assert!(whole.iter().all(|piece| !matches!(piece, Piece::Call { name, .. } if !named.contains(name.as_str()))));
    let plain: Vec<Piece> = if text.is_empty() { Vec::new() } else { vec![Piece::Text(text.to_string())] };
    assert_eq!(read(&[], std::iter::once(&*text)), plain);
}

fn read<'a>(tools: &[ToolDefinition], pieces: impl Iterator<Item = &'a str>) -> Vec<Piece> {
    let mut parser = ToolCallParser::new(tools);
    let mut read: Vec<Piece> = pieces.flat_map(|piece| parser.push(piece)).collect();
    read.extend(parser.finish());
    let mut joined: Vec<Piece> = Vec::new();
    for piece in read {
        match (joined.last_mut(), piece) {
            (Some(Piece::Text(before)), Piece::Text(text)) => before.push_str(&text),
            (_, piece) => joined.push(piece),
        }
    }
    joined
}

/// Tools of a server have names that models may write, each its own; a result has at least one part.
pub(crate) fn mcp(data: &[u8]) {
    let read = llama_stack_tools::mcp::fuzz::message(data);
    let mut seen = HashSet::new();
    for tool in &read.tools {
        let name = &tool.definition.as_ref().expect("a tool is defined").name;
        assert!((1..=64).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c)), "{name:?}");
        assert!(seen.insert(name), "{name} is there twice");
    }
    assert!(read.result.is_none_or(|result| !result.parts.is_empty()));
}
