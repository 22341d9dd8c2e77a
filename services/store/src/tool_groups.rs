//! Tool groups that a tenant registered while the stack ran.

use async_trait::async_trait;
use llama_stack_core::{Code, Error, Result, ids};
use llama_stack_proto::v1::RegisterToolGroupRequest;
use prost::Message as _;

use crate::{
    Store,
    command::{Command, Delete, Failure, Outcome},
    failure,
    sql::{Conn, args},
    turns::micros,
};

/// Groups of one tenant: more would make every list of its tools slow.
const MAX_GROUPS: i64 = 100;

const IDS: &str = "SELECT id FROM tool_groups WHERE tenant = $1";
const INSERT: &str = "INSERT INTO tool_groups (tenant, id, created_us, body) VALUES ($1, $2, $3, $4) ON CONFLICT (tenant, id) DO NOTHING";
/// In the order of registration, which decides whose tool of two with one name is served.
const LIST: &str = "SELECT body FROM tool_groups WHERE tenant = $1 ORDER BY created_us, id";
const DELETE: &str = "DELETE FROM tool_groups WHERE tenant = $1 AND id = $2";

struct InsertGroup {
    tenant: String,
    id: String,
    created_us: i64,
    body: Vec<u8>,
}

#[async_trait]
impl Command for InsertGroup {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let there = conn.rows(IDS, args![&self.tenant]).await?.len() as i64;
        if there >= MAX_GROUPS {
            let message = format!("this tenant has {there} tool groups, and may have {MAX_GROUPS}: unregister one first");
            return Err(Error::new(Code::ResourceExhausted, message).with_reason("too_many_tool_groups").into());
        }
        match conn.execute(INSERT, args![&self.tenant, &self.id, self.created_us, &self.body]).await? {
            0 => Err(Error::new(Code::AlreadyExists, format!("there is a tool group {:?} already", self.id)).with_field("id").into()),
            _ => Ok(Outcome::Done),
        }
    }
}

impl Store {
    /// Keeps the group under its id, never in place of another.
    ///
    /// # Errors
    /// `AlreadyExists` · `ResourceExhausted` the tenant has 100 already
    pub async fn insert_tool_group(&self, tenant: &str, group: &RegisterToolGroupRequest) -> Result<()> {
        let command =
            InsertGroup { tenant: tenant.into(), id: group.id.clone(), created_us: micros(Some(&ids::now())), body: group.encode_to_vec() };
        self.write(command).await.map(drop)
    }

    /// All of the tenant's, in the order in which they were registered.
    pub async fn list_tool_groups(&self, tenant: &str) -> Result<Vec<RegisterToolGroupRequest>> {
        self.read(LIST, args![tenant]).await?.iter().map(failure::decode).collect()
    }

    /// # Errors
    /// `NotFound`
    pub async fn delete_tool_group(&self, tenant: &str, id: &str) -> Result<()> {
        let command = Delete { sql: DELETE, what: "tool_group", tenant: tenant.into(), id: id.into() };
        self.write(command).await.map(drop)
    }
}
