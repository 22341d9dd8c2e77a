//! Banks: who owns them, until when they are there. What they hold is in [`crate::documents`] and in their provider's index.

use async_trait::async_trait;
use llama_stack_core::{Result, ids};
use llama_stack_proto::v1::Bank;
use prost::Message as _;
use prost_types::Timestamp;

use crate::{
    Store,
    command::{Command, Failure, Outcome, not_found},
    failure,
    sql::{Conn, Row, args},
    turns::micros,
};

const INSERT: &str = "INSERT INTO banks (tenant, id, provider_id, owner, shared, kind, active_us, expires_us, doomed, body, purpose) \
                      VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9, $10) \
                      ON CONFLICT (tenant, provider_id, owner, purpose) WHERE purpose <> '' AND doomed = 0 DO NOTHING";
/// One whose time is over is in nobody's way.
const MAKE_ROOM: &str = "UPDATE banks SET doomed = 1 WHERE tenant = $1 AND provider_id = $2 AND owner = $3 AND purpose = $4 \
                         AND purpose <> '' AND doomed = 0 AND expires_us > 0 AND expires_us <= $5";
const UPDATE: &str =
    "UPDATE banks SET shared = $4, expires_us = $5, body = $6 WHERE tenant = $1 AND id = $2 AND provider_id = $3 AND doomed = 0";
const TOUCH: &str = "UPDATE banks SET active_us = $3, expires_us = CASE WHEN expires_us = 0 THEN 0 ELSE $4 END \
                     WHERE tenant = $1 AND id = $2 AND active_us < $3";
const GET: &str =
    "SELECT body, active_us, expires_us, purpose FROM banks WHERE tenant = $1 AND id = $2 AND provider_id = $3 AND doomed = 0";
const OLDEST: &str = "SELECT body, active_us, expires_us, purpose FROM banks WHERE tenant = $1 AND provider_id = $2 AND doomed = 0 AND id > $3 \
                      AND (expires_us = 0 OR expires_us > $5) AND ($6 = 0 OR kind = $6) AND ($8 = 1 OR shared = 1 OR owner = $7) \
                      ORDER BY id LIMIT $4";
const NEWEST: &str = "SELECT body, active_us, expires_us, purpose FROM banks WHERE tenant = $1 AND provider_id = $2 AND doomed = 0 AND id < $3 \
                      AND (expires_us = 0 OR expires_us > $5) AND ($6 = 0 OR kind = $6) AND ($8 = 1 OR shared = 1 OR owner = $7) \
                      ORDER BY id DESC LIMIT $4";
const FOR_PURPOSE: &str = "SELECT body, active_us, expires_us, purpose FROM banks WHERE tenant = $1 AND provider_id = $2 AND owner = $3 \
                           AND purpose = $4 AND purpose <> '' AND doomed = 0 AND (expires_us = 0 OR expires_us > $5)";
const DOOM: &str = "UPDATE banks SET doomed = 1 WHERE tenant = $1 AND id = $2 AND provider_id = $3 AND doomed = 0";
const DOOM_EXPIRED: &str = "UPDATE banks SET doomed = 1 WHERE provider_id = $1 AND expires_us > 0 AND expires_us <= $2 AND doomed = 0";
const DOOMED: &str = "SELECT tenant, id FROM banks WHERE provider_id = $1 AND doomed = 1 ORDER BY id LIMIT 1000";
/// Its documents and ingestions go with it, by their foreign keys.
const DELETE: &str = "DELETE FROM banks WHERE tenant = $1 AND id = $2 AND provider_id = $3 AND doomed = 1";
/// Kept for good: what a turn under way found in it is not written any more.
const BURY: &str = "INSERT INTO deleted_banks (tenant, bank_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";

/// Says of a bank that it holds what is remembered of its owner: its purpose, and under which name its metadata have it. Those that were
/// made before banks had purposes, and copies, have it in their metadata alone.
pub const PERSONAL_MEMORY: (&str, &str) = ("llama_stack.purpose", "personal_memory");

/// Which banks of a provider, in which order, from where.
#[derive(Clone, Copy, Debug, Default)]
pub struct BankList<'a> {
    pub provider_id: &'a str,
    /// Only those that this principal may read. `None`: all of the tenant's.
    pub principal: Option<&'a str>,
    /// A `BankKind`; 0: all.
    pub kind: i32,
    pub newest_first: bool,
    /// 0 means 100, at most 1,000.
    pub page_size: u32,
    pub page_token: &'a str,
}

