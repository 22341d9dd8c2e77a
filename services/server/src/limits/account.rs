//! What one tenant, one principal or one API key may still ask for.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use llama_stack_core::{Code, Error, Result, manifest::Quota};
use llama_stack_store::DailyUsage;

use super::bucket::Bucket;

const DAY: u64 = 86_400;

/// Whose account it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Subject {
    pub(super) tenant: String,
    /// Empty: the whole tenant. Or what [`DailyUsage::of_key`] calls an API key.
    pub(super) principal: String,
}

impl Subject {
    pub(super) fn of(used: &DailyUsage) -> Self {
        Self { tenant: used.tenant.clone(), principal: used.principal.clone() }
    }

    /// An account of which nothing is known yet. `shares`: processes on other machines let this one in as well.
    pub(super) fn fresh(&self, quota: Quota, shares: bool, now: Instant) -> Account {
        let nothing = DailyUsage { tenant: self.tenant.clone(), principal: self.principal.clone(), day: today(), ..DailyUsage::default() };
        let bucket = |count: Option<u32>| count.map(|count| Bucket::per_minute(count, now));
        let (requests, tokens) = (bucket(quota.requests_per_minute), bucket(quota.tokens_per_minute));
        Account {
            quota,
            shares: shares && (requests.is_some() || tokens.is_some()),
            requests,
            tokens,
            running: 0,
            turns: 0,
            is_known: false,
            counted: nothing.clone(),
            unsent: nothing,
        }
    }

    fn shown(&self) -> &'static str {
        match self.principal.as_str() {
            "" => "this tenant",
            name if DailyUsage::is_of_key(name) => "this API key",
            _ => "this caller",
        }
    }
}

/// What a request is, as far as limits are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It may make a model work.
    Spend,
    /// It reads, deletes or ends what is there.
    Look,
    /// A line of a batch: it spends, and is nobody's request of this minute.
    OfBatch,
}

pub(super) struct Account {
    quota: Quota,
    /// What others let in is taken from these buckets too.
    shares: bool,
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    running: u32,
    turns: u32,
    /// Whether the store said what was counted before this process began to.
    is_known: bool,
    /// Of today, as far as the store knows it.
    counted: DailyUsage,
    /// Not yet in the store.
    unsent: DailyUsage,
}

/// What the headers of an answer say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rates {
    pub(super) requests: Option<Rate>,
    pub(super) tokens: Option<Rate>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub(super) limit: u64,
    pub(super) left: u64,
    pub(super) reset: Duration,
}

impl Rate {
    fn of(bucket: &mut Bucket, now: Instant) -> Self {
        bucket.fill(now);
        Self { limit: bucket.limit(), left: bucket.left(), reset: bucket.reset() }
    }

    /// The one of which less is left.
    pub(super) fn tighter(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        match (one, other) {
            (Some(one), Some(other)) => Some(if one.left <= other.left { one } else { other }),
            (one, other) => one.or(other),
        }
    }
}

