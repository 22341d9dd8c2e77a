//! Looks at a database without changing it: whether it answers, and whether its tables are this program's.

use std::str::FromStr as _;

use llama_stack_core::{Error, Result};
use sqlx::{
    ConnectOptions as _, Connection as _, SqliteConnection,
    postgres::{PgConnectOptions, PgConnection},
    sqlite::SqliteConnectOptions,
};

use crate::{failure, postgres, sqlite};

/// The migrations that a database has had.
const APPLIED: &str = "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version";

/// What a look at a database finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inspected {
    /// There is no such file: the first start makes it.
    Absent,
    /// It answers, and has no tables yet.
    Empty,
    /// Its tables are as this program has them.
    Current,
    /// So many changes of its tables are to be made; the next start makes them.
    Behind(usize),
    /// A newer version of the program wrote it.
    Ahead,
}

/// Looks at the database of a URL, as [`crate::Store::open`] takes it. Nothing is written.
///
/// # Errors
/// `InvalidArgument` another URL · `Unavailable` it does not answer · `DataLoss` no database, or a damaged one.
pub async fn inspect(url: &str) -> Result<Inspected> {
    match url.split_once(':') {
        Some(("sqlite", ":memory:")) => Ok(Inspected::Absent),
        Some(("sqlite", place)) => {
            let path = sqlite::file(place)?;
            if !path.exists() {
                return Ok(Inspected::Absent);
            }
            let shown = path.display().to_string();
            let options = SqliteConnectOptions::new().filename(&path).read_only(true).disable_statement_logging();
            let conn = SqliteConnection::connect_with(&options).await;
            let mut conn = conn.map_err(|error| failure::report(&error).context(&shown))?;
            let tables = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM sqlite_master WHERE name = '_sqlx_migrations'");
            let tables = tables.fetch_one(&mut conn).await.map_err(|error| failure::report(&error).context(&shown))?;
            if tables == 0 {
                return Ok(Inspected::Empty);
            }
            let applied = sqlx::query_scalar::<_, i64>(APPLIED).fetch_all(&mut conn).await;
            let applied = applied.map_err(|error| failure::report(&error).context(&shown))?;
            Ok(compared(&applied, &sqlite::MIGRATIONS))
        }
        Some(("postgres" | "postgresql", _)) => {
            let bad_url = |_| Error::invalid("store.url", "store.url is not a valid postgres:// URL");
            let options = PgConnectOptions::from_str(url).map_err(bad_url)?.application_name("llama-stack").disable_statement_logging();
            let place = format!("postgres at {}:{}", options.get_host(), options.get_port());
            let mut conn = PgConnection::connect_with(&options).await.map_err(|error| failure::report(&error).context(&place))?;
            let there = sqlx::query_scalar::<_, bool>("SELECT to_regclass('_sqlx_migrations') IS NOT NULL");
            let there = there.fetch_one(&mut conn).await.map_err(|error| failure::report(&error).context(&place))?;
            if !there {
                return Ok(Inspected::Empty);
            }
            let applied = sqlx::query_scalar::<_, i64>(APPLIED).fetch_all(&mut conn).await;
            let applied = applied.map_err(|error| failure::report(&error).context(&place))?;
            Ok(compared(&applied, &postgres::MIGRATIONS))
        }
        _ => Err(failure::unknown_database()),
    }
}

fn compared(applied: &[i64], known: &sqlx::migrate::Migrator) -> Inspected {
    if applied.iter().any(|version| !known.version_exists(*version)) {
        return Inspected::Ahead;
    }
    match known.iter().filter(|one| !applied.contains(&one.version)).count() {
        0 => Inspected::Current,
        missing => Inspected::Behind(missing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Durability, Store};

    #[tokio::test]
    async fn a_look_changes_nothing_and_tells_new_from_current() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let url = format!("sqlite://{}", path.display());
        assert_eq!(inspect(&url).await.unwrap(), Inspected::Absent);
        assert!(!path.exists(), "a look made a database");
        Store::open(&url, Durability::Process).await.unwrap().close().await;
        assert_eq!(inspect(&url).await.unwrap(), Inspected::Current);
        std::fs::write(&path, "this is no database, however long it may be, and it is quite long".repeat(100)).unwrap();
        assert!(inspect(&url).await.is_err());
    }
}
