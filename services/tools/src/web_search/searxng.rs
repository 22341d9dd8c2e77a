//! `remote::searxng`: a SearXNG of one's own, or a public one that has the JSON format on.
//! Source: <https://docs.searxng.org/dev/search_api.html>.

use std::sync::Arc;

use llama_stack_core::{Context, Deps, Result, Tools};
use llama_stack_egress::Request;
use serde::Deserialize;

use super::{Engine, Found, Freshness, Query, provider};
use crate::{
    ToolFailure,
    service::{Config, Service, failure},
};

pub(crate) async fn build(config: Config, deps: Deps) -> Result<Arc<dyn Tools>> {
    Ok(provider(Searxng(Service::new("SearXNG", "", config, deps)?)))
}

struct Searxng(Service);

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
    content: Option<String>,
    #[serde(default, rename = "publishedDate")]
    published_date: Option<String>,
}

#[async_trait::async_trait]
impl Engine for Searxng {
    async fn search(&self, cx: &Context, query: &Query) -> Result<Vec<Found>, ToolFailure> {
        let mut url = self.0.endpoint("search");
        // It has no parameter for how many.
        url.query_pairs_mut().append_pair("q", &query.text).append_pair("format", "json");
        if let Some(freshness) = query.freshness {
            url.query_pairs_mut().append_pair("time_range", Freshness::name(freshness));
        }
        let mut request = Request::get(url).with_header("accept", "application/json")?;
        // It needs none itself; a proxy before it may.
        if let Ok(key) = self.0.key(cx) {
            request = request.with_bearer(key)?;
        }
        let response = self.0.send(cx, request).await?;
        if response.status == 403 {
            return Err(
                "SearXNG does not answer in JSON (status 403); its operator has to add json to search.formats in its settings.yml".into()
            );
        }
        if !response.is_success() {
            return Err(self.0.refusal(cx, &response));
        }
        let answer: Answer = response.json().map_err(failure)?;
        let found = |item: Item| Found {
            title: item.title,
            url: item.url,
            snippet: item.content.unwrap_or_default(),
            published: item.published_date,
        };
        Ok(answer.results.into_iter().map(found).collect())
    }
}