impl Account {
    /// Whether one more request may begin. Takes nothing.
    ///
    /// # Errors
    /// `ResourceExhausted` with the time to come back.
    pub(super) fn check(&mut self, subject: &Subject, kind: Kind, now: Instant) -> Result<()> {
        let who = subject.shown();
        let refuse = |what: String, reason: &str, wait: Duration| {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            let message = format!("{who} {what}: try again in {} s", seconds.max(1));
            Err(Error::new(Code::ResourceExhausted, message).with_reason(reason).with_retry_after(wait.max(Duration::from_secs(1))))
        };
        if kind != Kind::OfBatch {
            if let Some(most) = self.quota.concurrent_requests
                && self.running >= most
            {
                return refuse(format!("has {most} requests under way, which is the most"), "rate_limit_exceeded", Duration::from_secs(1));
            }
            if let Some(bucket) = &mut self.requests {
                let wait = bucket.wait(now);
                if !wait.is_zero() {
                    return refuse(format!("has used up its {} requests a minute", bucket.limit()), "rate_limit_exceeded", wait);
                }
            }
        }
        if kind == Kind::Look {
            return Ok(());
        }
        if let Some(bucket) = &mut self.tokens {
            let wait = bucket.wait(now);
            if !wait.is_zero() {
                return refuse(format!("has used up its {} tokens a minute", bucket.limit()), "rate_limit_exceeded", wait);
            }
        }
        self.turn_of_day();
        let (tokens, cost) = (self.counted.tokens + self.unsent.tokens, self.counted.cost_micros + self.unsent.cost_micros);
        if let Some(most) = self.quota.tokens_per_day
            && tokens >= most
        {
            return refuse(format!("has used up its {most} tokens a day"), "insufficient_quota", until_midnight());
        }
        if let Some(most) = self.quota.cost_per_day
            && cost as f64 / 1e6 >= most
        {
            return refuse(format!("has used up its budget of {most} a day"), "insufficient_quota", until_midnight());
        }
        Ok(())
    }

    /// One request begins; [`Account::end`] ends it.
    pub(super) fn begin(&mut self, now: Instant) -> Rates {
        self.running += 1;
        if let Some(bucket) = &mut self.requests {
            bucket.take(1.0);
            self.unsent.requests += u64::from(self.shares);
        }
        self.rates(now)
    }

    /// As they are now: who only looks has not asked the bucket of tokens.
    pub(super) fn rates(&mut self, now: Instant) -> Rates {
        let rate = |bucket: &mut Option<Bucket>| bucket.as_mut().map(|bucket| Rate::of(bucket, now));
        Rates { requests: rate(&mut self.requests), tokens: rate(&mut self.tokens) }
    }

    pub(super) fn end(&mut self) {
        self.running = self.running.saturating_sub(1);
    }

    /// Whether one more turn may run. Takes nothing.
    ///
    /// # Errors
    /// `ResourceExhausted` with the time to come back.
    pub(super) fn check_turn(&self, subject: &Subject) -> Result<()> {
        let Some(most) = self.quota.concurrent_turns.filter(|most| self.turns >= *most) else { return Ok(()) };
        let message = format!("{} has {most} turns under way, which is the most: try again when one has ended", subject.shown());
        let error = Error::new(Code::ResourceExhausted, message).with_reason("rate_limit_exceeded");
        Err(error.with_retry_after(Duration::from_secs(1)))
    }

    pub(super) fn begin_turn(&mut self) {
        self.turns += 1;
    }

    pub(super) fn end_turn(&mut self) {
        self.turns = self.turns.saturating_sub(1);
    }

    pub(super) fn used(&mut self, tokens: u64, cost_micros: u64, now: Instant) {
        if let Some(bucket) = &mut self.tokens {
            bucket.charge(tokens as f64, now);
        }
        if self.is_counted() {
            self.unsent.tokens += tokens;
            self.unsent.cost_micros += cost_micros;
        }
    }

    /// At midnight, what was counted is another day's. What is not sent yet is sent as yesterday's by whoever sends first.
    fn turn_of_day(&mut self) {
        let day = today();
        if self.counted.day != day && self.is_sent() {
            self.counted = DailyUsage { day, tokens: 0, cost_micros: 0, requests: 0, ..std::mem::take(&mut self.counted) };
            self.unsent.day = day;
        }
    }

    fn is_sent(&self) -> bool {
        (self.unsent.tokens, self.unsent.cost_micros, self.unsent.requests) == (0, 0, 0)
    }

    /// What is to be added to the store; it counts as sent, until [`Account::unsend`].
    pub(super) fn send(&mut self) -> Option<DailyUsage> {
        if self.is_sent() {
            self.turn_of_day();
            return None;
        }
        let sent = self.unsent.clone();
        self.counted.tokens += sent.tokens;
        self.counted.cost_micros += sent.cost_micros;
        self.counted.requests += sent.requests;
        (self.unsent.tokens, self.unsent.cost_micros, self.unsent.requests) = (0, 0, 0);
        self.turn_of_day();
        Some(sent)
    }

