//! All that is a tenant's, or a person's: found by the columns that every table has for it, so that a table that is added later is
//! not forgotten.

use std::{collections::BTreeMap, sync::Mutex, sync::PoisonError};

use async_trait::async_trait;
use llama_stack_core::Result;
use llama_stack_proto::v1::{ApiKey, TurnEvent, turn_event::Event};

use crate::{
    DailyUsage, Store,
    command::{Command, Failure, Outcome},
    failure,
    sql::{Arg, Conn, args},
    tables::{self, Table},
};

/// Rows that are looked at in one query.
const PAGE: i64 = 500;

/// With whom the turn was noted for since, if it was.
const FIRST_EVENTS: &str = "SELECT j.turn_id, j.body, COALESCE(o.principal, '') FROM journal j LEFT JOIN owners o ON o.tenant = j.tenant \
                            AND o.id = j.turn_id WHERE j.tenant = $1 AND j.turn_id > $2 AND j.seq = 1 ORDER BY j.turn_id LIMIT $3";
const DOCUMENTS: &str = "SELECT bank_id, id FROM bank_documents WHERE tenant = $1 AND (principal = $2 OR waiting_principal = $2) \
                         ORDER BY bank_id, id";
const BANK_PROVIDERS: &str = "SELECT DISTINCT provider_id FROM banks b WHERE tenant = $1 AND ($2 = '' OR owner = $2 OR EXISTS \
                              (SELECT 1 FROM bank_documents d WHERE d.tenant = b.tenant AND d.bank_id = b.id \
                              AND (d.principal = $2 OR d.waiting_principal = $2))) \
                              ORDER BY provider_id";
const OWNED: &str = "SELECT id FROM owners WHERE tenant = $1 AND principal = $2 ORDER BY id";
const KEYS: &str = "SELECT id, body FROM api_keys WHERE tenant = $1";
const FORGET_KEY: &str = "DELETE FROM api_keys WHERE tenant = $1 AND id = $2";
const FORGET_USAGE: &str = "DELETE FROM daily_usage WHERE tenant = $1 AND principal = $2";
/// Named as [`DailyUsage::of_key`] does.
const FORGET_LATE_USAGE: &str = "DELETE FROM daily_usage WHERE tenant = $1 AND principal LIKE '/%' AND NOT EXISTS (SELECT 1 FROM api_keys \
                                 WHERE api_keys.tenant = daily_usage.tenant AND '/' || api_keys.id = daily_usage.principal)";
/// Their lines go with them.
const FORGET_BATCHES: &str = "DELETE FROM batches WHERE tenant = $1 AND ($2 = '' OR owner = $2)";
const FORGET_REPETITION: &str = "DELETE FROM idempotency_keys WHERE tenant = $1 AND turn_id = $2";

/// Tables whose rows name what lies elsewhere: their services delete both.
const OF_SERVICES: [&str; 4] = ["files", "banks", "bank_documents", "ingestions"];
/// Goes by its age alone: who may erase must not be able to hide what they did.
const AUDIT: &str = "audit_events";
/// Its owner is the process that runs a turn.
const TURNS: &str = "turns";

struct Erase {
    tenant: String,
    /// None: all of the tenant.
    principal: Option<String>,
    /// With the columns that are compared.
    tables: Vec<(Table, Option<&'static str>)>,
    /// Those of the person, whose repetitions are forgotten with them.
    turns: Vec<String>,
    counts: std::sync::Arc<Mutex<BTreeMap<String, u64>>>,
}

#[async_trait]
impl Command for Erase {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        // It may be applied more than once before it is committed.
        let mut counts = BTreeMap::new();
        for turn in &self.turns {
            *counts.entry("idempotency_keys".to_owned()).or_default() += conn.execute(FORGET_REPETITION, args![&self.tenant, turn]).await?;
        }
        // What was counted of keys that are forgotten, and was told only after they were.
        *counts.entry("daily_usage".to_owned()).or_default() += conn.execute(FORGET_LATE_USAGE, args![&self.tenant]).await?;
        // Those that refer to others first.
        for (table, column) in self.tables.iter().rev() {
            let (name, tenant) = (&table.name, Arg::from(&self.tenant));
            let deleted = match (column, &self.principal) {
                (Some(column), Some(principal)) => {
                    let sql = format!("DELETE FROM \"{name}\" WHERE tenant = $1 AND \"{column}\" = $2");
                    conn.execute_made(sql, &[tenant, Arg::from(principal)]).await?
                }
                _ => conn.execute_made(format!("DELETE FROM \"{name}\" WHERE tenant = $1"), &[tenant]).await?,
            };
            *counts.entry(name.clone()).or_default() += deleted;
        }
        counts.retain(|_, count| *count > 0);
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
        Ok(Outcome::Done)
    }
}

struct ForgetKeys {
    tenant: String,
    ids: Vec<String>,
}

#[async_trait]
impl Command for ForgetKeys {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        for id in &self.ids {
            conn.execute(FORGET_KEY, args![&self.tenant, id]).await?;
            conn.execute(FORGET_USAGE, args![&self.tenant, &DailyUsage::of_key(id)]).await?;
        }
        Ok(Outcome::Done)
    }
}

