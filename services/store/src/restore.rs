//! Rows of a backup, into a database that has none: all of them or none.

use std::{collections::HashMap, path::PathBuf};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use llama_stack_core::{Code, Error, Result};
use llama_stack_proto::v1::{Document, DocumentStatus};
use prost::Message as _;
use serde_json::Value;
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Executor as _, Pool, Postgres, Row as _, Sqlite, Transaction,
    migrate::Migrate as _,
    postgres::PgPoolOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions},
};

use crate::{
    Inspected, PATIENCE, failure, inspect, postgres,
    presence::Presence,
    sqlite,
    tables::{self, Kind, Table},
};

/// A database that is being filled, all in one transaction. Dropped before [`Restore::finish`], it is what it was.
pub struct Restore {
    conn: Conn,
    tables: Vec<Table>,
    /// Banks that were there before, where they were to be replaced: tenant, id, provider.
    replaced: Vec<(String, String, String)>,
}

/// What became of documents that were changed while the backup was made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settled {
    /// Those that are read again.
    pub read_again: u64,
    /// Those that were deleted meanwhile, and of which nothing is left to restore.
    pub gone: u64,
}

/// A transaction, and the pool that its connection is from.
enum Conn {
    /// With the lock that keeps others from opening the file.
    Sqlite(Transaction<'static, Sqlite>, Pool<Sqlite>, Presence),
    Postgres(Transaction<'static, Postgres>, Pool<Postgres>),
}

/// What a query without rows in return comes to, in either database.
macro_rules! run {
    ($conn:expr, $sql:expr) => {
        match $conn {
            Conn::Sqlite(conn, ..) => sqlx::query(AssertSqlSafe($sql)).execute(&mut **conn).await.map(drop),
            Conn::Postgres(conn, _) => sqlx::query(AssertSqlSafe($sql)).execute(&mut **conn).await.map(drop),
        }
        .map_err(|error| failure::report(&error))
    };
}

macro_rules! texts {
    ($conn:expr, $sql:expr, $columns:expr) => {
        match $conn {
            Conn::Sqlite(conn, ..) => sqlx::query(AssertSqlSafe($sql)).fetch_all(&mut **conn).await.and_then(|rows| {
                rows.iter()
                    .map(|row| (0..$columns).map(|at| row.try_get::<String, _>(at)).collect())
                    .collect::<sqlx::Result<Vec<Vec<String>>>>()
            }),
            Conn::Postgres(conn, _) => sqlx::query(AssertSqlSafe($sql)).fetch_all(&mut **conn).await.and_then(|rows| {
                rows.iter()
                    .map(|row| (0..$columns).map(|at| row.try_get::<String, _>(at)).collect())
                    .collect::<sqlx::Result<Vec<Vec<String>>>>()
            }),
        }
        .map_err(|error| failure::report(&error))
    };
}

impl Restore {
    /// Makes the tables as they are after these migrations.
    ///
    /// # Errors
    /// `FailedPrecondition` there are rows and `replace` is not set (`not_empty`), another process has the SQLite file open
    /// (`store_in_use`), a newer version of the program wrote the backup or the database (`store_too_new`), or it is in memory.
    pub async fn begin(url: &str, versions: &[i64], replace: bool) -> Result<Self> {
        let tables = tables::after(versions).await?;
        // The lock comes first: what is found under it stays so, whoever starts meanwhile.
        let conn = Conn::open(url).await?;
        let inspected = inspect(url, None).await?;
        if inspected == Inspected::Ahead {
            let message = "a newer version of this program wrote the database that is to be restored into";
            return Err(Error::failed_precondition(message).with_reason("store_too_new"));
        }
        let mut restore = Self { conn, tables, replaced: Vec::new() };
        if matches!(inspected, Inspected::Current | Inspected::Sealed | Inspected::Behind(_)) {
            restore.clear(replace).await?;
        }
        let made = match &mut restore.conn {
            Conn::Sqlite(conn, ..) => tables::only(&sqlite::MIGRATIONS, versions).run_direct(None, &mut **conn, false).await,
            Conn::Postgres(conn, _) => tables::only(&postgres::MIGRATIONS, versions).run_direct(None, &mut **conn, false).await,
        };
        made.map_err(|error| failure::opening("store.url", &error))?;
        Ok(restore)
    }

    /// Drops the tables that are there, where they are empty or that was asked for.
    async fn clear(&mut self, replace: bool) -> Result<()> {
        let applied = "SELECT CAST(version AS TEXT) FROM _sqlx_migrations WHERE success ORDER BY version";
        let applied: Vec<Vec<String>> = texts!(&mut self.conn, applied, 1)?;
        let applied: Vec<i64> = applied.iter().flatten().filter_map(|version| version.parse().ok()).collect();
        let there = tables::after(&applied).await?;
        if !replace {
            for table in &there {
                let sql = format!("SELECT '1' FROM \"{}\" LIMIT 1", table.name);
                if !texts!(&mut self.conn, sql, 1)?.is_empty() {
                    let message = format!("the database is not empty: it has rows in {}; --replace deletes all that is there", table.name);
                    return Err(Error::failed_precondition(message).with_reason("not_empty"));
                }
            }
        }
        if there.iter().any(|table| table.name == "banks") {
            let banks: Vec<Vec<String>> = texts!(&mut self.conn, "SELECT tenant, id, provider_id FROM banks", 3)?;
            let three =
                |mut row: Vec<String>| Some((row.pop()?, row.pop()?, row.pop()?)).map(|(provider, id, tenant)| (tenant, id, provider));
            self.replaced = banks.into_iter().filter_map(three).collect();
        }
        for table in there.iter().rev() {
            run!(&mut self.conn, format!("DROP TABLE \"{}\"", table.name))?;
        }
        run!(&mut self.conn, "DROP TABLE _sqlx_migrations")
    }

    /// Banks that were there before: tenant, id, provider.
    pub fn replaced(&self) -> &[(String, String, String)] {
        &self.replaced
    }

    /// Puts rows in, as [`crate::Rows`] has them, and says how many.
    ///
    /// # Errors
    /// `InvalidArgument` for a table or column that there is not, and for lines that are no rows.
    pub async fn insert(&mut self, table: &str, columns: &[String], lines: &[u8]) -> Result<u64> {
        let crooked = |what: String| Error::invalid("backup", what).with_reason("bad_backup");
        let there = self.tables.iter().find(|there| there.name == table);
        let there = there.ok_or_else(|| crooked(format!("the backup has a table {table:?}, and the database none")))?;
        let kinds = columns.iter().map(|name| there.column(name).map(|column| column.kind)).collect::<Option<Vec<Kind>>>();
        let kinds = kinds.ok_or_else(|| crooked(format!("the backup's {table} has a column that the database's has not")))?;
        let names: Vec<String> = columns.iter().map(|name| format!("\"{name}\"")).collect();
        let places: Vec<String> = (1..=columns.len()).map(|n| format!("${n}")).collect();
        let sql = format!("INSERT INTO \"{table}\" ({}) VALUES ({})", names.join(", "), places.join(", "));
        let mut count = 0;
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let values = serde_json::from_slice::<Vec<Value>>(line).ok().filter(|values| values.len() == kinds.len());
            let values = values.ok_or_else(|| crooked(format!("row {count} of a piece of {table} is none")))?;
            self.insert_row(&sql, &kinds, values).await.map_err(|error| error.context(table))?;
            count += 1;
        }
        Ok(count)
    }

    async fn insert_row(&mut self, sql: &str, kinds: &[Kind], values: Vec<Value>) -> Result<()> {
        let bytes = |value: &Value| value.get("b64").and_then(Value::as_str).and_then(|text| BASE64_STANDARD.decode(text).ok());
        macro_rules! bound {
            ($conn:expr) => {{
                let mut query = sqlx::query(AssertSqlSafe(sql));
                for (kind, value) in kinds.iter().zip(&values) {
                    query = match kind {
                        Kind::Text => query.bind(value.as_str().map(str::to_owned)),
                        Kind::Int => query.bind(value.as_i64()),
                        Kind::Bytes => query.bind(bytes(value)),
                    };
                }
                query.execute(&mut **$conn).await.map(drop)
            }};
        }
        match &mut self.conn {
            Conn::Sqlite(conn, ..) => bound!(conn),
            Conn::Postgres(conn, _) => bound!(conn),
        }
        .map_err(|error| failure::report(&error))
    }

    /// Brings the documents of a bank into line with what the backup has of them, where they were changed while it was made: one
    /// that was replaced or renamed, or has not as many chunks as it had, is read again at the next start; one of which only chunks are
    /// kept, or whose bank has no model to read it with, is what they say; one that nothing is left of goes. One whose last insertion had
    /// failed, or was cancelled, stays so, and the same content again is read again.
    pub async fn settle(
        &mut self,
        tenant: &str,
        bank: &str,
        can_read_again: bool,
        chunks: &HashMap<String, u64>,
        changed: &HashMap<String, Document>,
    ) -> Result<Settled> {
        let sql = "SELECT body, length(content), status FROM bank_documents WHERE tenant = $1 AND bank_id = $2 AND status <> $3";
        let (in_progress, mut rows) = (i64::from(DocumentStatus::InProgress as i32), Vec::new());
        macro_rules! rows {
            ($conn:expr) => {{
                let found = sqlx::query(sql).bind(tenant).bind(bank).bind(in_progress).fetch_all(&mut **$conn).await;
                for row in found.map_err(|error| failure::report(&error))? {
                    // Postgres counts in 32 bits.
                    let length = row.try_get::<i64, _>(1).or_else(|_| row.try_get::<i32, _>(1).map(i64::from));
                    let read = row.try_get::<Vec<u8>, _>(0).and_then(|body| Ok((body, length?, row.try_get::<i64, _>(2)?)));
                    rows.push(read.map_err(|error| failure::report(&error))?);
                }
            }};
        }
        match &mut self.conn {
            Conn::Sqlite(conn, ..) => rows!(conn),
            Conn::Postgres(conn, _) => rows!(conn),
        }
        let mut settled = Settled::default();
        for (body, length, status) in rows {
            let damaged = |error| Error::new(Code::DataLoss, "a document of the backup cannot be read").with_source(error);
            let mut document = Document::decode(body.as_slice()).map_err(damaged)?;
            let there = chunks.get(&document.id).copied().unwrap_or_default();
            // A content that is still coming part by part is not what its chunks were made of. Of a file the body says which.
            let is_whole = document.content.is_some() || u64::try_from(length).unwrap_or_default() >= document.bytes;
            let has_source = can_read_again && length > 0 && is_whole;
            let differs = changed.contains_key(&document.id) || there != u64::from(document.chunk_count);
            // A cancel is not in the body.
            document.status = i32::try_from(status).unwrap_or_default();
            if document.status() != DocumentStatus::Completed {
                if differs && !document.sha256.is_empty() {
                    document.sha256.clear();
                    self.put_document(tenant, bank, &document).await?;
                }
                continue;
            }
            if has_source && differs {
                document.status = DocumentStatus::InProgress.into();
                document.sha256.clear();
                self.put_document(tenant, bank, &document).await?;
                settled.read_again += 1;
            } else if !has_source
                && there > 0
                && let Some(now) = changed.get(&document.id).filter(|now| now.chunk_count > 0)
            {
                document.title.clone_from(&now.title);
                document.attributes.clone_from(&now.attributes);
                document.chunk_count = now.chunk_count;
                self.put_document(tenant, bank, &document).await?;
            } else if !has_source && there == 0 && document.chunk_count > 0 {
                let delete = "DELETE FROM bank_documents WHERE tenant = $1 AND bank_id = $2 AND id = $3";
                macro_rules! delete {
                    ($conn:expr) => {
                        sqlx::query(delete).bind(tenant).bind(bank).bind(&document.id).execute(&mut **$conn).await.map(drop)
                    };
                }
                match &mut self.conn {
                    Conn::Sqlite(conn, ..) => delete!(conn),
                    Conn::Postgres(conn, _) => delete!(conn),
                }
                .map_err(|error| failure::report(&error))?;
                settled.gone += 1;
            }
        }
        Ok(settled)
    }

    async fn put_document(&mut self, tenant: &str, bank: &str, document: &Document) -> Result<()> {
        let update = "UPDATE bank_documents SET status = $4, body = $5 WHERE tenant = $1 AND bank_id = $2 AND id = $3";
        let (status, body) = (i64::from(document.status), document.encode_to_vec());
        macro_rules! update {
            ($conn:expr) => {{
                let update = sqlx::query(update).bind(tenant).bind(bank).bind(&document.id).bind(status).bind(body);
                update.execute(&mut **$conn).await.map(drop)
            }};
        }
        match &mut self.conn {
            Conn::Sqlite(conn, ..) => update!(conn),
            Conn::Postgres(conn, _) => update!(conn),
        }
        .map_err(|error| failure::report(&error))
    }

    /// Brings the tables up to date, and commits.
    pub async fn finish(mut self) -> Result<()> {
        let opening = |error| failure::opening("store.url", &error);
        let report = |error| failure::report(&error);
        match &mut self.conn {
            Conn::Sqlite(conn, ..) => sqlite::MIGRATIONS.run_direct(None, &mut **conn, false).await.map_err(opening)?,
            Conn::Postgres(conn, _) => postgres::MIGRATIONS.run_direct(None, &mut **conn, false).await.map_err(opening)?,
        }
        match self.conn {
            Conn::Sqlite(conn, pool, _presence) => {
                conn.commit().await.map_err(report)?;
                pool.close().await;
            }
            Conn::Postgres(conn, pool) => {
                conn.commit().await.map_err(report)?;
                pool.close().await;
            }
        }
        Ok(())
    }
}

impl Conn {
    async fn open(url: &str) -> Result<Self> {
        match url.split_once(':') {
            Some(("sqlite", ":memory:")) => {
                Err(Error::failed_precondition("a database in memory cannot be restored into").with_reason("store_in_memory"))
            }
            Some(("sqlite", place)) => {
                let path: PathBuf = sqlite::file(place)?;
                let shown = path.display().to_string();
                sqlite::create(&path).map_err(|error| sqlite::unusable(&shown, error))?;
                let (presence, alone) = Presence::enter(&path, PATIENCE).await.map_err(|error| sqlite::unusable(&shown, error))?;
                if !alone {
                    let message = format!("{shown}: another process has the database open: stop it first");
                    return Err(Error::failed_precondition(message).with_reason("store_in_use"));
                }
                let options = SqliteConnectOptions::new().filename(&path).journal_mode(SqliteJournalMode::Wal).foreign_keys(true);
                let options = options.pragma("secure_delete", "ON").disable_statement_logging();
                let report = |error| failure::report(&error).context(&shown);
                let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.map_err(report)?;
                Ok(Self::Sqlite(pool.begin().await.map_err(report)?, pool, presence))
            }
            Some(("postgres" | "postgresql", _)) => {
                let options = postgres::options(url)?;
                let report = |error| failure::report(&error);
                let pool = PgPoolOptions::new().max_connections(1).connect_with(options).await.map_err(report)?;
                // A server that starts meanwhile waits before it looks at the tables; the lock goes with the connection.
                let mut conn = pool.acquire().await.map_err(report)?;
                conn.lock().await.map_err(|error| failure::opening("store.url", &error))?;
                drop(conn);
                let mut transaction = pool.begin().await.map_err(report)?;
                // It waits while indexes are filled.
                transaction.execute("SET LOCAL idle_in_transaction_session_timeout = 0").await.map_err(report)?;
                Ok(Self::Postgres(transaction, pool))
            }
            _ => Err(failure::unknown_database()),
        }
    }
}
