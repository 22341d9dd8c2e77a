//! Banks from one provider of a stack to another: created there, copied, and read back beside the original.
//!
//! It can be broken off and begun again: the new bank says whose copy it is, and chunks that are there already are not sent
//! again. Vectors are compared by their direction, since an index may keep them at length one. What is known of documents goes with
//! their first chunks: what they were made of, when they came, when they expire. What is too long for that follows part by part, and
//! all that documents were made of is read back as well. What the original has otherwise by now is copied anew, and what it has no more
//! is deleted; a bank in which a document is being inserted has no content yet that could be copied.

mod documents;

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    sync::Arc,
};

use llama_stack_core::{Code, Error, Memory, Result};
use llama_stack_proto::v1::{
    Bank, BankKind, Chunk, CreateBankRequest, DeleteBankRequest, Document, InsertChunksRequest, ListChunksRequest, Position, Value,
    value::Value as Is,
};
use prost::Message as _;
use serde::Serialize;
use sha2::{Digest, Sha256};

use self::documents::{AT_ONCE, NOT_INSERTED, bytes_of, contents, documents, finished, forget_others, got};

/// Where a copy says whose it is.
const ORIGIN: &str = "migrated_from";
const PAGE: u32 = 500;
/// Directions nearer than this are the same; rounding alone stays far below.
const SAME: f32 = 0.9999;

pub(crate) struct Task {
    pub(crate) from: String,
    pub(crate) to: String,
    /// Only this one.
    pub(crate) bank: Option<String>,
    /// Delete an original once its copy was found to be the same.
    pub(crate) remove: bool,
}

#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Moved {
    bank: String,
    name: String,
    /// Its copy; empty where it was left.
    copy: String,
    chunks: u64,
    /// Sent in this run; the others were there.
    sent: u64,
    /// Of all chunks but their vectors, and of what their documents were made of, in their order.
    sha256: String,
    removed: bool,
    /// Why it was left.
    left: Option<String>,
    /// It was left until its documents are inserted.
    #[serde(skip)]
    pub(super) waits: bool,
}

/// Told of a bank, how many of its chunks are done, and how many there are.
pub(crate) type OnCount<'a> = &'a (dyn Fn(&str, u64, u64) + Send + Sync);

/// What became of the banks until all were done, or until the first error.
pub(crate) async fn run(memory: Arc<dyn Memory>, task: Task, on_count: OnCount<'_>) -> (Vec<Moved>, Result<()>) {
    let mut moved = Vec::new();
    let (originals, others) = match asked(&memory, &task).await {
        Ok(banks) => banks,
        Err(error) => return (moved, Err(error)),
    };
    for bank in &originals {
        match step(&memory, &task, bank, &others, on_count).await {
            Ok(one) => moved.push(one),
            Err(error) => return (moved, Err(error.context(format!("bank {}", bank.id)))),
        }
    }
    (moved, Ok(()))
}

/// The banks that are to be moved, and all others.
async fn asked(memory: &Arc<dyn Memory>, task: &Task) -> Result<(Vec<Bank>, Vec<Bank>)> {
    if task.from == task.to {
        return Err(Error::invalid("to", "a bank is moved from one provider to another"));
    }
    let is_asked = |bank: &Bank| bank.provider_id == task.from && task.bank.as_ref().is_none_or(|id| *id == bank.id);
    let (originals, others): (Vec<Bank>, Vec<Bank>) = super::banks(memory).await?.into_iter().partition(is_asked);
    match &task.bank {
        Some(id) if originals.is_empty() => Err(Error::not_found(format!("provider {:?} has no bank {id:?}", task.from))),
        _ => Ok((originals, others)),
    }
}

