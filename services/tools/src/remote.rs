//! `remote::grpc`: tools of another process, in any language.

use std::{path::PathBuf, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use llama_stack_core::{
    Code, Context, Deps, Error, Result, Tools,
    context::Secret,
    grpc::{Address, Remote},
};
use llama_stack_egress::{Client, Limits};
use llama_stack_proto::v1::{
    InvokeToolRequest, InvokeToolResponse, ListToolsRequest, ListToolsResponse, part::Content, tools_client::ToolsClient,
};
use serde::Deserialize;
use tonic::transport::{Channel, Uri};
use tower::service_fn;
use url::Url;

use crate::{kept::Kept, timeout};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where it listens, for example `http://127.0.0.1:9000`.
    url: String,
    /// Shown as `authorization: Bearer …`: an API key of the other stack, or a token.
    #[serde(default)]
    api_key: Secret,
    /// A PEM file of authorities whose certificates count beside those that are known everywhere.
    #[serde(default)]
    ca_certificate: PathBuf,
    /// Whether it is told on whose behalf it is called. Default: only where it is shown no key.
    #[serde(default)]
    pass_identity: Option<bool>,
    /// How long a call may take. Default 60.
    #[serde(default = "timeout::default_call")]
    timeout_seconds: f64,
    /// How long listing the tools may take, and how long the list is believed. Defaults 5 and 30.
    #[serde(default = "timeout::default_list")]
    list_timeout_seconds: f64,
    #[serde(default = "timeout::default_list_age")]
    list_age_seconds: f64,
    /// Put in front of its tools' names: those of two servers can then be told apart. Default: nothing.
    #[serde(default)]
    prefix: String,
}

pub(crate) async fn build(config: Config, deps: Deps) -> Result<Arc<dyn Tools>> {
    let mut guarded = None;
    if deps.at_run_time {
        // For who registers it. Each connection is checked again, since a name may lead elsewhere by then.
        let url: Url = config.url.parse().map_err(|error| Error::invalid("config.url", format!("{:?} is no URL: {error}", config.url)))?;
        let guard = Client::new(deps.egress, Limits::default());
        guard.check(&url).await.map_err(|error| error.with_field("config.url"))?;
        if !config.ca_certificate.as_os_str().is_empty() {
            let message = "names a file of this machine; only a provider of the manifest has one";
            return Err(Error::invalid("config.ca_certificate", message));
        }
        guarded = Some((guard, url));
    }
    Ok(Arc::new(RemoteTools::new(config, &deps.provider_id, guarded)?))
}

/// Connects at the first call and again after a break; the list is kept until it is old, or proves to be wrong.
struct RemoteTools {
    remote: Remote<ToolsClient<Channel>>,
    list: Kept<ListToolsResponse>,
    call_limit: Duration,
    prefix: String,
}

impl RemoteTools {
    /// `guarded`: by whom it is connected to, and where.
    fn new(config: Config, id: &str, guarded: Option<(Client, Url)>) -> Result<Self> {
        let list_limit = timeout::seconds(config.list_timeout_seconds);
        let address = Address {
            connect_timeout_seconds: u32::try_from(list_limit.as_secs()).unwrap_or(u32::MAX),
            api_key: config.api_key,
            ca_certificate: config.ca_certificate,
            pass_identity: config.pass_identity,
            ..Address::new(config.url)
        };
        let channel = match guarded {
            Some((guard, url)) => address.endpoint()?.connect_with_connector_lazy(service_fn(move |_: Uri| {
                let (guard, url) = (guard.clone(), url.clone());
                async move { guard.connect(&url).await.map(TokioIo::new) }
            })),
            None => address.channel()?,
        };
        Ok(Self {
            remote: Remote::<ToolsClient<Channel>>::new(channel).showing(address.credential(id)),
            list: Kept::new(list_limit, timeout::seconds(config.list_age_seconds)),
            call_limit: timeout::seconds(config.timeout_seconds),
            prefix: config.prefix,
        })
    }
}

#[async_trait::async_trait]
impl Tools for RemoteTools {
    async fn list_tools(&self, cx: &Context, request: ListToolsRequest) -> Result<ListToolsResponse> {
        // Only the first page of the whole list is kept: what the router asks for, and nearly always all there is.
        let is_whole = request == ListToolsRequest::default();
        let ask = self.remote.list_tools(cx, request);
        let mut listed = if is_whole { self.list.get(ask).await? } else { self.list.limited(ask).await? };
        for definition in listed.tools.iter_mut().filter_map(|tool| tool.definition.as_mut()) {
            definition.name.insert_str(0, &self.prefix);
        }
        Ok(listed)
    }

    async fn invoke_tool(&self, cx: &Context, mut request: InvokeToolRequest) -> Result<InvokeToolResponse> {
        if request.arguments.trim().is_empty() {
            request.arguments = "{}".into();
        }
        let name = request.name;
        let Some(theirs) = name.strip_prefix(&self.prefix) else {
            return Err(Error::not_found(format!("no tool {name:?} there: their names begin with {:?}", self.prefix)));
        };
        request.name = theirs.to_owned();
        let answer = timeout::limited(cx, &name, self.call_limit, self.remote.invoke_tool(cx, request)).await;
        match answer {
            Ok(response) => label(&name, response),
            Err(error) => {
                if matches!(error.code(), Code::NotFound | Code::Unavailable | Code::Unimplemented) {
                    self.list.forget();
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
