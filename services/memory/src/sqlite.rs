//! `inline::sqlite`: one file. Words by FTS5 with BM25, vectors compared one by one, which is exact, and quick for small banks.

mod failure;
mod schema;
mod search;
mod words;

use std::{path::Path, sync::Arc};

use llama_stack_core::{Deps, Error, Memory, Result};
use llama_stack_proto::v1::{Chunk, SearchMode};
use prost::Message as _;
use sqlx::{Row as _, Sqlite, SqlitePool, Transaction, sqlite::SqliteRow};

use crate::{
    Banks, BanksParts,
    banks::Config,
    fuse::fuse,
    index::{BankKey, Hit, Index, Search, Shape, Stats},
};
use failure::failed;
use words::Words;

/// In the stack's folder, below the provider's id.
const FILE: &str = "index.db";

pub(crate) async fn build(config: Config, deps: Deps) -> Result<Arc<dyn Memory>> {
    let folder = deps.folder.join("memory").join(&deps.provider_id);
    let index = Arc::new(SqliteIndex::open(&folder).await?);
    Ok(Arc::new(Banks::new(BanksParts::new(index, config, &deps)?).await?))
}

/// Chunks in a SQLite file. A write is answered after its sync.
pub struct SqliteIndex {
    readers: SqlitePool,
    /// One connection: writes take turns.
    writer: SqlitePool,
}

/// A bank as the file knows it. Its number is never another's, so a row that carries it is of this tenant and bank.
#[derive(Clone, Copy)]
struct Known {
    number: i64,
    dimension: u32,
    words: Option<Words>,
}

impl SqliteIndex {
    /// Opens or makes the file in this folder.
    ///
    /// # Errors
    /// `FailedPrecondition` it cannot be opened or written, or a newer version of the program made it · `DataLoss` it is damaged.
    pub async fn open(folder: &Path) -> Result<Self> {
        let (writer, readers) = schema::open(&folder.join(FILE)).await?;
        Ok(Self { readers, writer })
    }

    async fn known(&self, bank: &BankKey) -> Result<Known> {
        let row = sqlx::query("SELECT n, dimension, keyword FROM banks WHERE tenant = ? AND bank_id = ?")
            .bind(&bank.tenant)
            .bind(&bank.bank_id)
            .fetch_optional(&self.readers)
            .await
            .map_err(failed)?;
        let Some(row) = row else {
            return Err(Error::not_found(format!("no bank {:?}", bank.bank_id)).with_reason("bank_not_found"));
        };
        let read = || {
            let number = row.try_get(0)?;
            let words = if row.try_get::<i64, _>(2)? == 1 { Some(Words::of(number)) } else { None };
            Ok(Known { number, dimension: row.try_get::<i64, _>(1)? as u32, words })
        };
        read().map_err(failed)
    }

    async fn begin(&self) -> Result<Transaction<'static, Sqlite>> {
        match self.writer.begin_with("BEGIN IMMEDIATE").await {
            // SQLite itself ends a transaction for which the disk has no room, and sqlx, which could not end it then, goes on
            // counting it: that connection begins none any more.
            Err(sqlx::Error::InvalidSavePointStatement) => {
                self.writer.acquire().await.map_err(failed)?.close().await.map_err(failed)?;
                self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed)
            }
            begun => begun.map_err(failed),
        }
    }

    /// Moves what was written into the file and empties the log, so that deleted text is in neither. Readers may keep it
    /// from being emptied now; the next time does it then.
    async fn fold_log(&self) -> Result<()> {
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&self.writer).await.map(drop).map_err(failed)
    }
}

