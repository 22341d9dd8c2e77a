//! Contents in a bucket of S3, or of what speaks as S3 does: `<prefix>/<two digits>/<64 digits>.<file>`.
//!
//! A bucket has no lock, so a name is used once: it ends with the id of the file that brought the content. Whether an equal
//! content is there to be shared, and whether a content is nobody's any more, transactions of the store decide.

use std::{collections::HashSet, error::Error as _, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _, future};
use llama_stack_core::{Code, Error, EventStream, Result, ids, manifest};
use llama_stack_proto::v1::File;
use llama_stack_store::{PartedUpload, Store};
use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt as _, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    client::{HttpError, HttpErrorKind},
    multipart::MultipartStore as _,
    path::Path,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    blobs::Draft,
    contents::{Contents, name},
    service::blocking,
};

/// What is sent at once. A content that is not larger is sent in one request; S3 takes parts from 5 MiB, 10,000 of them.
const PART: usize = 8 << 20;
const CONNECT: Duration = Duration::from_secs(5);
/// Idempotent requests only, and not after twice the time that the service may say nothing.
const RETRIES: usize = 3;
/// A content without a row may be one whose row is being written, and an upload in parts may be slow: whoever brought it is gone
/// when it, or its last part, is older than this.
const ORPHAN_AFTER_SECONDS: i64 = 3_600;
/// Names that are compared with the rows at a time.
const PAGE: usize = 1_000;

pub(crate) struct Bucket {
    store: Store,
    bucket: Arc<AmazonS3>,
    prefix: String,
    tasks: TaskTracker,
}

impl Bucket {
    /// # Errors
    /// `FailedPrecondition` there is no such bucket, or it is not for these credentials. One that does not answer now may
    /// do so later.
    pub(crate) async fn open(config: &manifest::S3, store: Store, tasks: TaskTracker) -> Result<Self> {
        let timeout = Duration::from_secs(config.timeout_seconds);
        // No limit of the whole: that of a large content is not known.
        let client = ClientOptions::new()
            .with_allow_http(config.allow_http)
            .with_connect_timeout(CONNECT.min(timeout))
            .with_read_timeout(timeout)
            .with_timeout_disabled();
        let retry = RetryConfig { backoff: BackoffConfig::default(), max_retries: RETRIES, retry_timeout: timeout * 2 };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(&config.bucket)
            .with_client_options(client)
            .with_retry(retry)
            .with_disable_bulk_delete(true);
        if let Some(region) = &config.region {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &config.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/')).with_virtual_hosted_style_request(false);
        }
        if let (Some(id), Some(secret)) = (&config.access_key_id, &config.secret_access_key) {
            builder = builder.with_access_key_id(id).with_secret_access_key(secret.expose());
        }
        let unusable =
            |error| Error::failed_precondition("files.s3 cannot be used as it is").with_reason("storage_config").with_source(error);
        let bucket = Arc::new(builder.build().map_err(unusable)?);
        let prefix = config.prefix.trim_matches('/').to_owned();
        let bucket = Self { store, bucket, prefix, tasks };
        bucket.check(&config.bucket).await?;
        Ok(bucket)
    }

    async fn check(&self, name: &str) -> Result<()> {
        let Err(error) = self.bucket.list(Some(&self.root())).try_next().await else { return Ok(()) };
        // The client tells what a list was refused for by the service's words alone.
        let said = error.to_string();
        let message = if said.contains("NoSuchBucket") {
            format!("there is no bucket {name:?} for files")
        } else if ["401 Unauthorized", "403 Forbidden"].iter().any(|status| said.contains(status)) {
            format!("the bucket {name:?} for files is not for these credentials")
        } else {
            tracing::warn!(bucket = name, error = ?error, "the bucket for files does not answer yet");
            return Ok(());
        };
        Err(Error::failed_precondition(message).with_reason("storage_config").with_source(error))
    }

    fn root(&self) -> Path {
        Path::from(self.prefix.as_str())
    }

    fn key(&self, blob: &str) -> Path {
        Path::from(format!("{}/{}/{blob}", self.prefix, blob.get(..2).unwrap_or("00")))
    }

