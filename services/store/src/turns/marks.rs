//! Since when a turn may know passages, so that those of a document that was deleted meanwhile are told from those of one that
//! has come under its id since.
//!
//! Deletions of a tenant are counted. A turn notes the count when it begins, for what it has from the turns before it, and at
//! the intent of each call of a tool. No clock is asked: processes' differ.

use llama_stack_core::Error;

use super::quotes::Quote;
use crate::{
    command::Failure,
    sql::{Conn, args},
};

const SET: &str = "INSERT INTO turn_marks (tenant, turn_id, step_id, number) \
                   VALUES ($1, $2, $3, COALESCE((SELECT number FROM deletions WHERE tenant = $1), 0)) ON CONFLICT DO NOTHING";
const CLEAR: &str = "DELETE FROM turn_marks WHERE tenant = $1 AND turn_id = $2 AND step_id = $3";
const CLEAR_ALL: &str = "DELETE FROM turn_marks WHERE tenant = $1 AND turn_id = $2";
/// A turn without a mark was begun before there were any, or has waited since.
const DELETED_SINCE: &str = "SELECT 1 FROM deleted_documents WHERE tenant = $1 AND bank_id = $2 AND document_id = $3 AND number > \
                             COALESCE((SELECT number FROM turn_marks WHERE tenant = $1 AND turn_id = $4 AND step_id = $5), \
                             (SELECT number FROM turn_marks WHERE tenant = $1 AND turn_id = $4 AND step_id = ''), 0)";
/// Its row is held until the deletion is there, so that the next one counts on.
const COUNT: &str = "INSERT INTO deletions (tenant, number) VALUES ($1, 1) \
                     ON CONFLICT (tenant) DO UPDATE SET number = deletions.number + 1 RETURNING number";
const BURY: &str = "INSERT INTO deleted_documents (tenant, bank_id, document_id, number) VALUES ($1, $2, $3, $4) \
                    ON CONFLICT (tenant, bank_id, document_id) DO UPDATE SET number = excluded.number";
/// What no turn that is under way can have found.
const FORGET: &str = "DELETE FROM deleted_documents WHERE tenant = $1 \
                      AND number <= COALESCE((SELECT MIN(number) FROM turn_marks WHERE tenant = $1), $2)";

/// Notes how many deletions there have been. `step`: empty for the turn.
pub(super) async fn set(conn: &mut Conn<'_>, (tenant, turn_id): (&str, &str), step: &str) -> Result<(), Failure> {
    conn.execute(SET, args![tenant, turn_id, step]).await?;
    Ok(())
}

/// The step has its result.
pub(super) async fn clear(conn: &mut Conn<'_>, (tenant, turn_id): (&str, &str), step: &str) -> Result<(), Failure> {
    conn.execute(CLEAR, args![tenant, turn_id, step]).await?;
    Ok(())
}

/// The turn has ended.
pub(super) async fn clear_all(conn: &mut Conn<'_>, (tenant, turn_id): (&str, &str)) -> Result<(), Failure> {
    conn.execute(CLEAR_ALL, args![tenant, turn_id]).await?;
    Ok(())
}

/// Whether a document of this id was deleted after the step began that found it; after the turn did, where `step` is empty.
pub(super) async fn deleted_since(
    conn: &mut Conn<'_>,
    (tenant, turn_id): (&str, &str),
    (bank, document): &Quote,
    step: &str,
) -> Result<bool, Failure> {
    Ok(!conn.rows(DELETED_SINCE, args![tenant, bank, document, turn_id, step]).await?.is_empty())
}

/// Notes that these documents have been deleted, and forgets what no turn needs any more.
pub(crate) async fn bury(conn: &mut Conn<'_>, tenant: &str, bank: &str, documents: &[&String]) -> Result<(), Failure> {
    if documents.is_empty() {
        return Ok(());
    }
    let rows = conn.rows(COUNT, args![tenant]).await?;
    let number = rows.first().ok_or_else(|| Error::internal("a deletion was not counted"))?.int(0)?;
    for document in documents {
        conn.execute(BURY, args![tenant, bank, *document, number]).await?;
    }
    conn.execute(FORGET, args![tenant, number]).await?;
    Ok(())
}
