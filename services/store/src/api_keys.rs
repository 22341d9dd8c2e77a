//! API keys: what is known of each, and the hashes of its secrets.

use async_trait::async_trait;
use llama_stack_core::{Result, ids};
use llama_stack_proto::v1::ApiKey;
use prost::Message as _;

use crate::{
    Store,
    command::{Command, Failure, Outcome, not_found},
    failure,
    sql::{Conn, args},
};

const INSERT: &str = "INSERT INTO api_keys (tenant, id, hash, old_hash, old_until_us, body) VALUES ($1, $2, $3, '', 0, $4)";
/// By its id alone: whose it is, it says itself.
const BY_ID: &str = "SELECT body, hash, old_hash, old_until_us FROM api_keys WHERE id = $1";
const OF_TURN: &str = "SELECT k.body FROM turns t JOIN api_keys k ON k.id = t.api_key WHERE t.tenant = $1 AND t.id = $2";
const GET: &str = "SELECT body FROM api_keys WHERE tenant = $1 AND id = $2";
const LIST: &str = "SELECT body FROM api_keys WHERE tenant = $1 AND id < $2 ORDER BY id DESC LIMIT $3";
const ROTATE: &str = "UPDATE api_keys SET old_hash = hash, hash = $3, old_until_us = $4, body = $5 WHERE tenant = $1 AND id = $2";
const REVOKE: &str = "UPDATE api_keys SET hash = '', old_hash = '', old_until_us = 0, body = $3 WHERE tenant = $1 AND id = $2";

/// A key, and the hashes that its secret may have now.
#[derive(Clone, Debug)]
pub struct KeyRecord {
    pub key: ApiKey,
    /// One, or two during a rotation; none once it is revoked.
    pub hashes: Vec<String>,
}

struct Insert {
    key: ApiKey,
    hash: String,
}

#[async_trait]
impl Command for Insert {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let body = self.key.encode_to_vec();
        conn.execute(INSERT, args![&self.key.tenant, &self.key.id, &self.hash, &body]).await?;
        Ok(Outcome::Done)
    }
}

struct Rotate {
    key: ApiKey,
    hash: String,
    old_until_us: i64,
}

#[async_trait]
impl Command for Rotate {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let (key, body) = (&self.key, self.key.encode_to_vec());
        match conn.execute(ROTATE, args![&key.tenant, &key.id, &self.hash, self.old_until_us, &body]).await? {
            0 => Err(not_found("api_key", &key.id).into()),
            _ => Ok(Outcome::Done),
        }
    }
}

struct Revoke(ApiKey);

#[async_trait]
impl Command for Revoke {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let body = self.0.encode_to_vec();
        match conn.execute(REVOKE, args![&self.0.tenant, &self.0.id, &body]).await? {
            0 => Err(not_found("api_key", &self.0.id).into()),
            _ => Ok(Outcome::Done),
        }
    }
}

impl Store {
    /// # Errors
    /// `AlreadyExists` the id is taken
    pub async fn insert_api_key(&self, key: &ApiKey, hash: &str) -> Result<()> {
        self.write(Insert { key: key.clone(), hash: hash.into() }).await.map(drop)
    }

    /// A key of any tenant. `None`: there is none.
    pub async fn api_key_record(&self, id: &str) -> Result<Option<KeyRecord>> {
        let rows = self.read(BY_ID, args![id]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let key = failure::decode(row)?;
        let read = || Ok((row.text(1)?, row.text(2)?, row.int(3)?));
        let (hash, old, until) = read().map_err(|error: sqlx::Error| failure::report(&error))?;
        let now = crate::turns::micros(Some(&ids::now()));
        let hashes = [(hash, true), (old, until > now)];
        Ok(Some(KeyRecord {
            key,
            hashes: hashes.into_iter().filter(|(hash, good)| *good && !hash.is_empty()).map(|(hash, _)| hash).collect(),
        }))
    }

    /// The key that is charged for a turn, of whichever tenant. `None`: the turn was begun with none, or with one that is gone.
    pub async fn key_of_turn(&self, tenant: &str, turn_id: &str) -> Result<Option<ApiKey>> {
        self.read(OF_TURN, args![tenant, turn_id]).await?.first().map(failure::decode).transpose()
    }

    /// # Errors
    /// `NotFound`
    pub async fn get_api_key(&self, tenant: &str, id: &str) -> Result<ApiKey> {
        let rows = self.read(GET, args![tenant, id]).await?;
        failure::decode(rows.first().ok_or_else(|| not_found("api_key", id))?)
    }

    /// A page, newest first, and the token of the next (empty at the end). `page_size` 0 means 100, at most 1,000.
    ///
    /// # Errors
    /// `InvalidArgument` a token that this list never gave
    pub async fn list_api_keys(&self, tenant: &str, page_size: u32, page_token: &str) -> Result<(Vec<ApiKey>, String)> {
        let page = self.page(&[tenant, "api_keys"], page_size, page_token).await?;
        let rows = self.read(LIST, args![tenant, page.newest_first(), page.limit()]).await?;
        let keys = rows.iter().map(failure::decode).collect::<Result<Vec<ApiKey>>>()?;
        page.cut(keys, |key| &key.id)
    }

    /// Gives the key another secret. The one that it had is good until then.
    ///
    /// # Errors
    /// `NotFound`
    pub async fn rotate_api_key(&self, key: &ApiKey, hash: &str, old_until: Option<prost_types::Timestamp>) -> Result<()> {
        let old_until_us = crate::turns::micros(old_until.as_ref());
        self.write(Rotate { key: key.clone(), hash: hash.into(), old_until_us }).await.map(drop)
    }

    /// Forgets the hashes; what is known of the key stays.
    ///
    /// # Errors
    /// `NotFound`
    pub async fn revoke_api_key(&self, key: &ApiKey) -> Result<()> {
        self.write(Revoke(key.clone())).await.map(drop)
    }
}
