//! How much may be asked of this process, and by whom.
//!
//! ```text
//! request ─ guard ─┬─ is there room at all?            no: 503 at once, UNAVAILABLE
//!                  ├─ quotas of key, caller and tenant   no: 429 with the time to come back, RESOURCE_EXHAUSTED
//!                  └─ handler … the answer's end gives the place back
//! turn ─ Admit ─ turns of key, caller and tenant at once   no: 429, RESOURCE_EXHAUSTED; one that goes on counts, unasked
//! Observed ─ tokens and their cost, after they were used ─┐
//! every 2 s ─ what was let in and used since ─ the store ─ what all processes did
//! ```
//!
//! What a day allows is shared by all processes of a store. Rates are shared where machines share it: what others let in is taken from
//! a process's own buckets once it has heard of it, so no request waits for the store.

mod account;
mod bucket;
mod guard;
mod turns;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use llama_stack_core::{
    Context, Error, Result,
    manifest::{self, Price, Quota},
};
use llama_stack_proto::v1::Usage;
use llama_stack_store::{DailyUsage, Store};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use account::{Account, Kind, Rate, Rates, Subject, now_us, today};

pub(crate) use guard::{OfBatch, guard};
pub(crate) use turns::Turns;

/// How often what was used goes to the store, and what others used comes from there.
const BEAT: Duration = Duration::from_secs(2);
/// What was added so long before the last look is looked at again, in microseconds: transactions take time, and clocks differ. Sums can
/// be read twice.
const LATE_US: i64 = 60_000_000;
/// Accounts in one transaction: other processes wait for its rows.
const GROUP: usize = 256;
/// Accounts beyond this many are forgotten as soon as that changes nothing.
const MANY: usize = 10_000;
/// Days for which usage is kept.
const KEPT_DAYS: i64 = 400;

/// The limits of one stack.
pub(crate) struct Limits {
    config: manifest::Limits,
    prices: BTreeMap<String, Price>,
    store: Store,
    room: Arc<Semaphore>,
    accounts: Mutex<HashMap<Subject, Account>>,
    /// Held by who tells the store or is told by it: what is on its way there must not be missing in what is learned.
    telling: tokio::sync::Mutex<()>,
}

/// A request that was let in. Dropping it gives its place back.
pub(crate) struct Admitted {
    limits: Arc<Limits>,
    subjects: Vec<Subject>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if self.subjects.is_empty() {
            return;
        }
        let mut accounts = self.limits.accounts();
        for subject in &self.subjects {
            if let Some(account) = accounts.get_mut(subject) {
                account.end();
            }
        }
    }
}

impl Limits {
    pub(crate) fn new(config: manifest::Limits, prices: BTreeMap<String, Price>, store: Store) -> Arc<Self> {
        let room = Arc::new(Semaphore::new(config.max_in_flight.min(Semaphore::MAX_PERMITS)));
        Arc::new(Self { config, prices, store, room, accounts: Mutex::default(), telling: tokio::sync::Mutex::default() })
    }

    fn fresh(&self, subject: &Subject, quota: Quota, now: Instant) -> Account {
        subject.fresh(quota, self.store.is_remote(), now)
    }

    fn accounts(&self) -> MutexGuard<'_, HashMap<Subject, Account>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for one more request.
    ///
    /// # Errors
    /// `Unavailable` there is none (`overloaded`)
    fn enter(&self) -> Result<OwnedSemaphorePermit> {
        self.room.clone().try_acquire_owned().map_err(|_| {
            let message = format!("this server has {} requests under way, which is the most", self.config.max_in_flight);
            Error::unavailable(message).with_reason("overloaded").with_retry_after(Duration::from_secs(1))
        })
    }