    /// In one request, or in parts. Who stops waiting for it ends it, and nothing is left of it.
    async fn upload(&self, blob: &str, draft: Draft) -> Result<()> {
        let given_up = CancellationToken::new();
        let _waits = given_up.clone().drop_guard();
        let (store, bucket, tasks) = (self.store.clone(), self.bucket.clone(), self.tasks.clone());
        let place = Place { store, bucket, key: self.key(blob), blob: blob.to_owned(), tasks };
        let sent = self.tasks.spawn(async move {
            let ended = given_up.run_until_cancelled(place.send(draft)).await;
            if ended.is_none() {
                remove(&place.bucket, &place.key).await;
            }
            ended.unwrap_or_else(|| Err(Error::new(Code::Cancelled, "the upload was given up")))
        });
        sent.await.unwrap_or_else(|broken| Err(Error::internal("an upload broke off").with_source(broken)))
    }

    /// Those of a page of names that are old and no file's.
    async fn orphans(&self, page: &[(String, i64)]) -> Result<Vec<String>> {
        let names = page.iter().map(|(blob, _)| blob);
        let (Some(first), Some(last)) = (names.clone().min(), names.max()) else { return Ok(Vec::new()) };
        let used: HashSet<String> = self.store.file_blobs(first, &format!("{last}~")).await?.into_iter().collect();
        let before = ids::now().seconds - ORPHAN_AFTER_SECONDS;
        let orphans = page.iter().filter(|(blob, written)| *written < before && !used.contains(blob));
        Ok(orphans.map(|(blob, _)| blob.clone()).collect())
    }
}

#[async_trait]
impl Contents for Bucket {
    async fn keep(&self, tenant: &str, file: &File, draft: Draft, most: u64) -> Result<()> {
        let content = name(tenant, &file.sha256);
        if self.store.share_file(tenant, file, &content, most).await? {
            return Ok(());
        }
        let blob = format!("{content}.{}", file.id);
        self.upload(&blob, draft).await?;
        let kept = self.store.keep_file(tenant, file, &blob, most).await;
        // A row that may be there after all keeps its content: the next start knows.
        if kept.as_ref().is_err_and(|error| error.code() == Code::ResourceExhausted) {
            remove(&self.bucket, &self.key(&blob)).await;
        }
        kept
    }

    async fn read(&self, blob: &str) -> Result<EventStream<Bytes>> {
        let found = self.bucket.get(&self.key(blob)).await.map_err(failed)?;
        Ok(Box::pin(found.into_stream().map_err(failed)))
    }

    async fn delete(&self, tenant: &str, id: &str, blob: &str) -> Result<()> {
        if !self.store.release_file(tenant, id, blob).await? {
            return Ok(());
        }
        match self.bucket.delete(&self.key(blob)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            // The row is gone, and so is the file for everybody; what is left of it the next start removes.
            Err(error) => Err(failed(error)),
        }
    }

    async fn give_up_uploads(&self) -> Result<()> {
        let mut before = ids::now();
        before.seconds -= ORPHAN_AFTER_SECONDS;
        for left in self.store.untouched_uploads(&before).await? {
            match self.bucket.abort_multipart(&self.key(&left.blob), &left.upload_id).await {
                // Given up already, or it had ended.
                Ok(()) | Err(object_store::Error::NotFound { .. }) => self.store.forget_upload(&left).await?,
                Err(error) => {
                    tracing::warn!(blob = left.blob, error = %error, "what a crash left of an upload cannot be given up in the bucket");
                    continue;
                }
            }
            tracing::info!(blob = left.blob, "what a crash left of an upload is given up in the bucket");
        }
        Ok(())
    }

    async fn remove_orphans(&self) -> Result<usize> {
        let there = self.bucket.list(Some(&self.root())).map_err(failed);
        // The bucket may hold what is others' below the same prefix.
        let mut pages = there.try_filter_map(|about| {
            let blob = about.location.filename().unwrap_or_default().to_owned();
            let ours = (about.location == self.key(&blob)).then(|| (blob, about.last_modified.timestamp()));
            future::ready(Ok(ours))
        });
        let mut removed = 0;
        loop {
            let page: Vec<(String, i64)> = (&mut pages).take(PAGE).try_collect().await?;
            let orphans = self.orphans(&page).await?;
            removed += orphans.len();
            for blob in orphans {
                remove(&self.bucket, &self.key(&blob)).await;
            }
            if page.len() < PAGE {
                return Ok(removed);
            }
        }
    }
}

