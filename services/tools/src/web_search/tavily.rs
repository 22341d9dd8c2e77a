//! `remote::tavily-search`: Tavily's search API.
//! Source: <https://docs.tavily.com/documentation/api-reference/endpoint/search>.

use std::sync::Arc;

use llama_stack_core::{Context, Deps, Result, Tools};
use llama_stack_egress::Request;
use serde::Deserialize;
use serde_json::json;

use super::{Engine, Found, Freshness, Query, provider};
use crate::{
    ToolFailure,
    service::{Config, Service},
};

pub(crate) async fn build(config: Config, deps: Deps) -> Result<Arc<dyn Tools>> {
    Ok(provider(Tavily(Service::new("Tavily", "https://api.tavily.com", config, deps)?)))
}

struct Tavily(Service);

#[derive(Deserialize)]
struct Answer {
    results: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    title: String,
    #[serde(default)]
    url: String,
    #[serde(default)]
    content: String,
    #[serde(default)]
    published_date: Option<String>,
}

#[async_trait::async_trait]
impl Engine for Tavily {
    async fn search(&self, cx: &Context, query: &Query) -> Result<Vec<Found>, ToolFailure> {
        let mut body = json!({ "query": query.text, "max_results": query.count, "search_depth": "basic" });
        if let Some(freshness) = query.freshness {
            body["time_range"] = Freshness::name(freshness).into();
        }
        let request = Request::post_json(self.0.endpoint("search"), &body)?.with_bearer(self.0.key(cx)?)?;
        let answer: Answer = self.0.ask(cx, request).await?;
        let found = |item: Item| Found { title: item.title, url: item.url, snippet: item.content, published: item.published_date };
        Ok(answer.results.into_iter().map(found).collect())
    }
}
