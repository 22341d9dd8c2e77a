//! Whose things are another's from now on: those of a principal, or those that were made before callers were told apart.

use std::collections::HashSet;

use async_trait::async_trait;
use llama_stack_core::{Result, ids};
use llama_stack_proto::v1::{Bank, Batch, File, TurnEvent, turn_event::Event};
use prost::Message;

use crate::{
    Store,
    banks::PERSONAL_MEMORY,
    command::{Command, Failure, Outcome},
    failure,
    sql::{Conn, args},
    turns::micros,
};

/// Rows that are read at once, and changed in one transaction.
const PAGE: i64 = 256;

const MOVE_NOTED: &str = "UPDATE owners SET principal = $3 WHERE tenant = $1 AND principal = $2";
const NOTE: &str = "INSERT INTO owners (tenant, id, principal) VALUES ($1, $2, $3) \
                    ON CONFLICT (tenant, id) DO UPDATE SET principal = excluded.principal";
/// In the order in which they began.
const TURNS: &str = "SELECT turns.id, turns.session_id, journal.body FROM turns JOIN journal ON journal.tenant = turns.tenant \
                     AND journal.turn_id = turns.id AND journal.seq = 1 WHERE turns.tenant = $1 AND turns.id > $2 \
                     ORDER BY turns.id LIMIT $3";
/// What nobody was noted for. Of sessions, those without a turn that would say whose they are.
const NOBODYS: [&str; 3] = [
    "SELECT id FROM sessions WHERE tenant = $1 AND id > $2 AND NOT EXISTS (SELECT 1 FROM owners WHERE owners.tenant = sessions.tenant \
     AND owners.id = sessions.id) AND NOT EXISTS (SELECT 1 FROM turns WHERE turns.tenant = sessions.tenant AND turns.session_id = sessions.id) \
     ORDER BY id LIMIT $3",
    "SELECT id FROM agents WHERE tenant = $1 AND id > $2 AND NOT EXISTS (SELECT 1 FROM owners WHERE owners.tenant = agents.tenant \
     AND owners.id = agents.id) ORDER BY id LIMIT $3",
    "SELECT id FROM prompts WHERE tenant = $1 AND id > $2 AND NOT EXISTS (SELECT 1 FROM owners WHERE owners.tenant = prompts.tenant \
     AND owners.id = prompts.id) ORDER BY id LIMIT $3",
];

/// A table with an owner in a column, and in the message beside it.
#[derive(Clone, Copy)]
struct Owned {
    ids: &'static str,
    /// Also holds the row until the transaction ends.
    take: &'static str,
    read: &'static str,
    write: &'static str,
    /// What is in it and was theirs as well.
    within: Option<&'static str>,
    /// The message with another owner.
    given: fn(&[u8], &str) -> Result<Vec<u8>, prost::DecodeError>,
}

const FILES: Owned = Owned {
    ids: "SELECT id FROM files WHERE tenant = $1 AND owner = $2 ORDER BY id LIMIT $3",
    take: "UPDATE files SET owner = $4 WHERE tenant = $1 AND id = $2 AND owner = $3",
    read: "SELECT body FROM files WHERE tenant = $1 AND id = $2",
    write: "UPDATE files SET body = $3 WHERE tenant = $1 AND id = $2",
    within: None,
    given: |body, to| Ok(File { owner: to.into(), ..File::decode(body)? }.encode_to_vec()),
};
const BANKS: Owned = Owned {
    ids: "SELECT id FROM banks WHERE tenant = $1 AND owner = $2 ORDER BY id LIMIT $3",
    // Who has one for the same purpose keeps that for it.
    take: "UPDATE banks SET owner = $4, purpose = CASE WHEN EXISTS (SELECT 1 FROM banks b WHERE b.tenant = $1 \
           AND b.provider_id = banks.provider_id AND b.owner = $4 AND b.purpose = banks.purpose AND b.purpose <> '' AND b.doomed = 0) \
           THEN '' ELSE purpose END WHERE tenant = $1 AND id = $2 AND owner = $3",
    read: "SELECT body FROM banks WHERE tenant = $1 AND id = $2",
    write: "UPDATE banks SET body = $3 WHERE tenant = $1 AND id = $2",
    within: Some(
        "UPDATE bank_documents SET principal = CASE WHEN principal = $3 THEN $4 ELSE principal END, \
         waiting_principal = CASE WHEN waiting_principal = $3 THEN $4 ELSE waiting_principal END \
         WHERE tenant = $1 AND bank_id = $2 AND (principal = $3 OR waiting_principal = $3)",
    ),
    given: |body, to| Ok(Bank { owner: to.into(), ..Bank::decode(body)? }.encode_to_vec()),
};
/// Banks that are for nothing by their column, in the order in which their owner's memory looks at them.
const UNCLAIMED: &str = "SELECT id, body FROM banks WHERE tenant = $1 AND owner = $2 AND purpose = '' AND doomed = 0 AND id > $3 \
                         AND (expires_us = 0 OR expires_us > $4) ORDER BY id LIMIT $5";
