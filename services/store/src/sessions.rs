//! Sessions: what turns belong to.

use async_trait::async_trait;
use llama_stack_core::Result;
use llama_stack_proto::v1::Session;
use prost::Message as _;

use crate::{
    Store,
    command::{Command, Delete, Failure, Outcome, not_found},
    failure,
    sql::{Conn, args},
    turns::micros,
};

const PUT: &str = "INSERT INTO sessions (tenant, id, agent_id, created_us, body) VALUES ($1, $2, $3, $4, $5) \
                   ON CONFLICT (tenant, id) DO UPDATE SET agent_id = excluded.agent_id, body = excluded.body";
const INSERT: &str = "INSERT INTO sessions (tenant, id, agent_id, created_us, body) VALUES ($1, $2, $3, $4, $5)";
const GET: &str = "SELECT body FROM sessions WHERE tenant = $1 AND id = $2";
const LIST: &str = "SELECT body FROM sessions WHERE tenant = $1 AND id < $2 ORDER BY id DESC LIMIT $3";
const LIST_OF_AGENT: &str = "SELECT body FROM sessions WHERE tenant = $1 AND agent_id = $4 AND id < $2 ORDER BY id DESC LIMIT $3";
/// Turns and journals go with it, by their foreign keys.
const DELETE: &str = "DELETE FROM sessions WHERE tenant = $1 AND id = $2";

pub(crate) struct PutSession {
    tenant: String,
    id: String,
    agent_id: String,
    created_us: i64,
    body: Vec<u8>,
}

impl PutSession {
    pub(crate) fn new(tenant: &str, session: &Session) -> Self {
        Self {
            tenant: tenant.into(),
            id: session.id.clone(),
            agent_id: session.agent_id.clone(),
            created_us: micros(session.created.as_ref()),
            body: session.encode_to_vec(),
        }
    }

    /// A new one, never in place of another.
    pub(crate) async fn insert(&self, conn: &mut Conn<'_>) -> sqlx::Result<()> {
        self.run(INSERT, conn).await
    }

    async fn run(&self, sql: &'static str, conn: &mut Conn<'_>) -> sqlx::Result<()> {
        conn.execute(sql, args![&self.tenant, &self.id, &self.agent_id, self.created_us, &self.body]).await.map(drop)
    }
}

#[async_trait]
impl Command for PutSession {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        self.run(PUT, conn).await?;
        Ok(Outcome::Done)
    }
}

impl Store {
    /// Stores the session under its id, in place of what was there; its turns stay.
    pub async fn put_session(&self, tenant: &str, session: &Session) -> Result<()> {
        self.write(PutSession::new(tenant, session)).await.map(drop)
    }

    /// # Errors
    /// `NotFound`
    pub async fn get_session(&self, tenant: &str, id: &str) -> Result<Session> {
        let rows = self.read(GET, args![tenant, id]).await?;
        rows.first().map_or_else(|| Err(not_found("session", id)), failure::decode)
    }

    /// A page, newest first, of all sessions or of one agent's, and the token of the next (empty at the end), which serves this viewer.
    /// `page_size` 0 means 100, at most 1,000.
    ///
    /// # Errors
    /// `InvalidArgument` a token that this list never gave
    pub async fn list_sessions(
        &self,
        tenant: &str,
        viewer: &str,
        agent_id: Option<&str>,
        page_size: u32,
        page_token: &str,
    ) -> Result<(Vec<Session>, String)> {
        let page = self.page(&[tenant, viewer, "sessions", agent_id.unwrap_or_default()], page_size, page_token).await?;
        let rows = match agent_id {
            Some(agent_id) => self.read(LIST_OF_AGENT, args![tenant, page.newest_first(), page.limit(), agent_id]).await?,
            None => self.read(LIST, args![tenant, page.newest_first(), page.limit()]).await?,
        };
        let sessions = rows.iter().map(failure::decode).collect::<Result<Vec<Session>>>()?;
        page.cut(sessions, |session| &session.id)
    }

    /// Deletes the session with its turns and their journals, all or nothing. A turn that still runs finds its next
    /// `append` answered by `NotFound`.
    ///
    /// # Errors
    /// `NotFound`
    pub async fn delete_session(&self, tenant: &str, id: &str) -> Result<()> {
        let command = Delete { sql: DELETE, what: "session", tenant: tenant.into(), id: id.into() };
        self.erase(command).await.map(drop)
    }
}
