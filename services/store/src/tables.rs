//! Which tables there are, and how their columns are named: asked of the migrations themselves, in a database in memory, so that no
//! list has to be kept beside them.

use llama_stack_core::{Code, Error, Result};
use sqlx::{
    ConnectOptions as _, Connection as _, Row as _,
    migrate::{Migration, Migrator},
    sqlite::SqliteConnectOptions,
};

use crate::{failure, sqlite};

/// A table, and what its columns hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: String,
    pub(crate) columns: Vec<Column>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Int,
    Bytes,
}

impl Table {
    pub(crate) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Its columns, as a statement lists them.
    pub(crate) fn listed(&self) -> String {
        self.columns.iter().map(|column| format!("\"{}\"", column.name)).collect::<Vec<_>>().join(", ")
    }
}

/// The migrations that this program knows, by number.
pub fn known_migrations() -> Vec<i64> {
    sqlite::MIGRATIONS.iter().map(|one| one.version).collect()
}

/// Those of a migrator that have these numbers.
pub(crate) fn only(migrator: &Migrator, versions: &[i64]) -> Migrator {
    let chosen: Vec<Migration> = migrator.iter().filter(|one| versions.contains(&one.version)).cloned().collect();
    Migrator::with_migrations(chosen)
}

/// The tables after these migrations, those that others refer to before those that refer to them.
///
/// # Errors
/// `FailedPrecondition` for a migration that this program does not know.
pub(crate) async fn after(versions: &[i64]) -> Result<Vec<Table>> {
    if let Some(unknown) = versions.iter().find(|version| !sqlite::MIGRATIONS.version_exists(**version)) {
        let message = format!("a newer version of this program wrote it: its tables have change {unknown}, which this one does not know");
        return Err(Error::failed_precondition(message).with_reason("store_too_new"));
    }
    let options = SqliteConnectOptions::new().in_memory(true).disable_statement_logging();
    let mut conn = options.connect().await.map_err(|error| failure::report(&error))?;
    let made = only(&sqlite::MIGRATIONS, versions).run_direct(None, &mut conn, false).await;
    made.map_err(|error| failure::opening("the tables of a backup", &error))?;
    // In the order of their making: a table refers to none that is made after it. `page_keys` holds nobody's data.
    let names = "SELECT name FROM sqlite_master WHERE type = 'table' AND substr(name, 1, 7) <> 'sqlite_' \
                 AND name NOT IN ('_sqlx_migrations', 'page_keys') ORDER BY rowid";
    let names: Vec<String> = sqlx::query_scalar(names).fetch_all(&mut conn).await.map_err(|error| failure::report(&error))?;
    let mut tables = Vec::with_capacity(names.len());
    for name in names {
        let columns = sqlx::query("SELECT name, type FROM pragma_table_info($1) ORDER BY cid").bind(&name).fetch_all(&mut conn).await;
        let columns = columns.map_err(|error| failure::report(&error))?;
        let columns = columns.iter().map(|row| {
            let read = || Ok((row.try_get::<String, _>(0)?, row.try_get::<String, _>(1)?));
            let (column, kind) = read().map_err(|error: sqlx::Error| failure::report(&error))?;
            let kind = match kind.as_str() {
                "TEXT" => Kind::Text,
                "INTEGER" => Kind::Int,
                "BLOB" => Kind::Bytes,
                other => return Err(Error::new(Code::Internal, format!("{name}.{column} is {other}, which no backup can hold"))),
            };
            Ok(Column { name: column, kind })
        });
        let columns = columns.collect::<Result<_>>()?;
        tables.push(Table { name, columns });
    }
    conn.close().await.map_err(|error| failure::report(&error))?;
    Ok(tables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_table_can_be_backed_up_and_comes_after_those_that_it_refers_to() {
        let tables = after(&known_migrations()).await.unwrap();
        let at = |name: &str| tables.iter().position(|table| table.name == name).unwrap();
        assert!(at("sessions") < at("turns") && at("turns") < at("journal") && at("banks") < at("bank_documents"));
        assert_eq!(tables[at("journal")].column("body").map(|column| column.kind), Some(Kind::Bytes));
        assert!(tables[at("turns")].column("caller_turn_id").is_some(), "added by a later migration");
        assert!(tables.iter().all(|table| table.name != "page_keys"), "each database has its own");
    }

    #[tokio::test]
    async fn a_migration_of_a_newer_program_is_refused() {
        let error = after(&[1, 9_999]).await.unwrap_err();
        assert_eq!((error.code(), error.reason()), (Code::FailedPrecondition, Some("store_too_new")));
    }
}