    /// It could not be sent.
    pub(super) fn unsend(&mut self, sent: &DailyUsage) {
        self.unsent.tokens += sent.tokens;
        self.unsent.cost_micros += sent.cost_micros;
        self.unsent.requests += sent.requests;
        self.counted.tokens = self.counted.tokens.saturating_sub(sent.tokens);
        self.counted.cost_micros = self.counted.cost_micros.saturating_sub(sent.cost_micros);
        self.counted.requests = self.counted.requests.saturating_sub(sent.requests);
    }

    /// Whether the store adds it up.
    pub(super) fn is_counted(&self) -> bool {
        self.shares || self.quota.is_durable()
    }

    /// Whether what was used today has to be read before anything is allowed.
    pub(super) fn is_unread(&self) -> bool {
        self.quota.is_durable() && !self.is_known
    }

    /// What all processes counted. What others let in since the last time is taken from the buckets, into debt if need be.
    pub(super) fn learn(&mut self, counted: DailyUsage, now: Instant) {
        if counted.day != self.counted.day {
            return;
        }
        // What this process sent is in both sums.
        if self.shares && self.is_known {
            if let Some(bucket) = &mut self.requests {
                bucket.charge(counted.requests.saturating_sub(self.counted.requests) as f64, now);
            }
            if let Some(bucket) = &mut self.tokens {
                bucket.charge(counted.tokens.saturating_sub(self.counted.tokens) as f64, now);
            }
        }
        (self.counted, self.is_known) = (counted, true);
    }

    /// Whether forgetting it changes nothing.
    pub(super) fn is_idle(&mut self, now: Instant) -> bool {
        let full = |bucket: &mut Option<Bucket>| bucket.as_mut().is_none_or(|bucket| bucket.is_full(now));
        let idle = self.running == 0 && self.turns == 0 && self.is_sent();
        idle && full(&mut self.requests) && full(&mut self.tokens)
    }
}

fn since_epoch() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Microseconds since 1970.
pub(super) fn now_us() -> i64 {
    let passed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(passed.as_micros()).unwrap_or(i64::MAX)
}

/// Days since 1970, of UTC.
pub(super) fn today() -> i64 {
    (since_epoch() / DAY) as i64
}