async fn step(memory: &Arc<dyn Memory>, task: &Task, bank: &Bank, others: &[Bank], on_count: OnCount<'_>) -> Result<Moved> {
    if bank.kind() == BankKind::KeyValue {
        return Ok(Moved::left(bank, "a key_value bank is kept in the stack's store, whichever its provider"));
    }
    let documents = documents(memory, bank).await?;
    if let Err(error) = finished(&documents, task.remove) {
        return Ok(Moved::waiting(bank, error.message()));
    }
    let copy = match others.iter().find(|copy| copy.provider_id == task.to && copy.metadata.get(ORIGIN) == Some(&bank.id)) {
        Some(copy) => copy.clone(),
        None => memory.create_bank(&crate::caller::caller(), like(bank, &task.to)).await?,
    };
    match one(memory, bank, &copy, documents, task.remove, on_count).await {
        Err(error) if error.reason() == Some(NOT_INSERTED) => Ok(Moved::waiting(bank, error.message())),
        moved => moved,
    }
}

fn like(bank: &Bank, provider: &str) -> CreateBankRequest {
    let mut metadata = bank.metadata.clone();
    metadata.insert(ORIGIN.to_owned(), bank.id.clone());
    CreateBankRequest {
        name: bank.name.clone(),
        kind: bank.kind,
        provider_id: provider.to_owned(),
        embedding_model: bank.embedding_model.clone(),
        // In place of a model, not beside one.
        embedding_dimension: if bank.embedding_model.is_empty() { bank.embedding_dimension } else { 0 },
        chunking: bank.chunking,
        metadata,
        expires_after_seconds: bank.expires_after_seconds,
        shared: bank.shared,
        // It stays whose it is, whoever moves it.
        owner: bank.owner.clone(),
        // The original has it as long as both are there.
        purpose: String::new(),
    }
}

async fn one(
    memory: &Arc<dyn Memory>,
    bank: &Bank,
    copy: &Bank,
    originals: Vec<Document>,
    remove: bool,
    on_count: OnCount<'_>,
) -> Result<Moved> {
    forget_others(memory, bank, &originals, copy, remove).await?;
    let (mut there, mut pages) = (HashMap::new(), Pages::of(memory, copy, false));
    while let Some(chunks) = pages.next().await? {
        there.extend(chunks.into_iter().map(|chunk| (chunk.id.clone(), digest(&chunk))));
    }
    let (mut sent, mut done, mut pages) = (0, 0, Pages::of(memory, bank, true));
    let mut told = HashSet::new();
    while let Some(mut chunks) = pages.next().await? {
        done += chunks.len() as u64;
        chunks.retain(|chunk| there.get(&chunk.id) != Some(&digest(chunk)));
        sent += chunks.len() as u64;
        let (mut some, mut documents, mut bytes) = (Vec::new(), Vec::new(), 0);
        for chunk in chunks {
            if told.insert(chunk.document_id.clone())
                && let Some(mut document) = got(memory, bank, &chunk.document_id, 0).await?
            {
                document.content = document.content.filter(|content| bytes_of(content).len() < AT_ONCE);
                bytes += document.encoded_len();
                documents.push(document);
            }
            bytes += chunk.encoded_len();
            some.push(chunk);
            if bytes > AT_ONCE {
                send(memory, copy, std::mem::take(&mut some), std::mem::take(&mut documents)).await?;
                bytes = 0;
            }
        }
        if !some.is_empty() {
            send(memory, copy, some, documents).await?;
        }
        on_count(&bank.id, done, bank.chunk_count.max(done));
    }
    let (chunks, mut hash) = verify(memory, bank, copy).await?;
    contents(memory, bank, copy, remove, &mut hash).await?;
    let sha256 = hex::encode(hash.finalize());
    if remove {
        // What came or was replaced since the first look is not in the copy.
        if documents(memory, bank).await? != originals {
            return Err(differs("documents of it were inserted, changed or deleted meanwhile"));
        }
        memory.delete_bank(&crate::caller::caller(), DeleteBankRequest { id: bank.id.clone() }).await?;
    }
    Ok(Moved {
        bank: bank.id.clone(),
        name: bank.name.clone(),
        copy: copy.id.clone(),
        chunks,
        sent,
        sha256,
        removed: remove,
        left: None,
        waits: false,
    })
}