struct ForgetBatches {
    tenant: String,
    owner: String,
}

#[async_trait]
impl Command for ForgetBatches {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        Ok(Outcome::Changed(conn.execute(FORGET_BATCHES, args![&self.tenant, &self.owner]).await?))
    }
}

impl Store {
    /// The turns that are a person's, in the order of their making: begun by them and not handed over since, or handed to them.
    pub async fn turns_of(&self, tenant: &str, principal: &str) -> Result<Vec<String>> {
        let (mut turns, mut after) = (Vec::new(), String::new());
        loop {
            let rows = self.read(FIRST_EVENTS, args![tenant, &after, PAGE]).await?;
            for row in &rows {
                after = row.text(0).map_err(|error| failure::report(&error))?;
                let event: TurnEvent = failure::decode_column(row, 1)?;
                let given = row.text(2).map_err(|error| failure::report(&error))?;
                let began = matches!(&event.event, Some(Event::Created(turn)) if turn.principal == principal);
                if given == principal || (given.is_empty() && began) {
                    turns.push(after.clone());
                }
            }
            if (rows.len() as i64) < PAGE {
                return Ok(turns);
            }
        }
    }

    /// Bank and id of the documents that a person inserted, in whosever banks.
    pub async fn documents_of(&self, tenant: &str, principal: &str) -> Result<Vec<(String, String)>> {
        let rows = self.read(DOCUMENTS, args![tenant, principal]).await?;
        let two = |row: &crate::sql::Row| Ok((row.text(0)?, row.text(1)?));
        rows.iter().map(two).collect::<sqlx::Result<_>>().map_err(|error| failure::report(&error))
    }

    /// The ids of what is noted as a person's: agents, prompts, sessions.
    pub async fn owned_by(&self, tenant: &str, principal: &str) -> Result<Vec<String>> {
        let rows = self.read(OWNED, args![tenant, principal]).await?;
        rows.iter().map(|row| row.text(0)).collect::<sqlx::Result<_>>().map_err(|error| failure::report(&error))
    }

    /// The providers that have banks of a tenant, or of one person of it, or with documents that the person inserted.
    pub async fn bank_providers(&self, tenant: &str, principal: Option<&str>) -> Result<Vec<String>> {
        let rows = self.read(BANK_PROVIDERS, args![tenant, principal.unwrap_or_default()]).await?;
        rows.iter().map(|row| row.text(0)).collect::<sqlx::Result<_>>().map_err(|error| failure::report(&error))
    }

    /// Forgets the keys that speak for a person, or all of the tenant's, and says how many there were; but for those that speak
    /// for `spared`.
    pub async fn forget_api_keys(&self, tenant: &str, principal: Option<&str>, spared: Option<&str>) -> Result<u64> {
        let mut ids = Vec::new();
        for row in self.read(KEYS, args![tenant]).await? {
            let key: ApiKey = failure::decode_column(&row, 1)?;
            if principal.is_none_or(|principal| key.principal == principal) && spared.is_none_or(|spared| key.principal != spared) {
                ids.push(row.text(0).map_err(|error| failure::report(&error))?);
            }
        }
        let count = ids.len() as u64;
        self.erase(ForgetKeys { tenant: tenant.into(), ids }).await?;
        Ok(count)
    }

    /// Forgets the batches of a person, or all of the tenant's, with their answers, and says how many there were. Whoever runs one
    /// of them stops at its next write.
    pub async fn forget_batches(&self, tenant: &str, principal: Option<&str>) -> Result<u64> {
        let command = ForgetBatches { tenant: tenant.into(), owner: principal.unwrap_or_default().into() };
        Ok(if let Outcome::Changed(count) = self.erase(command).await? { count } else { 0 })
    }

    /// Deletes the rows of a tenant, or of one person of it, from every table but those of files and banks, whose services delete
    /// more than rows; and what was used with API keys that are forgotten. `turns`: those of the person. Counts by table, of those that
    /// had any.
    pub async fn erase_rows(&self, tenant: &str, principal: Option<&str>, turns: Vec<String>) -> Result<BTreeMap<String, u64>> {
        let all = tables::after(&tables::known_migrations()).await?.into_iter();
        let all =
            all.filter(|table| table.column("tenant").is_some() && !OF_SERVICES.contains(&table.name.as_str()) && table.name != AUDIT);
        let persons = |table: &Table| {
            let has = |column: &'static str| table.column(column).map(|_| column);
            has("principal").or_else(|| has("owner")).filter(|_| table.name != TURNS)
        };
        let tables = all.filter_map(|table| match (principal, persons(&table)) {
            (Some(_), None) => None,
            (_, column) => Some((table, column)),
        });
        let counts = std::sync::Arc::<Mutex<BTreeMap<String, u64>>>::default();
        let command = Erase {
            tenant: tenant.into(),
            principal: principal.map(str::to_owned),
            tables: tables.collect(),
            turns,
            counts: counts.clone(),
        };
        self.erase(command).await?;
        let counts = std::mem::take(&mut *counts.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(counts)
    }
}
