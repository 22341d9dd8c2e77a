//! Agents: what a turn runs with, by id.

use async_trait::async_trait;
use llama_stack_core::Result;
use llama_stack_proto::v1::Agent;
use prost::Message as _;

use crate::{
    Store,
    command::{Command, Delete, Failure, Outcome, not_found},
    failure,
    sql::{Conn, args},
    turns::micros,
};

const PUT: &str = "INSERT INTO agents (tenant, id, created_us, body) VALUES ($1, $2, $3, $4) \
                   ON CONFLICT (tenant, id) DO UPDATE SET body = excluded.body";
const GET: &str = "SELECT body FROM agents WHERE tenant = $1 AND id = $2";
const LIST: &str = "SELECT body FROM agents WHERE tenant = $1 AND id < $2 ORDER BY id DESC LIMIT $3";
const DELETE: &str = "DELETE FROM agents WHERE tenant = $1 AND id = $2";

struct PutAgent {
    tenant: String,
    id: String,
    created_us: i64,
    body: Vec<u8>,
}

#[async_trait]
impl Command for PutAgent {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        conn.execute(PUT, args![&self.tenant, &self.id, self.created_us, &self.body]).await?;
        Ok(Outcome::Done)
    }
}

impl Store {
    /// Stores the agent under its id, in place of what was there.
    pub async fn put_agent(&self, tenant: &str, agent: &Agent) -> Result<()> {
        let command = PutAgent {
            tenant: tenant.into(),
            id: agent.id.clone(),
            created_us: micros(agent.created.as_ref()),
            body: agent.encode_to_vec(),
        };
        self.write(command).await.map(drop)
    }

    /// # Errors
    /// `NotFound`
    pub async fn get_agent(&self, tenant: &str, id: &str) -> Result<Agent> {
        let rows = self.read(GET, args![tenant, id]).await?;
        rows.first().map_or_else(|| Err(not_found("agent", id)), failure::decode)
    }

    /// A page, newest first, and the token of the next (empty at the end). `page_size` 0 means 100, at most 1,000.
    ///
    /// # Errors
    /// `InvalidArgument` a token that this list never gave
    pub async fn list_agents(&self, tenant: &str, page_size: u32, page_token: &str) -> Result<(Vec<Agent>, String)> {
        let page = self.page(&[tenant, "agents"], page_size, page_token).await?;
        let rows = self.read(LIST, args![tenant, page.newest_first(), page.limit()]).await?;
        let agents = rows.iter().map(failure::decode).collect::<Result<Vec<Agent>>>()?;
        page.cut(agents, |agent| &agent.id)
    }

    /// Its sessions and turns stay.
    ///
    /// # Errors
    /// `NotFound`
    pub async fn delete_agent(&self, tenant: &str, id: &str) -> Result<()> {
        let command = Delete { sql: DELETE, what: "agent", tenant: tenant.into(), id: id.into() };
        self.write(command).await.map(drop)
    }
}