async fn send(memory: &Arc<dyn Memory>, copy: &Bank, chunks: Vec<Chunk>, documents: Vec<Document>) -> Result<()> {
    let request = InsertChunksRequest { bank_id: copy.id.clone(), chunks, documents, ..InsertChunksRequest::default() };
    let failures = memory.insert_chunks(&crate::caller::caller(), request).await?.failures;
    match failures.first() {
        None => Ok(()),
        Some(failure) => {
            let why = failure.error.as_ref().map(|error| error.message.clone()).unwrap_or_default();
            Err(Error::failed_precondition(format!("{} chunks were refused, the first: {why}", failures.len())))
        }
    }
}

impl Moved {
    fn left(bank: &Bank, why: &str) -> Self {
        let (bank, name) = (bank.id.clone(), bank.name.clone());
        Self {
            bank,
            name,
            copy: String::new(),
            chunks: 0,
            sent: 0,
            sha256: String::new(),
            removed: false,
            left: Some(why.to_owned()),
            waits: false,
        }
    }

    fn waiting(bank: &Bank, why: &str) -> Self {
        Self { waits: true, ..Self::left(bank, why) }
    }
}

/// Both, chunk beside chunk. How many there are, and their hash so far.
async fn verify(memory: &Arc<dyn Memory>, bank: &Bank, copy: &Bank) -> Result<(u64, Sha256)> {
    let (mut originals, mut copies) = (Pages::of(memory, bank, true), Pages::of(memory, copy, true));
    let (mut count, mut hash) = (0, Sha256::new());
    loop {
        let (original, copied) = (originals.one().await?, copies.one().await?);
        let (original, copied) = match (original, copied) {
            (None, None) => return Ok((count, hash)),
            (Some(original), Some(copied)) => (original, copied),
            (original, copied) => {
                let id = original.or(copied).map(|chunk| chunk.id).unwrap_or_default();
                return Err(differs(&format!("after {count} chunks one of them ends and the other goes on with chunk {id:?}")));
            }
        };
        let digest = digest(&original);
        if digest != self::digest(&copied) || !same_direction(&original.vector, &copied.vector) {
            return Err(differs(&format!("chunk {:?} is not the same", original.id)));
        }
        hash.update(digest);
        count += 1;
    }
}

fn differs(what: &str) -> Error {
    let message = format!("the copy differs from the bank: {what}; was it changed meanwhile? Run this again to go on");
    Error::new(Code::Aborted, message)
}

fn same_direction(one: &[f32], other: &[f32]) -> bool {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let lengths = (dot(one, one) * dot(other, other)).sqrt();
    one.len() == other.len() && (lengths == 0.0 || dot(one, other) / lengths > SAME)
}

/// Of all of a chunk but its vector; attributes by name, since they have no order.
fn digest(chunk: &Chunk) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    for text in [&chunk.id, &chunk.document_id, &chunk.text, &chunk.title, &chunk.file_id] {
        part(text.as_bytes());
    }
    part(&chunk.index.to_le_bytes());
    if let Some(Position { page, line_start, line_end, heading }) = &chunk.position {
        [page, line_start, line_end].into_iter().for_each(|number| part(&number.to_le_bytes()));
        part(heading.as_bytes());
    }
    let mut attributes: Vec<(&String, &Value)> = chunk.attributes.iter().collect();
    attributes.sort_unstable_by_key(|(name, _)| *name);
    for (name, value) in attributes {
        part(name.as_bytes());
        match &value.value {
            Some(Is::Text(text)) => part(text.as_bytes()),
            Some(Is::Number(number)) => part(&number.to_le_bytes()),
            Some(Is::Boolean(boolean)) => part(&[u8::from(*boolean)]),
            None => part(&[]),
        }
    }
    hash.finalize().into()
}

/// A bank's chunks in their order.
struct Pages<'a> {
    memory: &'a Arc<dyn Memory>,
    request: ListChunksRequest,
    ended: bool,
    page: std::vec::IntoIter<Chunk>,
}

impl<'a> Pages<'a> {
    fn of(memory: &'a Arc<dyn Memory>, bank: &Bank, with_vectors: bool) -> Self {
        let request = ListChunksRequest { bank_id: bank.id.clone(), page_size: PAGE, with_vectors, ..ListChunksRequest::default() };
        Self { memory, request, ended: false, page: Vec::new().into_iter() }
    }

