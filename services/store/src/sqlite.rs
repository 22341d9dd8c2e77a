//! SQLite: a file in WAL mode with one writing connection and several reading ones, or one connection in memory.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use llama_stack_core::{Error, Result, manifest::Durability};
use sqlx::{
    ConnectOptions as _, SqlitePool, Transaction,
    migrate::{MigrateError, Migrator},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::{
    batches::BATCHES,
    command::{Command, Outcome},
    failure::{self, Kind},
    presence::Presence,
    sql::{Arg, Conn, Row},
    turns::TURNS,
    workers,
    writer::Writer,
};

pub(crate) const MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

const READERS: u32 = 4;

/// How long SQLite itself waits for another process's lock. Short beside the patience, which is looked at in between.
const BUSY_WAIT: Duration = Duration::from_millis(500);

/// The log is cut back to this after a checkpoint, or a burst would keep its size for ever.
const MAX_IDLE_LOG_BYTES: &str = "67108864";

/// Attempts to empty the log after a deletion, each of them as patient as the wait for a lock.
const FOLDS: u32 = 4;

pub(crate) struct Sqlite {
    readers: SqlitePool,
    /// The one connection that writes; in memory, the one connection.
    writing: SqlitePool,
    writer: Writer,
    patience: Duration,
    /// None in memory, where nobody else can be.
    presence: Option<Presence>,
    /// Snapshots that are being read: each keeps the log from being emptied, so nobody tries meanwhile.
    held: Arc<AtomicUsize>,
}

/// A snapshot of the file that is being read.
pub(crate) struct Held(Arc<AtomicUsize>, SqlitePool);

impl Drop for Held {
    fn drop(&mut self) {
        if self.0.fetch_sub(1, Ordering::SeqCst) > 1 {
            return;
        }
        // What was deleted meanwhile is still in the log. Without a runtime the process ends, and its end folds the log.
        let (held, writing) = (self.0.clone(), self.1.clone());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { fold(&held, &writing).await });
        }
    }
}

impl Sqlite {
    /// `place` is the URL after `sqlite:`.
    pub(crate) async fn open(place: &str, durability: Durability, patience: Duration) -> Result<Self> {
        // sqlx would log each statement; the store reports what matters itself.
        let options = SqliteConnectOptions::new().foreign_keys(true).busy_timeout(BUSY_WAIT).disable_statement_logging();
        let pool = pool_options(patience).max_connections(1);
        if place == ":memory:" {
            // One connection is the database: readers take their turns with the writer.
            let pool = connect(pool, options.in_memory(true), place, patience).await?;
            let writer = Writer::start(pool.clone(), patience);
            return Ok(Self { readers: pool.clone(), writer, writing: pool, patience, presence: None, held: Arc::default() });
        }
        let path = file(place)?;
        let shown = path.display().to_string();
        create(&path).map_err(|error| unusable(&shown, error))?;
        let (presence, alone) = Presence::enter(&path, patience).await.map_err(|error| unusable(&shown, error))?;
        let options = options
            .filename(&path)
            .journal_mode(SqliteJournalMode::Wal)
            // In WAL mode `Normal` syncs at checkpoints only: the end of the process loses nothing, the end of the
            // machine loses the newest commits but not the file. `Off` would risk the file.
            .synchronous(match durability {
                Durability::Power => SqliteSynchronous::Full,
                Durability::Process => SqliteSynchronous::Normal,
            })
            // What is deleted is overwritten.
            .pragma("secure_delete", "ON")
            .pragma("journal_size_limit", MAX_IDLE_LOG_BYTES);
        let writing = connect(pool, options.clone(), &shown, patience).await?;
        if alone {
            let mut conn = writing.acquire().await.map_err(|error| failure::report(&error).context(&shown))?;
            for leases in [&TURNS, &BATCHES] {
                leases.end_all(&mut Conn::Sqlite(&mut conn)).await.map_err(|error| error.context(&shown))?;
            }
            workers::end_all(&mut Conn::Sqlite(&mut conn)).await.map_err(|error| error.context(&shown))?;
            drop(conn);
            presence.share(patience).await.map_err(|error| unusable(&shown, error))?;
        }
        let readers = pool_options(patience).max_connections(READERS).connect_lazy_with(options.pragma("query_only", "ON"));
        let writer = Writer::start(writing.clone(), patience);
        Ok(Self { readers, writer, writing, patience, presence: Some(presence), held: Arc::default() })
    }

    pub(crate) async fn write(&self, command: Box<dyn Command>) -> Result<Outcome> {
        self.writer.write(command).await
    }

