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

#[cfg(test)]
mod tests {
    use llama_stack_core::{Code, Context};
    use llama_stack_proto::v1::ListBanksRequest;

    use super::*;

    #[tokio::test]
    async fn another_process_that_never_answers_is_given_up() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = Address { timeout_seconds: Some(0.05), ..Address::new(format!("http://{}", silent.local_addr().unwrap())) };
        let memory = build(address, Deps::new("unused")).await.unwrap();
        let error = memory.list_banks(&Context::default(), ListBanksRequest::default()).await.unwrap_err();
        assert_eq!((error.code(), error.reason()), (Code::DeadlineExceeded, Some("upstream_timeout")));
    }
}
