//! What was used, by day: added up by all processes that share the database.

use async_trait::async_trait;
use llama_stack_core::Result;

use crate::{
    Store,
    command::{Command, Failure, Outcome},
    failure,
    sql::{Conn, args},
};

const ADD: &str = "INSERT INTO daily_usage (tenant, principal, day, tokens, cost_micros) VALUES ($1, $2, $3, $4, $5) \
                   ON CONFLICT (tenant, principal, day) DO UPDATE SET tokens = daily_usage.tokens + excluded.tokens, \
                   cost_micros = daily_usage.cost_micros + excluded.cost_micros";
const GET: &str = "SELECT tokens, cost_micros FROM daily_usage WHERE tenant = $1 AND principal = $2 AND day = $3";
const FORGET: &str = "DELETE FROM daily_usage WHERE day < $1";

/// Of one tenant, or one principal of it, in one day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DailyUsage {
    pub tenant: String,
    /// Empty: the whole tenant.
    pub principal: String,
    /// Days since 1970, of UTC.
    pub day: i64,
    pub tokens: u64,
    /// In millionths of the currency of the prices.
    pub cost_micros: u64,
}

struct Add(Vec<DailyUsage>);

#[async_trait]
impl Command for Add {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        for used in &self.0 {
            let (tokens, cost) = (used.tokens as i64, used.cost_micros as i64);
            conn.execute(ADD, args![&used.tenant, &used.principal, used.day, tokens, cost]).await?;
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
    /// Adds to what is counted already, all or nothing.
    pub async fn add_usage(&self, mut used: Vec<DailyUsage>) -> Result<()> {
        // In one order, so that two processes never wait for each other's rows.
        used.sort_unstable_by(|a, b| (&a.tenant, &a.principal, a.day).cmp(&(&b.tenant, &b.principal, b.day)));
        self.write(Add(used)).await.map(drop)
    }

    /// What was counted so far; nothing where nothing was.
    pub async fn daily_usage(&self, tenant: &str, principal: &str, day: i64) -> Result<DailyUsage> {
        let rows = self.read(GET, args![tenant, principal, day]).await?;
        let empty = DailyUsage { tenant: tenant.into(), principal: principal.into(), day, ..DailyUsage::default() };
        let Some(row) = rows.first() else { return Ok(empty) };
        let read = |column| row.int(column).map(i64::unsigned_abs).map_err(|error| failure::report(&error));
        Ok(DailyUsage { tokens: read(0)?, cost_micros: read(1)?, ..empty })
    }

    /// Forgets the days before this one.
    pub async fn forget_usage(&self, before: i64) -> Result<()> {
        self.write(Forget(before)).await.map(drop)
    }
}
