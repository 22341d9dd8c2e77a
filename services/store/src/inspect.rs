//! Looks at a database without changing it: whether it answers, whether its tables are this program's, and whether what is sealed in it
//! opens.

use llama_stack_core::Result;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection, postgres::PgConnection, sqlite::SqliteConnectOptions};

use crate::{
    failure, postgres,
    sealed::{Sealer, opened},
    sqlite,
    tool_groups::{ALL, place},
};

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
    /// They are, and something in them is sealed with a key that is not here, at which a start ends.
    Sealed,
    /// So many changes of its tables are to be made; the next start makes them.
    Behind(usize),
    /// A newer version of the program wrote it.
    Ahead,
}

/// Looks at the database of a URL, as [`crate::Store::open`] takes it. Nothing is written. `sealer`: with the keys that are here.
///
/// # Errors
/// `InvalidArgument` another URL · `Unavailable` it does not answer · `DataLoss` no database, or a damaged one.
pub async fn inspect(url: &str, sealer: Option<&Sealer>) -> Result<Inspected> {
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
            let found = compared(&applied, &sqlite::MIGRATIONS);
            if found != Inspected::Current {
                return Ok(found);
            }
            let kept = sqlx::query_as::<_, Kept>(ALL).fetch_all(&mut conn).await;
            Ok(unsealed(&kept.map_err(|error| failure::report(&error).context(&shown))?, sealer))
        }
        Some(("postgres" | "postgresql", _)) => {
            let options = postgres::options(url)?;
            let place = format!("postgres at {}:{}", options.get_host(), options.get_port());
            let mut conn = PgConnection::connect_with(&options).await.map_err(|error| failure::report(&error).context(&place))?;
            let there = sqlx::query_scalar::<_, bool>("SELECT to_regclass('_sqlx_migrations') IS NOT NULL");
            let there = there.fetch_one(&mut conn).await.map_err(|error| failure::report(&error).context(&place))?;
            if !there {
                return Ok(Inspected::Empty);
            }
            let applied = sqlx::query_scalar::<_, i64>(APPLIED).fetch_all(&mut conn).await;
            let applied = applied.map_err(|error| failure::report(&error).context(&place))?;
            let found = compared(&applied, &postgres::MIGRATIONS);
            if found != Inspected::Current {
                return Ok(found);
            }
            let kept = sqlx::query_as::<_, Kept>(ALL).fetch_all(&mut conn).await;
            Ok(unsealed(&kept.map_err(|error| failure::report(&error).context(&place))?, sealer))
        }
        _ => Err(failure::unknown_database()),
    }
}

/// What [`ALL`] reads: what was kept, its id and its tenant.
type Kept = (Vec<u8>, String, String);

/// Of tables that are as they should be. What is damaged is told by who needs it.
fn unsealed(kept: &[Kept], sealer: Option<&Sealer>) -> Inspected {
    let is_locked = |(body, id, tenant): &Kept| {
        let opened = opened(sealer, &place(tenant, id), body);
        opened.is_err_and(|error| error.reason() == Some("wrong_secret_key"))
    };
    if kept.iter().any(is_locked) { Inspected::Sealed } else { Inspected::Current }
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
    use llama_stack_core::context::Secret;
    use llama_stack_proto::v1::RegisterToolGroupRequest;

    use super::*;
    use crate::{Durability, Store};

    #[tokio::test]
    async fn a_look_changes_nothing_and_tells_new_from_current() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let url = format!("sqlite://{}", path.display());
        assert_eq!(inspect(&url, None).await.unwrap(), Inspected::Absent);
        assert!(!path.exists(), "a look made a database");
        Store::open(&url, Durability::Process).await.unwrap().close().await;
        assert_eq!(inspect(&url, None).await.unwrap(), Inspected::Current);
        std::fs::write(&path, "this is no database, however long it may be, and it is quite long".repeat(100)).unwrap();
        assert!(inspect(&url, None).await.is_err());
    }

    #[tokio::test]
    async fn what_a_key_sealed_that_is_not_here_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}/state.db", folder.path().display());
        let sealer = |digit: &str| Sealer::new(&[Secret::new(digit.repeat(64))]).unwrap();
        let store = Store::open(&url, Durability::Process).await.unwrap().sealed_by(sealer("a"));
        let group = RegisterToolGroupRequest { id: "weather".into(), config: "{}".into(), ..RegisterToolGroupRequest::default() };
        store.insert_tool_group("acme", &group).await.unwrap();
        store.close().await;
        assert_eq!(inspect(&url, sealer("a").as_ref()).await.unwrap(), Inspected::Current);
        assert_eq!(inspect(&url, sealer("b").as_ref()).await.unwrap(), Inspected::Sealed);
        assert_eq!(inspect(&url, None).await.unwrap(), Inspected::Sealed);
    }
}
