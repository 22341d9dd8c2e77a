//! The lines of a batch, some at once. The answer of each is kept before the next takes its place.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream::FuturesUnordered};
use llama_stack_core::{Code, Error, Result, ids};
use llama_stack_proto::v1::{Batch, BatchStatus};
use llama_stack_store::{BatchLine, LineUsage};
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    Answer, author,
    check::{Asked, request},
    input::{self, Line},
    job::{Job, Stopped, gone, left},
    used,
};

/// How often a line is asked that finds no room.
const ATTEMPTS: u32 = 8;
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Rows that are written at once where nothing is asked.
const WRITES: usize = 64;

impl Job {
    pub(crate) async fn run_lines(self: Arc<Self>, batch: &Batch) -> Result<Stopped> {
        let expiry = tokio::time::sleep(left(batch.expires).min(Duration::from_secs(60 * 60 * 24 * 365)));
        let mut expiry = std::pin::pin!(expiry);
        let signals = self.signals.clone();
        let work = self.clone().ask_all(batch.clone());
        // The first that is ready: a cancel is heeded before more lines are begun, and what is under way is dropped.
        tokio::select! {
            biased;
            () = signals.gone.cancelled() => return Err(gone()),
            () = signals.cancelled.cancelled() => return Ok(Stopped::Cancelled),
            () = expiry.as_mut() => {}
            stopped = work => return stopped,
        }
        self.note_expired(batch).await?;
        Ok(Stopped::Expired)
    }

    async fn ask_all(self: Arc<Self>, batch: Batch) -> Result<Stopped> {
        let done = self.recorded().await?;
        let mut lines = input::open(self.batcher.files.as_ref(), &self.cx, &batch.input_file_id).await?;
        let mut under_way = FuturesUnordered::new();
        let mut is_read = false;
        loop {
            // The permit is taken before the line is read, so that no more of the input is in memory than runs.
            let permit = self.batcher.lines.clone().acquire_owned();
            let status = tokio::select! {
                biased;
                Some(status) = under_way.next() => status?,
                // Of those that wait for a quota there are no more either.
                Ok(permit) = permit, if !is_read && under_way.len() < self.batcher.config.lines_at_once => {
                    match next(&mut lines, &done).await? {
                        Some(line) => {
                            let (job, endpoint) = (self.clone(), batch.endpoint.clone());
                            // Boxed, because the compiler cannot name what a queue of unnamed futures holds.
                            under_way.push(async move { job.ask_line(&endpoint, line, permit).await }.boxed());
                        }
                        None => is_read = true,
                    }
                    continue;
                }
                else => return Ok(Stopped::Done),
            };
            if status == BatchStatus::Cancelling {
                return Ok(Stopped::Cancelled);
            }
        }
    }

    async fn recorded(&self) -> Result<HashSet<u64>> {
        Ok(self.batcher.store.recorded_batch_lines(&self.held).await?.into_iter().collect())
    }

    /// Asks one line and keeps its answer; says what the batch is now. Only while it is asked it holds its permit.
    async fn ask_line(&self, endpoint: &str, line: Line, permit: OwnedSemaphorePermit) -> Result<BatchStatus> {
        let (number, mut permit) = (line.number, Some(permit));
        let (custom_id, answer) = match request(&line, endpoint) {
            Ok(Asked { custom_id, body }) => {
                // A turn that the line began before a crash is found again by this key, rather than begun anew.
                let key = format!("{}:{number}", self.held.batch_id);
                let body: bytes::Bytes = Value::Object(body).to_string().into();
                let mut attempt = 0;
                let answer = loop {
                    let answer = match author::today(&self.batcher.store, &self.author).await {
                        Ok(cx) => {
                            let cx = cx.with_idempotency_key(key.clone()).with_request_id(ids::new("req"));
                            self.ask.ask(&cx, endpoint, body.clone()).await
                        }
                        Err(error) if error.code() == Code::Unauthenticated => refused(&error),
                        Err(error) => return Err(error),
                    };
                    attempt += 1;
                    // A quota that says when there is more is waited for as long as the batch has time.
                    let is_patient = answer.status == 429 && answer.retry_after.is_some();
                    if !matches!(answer.status, 429 | 502 | 503 | 504) || (attempt >= ATTEMPTS && !is_patient) {
                        break answer;
                    }
                    let pause = answer.retry_after.unwrap_or(Duration::from_secs(1 << attempt.min(6)));
                    // Others' lines need not wait for it.
                    drop(permit.take());
                    tokio::time::sleep(pause.min(MAX_PAUSE)).await;
                    permit = self.batcher.lines.clone().acquire_owned().await.ok();
                };
                (custom_id, answer)
            }
            // The input was checked; so it is another's file by now, or a defect. Either way the line has an answer.
            Err(mistake) => {
                let body = json!({ "error": { "message": mistake.message, "type": "invalid_request_error", "code": mistake.code } });
                (String::new(), Answer { status: 400, request_id: ids::new("req"), body, retry_after: None })
            }
        };
        drop(permit);
        self.keep(number, &custom_id, Ok(answer)).await
    }

    /// Keeps what a line was answered, or why it was not run.
    async fn keep(&self, line: u64, custom_id: &str, answer: Result<Answer, Value>) -> Result<BatchStatus> {
        let (failed, used, response, error) = match answer {
            Ok(answer) => {
                let (failed, used) = (!(200..300).contains(&answer.status), used::by(&answer.body));
                let response = json!({ "status_code": answer.status, "request_id": answer.request_id, "body": answer.body });
                (failed, used, response, Value::Null)
            }
            Err(error) => (true, LineUsage::default(), Value::Null, error),
        };
        let written = json!({ "id": ids::new("batch_req"), "custom_id": custom_id, "response": response, "error": error });
        let result = BatchLine { line, failed, body: written.to_string().into_bytes() };
        self.batcher.store.record_batch_line(&self.held, result, used).await
    }

    /// Gives every line that was not run the answer that it was not.
    async fn note_expired(self: Arc<Self>, batch: &Batch) -> Result<()> {
        let done = self.recorded().await?;
        let lines = input::open(self.batcher.files.as_ref(), &self.cx, &batch.input_file_id).await?;
        let endpoint = batch.endpoint.clone();
        let writes = lines.try_filter(move |line| futures::future::ready(!done.contains(&line.number))).map_ok(move |line| {
            let (job, endpoint) = (self.clone(), endpoint.clone());
            async move {
                let custom_id = request(&line, &endpoint).map(|asked| asked.custom_id).unwrap_or_default();
                let message = "this request could not be run before the completion window was over";
                let error = json!({ "code": "batch_expired", "message": message });
                job.keep(line.number, &custom_id, Err(error)).await.map(drop)
            }
            .boxed()
        });
        writes.try_buffer_unordered(WRITES).try_collect::<()>().await
    }
}

/// What a line is answered whose maker may ask no more.
fn refused(error: &Error) -> Answer {
    let body = json!({ "error": { "message": error.message(), "type": error.code().openai_type(), "code": error.reason() } });
    Answer { status: error.code().http_status(), request_id: ids::new("req"), body, retry_after: None }
}

/// The next line that was not run.
async fn next(lines: &mut llama_stack_core::EventStream<Line>, done: &HashSet<u64>) -> Result<Option<Line>> {
    while let Some(line) = lines.try_next().await? {
        if !done.contains(&line.number) {
            return Ok(Some(line));
        }
    }
    Ok(None)
}