    async fn next(&mut self) -> Result<Option<Vec<Chunk>>> {
        if self.ended {
            return Ok(None);
        }
        let page = loop {
            match self.memory.list_chunks(&crate::caller::caller(), self.request.clone()).await {
                // Long texts or vectors: a message does not hold so many.
                Err(error) if error.code() == Code::TooLarge && self.request.page_size > 1 => self.request.page_size /= 2,
                page => break page?,
            }
        };
        self.ended = page.next_page_token.is_empty();
        self.request.page_token = page.next_page_token;
        Ok(Some(page.chunks))
    }

    async fn one(&mut self) -> Result<Option<Chunk>> {
        loop {
            if let Some(chunk) = self.page.next() {
                return Ok(Some(chunk));
            }
            match self.next().await? {
                Some(page) => self.page = page.into_iter(),
                None => return Ok(None),
            }
        }
    }
}

pub(crate) fn text(moved: &[Moved]) -> String {
    let mut text = String::new();
    for Moved { bank, name, copy, chunks, sent, sha256, removed, left, .. } in moved {
        let _ = match left {
            Some(why) => writeln!(text, "{bank} ({name}) was left: {why}"),
            None => {
                let gone = if *removed { ", the original removed" } else { "" };
                writeln!(text, "{bank} ({name}) is {copy}: {chunks} chunks, {sent} sent, verified, sha256 {sha256}{gone}")
            }
        };
    }
    if moved.is_empty() {
        text.push_str("no banks to move\n");
    }
    text
}

