//! Batches on blocking threads: a bounded number at once, none for a caller that went away.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use llama_stack_core::{Error, Result};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    batch,
    model::Model,
    tokens::{Input, Read},
};

/// What all models of a provider compute with.
pub(crate) struct Runner {
    /// One permit per blocking thread; first come, first served, so a long request does not hold up a short one for more
    /// than a batch.
    threads: Arc<Semaphore>,
    count: usize,
    /// Shutdown waits for what is being computed.
    tasks: TaskTracker,
}

/// What came of a request's inputs, in their order.
pub(crate) struct Computed {
    /// Vectors or logits.
    pub(crate) rows: Vec<Vec<f32>>,
    /// Read, over all inputs.
    pub(crate) tokens: usize,
    /// Inputs whose end was cut off.
    pub(crate) cut: usize,
}

impl Runner {
    pub(crate) fn new(count: usize, tasks: TaskTracker) -> Self {
        Self { threads: Arc::new(Semaphore::new(count)), count, tasks }
    }

    /// Reads the inputs and computes them batch by batch. Dropping the future ends it after the batches under way.
    ///
    /// # Errors
    /// Those of reading · `Internal` where the model fails or panics: nothing else is harmed, a model keeps no state.
    pub(crate) async fn run(&self, model: &Arc<Model>, inputs: Vec<Input>, cut: bool) -> Result<Computed> {
        let dropped = CancellationToken::new();
        let _guard = dropped.clone().drop_guard();
        let reader = model.clone();
        let reads: Arc<Vec<Read>> = Arc::new(self.blocking(&model.id, move || reader.reader.read(inputs, cut, &dropped)).await?);

        let lengths: Vec<usize> = reads.iter().map(|read| read.ids.len()).collect();
        let batches = batch::by_budget(&lengths, model.batch_tokens).into_iter().map(|batch| {
            let (computing, reads) = (model.clone(), reads.clone());
            async move {
                let texts = batch.clone();
                let work = move || computing.compute(&texts.iter().map(|&index| &reads[index]).collect::<Vec<_>>());
                Ok::<_, Error>((batch, self.blocking(&model.id, work).await?))
            }
        });
        let done: Vec<(Vec<usize>, Vec<Vec<f32>>)> = stream::iter(batches).buffer_unordered(self.count).try_collect().await?;

        let mut rows = vec![Vec::new(); reads.len()];
        for (index, row) in done.into_iter().flat_map(|(batch, computed)| batch.into_iter().zip(computed)) {
            rows[index] = row;
        }
        Ok(Computed { rows, tokens: lengths.iter().sum(), cut: reads.iter().filter(|read| read.cut).count() })
    }

    /// Runs `work` on a thread that may be busy; the permit goes with it, so that a dropped caller's work still counts.
    pub(crate) async fn blocking<T: Send + 'static>(&self, model: &str, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        let closed = |_| Error::internal("the engine is closed");
        let permit = self.threads.clone().acquire_owned().await.map_err(closed)?;
        let work = move || {
            let _permit = permit;
            work()
        };
        self.tasks.spawn_blocking(work).await.unwrap_or_else(|broken| {
            let message = format!("model {model:?} broke down on this request");
            Err(Error::internal(message).with_reason("engine_panic").with_source(broken))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_error_of_that_request_and_frees_its_thread() {
        let runner = Runner::new(1, TaskTracker::new());
        let error = runner.blocking("m", || -> Result<()> { panic!("index out of bounds") }).await.unwrap_err();
        assert_eq!((error.code(), error.reason()), (llama_stack_core::Code::Internal, Some("engine_panic")));
        assert!(!error.message().contains("index"), "{error}");
        assert_eq!(runner.blocking("m", || Ok(7)).await.unwrap(), 7);
    }
}