const CLAIM: &str = "UPDATE banks SET purpose = $4 WHERE tenant = $1 AND id = $2 AND owner = $3 AND purpose = '' AND doomed = 0 \
                     AND NOT EXISTS (SELECT 1 FROM banks b WHERE b.tenant = $1 AND b.provider_id = banks.provider_id AND b.owner = $3 \
                     AND b.purpose = $4 AND b.doomed = 0)";
const BATCHES: Owned = Owned {
    ids: "SELECT id FROM batches WHERE tenant = $1 AND owner = $2 ORDER BY id LIMIT $3",
    take: "UPDATE batches SET owner = $4 WHERE tenant = $1 AND id = $2 AND owner = $3",
    read: "SELECT body FROM batches WHERE tenant = $1 AND id = $2",
    write: "UPDATE batches SET body = $3 WHERE tenant = $1 AND id = $2",
    within: None,
    given: |body, to| Ok(Batch { owner: to.into(), ..Batch::decode(body)? }.encode_to_vec()),
};

/// Notes whose these are.
struct Note {
    tenant: String,
    ids: Vec<String>,
    to: String,
}

#[async_trait]
impl Command for Note {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        for id in &self.ids {
            conn.execute(NOTE, args![&self.tenant, id, &self.to]).await?;
        }
        Ok(Outcome::Done)
    }
}

struct MoveNoted {
    tenant: String,
    from: String,
    to: String,
}

#[async_trait]
impl Command for MoveNoted {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        Ok(Outcome::Changed(conn.execute(MOVE_NOTED, args![&self.tenant, &self.from, &self.to]).await?))
    }
}

/// Makes the first of these the one for what is remembered of its owner, where they have none for that.
struct Claim {
    tenant: String,
    owner: String,
    ids: Vec<String>,
}

#[async_trait]
impl Command for Claim {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        for id in &self.ids {
            conn.execute(CLAIM, args![&self.tenant, id, &self.owner, PERSONAL_MEMORY.1]).await?;
        }
        Ok(Outcome::Done)
    }
}

struct Give {
    owned: Owned,
    tenant: String,
    ids: Vec<String>,
    from: String,
    to: String,
}

#[async_trait]
impl Command for Give {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let mut given = 0;
        for id in &self.ids {
            if conn.execute(self.owned.take, args![&self.tenant, id, &self.from, &self.to]).await? == 0 {
                continue;
            }
            let rows = conn.rows(self.owned.read, args![&self.tenant, id]).await?;
            let Some(row) = rows.first() else { continue };
            let body = (self.owned.given)(row.bytes(0)?, &self.to).map_err(|error| sqlx::Error::Decode(error.into()))?;
            conn.execute(self.owned.write, args![&self.tenant, id, &body]).await?;
            if let Some(within) = self.owned.within {
                conn.execute(within, args![&self.tenant, id, &self.from, &self.to]).await?;
            }
            given += 1;
        }
        Ok(Outcome::Changed(given))
    }
}

