//! Turns at once: they go on without a request that waits for them, so the door alone does not bound them.

use std::{any::Any, sync::Arc, time::Instant};

use llama_stack_agents::Admit;
use llama_stack_core::{Context, Result};

use super::{Limits, account::Subject};

/// Asks the accounts of a stack's limits.
pub(crate) struct Turns(pub(crate) Arc<Limits>);

/// A turn that runs. Dropping it gives its place back.
struct Place {
    limits: Arc<Limits>,
    subjects: Vec<Subject>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut accounts = self.limits.accounts();
        for subject in &self.subjects {
            if let Some(account) = accounts.get_mut(subject) {
                account.end_turn();
            }
        }
    }
}

impl Admit for Turns {
    fn admit(&self, cx: &Context) -> Result<Box<dyn Any + Send>> {
        let limited: Vec<_> = self.0.quotas(cx).filter(|(_, quota)| quota.concurrent_turns.is_some()).collect();
        let (mut accounts, now) = (self.0.accounts(), Instant::now());
        let mut subjects = Vec::with_capacity(limited.len());
        for (subject, quota) in limited {
            accounts.entry(subject.clone()).or_insert_with(|| self.0.fresh(&subject, quota, now)).check_turn(&subject)?;
            subjects.push(subject);
        }
        // All were asked before any is charged.
        for subject in &subjects {
            if let Some(account) = accounts.get_mut(subject) {
                account.begin_turn();
            }
        }
        drop(accounts);
        Ok(Box::new(Place { limits: self.0.clone(), subjects }))
    }
}
