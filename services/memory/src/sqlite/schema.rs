//! The file: how it is opened, and its tables.

use std::{path::Path, time::Duration};

use llama_stack_core::{Error, Result};
use sqlx::{
    ConnectOptions as _, Row as _, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::failure::failed;

const VERSION: i64 = 1;

const READERS: u32 = 4;
const BUSY_WAIT: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(10);
/// The log is cut back to this after a checkpoint.
const MAX_IDLE_LOG_BYTES: &str = "67108864";

/// A bank's number is never given again, so that no row can be taken for another bank's. Each bank has a table of words of
/// its own (`words.rs`): how rare a word is in one bank tells nothing about another.
const TABLES: [&str; 5] = [
    "CREATE TABLE banks (n INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL, bank_id TEXT NOT NULL, \
     dimension INTEGER NOT NULL, keyword INTEGER NOT NULL, UNIQUE (tenant, bank_id)) STRICT",
    "CREATE TABLE chunks (n INTEGER PRIMARY KEY AUTOINCREMENT, bank INTEGER NOT NULL, id TEXT NOT NULL, document_id TEXT NOT NULL, \
     place INTEGER NOT NULL, title TEXT NOT NULL, text TEXT NOT NULL, body BLOB NOT NULL, vector BLOB NOT NULL, UNIQUE (bank, id)) STRICT",
    "CREATE INDEX chunks_order ON chunks (bank, document_id, place, id)",
    "CREATE INDEX chunks_bank ON chunks (bank)",
    "PRAGMA user_version = 1",
];

/// The writing pool and the reading one.
pub(super) async fn open(file: &Path) -> Result<(SqlitePool, SqlitePool)> {
    let shown = file.display().to_string();
    let unusable = |error: std::io::Error| {
        Error::failed_precondition("the index cannot be opened or written").with_reason("index_unusable").context(&shown).with_source(error)
    };
    create(file).map_err(unusable)?;
    let options = SqliteConnectOptions::new()
        .filename(file)
        .busy_timeout(BUSY_WAIT)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        // What is deleted is overwritten.
        .pragma("secure_delete", "ON")
        .pragma("journal_size_limit", MAX_IDLE_LOG_BYTES)
        .disable_statement_logging();
    let pool = || {
        let pool = SqlitePoolOptions::new().acquire_timeout(PATIENCE).test_before_acquire(false);
        pool.idle_timeout(None).max_lifetime(None)
    };
    let writer = pool().max_connections(1).connect_with(options.clone()).await.map_err(|error| failed(error).context(&shown))?;
    prepare(&writer).await.map_err(|error| error.context(&shown))?;
    let readers = pool().max_connections(READERS).connect_lazy_with(options.pragma("query_only", "ON"));
    Ok((writer, readers))
}

async fn prepare(writer: &SqlitePool) -> Result<()> {
    let mut tx = writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    let version: i64 = sqlx::query("PRAGMA user_version").fetch_one(&mut *tx).await.and_then(|row| row.try_get(0)).map_err(failed)?;
    match version {
        VERSION => return Ok(()),
        0 => {}
        _ => {
            let message = "a newer version of this program wrote the index";
            return Err(Error::failed_precondition(message).with_reason("index_too_new"));
        }
    }
    for sql in TABLES {
        sqlx::query(sql).execute(&mut *tx).await.map_err(failed)?;
    }
    tx.commit().await.map_err(failed)
}

/// What people keep is for the owner's eyes only.
fn create(file: &Path) -> std::io::Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(file).map(drop)
}
