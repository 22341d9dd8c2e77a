//! The two ways to search: every vector compared, or the words looked up.

use std::{cmp::Reverse, collections::BinaryHeap};

use futures::TryStreamExt as _;
use llama_stack_core::{Error, Result};
use llama_stack_proto::v1::{Chunk, Filter};
use prost::Message as _;
use sqlx::{AssertSqlSafe, Row as _, SqlitePool, sqlite::SqliteRow};

use super::{Known, chunk, failed, floats, words, words::Words};
use crate::{
    banks::cosine,
    filter, fuse,
    index::{Hit, Search},
};

/// Rows that are in memory at a time.
const PAGE: i64 = 2_048;

/// By cosine, exactly: whatever the filter leaves is compared.
pub(super) async fn by_vector(readers: &SqlitePool, bank: Known, search: &Search, limit: usize) -> Result<Vec<Hit>> {
    let mut best: BinaryHeap<Reverse<Scored>> = BinaryHeap::new();
    let mut after = 0_i64;
    loop {
        let rows = sqlx::query("SELECT n, vector, body FROM chunks WHERE bank = ? AND n > ? ORDER BY n LIMIT ?")
            .bind(bank.number)
            .bind(after)
            .bind(PAGE)
            .fetch_all(readers)
            .await
            .map_err(failed)?;
        let Some(last) = rows.last() else { break };
        after = last.try_get(0).map_err(failed)?;
        let more = rows.len() == PAGE as usize;
        let (query, filter) = (search.vector.clone(), search.filter.clone());
        let compared = tokio::task::spawn_blocking(move || compare(&rows, &query, filter.as_ref()));
        let scored = compared.await.map_err(|error| Error::internal("the search broke off").with_source(error))??;
        for scored in scored {
            best.push(Reverse(scored));
            if best.len() > limit {
                best.pop();
            }
        }
        if !more {
            break;
        }
    }
    let mut hits = Vec::with_capacity(best.len());
    for Reverse(Scored { score, row }) in best {
        let found = sqlx::query("SELECT title, text, body, vector FROM chunks WHERE n = ? AND bank = ?").bind(row).bind(bank.number);
        // Deleted since it was compared.
        let Some(found) = found.fetch_optional(readers).await.map_err(failed)? else { continue };
        hits.push(Hit { chunk: chunk(&found, 0, search.with_vectors)?, score });
    }
    fuse::sort(&mut hits);
    Ok(hits)
}

/// By score, then by age.
#[derive(PartialEq)]
struct Scored {
    score: f32,
    row: i64,
}

impl Eq for Scored {}

impl PartialOrd for Scored {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scored {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.score.total_cmp(&other.score).then_with(|| other.row.cmp(&self.row))
    }
}

fn compare(rows: &[SqliteRow], query: &[f32], filter: Option<&Filter>) -> Result<Vec<Scored>> {
    let mut scored = Vec::with_capacity(rows.len());
    for row in rows {
        if filter.is_some_and(|filter| !passes(row, 2, filter)) {
            continue;
        }
        let vector = floats(row.try_get(1).map_err(failed)?);
        scored.push(Scored { score: cosine(query, &vector), row: row.try_get(0).map_err(failed)? });
    }
    Ok(scored)
}

/// By BM25 as FTS5 computes it, whose better scores are smaller, turned round.
pub(super) async fn by_words(readers: &SqlitePool, bank: Known, words: Words, search: &Search, limit: usize) -> Result<Vec<Hit>> {
    let Some(expression) = words::expression(&search.text) else { return Ok(Vec::new()) };
    let table = words.table();
    let sql = format!(
        "SELECT c.title, c.text, c.body, c.vector, bm25({table}) AS score FROM {table} JOIN chunks c ON c.n = {table}.rowid \
         WHERE {table} MATCH ? AND c.bank = ? ORDER BY score, c.n LIMIT ?"
    );
    // What a filter leaves out is not known before it is looked at.
    let most = if search.filter.is_some() { -1 } else { limit as i64 };
    let mut rows = sqlx::query(AssertSqlSafe(sql)).bind(expression).bind(bank.number).bind(most).fetch(readers);
    let mut hits = Vec::new();
    while hits.len() < limit {
        let Some(row) = rows.try_next().await.map_err(failed)? else { break };
        if search.filter.as_ref().is_some_and(|filter| !passes(&row, 2, filter)) {
            continue;
        }
        let score: f64 = row.try_get(4).map_err(failed)?;
        hits.push(Hit { chunk: chunk(&row, 0, search.with_vectors)?, score: -score as f32 });
    }
    fuse::sort(&mut hits);
    Ok(hits)
}

/// What BM25 gives a passage of the usual length that has every word of the query once: the sum of the words' rarities, as FTS5
/// computes them. Beside it a score says how much of the query a passage has.
pub(super) async fn whole_query(readers: &SqlitePool, bank: Known, words: Words, text: &str) -> Result<f32> {
    let all: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM chunks WHERE bank = ?").bind(bank.number).fetch_one(readers).await.map_err(failed)?;
    let table = words.table();
    let mut sum = 0.0;
    for term in words::terms(text) {
        let sql = format!("SELECT COUNT(*) FROM {table} WHERE {table} MATCH ?");
        let having: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).bind(term).fetch_one(readers).await.map_err(failed)?;
        let rarity = ((all - having) as f64 + 0.5) / (having as f64 + 0.5);
        sum += rarity.ln().max(1e-6);
    }
    Ok(sum as f32)
}

/// What cannot be read passes nothing.
fn passes(row: &SqliteRow, body: usize, wanted: &Filter) -> bool {
    let attributes = row.try_get::<&[u8], _>(body).ok().and_then(|body| Chunk::decode(body).ok());
    attributes.is_some_and(|chunk| filter::matches(wanted, &chunk.attributes))
}
