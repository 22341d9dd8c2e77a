//! What one tenant, or one principal, may still ask for.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use llama_stack_core::{Code, Error, Result, manifest::Quota};
use llama_stack_store::DailyUsage;

use super::bucket::Bucket;

const DAY: u64 = 86_400;

/// Whose account it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Subject {
    pub(super) tenant: String,
    /// Empty: the whole tenant.
    pub(super) principal: String,
}

impl Subject {
    /// An account of which nothing is known yet.
    pub(super) fn fresh(&self, quota: Quota, now: Instant) -> Account {
        let counted = DailyUsage { tenant: self.tenant.clone(), principal: self.principal.clone(), day: today(), ..DailyUsage::default() };
        Account::new(quota, counted, now)
    }

    fn shown(&self) -> &'static str {
        if self.principal.is_empty() { "this tenant" } else { "this caller" }
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
    requests: Option<Bucket>,
    tokens: Option<Bucket>,
    running: u32,
    turns: u32,
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
    fn of(bucket: &Bucket) -> Self {
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
    pub(super) fn new(quota: Quota, counted: DailyUsage, now: Instant) -> Self {
        let bucket = |count: Option<u32>| count.map(|count| Bucket::per_minute(count, now));
        let unsent = DailyUsage { tokens: 0, cost_micros: 0, ..counted.clone() };
        Self {
            quota,
            requests: bucket(quota.requests_per_minute),
            tokens: bucket(quota.tokens_per_minute),
            running: 0,
            turns: 0,
            counted,
            unsent,
        }
    }

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
    pub(super) fn begin(&mut self) -> Rates {
        self.running += 1;
        if let Some(bucket) = &mut self.requests {
            bucket.take(1.0);
        }
        self.rates()
    }

    pub(super) fn rates(&self) -> Rates {
        Rates { requests: self.requests.as_ref().map(Rate::of), tokens: self.tokens.as_ref().map(Rate::of) }
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
            bucket.wait(now);
            bucket.take(tokens as f64);
        }
        if self.quota.is_durable() {
            self.unsent.tokens += tokens;
            self.unsent.cost_micros += cost_micros;
        }
    }

    /// At midnight, what was counted is another day's. What is not sent yet is sent as yesterday's by whoever sends first.
    fn turn_of_day(&mut self) {
        let day = today();
        if self.counted.day != day && self.unsent.tokens == 0 && self.unsent.cost_micros == 0 {
            self.counted = DailyUsage { day, tokens: 0, cost_micros: 0, ..std::mem::take(&mut self.counted) };
            self.unsent.day = day;
        }
    }

    /// What is to be added to the store; it counts as sent, until [`Account::unsend`].
    pub(super) fn send(&mut self) -> Option<DailyUsage> {
        if self.unsent.tokens == 0 && self.unsent.cost_micros == 0 {
            self.turn_of_day();
            return None;
        }
        let sent = self.unsent.clone();
        self.counted.tokens += sent.tokens;
        self.counted.cost_micros += sent.cost_micros;
        (self.unsent.tokens, self.unsent.cost_micros) = (0, 0);
        self.turn_of_day();
        Some(sent)
    }

    /// It could not be sent.
    pub(super) fn unsend(&mut self, sent: &DailyUsage) {
        self.unsent.tokens += sent.tokens;
        self.unsent.cost_micros += sent.cost_micros;
        self.counted.tokens = self.counted.tokens.saturating_sub(sent.tokens);
        self.counted.cost_micros = self.counted.cost_micros.saturating_sub(sent.cost_micros);
    }

    pub(super) fn is_durable(&self) -> bool {
        self.quota.is_durable()
    }

    /// What all processes counted.
    pub(super) fn learn(&mut self, counted: DailyUsage) {
        if counted.day == self.counted.day {
            self.counted = counted;
        }
    }

    /// Whether forgetting it changes nothing.
    pub(super) fn is_idle(&mut self, now: Instant) -> bool {
        let full = |bucket: &mut Option<Bucket>| bucket.as_mut().is_none_or(|bucket| bucket.is_full(now));
        let idle = self.running == 0 && self.turns == 0 && self.unsent.tokens == 0 && self.unsent.cost_micros == 0;
        idle && full(&mut self.requests) && full(&mut self.tokens)
    }
}

fn since_epoch() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Days since 1970, of UTC.
pub(super) fn today() -> i64 {
    (since_epoch() / DAY) as i64
}

fn until_midnight() -> Duration {
    Duration::from_secs(DAY - since_epoch() % DAY)
}
