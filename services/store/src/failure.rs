//! What a database's failure means to a caller. The database's own words go to the log, never to the caller.

use std::time::Duration;

use llama_stack_core::{Code, Error, Result};
use prost::Message;
use sqlx::{migrate::MigrateError, postgres::PgDatabaseError, sqlite::SqliteError};

use crate::sql::Row;

/// What has to be done about a failed statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Another process holds the lock, or two transactions crossed: again, within patience.
    Busy,
    DiskFull,
    DiskFailed,
    Damaged,
    /// The file cannot be opened or written, or the role may not do this.
    Unusable,
    /// The server does not answer.
    Unavailable,
    /// A row with this key is there already.
    Duplicate,
    /// The row that this one belongs to is gone.
    Orphan,
    /// A value that the database does not take, for example text with a NUL character.
    BadValue,
    /// A defect of this program.
    Defect,
}

impl Kind {
    pub(crate) fn of(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Database(database) => {
                let code = database.code().unwrap_or_default();
                if database.try_downcast_ref::<SqliteError>().is_some() {
                    return code.parse().map_or(Kind::Defect, Kind::of_sqlite);
                }
                database.try_downcast_ref::<PgDatabaseError>().map_or(Kind::Defect, |_| Kind::of_postgres(&code))
            }
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
                Kind::Unavailable
            }
            _ => Kind::Defect,
        }
    }

    /// Source: "Result and Error Codes" of SQLite; the low byte is the primary code.
    fn of_sqlite(extended: u32) -> Self {
        const UNIQUE: u32 = 2067;
        const PRIMARY_KEY: u32 = 1555;
        const FOREIGN_KEY: u32 = 787;
        // There is no room for the memory that processes share, which is a file; a disk that fails says so in other places too.
        const IOERR_SHMSIZE: u32 = 4874;
        match (extended & 0xff, extended) {
            (_, UNIQUE | PRIMARY_KEY) => Kind::Duplicate,
            (_, FOREIGN_KEY) => Kind::Orphan,
            (5 | 6, _) => Kind::Busy,
            (13, _) | (_, IOERR_SHMSIZE) => Kind::DiskFull,
            (10, _) => Kind::DiskFailed,
            (11 | 26, _) => Kind::Damaged,
            (3 | 8 | 14 | 23, _) => Kind::Unusable,
            (18 | 20, _) => Kind::BadValue,
            _ => Kind::Defect,
        }
    }

    /// Source: appendix A of the Postgres manual, "PostgreSQL Error Codes".
    fn of_postgres(state: &str) -> Self {
        match state {
            "40001" | "40P01" | "55P03" => Kind::Busy,
            "23505" => Kind::Duplicate,
            "23503" => Kind::Orphan,
            "53100" => Kind::DiskFull,
            "58030" => Kind::DiskFailed,
            "42501" | "25006" => Kind::Unusable,
            "XX001" | "XX002" => Kind::Damaged,
            _ if state.starts_with("22") => Kind::BadValue,
            // No such role or database, wrong password.
            _ if state.starts_with("28") || state.starts_with("3D") => Kind::Unusable,
            // Idle in a transaction for too long: this process was stopped, or cut off.
            "25P03" => Kind::Unavailable,
            // Lost connections, too many of them, shutting down.
            _ if state.starts_with("08") || state.starts_with("53") || state.starts_with("57") => Kind::Unavailable,
            _ => Kind::Defect,
        }
    }

    /// The failure is one statement's own, not the whole database's: the neighbours in a group deserve another try.
    pub(crate) fn is_of_one_statement(self) -> bool {
        matches!(self, Kind::Duplicate | Kind::Orphan | Kind::BadValue | Kind::Defect)
    }

    fn error(self) -> Error {
        let unavailable = |message: &str, reason: &str| Error::unavailable(message).with_reason(reason);
        match self {
            Kind::Busy => unavailable("the database is busy: try again", "store_busy").with_retry_after(Duration::from_secs(1)),
            Kind::DiskFull => unavailable("the database's disk is full", "disk_full"),
            Kind::DiskFailed => unavailable("the database's disk fails", "disk_failed"),
            Kind::Damaged => Error::new(Code::DataLoss, "the database is damaged").with_reason("store_damaged"),
            Kind::Unusable => Error::failed_precondition("the database cannot be opened or written").with_reason("store_unusable"),
            Kind::Unavailable => unavailable("the database does not answer", "store_unavailable").with_retry_after(Duration::from_secs(1)),
            Kind::Duplicate => Error::new(Code::AlreadyExists, "this id is taken").with_reason("id_taken"),
            Kind::Orphan => Error::not_found("what this belongs to was deleted").with_reason("session_not_found"),
            Kind::BadValue => Error::new(Code::InvalidArgument, "an id or key cannot be stored: it holds a NUL character or is too large"),
            Kind::Defect => Error::internal("the database refused a statement").with_reason("store_failed"),
        }
    }
}

/// For a URL of neither kind.
pub(crate) fn unknown_database() -> Error {
    Error::invalid("store.url", "store.url must begin with sqlite: or postgres:")
}

/// The error for the caller. The cause is logged here and goes along for logs further up.
pub(crate) fn report(error: &sqlx::Error) -> Error {
    let kind = Kind::of(error);
    if kind.is_of_one_statement() {
        tracing::warn!(?kind, cause = %error, "a statement failed");
    } else {
        tracing::error!(?kind, cause = %error, "the database failed");
    }
    kind.error().with_source(error.to_string())
}

pub(crate) fn busy() -> Error {
    Kind::Busy.error()
}

pub(crate) fn closed() -> Error {
    Error::unavailable("the store is closed").with_reason("store_closed")
}

/// The error of an attempt to open `place`, which is for the person who starts the program.
pub(crate) fn opening(place: &str, error: &MigrateError) -> Error {
    let (MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _)) = error else {
        let message = "a newer version of this program wrote the database, or its tables were changed by hand";
        return Error::failed_precondition(message).with_reason("store_too_new").context(place).with_source(error.to_string());
    };
    report(cause).context(place)
}

/// The message in the first column.
pub(crate) fn decode<M: Message + Default>(row: &Row) -> Result<M> {
    decode_column(row, 0)
}

pub(crate) fn decode_column<M: Message + Default>(row: &Row, column: usize) -> Result<M> {
    let body = row.bytes(column).map_err(|error| report(&error))?;
    M::decode(body).map_err(|error| {
        tracing::error!(cause = %error, "a stored message cannot be read");
        Kind::Damaged.error().with_source(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_both_databases_mean_the_same() {
        // SQLITE_BUSY_SNAPSHOT, SQLITE_FULL, SQLITE_CORRUPT_VTAB, SQLITE_NOTADB, SQLITE_CANTOPEN_ISDIR, SQLITE_CONSTRAINT_CHECK
        let sqlite = [517, 13, 267, 26, 526, 275].map(Kind::of_sqlite);
        assert_eq!(sqlite, [Kind::Busy, Kind::DiskFull, Kind::Damaged, Kind::Damaged, Kind::Unusable, Kind::Defect]);
        // SQLITE_IOERR_SHMSIZE, SQLITE_IOERR_WRITE
        assert_eq!([4874, 778].map(Kind::of_sqlite), [Kind::DiskFull, Kind::DiskFailed]);
        let postgres = ["40P01", "53100", "XX001", "53300", "28P01", "23514"].map(Kind::of_postgres);
        assert_eq!(postgres, [Kind::Busy, Kind::DiskFull, Kind::Damaged, Kind::Unavailable, Kind::Unusable, Kind::Defect]);
    }
}
