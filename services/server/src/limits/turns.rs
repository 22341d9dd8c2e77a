//! Turns at once: they go on without a request that waits for them, so the door alone does not bound them.

use std::{
    any::Any,
    collections::HashMap,
    sync::{Arc, MutexGuard},
    time::Instant,
};

use llama_stack_agents::Admit;
use llama_stack_core::{Context, Result};

use super::{
    Limits,
    account::{Account, Subject},
};

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

impl Turns {
    /// The accounts, and whose of them bound this caller's turns.
    fn bounding(&self, cx: &Context) -> (MutexGuard<'_, HashMap<Subject, Account>>, Vec<Subject>) {
        let limited: Vec<_> = self.0.quotas(cx).filter(|(_, quota)| quota.concurrent_turns.is_some()).collect();
        let (mut accounts, now) = (self.0.accounts(), Instant::now());
        for (subject, quota) in &limited {
            accounts.entry(subject.clone()).or_insert_with(|| self.0.fresh(subject, *quota, now));
        }
        (accounts, limited.into_iter().map(|(subject, _)| subject).collect())
    }

    fn place(&self, mut accounts: MutexGuard<'_, HashMap<Subject, Account>>, subjects: Vec<Subject>) -> Box<dyn Any + Send> {
        for subject in &subjects {
            if let Some(account) = accounts.get_mut(subject) {
                account.begin_turn();
            }
        }
        drop(accounts);
        Box::new(Place { limits: self.0.clone(), subjects })
    }
}

impl Admit for Turns {
    fn admit(&self, cx: &Context) -> Result<Box<dyn Any + Send>> {
        let (accounts, subjects) = self.bounding(cx);
        // All are asked before any is charged.
        for subject in &subjects {
            if let Some(account) = accounts.get(subject) {
                account.check_turn(subject)?;
            }
        }
        Ok(self.place(accounts, subjects))
    }

    fn readmit(&self, cx: &Context) -> Box<dyn Any + Send> {
        let (accounts, subjects) = self.bounding(cx);
        self.place(accounts, subjects)
    }
}
