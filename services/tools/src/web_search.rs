//! `web_search`: one tool, whoever searches. Each engine is a provider type and a file of its own.

use std::sync::Arc;

use llama_stack_core::{Context, Tools};
use llama_stack_proto::v1::OnInterrupt;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::{RustTools, Tool, ToolFailure};

pub(crate) mod brave;
pub(crate) mod exa;
pub(crate) mod searxng;
pub(crate) mod tavily;

const DEFAULT_COUNT: usize = 5;
const MAX_COUNT: usize = 20;
/// Of a result's text.
const MAX_SNIPPET: usize = 1_000;

/// Who searches.
#[async_trait::async_trait]
trait Engine: Send + Sync + 'static {
    /// The best results first; at most, or about, `query.count`.
    async fn search(&self, cx: &Context, query: &Query) -> Result<Vec<Found>, ToolFailure>;
}

struct Query {
    text: String,
    /// 1 to 20.
    count: usize,
    freshness: Option<Freshness>,
}

/// A result, the same from every engine.
struct Found {
    title: String,
    url: String,
    snippet: String,
    /// A date, as the engine writes it.
    published: Option<String>,
}

impl Found {
    /// A text that a model can cite: number, title, address, date, snippet.
    fn render(&self, number: usize) -> String {
        let line = |text: &str, most: usize| text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(most).collect::<String>();
        let mut text = format!("[{number}] {}\n{}", line(&self.title, 300), self.url.trim());
        if let Some(published) = self.published.as_deref().filter(|published| !published.trim().is_empty()) {
            text.push_str(&format!("\n{}", line(published, 100)));
        }
        let snippet = line(&self.snippet, MAX_SNIPPET);
        if !snippet.is_empty() {
            text.push_str(&format!("\n{snippet}"));
        }
        text
    }
}

/// The tool of an engine, as a provider.
fn provider(engine: impl Engine) -> Arc<dyn Tools> {
    Arc::new(RustTools::new().with(WebSearch(Box::new(engine))))
}

struct WebSearch(Box<dyn Engine>);

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Args {
    /// What to search for.
    query: String,
    /// How many results, 1 to 20. Default 5.
    #[serde(default)]
    #[schemars(range(min = 1, max = 20))]
    count: Option<usize>,
    /// Only what was published within the last day, week, month or year.
    #[serde(default)]
    freshness: Option<Freshness>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Freshness {
    Day,
    Week,
    Month,
    Year,
}

impl Freshness {
    fn name(self) -> &'static str {
        match self {
            Freshness::Day => "day",
            Freshness::Week => "week",
            Freshness::Month => "month",
            Freshness::Year => "year",
        }
    }

    fn days(self) -> i64 {
        match self {
            Freshness::Day => 1,
            Freshness::Week => 7,
            Freshness::Month => 31,
            Freshness::Year => 366,
        }
    }
}

#[async_trait::async_trait]
impl Tool for WebSearch {
    type Args = Args;
    const NAME: &'static str = "web_search";
    const DESCRIPTION: &'static str =
        "Searches the web. Each result has a number, a title, a URL and a snippet; cite results by their URL.";

    async fn call(&self, cx: &Context, args: Args) -> Result<String, ToolFailure> {
        Ok(self.call_parts(cx, args).await?.concat())
    }

    /// One part for each result. Who puts parts together does so without a gap, so each but the last ends with one.
    async fn call_parts(&self, cx: &Context, args: Args) -> Result<Vec<String>, ToolFailure> {
        let text = args.query.trim().to_owned();
        if text.is_empty() {
            return Err("query is empty; say what to search for".into());
        }
        let query = Query { text, count: args.count.unwrap_or(DEFAULT_COUNT).clamp(1, MAX_COUNT), freshness: args.freshness };
        let mut found = self.0.search(cx, &query).await?;
        // Without an address there is nothing to cite.
        found.retain(|found| !found.url.trim().is_empty());
        found.truncate(query.count);
        if found.is_empty() {
            return Ok(vec![format!("no results for {:?}", query.text)]);
        }
        let mut parts: Vec<String> = found.iter().enumerate().map(|(at, found)| found.render(at + 1)).collect();
        let last = parts.len() - 1;
        parts[..last].iter_mut().for_each(|part| part.push_str("\n\n"));
        Ok(parts)
    }

    fn on_interrupt(&self) -> OnInterrupt {
        OnInterrupt::Retry
    }

    fn reads_untrusted(&self) -> bool {
        true
    }
}