async fn put(tx: &mut Transaction<'static, Sqlite>, bank: Known, chunk: &Chunk) -> sqlx::Result<()> {
    let vector = bytes(&chunk.vector);
    let rest = Chunk { vector: Vec::new(), text: String::new(), title: String::new(), ..chunk.clone() }.encode_to_vec();
    let there = sqlx::query("SELECT n FROM chunks WHERE bank = ? AND id = ?").bind(bank.number).bind(&chunk.id);
    if let Some(row) = there.fetch_optional(&mut **tx).await? {
        remove(tx, bank, row.try_get(0)?).await?;
    }
    let inserted =
        sqlx::query("INSERT INTO chunks (bank, id, document_id, place, title, text, body, vector) VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
            .bind(bank.number)
            .bind(&chunk.id)
            .bind(&chunk.document_id)
            .bind(i64::from(chunk.index))
            .bind(&chunk.title)
            .bind(&chunk.text)
            .bind(rest)
            .bind(vector)
            .execute(&mut **tx)
            .await?;
    match bank.words {
        Some(words) => words.add(tx, inserted.last_insert_rowid()).await,
        None => Ok(()),
    }
}

async fn remove(tx: &mut Transaction<'static, Sqlite>, bank: Known, row: i64) -> sqlx::Result<()> {
    if let Some(words) = bank.words {
        words.remove(tx, row).await?;
    }
    sqlx::query("DELETE FROM chunks WHERE n = ? AND bank = ?").bind(row).bind(bank.number).execute(&mut **tx).await.map(drop)
}

/// How many chunks it had.
async fn remove_document(tx: &mut Transaction<'static, Sqlite>, bank: Known, document: &str) -> sqlx::Result<usize> {
    let rows = sqlx::query("SELECT n FROM chunks WHERE bank = ? AND document_id = ?").bind(bank.number).bind(document);
    let rows = rows.fetch_all(&mut **tx).await?;
    for row in &rows {
        remove(tx, bank, row.try_get(0)?).await?;
    }
    Ok(rows.len())
}

/// `title, text, body, vector`, from this column on. Without the vector column, without the vector.
fn chunk(row: &SqliteRow, from: usize, with_vector: bool) -> Result<Chunk> {
    let body: &[u8] = row.try_get(from + 2).map_err(failed)?;
    let damaged = |error| Error::new(llama_stack_core::Code::DataLoss, "a stored chunk cannot be read").with_source(error);
    let mut chunk = Chunk::decode(body).map_err(damaged)?;
    chunk.title = row.try_get(from).map_err(failed)?;
    chunk.text = row.try_get(from + 1).map_err(failed)?;
    if with_vector {
        chunk.vector = floats(row.try_get(from + 3).map_err(failed)?);
    }
    Ok(chunk)
}

fn bytes(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|number| f32::from_le_bytes(*number)).collect()
}

#[async_trait::async_trait]
impl Index for SqliteIndex {
    async fn create(&self, bank: &BankKey, shape: &Shape) -> Result<()> {
        let mut tx = self.begin().await?;
        let made = sqlx::query("INSERT INTO banks (tenant, bank_id, dimension, keyword) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING")
            .bind(&bank.tenant)
            .bind(&bank.bank_id)
            .bind(i64::from(shape.dimension))
            .bind(i64::from(shape.keyword))
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        if made.rows_affected() > 0 && shape.keyword {
            Words::of(made.last_insert_rowid()).create(&mut tx).await.map_err(failed)?;
        }
        tx.commit().await.map_err(failed)
    }

    async fn remove(&self, bank: &BankKey) -> Result<()> {
        let known = match self.known(bank).await {
            Err(error) if error.code() == llama_stack_core::Code::NotFound => return Ok(()),
            known => known?,
        };
        let mut tx = self.begin().await?;
        if let Some(words) = known.words {
            words.drop_all(&mut tx).await.map_err(failed)?;
        }
        for sql in ["DELETE FROM chunks WHERE bank = ?", "DELETE FROM banks WHERE n = ?"] {
            sqlx::query(sql).bind(known.number).execute(&mut *tx).await.map_err(failed)?;
        }
        tx.commit().await.map_err(failed)?;
        self.fold_log().await
    }

    async fn upsert(&self, bank: &BankKey, chunks: Vec<Chunk>) -> Result<()> {
        let known = self.known(bank).await?;
        let mut tx = self.begin().await?;
        for chunk in &chunks {
            put(&mut tx, known, chunk).await.map_err(failed)?;
        }
        tx.commit().await.map_err(failed)
    }

    async fn replace(&self, bank: &BankKey, document: &str, chunks: Vec<Chunk>) -> Result<()> {
        let known = self.known(bank).await?;
        let mut tx = self.begin().await?;
        let removed = remove_document(&mut tx, known, document).await.map_err(failed)?;
        for chunk in &chunks {
            put(&mut tx, known, chunk).await.map_err(failed)?;
        }
        tx.commit().await.map_err(failed)?;
        // What was replaced is gone as what was deleted is.
        if removed > 0 { self.fold_log().await } else { Ok(()) }
    }

    async fn delete_documents(&self, bank: &BankKey, documents: &[String]) -> Result<()> {
        let known = self.known(bank).await?;
        let mut tx = self.begin().await?;
        for document in documents {
            remove_document(&mut tx, known, document).await.map_err(failed)?;
        }
        tx.commit().await.map_err(failed)?;
        self.fold_log().await
    }