    /// # Errors
    /// `ResourceExhausted` with the time to come back · `Unavailable` what was used today cannot be read
    async fn admit(self: &Arc<Self>, cx: &Context, kind: Kind) -> Result<(Admitted, Rates), (Error, Rates)> {
        let mut subjects = Vec::new();
        for (subject, quota) in self.quotas(cx) {
            self.know(&subject, quota).await.map_err(|error| (error, Rates::default()))?;
            subjects.push(subject);
        }
        let (mut accounts, now) = (self.accounts(), Instant::now());
        // All are asked before any is charged.
        for subject in &subjects {
            let Some(account) = accounts.get_mut(subject) else { continue };
            if let Err(error) = account.check(subject, kind, now) {
                return Err((error, account.rates(now)));
            }
        }
        if kind == Kind::OfBatch {
            return Ok((Admitted { limits: self.clone(), subjects: Vec::new(), _room: None }, Rates::default()));
        }
        let mut rates = Rates::default();
        for subject in &subjects {
            let Some(account) = accounts.get_mut(subject) else { continue };
            let own = account.begin(now);
            rates.requests = Rate::tighter(rates.requests, own.requests);
            rates.tokens = Rate::tighter(rates.tokens, own.tokens);
        }
        drop(accounts);
        Ok((Admitted { limits: self.clone(), subjects, _room: None }, rates))
    }

    /// Whether anybody is limited, or this API key is.
    fn limit(&self, key: Option<Quota>) -> bool {
        self.config.has_quotas() || key.is_some_and(|own| !own.is_none())
    }

    /// Those that limit this caller.
    fn quotas(&self, cx: &Context) -> impl Iterator<Item = (Subject, Quota)> {
        let (tenant, id) = (cx.tenant(), &cx.principal().id);
        let subject = |principal: String| Subject { tenant: tenant.to_owned(), principal };
        // One account, however many tenants its holder speaks for.
        let of_key = cx.key().map(|key| {
            let subject = Subject { tenant: key.tenant.to_owned(), principal: DailyUsage::of_key(key.id) };
            (subject, self.config.of_key(key.id, key.quota))
        });
        let of_principal = (subject(id.clone()), self.config.of_principal(tenant, id));
        let of_tenant = (subject(String::new()), self.config.of_tenant(tenant));
        let all = [of_key, Some(of_principal), Some(of_tenant)];
        all.into_iter().flatten().filter(|(_, quota)| !quota.is_none())
    }

    /// Makes the account where there is none yet, and reads what was used today where a day's limit depends on it.
    async fn know(&self, subject: &Subject, quota: Quota) -> Result<()> {
        if self.accounts().get(subject).is_some_and(|account| !account.is_unread()) {
            return Ok(());
        }
        let counted =
            if quota.is_durable() { Some(self.store.daily_usage(&subject.tenant, &subject.principal, today()).await?) } else { None };
        let (mut accounts, now) = (self.accounts(), Instant::now());
        // Somebody else may have made it meanwhile, and begun to charge it.
        let account = accounts.entry(subject.clone()).or_insert_with(|| self.fresh(subject, quota, now));
        if let Some(counted) = counted.filter(|_| account.is_unread()) {
            account.learn(counted, now);
        }
        Ok(())
    }

    /// Charges what a model read and wrote.
    pub(crate) fn used(&self, cx: &Context, model: &str, usage: &Usage) {
        if !self.limit(cx.key().map(|key| key.quota)) {
            return;
        }
        let tokens = u64::from(usage.prompt_tokens) + u64::from(usage.completion_tokens);
        let price = self.prices.get(model);
        let cost = price.map_or(0.0, |price| price.of(usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens));
        let (mut accounts, now) = (self.accounts(), Instant::now());
        for (subject, quota) in self.quotas(cx) {
            // A turn may go on after its caller's account was forgotten, or in another process than it was asked of.
            accounts.entry(subject.clone()).or_insert_with(|| self.fresh(&subject, quota, now)).used(
                tokens,
                (cost * 1e6).round() as u64,
                now,
            );
        }
    }

    /// Tells the store what was used, and learns what other processes did, until the shutdown and once more then.
    pub(crate) async fn keep(self: Arc<Self>, shutdown: CancellationToken) {
        let (mut heard_us, mut forgot) = (now_us(), None);
        loop {
            self.forget(&mut forgot, today()).await;
            let is_over = tokio::time::timeout(BEAT, shutdown.cancelled()).await.is_ok();
            if let Err(error) = self.settle(&mut heard_us).await {
                tracing::warn!(error = ?error, "what was used could not be counted: it is kept, and counted later");
            }
            if is_over {
                return;
            }
        }
    }

