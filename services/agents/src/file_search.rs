//! `file_search`: the banks of an agent as a tool that the runtime runs itself, over `Memory.Query`.
//!
//! ```text
//! {query} or {queries} ─> Query, each ─> the best of all, once each ─> as many as there is room for, numbered
//! ```

use std::sync::Arc;

use futures::future::try_join_all;
use llama_stack_core::{Code, Context, Error, Inference, Memory, Result, attributes};
use llama_stack_policy::Facts;
use llama_stack_proto::v1::{
    AgentConfig, FileSearch, GetBankRequest, GetModelRequest, Part, QueryRequest, QueryResponse, ScoredChunk, SearchMode, SearchResult,
    ToolCall, ToolDefinition, ToolResult,
};
use serde_json::Value as Json;
use tracing::Instrument as _;

/// The tool's name.
pub(crate) const NAME: &str = "file_search";
/// The group that policies know it by.
const GROUP: &str = "memory";

const DEFAULT_RESULTS: u32 = 10;
pub(crate) const MAX_RESULTS: u32 = 50;
const MAX_BANKS: usize = 16;
const MAX_QUERIES: usize = 8;
const MAX_QUERY_CHARS: usize = 4_096;
/// Nested conditions of a filter.
const MAX_FILTER_DEPTH: usize = 8;

/// Of the passages that one call shows: a quarter of what the model has room for, within these bounds.
const MIN_TOKENS: u32 = 256;
const MAX_TOKENS: u32 = 16_000;
/// Where the model's room is not known.
const DEFAULT_TOKENS: u32 = 4_000;
/// Prose has about four; counting three leaves a margin.
const BYTES_PER_TOKEN: usize = 3;

const DESCRIPTION: &str =
    "Searches the files of this conversation for passages that answer a question. Use it before answering from memory.";
const PARAMETERS: &str = r#"{"type":"object","properties":{"query":{"type":"string","description":"What to look for, in words that a document would use."},"queries":{"type":"array","items":{"type":"string"},"maxItems":3,"description":"In place of query: several, which are searched at once."}},"required":["query"],"additionalProperties":false}"#;

/// Said after the passages. The marks that it asks for are what `citations` reads. A passage's number stands at its end
/// rather than before it: small models write on what they have read, and so they take the number along.
const CITE: &str = "Answer in a full sentence, and write the number in brackets that stands after the passage at its end.";

/// As the model sees it. `query` is what a model is asked for; one that writes `queries` alone is understood.
pub(crate) fn definition() -> ToolDefinition {
    ToolDefinition::new(NAME, DESCRIPTION, PARAMETERS)
}

/// Documents are others' words, and whose eyes they are for is not known here.
pub(crate) fn facts() -> Facts {
    Facts { name: NAME.into(), group: GROUP.into(), reads_untrusted: true, reads_private: true, changes_state: false, remote: false }
}

/// Whether the agent has the tool.
pub(crate) fn offered(config: &AgentConfig) -> bool {
    config.file_search.is_some()
}

/// What can be said of a configuration without asking anyone.
///
/// # Errors
/// `InvalidArgument`
pub(crate) fn shape(search: &FileSearch) -> Result<()> {
    let wrong = |field: &str, message: String| Err(Error::invalid(format!("config.file_search.{field}"), message));
    if search.bank_ids.is_empty() || search.bank_ids.len() > MAX_BANKS {
        return wrong("bank_ids", format!("file_search needs 1 to {MAX_BANKS} banks, not {}", search.bank_ids.len()));
    }
    if search.max_results > MAX_RESULTS {
        return wrong("max_results", format!("max_results must be 1 to {MAX_RESULTS}, not {}", search.max_results));
    }
    if search.score_threshold.is_some_and(|score| !score.is_finite()) {
        return wrong("score_threshold", "score_threshold must be a number".into());
    }
    let ranker = search.ranker.clone().unwrap_or_default();
    if ranker.vector_weight.is_some_and(|weight| !(0.0..=1.0).contains(&weight)) {
        return wrong("ranker.vector_weight", "vector_weight must be 0 to 1".into());
    }
    match &search.filter {
        Some(filter) if depth(filter) > MAX_FILTER_DEPTH => {
            wrong("filter", format!("a filter has at most {MAX_FILTER_DEPTH} levels of conditions"))
        }
        _ => Ok(()),
    }
}

fn depth(filter: &llama_stack_proto::v1::Filter) -> usize {
    use llama_stack_proto::v1::filter::Filter;
    match &filter.filter {
        Some(Filter::All(filters) | Filter::Any(filters)) => 1 + filters.filters.iter().map(depth).max().unwrap_or(0),
        Some(Filter::Comparison(_)) | None => 1,
    }
}

/// Every bank must be there, for this caller.
///
/// # Errors
/// `NotFound` · `FailedPrecondition` in a stack without memory.
pub(crate) async fn check(memory: Option<&dyn Memory>, cx: &Context, search: &FileSearch) -> Result<()> {
    for (index, id) in search.bank_ids.iter().enumerate() {
        let field = format!("config.file_search.bank_ids[{index}]");
        let Some(memory) = memory else {
            let message = format!("bank {id:?} cannot be searched: this stack has no memory");
            return Err(Error::failed_precondition(message).with_reason("no_memory").with_field(field));
        };
        memory.get_bank(cx, GetBankRequest::uncounted(id.as_str())).await.map_err(|error| error.with_field(field))?;
    }
    Ok(())
}