    /// Moves what was written into the file and empties the log, so that what was deleted is in neither. A reader who is
    /// under way keeps it from being emptied for a moment; after a few attempts the next deletion has to do it.
    pub(crate) async fn fold_log(&self) {
        if self.presence.is_some() {
            fold(&self.held, &self.writing).await;
        }
    }

    /// A transaction that sees the file as it is now, and keeps the log from being emptied as long as it is held.
    ///
    /// # Errors
    /// `FailedPrecondition` in memory, where the one connection would keep everybody waiting.
    pub(crate) async fn at_one_moment(&self) -> Result<(Transaction<'static, sqlx::Sqlite>, Held)> {
        if self.presence.is_none() {
            let message = "a database in memory cannot be backed up: name a file as store.url";
            return Err(Error::failed_precondition(message).with_reason("store_in_memory"));
        }
        self.held.fetch_add(1, Ordering::SeqCst);
        let held = Held(self.held.clone(), self.writing.clone());
        let begun = async {
            let mut transaction = self.readers.begin().await?;
            // The moment is that of the first reading.
            sqlx::query("SELECT count(*) FROM sqlite_master").execute(&mut *transaction).await?;
            Ok(transaction)
        };
        Ok((begun.await.map_err(|error: sqlx::Error| failure::report(&error))?, held))
    }

    /// In WAL mode readers wait for nobody, but for moments such as another process's recovery of the log.
    pub(crate) async fn read(&self, sql: &'static str, args: &[Arg<'_>]) -> Result<Vec<Row>> {
        let since = Instant::now();
        loop {
            match self.try_read(sql, args).await {
                Err(error) if Kind::of(&error) == Kind::Busy && since.elapsed() < self.patience => {}
                Err(sqlx::Error::PoolClosed) => return Err(failure::closed()),
                other => return other.map_err(|error| failure::report(&error)),
            }
        }
    }

    async fn try_read(&self, sql: &'static str, args: &[Arg<'_>]) -> sqlx::Result<Vec<Row>> {
        Conn::Sqlite(&mut *self.readers.acquire().await?).rows(sql, args).await
    }

    pub(crate) async fn close(&self) {
        self.writer.close().await;
        self.readers.close().await;
        // Last, because the last connection folds the log into the file, and a reader may not.
        self.writing.close().await;
        if let Some(presence) = &self.presence {
            presence.leave();
        }
    }
}

async fn fold(held: &AtomicUsize, writing: &SqlitePool) {
    for _ in 0..FOLDS {
        if held.load(Ordering::SeqCst) > 0 {
            return;
        }
        let folded: sqlx::Result<i64> = sqlx::query_scalar("PRAGMA wal_checkpoint(TRUNCATE)").fetch_one(writing).await;
        match folded {
            Ok(0) => return,
            Ok(_) => {}
            Err(sqlx::Error::PoolClosed) => return,
            // The deletion itself is committed.
            Err(error) => return tracing::warn!(cause = %error, "the database's log is not emptied yet"),
        }
    }
    tracing::debug!("readers kept the database's log from being emptied");
}

fn pool_options(patience: Duration) -> SqlitePoolOptions {
    // A connection to a file does not go stale, and the one in memory must stay.
    SqlitePoolOptions::new().acquire_timeout(patience).test_before_acquire(false).idle_timeout(None).max_lifetime(None)
}

/// Connects and migrates. Processes that open a new file at the same moment wait for each other.
async fn connect(pool: SqlitePoolOptions, options: SqliteConnectOptions, place: &str, patience: Duration) -> Result<SqlitePool> {
    let since = Instant::now();
    loop {
        match migrated(pool.clone(), options.clone()).await {
            Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _))
                if Kind::of(&error) == Kind::Busy && since.elapsed() < patience =>
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            other => return other.map_err(|error| failure::opening(place, &error)),
        }
    }
}

async fn migrated(pool: SqlitePoolOptions, options: SqliteConnectOptions) -> Result<SqlitePool, MigrateError> {
    let pool = pool.connect_with(options).await?;
    // The lock is taken before looking which migrations are missing; each of them is a savepoint inside.
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    MIGRATIONS.run_direct(None, &mut *transaction, false).await?;
    transaction.commit().await?;
    Ok(pool)
}

