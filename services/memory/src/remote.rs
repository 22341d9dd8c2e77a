//! `remote::grpc`: banks of another process, in any language.

use std::{sync::Arc, time::Duration};

use llama_stack_core::{
    Deps, Memory, Result,
    grpc::{Address, Remote},
};
use llama_stack_proto::v1::memory_client::MemoryClient;
use tonic::transport::Channel;

/// How long a call may take, by default: a document is answered for once its vectors are made.
const USUAL: Duration = Duration::from_secs(600);

/// Connects at the first call and again after a break.
pub(crate) async fn build(address: Address, deps: Deps) -> Result<Arc<dyn Memory>> {
    address.must_pass_identity()?;
    let limit = address.timeout(USUAL)?;
    let remote = Remote::<MemoryClient<Channel>>::new(address.channel()?);
    Ok(Arc::new(remote.showing(address.credential(&deps.provider_id)).limited(limit)))
}