fn until_midnight() -> Duration {
    Duration::from_secs(DAY - since_epoch() % DAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(quota: Quota, shares: bool, now: Instant) -> Account {
        subject().fresh(quota, shares, now)
    }

    fn subject() -> Subject {
        Subject { tenant: "acme".into(), principal: "ann".into() }
    }

    /// Lets a request in, if it may come.
    fn ask(account: &mut Account, now: Instant) -> bool {
        let is_let_in = account.check(&subject(), Kind::Spend, now).is_ok();
        if is_let_in {
            account.begin(now);
            account.end();
        }
        is_let_in
    }

    /// What a store that all of them share does for them in one beat.
    fn settle(accounts: &mut [Account], sums: &mut DailyUsage, now: Instant) {
        for sent in accounts.iter_mut().filter_map(Account::send) {
            (sums.day, sums.tokens, sums.requests) = (sent.day, sums.tokens + sent.tokens, sums.requests + sent.requests);
        }
        accounts.iter_mut().for_each(|account| account.learn(sums.clone(), now));
    }

    /// Three processes that are asked ten times a second each, every two seconds told of each other.
    fn let_in_by_three(shares: bool, seconds: u64) -> usize {
        let begin = Instant::now();
        let quota = Quota { requests_per_minute: Some(60), ..Quota::default() };
        let mut accounts = [0; 3].map(|_| account(quota, shares, begin));
        let (mut sums, mut count) = (DailyUsage::default(), 0);
        for tenth in 0..seconds * 10 {
            let now = begin + Duration::from_millis(tenth * 100);
            count += accounts.iter_mut().map(|account| usize::from(ask(account, now))).sum::<usize>();
            if tenth % 20 == 19 {
                settle(&mut accounts, &mut sums, now);
            }
        }
        count
    }

    #[test]
    fn in_the_long_run_processes_together_let_in_what_one_would() {
        // A full bucket and ten minutes, and what two others let in until they were heard of.
        let count = let_in_by_three(true, 600);
        assert!((655..=660 + 2 * 60).contains(&count), "{count}");
        // The same again in the time after: what was too much was waited for.
        let longer = let_in_by_three(true, 6_000);
        assert!((6_055..=6_060 + 2 * 60).contains(&longer), "{longer}");
        // What they are to be kept from.
        assert!(let_in_by_three(false, 600) >= 3 * 655);
    }

    #[test]
    fn what_others_used_is_taken_once_and_what_was_sent_is_not_taken_again() {
        let now = Instant::now();
        let quota = Quota { requests_per_minute: Some(10), tokens_per_minute: Some(100), ..Quota::default() };
        let mut accounts = [account(quota, true, now), account(quota, true, now)];
        let mut sums = DailyUsage::default();
        let left = |accounts: &mut [Account; 2]| {
            accounts.each_mut().map(|account| {
                let rates = account.rates(now);
                (rates.requests.unwrap().left, rates.tokens.unwrap().left)
            })
        };
        // Each has to be heard of once.
        accounts.iter_mut().for_each(|account| assert!(ask(account, now)));
        settle(&mut accounts, &mut sums, now);
        assert_eq!(left(&mut accounts), [(9, 100), (9, 100)], "what was counted before it is nothing of this minute's");
        assert!(ask(&mut accounts[0], now) && ask(&mut accounts[0], now));
        accounts[0].used(30, 0, now);
        accounts[1].used(150, 0, now);
        for _ in 0..3 {
            settle(&mut accounts, &mut sums, now);
            assert_eq!(left(&mut accounts), [(7, 0), (7, 0)]);
        }
        assert!(!ask(&mut accounts[0], now), "the other's tokens are a debt of both");
        assert!(!ask(&mut accounts[0], now + Duration::from_secs(47)) && ask(&mut accounts[0], now + Duration::from_secs(49)));
        // What could not be sent is sent later, and no loss.
        assert!(ask(&mut accounts[1], now + Duration::from_secs(60)));
        let sent = accounts[1].send().unwrap();
        accounts[1].unsend(&sent);
        assert_eq!(accounts[1].send().map(|again| again.requests), Some(sent.requests));
    }

    #[test]
    fn who_only_looks_is_told_what_has_come_back_since() {
        let now = Instant::now();
        let mut account = account(Quota { tokens_per_minute: Some(60), ..Quota::default() }, false, now);
        account.used(60, 0, now);
        let later = now + Duration::from_secs(30);
        account.check(&subject(), Kind::Look, later).unwrap();
        let tokens = account.begin(later).tokens.unwrap();
        assert_eq!((tokens.left, tokens.reset), (30, Duration::from_secs(30)));
    }

    #[test]
    fn where_nobody_shares_nothing_is_sent_for_rates() {
        let now = Instant::now();
        let mut alone = account(Quota { requests_per_minute: Some(2), tokens_per_minute: Some(10), ..Quota::default() }, false, now);
        assert!(ask(&mut alone, now));
        alone.used(5, 0, now);
        assert!(!alone.is_counted() && alone.send().is_none());
        let mut durable = account(Quota { requests_per_minute: Some(2), tokens_per_day: Some(10), ..Quota::default() }, false, now);
        assert!(durable.is_unread() && ask(&mut durable, now));
        durable.learn(DailyUsage { day: today(), requests: 50, ..DailyUsage::default() }, now);
        assert!(!durable.is_unread() && ask(&mut durable, now), "others' requests are theirs");
    }
}