    /// Old usage, once in a day of UTC, however long the process runs. `forgot`: the day of the last time.
    async fn forget(&self, forgot: &mut Option<i64>, day: i64) {
        if forgot.replace(day) == Some(day) {
            return;
        }
        if let Err(error) = self.store.forget_usage(day - KEPT_DAYS).await {
            tracing::warn!(error = ?error, "old usage could not be forgotten: that is tried again tomorrow");
        }
    }

    /// Tells the store what was used by now.
    pub(crate) async fn flush(&self) -> Result<()> {
        let _telling = self.telling.lock().await;
        self.send(now_us()).await
    }

    async fn send(&self, now_us: i64) -> Result<()> {
        let sent: Vec<DailyUsage> = self.accounts().values_mut().filter_map(Account::send).collect();
        for (index, group) in sent.chunks(GROUP).enumerate() {
            if let Err(error) = self.store.add_usage(group.to_vec(), now_us).await {
                let mut accounts = self.accounts();
                for used in &sent[index * GROUP..] {
                    if let Some(account) = accounts.get_mut(&Subject::of(used)) {
                        account.unsend(used);
                    }
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// `heard_us`: when others were last listened to.
    async fn settle(&self, heard_us: &mut i64) -> Result<()> {
        let _telling = self.telling.lock().await;
        let now_us = now_us();
        self.send(now_us).await?;
        let is_counted = {
            let (mut accounts, now) = (self.accounts(), Instant::now());
            if accounts.len() > MANY {
                accounts.retain(|_, account| !account.is_idle(now));
            }
            accounts.values().any(Account::is_counted)
        };
        if is_counted {
            // One question, however many accounts there are.
            let changed = self.store.usage_changed(*heard_us - LATE_US, today()).await?;
            let (mut accounts, now) = (self.accounts(), Instant::now());
            for counted in changed {
                if let Some(account) = accounts.get_mut(&Subject::of(&counted)) {
                    account.learn(counted, now);
                }
            }
        }
        *heard_us = now_us;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use llama_stack_store::Durability;

    use super::*;

    #[tokio::test]
    async fn old_usage_is_forgotten_every_day_and_not_only_at_the_start() {
        let store = Store::open("sqlite::memory:", Durability::Process).await.unwrap();
        let limits = Limits::new(manifest::Limits::default(), BTreeMap::new(), store.clone());
        let on = |day| DailyUsage { tenant: "acme".into(), principal: "ann".into(), day, tokens: 1, ..DailyUsage::default() };
        store.add_usage(vec![on(1), on(2), on(3)], 0).await.unwrap();
        let kept = async || {
            let mut kept = Vec::new();
            for day in 1..=3 {
                kept.push(store.daily_usage("acme", "ann", day).await.unwrap().tokens);
            }
            kept
        };
        let mut forgot = None;
        limits.forget(&mut forgot, KEPT_DAYS + 2).await;
        assert_eq!(kept().await, [0, 1, 1]);
        store.add_usage(vec![on(1)], 0).await.unwrap();
        limits.forget(&mut forgot, KEPT_DAYS + 2).await;
        assert_eq!(kept().await, [1, 1, 1], "once a day is enough");
        limits.forget(&mut forgot, KEPT_DAYS + 3).await;
        assert_eq!(kept().await, [0, 0, 1]);
    }

    /// Else an erasure would be followed by what was counted before it.
    #[tokio::test]
    async fn what_was_used_is_in_the_store_once_it_is_flushed_and_comes_to_it_once() {
        let store = Store::open("sqlite::memory:", Durability::Process).await.unwrap();
        let config = manifest::Limits { each_principal: Quota { tokens_per_day: Some(100), ..Quota::default() }, ..Default::default() };
        let limits = Limits::new(config, BTreeMap::new(), store.clone());
        let cx = Context::test("acme");
        limits.used(&cx, "parrot", &Usage { prompt_tokens: 4, completion_tokens: 5, ..Usage::default() });
        let tokens = async || store.daily_usage("acme", &cx.principal().id, today()).await.unwrap().tokens;
        assert_eq!(tokens().await, 0);
        for _ in 0..2 {
            limits.flush().await.unwrap();
            assert_eq!(tokens().await, 9);
        }
    }
}
