//! Whose a thing is, for what has no column of its own for it: agents, sessions, prompts, and turns that were handed over.

use async_trait::async_trait;
use llama_stack_core::{Result, context::Principal};
use llama_stack_proto::v1::{TurnEvent, turn_event::Event};

use crate::{
    Store,
    command::{Command, Failure, Outcome},
    failure,
    sql::{Conn, args},
};

const PUT: &str = "INSERT INTO owners (tenant, id, principal) VALUES ($1, $2, $3) ON CONFLICT (tenant, id) DO NOTHING";
const GET: &str = "SELECT principal FROM owners WHERE tenant = $1 AND id = $2";
/// Who began a session's first turn is whose session it is, where nobody made it for itself.
const FIRST_TURN: &str = "SELECT id FROM turns WHERE tenant = $1 AND session_id = $2 ORDER BY id LIMIT 1";
const CREATED: &str = "SELECT body FROM journal WHERE tenant = $1 AND turn_id = $2 AND seq = 1";

/// Who began the turn whose first event this is, if it says so.
pub(crate) fn began(event: TurnEvent) -> Option<String> {
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

    async fn one_text(&self, sql: &'static str, tenant: &str, id: &str) -> Result<Option<String>> {
        let rows = self.read(sql, args![tenant, id]).await?;
        rows.first().map(|row| row.text(0)).transpose().map_err(|error| failure::report(&error))
    }
}