/// Of a run that is to come to its end.
#[cfg(test)]
async fn all_moved(memory: Arc<dyn Memory>, task: Task, on_count: OnCount<'_>) -> Result<Vec<Moved>> {
    let (moved, ended) = run(memory, task, on_count).await;
    ended.map(|()| moved)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use async_trait::async_trait;
    use llama_stack_core::Context;
    use llama_stack_proto::v1::{
        DeleteBankResponse, DocumentStatus, InsertChunksResponse, ListBanksRequest, ListBanksResponse, ListChunksResponse,
        ListDocumentsRequest, ListDocumentsResponse,
    };

    /// Two providers; the second keeps vectors at length one and can be made to fail.
    #[derive(Default)]
    struct Two(Mutex<State>);

    #[derive(Default)]
    struct State {
        banks: Vec<(Bank, Vec<Chunk>)>,
        /// Inserts until one fails.
        patience: Option<u32>,
        /// Texts come back changed.
        garbles: bool,
        /// Of the first bank.
        documents: Vec<Document>,
        /// Of its copy.
        copied: Vec<Document>,
    }

    fn bank(id: &str, provider: &str, kind: BankKind) -> Bank {
        let (id, provider_id) = (id.into(), provider.into());
        Bank { id, provider_id, name: "papers".into(), kind: kind.into(), embedding_dimension: 2, ..Bank::default() }
    }

    impl Two {
        fn new(chunks: u32) -> Arc<Self> {
            let chunk = |n: u32| Chunk {
                id: format!("c{n:05}"),
                document_id: "d".into(),
                text: format!("text {n}"),
                vector: vec![n as f32 + 1.0, 2.0],
                attributes: [("n".to_owned(), Value { value: Some(Is::Number(f64::from(n))) })].into(),
                index: n,
                ..Chunk::default()
            };
            let two = Self::default();
            let banks = vec![
                (Bank { chunk_count: chunks.into(), ..bank("one", "red", BankKind::Vector) }, (0..chunks).map(chunk).collect()),
                (bank("other", "blue", BankKind::Vector), Vec::new()),
                (bank("pairs", "red", BankKind::KeyValue), Vec::new()),
            ];
            two.0.lock().unwrap().banks = banks;
            Arc::new(two)
        }
    }

    #[async_trait]
    impl Memory for Two {
        async fn list_banks(&self, _: &Context, _: ListBanksRequest) -> Result<ListBanksResponse> {
            let banks = self.0.lock().unwrap().banks.iter().map(|(bank, _)| bank.clone()).collect();
            Ok(ListBanksResponse { banks, ..ListBanksResponse::default() })
        }

        async fn create_bank(&self, _: &Context, request: CreateBankRequest) -> Result<Bank> {
            let id = format!("copy of {}", request.metadata[ORIGIN]);
            let new = Bank { metadata: request.metadata, ..bank(&id, &request.provider_id, BankKind::Vector) };
            self.0.lock().unwrap().banks.push((new.clone(), Vec::new()));
            Ok(new)
        }

        async fn delete_bank(&self, _: &Context, request: DeleteBankRequest) -> Result<DeleteBankResponse> {
            self.0.lock().unwrap().banks.retain(|(bank, _)| bank.id != request.id);
            Ok(DeleteBankResponse {})
        }

        async fn insert_chunks(&self, _: &Context, request: InsertChunksRequest) -> Result<InsertChunksResponse> {
            let mut state = self.0.lock().unwrap();
            if let Some(left) = &mut state.patience {
                *left = left.checked_sub(1).ok_or_else(|| Error::unavailable("gone"))?;
            }
            let garbles = state.garbles;
            let (_, chunks) = state.banks.iter_mut().find(|(bank, _)| bank.id == request.bank_id).unwrap();
            for mut chunk in request.chunks {
                let length = chunk.vector.iter().map(|number| number * number).sum::<f32>().sqrt();
                chunk.vector.iter_mut().for_each(|number| *number /= length);
                if garbles {
                    chunk.text.push('!');
                }
                chunks.retain(|there| there.id != chunk.id);
                chunks.push(chunk);
            }
            chunks.sort_by_key(|chunk| chunk.index);
            Ok(InsertChunksResponse::default())
        }

        async fn list_documents(&self, _: &Context, request: ListDocumentsRequest) -> Result<ListDocumentsResponse> {
            let state = self.0.lock().unwrap();
            let documents = match request.bank_id.as_str() {
                "one" => state.documents.clone(),
                "copy of one" => state.copied.clone(),
                _ => Vec::new(),
            };
            Ok(ListDocumentsResponse { documents, ..ListDocumentsResponse::default() })
        }

        async fn list_chunks(&self, _: &Context, request: ListChunksRequest) -> Result<ListChunksResponse> {
            let state = self.0.lock().unwrap();
            let (_, chunks) = state.banks.iter().find(|(bank, _)| bank.id == request.bank_id).unwrap();
            let start: usize = request.page_token.parse().unwrap_or_default();
            let end = (start + request.page_size as usize).min(chunks.len());
            let next_page_token = if end < chunks.len() { end.to_string() } else { String::new() };
            Ok(ListChunksResponse { chunks: chunks[start..end].to_vec(), next_page_token })
        }
    }

    fn task(remove: bool) -> Task {
        Task { from: "red".into(), to: "blue".into(), bank: None, remove }
    }

    #[tokio::test]
    async fn a_bank_is_copied_verified_and_the_rest_is_said() {
        let two = Two::new(1234);
        let counts = Mutex::new(Vec::new());
        let moved = all_moved(two.clone(), task(true), &|_, done, _| counts.lock().unwrap().push(done)).await.unwrap();
        assert_eq!((moved[0].copy.as_str(), moved[0].chunks, moved[0].sent, moved[0].removed), ("copy of one", 1234, 1234, true));
        assert!(moved[1].left.is_some());
        assert_eq!(*counts.lock().unwrap(), [500, 1000, 1234]);
        assert_eq!(
            two.0.lock().unwrap().banks.iter().map(|(bank, _)| bank.id.as_str()).collect::<Vec<_>>(),
            ["other", "pairs", "copy of one"]
        );
    }

    #[tokio::test]
    async fn one_that_was_broken_off_goes_on_where_it_was() {
        let two = Two::new(1234);
        two.0.lock().unwrap().patience = Some(1);
        assert_eq!(all_moved(two.clone(), task(false), &|_, _, _| {}).await.unwrap_err().code(), Code::Unavailable);
        two.0.lock().unwrap().patience = None;
        let moved = all_moved(two.clone(), task(false), &|_, _, _| {}).await.unwrap();
        assert_eq!((moved[0].chunks, moved[0].sent), (1234, 734));
        let again = all_moved(two, task(false), &|_, _, _| {}).await.unwrap();
        assert_eq!((again[0].sent, &again[0].sha256), (0, &moved[0].sha256));
    }

    #[tokio::test]
    async fn what_was_moved_before_an_error_is_told_beside_it() {
        let two = Two::new(3);
        {
            let mut state = two.0.lock().unwrap();
            let chunks = state.banks[0].1.clone();
            state.banks.push((bank("second", "red", BankKind::Vector), chunks));
            state.patience = Some(1);
        }
        let (moved, ended) = run(two, task(true), &|_, _, _| {}).await;
        let told: Vec<(&str, bool)> = moved.iter().map(|moved| (moved.bank.as_str(), moved.removed)).collect();
        assert_eq!(told, [("one", true), ("pairs", false)]);
        let error = ended.unwrap_err();
        assert!(error.code() == Code::Unavailable && error.message().contains("bank second"), "{error}");
    }

    #[tokio::test]
    async fn a_copys_documents_stay_where_the_original_lists_none() {
        let two = Two::new(3);
        two.0.lock().unwrap().copied = vec![Document { id: "d".into(), ..Document::default() }];
        let moved = all_moved(two, task(true), &|_, _, _| {}).await.unwrap();
        assert_eq!((moved[0].chunks, moved[0].removed), (3, true));
    }

    #[tokio::test]
    async fn a_copy_that_differs_is_told_and_the_original_stays() {
        let two = Two::new(10);
        two.0.lock().unwrap().garbles = true;
        let error = all_moved(two.clone(), task(true), &|_, _, _| {}).await.unwrap_err();
        assert!(error.code() == Code::Aborted && error.message().contains("c00000"), "{error}");
        assert!(two.0.lock().unwrap().banks.iter().any(|(bank, _)| bank.id == "one"));
    }

    #[tokio::test]
    async fn a_bank_with_a_document_that_is_not_inserted_is_not_removed() {
        use DocumentStatus::{Cancelled, Completed, Failed, InProgress};
        for (status, is_copied) in [(InProgress, false), (Failed, true), (Cancelled, true), (Completed, true)] {
            let two = Two::new(1);
            let document = Document { id: "waits".into(), status: status.into(), ..Document::default() };
            two.0.lock().unwrap().documents = vec![document];
            let copied = all_moved(two.clone(), task(false), &|_, _, _| {}).await.unwrap();
            assert_eq!(!copied[0].waits, is_copied, "{status:?}");
            let sent = two.0.lock().unwrap().banks.iter().any(|(bank, chunks)| bank.id == "copy of one" && !chunks.is_empty());
            assert_eq!(sent, is_copied, "{status:?}");
            let removed = all_moved(two.clone(), task(true), &|_, _, _| {}).await.unwrap();
            let stays = two.0.lock().unwrap().banks.iter().any(|(bank, _)| bank.id == "one");
            assert_eq!((removed[0].waits, stays), (status != Completed, status != Completed), "{status:?}");
            assert_eq!(removed[0].left.as_ref().is_some_and(|why| why.contains("\"waits\"")), stays, "{status:?}");
        }
    }

    #[tokio::test]
    async fn what_is_not_there_is_said() {
        let unknown = Task { bank: Some("nobody".into()), ..task(false) };
        assert_eq!(all_moved(Two::new(1), unknown, &|_, _, _| {}).await.unwrap_err().code(), Code::NotFound);
        let same = Task { to: "red".into(), ..task(false) };
        assert_eq!(all_moved(Two::new(1), same, &|_, _, _| {}).await.unwrap_err().field(), Some("to"));
    }
}

#[cfg(test)]
#[cfg(feature = "qdrant")]
mod between_indexes;