/// What a call asks for.
///
/// # Errors
/// What to tell the model.
pub(crate) fn queries(arguments: &str) -> Result<Vec<String>, String> {
    let wrong = |why: &str| format!("the arguments of {NAME} do not fit: {why}; write {{\"query\": \"what to look for\"}}");
    let arguments: Json = serde_json::from_str(arguments).map_err(|error| wrong(&format!("they are not valid JSON ({error})")))?;
    let text = |value: &Json| value.as_str().map(str::to_owned).ok_or_else(|| wrong("a query is a text"));
    let mut asked = Vec::new();
    for key in ["query", "queries"] {
        match arguments.get(key) {
            None | Some(Json::Null) => {}
            Some(Json::Array(list)) => asked.extend(list.iter().map(text).collect::<Result<Vec<_>, _>>()?),
            Some(one) => asked.push(text(one)?),
        }
    }
    let mut queries: Vec<String> = Vec::new();
    for query in asked {
        let query = query.trim();
        if !query.is_empty() && !queries.iter().any(|other| other == query) {
            queries.push(query.to_owned());
        }
    }
    if queries.is_empty() {
        return Err(wrong("there is no query"));
    }
    if queries.len() > MAX_QUERIES || queries.iter().any(|query| query.chars().count() > MAX_QUERY_CHARS) {
        return Err(wrong(&format!("at most {MAX_QUERIES} queries of {MAX_QUERY_CHARS} characters each")));
    }
    Ok(queries)
}

/// One call: where it searches, and how its passages are numbered.
pub(crate) struct Search {
    pub(crate) memory: Option<Arc<dyn Memory>>,
    pub(crate) inference: Arc<dyn Inference>,
    pub(crate) config: FileSearch,
    /// The model that will read the passages.
    pub(crate) model: String,
    /// The number of the first passage.
    pub(crate) first: u32,
}

impl Search {
    /// How many numbers a call may take.
    pub(crate) fn most(config: &FileSearch) -> u32 {
        if config.max_results == 0 { DEFAULT_RESULTS } else { config.max_results.min(MAX_RESULTS) }
    }

    /// Searches. What goes wrong is told to the model: it always gets a result.
    pub(crate) async fn run(self, cx: Context, call: ToolCall) -> ToolResult {
        let span = tracing::info_span!(
            "execute_tool",
            otel.name = format!("execute_tool {NAME}"),
            gen_ai.operation.name = "execute_tool",
            gen_ai.tool.name = NAME,
            gen_ai.tool.call.id = call.id,
        );
        let queries = match queries(&call.arguments) {
            Ok(queries) => queries,
            Err(why) => return ToolResult::text(&call, why, true),
        };
        match self.found(&cx, &queries).instrument(span).await {
            Ok(found) => told(&call, &queries, found),
            Err(error) => {
                tracing::warn!(error = ?error, "a search of files failed");
                let why = match error.code() {
                    Code::Internal | Code::DataLoss => "the search failed".to_owned(),
                    _ => format!("the search could not be made: {}", error.message()),
                };
                ToolResult::text(&call, why, true)
            }
        }
    }

    async fn found(&self, cx: &Context, queries: &[String]) -> Result<Vec<SearchResult>> {
        let memory = self.memory.as_ref().ok_or_else(|| Error::failed_precondition("this stack has no memory"))?;
        let room = self.room(cx).await;
        let answers = try_join_all(queries.iter().map(|query| self.ask(memory.as_ref(), cx, self.request(query, room)))).await?;
        let chunks = QueryResponse::merged(answers, Self::most(&self.config) as usize);
        Ok(numbered(chunks, self.first, room as usize * BYTES_PER_TOKEN))
    }

    /// By meaning and by words where nothing else is said and the banks can; a threshold is one of the mode that it was set for.
    async fn ask(&self, memory: &dyn Memory, cx: &Context, request: QueryRequest) -> Result<QueryResponse> {
        if request.mode() != SearchMode::Unspecified || request.score_threshold.is_some() {
            return memory.query(cx, request).await;
        }
        let both = QueryRequest { mode: SearchMode::Hybrid.into(), ..request.clone() };
        match memory.query(cx, both).await {
            Err(error) if error.field() == Some("mode") || error.reason() == Some("no_embedding_model") => memory.query(cx, request).await,
            answer => answer,
        }
    }

    fn request(&self, query: &str, room: u32) -> QueryRequest {
        QueryRequest {
            bank_ids: self.config.bank_ids.clone(),
            text: query.to_owned(),
            mode: self.config.mode,
            filter: self.config.filter.clone(),
            top_k: Self::most(&self.config),
            score_threshold: self.config.score_threshold,
            ranker: self.config.ranker.clone(),
            rewrite_model: if self.config.rewrite_query { self.model.clone() } else { String::new() },
            max_tokens: room,
            ..QueryRequest::default()
        }
    }

