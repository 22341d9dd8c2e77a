//! Batches on blocking threads: a bounded number at once, none for a caller that went away.

use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt, TryStreamExt, stream};
use llama_stack_core::{Error, Result};
use rayon::{ThreadPool, ThreadPoolBuilder};
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
    lanes: Arc<Lanes>,
    /// Shutdown waits for what is being computed.
    tasks: TaskTracker,
}

/// Less than this is not worth a batch of its own, so that other cores have work.
const LEAST_BATCH: usize = 128;

/// Threads that compute a batch each. Where there is a batch for every core, cores that each multiply by themselves are
/// faster than all of them at one product, waiting for each other at its end.
struct Lanes(Mutex<Vec<ThreadPool>>);

/// One of them, given back when it is dropped.
struct Lane<'a> {
    lanes: &'a Lanes,
    pool: Option<ThreadPool>,
}

impl Lanes {
    fn new(count: usize) -> Self {
        let pool = |_| ThreadPoolBuilder::new().num_threads(1).thread_name(|_| "candle".into()).build().ok();
        Self(Mutex::new((0..count).filter_map(pool).collect()))
    }

    /// On a lane, or, where none is free, on the threads that all share.
    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let pool = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let lane = Lane { lanes: self, pool };
        match &lane.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }
}

impl Drop for Lane<'_> {
    fn drop(&mut self) {
        self.lanes.0.lock().unwrap_or_else(PoisonError::into_inner).extend(self.pool.take());
    }
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
        Self { threads: Arc::new(Semaphore::new(count)), count, lanes: Arc::new(Lanes::new(count)), tasks }
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
        let share = lengths.iter().sum::<usize>().div_ceil(self.count).max(LEAST_BATCH);
        let batches = batch::by_budget(&lengths, model.batch_tokens.min(share));
        let for_all = self.count > 1 && batches.len() >= self.count;
        let batches = batches.into_iter().map(|batch| {
            let (computing, reads, lanes, threads) = (model.clone(), reads.clone(), self.lanes.clone(), self.threads.clone());
            let count = self.count;
            async move {
                let texts = batch.clone();
                let work = move || {
                    let texts: Vec<&Read> = texts.iter().map(|&index| &reads[index]).collect();
                    // Others' batches count as well.
                    let alone = for_all || count > 1 && threads.available_permits() == 0;
                    if alone { lanes.run(|| computing.compute(&texts)) } else { computing.compute(&texts) }
                };
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

    #[test]
    fn a_lane_comes_back_even_from_a_panic() {
        let lanes = Lanes::new(1);
        let threads = || lanes.run(rayon::current_num_threads);
        assert_eq!(threads(), 1);
        let broken = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| lanes.run(|| panic!("index out of bounds"))));
        assert!(broken.is_err());
        assert_eq!(threads(), 1);
        // While it is taken, work is done all the same.
        assert_eq!(lanes.run(|| lanes.run(|| 7)), 7);
    }
}