/// A bank whose deletion has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoomedBank {
    pub tenant: String,
    pub id: String,
}

struct Insert(String, Bank);

#[async_trait]
impl Command for Insert {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let Self(tenant, bank) = self;
        let (shared, kind, active) = (i64::from(bank.shared), i64::from(bank.kind), micros(bank.last_active.as_ref()));
        let (expires, body) = (expiry(bank, active), bank.encode_to_vec());
        let (id, provider_id, owner, purpose) = (&bank.id, &bank.provider_id, &bank.owner, &bank.purpose);
        if !purpose.is_empty() {
            conn.execute(MAKE_ROOM, args![tenant, provider_id, owner, purpose, micros(Some(&ids::now()))]).await?;
        }
        let args = args![tenant, id, provider_id, owner, shared, kind, active, expires, &body, purpose];
        Ok(Outcome::Changed(conn.execute(INSERT, args).await?))
    }
}

struct Update(String, Bank);

#[async_trait]
impl Command for Update {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let Self(tenant, bank) = self;
        let (expires, body) = (expiry(bank, micros(bank.last_active.as_ref())), bank.encode_to_vec());
        match conn.execute(UPDATE, args![tenant, &bank.id, &bank.provider_id, i64::from(bank.shared), expires, &body]).await? {
            0 => Err(not_found("bank", &bank.id).into()),
            _ => Ok(Outcome::Done),
        }
    }
}

/// One statement over one bank.
struct Change {
    sql: &'static str,
    tenant: String,
    id: String,
    provider_id: String,
}

#[async_trait]
impl Command for Change {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        Ok(Outcome::Changed(conn.execute(self.sql, args![&self.tenant, &self.id, &self.provider_id]).await?))
    }
}

struct Delete {
    tenant: String,
    id: String,
    provider_id: String,
}

#[async_trait]
impl Command for Delete {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        conn.execute(DELETE, args![&self.tenant, &self.id, &self.provider_id]).await?;
        conn.execute(BURY, args![&self.tenant, &self.id]).await?;
        Ok(Outcome::Done)
    }
}

struct Touch {
    tenant: String,
    id: String,
    active_us: i64,
    expires_us: i64,
}

#[async_trait]
impl Command for Touch {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        conn.execute(TOUCH, args![&self.tenant, &self.id, self.active_us, self.expires_us]).await?;
        Ok(Outcome::Done)
    }
}

struct DoomExpired(String, i64);

#[async_trait]
impl Command for DoomExpired {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        Ok(Outcome::Changed(conn.execute(DOOM_EXPIRED, args![&self.0, self.1]).await?))
    }
}

impl Store {
    /// Stores a new bank of its `provider_id`. False where its owner has one for this purpose there.
    ///
    /// # Errors
    /// `AlreadyExists` the id is taken
    pub async fn insert_bank(&self, tenant: &str, bank: &Bank) -> Result<bool> {
        Ok(self.write(Insert(tenant.into(), bank.clone())).await? != Outcome::Changed(0))
    }

    /// The bank that this owner has for this purpose, if there is one and it has not expired by `now`.
    pub async fn bank_for(&self, tenant: &str, provider_id: &str, owner: &str, purpose: &str, now: &Timestamp) -> Result<Option<Bank>> {
        let rows = self.read(FOR_PURPOSE, args![tenant, provider_id, owner, purpose, micros(Some(now))]).await?;
        rows.first().map(read).transpose()
    }

    /// Stores what may change of a bank: name, metadata, `shared`, and when it expires after its `last_active`.
    ///
    /// # Errors
    /// `NotFound`
    pub async fn update_bank(&self, tenant: &str, bank: &Bank) -> Result<()> {
        self.write(Update(tenant.into(), bank.clone())).await.map(drop)
    }

    /// Says that the bank was used now, which puts off its end. Never moves back.
    pub async fn touch_bank(&self, tenant: &str, bank: &Bank, now: &Timestamp) -> Result<()> {
        let active_us = micros(Some(now));
        let command = Touch { tenant: tenant.into(), id: bank.id.clone(), active_us, expires_us: expiry(bank, active_us) };
        self.write(command).await.map(drop)
    }

