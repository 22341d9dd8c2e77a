//! Beginning a turn: its first event, its session if that is new, and its idempotency key, all or nothing.

use async_trait::async_trait;
use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{Session, Turn, TurnEvent, TurnStatus, turn_event};
use prost::Message as _;

use super::{key::Key, marks, micros};
use crate::{
    Store,
    command::{Command, Failure, Outcome, not_found},
    lease::Holder,
    sessions::PutSession,
    sql::{Conn, args},
};

const SESSION_EXISTS: &str = "SELECT 1 FROM sessions WHERE tenant = $1 AND id = $2";
const INSERT_TURN: &str = "INSERT INTO turns (tenant, id, session_id, parent_id, status, head_seq, keep, created_us, owner, epoch, \
                           lease_until_us, caller_turn_id, api_key) VALUES ($1, $2, $3, $4, $5, 1, $6, $7, $8, $9, $10, $11, $12)";
const INSERT_EVENT: &str = "INSERT INTO journal (tenant, turn_id, seq, body) VALUES ($1, $2, 1, $3)";

/// The epoch under which a turn is held that was begun.
pub const FIRST_EPOCH: i64 = 1;

/// What a turn begins with.
pub struct BeginTurn<'a> {
    /// Who runs it.
    pub holder: Holder<'a>,
    /// The first event: sequence 1, with the turn.
    pub created: &'a TurnEvent,
    /// The API key that is charged for it, by its id; empty for none.
    pub api_key: &'a str,
    /// The caller's key, and a hash of the request it came with.
    pub idempotency: Option<(&'a str, &'a str)>,
    /// The turn's session, where it is made with it.
    pub new_session: Option<&'a Session>,
}

/// Which turn the call stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// This one: it is durable, and held under [`FIRST_EPOCH`].
    New,
    /// The one that the same request began before, by its id. It may have been deleted since.
    Existing(String),
}

struct Begin {
    tenant: String,
    id: String,
    session_id: String,
    parent_id: String,
    keep: bool,
    created_us: i64,
    caller_turn_id: String,
    api_key: String,
    owner: String,
    until_us: i64,
    body: Vec<u8>,
    key: Option<Key>,
    new_session: Option<PutSession>,
}

impl Store {
    /// Stores a new turn with its first event and, if it is new, its session: durable on return, all or nothing.
    ///
    /// A key is remembered for a day, also past the turn's deletion.
    ///
    /// # Errors
    /// `NotFound` no such session · `Aborted` the key came with another request before (`idempotency_key_reused`) ·
    /// `AlreadyExists` the id of the turn or of the new session is taken · `Internal` `created` is not the first event of a turn
    pub async fn begin_turn(&self, tenant: &str, begin: BeginTurn<'_>) -> Result<Begun> {
        let turn = first_turn(begin.created)?;
        let command = Begin {
            tenant: tenant.into(),
            id: turn.id.clone(),
            session_id: turn.session_id.clone(),
            parent_id: turn.parent_turn_id.clone(),
            keep: turn.store,
            created_us: micros(turn.created.as_ref()),
            caller_turn_id: turn.caller_turn_id.clone(),
            api_key: begin.api_key.into(),
            owner: begin.holder.owner.into(),
            until_us: begin.holder.until_us(),
            body: begin.created.encode_to_vec(),
            key: begin.idempotency.map(|(key, request_hash)| Key::new(key, request_hash)),
            new_session: begin.new_session.map(|session| PutSession::new(tenant, session)),
        };
        Ok(match self.write(command).await? {
            Outcome::Existing(turn_id) => Begun::Existing(turn_id),
            _ => Begun::New,
        })
    }
}

fn first_turn(event: &TurnEvent) -> Result<&Turn> {
    match &event.event {
        Some(turn_event::Event::Created(turn)) if event.sequence == 1 && event.turn_id == turn.id => Ok(turn),
        _ => Err(Error::internal("a turn's first event must be its creation, with sequence 1")),
    }
}

#[async_trait]
impl Command for Begin {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        // First, because a refusal after a write would leave the write in a group's transaction.
        if self.new_session.is_none() && conn.rows(SESSION_EXISTS, args![&self.tenant, &self.session_id]).await?.is_empty() {
            return Err(not_found("session", &self.session_id).into());
        }
        if let Some(key) = &self.key
            && let Some(turn_id) = key.take(&self.tenant, &self.id, conn).await?
        {
            return Ok(Outcome::Existing(turn_id));
        }
        if let Some(session) = &self.new_session {
            session.insert(conn).await?;
        }
        let turn = args![
            &self.tenant,
            &self.id,
            &self.session_id,
            &self.parent_id,
            i64::from(TurnStatus::InProgress as i32),
            i64::from(self.keep),
            self.created_us,
            &self.owner,
            FIRST_EPOCH,
            self.until_us,
            &self.caller_turn_id,
            &self.api_key,
        ];
        conn.execute(INSERT_TURN, turn).await?;
        conn.execute(INSERT_EVENT, args![&self.tenant, &self.id, &self.body]).await?;
        marks::set(conn, (&self.tenant, &self.id), "").await?;
        Ok(Outcome::Done)
    }
}
