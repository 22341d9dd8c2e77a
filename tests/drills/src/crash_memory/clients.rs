//! The clients, each with a book of what was acknowledged to it.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use llama_stack_core::{Code, Context, Result};
use llama_stack_proto::v1::{
    Bank, Chunk, DeleteDocumentsRequest, Document, InsertChunksRequest, InsertDocumentsRequest, document::Content,
};
use rand::{Rng, rngs::StdRng};

use super::{DIMENSION, Field, Up};

/// What one client inserted and deleted, all of it acknowledged.
#[derive(Default)]
pub(super) struct Book {
    /// By document: the word that only its newest version has. `None` where it was deleted.
    pub(super) documents: BTreeMap<String, Option<String>>,
    /// Words of versions that were replaced.
    pub(super) replaced: Vec<String>,
    /// By document, of one chunk each. `None` where it was deleted.
    pub(super) vectors: BTreeMap<String, Option<Vec<f32>>>,
    pub(super) ingestions: Vec<String>,
}

/// With the pauses between them, half a minute: a process that aborts is not gone at once.
const REFUSALS: u32 = 3_000;

/// Repeats a call until it is acknowledged; what is no crash is a fault, and gives up.
async fn acknowledged<T, F: Future<Output = Result<T>>>(field: &Field, what: &str, call: impl Fn(Up) -> F) -> Option<T> {
    let mut refused = 0;
    loop {
        let up = field.up().await;
        match call(up.clone()).await {
            Ok(answer) => return Some(answer),
            Err(error) => {
                let wrong = matches!(
                    error.code(),
                    Code::InvalidArgument | Code::NotFound | Code::AlreadyExists | Code::FailedPrecondition | Code::DataLoss
                );
                // A server that is alive may be busy, and not for ever.
                refused += u32::from(field.up.borrow().as_ref().is_some_and(|now| now.life == up.life));
                if wrong || refused > REFUSALS {
                    field.fault(format!("{what}: {error:?}"));
                    return None;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

fn text(id: &str, word: &str) -> Document {
    let content = Some(Content::Text(format!("A note on {word}. It is one of many that are kept here, and short.")));
    Document { id: id.into(), content, ..Document::default() }
}

async fn insert(field: &Field, bank: &Bank, documents: Vec<Document>, background: bool) -> Option<String> {
    let request = InsertDocumentsRequest { bank_id: bank.id.clone(), documents, background, ..InsertDocumentsRequest::default() };
    let call = |up: Up| {
        let request = request.clone();
        async move { up.memory.insert_documents(&Context::default(), request).await }
    };
    let answer = acknowledged(field, "insert_documents", call).await?;
    for failure in &answer.failures {
        field.fault(format!("a document was not inserted: {failure:?}"));
    }
    Some(answer.ingestion.map(|ingestion| ingestion.id).unwrap_or_default())
}

async fn delete(field: &Field, bank: &Bank, id: &str) -> Option<()> {
    let request = DeleteDocumentsRequest { bank_id: bank.id.clone(), document_ids: vec![id.into()], ..DeleteDocumentsRequest::default() };
    let call = |up: Up| {
        let request = request.clone();
        async move { up.memory.delete_documents(&Context::default(), request).await }
    };
    acknowledged(field, "delete_documents", call).await.map(drop)
}

/// One that is there.
fn any<T>(of: &BTreeMap<String, Option<T>>, random: &mut StdRng) -> Option<String> {
    let there: Vec<&String> = of.iter().filter(|(_, kept)| kept.is_some()).map(|(id, _)| id).collect();
    there.get(random.random_range(0..there.len().max(1))).map(|id| (*id).clone())
}

/// Inserts, replaces and deletes, one document at a time.
pub(super) async fn foreground(field: Arc<Field>, bank: Bank, name: String, mut random: StdRng) -> Book {
    let mut book = Book::default();
    for n in 0_u32.. {
        // However slow the machine, there is something of each kind to look for.
        let enough = book.documents.values().any(Option::is_some) && book.documents.values().any(Option::is_none);
        if enough && field.stopping.load(Ordering::Relaxed) {
            break;
        }
        let word = format!("{name}w{n}");
        let old = any(&book.documents, &mut random);
        match (random.random_range(0..10), old) {
            (0..3, Some(id)) => {
                if delete(&field, &bank, &id).await.is_none() {
                    break;
                }
                book.documents.insert(id, None);
            }
            (choice, old) => {
                let id = old.filter(|_| choice < 5).unwrap_or_else(|| format!("{name}-{n}"));
                if insert(&field, &bank, vec![text(&id, &word)], false).await.is_none() {
                    break;
                }
                book.replaced.extend(book.documents.insert(id, Some(word)).flatten());
            }
        }
    }
    book
}

/// Hands over some documents at a time, and does not wait until they are read.
pub(super) async fn background(field: Arc<Field>, bank: Bank, name: String, mut random: StdRng) -> Book {
    let mut book = Book::default();
    for n in 0_u32.. {
        if !book.ingestions.is_empty() && field.stopping.load(Ordering::Relaxed) {
            break;
        }
        let many = random.random_range(1..=8);
        let documents: Vec<(String, String)> = (0..many).map(|at| (format!("{name}-{n}-{at}"), format!("{name}w{n}x{at}"))).collect();
        let Some(ingestion) = insert(&field, &bank, documents.iter().map(|(id, word)| text(id, word)).collect(), true).await else { break };
        book.ingestions.push(ingestion);
        book.documents.extend(documents.into_iter().map(|(id, word)| (id, Some(word))));
        // Also of what is still to be read: it must not come back.
        if random.random_bool(0.5)
            && let Some(id) = any(&book.documents, &mut random)
        {
            if delete(&field, &bank, &id).await.is_none() {
                break;
            }
            book.documents.insert(id, None);
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..30))).await;
    }
    book
}

/// Chunks with vectors of their own.
pub(super) async fn chunks(field: Arc<Field>, bank: Bank, name: String, mut random: StdRng) -> Book {
    let mut book = Book::default();
    for n in 0_u32.. {
        if !book.vectors.is_empty() && field.stopping.load(Ordering::Relaxed) {
            break;
        }
        if random.random_bool(0.25)
            && let Some(id) = any(&book.vectors, &mut random)
        {
            if delete(&field, &bank, &id).await.is_none() {
                break;
            }
            book.vectors.insert(id, None);
            continue;
        }
        let new: Vec<(String, Vec<f32>)> =
            (0..5).map(|at| (format!("{name}-{n}-{at}"), (0..DIMENSION).map(|_| random.random_range(-1.0..1.0)).collect())).collect();
        let chunks = new.iter().map(|(id, vector)| Chunk {
            id: format!("{id}#0"),
            document_id: id.clone(),
            text: format!("chunk of {id}"),
            vector: vector.clone(),
            ..Chunk::default()
        });
        let request = InsertChunksRequest { bank_id: bank.id.clone(), chunks: chunks.collect(), ..InsertChunksRequest::default() };
        let call = |up: Up| {
            let request = request.clone();
            async move { up.memory.insert_chunks(&Context::default(), request).await }
        };
        let Some(answer) = acknowledged(&field, "insert_chunks", call).await else { break };
        for failure in &answer.failures {
            field.fault(format!("a chunk was not inserted: {failure:?}"));
        }
        book.vectors.extend(new.into_iter().map(|(id, vector)| (id, Some(vector))));
    }
    book
}
