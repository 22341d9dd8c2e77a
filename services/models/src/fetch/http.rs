//! HTTP downloads that go on where they were cut off.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{
    Client, Response, StatusCode,
    header::{ACCEPT_ENCODING, CONTENT_RANGE, ETAG, HeaderMap, IF_RANGE, LAST_MODIFIED, RANGE},
};
use tokio::sync::mpsc;
use url::Url;

use llama_stack_core::{Code, Error, Result, context::Secret};

use super::{Meter, Patience};
use crate::store::{Partial, Remote};

/// Without an answer or a byte for so long, the connection counts as dead.
const SILENCE: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(20);
/// Chunks between the network and the disk.
const QUEUE: usize = 32;

pub(super) fn client() -> reqwest::Result<Client> {
    let agent = concat!("llama-stack/", env!("CARGO_PKG_VERSION"));
    Client::builder().connect_timeout(CONNECT).read_timeout(SILENCE).user_agent(agent).build()
}

/// Whether another attempt may help.
enum Failure {
    Passing(Error),
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

/// Appends the rest of the part. A cut connection is taken up again, as long as each attempt or two brings bytes.
pub(super) async fn fetch(
    client: &Client,
    url: Url,
    token: Option<&Secret>,
    patience: Patience,
    partial: &Partial,
    meter: &Meter,
) -> Result<()> {
    let (mut failures, mut pause) = (0, patience.pause);
    loop {
        let before = partial.len();
        let error = match attempt(client, &url, token, partial, meter).await {
            Ok(()) => return Ok(()),
            Err(Failure::Final(error)) => return Err(error),
            Err(Failure::Passing(error)) => error,
        };
        if partial.len() > before {
            (failures, pause) = (0, patience.pause);
        }
        failures += 1;
        if failures >= patience.attempts {
            return Err(error);
        }
        tracing::debug!(host = url.host_str(), attempt = failures, %error, "download is tried again");
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
}

async fn attempt(client: &Client, url: &Url, token: Option<&Secret>, partial: &Partial, meter: &Meter) -> Result<(), Failure> {
    let (offset, remote) = partial
        .with(|partial| {
            if !partial.may_resume() {
                partial.restart_part()?;
            }
            Ok(partial.part())
        })
        .await?;
    // The bytes as they are stored: a packed answer has other offsets.
    let mut request = client.get(url.clone()).header(ACCEPT_ENCODING, "identity");
    if let Some(token) = token {
        request = request.bearer_auth(token.expose());
    }
    if offset > 0 {
        request = request.header(RANGE, format!("bytes={offset}-"));
        if let Some(validator) = &remote.validator {
            request = request.header(IF_RANGE, validator);
        }
    }
    let response = request.send().await.map_err(|error| Failure::Passing(unreachable(&error)))?;
    let total = match response.status() {
        StatusCode::OK => {
            partial.with(|partial| partial.restart_part()).await?;
            response.content_length()
        }
        StatusCode::PARTIAL_CONTENT => match content_range(response.headers()) {
            Some((start, total)) if start == offset && (remote.total.is_none() || total.is_none() || remote.total == total) => total,
            _ => return Err(afresh(partial, "the server sent another range than it was asked for").await?),
        },
        // All bytes were here before the end was written down; or the file has become shorter.
        StatusCode::RANGE_NOT_SATISFIABLE if complete_length(response.headers()) == Some(offset) => return Ok(()),
        StatusCode::RANGE_NOT_SATISFIABLE => return Err(afresh(partial, "the server has fewer bytes than were fetched").await?),
        status => return Err(refused(status, token.is_some())),
    };
    meter.expect_part(total);
    let remote = Remote { validator: validator(response.headers()).or(remote.validator), total };
    partial.with(move |partial| partial.begin_part(remote)).await?;
    receive(response, partial, meter).await?;
    let (here, _) = partial.with(|partial| Ok(partial.part())).await?;
    match total {
        Some(total) if total != here => Err(Failure::Passing(cut(here, Some(total)))),
        _ => Ok(()),
    }
}

/// The network feeds a bounded queue; a thread that may block hashes and writes.
async fn receive(mut response: Response, partial: &Partial, meter: &Meter) -> Result<(), Failure> {
    let (sender, mut chunks) = mpsc::channel::<Bytes>(QUEUE);
    let alive = meter.alive();
    let written = partial.with(move |partial| {
        while let Some(chunk) = chunks.blocking_recv() {
            partial.append(&chunk)?;
            alive.at(partial.len());
        }
        Ok(())
    });
    let received = async move {
        loop {
            let Some(chunk) = response.chunk().await? else { return Ok::<_, reqwest::Error>(()) };
            if sender.send(chunk).await.is_err() {
                // The writer has failed, and says why itself.
                return Ok(());
            }
        }
    };
    let (written, received) = tokio::join!(written, received);
    written?;
    match received {
        Ok(()) => Ok(()),
        Err(error) => {
            let (here, remote) = partial.with(|partial| Ok(partial.part())).await?;
            Err(Failure::Passing(cut(here, remote.total).with_source(error)))
        }
    }
}

/// The next attempt starts the part again.
async fn afresh(partial: &Partial, what: &str) -> Result<Failure> {
    partial.with(|partial| partial.restart_part()).await?;
    Ok(Failure::Passing(Error::unavailable(what)))
}

fn cut(here: u64, total: Option<u64>) -> Error {
    let of = total.map(|total| format!(" of {total}")).unwrap_or_default();
    Error::unavailable(format!("the connection broke off after {here}{of} bytes; what came is kept")).with_reason("download_cut")
}

fn unreachable(error: &reqwest::Error) -> Error {
    let what = if error.is_timeout() { "the server does not answer in time" } else { "the server cannot be reached" };
    // The innermost cause says what a user can act upon ("connection refused", "unknown host") and holds no URL.
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    Error::unavailable(format!("{what}: {cause}"))
}

fn refused(status: StatusCode, with_token: bool) -> Failure {
    let error = |code, what: &str| Error::new(code, format!("the server answers {}: {what}", status.as_u16()));
    match status {
        StatusCode::NOT_FOUND | StatusCode::GONE => Failure::Final(error(Code::NotFound, "there is no such file")),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if with_token => {
            Failure::Final(error(Code::PermissionDenied, "HF_TOKEN does not open this file"))
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Failure::Final(error(Code::PermissionDenied, "it wants a key (for hf:// in HF_TOKEN), or there is no such repository"))
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Failure::Passing(error(Code::Unavailable, "it is busy")),
        status if status.is_server_error() => Failure::Passing(error(Code::Unavailable, "it is broken or busy")),
        _ => Failure::Final(error(Code::Unavailable, "not a download")),
    }
}

/// What `If-Range` takes (RFC 9110, 13.1.5): a strong ETag, else a date.
fn validator(headers: &HeaderMap) -> Option<String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    text(ETAG).filter(|etag| !etag.starts_with("W/")).or_else(|| text(LAST_MODIFIED)).map(str::to_owned)
}

/// `bytes 100-199/200` → first byte and length; the length may be `*`.
fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let (range, total) = headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()))
}

/// `bytes */200`, with a 416.
fn complete_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_RANGE)?.to_str().ok()?.strip_prefix("bytes */")?.parse().ok()
}
