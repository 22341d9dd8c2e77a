//! `remote::grpc`: shields of another process, in any language.

use std::{sync::Arc, time::Duration};

use llama_stack_core::{
    Deps, Result, Safety,
    grpc::{Address, Remote},
};
use llama_stack_proto::v1::safety_client::SafetyClient;
use tonic::transport::Channel;

/// How long a verdict may take, by default.
const USUAL: Duration = Duration::from_secs(30);

/// Connects at the first call and again after a break.
pub(crate) async fn build(address: Address, deps: Deps) -> Result<Arc<dyn Safety>> {
    let limit = address.timeout(USUAL)?;
    let remote = Remote::<SafetyClient<Channel>>::new(address.channel()?);
    Ok(Arc::new(remote.showing(address.credential(&deps.provider_id)).limited(limit)))
}
