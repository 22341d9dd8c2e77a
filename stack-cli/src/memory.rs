//! `llama-stack memory`: the banks of a running stack.

mod migrate;

use std::{sync::Arc, time::Duration};

use llama_stack_core::{
    Error, Memory, Result,
    grpc::{Remote, channel},
};
use llama_stack_proto::v1::{Bank, ListBanksRequest, QueryRequest, memory_client::MemoryClient};
use serde::Serialize;
use tonic::transport::Channel;

use crate::{
    args::{MemoryVerb, ServerArgs},
    output::Output,
    reach,
};

#[derive(Serialize)]
struct Row {
    id: String,
    name: String,
    provider: String,
    kind: String,
    documents: u64,
    chunks: u64,
    bytes: u64,
    indexed_share: f32,
}

#[derive(Serialize)]
struct Found {
    score: f32,
    document: String,
    title: String,
    text: String,
}

pub(crate) async fn run(verb: MemoryVerb, output: &Output) -> Result<()> {
    match verb {
        MemoryVerb::Banks(server) => list(&connect(&server)?, &server, output).await,
        MemoryVerb::Search { bank, text, top, server } => search(&connect(&server)?, bank, text, top, &server, output).await,
        MemoryVerb::Migrate { from, to, bank, remove, server } => {
            let task = migrate::Task { from, to, bank, remove };
            let report = migrate::run(connect(&server)?, task, &output.counts()).await;
            let report = report.map_err(|error| reach::explained(error, &server.server))?;
            output.result(&report, |report| migrate::text(report))
        }
    }
}

fn connect(server: &ServerArgs) -> Result<Arc<dyn Memory>> {
    Ok(Arc::new(Remote::<MemoryClient<Channel>>::new(channel(&server.server, Duration::from_secs(5))?)))
}

/// All of them, page by page.
async fn banks(memory: &Arc<dyn Memory>) -> Result<Vec<Bank>> {
    let (mut all, mut request) = (Vec::new(), ListBanksRequest { page_size: 1000, ..ListBanksRequest::default() });
    loop {
        let page = memory.list_banks(&crate::caller::caller(), request.clone()).await?;
        all.extend(page.banks);
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        request.page_token = page.next_page_token;
    }
}

async fn list(memory: &Arc<dyn Memory>, server: &ServerArgs, output: &Output) -> Result<()> {
    let all = banks(memory).await.map_err(|error| reach::explained(error, &server.server))?;
    let rows: Vec<Row> = all.into_iter().map(row).collect();
    output.result(&rows, |rows| {
        let line = |row: &Row| {
            let indexed = format!("{:.0} % indexed", row.indexed_share * 100.0);
            let Row { id, name, provider, kind, documents, chunks, .. } = row;
            format!("{id}  {kind}  {provider}  {documents} documents, {chunks} chunks, {indexed}  {name}\n")
        };
        rows.iter().map(line).collect()
    })
}

fn row(bank: Bank) -> Row {
    Row {
        kind: bank.kind().as_str_name().trim_start_matches("BANK_KIND_").to_lowercase(),
        id: bank.id,
        name: bank.name,
        provider: bank.provider_id,
        documents: bank.document_count,
        chunks: bank.chunk_count,
        bytes: bank.bytes_used,
        indexed_share: bank.indexed_share,
    }
}

async fn search(memory: &Arc<dyn Memory>, bank: String, text: String, top: u32, server: &ServerArgs, output: &Output) -> Result<()> {
    if text.trim().is_empty() {
        return Err(Error::invalid("text", "there is nothing to search for"));
    }
    let request = QueryRequest { bank_ids: vec![bank], text, top_k: top, ..QueryRequest::default() };
    let found = memory.query(&crate::caller::caller(), request).await.map_err(|error| reach::explained(error, &server.server))?;
    let each = |found: llama_stack_proto::v1::ScoredChunk| {
        let chunk = found.chunk.unwrap_or_default();
        Found { score: found.score, document: chunk.document_id, title: chunk.title, text: chunk.text }
    };
    let found: Vec<Found> = found.chunks.into_iter().map(each).collect();
    output.result(&found, |found| {
        found.iter().map(|found| format!("{:.3}  {}  {}\n{}\n\n", found.score, found.document, found.title, found.text.trim())).collect()
    })
}
