//! The models of one provider share what memory there is: who may be loaded, and who goes for another.

use std::{
    sync::{Arc, PoisonError, RwLock, Weak},
    time::{Duration, Instant},
};

use llama_stack_core::{Code, Error, Result};
use llama_stack_models::memory::{Available, Footprint};
use tokio::sync::{Mutex, MutexGuard};

use crate::model::LocalModel;

/// Less context than this is of no use to anybody.
const LEAST_CONTEXT: u32 = 256;

/// How long a model waits for the memory of others that are answering.
const PATIENCE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(50);

/// What a model needs: its own part at so many cells, and that of the model that guesses for it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    pub(crate) footprint: Footprint,
    pub(crate) cells: u32,
    /// Bytes.
    pub(crate) beside: u64,
}

impl Wish {
    /// Bytes.
    pub(crate) fn total(&self) -> u64 {
        self.footprint.need(self.cells).total().saturating_add(self.beside)
    }

    /// # Errors
    /// As [`Footprint::check`], with the numbers.
    fn fits(&self, available: Available) -> Result<()> {
        let available = Available { bytes: available.bytes.saturating_sub(self.beside), ..available };
        self.footprint.check(available, self.cells, LEAST_CONTEXT)
    }
}

/// The memory of one provider's models.
pub(crate) struct Room {
    /// Bytes that loaded models may need together; none: what the machine has.
    budget: Option<u64>,
    models: RwLock<Vec<Weak<LocalModel>>>,
    loading: Mutex<()>,
}

impl Room {
    pub(crate) fn new(budget_megabytes: Option<u64>) -> Arc<Self> {
        let budget = budget_megabytes.map(|megabytes| megabytes.saturating_mul(1 << 20));
        Arc::new(Self { budget, models: RwLock::default(), loading: Mutex::default() })
    }

    pub(crate) fn enter(&self, model: &Arc<LocalModel>) {
        self.models.write().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(model));
    }

    /// Whether it would fit if no other were loaded. What the machine has is looked at when it is loaded.
    ///
    /// # Errors
    /// As [`Footprint::check`], with the budget for what is available.
    pub(crate) fn could_hold(&self, wish: &Wish) -> Result<()> {
        let Some(budget) = self.budget else { return Ok(()) };
        wish.fits(Available { bytes: budget, limited: false }).map_err(|error| error.context(format_args!("within {}", self.name())))
    }

    /// While there is too little for `model`, the one goes that nobody has used for the longest time. Those that are answering
    /// are waited for a while. Models are loaded one at a time, for what one takes is seen when it is there: whoever has the guard
    /// may load, and whoever waits for room does not keep others from it.
    ///
    /// # Errors
    /// As [`Footprint::check`], with the numbers · `ResourceExhausted` (`models_busy`) where it is others that leave it no room.
    pub(crate) async fn make(&self, model: &LocalModel, wish: &Wish) -> Result<MutexGuard<'_, ()>> {
        let mut turn = self.loading.lock().await;
        let begun = Instant::now();
        loop {
            let mut others = self.others(model);
            let sum = |bytes: fn(&LocalModel) -> u64| others.iter().map(|other| bytes(other)).fold(0, u64::saturating_add);
            let loaded = sum(LocalModel::holds);
            let Some((left, budgeted)) = self.left(loaded, sum(LocalModel::holds_here)) else { return Ok(turn) };
            let Err(refused) = wish.fits(left) else { return Ok(turn) };
            let named = |error: Error| {
                let error = if budgeted { error.context(format_args!("within {}", self.name())) } else { error };
                error.context(format_args!("model {:?}", model.id))
            };
            // Nobody is unloaded for a model that does not fit anyway.
            let without_others = Available { bytes: left.bytes.saturating_add(loaded), ..left };
            wish.fits(without_others).map_err(named)?;
            others.sort_by_key(|other| other.used());
            let mut unloaded = false;
            for other in others {
                unloaded = other.unload("its memory is needed").await;
                if unloaded {
                    break;
                }
            }
            if unloaded {
                continue;
            }
            if begun.elapsed() >= PATIENCE {
                let message = format!("{}; models that are answering have {} MiB", named(refused).message(), loaded >> 20);
                return Err(Error::new(Code::ResourceExhausted, message).with_reason("models_busy").with_retry_after(PATIENCE));
            }
            drop(turn);
            tokio::time::sleep(AGAIN).await;
            turn = self.loading.lock().await;
        }
    }

    /// What models that need `loaded` bytes leave, `here` of them in the machine's own memory, and whether it is the budget that
    /// leaves the least. None where nobody says.
    fn left(&self, loaded: u64, here: u64) -> Option<(Available, bool)> {
        let machine = Available::now().map(|available| (available.beside(here), false));
        let budget = self.budget.map(|most| (Available { bytes: most.saturating_sub(loaded), limited: false }, true));
        [machine, budget].into_iter().flatten().min_by_key(|(available, _)| available.bytes)
    }

    fn others(&self, model: &LocalModel) -> Vec<Arc<LocalModel>> {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        models.iter().filter_map(Weak::upgrade).filter(|other| other.id != model.id).collect()
    }

    fn name(&self) -> String {
        format!("memory_megabytes: {}", self.budget.unwrap_or_default() >> 20)
    }
}