    async fn search(&self, bank: &BankKey, search: &Search) -> Result<Vec<Hit>> {
        let known = self.known(bank).await?;
        let limit = search.limit as usize;
        let mode = search.mode_in(&Shape { dimension: known.dimension, keyword: known.words.is_some() })?;
        let mut hits = match (mode, known.words) {
            (SearchMode::Keyword, Some(words)) => search::by_words(&self.readers, known, words, search, limit).await?,
            (SearchMode::Hybrid, Some(words)) => {
                let depth = search.depth();
                let vector = search::by_vector(&self.readers, known, search, depth).await?;
                let keyword = search::by_words(&self.readers, known, words, search, depth).await?;
                let whole = search::whole_query(&self.readers, known, words, &search.text).await?;
                fuse(vector, keyword, whole, &search.ranker, limit)
            }
            _ => search::by_vector(&self.readers, known, search, limit).await?,
        };
        hits.retain(|hit| search.score_threshold.is_none_or(|threshold| hit.score >= threshold));
        Ok(hits)
    }

    async fn scroll(
        &self,
        bank: &BankKey,
        document: Option<&str>,
        after: Option<&str>,
        limit: u32,
        with_vectors: bool,
    ) -> Result<Vec<Chunk>> {
        let known = self.known(bank).await?;
        let (mut from_document, mut from_place, mut from_id) = (String::new(), -1_i64, String::new());
        if let Some(after) = after {
            let place = sqlx::query("SELECT document_id, place FROM chunks WHERE bank = ? AND id = ?").bind(known.number).bind(after);
            let place = place.fetch_optional(&self.readers).await.map_err(failed)?;
            let place = place.ok_or_else(|| Error::invalid("page_token", "page_token is not one that this list gave"))?;
            (from_document, from_place) = (place.try_get(0).map_err(failed)?, place.try_get(1).map_err(failed)?);
            after.clone_into(&mut from_id);
        }
        let rows = sqlx::query(
            "SELECT title, text, body, vector FROM chunks WHERE bank = ? AND (document_id, place, id) > (?, ?, ?) \
             AND (? = '' OR document_id = ?) ORDER BY document_id, place, id LIMIT ?",
        )
        .bind(known.number)
        .bind(from_document)
        .bind(from_place)
        .bind(from_id)
        .bind(document.unwrap_or_default())
        .bind(document.unwrap_or_default())
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await
        .map_err(failed)?;
        rows.iter().map(|row| chunk(row, 0, with_vectors)).collect()
    }

    async fn stats(&self, bank: &BankKey) -> Result<Stats> {
        let known = self.known(bank).await?;
        let row = sqlx::query(
            "SELECT COUNT(*), COALESCE(SUM(LENGTH(CAST(text AS BLOB)) + LENGTH(vector) + LENGTH(body)), 0) FROM chunks WHERE bank = ?",
        );
        let row = row.bind(known.number).fetch_one(&self.readers).await.map_err(failed)?;
        let int = |column| row.try_get::<i64, _>(column).map(|count| count as u64).map_err(failed);
        // All of them are compared, and none is missed.
        Ok(Stats { chunks: int(0)?, bytes: int(1)?, indexed_share: 1.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_bank_that_is_deleted_in_the_midst_of_a_search_is_gone_and_no_defect() {
        let folder = tempfile::tempdir().unwrap();
        let index = SqliteIndex::open(folder.path()).await.unwrap();
        let bank = BankKey { tenant: "acme".into(), bank_id: "bank_1".into() };
        index.create(&bank, &Shape { dimension: 0, keyword: true }).await.unwrap();
        let known = index.known(&bank).await.unwrap();
        index.remove(&bank).await.unwrap();
        let search = Search { text: "refund".into(), mode: SearchMode::Keyword, ..Search::default() };
        let error = search::by_words(&index.readers, known, known.words.unwrap(), &search, 10).await.err().unwrap();
        assert_eq!((error.code(), error.reason()), (llama_stack_core::Code::NotFound, Some("bank_not_found")));
    }

    #[tokio::test]
    async fn a_full_disk_is_said_and_survived() {
        let folder = tempfile::tempdir().unwrap();
        let index = SqliteIndex::open(folder.path()).await.unwrap();
        let bank = BankKey { tenant: "acme".into(), bank_id: "bank_1".into() };
        index.create(&bank, &Shape { dimension: 0, keyword: true }).await.unwrap();
        let pages = async |most: u32| {
            let sql = format!("PRAGMA max_page_count = {most}");
            sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&index.writer).await.unwrap();
        };
        pages(1).await;
        let long = Chunk { id: "long".into(), text: "word ".repeat(20_000), ..Chunk::default() };
        let full = index.upsert(&bank, vec![long.clone()]).await.unwrap_err();
        assert_eq!((full.reason(), full.message()), (Some("disk_full"), "the index's disk is full"));
        pages(1_000_000).await;
        index.upsert(&bank, vec![long]).await.unwrap();
        assert_eq!(index.stats(&bank).await.unwrap().chunks, 1);
    }
}