    /// With its `last_active` and `expires`, without counts. Whoever asks looks whether that is past.
    ///
    /// # Errors
    /// `NotFound`
    pub async fn get_bank(&self, tenant: &str, provider_id: &str, id: &str) -> Result<Bank> {
        let rows = self.read(GET, args![tenant, id, provider_id]).await?;
        rows.first().map_or_else(|| Err(not_found("bank", id)), read)
    }

    /// A page of the banks that have not expired by `now`, and the token of the next (empty at the end).
    ///
    /// # Errors
    /// `InvalidArgument` a token that this list never gave
    pub async fn list_banks(&self, tenant: &str, list: BankList<'_>, now: &Timestamp) -> Result<(Vec<Bank>, String)> {
        let order = if list.newest_first { "newest" } else { "oldest" };
        let name = format!("banks/{}/{order}/{}/{}", list.provider_id, list.kind, list.principal.unwrap_or("*"));
        let page = self.page(&[tenant, &name], list.page_size, list.page_token).await?;
        let (sql, from) = if list.newest_first { (NEWEST, page.newest_first()) } else { (OLDEST, page.oldest_first()) };
        let (kind, principal, everyone) = (i64::from(list.kind), list.principal.unwrap_or_default(), i64::from(list.principal.is_none()));
        let args = args![tenant, list.provider_id, from, page.limit(), micros(Some(now)), kind, principal, everyone];
        let banks = self.read(sql, args).await?.iter().map(read).collect::<Result<Vec<Bank>>>()?;
        page.cut(banks, |bank| &bank.id)
    }

    /// Begins a bank's deletion: from now on it is not there. [`Store::delete_bank`] ends it, when its chunks are gone.
    ///
    /// # Errors
    /// `NotFound`
    pub async fn doom_bank(&self, tenant: &str, provider_id: &str, id: &str) -> Result<()> {
        let command = Change { sql: DOOM, tenant: tenant.into(), id: id.into(), provider_id: provider_id.into() };
        match self.write(command).await? {
            Outcome::Changed(0) => Err(not_found("bank", id)),
            _ => Ok(()),
        }
    }

    /// Begins the deletion of the banks that expired by `now`, and gives those whose deletion has begun, of all tenants;
    /// at most 1,000.
    pub async fn doomed_banks(&self, provider_id: &str, now: &Timestamp) -> Result<Vec<DoomedBank>> {
        self.write(DoomExpired(provider_id.into(), micros(Some(now)))).await?;
        let rows = self.read(DOOMED, args![provider_id]).await?;
        let read = |row: &Row| Ok(DoomedBank { tenant: row.text(0)?, id: row.text(1)? });
        rows.iter().map(read).collect::<sqlx::Result<_>>().map_err(|error| failure::report(&error))
    }

    /// Ends the deletion of a bank, with its documents and ingestions, and what journals quote of them. Idempotent.
    pub async fn delete_bank(&self, tenant: &str, provider_id: &str, id: &str) -> Result<()> {
        self.write(Delete { tenant: tenant.into(), id: id.into(), provider_id: provider_id.into() }).await?;
        self.forget_quotes_of_bank(tenant, id).await?;
        self.fold_log().await;
        Ok(())
    }
}

/// Microseconds since the epoch; 0: never.
fn expiry(bank: &Bank, active_us: i64) -> i64 {
    let after = i64::try_from(bank.expires_after_seconds).unwrap_or(i64::MAX);
    if after == 0 { 0 } else { active_us.saturating_add(after.saturating_mul(1_000_000)) }
}

/// The columns know best when it was used last, and whether it is the one for its purpose.
fn read(row: &Row) -> Result<Bank> {
    let mut bank: Bank = failure::decode(row)?;
    let int = |column| row.int(column).map_err(|error| failure::report(&error));
    bank.last_active = Some(timestamp(int(1)?));
    bank.expires = Some(int(2)?).filter(|expires| *expires > 0).map(timestamp);
    bank.purpose = row.text(3).map_err(|error| failure::report(&error))?;
    Ok(bank)
}

pub(crate) fn timestamp(micros: i64) -> Timestamp {
    Timestamp { seconds: micros.div_euclid(1_000_000), nanos: (micros.rem_euclid(1_000_000) * 1_000) as i32 }
}
