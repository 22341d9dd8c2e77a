//! `remote::brave-search`: Brave's Web Search API.
//! Source: <https://api-dashboard.search.brave.com/app/documentation/web-search/get-started>.

use std::sync::Arc;

use http::HeaderName;
use llama_stack_core::{Context, Deps, Result, Tools};
use llama_stack_documents::html;
use llama_stack_egress::Request;
use serde::Deserialize;

use super::{Engine, Found, Freshness, Query, provider};
use crate::{
    ToolFailure,
    service::{Config, Service},
};

const KEY: HeaderName = HeaderName::from_static("x-subscription-token");

pub(crate) async fn build(config: Config, deps: Deps) -> Result<Arc<dyn Tools>> {
    Ok(provider(Brave(Service::new("Brave Search", "https://api.search.brave.com", config, deps)?)))
}

struct Brave(Service);

/// The API leaves out what it has nothing to say to.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    web: Web,
}

#[derive(Default, Deserialize)]
struct Web {
    #[serde(default)]
    results: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    title: String,
    #[serde(default)]
    url: String,
    #[serde(default)]
    description: String,
    #[serde(default)]
    page_age: Option<String>,
    #[serde(default)]
    age: Option<String>,
}

#[async_trait::async_trait]
impl Engine for Brave {
    async fn search(&self, cx: &Context, query: &Query) -> Result<Vec<Found>, ToolFailure> {
        let mut url = self.0.endpoint("res/v1/web/search");
        url.query_pairs_mut()
            .append_pair("q", &query.text)
            .append_pair("count", &query.count.to_string())
            .append_pair("result_filter", "web")
            .append_pair("text_decorations", "false");
        if let Some(freshness) = query.freshness {
            let code = match freshness {
                Freshness::Day => "pd",
                Freshness::Week => "pw",
                Freshness::Month => "pm",
                Freshness::Year => "py",
            };
            url.query_pairs_mut().append_pair("freshness", code);
        }
        let request = Request::get(url).with_key(KEY, self.0.key(cx)?)?.with_header("accept", "application/json")?;
        let answer: Answer = self.0.ask(cx, request).await?;
        // Titles and descriptions are HTML.
        let found = |item: Item| Found {
            title: html::text(&item.title),
            url: item.url,
            snippet: html::text(&item.description),
            published: item.page_age.or(item.age),
        };
        Ok(answer.web.results.into_iter().map(found).collect())
    }
}
