//! `llama-stack memory`: the banks of a running stack.

mod migrate;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use llama_stack_core::{Error, Memory, Result, Stack as _, grpc::Remote};
use llama_stack_proto::v1::{
    Bank, BankKind, CreateBankRequest, Document, GetBankRequest, InsertDocumentsRequest, ListBanksRequest, ListProvidersRequest,
    QueryRequest, SearchMode, document::Content, memory_client::MemoryClient, stack_client::StackClient,
};
use serde::Serialize;
use tonic::transport::Channel;

use crate::{
    args::{BankChoice, MemoryVerb, ModeChoice, ServerArgs},
    named,
    output::Output,
    reach,
    table::table,
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

/// What became of a file.
#[derive(Serialize)]
struct Added {
    document: String,
    /// Why it was not added.
    error: Option<String>,
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
        MemoryVerb::Create { name, kind, provider, embedding_model, server } => {
            let kind = match kind {
                BankChoice::Vector => BankKind::Vector,
                BankChoice::Keyword => BankKind::Keyword,
                BankChoice::KeyValue => BankKind::KeyValue,
            };
            let request = CreateBankRequest {
                name,
                kind: kind.into(),
                provider_id: provider.unwrap_or_default(),
                embedding_model: embedding_model.unwrap_or_default(),
                ..CreateBankRequest::default()
            };
            let made = connect(&server)?.create_bank(&crate::caller::caller(), request).await;
            let made = row(made.map_err(|error| reach::explained(error, &server.server))?);
            output.result(&made, line)
        }
        MemoryVerb::Add { bank, files, server } => add(&connect(&server)?, &bank_id(&bank), files, &server, output).await,
        MemoryVerb::Search { bank, text, top, page, mode, server } => {
            if text.trim().is_empty() {
                return Err(Error::invalid("text", "there is nothing to search for"));
            }
            let mode = mode.map(|mode| match mode {
                ModeChoice::Vector => SearchMode::Vector,
                ModeChoice::Keyword => SearchMode::Keyword,
                ModeChoice::Hybrid => SearchMode::Hybrid,
            });
            let request = QueryRequest { bank_ids: vec![bank_id(&bank)], text, top_k: top, ..QueryRequest::default() };
            let found = {
                let _working = output.working(&format!("{bank} is searched"));
                search(&connect(&server)?, request, page, mode).await.map_err(|error| reach::explained(error, &server.server))?
            };
            output.result(&found, |found| found.iter().map(shown).collect())
        }
        MemoryVerb::Migrate { from, to, bank, remove, server } => {
            are_there(&server.server, &[&from, &to]).await?;
            let task = migrate::Task { from, to, bank, remove };
            let (report, ended) = migrate::run(connect(&server)?, task, &output.counts()).await;
            // What was moved, and perhaps removed, is told whatever came then.
            if !report.is_empty() || ended.is_ok() {
                output.result(&report, |report| migrate::text(report))?;
            }
            ended.map_err(|error| reach::explained(error, &server.server))?;
            let waiting = report.iter().filter(|moved| moved.waits).count();
            if waiting > 0 {
                return Err(Error::failed_precondition(format!(
                    "{waiting} banks were left, of documents that are not inserted: run it again then"
                )));
            }
            Ok(())
        }
    }
}

/// A slip of the pen would read as a provider without banks.
async fn are_there(server: &str, wanted: &[&String]) -> Result<()> {
    let stack = Remote::<StackClient<Channel>>::new(reach::connect(server)?);
    let request = ListProvidersRequest { api: "memory".into() };
    let there = stack.list_providers(&crate::caller::caller(), request).await.map_err(|error| reach::explained(error, server))?.providers;
    match wanted.iter().find(|wanted| there.iter().all(|provider| provider.id != ***wanted)) {
        Some(missing) => Err(Error::not_found(format!("no memory provider {missing:?}; `llama-stack provider list` shows what there is"))),
        None => Ok(()),
    }
}

fn connect(server: &ServerArgs) -> Result<Arc<dyn Memory>> {
    Ok(Arc::new(Remote::<MemoryClient<Channel>>::new(reach::connect(&server.server)?)))
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
        if rows.is_empty() {
            return "there are no banks; `llama-stack memory create` makes one\n".into();
        }
        let line = |row: &Row| {
            let (documents, chunks) = (row.documents.to_string(), row.chunks.to_string());
            [row.id.clone(), row.kind.clone(), row.provider.clone(), documents, chunks, indexed(row), row.name.clone()]
        };
        table(["BANK", "KIND", "PROVIDER", "DOCUMENTS", "CHUNKS", "INDEXED", "NAME"], rows.iter().map(line))
    })
}