    /// Tokens that the passages may have.
    async fn room(&self, cx: &Context) -> u32 {
        let model = self.inference.get_model(cx, GetModelRequest { id: self.model.clone() }).await;
        match model.map_or(0, |model| model.context_length) {
            0 => DEFAULT_TOKENS,
            context => (context / 4).clamp(MIN_TOKENS, MAX_TOKENS),
        }
    }
}

/// As many as fit into `bytes`; the first in any case, cut where it is too long.
fn numbered(chunks: Vec<ScoredChunk>, first: u32, bytes: usize) -> Vec<SearchResult> {
    let (mut results, mut left) = (Vec::new(), bytes);
    for (scored, number) in chunks.into_iter().zip(first..) {
        let Some(chunk) = scored.chunk else { continue };
        let mut text = chunk.text;
        if text.len() > left {
            if !results.is_empty() {
                break;
            }
            text.truncate(text.floor_char_boundary(left));
        }
        left -= text.len();
        let attributes = attributes::to_json(&chunk.attributes);
        results.push(SearchResult {
            bank_id: scored.bank_id,
            filename: if chunk.title.is_empty() { chunk.document_id.clone() } else { chunk.title },
            document_id: chunk.document_id,
            file_id: chunk.file_id,
            score: scored.score,
            text,
            attributes: if attributes.is_empty() { String::new() } else { Json::Object(attributes).to_string() },
            page: chunk.position.map_or(0, |position| position.page),
            chunk_id: chunk.id,
            number,
        });
    }
    results
}

/// What the model reads: each passage in a part of its own, which says where it is from.
fn told(call: &ToolCall, queries: &[String], found: Vec<SearchResult>) -> ToolResult {
    let own = |text: String| Part::text(text).with_provenance(format!("tool:{NAME}"));
    let asked = queries.iter().map(|query| format!("{query:?}")).collect::<Vec<_>>().join(", ");
    if found.is_empty() {
        return ToolResult::text(call, format!("no passage was found for {asked}"), false);
    }
    let mut parts = vec![own(format!("Passages found for {asked}:\n\n"))];
    parts.extend(found.iter().map(|result| {
        let page = if result.page == 0 { String::new() } else { format!(", page {}", result.page) };
        let name = result.filename.replace(char::is_control, " ");
        let text = format!("{name}{page}:\n{} [{}]\n\n", result.text.trim_end(), result.number);
        Part::text(text).with_provenance(format!("retrieved:{}/{}", result.bank_id, result.document_id))
    }));
    parts.push(own(CITE.into()));
    ToolResult { call_id: call.id.clone(), name: call.name.clone(), parts, is_error: false, search_results: found }
}

#[cfg(test)]
mod tests {
    use llama_stack_proto::v1::Chunk;

    use super::*;

    fn scored(id: &str, score: f32, text: &str) -> ScoredChunk {
        let chunk = Chunk { id: id.into(), document_id: format!("doc-{id}"), text: text.into(), ..Chunk::default() };
        ScoredChunk { chunk: Some(chunk), bank_id: "b".into(), score }
    }

    #[test]
    fn queries_come_in_every_form_and_what_is_wrong_is_said() {
        assert_eq!(queries(r#"{"query":" a "}"#).unwrap(), ["a"]);
        assert_eq!(queries(r#"{"queries":["a","b","a",""]}"#).unwrap(), ["a", "b"]);
        assert_eq!(queries(r#"{"query":"a","queries":["b"]}"#).unwrap(), ["a", "b"]);
        for wrong in [
            "",
            "{}",
            "[]",
            r#"{"query":""}"#,
            r#"{"query":5}"#,
            r#"{"queries":[5]}"#,
            r#"{"queries":["1","2","3","4","5","6","7","8","9"]}"#,
        ] {
            assert!(queries(wrong).unwrap_err().contains("\"query\""), "{wrong}");
        }
    }

    #[test]
    fn passages_are_numbered_and_end_where_the_room_does() {
        let found = || vec![scored("a", 0.9, "four"), scored("b", 0.8, "seven!!"), scored("c", 0.7, "x")];
        let numbers = |bytes| numbered(found(), 11, bytes).into_iter().map(|result| (result.number, result.text)).collect::<Vec<_>>();
        assert_eq!(numbers(11), [(11, "four".into()), (12, "seven!!".into())]);
        assert_eq!(numbers(10), [(11, "four".into())]);
        assert_eq!(numbers(3), [(11, "fou".into())]);
    }

    #[test]
    fn each_passage_says_where_it_is_from() {
        let call = ToolCall::new("c", NAME, "{}");
        let result = told(&call, &["q".into()], numbered(vec![scored("a", 0.9, "words")], 1, 100));
        assert_eq!(result.parts[1].provenance, "retrieved:b/doc-a");
        assert_eq!(result.joined_text(), format!("Passages found for \"q\":\n\ndoc-a:\nwords [1]\n\n{CITE}"));
        assert_eq!(told(&call, &["q".into()], Vec::new()).joined_text(), "no passage was found for \"q\"");
    }
}
