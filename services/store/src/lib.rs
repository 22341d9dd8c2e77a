//! The store: agents, sessions, the journals of turns, prompts, tool groups, batches and banks of documents, in SQLite or Postgres.
//!
//! ```text
//!                    ┌ SQLite: queue ─ one writer ─ a group of commands, one transaction, one sync
//! Store ─ commands ──┤         └ each caller is answered after the commit
//!       │            └ Postgres: pool ─ one transaction per command
//!       └ queries ──── a pool of readers; the same SQL text for both
//! ```
//!
//! Every row carries its tenant and every query asks for it. A turn is its journal: events numbered from 1 without
//! gaps, of which an acknowledged one is durable. Whoever runs it holds it under a lease, and the lease's epoch is the
//! right to write. Bodies are encoded messages of the contract.

mod agents;
mod api_keys;
mod banks;
mod batches;
mod command;
mod documents;
mod erase;
mod failure;
mod files;
mod forgotten;
mod hand_over;
mod handed;
mod ingestions;
mod inspect;
mod lease;
mod logs;
mod owners;
mod page;
mod pins;
mod postgres;
mod presence;
mod prompts;
mod restore;
mod retention;
mod sealed;
mod sessions;
mod snapshot;
mod sql;
mod sqlite;
mod tables;
mod tool_groups;
mod turns;
mod uploads;
mod usage;
mod workers;
mod writer;

use std::{sync::Arc, time::Duration};

use llama_stack_core::Result;
use tokio::sync::OnceCell;

use crate::{
    command::{Command, Outcome},
    postgres::Postgres,
    sql::{Arg, Row},
    sqlite::Sqlite,
};

pub use crate::api_keys::KeyRecord;
pub use crate::banks::{BankList, DoomedBank, PERSONAL_MEMORY};
pub use crate::batches::{BatchLine, HeldBatch, LineResults, LineUsage, has_ended};
pub use crate::documents::{Author, DocumentList, InsertedDocument, KeptDocument, NO_VERSION, PendingDocument};
pub use crate::files::{ExpiredFile, FileList};
pub use crate::forgotten::Forgotten;
pub use crate::inspect::{Inspected, inspect};
pub use crate::lease::Holder;
#[doc(hidden)]
pub use crate::page::page_after;
pub use crate::restore::{Restore, Settled};
pub use crate::retention::Aged;
pub use crate::sealed::Sealer;
pub use crate::snapshot::{KeptBank, KeptName, Rows, Snapshot};
pub use crate::tables::known_migrations;
pub use crate::turns::{BeginTurn, Begun, Claimed, FIRST_EPOCH, Held, TurnList, TurnWalk, Unfinished, WalkedTurns};
pub use crate::uploads::PartedUpload;
pub use crate::usage::DailyUsage;
pub use llama_stack_core::manifest::Durability;

/// How long a call waits for its turn at a busy database before it fails with `Unavailable`.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The database of one stack. Cheap to clone.
///
/// # Errors
/// Beside its own, every method has these: `Unavailable` the database does not answer or stayed busy for [`PATIENCE`]
/// (`store_unavailable`, `store_busy`), its disk is full (`disk_full`) or failing (`disk_failed`) ·
/// `DataLoss` what is stored is damaged (`store_damaged`). None of them shows the database's own words.
///
/// # Cancellation
/// A write whose future is dropped is done in full or not at all, and which of them only a read tells.
#[derive(Clone)]
pub struct Store(Arc<Database>, Option<Arc<Sealer>>, Arc<OnceCell<page::Key>>);

enum Database {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

impl Store {
    /// Opens `sqlite://PATH` (made with its folders if it is not there; a leading `~/` is the home folder),
    /// `sqlite::memory:` (gone with the last clone) or `postgres://…`, and brings its tables up to date.
    ///
    /// Several processes may open the same database: their writes take turns, and of two that continue a journal at
    /// the same number exactly one wins. Who opens a file that no other process has open ends the leases that are left
    /// in it: whoever held them is gone.
    ///
    /// # Errors
    /// `InvalidArgument` another URL (`field` is `store.url`) · `FailedPrecondition` a newer version of the program
    /// wrote it (`store_too_new`), or it cannot be opened (`store_unusable`) · `DataLoss` not a database, or a damaged one.
    pub async fn open(url: &str, durability: Durability) -> Result<Self> {
        let database = match url.split_once(':') {
            Some(("sqlite", place)) => Database::Sqlite(Sqlite::open(place, durability, PATIENCE).await?),
            Some(("postgres" | "postgresql", _)) => Database::Postgres(Postgres::open(url, durability, PATIENCE).await?),
            _ => return Err(failure::unknown_database()),
        };
        Ok(Self(Arc::new(database), None, Arc::default()))
    }

    /// From now on the secrets that have to be kept are sealed. Without this, they are refused.
    pub fn sealed_by(self, sealer: Option<Sealer>) -> Self {
        Self(self.0, sealer.map(Arc::new), self.2)
    }

    fn sealer(&self) -> Option<&Sealer> {
        self.1.as_deref()
    }

    /// Whether processes on several machines may share it.
    pub fn is_remote(&self) -> bool {
        matches!(&*self.0, Database::Postgres(_))
    }

    /// Whether the database answers a query now.
    pub async fn check(&self) -> Result<()> {
        self.read("SELECT 1", &[]).await.map(drop)
    }

    /// Finishes the writes that are queued, refuses new ones, and closes the connections.
    pub async fn close(&self) {
        match &*self.0 {
            Database::Sqlite(sqlite) => sqlite.close().await,
            Database::Postgres(postgres) => postgres.close().await,
        }
    }

    async fn write(&self, command: impl Command + 'static) -> Result<Outcome> {
        match &*self.0 {
            Database::Sqlite(sqlite) => sqlite.write(Box::new(command)).await,
            Database::Postgres(postgres) => postgres.write(&command).await,
        }
    }

    /// A change after which nothing of what it removed is in the database's files. With Postgres its own vacuum decides when.
    async fn erase(&self, command: impl Command + 'static) -> Result<Outcome> {
        let outcome = self.write(command).await?;
        self.fold_log().await;
        Ok(outcome)
    }

    async fn fold_log(&self) {
        if let Database::Sqlite(sqlite) = &*self.0 {
            sqlite.fold_log().await;
        }
    }

    /// Of a question's words for SQLite and for Postgres those that this database understands.
    fn worded(&self, [sqlite, postgres]: [&'static str; 2]) -> &'static str {
        match &*self.0 {
            Database::Sqlite(_) => sqlite,
            Database::Postgres(_) => postgres,
        }
    }

    async fn read(&self, sql: &'static str, args: &[Arg<'_>]) -> Result<Vec<Row>> {
        match &*self.0 {
            Database::Sqlite(sqlite) => sqlite.read(sql, args).await,
            Database::Postgres(postgres) => postgres.read(sql, args).await,
        }
    }
}
