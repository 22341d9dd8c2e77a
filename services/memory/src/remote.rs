//! `remote::grpc`: banks of another process, in any language.

use std::{sync::Arc, time::Duration};

use llama_stack_core::{
    Deps, Memory, Result,
    grpc::{Remote, channel},
};
use llama_stack_proto::v1::memory_client::MemoryClient;
use serde::Deserialize;
use tonic::transport::Channel;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Where it listens, for example `http://127.0.0.1:9000`.
    url: String,
    /// How long connecting may take. Default 5.
    #[serde(default = "default_connect_timeout")]
    connect_timeout_seconds: u32,
}

fn default_connect_timeout() -> u32 {
    5
}

/// Connects at the first call and again after a break.
pub(crate) async fn build(config: Config, _deps: Deps) -> Result<Arc<dyn Memory>> {
    let limit = Duration::from_secs(config.connect_timeout_seconds.max(1).into());
    let channel = channel(&config.url, limit).map_err(|error| error.with_field("config.url"))?;
    Ok(Arc::new(Remote::<MemoryClient<Channel>>::new(channel)))
}