impl Store {
    /// Makes all that is `from`'s in this tenant `to`'s: agents, sessions, turns, prompts, files, banks and batches. `nobodys`: also
    /// what nobody was noted for. Returns how many there were. What breaks off is gone on with by another call.
    ///
    /// # Errors
    /// As every method.
    pub async fn hand_over(&self, tenant: &str, from: &str, to: &str, nobodys: bool) -> Result<u64> {
        let mut count = self.hand_over_turns(tenant, from, to).await?;
        if nobodys {
            for sql in NOBODYS {
                count += self.hand_over_nobodys(sql, tenant, to).await?;
            }
        }
        count += self.changed(MoveNoted { tenant: tenant.into(), from: from.into(), to: to.into() }).await?;
        // What comes must not take the place of what they have.
        self.claim_personal(tenant, to).await?;
        for owned in [FILES, BANKS, BATCHES] {
            loop {
                let rows = self.read(owned.ids, args![tenant, from, PAGE]).await?;
                let ids: Vec<String> =
                    rows.iter().map(|row| row.text(0)).collect::<Result<_, _>>().map_err(|error| failure::report(&error))?;
                if ids.is_empty() {
                    break;
                }
                count += self.changed(Give { owned, tenant: tenant.into(), ids, from: from.into(), to: to.into() }).await?;
            }
        }
        Ok(count)
    }

    /// What is remembered of them may be in a bank that is older than purposes.
    async fn claim_personal(&self, tenant: &str, owner: &str) -> Result<()> {
        let (mut after, now) = (String::new(), micros(Some(&ids::now())));
        loop {
            let rows = self.read(UNCLAIMED, args![tenant, owner, &after, now, PAGE]).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = last.text(0).map_err(|error| failure::report(&error))?;
            let mut ids = Vec::new();
            for row in &rows {
                let bank: Bank = failure::decode_column(row, 1)?;
                if bank.metadata.get(PERSONAL_MEMORY.0).is_some_and(|is| is == PERSONAL_MEMORY.1) {
                    ids.push(row.text(0).map_err(|error| failure::report(&error))?);
                }
            }
            if !ids.is_empty() {
                self.write(Claim { tenant: tenant.into(), owner: owner.into(), ids }).await?;
            }
        }
    }

    async fn changed(&self, command: impl Command + 'static) -> Result<u64> {
        Ok(if let Outcome::Changed(count) = self.write(command).await? { count } else { 0 })
    }

    async fn note(&self, tenant: &str, ids: Vec<String>, to: &str) -> Result<u64> {
        let count = ids.len() as u64;
        if count > 0 {
            self.write(Note { tenant: tenant.into(), ids, to: to.into() }).await?;
        }
        Ok(count)
    }

    /// Who began a turn is in its journal, which nobody rewrites: what is noted comes before that. A session that nobody was noted
    /// for is whose its first turn is.
    async fn hand_over_turns(&self, tenant: &str, from: &str, to: &str) -> Result<u64> {
        let (mut after, mut count, mut sessions) = (String::new(), 0, HashSet::new());
        loop {
            let rows = self.read(TURNS, args![tenant, &after, PAGE]).await?;
            let Some(last) = rows.last() else { return Ok(count) };
            after = last.text(0).map_err(|error| failure::report(&error))?;
            let mut ids = Vec::new();
            for row in &rows {
                let (turn, session) = (|| Ok((row.text(0)?, row.text(1)?)))().map_err(|error: sqlx::Error| failure::report(&error))?;
                let event: TurnEvent = failure::decode_column(row, 2)?;
                let is_first = sessions.insert(session.clone());
                if !matches!(&event.event, Some(Event::Created(created)) if created.principal == from) {
                    continue;
                }
                // One that was handed over before stays where it is; one that was noted as from's is moved with the others.
                if self.owner(tenant, &turn).await?.is_none() {
                    ids.push(turn);
                }
                if is_first && self.owner(tenant, &session).await?.is_none() {
                    ids.push(session);
                }
            }
            count += self.note(tenant, ids, to).await?;
        }
    }

    async fn hand_over_nobodys(&self, sql: &'static str, tenant: &str, to: &str) -> Result<u64> {
        let (mut after, mut count) = (String::new(), 0);
        loop {
            let rows = self.read(sql, args![tenant, &after, PAGE]).await?;
            let ids: Vec<String> = rows.iter().map(|row| row.text(0)).collect::<Result<_, _>>().map_err(|error| failure::report(&error))?;
            let Some(last) = ids.last() else { return Ok(count) };
            after.clone_from(last);
            count += self.note(tenant, ids, to).await?;
        }
    }
}
