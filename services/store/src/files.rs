//! Uploaded files: what is known of each, and where its content lies. The content itself is not in the database.

use async_trait::async_trait;
use llama_stack_core::{Code, Error, Result, ids};
use llama_stack_proto::v1::File;
use prost::Message as _;

use crate::{
    Store,
    command::{Command, Delete, Failure, Outcome, not_found},
    failure,
    sql::{Conn, Row, args},
    turns::micros,
};

const INSERT: &str = "INSERT INTO files (tenant, id, owner, purpose, blob, expires_us, body) VALUES ($1, $2, $3, $4, $5, $6, $7)";
const GET: &str = "SELECT body, blob, expires_us FROM files WHERE tenant = $1 AND id = $2 AND ($3 = '' OR owner = $3)";
const OLDEST_FIRST: &str = "SELECT body FROM files WHERE tenant = $1 AND id > $2 AND ($3 = '' OR owner = $3) \
                            AND ($4 = '' OR purpose = $4) AND (expires_us = 0 OR expires_us > $5) ORDER BY id LIMIT $6";
const NEWEST_FIRST: &str = "SELECT body FROM files WHERE tenant = $1 AND id < $2 AND ($3 = '' OR owner = $3) \
                            AND ($4 = '' OR purpose = $4) AND (expires_us = 0 OR expires_us > $5) ORDER BY id DESC LIMIT $6";
const OF_TENANT: &str = "SELECT body FROM files WHERE tenant = $1 AND (expires_us = 0 OR expires_us > $2)";
const DELETE: &str = "DELETE FROM files WHERE tenant = $1 AND id = $2";
const EXPIRED: &str = "SELECT tenant, id, blob, expires_us FROM files WHERE expires_us > 0 AND expires_us <= $1 \
                       AND (expires_us > $2 OR (expires_us = $2 AND id > $3)) ORDER BY expires_us, id LIMIT $4";
const BLOBS: &str = "SELECT DISTINCT blob FROM files WHERE blob >= $1 AND blob < $2";
/// Contents in a store that names them `<content>.<file>`.
const SHARED: &str = "SELECT blob FROM files WHERE tenant = $1 AND blob >= $2 AND blob < $3 LIMIT 1";
const IS_USED: &str = "SELECT id FROM files WHERE blob = $1 LIMIT 1";

/// Sorts after every id.
const END: &str = "\u{10FFFF}";

/// Which files to list.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileList<'a> {
    /// Only theirs; everyone's where it is empty.
    pub owner: &'a str,
    pub purpose: &'a str,
    /// The id after which to go on; empty at the beginning.
    pub after: &'a str,
    pub newest_first: bool,
    pub limit: u32,
}

/// A file whose time is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiredFile {
    pub tenant: String,
    pub id: String,
    pub blob: String,
    /// Microseconds since the epoch.
    pub expires_us: i64,
}

struct Insert {
    tenant: String,
    blob: String,
    file: File,
}

#[async_trait]
impl Command for Insert {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let file = &self.file;
        let (expires_us, body) = (micros(file.expires.as_ref()), file.encode_to_vec());
        conn.execute(INSERT, args![&self.tenant, &file.id, &file.owner, &file.purpose, &self.blob, expires_us, &body]).await?;
        Ok(Outcome::Done)
    }
}

/// Inserts a file under a lock of its tenant, within its quota.
struct Keep {
    tenant: String,
    file: File,
    /// What an equal content's name begins with.
    content: String,
    /// Empty: only beside an equal content.
    blob: String,
    most: u64,
}

#[async_trait]
impl Command for Keep {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        lock(conn, &self.tenant).await?;
        if self.most > 0 {
            let has = sum(&conn.rows(OF_TENANT, args![&self.tenant, micros(Some(&ids::now()))]).await?)?;
            within_quota(self.file.bytes, has, self.most)?;
        }
        let blob = if self.blob.is_empty() {
            let (from, before) = (format!("{}.", self.content), format!("{}/", self.content));
            match conn.rows(SHARED, args![&self.tenant, &from, &before]).await?.first() {
                Some(row) => row.text(0)?,
                None => return Ok(Outcome::Changed(0)),
            }
        } else {
            self.blob.clone()
        };
        Insert { tenant: self.tenant.clone(), blob, file: self.file.clone() }.apply(conn).await?;
        Ok(Outcome::Changed(1))
    }
}

/// Deletes a file under the same lock, and says whether its content is nobody's now.
struct Release {
    tenant: String,
    id: String,
    blob: String,
}

#[async_trait]
impl Command for Release {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        lock(conn, &self.tenant).await?;
        if conn.execute(DELETE, args![&self.tenant, &self.id]).await? == 0 {
            return Err(not_found("file", &self.id).into());
        }
        let used = !conn.rows(IS_USED, args![&self.blob]).await?.is_empty();
        Ok(Outcome::Changed(u64::from(!used)))
    }
}

async fn lock(conn: &mut Conn<'_>, tenant: &str) -> sqlx::Result<()> {
    conn.lock(&format!("files of {tenant}")).await
}

fn sum(rows: &[Row]) -> Result<u64> {
    rows.iter().map(|row| failure::decode::<File>(row).map(|file| file.bytes)).sum()
}

fn within_quota(bytes: u64, has: u64, most: u64) -> Result<()> {
    if most == 0 || has.saturating_add(bytes) <= most {
        return Ok(());
    }
    let message = format!("the file has {bytes} bytes, and the files that are there {has} of the {most} that they may have: delete some");
    Err(Error::new(Code::ResourceExhausted, message).with_field("file").with_reason("storage_quota"))
}

