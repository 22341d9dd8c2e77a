//! All rows of all tables as they are at one moment, while others write: for a backup.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures::StreamExt as _;
use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::Bank;
use prost::Message as _;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Postgres, Row as _, Sqlite, Transaction};
use tokio::sync::mpsc;

use crate::{
    Database, Store, failure,
    sqlite::Held,
    tables::{self, Kind, Table},
};

/// Bytes after which a piece of rows ends. One row may be more.
const PIECE: usize = 4 << 20;

/// The database at one moment. Writes go on; what they change is not seen here.
///
/// Of SQLite, as long as it lives, the log is not emptied: what is deleted meanwhile is overwritten when it ends.
pub struct Snapshot {
    /// The migrations that the database has had.
    versions: Vec<i64>,
    tables: Vec<Table>,
    transaction: AtOneMoment,
}

enum AtOneMoment {
    /// The second keeps the log from being emptied.
    Sqlite(Transaction<'static, Sqlite>, #[expect(dead_code, reason = "what matters is when it is dropped")] Held),
    Postgres(Transaction<'static, Postgres>),
}

/// Rows of one table: a JSON array for each, on a line of its own. Bytes are `{"b64": "…"}`.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    pub count: u64,
    pub lines: Vec<u8>,
}

/// A bank, and what its documents are called.
#[derive(Clone, Debug)]
pub struct KeptBank {
    pub tenant: String,
    pub bank: Bank,
    pub documents: Vec<KeptName>,
}

/// What [a document](crate::KeptDocument) is called.
#[derive(Clone, Debug)]
pub struct KeptName {
    pub id: String,
    pub revision: String,
    pub version: String,
}

impl Store {
    /// # Errors
    /// `FailedPrecondition` a database in memory (`store_in_memory`)
    pub async fn snapshot(&self) -> Result<Snapshot> {
        let versions = tables::known_migrations();
        let tables = tables::after(&versions).await?;
        let transaction = match &*self.0 {
            Database::Sqlite(sqlite) => {
                let (transaction, held) = sqlite.at_one_moment().await?;
                AtOneMoment::Sqlite(transaction, held)
            }
            Database::Postgres(postgres) => AtOneMoment::Postgres(postgres.at_one_moment().await?),
        };
        Ok(Snapshot { versions, tables, transaction })
    }
}

/// The rows of a query of either database, one after the other.
macro_rules! each {
    ($transaction:expr, $sql:expr, $args:expr, $row:ident => $take:block) => {
        match $transaction {
            AtOneMoment::Sqlite(transaction, _) => {
                let mut query = sqlx::query(AssertSqlSafe($sql));
                for arg in $args {
                    query = query.bind(arg);
                }
                let mut rows = query.fetch(&mut **transaction);
                while let Some($row) = rows.next().await {
                    let $row = $row.map_err(|error| failure::report(&error))?;
                    $take
                }
            }
            AtOneMoment::Postgres(transaction) => {
                let mut query = sqlx::query(AssertSqlSafe($sql));
                for arg in $args {
                    query = query.bind(arg);
                }
                let mut rows = query.fetch(&mut **transaction);
                while let Some($row) = rows.next().await {
                    let $row = $row.map_err(|error| failure::report(&error))?;
                    $take
                }
            }
        }
    };
}

/// A value of a row, by what its column holds.
macro_rules! value {
    ($row:expr, $column:expr, $kind:expr) => {
        match $kind {
            Kind::Text => $row.try_get::<Option<String>, _>($column).map(Value::from),
            Kind::Int => $row.try_get::<Option<i64>, _>($column).map(Value::from),
            Kind::Bytes => $row
                .try_get::<Option<Vec<u8>>, _>($column)
                .map(|bytes| bytes.map_or(Value::Null, |bytes| json!({ "b64": BASE64_STANDARD.encode(bytes) }))),
        }
    };
}

impl Snapshot {
    pub fn versions(&self) -> &[i64] {
        &self.versions
    }

    /// The tables' names, those that others refer to first.
    pub fn tables(&self) -> Vec<String> {
        self.tables.iter().map(|table| table.name.clone()).collect()
    }

    /// The columns of a table, in the order of its rows.
    pub fn columns(&self, table: &str) -> Vec<String> {
        let table = self.tables.iter().find(|there| there.name == table);
        table.map(|table| table.columns.iter().map(|column| column.name.clone()).collect()).unwrap_or_default()
    }

    /// Sends all rows of a table, in pieces of a few megabytes. Ends early where nobody takes them.
    pub async fn rows(&mut self, table: &str, out: mpsc::Sender<Rows>) -> Result<()> {
        let table = self.tables.iter().find(|there| there.name == table).cloned();
        let table = table.ok_or_else(|| Error::internal("no such table in the snapshot"))?;
        let sql = format!("SELECT {} FROM \"{}\"", table.listed(), table.name);
        let mut piece = Rows::default();
        each!(&mut self.transaction, sql, Vec::<String>::new(), row => {
            let values = table.columns.iter().enumerate().map(|(at, column)| value!(row, at, column.kind));
            let values = values.collect::<sqlx::Result<Vec<Value>>>().map_err(|error| failure::report(&error))?;
            serde_json::to_writer(&mut piece.lines, &values).map_err(|error| Error::internal("a row is no JSON").with_source(error))?;
            piece.lines.push(b'\n');
            piece.count += 1;
            if piece.lines.len() >= PIECE && out.send(std::mem::take(&mut piece)).await.is_err() {
                return Ok(());
            }
        });
        if piece.count > 0 {
            // Who does not take it any more has had enough.
            let _ = out.send(piece).await;
        }
        Ok(())
    }

    /// The banks, with what their documents are called.
    pub async fn banks(&mut self) -> Result<Vec<KeptBank>> {
        let mut banks = Vec::new();
        let sql = "SELECT tenant, body FROM banks WHERE doomed = 0 ORDER BY tenant, id".to_owned();
        each!(&mut self.transaction, sql, Vec::<String>::new(), row => {
            let read = || Ok((row.try_get::<String, _>(0)?, row.try_get::<Vec<u8>, _>(1)?));
            let (tenant, body) = read().map_err(|error: sqlx::Error| failure::report(&error))?;
            let damaged = |error| Error::new(llama_stack_core::Code::DataLoss, "a stored bank cannot be read").with_source(error);
            let bank = Bank::decode(body.as_slice()).map_err(damaged)?;
            banks.push(KeptBank { tenant, bank, documents: Vec::new() });
        });
        for kept in &mut banks {
            let sql = "SELECT id, revision, version FROM bank_documents WHERE tenant = $1 AND bank_id = $2 ORDER BY id".to_owned();
            let args = vec![kept.tenant.clone(), kept.bank.id.clone()];
            each!(&mut self.transaction, sql, args, row => {
                let read = || Ok(KeptName { id: row.try_get(0)?, revision: row.try_get(1)?, version: row.try_get(2)? });
                kept.documents.push(read().map_err(|error: sqlx::Error| failure::report(&error))?);
            });
        }
        Ok(banks)
    }

    /// The contents that files have, each once, with the id of one file that has it.
    pub async fn blobs(&mut self) -> Result<Vec<(String, String)>> {
        let mut blobs = Vec::new();
        let sql = "SELECT blob, MIN(id) FROM files GROUP BY blob ORDER BY blob".to_owned();
        each!(&mut self.transaction, sql, Vec::<String>::new(), row => {
            let read = || Ok((row.try_get::<String, _>(0)?, row.try_get::<String, _>(1)?));
            blobs.push(read().map_err(|error: sqlx::Error| failure::report(&error))?);
        });
        Ok(blobs)
    }
}
