//! Banks as tools: one for each, which searches it.

use std::collections::HashSet;

use rmcp::model::{CallToolResult, ContentBlock, JsonObject, Tool, ToolAnnotations};
use serde_json::{Value, json};

use llama_stack_core::{Code, Context, Memory, Result};
use llama_stack_proto::v1::{Bank, BankKind, ListBanksRequest, QueryRequest, ScoredChunk, SearchMode};
use llama_stack_tools::mcp::fit_name;

/// A list of tools that is longer serves no model.
const MAX_BANKS: usize = 200;
const DEFAULT_RESULTS: u64 = 5;
const MAX_RESULTS: u64 = 50;
/// Of what is found, together.
const MAX_TOKENS: u32 = 8_000;

/// The caller's banks that can be searched, under the names of their tools, oldest first: `search_` and the bank's own name
/// made to fit, or its id where it has none or the name is taken.
pub(super) async fn named(memory: &dyn Memory, cx: &Context, mut taken: HashSet<String>) -> Result<Vec<(String, Bank)>> {
    let (mut listed, mut request) = (Vec::new(), ListBanksRequest { page_size: 200, without_counts: true, ..ListBanksRequest::default() });
    loop {
        let page = match cx.within(memory.list_banks(cx, request.clone())).await {
            Err(error) if error.code() == Code::Unimplemented => return Ok(Vec::new()),
            page => page?,
        };
        listed.extend(page.banks.into_iter().filter(|bank| bank.kind() != BankKind::KeyValue));
        if page.next_page_token.is_empty() || listed.len() >= MAX_BANKS {
            break;
        }
        request.page_token = page.next_page_token;
    }
    listed.truncate(MAX_BANKS);
    let named = listed.into_iter().map(|bank| {
        let own = Some(bank.name.as_str()).filter(|name| !name.is_empty()).map(|name| fit_name(&format!("search_{name}")));
        let name = own.filter(|name| !taken.contains(name)).unwrap_or_else(|| fit_name(&format!("search_{}", bank.id)));
        taken.insert(name.clone());
        (name, bank)
    });
    Ok(named.collect())
}

pub(super) fn as_tool(name: &str, bank: &Bank) -> Tool {
    let shown = if bank.name.is_empty() { &bank.id } else { &bank.name };
    let description = format!("Searches the documents of {shown:?} for passages that answer a question.");
    let schema = json!({
        "type": "object",
        "properties": {
            "query": { "type": "string", "description": "What to look for, in words that a document would use." },
            "max_results": { "type": "integer", "minimum": 1, "maximum": MAX_RESULTS, "description": "Default 5." },
        },
        "required": ["query"],
        "additionalProperties": false,
    });
    let schema = if let Value::Object(schema) = schema { schema } else { serde_json::Map::new() };
    let mut tool = Tool::new(name.to_owned(), description, schema);
    tool.annotations = Some(ToolAnnotations::new().read_only(true).idempotent(true).open_world(false));
    tool
}

/// Each passage is a block of its own, with where it is from.
pub(super) async fn search(memory: &dyn Memory, cx: &Context, bank: &Bank, arguments: &JsonObject) -> Result<CallToolResult> {
    let query = arguments.get("query").and_then(Value::as_str).map(str::trim).filter(|query| !query.is_empty());
    let Some(query) = query else { return Ok(failed("the search needs an argument: query, a text")) };
    let most = match arguments.get("max_results") {
        None | Some(Value::Null) => DEFAULT_RESULTS,
        Some(given) => match given.as_u64().filter(|most| (1..=MAX_RESULTS).contains(most)) {
            Some(most) => most,
            None => return Ok(failed("max_results must be 1 to 50")),
        },
    };
    let mode = if bank.kind() == BankKind::Keyword { SearchMode::Keyword } else { SearchMode::Hybrid };
    let request = QueryRequest {
        bank_ids: vec![bank.id.clone()],
        text: query.to_owned(),
        mode: mode.into(),
        top_k: u32::try_from(most).unwrap_or_default(),
        max_tokens: MAX_TOKENS,
        ..QueryRequest::default()
    };
    let found = cx.within(memory.query(cx, request)).await?.chunks;
    if found.is_empty() {
        return Ok(CallToolResult::success(vec![ContentBlock::text("no passage was found")]));
    }
    Ok(CallToolResult::success(found.into_iter().map(passage).collect()))
}

fn passage(scored: ScoredChunk) -> ContentBlock {
    let chunk = scored.chunk.unwrap_or_default();
    let name = if chunk.title.is_empty() { chunk.document_id } else { chunk.title };
    let page = chunk.position.filter(|position| position.page > 0).map(|position| format!(", page {}", position.page));
    ContentBlock::text(format!("{name}{}\n{}", page.unwrap_or_default(), chunk.text))
}

fn failed(text: &str) -> CallToolResult {
    CallToolResult::error(vec![ContentBlock::text(text)])
}
