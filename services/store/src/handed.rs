//! Documents of banks that are kept elsewhere, as far as they are made of files of this stack: what goes with a file is known here.

use std::collections::HashSet;

use async_trait::async_trait;
use llama_stack_core::{Error, Result};

use crate::{
    Store,
    command::{Command, Failure, Outcome},
    failure,
    sql::{Conn, Row, args},
};

const NOTE: &str = "INSERT INTO handed_documents (tenant, bank_id, document_id, file_id) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
/// Of these documents.
const NOTED: [&str; 2] = [
    "SELECT document_id, file_id FROM handed_documents WHERE tenant = $1 AND bank_id = $2 \
     AND document_id IN (SELECT value FROM json_each($3))",
    "SELECT document_id, file_id FROM handed_documents WHERE tenant = $1 AND bank_id = $2 \
     AND document_id IN (SELECT json_array_elements_text(CAST($3 AS json)))",
];
const ANY: &str = "SELECT 1 FROM handed_documents WHERE tenant = $1 AND bank_id = $2 LIMIT 1";
const FORGET: &str = "DELETE FROM handed_documents WHERE tenant = $1 AND bank_id = $2 AND document_id = $3 AND ($4 = '' OR file_id = $4)";
const FORGET_OTHERS: &str = "DELETE FROM handed_documents WHERE tenant = $1 AND bank_id = $2 AND document_id = $3 AND file_id <> $4";
const FORGET_BANK: &str = "DELETE FROM handed_documents WHERE tenant = $1 AND bank_id = $2";

/// One of these statements, for documents and their files.
struct Handed {
    sql: &'static str,
    tenant: String,
    bank_id: String,
    documents: Vec<(String, String)>,
}

#[async_trait]
impl Command for Handed {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        for (document, file) in &self.documents {
            conn.execute(self.sql, args![&self.tenant, &self.bank_id, document, file]).await?;
        }
        Ok(Outcome::Done)
    }
}

struct ForgetBank {
    tenant: String,
    bank_id: String,
}

#[async_trait]
impl Command for ForgetBank {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        conn.execute(FORGET_BANK, args![&self.tenant, &self.bank_id]).await?;
        Ok(Outcome::Done)
    }
}

impl Store {
    /// Notes documents, each with the file it is to be made of, before they are made.
    pub async fn note_handed(&self, tenant: &str, bank_id: &str, documents: Vec<(String, String)>) -> Result<()> {
        self.handed(NOTE, tenant, bank_id, documents).await
    }

    /// Forgets these; of each all, or only that it is of this file.
    pub async fn forget_handed(&self, tenant: &str, bank_id: &str, documents: Vec<(String, String)>) -> Result<()> {
        self.handed(FORGET, tenant, bank_id, documents).await
    }

    /// Forgets of these what they were made of before: each is of this file now, or of none.
    pub async fn settle_handed(&self, tenant: &str, bank_id: &str, documents: Vec<(String, String)>) -> Result<()> {
        if self.read(ANY, args![tenant, bank_id]).await?.is_empty() {
            return Ok(());
        }
        self.handed(FORGET_OTHERS, tenant, bank_id, documents).await
    }

    pub async fn forget_handed_bank(&self, tenant: &str, bank_id: &str) -> Result<()> {
        self.write(ForgetBank { tenant: tenant.into(), bank_id: bank_id.into() }).await.map(drop)
    }

    /// Which of these are known, each with its file: they are not once that has gone.
    pub async fn handed_documents(&self, tenant: &str, bank_id: &str, documents: &[(String, String)]) -> Result<HashSet<(String, String)>> {
        if documents.is_empty() {
            return Ok(HashSet::new());
        }
        let ids: Vec<&str> = documents.iter().map(|(document, _)| document.as_str()).collect();
        let list = serde_json::to_string(&ids).map_err(|error| Error::internal("ids are no JSON").with_source(error))?;
        let [sqlite, postgres] = NOTED;
        let sql = if self.is_remote() { postgres } else { sqlite };
        let rows = self.read(sql, args![tenant, bank_id, &list]).await?;
        let read = |row: &Row| Ok((row.text(0)?, row.text(1)?));
        rows.iter().map(read).collect::<sqlx::Result<_>>().map_err(|error| failure::report(&error))
    }

    async fn handed(&self, sql: &'static str, tenant: &str, bank_id: &str, documents: Vec<(String, String)>) -> Result<()> {
        if documents.is_empty() {
            return Ok(());
        }
        self.write(Handed { sql, tenant: tenant.into(), bank_id: bank_id.into(), documents }).await.map(drop)
    }
}
