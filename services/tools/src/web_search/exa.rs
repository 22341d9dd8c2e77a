//! `remote::exa-search`: Exa's search API, with the beginning of each page as its snippet.
//! Source: <https://docs.exa.ai/reference/search>.

use std::sync::Arc;

use http::HeaderName;
use jiff::{SignedDuration, Timestamp};
use llama_stack_core::{Context, Deps, Error, Result, Tools, ids};
use llama_stack_egress::Request;
use serde::Deserialize;
use serde_json::json;

use super::{Engine, Found, Freshness, MAX_SNIPPET, Query, provider};
use crate::{
    ToolFailure,
    service::{Config, Service},
};

const KEY: HeaderName = HeaderName::from_static("x-api-key");

pub(crate) async fn build(config: Config, deps: Deps) -> Result<Arc<dyn Tools>> {
    Ok(provider(Exa(Service::new("Exa", "https://api.exa.ai", config, deps)?)))
}

struct Exa(Service);

#[derive(Deserialize)]
struct Answer {
    results: Vec<Item>,
}

/// What a page does not have is `null` or not there.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Item {
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    url: String,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    published_date: Option<String>,
}

#[async_trait::async_trait]
impl Engine for Exa {
    async fn search(&self, cx: &Context, query: &Query) -> Result<Vec<Found>, ToolFailure> {
        let contents = json!({ "text": { "maxCharacters": MAX_SNIPPET } });
        let mut body = json!({ "query": query.text, "type": "auto", "numResults": query.count, "contents": contents });
        if let Some(freshness) = query.freshness {
            body["startPublishedDate"] = since(freshness)?.into();
        }
        let request = Request::post_json(self.0.endpoint("search"), &body)?.with_key(KEY, self.0.key(cx)?)?;
        let answer: Answer = self.0.ask(cx, request).await?;
        let found = |item: Item| Found {
            title: item.title.unwrap_or_default(),
            url: item.url,
            snippet: item.text.unwrap_or_default(),
            published: item.published_date,
        };
        Ok(answer.results.into_iter().map(found).collect())
    }
}

/// RFC 3339.
fn since(freshness: Freshness) -> Result<String> {
    let bad = |error: jiff::Error| Error::internal("the system clock is out of range").with_source(error);
    let now = Timestamp::new(ids::now().seconds, 0).map_err(bad)?;
    Ok(now.checked_sub(SignedDuration::from_hours(24 * freshness.days())).map_err(bad)?.to_string())
}
