//! What was used, by day: added up by all processes that share the database, each of which learns from the sums what the others used.

use async_trait::async_trait;
use llama_stack_core::Result;

use crate::{
    Store,
    command::{Command, Failure, Outcome},
    failure,
    sql::{Conn, Row, args},
};

const ADD: &str = "INSERT INTO daily_usage (tenant, principal, day, tokens, cost_micros, requests, changed_us) \
                   VALUES ($1, $2, $3, $4, $5, $6, $7) \
                   ON CONFLICT (tenant, principal, day) DO UPDATE SET tokens = daily_usage.tokens + excluded.tokens, \
                   cost_micros = daily_usage.cost_micros + excluded.cost_micros, \
                   requests = daily_usage.requests + excluded.requests, changed_us = excluded.changed_us";
const GET: &str = "SELECT tenant, principal, tokens, cost_micros, requests FROM daily_usage \
                   WHERE tenant = $1 AND principal = $2 AND day = $3";
const CHANGED: &str = "SELECT tenant, principal, tokens, cost_micros, requests FROM daily_usage WHERE changed_us >= $1 AND day = $2";
const FORGET: &str = "DELETE FROM daily_usage WHERE day < $1";

/// Of one tenant, or one principal of it, in one day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DailyUsage {
    pub tenant: String,
    /// Empty: the whole tenant. Or what [`DailyUsage::of_key`] calls an API key.
    pub principal: String,
    /// Days since 1970, of UTC.
    pub day: i64,
    pub tokens: u64,
    /// In millionths of the currency of the prices.
    pub cost_micros: u64,
    /// Counted only where processes on several machines share their rates.
    pub requests: u64,
}

impl DailyUsage {
    /// What stands for an API key where a principal is named: no principal's name has a slash.
    pub fn of_key(id: &str) -> String {
        format!("/{id}")
    }

    pub fn is_of_key(principal: &str) -> bool {
        principal.starts_with('/')
    }
}

struct Add {
    used: Vec<DailyUsage>,
    now_us: i64,
}

#[async_trait]
impl Command for Add {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        for used in &self.used {
            let (tokens, cost, requests) = (used.tokens as i64, used.cost_micros as i64, used.requests as i64);
            conn.execute(ADD, args![&used.tenant, &used.principal, used.day, tokens, cost, requests, self.now_us]).await?;
        }
        Ok(Outcome::Done)
    }
}

struct Forget(i64);

#[async_trait]
impl Command for Forget {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        conn.execute(FORGET, args![self.0]).await?;
        Ok(Outcome::Done)
    }
}

impl Store {
    /// Adds to what is counted already, all or nothing. `now_us`: microseconds since 1970.
    pub async fn add_usage(&self, mut used: Vec<DailyUsage>, now_us: i64) -> Result<()> {
        // In one order, so that two processes never wait for each other's rows.
        used.sort_unstable_by(|a, b| (&a.tenant, &a.principal, a.day).cmp(&(&b.tenant, &b.principal, b.day)));
        self.write(Add { used, now_us }).await.map(drop)
    }

    /// What was counted so far; nothing where nothing was.
    pub async fn daily_usage(&self, tenant: &str, principal: &str, day: i64) -> Result<DailyUsage> {
        let rows = self.read(GET, args![tenant, principal, day]).await?;
        let empty = DailyUsage { tenant: tenant.into(), principal: principal.into(), day, ..DailyUsage::default() };
        rows.first().map_or(Ok(empty), |row| read(row, day))
    }

    /// Whatever of this day was added to at `since_us` or later, by the clocks of those who added.
    pub async fn usage_changed(&self, since_us: i64, day: i64) -> Result<Vec<DailyUsage>> {
        let rows = self.read(CHANGED, args![since_us, day]).await?;
        rows.iter().map(|row| read(row, day)).collect()
    }

    /// Forgets the days before this one.
    pub async fn forget_usage(&self, before: i64) -> Result<()> {
        self.write(Forget(before)).await.map(drop)
    }
}

fn read(row: &Row, day: i64) -> Result<DailyUsage> {
    let text = |column| row.text(column).map_err(|error| failure::report(&error));
    let count = |column| row.int(column).map(i64::unsigned_abs).map_err(|error| failure::report(&error));
    Ok(DailyUsage { tenant: text(0)?, principal: text(1)?, day, tokens: count(2)?, cost_micros: count(3)?, requests: count(4)? })
}
