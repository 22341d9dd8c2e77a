//! `inline::http-fetch`: one page of the web, for a model.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use llama_stack_core::{Context, Deps, Error, Result, Tools};
use llama_stack_egress::{Client, Limits, Request};
use llama_stack_proto::v1::OnInterrupt;
use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use crate::{RustTools, Tool, ToolFailure, service, timeout};

mod answer;
mod charset;

/// Beyond the request's own limit, so that it is the request that says what took so long.
const GRACE: Duration = Duration::from_secs(5);
/// Shown where a call does not say how much.
const DEFAULT_CHARS: usize = 20_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Whether a model may send as well as read. Default false.
    allow_post: bool,
    /// The most that one call may show, whatever it asks for. Default 100,000.
    max_chars: usize,
    /// The most that is read of an answer, unpacked. Default 4 MiB.
    max_bytes: usize,
    /// How long a call may take. Default 30.
    timeout_seconds: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { allow_post: false, max_chars: 100_000, max_bytes: 4 << 20, timeout_seconds: 30.0 }
    }
}

pub(crate) async fn build(config: Config, deps: Deps) -> Result<Arc<dyn Tools>> {
    if config.max_chars == 0 || config.max_bytes == 0 {
        let field = if config.max_chars == 0 { "max_chars" } else { "max_bytes" };
        return Err(Error::invalid(format!("config.{field}"), "must be greater than 0"));
    }
    let total = timeout::seconds(config.timeout_seconds);
    let client = Client::new(deps.egress, Limits { total, max_bytes: config.max_bytes, ..Limits::default() });
    let tool = HttpFetch { client, allow_post: config.allow_post, max_chars: config.max_chars };
    Ok(Arc::new(RustTools::new().with(tool).with_timeout(total + GRACE)))
}

struct HttpFetch {
    client: Client,
    allow_post: bool,
    max_chars: usize,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Args {
    /// An http or https URL.
    url: String,
    /// Default GET. POST only where the operator of this stack allows it.
    #[serde(default)]
    method: Method,
    /// Further request headers, by name.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// What to POST. JSON, unless the header content-type says otherwise.
    #[serde(default)]
    body: Option<String>,
    /// How many characters of the answer to show. Default 20000.
    #[serde(default)]
    max_chars: Option<usize>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum Method {
    #[default]
    Get,
    Head,
    Post,
}

#[async_trait::async_trait]
impl Tool for HttpFetch {
    type Args = Args;
    const NAME: &'static str = "http_fetch";
    const DESCRIPTION: &'static str =
        "Fetches a URL. Web pages come as Markdown, other texts as they are. Says the status, the final URL and the content type.";

    async fn call(&self, cx: &Context, args: Args) -> Result<String, ToolFailure> {
        let request = self.request(cx, &args)?;
        let most = args.max_chars.unwrap_or(DEFAULT_CHARS).clamp(1, self.max_chars);
        let response = self.client.send(cx, request).await.map_err(service::failure)?;
        let good = response.status < 400;
        // A page is turned into Markdown off the threads that serve requests.
        let shown = tokio::task::spawn_blocking(move || answer::show(&response, most)).await;
        let shown = shown.map_err(|error| Error::internal("the page could not be read").with_source(error))?;
        if good { Ok(shown) } else { Err(ToolFailure::Told(shown)) }
    }

    fn on_interrupt(&self) -> OnInterrupt {
        // Which method a call has is not known here.
        if self.allow_post { OnInterrupt::Fail } else { OnInterrupt::Retry }
    }

    /// A URL is a message to whoever serves it.
    fn changes_state(&self) -> bool {
        true
    }

    fn reads_untrusted(&self) -> bool {
        true
    }
}

impl HttpFetch {
    fn request(&self, cx: &Context, args: &Args) -> Result<Request, ToolFailure> {
        let url: Url = args.url.trim().parse().map_err(|error| format!("{:?} is no URL: {error}; it begins with https://", args.url))?;
        let mut request = match (args.method, &args.body) {
            (Method::Post, _) if !self.allow_post => {
                return Err("POST is not allowed here (allow_post in the configuration of http_fetch); GET and HEAD are".into());
            }
            (Method::Post, body) => Request::new(http::Method::POST, url).with_body("application/json", body.clone().unwrap_or_default()),
            (_, Some(_)) => return Err("only a POST has a body".into()),
            (Method::Get, None) => Request::get(url),
            (Method::Head, None) => Request::new(http::Method::HEAD, url),
        };
        let told = |error: Error| ToolFailure::Told(error.message().to_owned());
        request = request.with_header("accept", "text/markdown, text/html;q=0.9, */*;q=0.8").map_err(told)?;
        for (name, value) in &args.headers {
            request = request.with_header(name, value).map_err(told)?;
        }
        // A server that knows the header does it once, however often it is asked. The key goes before what the model wrote.
        if let Some(key) = cx.idempotency_key().filter(|_| args.method == Method::Post) {
            request = request.with_header("idempotency-key", key).map_err(told)?;
        }
        Ok(request)
    }
}
