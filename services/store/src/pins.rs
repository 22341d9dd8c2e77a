//! Tools that a person has approved, each by the hash of its definition.

use async_trait::async_trait;
use llama_stack_core::Result;

use crate::{
    Store,
    command::{Command, Failure, Outcome},
    failure,
    sql::{Conn, args},
};

const PIN: &str = "INSERT INTO tool_pins (tenant, server, tool, hash) VALUES ($1, $2, $3, $4) \
                   ON CONFLICT (tenant, server, tool) DO UPDATE SET hash = excluded.hash";
const PINS: &str = "SELECT tool, hash FROM tool_pins WHERE tenant = $1 AND server = $2 ORDER BY tool";

struct PinTool {
    tenant: String,
    server: String,
    tool: String,
    hash: String,
}

#[async_trait]
impl Command for PinTool {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        conn.execute(PIN, args![&self.tenant, &self.server, &self.tool, &self.hash]).await?;
        Ok(Outcome::Done)
    }
}

impl Store {
    /// Remembers the definition under which a tool of a server was approved, in place of the one before. `server` is its
    /// address; empty for the stack's own tools.
    pub async fn pin_tool(&self, tenant: &str, server: &str, tool: &str, hash: &str) -> Result<()> {
        let command = PinTool { tenant: tenant.into(), server: server.into(), tool: tool.into(), hash: hash.into() };
        self.write(command).await.map(drop)
    }

    /// The approved tools of a server, each with its hash.
    pub async fn tool_pins(&self, tenant: &str, server: &str) -> Result<Vec<(String, String)>> {
        let rows = self.read(PINS, args![tenant, server]).await?;
        let pairs = rows.iter().map(|row| Ok((row.text(0)?, row.text(1)?)));
        pairs.collect::<sqlx::Result<_>>().map_err(|error| failure::report(&error))
    }
}
