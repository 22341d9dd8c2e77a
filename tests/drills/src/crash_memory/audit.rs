//! The end: what the banks hold, beside the clients' books.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use llama_stack_core::{Context, Memory, Result};
use llama_stack_proto::v1::{Bank, GetDocumentRequest, GetIngestionRequest, ListChunksRequest, QueryRequest, SearchMode};

use super::{Field, PATIENCE, clients::Book};

/// What there was to compare.
#[derive(Default)]
pub(super) struct Sums {
    pub(super) documents: usize,
    pub(super) chunks: usize,
    pub(super) deleted: usize,
    pub(super) ingestions: usize,
}

pub(super) async fn audit(field: &Field, memory: &dyn Memory, words: &Bank, vectors: &Bank, books: &[Book], sums: &mut Sums) {
    for id in books.iter().flat_map(|book| &book.ingestions) {
        match ended(memory, words, id).await {
            Ok(true) => sums.ingestions += 1,
            Ok(false) => field.fault(format!("ingestion {id} has not ended after {} s", PATIENCE.as_secs())),
            Err(error) => field.fault(format!("ingestion {id}: {error:?}")),
        }
    }
    let judged: Result<()> = async {
        let there = listed(memory, words).await?;
        let kept: BTreeMap<&String, &Option<String>> = books.iter().flat_map(|book| &book.documents).collect();
        compare(field, &there, kept.iter().filter(|(_, word)| word.is_some()).map(|(id, _)| (*id).clone()).collect());
        for (id, word) in &kept {
            match word {
                Some(word) => {
                    let found = found(memory, words, word).await?;
                    if found != [(*id).clone()] {
                        field.fault(format!("{word} finds {found:?}, and should find {id}"));
                    }
                    sums.documents += 1;
                }
                None => {
                    let get = GetDocumentRequest { bank_id: words.id.clone(), document_id: (*id).clone(), ..GetDocumentRequest::default() };
                    if memory.get_document(&Context::default(), get).await.is_ok() {
                        field.fault(format!("{id} was deleted and is there"));
                    }
                    sums.deleted += 1;
                }
            }
        }
        for word in books.iter().flat_map(|book| &book.replaced) {
            let found = found(memory, words, word).await?;
            if !found.is_empty() {
                field.fault(format!("{word} was replaced, and finds {found:?}"));
            }
        }
        let there = listed(memory, vectors).await?;
        let kept: BTreeMap<&String, &Option<Vec<f32>>> = books.iter().flat_map(|book| &book.vectors).collect();
        compare(field, &there, kept.iter().filter(|(_, vector)| vector.is_some()).map(|(id, _)| (*id).clone()).collect());
        for (id, vector) in kept {
            let Some(vector) = vector else {
                sums.deleted += 1;
                continue;
            };
            let query = QueryRequest {
                bank_ids: vec![vectors.id.clone()],
                vector: vector.clone(),
                mode: SearchMode::Vector.into(),
                top_k: 1,
                ..QueryRequest::default()
            };
            let found = memory.query(&Context::default(), query).await?.chunks;
            let first = found.first().and_then(|found| found.chunk.as_ref().map(|chunk| (chunk.document_id.clone(), found.score)));
            if !first.as_ref().is_some_and(|(found, score)| found == id && *score > 0.999) {
                field.fault(format!("the vector of {id} finds {first:?}"));
            }
            sums.chunks += 1;
        }
        Ok(())
    }
    .await;
    if let Err(error) = judged {
        field.fault(format!("the banks cannot be read: {error:?}"));
    }
}

async fn ended(memory: &dyn Memory, bank: &Bank, id: &str) -> Result<bool> {
    let begun = Instant::now();
    loop {
        let get = GetIngestionRequest { bank_id: bank.id.clone(), id: id.into() };
        if memory.get_ingestion(&Context::default(), get).await?.ended.is_some() {
            return Ok(true);
        }
        if begun.elapsed() > PATIENCE {
            return Ok(false);
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// How many chunks of each document there are.
async fn listed(memory: &dyn Memory, bank: &Bank) -> Result<BTreeMap<String, usize>> {
    let (mut there, mut page_token) = (BTreeMap::new(), String::new());
    loop {
        let request = ListChunksRequest { bank_id: bank.id.clone(), page_size: 1_000, page_token, ..ListChunksRequest::default() };
        let page = memory.list_chunks(&Context::default(), request).await?;
        for chunk in page.chunks {
            *there.entry(chunk.document_id).or_default() += 1;
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(there);
        }
    }
}

/// Every document of the drill is one chunk.
fn compare(field: &Field, there: &BTreeMap<String, usize>, due: BTreeSet<String>) {
    for (id, chunks) in there.iter().filter(|(_, chunks)| **chunks > 1) {
        field.fault(format!("{id} is there {chunks} times"));
    }
    due.iter().filter(|id| !there.contains_key(*id)).for_each(|id| field.fault(format!("{id} was acknowledged and is not there")));
    there.keys().filter(|id| !due.contains(*id)).for_each(|id| field.fault(format!("{id} is there, and was deleted or never inserted")));
}

async fn found(memory: &dyn Memory, bank: &Bank, word: &str) -> Result<Vec<String>> {
    let query = QueryRequest {
        bank_ids: vec![bank.id.clone()],
        text: word.into(),
        mode: SearchMode::Keyword.into(),
        top_k: 10,
        ..QueryRequest::default()
    };
    let chunks = memory.query(&Context::default(), query).await?.chunks;
    Ok(chunks.into_iter().filter_map(|found| found.chunk).map(|chunk| chunk.document_id).collect())
}