impl Store {
    /// # Errors
    /// `AlreadyExists` the id is taken
    pub async fn insert_file(&self, tenant: &str, file: &File, blob: &str) -> Result<()> {
        self.write(Insert { tenant: tenant.into(), blob: blob.into(), file: file.clone() }).await.map(drop)
    }

    /// A file and where its content lies. `owner`: only theirs; anyone's where it is empty.
    ///
    /// # Errors
    /// `NotFound` no such file, another's, or one whose time is over, whether it has been swept yet or not; but for what a batch reads
    pub async fn get_file(&self, tenant: &str, id: &str, owner: &str) -> Result<(File, String)> {
        let rows = self.read(GET, args![tenant, id, owner]).await?;
        let row = rows.first().ok_or_else(|| not_found("file", id))?;
        let report = |error: sqlx::Error| failure::report(&error);
        let expires = row.int(2).map_err(report)?;
        if expires > 0 && expires <= micros(Some(&ids::now())) && !self.is_batch_input(tenant, id).await? {
            return Err(not_found("file", id));
        }
        Ok((failure::decode(row)?, row.text(1).map_err(report)?))
    }

    pub async fn list_files(&self, tenant: &str, list: FileList<'_>) -> Result<Vec<File>> {
        let sql = if list.newest_first { NEWEST_FIRST } else { OLDEST_FIRST };
        let after = if list.newest_first && list.after.is_empty() { END } else { list.after };
        let now = micros(Some(&ids::now()));
        let rows = self.read(sql, args![tenant, after, list.owner, list.purpose, now, i64::from(list.limit)]).await?;
        rows.iter().map(failure::decode).collect()
    }

    /// Whether a tenant may have `bytes` more, of the `most` that it may have; 0: no limit.
    ///
    /// # Errors
    /// `ResourceExhausted` with what it has, what the file needs and what it may have (`storage_quota`).
    pub async fn check_file_quota(&self, tenant: &str, bytes: u64, most: u64) -> Result<()> {
        if most == 0 {
            return Ok(());
        }
        let rows = self.read(OF_TENANT, args![tenant, micros(Some(&ids::now()))]).await?;
        within_quota(bytes, sum(&rows)?, most)
    }

    /// Inserts a file whose content, by the beginning of its name, another file of the tenant has already; says whether
    /// one had. Of this, [`Self::keep_file`] and [`Self::release_file`] no two are at the same time for one tenant, whatever
    /// processes there are: so a content that is shared is not one that is being given up.
    ///
    /// # Errors
    /// `ResourceExhausted` as [`Self::check_file_quota`]
    pub async fn share_file(&self, tenant: &str, file: &File, content: &str, most: u64) -> Result<bool> {
        let keep = Keep { tenant: tenant.into(), file: file.clone(), content: content.into(), blob: String::new(), most };
        Ok(self.write(keep).await? == Outcome::Changed(1))
    }

    /// Inserts a file with a content of its own.
    ///
    /// # Errors
    /// `ResourceExhausted` as [`Self::check_file_quota`] · `AlreadyExists` the id is taken
    pub async fn keep_file(&self, tenant: &str, file: &File, blob: &str, most: u64) -> Result<()> {
        let keep = Keep { tenant: tenant.into(), file: file.clone(), content: String::new(), blob: blob.into(), most };
        self.write(keep).await.map(drop)
    }

    /// Deletes a file; true where no other has its content, which is to be removed then.
    ///
    /// # Errors
    /// `NotFound`
    pub async fn release_file(&self, tenant: &str, id: &str, blob: &str) -> Result<bool> {
        let release = Release { tenant: tenant.into(), id: id.into(), blob: blob.into() };
        Ok(self.erase(release).await? == Outcome::Changed(1))
    }

    /// # Errors
    /// `NotFound`
    pub async fn delete_file(&self, tenant: &str, id: &str) -> Result<()> {
        self.erase(Delete { sql: DELETE, what: "file", tenant: tenant.into(), id: id.into() }).await.map(drop)
    }

    /// Files of all tenants whose time is over, those first that have been so longest; after this one, if it is given.
    pub async fn expired_files(&self, after: Option<&ExpiredFile>, limit: u32) -> Result<Vec<ExpiredFile>> {
        let (since, id) = after.map_or((0, ""), |file| (file.expires_us, file.id.as_str()));
        let rows = self.read(EXPIRED, args![micros(Some(&ids::now())), since, id, i64::from(limit)]).await?;
        let file = |row: &Row| Ok(ExpiredFile { tenant: row.text(0)?, id: row.text(1)?, blob: row.text(2)?, expires_us: row.int(3)? });
        rows.iter().map(file).collect::<sqlx::Result<_>>().map_err(|error| failure::report(&error))
    }

    /// The contents in use, of all tenants, from this name to before that one.
    pub async fn file_blobs(&self, from: &str, before: &str) -> Result<Vec<String>> {
        let rows = self.read(BLOBS, args![from, before]).await?;
        rows.iter().map(|row| row.text(0)).collect::<sqlx::Result<_>>().map_err(|error| failure::report(&error))
    }

    /// Whether any file has this content.
    pub async fn is_blob_used(&self, blob: &str) -> Result<bool> {
        Ok(!self.read(IS_USED, args![blob]).await?.is_empty())
    }
}
