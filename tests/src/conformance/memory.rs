//! What every `Memory` with banks promises. Behind it is the embedding model of [`crate::worded`].
//!
//! ```text
//! banks      made, described, changed, listed, deleted, expired
//! documents  inserted, replaced, listed, renamed, deleted; in the background; ready chunks
//! search     by words, by meaning, both; filters, thresholds, rankers, variety, budgets
//! retrieval  how good what is found is, over the corpus in tests/fixtures/retrieval
//! isolation  every method for every kind of caller, and many searches of somebody who looks for what is not theirs
//! ```
//!
//! Each promise makes banks of its own, so that all of them hold in one store, at once and again.

pub mod banks;
pub mod documents;
pub mod isolation;
pub mod retrieval;
pub mod search;

use std::{collections::HashMap, sync::Arc, time::Duration};

use llama_stack_core::{Context, Memory, Principal, Result, ids};
use llama_stack_proto::v1::{
    Bank, BankKind, Chunk, CreateBankRequest, Document, InsertChunksRequest, InsertDocumentsRequest, InsertDocumentsResponse, QueryRequest,
    SearchMode, Value, document::Content, value::Value as Is,
};

use crate::worded::EMBEDDING;

/// Far longer than anything here takes: it only tells "late" from "never".
pub const NEVER: Duration = Duration::from_secs(60);

/// Runs every promise but the many searches of [`isolation::nothing_foreign_is_found`].
pub async fn all(memory: Arc<dyn Memory>) {
    banks::all(memory.clone()).await;
    documents::all(memory.clone()).await;
    search::all(memory.clone()).await;
    isolation::every_method_keeps_to_who_asks(memory).await;
}

/// A caller whom nobody knows yet, of a tenant of their own.
pub fn somebody() -> Context {
    caller(&ids::new("tenant"), "ann", &[])
}

pub fn caller(tenant: &str, id: &str, roles: &[&str]) -> Context {
    let roles = roles.iter().map(|role| (*role).to_owned()).collect();
    Context::new(Principal { id: id.into(), tenant: tenant.into(), roles })
}

pub fn vector_bank() -> CreateBankRequest {
    vector_bank_of(EMBEDDING)
}

pub fn vector_bank_of(embedding_model: &str) -> CreateBankRequest {
    CreateBankRequest { name: "docs".into(), embedding_model: embedding_model.into(), ..CreateBankRequest::default() }
}

pub fn bank_of(kind: BankKind) -> CreateBankRequest {
    CreateBankRequest { name: "docs".into(), kind: kind.into(), ..CreateBankRequest::default() }
}

pub async fn made(memory: &Arc<dyn Memory>, cx: &Context) -> Bank {
    memory.create_bank(cx, vector_bank()).await.unwrap()
}

pub fn text(id: &str, text: &str) -> Document {
    Document { id: id.into(), content: Some(Content::Text(text.into())), ..Document::default() }
}

pub fn value(text: &str) -> Value {
    Value { value: Some(Is::Text(text.into())) }
}

pub fn number(number: f64) -> Value {
    Value { value: Some(Is::Number(number)) }
}

pub fn with(document: Document, attributes: &[(&str, Value)]) -> Document {
    let attributes: HashMap<String, Value> = attributes.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    Document { attributes, ..document }
}

pub async fn insert(memory: &Arc<dyn Memory>, cx: &Context, bank: &Bank, documents: Vec<Document>) -> Result<InsertDocumentsResponse> {
    memory.insert_documents(cx, InsertDocumentsRequest { bank_id: bank.id.clone(), documents, ..InsertDocumentsRequest::default() }).await
}

/// Inserts, and nothing may fail.
pub async fn inserted(memory: &Arc<dyn Memory>, cx: &Context, bank: &Bank, documents: Vec<Document>) {
    let answer = insert(memory, cx, bank, documents).await.unwrap();
    assert!(answer.failures.is_empty(), "{:?}", answer.failures);
}

/// A chunk with a vector of its own.
pub fn chunk(id: &str, document: &str, text: &str, vector: &[f32]) -> Chunk {
    Chunk { id: id.into(), document_id: document.into(), text: text.into(), vector: vector.to_vec(), ..Chunk::default() }
}

pub fn chunks(bank: &Bank, chunks: Vec<Chunk>) -> InsertChunksRequest {
    InsertChunksRequest { bank_id: bank.id.clone(), chunks, ..InsertChunksRequest::default() }
}

pub fn query(bank: &Bank, text: &str, mode: SearchMode) -> QueryRequest {
    QueryRequest { bank_ids: vec![bank.id.clone()], text: text.into(), mode: mode.into(), ..QueryRequest::default() }
}

/// The documents that were found, best first.
pub async fn found(memory: &Arc<dyn Memory>, cx: &Context, request: QueryRequest) -> Vec<String> {
    let answer = memory.query(cx, request).await.unwrap();
    answer.chunks.into_iter().map(|scored| scored.chunk.unwrap().document_id).collect()
}
