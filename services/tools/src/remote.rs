//! `remote::grpc`: tools of another process, in any language.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, Instant},
};

use llama_stack_core::{
    Code, Context, Deps, Error, Result, Tools,
    grpc::{Remote, provider_channel},
};
use llama_stack_proto::v1::{
    InvokeToolRequest, InvokeToolResponse, ListToolsRequest, ListToolsResponse, part::Content, tools_client::ToolsClient,
};
use serde::Deserialize;
use tonic::transport::Channel;

use crate::timeout;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where it listens, for example `http://127.0.0.1:9000`.
    url: String,
    /// How long a call may take. Default 60.
    #[serde(default = "default_timeout")]
    timeout_seconds: f64,
    /// How long listing the tools may take, and how long the list is believed. Defaults 5 and 30.
    #[serde(default = "default_list_timeout")]
    list_timeout_seconds: f64,
    #[serde(default = "default_list_age")]
    list_age_seconds: f64,
}

fn default_timeout() -> f64 {
    60.0
}

fn default_list_timeout() -> f64 {
    5.0
}

fn default_list_age() -> f64 {
    30.0
}

pub(crate) async fn build(config: Config, _deps: Deps) -> Result<Arc<dyn Tools>> {
    Ok(Arc::new(RemoteTools::new(config)?))
}

/// Connects at the first call and again after a break; the list is kept until it is old, or proves to be wrong.
struct RemoteTools {
    remote: Remote<ToolsClient<Channel>>,
    list: RwLock<Option<(Instant, Listed)>>,
    call_limit: Duration,
    list_limit: Duration,
    list_age: Duration,
}

/// What the last attempt to list the tools came to.
#[derive(Clone)]
enum Listed {
    Tools(ListToolsResponse),
    /// It took long and failed: for a while nobody waits for that again.
    Hung,
}

impl RemoteTools {
    fn new(config: Config) -> Result<Self> {
        let list_limit = timeout::seconds(config.list_timeout_seconds);
        Ok(Self {
            remote: Remote::<ToolsClient<Channel>>::new(provider_channel(&config.url, list_limit)?),
            list: RwLock::default(),
            call_limit: timeout::seconds(config.timeout_seconds),
            list_limit,
            list_age: timeout::seconds(config.list_age_seconds),
        })
    }

    fn kept(&self) -> Option<Listed> {
        let list = self.list.read().unwrap_or_else(PoisonError::into_inner);
        list.as_ref().filter(|(since, _)| since.elapsed() < self.list_age).map(|(_, list)| list.clone())
    }

    fn keep(&self, list: Option<Listed>) {
        *self.list.write().unwrap_or_else(PoisonError::into_inner) = list.map(|list| (Instant::now(), list));
    }

    async fn ask(&self, cx: &Context, request: ListToolsRequest) -> Result<ListToolsResponse> {
        match tokio::time::timeout(self.list_limit, self.remote.list_tools(cx, request)).await {
            Ok(answer) => answer,
            Err(_) => Err(hung()),
        }
    }
}

fn hung() -> Error {
    Error::unavailable("the provider did not list its tools in time").with_reason("upstream_timeout")
}

#[async_trait::async_trait]
impl Tools for RemoteTools {
    async fn list_tools(&self, cx: &Context, request: ListToolsRequest) -> Result<ListToolsResponse> {
        // Only the first page of the whole list is kept: what the router asks for, and nearly always all there is.
        if request != ListToolsRequest::default() {
            return self.ask(cx, request).await;
        }
        match self.kept() {
            Some(Listed::Tools(list)) => return Ok(list),
            Some(Listed::Hung) => return Err(hung()),
            None => {}
        }
        let asked = Instant::now();
        let answer = self.ask(cx, request).await;
        match &answer {
            Ok(list) => self.keep(Some(Listed::Tools(list.clone()))),
            Err(_) if asked.elapsed() >= self.list_limit / 2 => self.keep(Some(Listed::Hung)),
            Err(_) => self.keep(None),
        }
        answer
    }

    async fn invoke_tool(&self, cx: &Context, mut request: InvokeToolRequest) -> Result<InvokeToolResponse> {
        if request.arguments.trim().is_empty() {
            request.arguments = "{}".into();
        }
        let name = request.name.clone();
        let answer = timeout::limited(cx, &name, self.call_limit, self.remote.invoke_tool(cx, request)).await;
        match answer {
            Ok(response) => label(&name, response),
            Err(error) => {
                if matches!(error.code(), Code::NotFound | Code::Unavailable | Code::Unimplemented) {
                    self.keep(None);
                }
                Err(error)
            }
        }
    }
}

/// Another process does not say where its text comes from: it comes from this tool.
fn label(tool: &str, mut response: InvokeToolResponse) -> Result<InvokeToolResponse> {
    for part in &mut response.parts {
        if !matches!(part.content, Some(Content::Text(_) | Content::Image(_))) {
            return Err(Error::internal(format!("the provider of {tool} answered with something that is neither text nor image")));
        }
        part.provenance = format!("tool:{tool}");
    }
    Ok(response)
}
