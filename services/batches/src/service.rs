//! The service: what callers ask of batches.

use async_trait::async_trait;
use llama_stack_core::{Batches, Code, Context, Error, Result, ids};
use llama_stack_proto::v1::{
    Batch, BatchStatus, BatchUsage, CancelBatchRequest, CreateBatchRequest, GetBatchRequest, GetFileRequest, ListBatchesRequest,
    ListBatchesResponse,
};

use crate::{Batcher, ENDPOINTS, author};

/// Who has this role reaches every batch of their tenant.
const ADMIN: &str = "admin";
const INPUT: &str = "batch";
const DEFAULT_PAGE: u32 = 20;
const MAX_PAGE: u32 = 100;
const MAX_METADATA: usize = 16;
/// Hours; OpenAI has 24 alone.
const WINDOWS: std::ops::RangeInclusive<i64> = 1..=168;
/// An hour to thirty days, as files have it.
const OUTPUT_EXPIRES_AFTER: std::ops::RangeInclusive<u64> = 3_600..=2_592_000;

#[async_trait]
impl Batches for Batcher {
    async fn create_batch(&self, cx: &Context, request: CreateBatchRequest) -> Result<Batch> {
        let hours = checked(&request)?;
        let of_input = |error: Error| match error.code() {
            Code::NotFound => {
                Error::not_found(format!("no file {:?}", request.input_file_id)).with_field("input_file_id").with_reason("file_not_found")
            }
            _ => error,
        };
        let file = cx.within(self.files.get_file(cx, GetFileRequest { id: request.input_file_id.clone() })).await.map_err(of_input)?;
        if file.purpose != INPUT {
            let message = format!("the input must be a file with purpose \"batch\", and this one's is {:?}", file.purpose);
            return Err(Error::invalid("input_file_id", message).with_reason("invalid_purpose"));
        }
        if file.bytes > self.config.max_bytes {
            let message = format!("the input is larger than {} bytes, which is the most", self.config.max_bytes);
            return Err(Error::new(Code::TooLarge, message).with_field("input_file_id").with_reason("file_too_large"));
        }
        let created = ids::now();
        let expires = prost_types::Timestamp { seconds: created.seconds.saturating_add(hours * 3_600), nanos: created.nanos };
        let batch = Batch {
            id: ids::new("batch"),
            endpoint: request.endpoint,
            input_file_id: request.input_file_id,
            completion_window: format!("{hours}h"),
            status: BatchStatus::Validating.into(),
            created: Some(created),
            expires: Some(expires),
            metadata: request.metadata,
            owner: cx.principal().id.clone(),
            output_expires_after_seconds: request.output_expires_after_seconds,
            usage: Some(BatchUsage::default()),
            ..Batch::default()
        };
        self.store.insert_batch(&batch, &author::of(cx)).await?;
        self.look.notify_one();
        Ok(batch)
    }

    async fn get_batch(&self, cx: &Context, request: GetBatchRequest) -> Result<Batch> {
        self.store.get_batch(cx.tenant(), &request.id, owner(cx)).await
    }

    async fn list_batches(&self, cx: &Context, request: ListBatchesRequest) -> Result<ListBatchesResponse> {
        let limit = if request.page_size == 0 { DEFAULT_PAGE } else { request.page_size.min(MAX_PAGE) };
        if !request.page_token.is_empty() && !request.page_token.starts_with("batch_") {
            return Err(Error::invalid("page_token", "page_token is not one that this list gave").with_reason("bad_page_token"));
        }
        let mut batches = self.store.list_batches(cx.tenant(), owner(cx), &request.page_token, limit + 1).await?;
        let more = batches.len() > limit as usize;
        batches.truncate(limit as usize);
        let next_page_token = batches.last().filter(|_| more).map(|batch| batch.id.clone()).unwrap_or_default();
        Ok(ListBatchesResponse { batches, next_page_token })
    }

    async fn cancel_batch(&self, cx: &Context, request: CancelBatchRequest) -> Result<Batch> {
        let batch = self.store.cancel_batch(cx.tenant(), &request.id, owner(cx)).await?;
        self.look.notify_one();
        Ok(batch)
    }
}

/// Whose batches a caller sees: their own, and an admin everyone's.
fn owner(cx: &Context) -> &str {
    let principal = cx.principal();
    if principal.roles.iter().any(|role| role == ADMIN) { "" } else { &principal.id }
}

/// The hours of a request that is right.
fn checked(request: &CreateBatchRequest) -> Result<i64> {
    if request.input_file_id.is_empty() {
        return Err(Error::invalid("input_file_id", "input_file_id is missing").with_reason("missing_field"));
    }
    if !ENDPOINTS.contains(&request.endpoint.as_str()) {
        let message = format!("endpoint must be one of {}, not {:?}", ENDPOINTS.join(", "), request.endpoint);
        return Err(Error::invalid("endpoint", message).with_reason("invalid_endpoint"));
    }
    if request.metadata.len() > MAX_METADATA {
        return Err(Error::invalid("metadata", format!("metadata has at most {MAX_METADATA} pairs")));
    }
    if let Some((key, _)) = request.metadata.iter().find(|(key, value)| key.chars().count() > 64 || value.chars().count() > 512) {
        let message = "a key of metadata has at most 64 characters, and a value 512";
        return Err(Error::invalid(format!("metadata.{key}"), message));
    }
    let seconds = request.output_expires_after_seconds;
    if seconds != 0 && !OUTPUT_EXPIRES_AFTER.contains(&seconds) {
        let message = format!("output_expires_after.seconds must be 3600 (an hour) to 2592000 (30 days), not {seconds}");
        return Err(Error::invalid("output_expires_after.seconds", message));
    }
    let window = if request.completion_window.is_empty() { "24h" } else { &request.completion_window };
    let hours = window.strip_suffix('h').and_then(|hours| hours.parse().ok()).filter(|hours| WINDOWS.contains(hours));
    hours.ok_or_else(|| Error::invalid("completion_window", format!("completion_window must be 24h, or any of 1h to 168h, not {window:?}")))
}
