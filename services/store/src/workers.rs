//! Who inserts documents: a lease for each process, not for each document, since an ingestion may have many thousands.
//!
//! A document whose insertion goes on names its worker. Once that one's lease has run out, others may take the document over.
//! What a worker that was only slow still stores is the same again, under the same revision, and counts once.

use async_trait::async_trait;
use llama_stack_core::Result;

use crate::{
    Author, Holder, PendingDocument, Store,
    command::{Command, Failure, Outcome},
    failure,
    sql::{Conn, Row, args},
};

const RENEW: &str = "INSERT INTO memory_workers (owner, lease_until_us) VALUES ($1, $2) \
                     ON CONFLICT (owner) DO UPDATE SET lease_until_us = excluded.lease_until_us";
const RELEASE: &str = "DELETE FROM memory_workers WHERE owner = $1";
/// For a database that nobody else has open.
const END_ALL: &str = "DELETE FROM memory_workers";
/// 1 is `IN_PROGRESS`.
const LEFT: &str = "SELECT DISTINCT d.worker FROM bank_documents d JOIN banks b ON b.tenant = d.tenant AND b.id = d.bank_id \
                    WHERE b.provider_id = $1 AND b.doomed = 0 AND d.status = 1 AND d.worker <> $2 AND NOT EXISTS \
                    (SELECT 1 FROM memory_workers w WHERE w.owner = d.worker AND w.lease_until_us >= $3)";
/// From this one worker: of two who take, the slower one of Postgres looks again, and finds it another's.
const TAKE: &str = "UPDATE bank_documents SET worker = $1 WHERE status = 1 AND worker = $2 AND (tenant, bank_id) IN \
                    (SELECT tenant, id FROM banks WHERE provider_id = $3 AND doomed = 0) \
                    RETURNING tenant, bank_id, id, ingestion_id, CASE WHEN length(waiting) > 0 THEN waiting_principal ELSE principal END, \
                    CASE WHEN length(waiting) > 0 THEN waiting_roles ELSE roles END, place";
const IS_WORKER: &str = "SELECT 1 FROM bank_documents WHERE tenant = $1 AND bank_id = $2 AND id = $3 AND worker = $4 AND status = 1";

struct Renew {
    owner: String,
    until_us: i64,
}

#[async_trait]
impl Command for Renew {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        conn.execute(RENEW, args![&self.owner, self.until_us]).await?;
        Ok(Outcome::Done)
    }
}

struct Release(String);

#[async_trait]
impl Command for Release {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        conn.execute(RELEASE, args![&self.0]).await?;
        Ok(Outcome::Done)
    }
}

struct Take {
    owner: String,
    now_us: i64,
    provider_id: String,
    own: bool,
}

#[async_trait]
impl Command for Take {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let mut taken = Vec::new();
        let mut take = |rows: Vec<Row>| -> sqlx::Result<()> {
            for row in rows {
                taken.push((row.text(6)?, pending(&row)?));
            }
            Ok(())
        };
        if self.own {
            take(conn.rows(TAKE, args![&self.owner, &self.owner, &self.provider_id]).await?)?;
        }
        for row in conn.rows(LEFT, args![&self.provider_id, &self.owner, self.now_us]).await? {
            let gone = row.text(0)?;
            take(conn.rows(TAKE, args![&self.owner, &gone, &self.provider_id]).await?)?;
            conn.execute(RELEASE, args![&gone]).await?;
        }
        // In the order in which they came.
        taken.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(Outcome::Pending(taken.into_iter().map(|(_, pending)| pending).collect()))
    }
}

impl Store {
    /// Says that this worker lives until its lease has run out.
    pub async fn renew_worker(&self, holder: Holder<'_>) -> Result<()> {
        self.write(Renew { owner: holder.owner.into(), until_us: holder.until_us() }).await.map(drop)
    }

    /// Says that this worker works no more.
    pub async fn release_worker(&self, owner: &str) -> Result<()> {
        self.write(Release(owner.into())).await.map(drop)
    }

    /// Whether a provider has documents whose insertion has not ended, and whose workers are gone; those of the holder do not count.
    pub async fn are_documents_left(&self, holder: Holder<'_>, provider_id: &str) -> Result<bool> {
        Ok(!self.read(LEFT, args![provider_id, holder.owner, holder.now_us()]).await?.is_empty())
    }

    /// Takes them over, in the order in which they came. Of several who try, each document goes to one, who must have
    /// renewed its own lease before. With `own`, also those that it has already: for a worker that is at none of them.
    pub async fn take_documents(&self, holder: Holder<'_>, provider_id: &str, own: bool) -> Result<Vec<PendingDocument>> {
        let take = Take { owner: holder.owner.into(), now_us: holder.now_us(), provider_id: provider_id.into(), own };
        match self.write(take).await? {
            Outcome::Pending(taken) => Ok(taken),
            _ => Ok(Vec::new()),
        }
    }

    /// Whether the insertion of a document goes on and is this worker's.
    pub async fn is_worker_of(&self, owner: &str, document: &PendingDocument) -> Result<bool> {
        let rows = self.read(IS_WORKER, args![&document.tenant, &document.bank_id, &document.id, owner]).await?;
        Ok(!rows.is_empty())
    }
}

fn pending(row: &Row) -> sqlx::Result<PendingDocument> {
    let roles = row.text(5)?.split(',').filter(|role| !role.is_empty()).map(str::to_owned).collect();
    Ok(PendingDocument {
        tenant: row.text(0)?,
        bank_id: row.text(1)?,
        id: row.text(2)?,
        ingestion_id: row.text(3)?,
        author: Author { principal: row.text(4)?, roles },
    })
}

/// Ends every lease, in a database that nobody else has open.
pub(crate) async fn end_all(conn: &mut Conn<'_>) -> Result<()> {
    conn.execute(END_ALL, &[]).await.map(drop).map_err(|error| failure::report(&error))
}
