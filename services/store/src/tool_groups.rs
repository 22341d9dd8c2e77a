//! Tool groups that a tenant registered while the stack ran.

use async_trait::async_trait;
use llama_stack_core::{Code, Error, Result, ids, manifest::without_secrets};
use llama_stack_proto::v1::RegisterToolGroupRequest;
use prost::Message as _;

use crate::{
    Store,
    command::{Command, Delete, Failure, Outcome},
    failure,
    sealed::{anew, opened},
    sql::{Conn, Row, args},
    turns::micros,
};

/// Groups of one tenant: more would make every list of its tools slow.
const MAX_GROUPS: i64 = 100;

const IDS: &str = "SELECT id FROM tool_groups WHERE tenant = $1";
const INSERT: &str = "INSERT INTO tool_groups (tenant, id, created_us, body) VALUES ($1, $2, $3, $4) ON CONFLICT (tenant, id) DO NOTHING";
/// In the order of registration, which decides whose tool of two with one name is served.
const LIST: &str = "SELECT body, id FROM tool_groups WHERE tenant = $1 ORDER BY created_us, id";
pub(crate) const ALL: &str = "SELECT body, id, tenant FROM tool_groups";
const RESEAL: &str = "UPDATE tool_groups SET body = $4 WHERE tenant = $1 AND id = $2 AND body = $3";
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

struct Reseal {
    tenant: String,
    id: String,
    before: Vec<u8>,
    body: Vec<u8>,
}

#[async_trait]
impl Command for Reseal {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        conn.execute(RESEAL, args![&self.tenant, &self.id, &self.before, &self.body]).await?;
        Ok(Outcome::Done)
    }
}

/// What a sealed group belongs to.
pub(crate) fn place(tenant: &str, id: &str) -> String {
    format!("tool_group {tenant}/{id}")
}

/// Whether its configuration holds a token or the like.
fn holds_secret(group: &RegisterToolGroupRequest) -> bool {
    let config = serde_json::from_str::<serde_json::Value>(&group.config);
    config.is_ok_and(|config| without_secrets(&config) != config)
}

fn decoded(body: &[u8]) -> Result<RegisterToolGroupRequest> {
    let damaged = |error| Error::new(Code::DataLoss, "a stored tool group cannot be read").with_reason("store_damaged").with_source(error);
    RegisterToolGroupRequest::decode(body).map_err(damaged)
}

impl Store {
    /// Keeps the group under its id, never in place of another.
    ///
    /// # Errors
    /// `AlreadyExists` · `ResourceExhausted` the tenant has 100 already · `FailedPrecondition` it holds a secret, and the store was
    /// given no key to seal it with (`no_secret_key`)
    pub async fn insert_tool_group(&self, tenant: &str, group: &RegisterToolGroupRequest) -> Result<()> {
        let plain = group.encode_to_vec();
        let body = match self.sealer() {
            Some(sealer) => sealer.seal(&place(tenant, &group.id), &plain)?,
            None if holds_secret(group) => {
                let message = "this config holds a secret, and the stack has no key to seal it with: set LLAMA_STACK_SECRET_KEY or \
                               secrets.key_file, or leave it out and send it with each call (x-llama-stack-provider-key)";
                return Err(Error::failed_precondition(message).with_field("config").with_reason("no_secret_key"));
            }
            None => plain,
        };
        let command = InsertGroup { tenant: tenant.into(), id: group.id.clone(), created_us: micros(Some(&ids::now())), body };
        self.write(command).await.map(drop)
    }

    /// All of the tenant's, in the order in which they were registered.
    ///
    /// # Errors
    /// `FailedPrecondition` one is sealed with a key that the store was not given (`wrong_secret_key`)
    pub async fn list_tool_groups(&self, tenant: &str) -> Result<Vec<RegisterToolGroupRequest>> {
        let read = |row: &Row| Ok((row.bytes(0)?.to_vec(), row.text(1)?));
        let group = |row: &Row| {
            let (body, id) = read(row).map_err(|error: sqlx::Error| failure::report(&error))?;
            decoded(&opened(self.sealer(), &place(tenant, &id), &body)?)
        };
        self.read(LIST, args![tenant]).await?.iter().map(group).collect()
    }

    /// Seals with the newest key what was kept with an older one, or unsealed, and says how many groups hold a secret that stays
    /// unsealed, because there is no key.
    ///
    /// # Errors
    /// `FailedPrecondition` something is sealed with a key that the store was not given (`wrong_secret_key`)
    pub async fn reseal(&self) -> Result<usize> {
        let mut unsealed = 0;
        for row in self.read(ALL, args![]).await? {
            let read = || Ok((row.bytes(0)?.to_vec(), row.text(1)?, row.text(2)?));
            let (before, id, tenant) = read().map_err(|error: sqlx::Error| failure::report(&error))?;
            match anew(self.sealer(), &place(&tenant, &id), &before)? {
                Some(body) => self.erase(Reseal { tenant, id, before, body }).await.map(drop)?,
                None if self.sealer().is_none() && holds_secret(&decoded(&before)?) => unsealed += 1,
                None => {}
            }
        }
        Ok(unsealed)
    }

    /// # Errors
    /// `NotFound`
    pub async fn delete_tool_group(&self, tenant: &str, id: &str) -> Result<()> {
        let command = Delete { sql: DELETE, what: "tool_group", tenant: tenant.into(), id: id.into() };
        self.erase(command).await.map(drop)
    }
}
