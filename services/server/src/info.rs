//! The `Stack` service: what runs here, and whether it answers.

use std::{sync::Arc, time::Instant};

use futures::future::{self, BoxFuture};

use llama_stack_core::{
    Code, Context, Error, EventStream, Inference, Manifest, Memory, Registry, Result, Safety, Stack, Tools, context::PATIENCE, manifest,
};
use llama_stack_proto::v1::{
    BackupChunk, BackupRequest, EraseRequest, EraseResponse, GetInfoRequest, ListBanksRequest, ListModelsRequest, ListProvidersRequest,
    ListProvidersResponse, ListShieldsRequest, ListToolsRequest, Provider, ProviderStatus, StackInfo,
};

use crate::{backup, erase::Eraser};

/// Asks a provider something cheap.
pub(crate) type Probe = Box<dyn Fn() -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// A kind of service that can be asked whether it answers.
pub(crate) trait Probed: Send + Sync + 'static {
    fn probe(self: Arc<Self>) -> BoxFuture<'static, Result<()>>;
}

macro_rules! probed {
    ($service:ident, $method:ident, $request:expr) => {
        impl Probed for dyn $service {
            fn probe(self: Arc<Self>) -> BoxFuture<'static, Result<()>> {
                Box::pin(async move { self.$method(&Context::system(), $request).await.map(drop) })
            }
        }
    };
}

probed!(Inference, list_models, ListModelsRequest::default());
probed!(Safety, list_shields, ListShieldsRequest::default());
probed!(Memory, list_banks, ListBanksRequest { page_size: 1, without_counts: true, ..ListBanksRequest::default() });
probed!(Tools, list_tools, ListToolsRequest::default());

/// One probe per provider, in order.
pub(crate) fn probes<S: ?Sized + Probed>(providers: Vec<(String, Arc<S>)>) -> Vec<Probe> {
    providers.into_iter().map(|(_, provider)| Box::new(move || provider.clone().probe()) as Probe).collect()
}

pub(crate) struct Running {
    name: String,
    features: Vec<String>,
    started: Instant,
    /// In the manifest's order.
    providers: Vec<(Provider, Probe)>,
    /// All that is kept here.
    kept: Arc<backup::Source>,
    eraser: Arc<Eraser>,
}

impl Running {
    /// `probes` in the order of the manifest's services and providers.
    pub(crate) fn new(manifest: &Manifest, registry: &Registry, probes: Vec<Probe>, kept: Arc<backup::Source>, eraser: Eraser) -> Self {
        let described = manifest.providers.by_api().into_iter().flat_map(|(api, list)| list.iter().map(move |entry| describe(api, entry)));
        let features = registry.inference.types().filter_map(|kind| kind.strip_prefix("inline::")).map(Into::into).collect();
        let (started, providers) = (Instant::now(), described.zip(probes).collect());
        Self { name: manifest.name.clone(), features, started, providers, kept, eraser: Arc::new(eraser) }
    }
}

fn describe(api: &str, entry: &manifest::Provider) -> Provider {
    Provider { id: entry.id.clone(), r#type: entry.kind.clone(), api: api.into(), ..Provider::default() }
}

#[async_trait::async_trait]
impl Stack for Running {
    async fn get_info(&self, _cx: &Context, _request: GetInfoRequest) -> Result<StackInfo> {
        Ok(StackInfo {
            name: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            commit: option_env!("LLAMA_STACK_COMMIT").unwrap_or_default().into(),
            uptime_seconds: self.started.elapsed().as_secs(),
            features: self.features.clone(),
        })
    }

    /// Asks every provider at once, each for at most two seconds.
    async fn list_providers(&self, cx: &Context, request: ListProvidersRequest) -> Result<ListProvidersResponse> {
        let asked: Vec<_> = self
            .providers
            .iter()
            .filter(|(provider, _)| request.api.is_empty() || request.api == provider.api)
            .map(|(provider, probe)| status(provider.clone(), probe()))
            .collect();
        let providers = cx.within(async { Ok(future::join_all(asked).await) }).await?;
        Ok(ListProvidersResponse { providers })
    }

    async fn backup(&self, cx: &Context, _request: BackupRequest) -> Result<EventStream<BackupChunk>> {
        self.kept.clone().take(cx).await
    }

    async fn erase(&self, cx: &Context, request: EraseRequest) -> Result<EraseResponse> {
        // To its end, whether or not its caller waits: half an erasure is none.
        let (eraser, caller) = (self.eraser.clone(), cx.clone());
        let erasing = tokio::spawn(async move { eraser.erase(&caller, request).await });
        cx.within(async { erasing.await.unwrap_or_else(|broken| Err(Error::internal("an erasure broke off").with_source(broken))) }).await
    }
}

async fn status(mut provider: Provider, answer: BoxFuture<'static, Result<()>>) -> Provider {
    let late = |_| Error::new(Code::DeadlineExceeded, format!("no answer within {} s", PATIENCE.as_secs()));
    let failure = match tokio::time::timeout(PATIENCE, answer).await.map_err(late).and_then(|answer| answer) {
        Ok(()) => None,
        // Not having the cheap question is no failure.
        Err(error) if error.code() == Code::Unimplemented => None,
        Err(error) => Some(error),
    };
    provider.set_status(if failure.is_some() { ProviderStatus::Failing } else { ProviderStatus::Ok });
    provider.status_message = failure.map(|error| error.message().to_owned()).unwrap_or_default();
    provider
}