/// The path in `//PATH` or `PATH`.
pub(crate) fn file(place: &str) -> Result<PathBuf> {
    let place = place.strip_prefix("//").unwrap_or(place);
    if place.is_empty() || place.contains(['?', '\0']) {
        return Err(Error::invalid("store.url", "store.url must be sqlite://PATH, without parameters, or sqlite::memory:"));
    }
    let home = place.strip_prefix("~/").zip(std::env::home_dir());
    Ok(home.map_or_else(|| PathBuf::from(place), |(rest, home)| home.join(rest)))
}

/// Makes the file and its folders. What people said to their agents is for the owner's eyes only.
pub(crate) fn create(path: &Path) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

pub(crate) fn unusable(place: &str, error: std::io::Error) -> Error {
    let message = format!("{place}: the database file cannot be opened or made: {error}");
    Error::failed_precondition(message).with_reason("store_unusable").with_source(error)
}

#[cfg(test)]
mod tests {
    use llama_stack_core::Code;

    use super::*;
    use crate::sql::args;

    struct Insert(usize);

    #[async_trait::async_trait]
    impl Command for Insert {
        async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, crate::command::Failure> {
            let insert = "INSERT INTO agents (tenant, id, created_us, body) VALUES ('t', $1, 0, $2)";
            conn.execute(insert, args![&self.0.to_string(), &vec![b'x'; self.0]]).await?;
            Ok(Outcome::Done)
        }
    }

    async fn open(folder: &tempfile::TempDir, patience: Duration) -> Sqlite {
        let place = format!("//{}/state.db", folder.path().display());
        Sqlite::open(&place, Durability::Power, patience).await.unwrap()
    }

    #[tokio::test]
    async fn a_lock_that_stays_ends_in_unavailable_after_the_patience() {
        let folder = tempfile::tempdir().unwrap();
        let (store, other) = (open(&folder, Duration::from_secs(2)).await, open(&folder, Duration::from_secs(60)).await);
        let lock = other.readers.begin_with("BEGIN EXCLUSIVE").await;
        assert!(lock.is_err(), "readers must not be able to lock the file");
        let lock = other.writing.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let error = store.write(Box::new(Insert(1))).await.unwrap_err();
        assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("store_busy")));
        assert!(error.retry_after().is_some() && !error.message().contains("locked"));
        lock.rollback().await.unwrap();
        store.write(Box::new(Insert(2))).await.unwrap();
        assert_eq!(store.read("SELECT id FROM agents", &[]).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_full_disk_is_said_and_survived() {
        let folder = tempfile::tempdir().unwrap();
        let store = open(&folder, Duration::from_secs(60)).await;
        sqlx::query("PRAGMA max_page_count = 60").execute(&store.writing).await.unwrap();
        let error = store.write(Box::new(Insert(1_000_000))).await.unwrap_err();
        assert_eq!((error.code(), error.reason(), error.message()), (Code::Unavailable, Some("disk_full"), "the database's disk is full"));
        store.write(Box::new(Insert(10))).await.unwrap();
        let rows = store.read("SELECT id FROM agents", &[]).await.unwrap();
        assert_eq!(rows[0].text(0).unwrap(), "10");
    }

    /// A queue of commands gathers behind a lock: they go into one transaction, and the one that breaks a constraint
    /// falls out of it alone.
    #[tokio::test]
    async fn a_spoiled_group_is_tried_one_by_one() {
        let folder = tempfile::tempdir().unwrap();
        let (store, other) = (open(&folder, Duration::from_secs(60)).await, open(&folder, Duration::from_secs(60)).await);
        let lock = other.writing.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let writes = [1, 2, 2, 3].map(|n| store.write(Box::new(Insert(n))));
        let release = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            lock.rollback().await.unwrap();
        };
        let (results, ()) = tokio::join!(futures::future::join_all(writes), release);
        let codes: Vec<_> = results.into_iter().map(|result| result.err().map(|error| error.code())).collect();
        assert_eq!(codes, [None, None, Some(Code::AlreadyExists), None]);
        assert_eq!(store.read("SELECT id FROM agents", &[]).await.unwrap().len(), 3);
    }

    #[tokio::test]
    async fn power_syncs_each_commit_and_process_only_checkpoints() {
        let folder = tempfile::tempdir().unwrap();
        for (durability, level) in [(Durability::Power, 2_i64), (Durability::Process, 1)] {
            let place = format!("//{}/state.db", folder.path().display());
            let store = Sqlite::open(&place, durability, Duration::from_secs(60)).await.unwrap();
            let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&store.writing).await.unwrap();
            let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&store.writing).await.unwrap();
            assert_eq!((synchronous, mode.as_str()), (level, "wal"));
            store.close().await;
        }
    }
}
