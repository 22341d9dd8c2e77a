//! The one place where the two databases differ in Rust: how a statement is bound, run and read.
//!
//! Both number their parameters `$1`, `$2`, …; columns are text, 64-bit integers or bytes, and never null.

use sqlx::{AssertSqlSafe, PgConnection, Row as _, SqliteConnection, postgres::PgRow, sqlite::SqliteRow};

/// A connection that a statement can be run on.
pub(crate) enum Conn<'c> {
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c mut PgConnection),
}

/// A parameter's value.
#[derive(Clone, Copy)]
pub(crate) enum Arg<'a> {
    Text(&'a str),
    Int(i64),
    Bytes(&'a [u8]),
}

pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

/// Binds every argument to a query of either database.
macro_rules! bound {
    ($sql:expr, $args:expr) => {{
        let mut query = sqlx::query($sql);
        for arg in $args {
            query = match *arg {
                Arg::Text(text) => query.bind(text),
                Arg::Int(int) => query.bind(int),
                Arg::Bytes(bytes) => query.bind(bytes),
            };
        }
        query
    }};
}

/// Two numbers, so that it meets no other use of such locks in the same database.
const LOCK: &str = "SELECT 1 FROM pg_advisory_xact_lock(7321, hashtext($1))";

impl Conn<'_> {
    /// Waits until no other transaction holds this name, and holds it until this one ends. SQLite has one writer anyway.
    pub(crate) async fn lock(&mut self, name: &str) -> sqlx::Result<()> {
        match self {
            Conn::Sqlite(_) => Ok(()),
            Conn::Postgres(_) => self.rows(LOCK, &[Arg::Text(name)]).await.map(drop),
        }
    }

    /// Runs a statement, and says how many rows it wrote.
    pub(crate) async fn execute(&mut self, sql: &'static str, args: &[Arg<'_>]) -> sqlx::Result<u64> {
        Ok(match self {
            Conn::Sqlite(conn) => bound!(sql, args).execute(&mut **conn).await?.rows_affected(),
            Conn::Postgres(conn) => bound!(sql, args).execute(&mut **conn).await?.rows_affected(),
        })
    }

    /// [`Conn::execute`] of a statement that was put together: of names of this program's own tables, never of what callers say.
    pub(crate) async fn execute_made(&mut self, sql: String, args: &[Arg<'_>]) -> sqlx::Result<u64> {
        Ok(match self {
            Conn::Sqlite(conn) => bound!(AssertSqlSafe(sql), args).execute(&mut **conn).await?.rows_affected(),
            Conn::Postgres(conn) => bound!(AssertSqlSafe(sql), args).execute(&mut **conn).await?.rows_affected(),
        })
    }

    /// A question whose words differ.
    pub(crate) async fn rows_of(&mut self, sqlite: &'static str, postgres: &'static str, args: &[Arg<'_>]) -> sqlx::Result<Vec<Row>> {
        let sql = if matches!(self, Conn::Sqlite(_)) { sqlite } else { postgres };
        self.rows(sql, args).await
    }

    pub(crate) async fn rows(&mut self, sql: &'static str, args: &[Arg<'_>]) -> sqlx::Result<Vec<Row>> {
        Ok(match self {
            Conn::Sqlite(conn) => bound!(sql, args).fetch_all(&mut **conn).await?.into_iter().map(Row::Sqlite).collect(),
            Conn::Postgres(conn) => bound!(sql, args).fetch_all(&mut **conn).await?.into_iter().map(Row::Postgres).collect(),
        })
    }
}

impl Row {
    pub(crate) fn text(&self, column: usize) -> sqlx::Result<String> {
        match self {
            Row::Sqlite(row) => row.try_get(column),
            Row::Postgres(row) => row.try_get(column),
        }
    }

    pub(crate) fn int(&self, column: usize) -> sqlx::Result<i64> {
        match self {
            Row::Sqlite(row) => row.try_get(column),
            Row::Postgres(row) => row.try_get(column),
        }
    }

    pub(crate) fn bytes(&self, column: usize) -> sqlx::Result<&[u8]> {
        match self {
            Row::Sqlite(row) => row.try_get(column),
            Row::Postgres(row) => row.try_get(column),
        }
    }
}

impl<'a> From<&'a str> for Arg<'a> {
    fn from(text: &'a str) -> Self {
        Arg::Text(text)
    }
}

impl<'a> From<&'a String> for Arg<'a> {
    fn from(text: &'a String) -> Self {
        Arg::Text(text)
    }
}

impl From<i64> for Arg<'_> {
    fn from(int: i64) -> Self {
        Arg::Int(int)
    }
}

impl<'a> From<&'a Vec<u8>> for Arg<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Arg::Bytes(bytes)
    }
}

/// Arguments of different kinds in one list.
macro_rules! args {
    ($($arg:expr),* $(,)?) => { &[$($crate::sql::Arg::from($arg)),*] };
}
pub(crate) use args;
