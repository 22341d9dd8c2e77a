//! One batch, from wherever it is to its end.

use std::{sync::Arc, time::Duration};

use llama_stack_core::{Code, Context, Error, Result, ids};
use llama_stack_proto::v1::{Batch, BatchError, BatchStatus, Caller};
use llama_stack_store::HeldBatch;
use prost_types::Timestamp;

use crate::{
    Ask, Batcher,
    check::{Checked, check},
    input,
    runner::Signals,
};

/// A batch that this process runs.
pub(crate) struct Job {
    pub(crate) batcher: Arc<Batcher>,
    pub(crate) held: HeldBatch,
    /// Its owner's as it was made, with the priority of batches: for its files.
    pub(crate) cx: Context,
    /// Who made it.
    pub(crate) author: Caller,
    pub(crate) signals: Signals,
    pub(crate) ask: Arc<dyn Ask>,
}

/// Why lines are not run any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// All were.
    Done,
    Cancelled,
    Expired,
}

impl Job {
    /// # Errors
    /// What may be otherwise later; what will not be becomes the batch's own failure. `Aborted` it is another's ·
    /// `Cancelled` the process ends.
    pub(crate) async fn run(self, batch: Batch) -> Result<()> {
        let job = Arc::new(self);
        match job.clone().advance(batch.clone()).await {
            Err(error) if is_final(error.code()) => job.fail(batch, &error).await,
            other => other,
        }
    }

    async fn advance(self: Arc<Self>, mut batch: Batch) -> Result<()> {
        if batch.status() == BatchStatus::Validating {
            let Some(checked) = self.until_told(self.check(&batch)).await? else {
                return self.finish(batch, BatchStatus::Cancelled).await;
            };
            batch.total = checked.lines;
            if !checked.errors.is_empty() {
                batch.errors = checked.errors;
                return self.end(batch, BatchStatus::Failed).await;
            }
            batch.started = Some(ids::now());
            batch.set_status(BatchStatus::InProgress);
            batch = self.put(&batch).await?;
        }
        if batch.status() == BatchStatus::InProgress {
            let stopped = self.clone().run_lines(&batch).await?;
            // With its counts, and a cancel where one came.
            batch = self.batcher.store.get_batch(&self.held.tenant, &self.held.batch_id, "").await?;
            batch.finalizing = Some(match stopped {
                Stopped::Expired => ids::now(),
                _ => within(ids::now(), batch.expires),
            });
            if batch.status() == BatchStatus::InProgress {
                batch.set_status(BatchStatus::Finalizing);
                batch = self.put(&batch).await?;
            }
        }
        let end = match batch.status() {
            BatchStatus::Cancelling => BatchStatus::Cancelled,
            _ if batch.finalizing.is_some() && !is_before(batch.finalizing, batch.expires) => BatchStatus::Expired,
            _ => BatchStatus::Completed,
        };
        self.finish(batch, end).await
    }

    async fn check(&self, batch: &Batch) -> Result<Checked> {
        let lines = input::open(self.batcher.files.as_ref(), &self.cx, &batch.input_file_id).await?;
        check(lines, &batch.endpoint, self.batcher.config.max_lines).await
    }

    /// What `work` brings, unless the batch is cancelled first.
    ///
    /// # Errors
    /// Those of `work` · `Cancelled` the process ends, or the batch is another's.
    async fn until_told<T>(&self, work: impl Future<Output = Result<T>>) -> Result<Option<T>> {
        tokio::select! {
            () = self.signals.gone.cancelled() => Err(gone()),
            () = self.signals.cancelled.cancelled() => Ok(None),
            done = work => done.map(Some),
        }
    }

    pub(crate) async fn put(&self, batch: &Batch) -> Result<Batch> {
        self.batcher.store.advance_batch(&self.held, batch).await
    }

    pub(crate) async fn end(&self, mut batch: Batch, status: BatchStatus) -> Result<()> {
        batch.set_status(status);
        batch.ended = Some(ids::now());
        let batch = self.put(&batch).await?;
        tracing::info!(
            batch = batch.id,
            status = batch.status().as_str_name(),
            lines = batch.total,
            completed = batch.completed,
            failed = batch.failed,
            "batch ended"
        );
        Ok(())
    }

    /// What will not be otherwise at another try: the answers that are there become the output, and the reason is told.
    async fn fail(&self, mut batch: Batch, error: &Error) -> Result<()> {
        tracing::warn!(batch = batch.id, error = ?error, "a batch failed");
        let code = error.reason().unwrap_or(error.code().name()).to_owned();
        batch = self.batcher.store.get_batch(&self.held.tenant, &batch.id, "").await?;
        batch.errors.push(BatchError { code, message: error.message().into(), field: String::new(), line: 0 });
        match self.finish(batch.clone(), BatchStatus::Failed).await {
            Err(error) if is_final(error.code()) => self.end(batch, BatchStatus::Failed).await,
            other => other,
        }
    }
}

pub(crate) fn gone() -> Error {
    Error::new(Code::Cancelled, "the batch is not this process's to run any more")
}

/// Failures that another try will not mend.
fn is_final(code: Code) -> bool {
    matches!(code, Code::NotFound | Code::DataLoss | Code::TooLarge | Code::InvalidArgument | Code::PermissionDenied | Code::Unimplemented)
}

fn is_before(time: Option<Timestamp>, other: Option<Timestamp>) -> bool {
    time.zip(other).is_none_or(|(time, other)| (time.seconds, time.nanos) < (other.seconds, other.nanos))
}

/// A batch all of whose lines were run has not expired, however late it is: its time tells the two apart.
fn within(now: Timestamp, expires: Option<Timestamp>) -> Timestamp {
    match expires {
        Some(expires) if !is_before(Some(now), Some(expires)) => Timestamp { seconds: expires.seconds.saturating_sub(1), nanos: 0 },
        _ => now,
    }
}

/// How long it is until then; nothing where it has passed.
pub(crate) fn left(until: Option<Timestamp>) -> Duration {
    let Some(until) = until.and_then(|until| std::time::SystemTime::try_from(until).ok()) else { return Duration::MAX };
    until.duration_since(std::time::SystemTime::now()).unwrap_or_default()
}