fn line(row: &Row) -> String {
    let Row { id, name, provider, kind, documents, chunks, .. } = row;
    format!("{id}  {kind}  {provider}  {documents} documents, {chunks} chunks, {} indexed  {name}\n", indexed(row))
}

fn indexed(row: &Row) -> String {
    format!("{:.0} %", row.indexed_share * 100.0)
}

/// A vector store is a bank: `vs_…` is `bank_…`.
fn bank_id(given: &str) -> String {
    given.strip_prefix("vs_").map_or_else(|| given.to_owned(), |rest| format!("bank_{rest}"))
}

/// One after the other: each is a message of its own. What is wrong with one leaves the others.
async fn add(memory: &Arc<dyn Memory>, bank_id: &str, files: Vec<PathBuf>, server: &ServerArgs, output: &Output) -> Result<()> {
    // Before any is sent: a slip of the pen leaves the bank as it is.
    files.iter().try_for_each(|path| named::readable(path))?;
    let (mut rows, mut broken_off) = (Vec::with_capacity(files.len()), Ok(()));
    for path in &files {
        match add_one(memory, bank_id, path, server, output).await {
            Ok(row) => rows.push(row),
            Err(error) => {
                broken_off = Err(error);
                break;
            }
        }
    }
    if rows.is_empty() {
        return broken_off;
    }
    let (all, failed) = (rows.len(), rows.iter().filter(|row| row.error.is_some()).count());
    output.result(&rows, |rows| {
        let line = |row: &Added| match &row.error {
            None => format!("{} added\n", row.document),
            Some(error) => format!("{} was not added: {error}\n", row.document),
        };
        rows.iter().map(line).collect()
    })?;
    broken_off?;
    if failed == 0 { Ok(()) } else { Err(Error::failed_precondition(format!("{failed} of {all} files were not added"))) }
}

async fn add_one(memory: &Arc<dyn Memory>, bank_id: &str, path: &Path, server: &ServerArgs, output: &Output) -> Result<Added> {
    let id = path.display().to_string();
    let read = std::fs::read(path).map_err(|error| named::unreadable(path, &error))?;
    let title = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let document = Document { id: id.clone(), title, content: Some(Content::Data(read)), ..Document::default() };
    let request = InsertDocumentsRequest { bank_id: bank_id.to_owned(), documents: vec![document], ..InsertDocumentsRequest::default() };
    let answer = {
        let _working = output.working(&format!("{id} is read"));
        memory.insert_documents(&crate::caller::caller(), request).await
    };
    let mut failures = answer.map_err(|error| reach::explained(error, &server.server))?.failures;
    let error = failures.pop().map(|failure| failure.error.unwrap_or_default().message);
    Ok(Added { document: id, error })
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

/// By both, where nothing else is asked for and the bank makes vectors of texts.
async fn search(memory: &Arc<dyn Memory>, mut request: QueryRequest, page: u32, mode: Option<SearchMode>) -> Result<Vec<Found>> {
    let mode = match (mode, request.bank_ids.first()) {
        (None, Some(id)) => {
            let bank = memory.get_bank(&crate::caller::caller(), GetBankRequest::uncounted(id.as_str())).await?;
            if bank.kind() == BankKind::Vector && !bank.embedding_model.is_empty() { SearchMode::Hybrid } else { SearchMode::Keyword }
        }
        (mode, _) => mode.unwrap_or_default(),
    };
    request.set_mode(mode);
    let mut found = memory.query(&crate::caller::caller(), request.clone()).await?;
    for _ in 1..page {
        if found.next_page_token.is_empty() {
            return Ok(Vec::new());
        }
        request.page_token = found.next_page_token;
        found = memory.query(&crate::caller::caller(), request.clone()).await?;
    }
    let each = |found: llama_stack_proto::v1::ScoredChunk| {
        let chunk = found.chunk.unwrap_or_default();
        Found { score: found.score, document: chunk.document_id, title: chunk.title, text: chunk.text }
    };
    Ok(found.chunks.into_iter().map(each).collect())
}

fn shown(found: &Found) -> String {
    format!("{:.3}  {}  {}\n{}\n\n", found.score, found.document, found.title, found.text.trim())
}
