//! Prompts: texts by id, each with versions that never change.

use async_trait::async_trait;
use llama_stack_core::{Code, Error, Result};
use llama_stack_proto::v1::Prompt;
use prost::Message as _;

use crate::{
    Store,
    command::{Command, Delete, Failure, Outcome, not_found},
    failure,
    sql::{Conn, Row, args},
    turns::micros,
};

const INSERT: &str = "INSERT INTO prompts (tenant, id, newest_version, default_version, created_us) VALUES ($1, $2, 1, 1, $3)";
const INSERT_VERSION: &str = "INSERT INTO prompt_versions (tenant, prompt_id, version, body) VALUES ($1, $2, $3, $4)";
/// Counts only from where the caller saw it; Postgres locks the row, so of two racing calls the second finds it moved.
const COUNT: &str = "UPDATE prompts SET newest_version = newest_version + 1 WHERE tenant = $1 AND id = $2 AND newest_version = $3";
const NEWEST: &str = "SELECT newest_version FROM prompts WHERE tenant = $1 AND id = $2";
const SET_DEFAULT: &str = "UPDATE prompts SET default_version = $3 WHERE tenant = $1 AND id = $2 AND newest_version >= $3 AND $3 > 0";
const GET: &str = "SELECT v.body, p.default_version FROM prompts p \
                   JOIN prompt_versions v ON v.tenant = p.tenant AND v.prompt_id = p.id \
                   WHERE p.tenant = $1 AND p.id = $2 AND v.version = CASE WHEN $3 = 0 THEN p.default_version ELSE $3 END";
const LIST: &str = "SELECT v.body, p.default_version FROM prompts p \
                    JOIN prompt_versions v ON v.tenant = p.tenant AND v.prompt_id = p.id AND v.version = p.default_version \
                    WHERE p.tenant = $1 AND p.id < $2 ORDER BY p.id DESC LIMIT $3";
const LIST_VERSIONS: &str = "SELECT v.body, p.default_version FROM prompts p \
                             JOIN prompt_versions v ON v.tenant = p.tenant AND v.prompt_id = p.id \
                             WHERE p.tenant = $1 AND p.id = $2 AND v.version < $3 ORDER BY v.version DESC LIMIT $4";
/// The versions go with it, by their foreign key.
const DELETE: &str = "DELETE FROM prompts WHERE tenant = $1 AND id = $2";

struct Create {
    tenant: String,
    id: String,
    created_us: i64,
    body: Vec<u8>,
}

#[async_trait]
impl Command for Create {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        conn.execute(INSERT, args![&self.tenant, &self.id, self.created_us]).await?;
        conn.execute(INSERT_VERSION, args![&self.tenant, &self.id, 1_i64, &self.body]).await?;
        Ok(Outcome::Done)
    }
}

struct AddVersion {
    tenant: String,
    id: String,
    version: i64,
    set_default: bool,
    body: Vec<u8>,
}

#[async_trait]
impl Command for AddVersion {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let seen = self.version - 1;
        if conn.execute(COUNT, args![&self.tenant, &self.id, seen]).await? == 0 {
            let rows = conn.rows(NEWEST, args![&self.tenant, &self.id]).await?;
            let newest = rows.first().map(|row| row.int(0)).transpose()?;
            return Err(newest.map_or_else(|| not_found("prompt", &self.id), |newest| not_newest(&self.id, seen, newest)).into());
        }
        conn.execute(INSERT_VERSION, args![&self.tenant, &self.id, self.version, &self.body]).await?;
        if self.set_default {
            conn.execute(SET_DEFAULT, args![&self.tenant, &self.id, self.version]).await?;
        }
        Ok(Outcome::Done)
    }
}

struct SetDefault {
    tenant: String,
    id: String,
    version: i64,
}

#[async_trait]
impl Command for SetDefault {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        if conn.execute(SET_DEFAULT, args![&self.tenant, &self.id, self.version]).await? > 0 {
            return Ok(Outcome::Done);
        }
        let known = !conn.rows(NEWEST, args![&self.tenant, &self.id]).await?.is_empty();
        Err(if known { no_version(&self.id, self.version) } else { not_found("prompt", &self.id) }.into())
    }
}

impl Store {
    /// Stores a new prompt, whose version is 1.
    ///
    /// # Errors
    /// `AlreadyExists` the id is taken
    pub async fn create_prompt(&self, tenant: &str, prompt: &Prompt) -> Result<()> {
        let created_us = micros(prompt.created.as_ref());
        let command = Create { tenant: tenant.into(), id: prompt.id.clone(), created_us, body: prompt.encode_to_vec() };
        self.write(command).await.map(drop)
    }