/// Where a content goes.
#[derive(Clone)]
struct Place {
    store: Store,
    bucket: Arc<AmazonS3>,
    key: Path,
    blob: String,
    tasks: TaskTracker,
}

impl Place {
    async fn send(&self, draft: Draft) -> Result<()> {
        let whole = draft.bytes <= PART as u64;
        let (draft, first) = part(draft, true, &self.tasks).await?;
        if whole {
            return self.bucket.put(&self.key, first.into()).await.map(drop).map_err(failed);
        }
        let upload_id = self.bucket.create_multipart(&self.key).await.map_err(failed)?;
        let upload = PartedUpload { blob: self.blob.clone(), upload_id };
        Parts { place: self.clone(), upload, open: true }.send(first, draft).await
    }
}

/// The next part of a draft: its first one, or the one after the last.
async fn part(mut draft: Draft, first: bool, tasks: &TaskTracker) -> Result<(Draft, Bytes)> {
    blocking(tasks, move || {
        let part = if first { draft.rewound(PART) } else { draft.next(PART) }?;
        Ok((draft, Bytes::from(part)))
    })
    .await
}

/// An upload in parts. Dropped before its end, it is given up there as well: what was sent would be paid for. What goes down with
/// the process, the store knows.
struct Parts {
    place: Place,
    upload: PartedUpload,
    open: bool,
}

impl Parts {
    async fn send(mut self, first: Bytes, mut draft: Draft) -> Result<()> {
        let Place { store, bucket, key, tasks, .. } = &self.place;
        let (mut data, mut sent) = (first, Vec::new());
        while !data.is_empty() {
            store.note_upload(&self.upload, &ids::now()).await?;
            // One is sent while the next one is read.
            let put = bucket.put_part(key, &self.upload.upload_id, sent.len(), data.into());
            let (put, read) = futures::join!(put, part(draft, false, tasks));
            sent.push(put.map_err(failed)?);
            (draft, data) = read?;
        }
        bucket.complete_multipart(key, &self.upload.upload_id, sent).await.map_err(failed)?;
        self.open = false;
        forget(store, &self.upload).await;
        Ok(())
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        if !self.open {
            return;
        }
        let (place, upload) = (self.place.clone(), self.upload.clone());
        self.place.tasks.spawn(async move {
            match place.bucket.abort_multipart(&place.key, &upload.upload_id).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => forget(&place.store, &upload).await,
                Err(error) => tracing::warn!(error = ?error, "parts of an upload that was given up are left in the bucket for now"),
            }
        });
    }
}

/// What stays noted is looked at again later.
async fn forget(store: &Store, upload: &PartedUpload) {
    if let Err(error) = store.forget_upload(upload).await {
        tracing::warn!(error = ?error, "an upload that has ended is still noted");
    }
}

/// What cannot be removed now is removed at a next start.
async fn remove(bucket: &AmazonS3, key: &Path) {
    match bucket.delete(key).await {
        Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
        Err(error) => tracing::warn!(error = ?error, "a content without a file is left in the bucket"),
    }
}

fn failed(error: object_store::Error) -> Error {
    use object_store::Error::{NotFound, PermissionDenied, Unauthenticated};
    let told = match &error {
        NotFound { .. } => Error::new(Code::DataLoss, "the file's content is not in the bucket").with_reason("content_missing"),
        PermissionDenied { .. } | Unauthenticated { .. } => {
            Error::unavailable("the storage of files refuses this server's credentials").with_reason("storage_refused")
        }
        other if timed_out(other) => {
            Error::new(Code::DeadlineExceeded, "the storage of files does not answer in time").with_reason("storage_timeout")
        }
        _ => Error::unavailable("the storage of files fails").with_reason("storage_failed"),
    };
    told.with_source(error)
}

fn timed_out(error: &object_store::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.downcast_ref::<HttpError>().is_some_and(|error| error.kind() == HttpErrorKind::Timeout) {
            return true;
        }
        cause = error.source();
    }
    false
}
