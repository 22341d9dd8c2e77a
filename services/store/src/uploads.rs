//! Uploads in parts to a bucket: which are under way, so that what a crash leaves of them can be given up there.

use async_trait::async_trait;
use llama_stack_core::Result;
use prost_types::Timestamp;

use crate::{
    Store,
    command::{Command, Failure, Outcome},
    failure,
    sql::{Conn, Row, args},
    turns::micros,
};

const NOTE: &str = "INSERT INTO file_uploads (blob, upload_id, touched_us) VALUES ($1, $2, $3) \
                    ON CONFLICT (blob) DO UPDATE SET upload_id = excluded.upload_id, touched_us = excluded.touched_us";
const FORGET: &str = "DELETE FROM file_uploads WHERE blob = $1 AND upload_id = $2";
const UNTOUCHED: &str = "SELECT blob, upload_id FROM file_uploads WHERE touched_us < $1 ORDER BY touched_us LIMIT 100";

/// An upload of a content, as the bucket names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartedUpload {
    pub blob: String,
    pub upload_id: String,
}

struct Note(PartedUpload, i64);

#[async_trait]
impl Command for Note {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        conn.execute(NOTE, args![&self.0.blob, &self.0.upload_id, self.1]).await?;
        Ok(Outcome::Done)
    }
}

struct Forget(PartedUpload);

#[async_trait]
impl Command for Forget {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        conn.execute(FORGET, args![&self.0.blob, &self.0.upload_id]).await?;
        Ok(Outcome::Done)
    }
}

impl Store {
    /// Notes that an upload goes on at this time. Idempotent.
    pub async fn note_upload(&self, upload: &PartedUpload, now: &Timestamp) -> Result<()> {
        self.write(Note(upload.clone(), micros(Some(now)))).await.map(drop)
    }

    /// It has ended, or was given up. Idempotent.
    pub async fn forget_upload(&self, upload: &PartedUpload) -> Result<()> {
        self.write(Forget(upload.clone())).await.map(drop)
    }

    /// Those of which nothing was sent since then, a hundred at most, the oldest first.
    pub async fn untouched_uploads(&self, since: &Timestamp) -> Result<Vec<PartedUpload>> {
        let rows = self.read(UNTOUCHED, args![micros(Some(since))]).await?;
        let upload = |row: &Row| Ok(PartedUpload { blob: row.text(0)?, upload_id: row.text(1)? });
        rows.iter().map(upload).collect::<sqlx::Result<_>>().map_err(|error| failure::report(&error))
    }
}