    /// Stores the prompt as the version that follows the newest one, all or nothing.
    ///
    /// # Errors
    /// `NotFound` no such prompt, or no version before this one · `Aborted` there is a newer one (`prompt_version_taken`)
    pub async fn add_prompt_version(&self, tenant: &str, prompt: &Prompt, set_default: bool) -> Result<()> {
        let (id, version, body) = (prompt.id.clone(), i64::from(prompt.version), prompt.encode_to_vec());
        self.write(AddVersion { tenant: tenant.into(), id, version, set_default, body }).await.map(drop)
    }

    /// # Errors
    /// `NotFound` no such prompt, or version of it
    pub async fn set_default_prompt_version(&self, tenant: &str, id: &str, version: u32) -> Result<()> {
        self.write(SetDefault { tenant: tenant.into(), id: id.into(), version: version.into() }).await.map(drop)
    }

    /// One version; 0: the default one.
    ///
    /// # Errors
    /// `NotFound` no such prompt, or version of it
    pub async fn get_prompt(&self, tenant: &str, id: &str, version: u32) -> Result<Prompt> {
        let rows = self.read(GET, args![tenant, id, i64::from(version)]).await?;
        if let Some(row) = rows.first() {
            return read(row);
        }
        let known = !self.read(NEWEST, args![tenant, id]).await?.is_empty();
        Err(if known { no_version(id, version.into()) } else { not_found("prompt", id) })
    }

    /// A page of the default versions, newest prompt first, and the token of the next (empty at the end). `page_size` 0
    /// means 100, at most 1,000.
    ///
    /// # Errors
    /// `InvalidArgument` a token that this list never gave
    pub async fn list_prompts(&self, tenant: &str, page_size: u32, page_token: &str) -> Result<(Vec<Prompt>, String)> {
        let page = self.page(&[tenant, "prompts"], page_size, page_token).await?;
        let rows = self.read(LIST, args![tenant, page.newest_first(), page.limit()]).await?;
        let prompts = rows.iter().map(read).collect::<Result<Vec<Prompt>>>()?;
        page.cut(prompts, |prompt| &prompt.id)
    }

    /// A page of one prompt's versions, newest first, and the token of the next (empty at the end).
    ///
    /// # Errors
    /// `NotFound` · `InvalidArgument` a token that this list never gave
    pub async fn list_prompt_versions(&self, tenant: &str, id: &str, page_size: u32, page_token: &str) -> Result<(Vec<Prompt>, String)> {
        let page = self.page(&[tenant, "prompts", id], page_size, page_token).await?;
        // What sorts after every id is no number, and stands for the beginning of the list.
        let before: i64 = page.newest_first().parse().unwrap_or(i64::MAX);
        let rows = self.read(LIST_VERSIONS, args![tenant, id, before, page.limit()]).await?;
        if rows.is_empty() && self.read(NEWEST, args![tenant, id]).await?.is_empty() {
            return Err(not_found("prompt", id));
        }
        let read = |row| read(row).map(|prompt| (prompt.version.to_string(), prompt));
        let versions = rows.iter().map(read).collect::<Result<Vec<(String, Prompt)>>>()?;
        let (versions, next) = page.cut(versions, |(version, _)| version)?;
        Ok((versions.into_iter().map(|(_, prompt)| prompt).collect(), next))
    }

    /// With all its versions.
    ///
    /// # Errors
    /// `NotFound`
    pub async fn delete_prompt(&self, tenant: &str, id: &str) -> Result<()> {
        let command = Delete { sql: DELETE, what: "prompt", tenant: tenant.into(), id: id.into() };
        self.write(command).await.map(drop)
    }
}

/// Which version is the default one is not in the version itself, which never changes.
fn read(row: &Row) -> Result<Prompt> {
    let mut prompt: Prompt = failure::decode(row)?;
    let default = row.int(1).map_err(|error| failure::report(&error))?;
    prompt.is_default = i64::from(prompt.version) == default;
    Ok(prompt)
}

fn no_version(id: &str, version: i64) -> Error {
    Error::not_found(format!("prompt {id:?} has no version {version}")).with_reason("prompt_version_not_found")
}

fn not_newest(id: &str, seen: i64, newest: i64) -> Error {
    if seen > newest {
        return no_version(id, seen);
    }
    let message = format!("prompt {id:?} has come to version {newest} since version {seen}: read it again");
    Error::new(Code::Aborted, message).with_reason("prompt_version_taken")
}
