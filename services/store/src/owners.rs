//! Whose a thing is, for what has no column of its own for it: agents, sessions, prompts, and turns that were handed over.

use std::collections::HashMap;

use async_trait::async_trait;
use llama_stack_core::{Error, Result, context::Principal};
use llama_stack_proto::v1::{TurnEvent, turn_event::Event};

use crate::{
    Store,
    command::{Command, Failure, Outcome},
    failure,
    sql::{Conn, Row, args},
};

const PUT: &str = "INSERT INTO owners (tenant, id, principal) VALUES ($1, $2, $3) ON CONFLICT (tenant, id) DO NOTHING";
const GET: &str = "SELECT principal FROM owners WHERE tenant = $1 AND id = $2";
/// Who began a session's first turn is whose session it is, where nobody made it for itself.
const FIRST_TURN: &str = "SELECT id FROM turns WHERE tenant = $1 AND session_id = $2 ORDER BY id LIMIT 1";
const CREATED: &str = "SELECT body FROM journal WHERE tenant = $1 AND turn_id = $2 AND seq = 1";

const NOTED: [&str; 2] = [
    "SELECT id, principal FROM owners WHERE tenant = $1 AND id IN (SELECT value FROM json_each($2))",
    "SELECT id, principal FROM owners WHERE tenant = $1 AND id = ANY (ARRAY(SELECT json_array_elements_text(CAST($2 AS json))))",
];

/// Sessions `s` with whose they are, as [`Store::owner_of_session`] finds it, in the last two columns: who is noted for it or for its first
/// turn, and the event of that turn that says who began it. `which`: those of `sessions i` that are asked for; `more`: what `s` has beside
/// its tenant and its id.
macro_rules! owned_sessions {
    ($columns:literal, $more:literal, $which:literal) => {
        concat!(
            "SELECT ",
            $columns,
            ", COALESCE(noted.principal, handed.principal, ''), COALESCE(j.body, '') FROM (SELECT i.tenant, i.id, \
             (SELECT MIN(t.id) FROM turns t WHERE t.tenant = i.tenant AND t.session_id = i.id) AS first_turn",
            $more,
            " FROM sessions i WHERE ",
            $which,
            ") s LEFT JOIN owners noted ON noted.tenant = s.tenant AND noted.id = s.id \
             LEFT JOIN owners handed ON handed.tenant = s.tenant AND handed.id = s.first_turn \
             LEFT JOIN journal j ON j.tenant = s.tenant AND j.turn_id = s.first_turn AND j.seq = 1 ORDER BY s.tenant, s.id"
        )
    };
}
pub(crate) use owned_sessions;

const OF_SESSIONS: [&str; 2] = [
    owned_sessions!("s.id", "", "i.tenant = $1 AND i.id IN (SELECT value FROM json_each($2))"),
    owned_sessions!("s.id", "", "i.tenant = $1 AND i.id = ANY (ARRAY(SELECT json_array_elements_text(CAST($2 AS json))))"),
];

/// Of the last two columns of [`owned_sessions`], of which this is the first.
pub(crate) fn owner_in(row: &Row, column: usize) -> Result<Option<String>> {
    let noted = row.text(column).map_err(|error| failure::report(&error))?;
    if noted.is_empty() { failure::decode_column(row, column + 1).map(began) } else { Ok(Some(noted)) }
}

/// Who began the turn whose first event this is, if it says so.
fn began(event: TurnEvent) -> Option<String> {
    match event.event {
        Some(Event::Created(turn)) => Some(turn.principal).filter(|principal| !principal.is_empty()),
        _ => None,
    }
}

struct Put {
    tenant: String,
    id: String,
    principal: String,
}

#[async_trait]
impl Command for Put {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        conn.execute(PUT, args![&self.tenant, &self.id, &self.principal]).await?;
        Ok(Outcome::Done)
    }
}

impl Store {
    /// Notes whose it is; who is noted already stays.
    pub async fn put_owner(&self, principal: &Principal, id: &str) -> Result<()> {
        let command = Put { tenant: principal.tenant.clone(), id: id.into(), principal: principal.id.clone() };
        self.write(command).await.map(drop)
    }

    /// Who was noted. `None`: nobody.
    pub async fn owner(&self, tenant: &str, id: &str) -> Result<Option<String>> {
        self.one_text(GET, tenant, id).await
    }

    /// Who was noted for a turn, or else began it. `None`: there is no such turn, or it does not say.
    pub async fn owner_of_turn(&self, tenant: &str, turn_id: &str) -> Result<Option<String>> {
        if let Some(owner) = self.owner(tenant, turn_id).await? {
            return Ok(Some(owner));
        }
        let rows = self.read(CREATED, args![tenant, turn_id]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        failure::decode(row).map(began)
    }

    /// Who made a session, or began its first turn. `None`: nobody is known.
    pub async fn owner_of_session(&self, tenant: &str, session_id: &str) -> Result<Option<String>> {
        if let Some(owner) = self.owner(tenant, session_id).await? {
            return Ok(Some(owner));
        }
        match self.one_text(FIRST_TURN, tenant, session_id).await? {
            Some(turn) => self.owner_of_turn(tenant, &turn).await,
            None => Ok(None),
        }
    }

    /// Who was noted for these, in one statement; those that nobody was noted for are missing.
    pub async fn owners(&self, tenant: &str, ids: &[&str]) -> Result<HashMap<String, String>> {
        let rows = self.of_ids(NOTED, tenant, ids).await?;
        let noted = |row: &Row| Ok((row.text(0)?, row.text(1)?));
        rows.iter().map(noted).collect::<sqlx::Result<_>>().map_err(|error| failure::report(&error))
    }

    /// [`Store::owner_of_session`] of these, in one statement; those of whom nobody is known are missing.
    pub async fn owners_of_sessions(&self, tenant: &str, ids: &[&str]) -> Result<HashMap<String, String>> {
        let rows = self.of_ids(OF_SESSIONS, tenant, ids).await?;
        let known = |row: &Row| -> Result<Option<(String, String)>> {
            let id = row.text(0).map_err(|error| failure::report(&error))?;
            Ok(owner_in(row, 1)?.map(|owner| (id, owner)))
        };
        rows.iter().filter_map(|row| known(row).transpose()).collect()
    }

    async fn of_ids(&self, sql: [&'static str; 2], tenant: &str, ids: &[&str]) -> Result<Vec<Row>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let list = serde_json::to_string(ids).map_err(|error| Error::internal("ids are no JSON").with_source(error))?;
        self.read(self.worded(sql), args![tenant, &list]).await
    }

    async fn one_text(&self, sql: &'static str, tenant: &str, id: &str) -> Result<Option<String>> {
        let rows = self.read(sql, args![tenant, id]).await?;
        rows.first().map(|row| row.text(0)).transpose().map_err(|error| failure::report(&error))
    }
}
