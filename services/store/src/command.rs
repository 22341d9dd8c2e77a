//! What changes the database: each a few statements that hold together.

use async_trait::async_trait;
use llama_stack_core::Error;

use crate::{
    documents::PendingDocument,
    lease::Leased,
    sql::{Arg, Conn},
};

/// A change. It may be applied more than once before it is committed, because a group that fails is taken apart.
#[async_trait]
pub(crate) trait Command: Send + Sync {
    /// Applies the change inside a transaction. A refusal is found before the first write that matters, so that the
    /// transaction can go on with the next command.
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure>;
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// The turn that the idempotency key began before.
    Existing(String),
    /// How many rows were changed.
    Changed(u64),
    /// Under which the turn is held now.
    Epoch(i64),
    Leased(Vec<Leased>),
    Pending(Vec<PendingDocument>),
    /// A status, as it is stored.
    Status(i64),
}

pub(crate) enum Failure {
    /// The command is not allowed as things are.
    Refused(Error),
    /// A statement failed, and the transaction with it.
    Database(sqlx::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Refused(error)
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Failure::Database(error)
    }
}

/// Deletes one row by tenant and id, and what belongs to it.
pub(crate) struct Delete {
    /// Parameters: tenant, id.
    pub(crate) sql: &'static str,
    pub(crate) what: &'static str,
    pub(crate) tenant: String,
    pub(crate) id: String,
}

#[async_trait]
impl Command for Delete {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        match conn.execute(self.sql, &[Arg::Text(&self.tenant), Arg::Text(&self.id)]).await? {
            0 => Err(not_found(self.what, &self.id).into()),
            _ => Ok(Outcome::Done),
        }
    }
}

pub(crate) fn not_found(what: &str, id: &str) -> Error {
    Error::not_found(format!("no {what} {id:?}")).with_reason(format!("{what}_not_found"))
}
