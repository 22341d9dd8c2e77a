//! Small answers of issuers and authorisation servers, in JSON.

use std::time::Duration;

use llama_stack_core::{Error, Result};
use reqwest::{Client, RequestBuilder, redirect};
use serde_json::Value;

/// How long one of them may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Largest answer.
const BYTES: usize = 1 << 20;

/// # Errors
/// `Internal` where TLS cannot be set up.
pub(crate) fn client() -> Result<Client> {
    let client = Client::builder().timeout(PATIENCE).redirect(redirect::Policy::none()).build();
    client.map_err(|error| Error::internal("an HTTP client could not be set up").with_source(error))
}

/// # Errors
/// `Unavailable`: no answer, another status than 200, too long, or no JSON. `what` says who was asked.
pub(crate) async fn json(request: RequestBuilder, what: &str) -> Result<Value> {
    let failed = |why: String| Error::unavailable(format!("{what} cannot be asked")).with_reason("identity_unavailable").with_source(why);
    // A URL may hold a secret; what failed does not need it.
    let mut response = request.send().await.map_err(|error| failed(error.without_url().to_string()))?;
    if !response.status().is_success() {
        return Err(failed(format!("status {}", response.status())));
    }
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| failed(error.without_url().to_string()))? {
        if body.len() + piece.len() > BYTES {
            return Err(failed(format!("more than {BYTES} bytes")));
        }
        body.extend_from_slice(&piece);
    }
    serde_json::from_slice(&body).map_err(|error| failed(error.to_string()))
}
