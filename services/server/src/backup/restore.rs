//! Putting an archive's members back: all of it is verified before the first of it is written.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::Read as _,
    path::{Path, PathBuf},
};

use llama_stack_core::{Code, Error, Manifest, Registry, Result, manifest::REMOVED};
use llama_stack_files::Copies;
use llama_stack_memory::index::{BankKey, Index, Indexes, Shape};
use llama_stack_proto::v1::{Chunk, Document};
use llama_stack_store::Restore;
use prost::Message;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    archive::{CHANGED, Contents, open, verify},
    indexes,
    sealed::BackupKey,
    take::{BankOf, Heading},
};
use crate::{Options, assemble};

/// Chunks that an index is given at a time.
const BATCH: usize = 256;
/// Members that wait to be put into the database or an index.
const AHEAD: usize = 2;

/// What was restored.
#[derive(Debug, Serialize)]
pub struct Restored {
    /// The manifest's name, which is also that of the state folder.
    pub name: String,
    /// Seconds since 1970: the moment that the state is of.
    pub of: i64,
    /// By table.
    pub rows: BTreeMap<String, u64>,
    pub banks: u64,
    pub chunks: u64,
    pub files: u64,
    /// Documents that the stack reads again when it starts, because they were changed while the backup was made.
    pub documents_to_read_again: u64,
    /// Documents that are not there any more, because they were deleted while the backup was made.
    pub documents_deleted_meanwhile: u64,
    /// What the backup does not have.
    pub left_out: Vec<String>,
    /// What was there before and could not be deleted.
    pub left_behind: Vec<String>,
}

/// Of an archive's members, what does not go to the files.
enum Piece {
    Rows(Heading, Vec<u8>),
    Bank(BankOf),
    /// Documents of the bank before it that were changed while the backup was made, and what their chunks say of them.
    Changed(HashMap<String, Document>),
    Chunks(Vec<Chunk>),
}

/// A bank, and the provider that has it.
type Kept = (String, BankKey);

/// A bank that is being filled.
struct Filling {
    key: BankKey,
    index: std::sync::Arc<dyn Index>,
    can_read_again: bool,
    /// By document.
    chunks: HashMap<String, u64>,
    changed: HashMap<String, Document>,
}

/// The manifest that is in an archive: as it was written, without secrets.
///
/// # Errors
/// As [`verify`], for what comes before it.
pub fn manifest_of(path: &Path, key: Option<&BackupKey>) -> Result<String> {
    let unreadable = |error| Error::new(Code::DataLoss, "manifest.json cannot be read from the archive").with_source(error);
    let mut archive = open(path, key)?;
    for entry in archive.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        if entry.path().map_err(unreadable)?.as_os_str() == "manifest.json" {
            let mut text = String::new();
            entry.read_to_string(&mut text).map_err(unreadable)?;
            return Ok(text);
        }
    }
    Err(Error::new(Code::DataLoss, "the archive has no manifest.json").with_reason("bad_backup"))
}

/// Fills the database, the banks and the files that a manifest names. With `replace`, what is there is deleted: if that fails half
/// way, the database is what it was, and banks that are in the backup as well have to be restored again.
///
/// # Errors
/// As [`verify`], and as the store's: `FailedPrecondition` it is not empty (`not_empty`), a process has it open (`store_in_use`), the
/// backup is of a newer program (`store_too_new`), or of memory providers that the manifest has not (`no_such_provider`).
pub async fn restore(
    path: PathBuf,
    key: Option<BackupKey>,
    manifest: &Manifest,
    registry: &Registry,
    options: Options,
    replace: bool,
) -> Result<Restored> {
    let archive = (path.clone(), key.clone());
    let contents = tokio::task::spawn_blocking(move || verify(&archive.0, archive.1.as_ref())).await.map_err(broke_off)??;
    let url = assemble::store_url(manifest, &options.home).await?;
    if url.contains(REMOVED) || serde_json::to_string(&manifest.written["providers"]["memory"]).is_ok_and(|text| text.contains(REMOVED)) {
        let message = "the archive's own manifest lacks the secrets that it takes to restore: name yours with --into";
        return Err(Error::failed_precondition(message).with_field("manifest"));
    }
    if manifest.files.s3.is_some() && contents.items("files/") > 0 {
        let message = "the backup has the contents of files, and this manifest keeps them in a bucket: leave out files.s3, or restore one \
                       that was made with the bucket";
        return Err(Error::failed_precondition(message).with_field("files.s3"));
    }
    // Before there is a database.
    if let Some(missing) = contents.memory_providers.iter().find(|id| !manifest.providers.memory.iter().any(|there| there.id == **id)) {
        return Err(no_such_provider(missing));
    }
    // Its lock keeps servers out, so nobody else opens the banks or the files either.
    let mut database = Restore::begin(&url, &contents.migrations, replace).await?;
    let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
    let indexes = indexes(manifest, registry, &options, &tasks, &shutdown).await?;
    if let Some(missing) = contents.memory_providers.iter().find(|id| indexes.get(id).is_none()) {
        // There is one, of another stack's banks.
        return Err(no_such_provider(missing));
    }
    let files = Copies::open(options.home.join(&manifest.name).join("files"))?;
    let (mut restored, kept) = fill((path, key), &contents, &mut database, &indexes, files).await?;
    let replaced = database.replaced().to_vec();
    database.finish().await?;
    // Now that no row names them.
    for (tenant, bank_id, provider) in replaced {
        let key = BankKey { tenant, bank_id };
        match indexes.get(&provider) {
            Some(index) if !kept.contains(&(provider, key.clone())) => {
                if let Err(error) = index.remove(&key).await {
                    restored.left_behind.push(format!("the chunks of bank {}: {}", key.bank_id, error.message()));
                }
            }
            _ => {}
        }
    }
    shutdown.cancel();
    tasks.close();
    tasks.wait().await;
    Ok(Restored { name: manifest.name.clone(), ..restored })
}

fn no_such_provider(id: &str) -> Error {
    let message = format!("the backup has banks of memory provider {id:?}, and the manifest has none of this name that keeps banks itself");
    Error::failed_precondition(message).with_field("manifest").with_reason("no_such_provider")
}

async fn fill(
    (path, key): (PathBuf, Option<BackupKey>),
    contents: &Contents,
    database: &mut Restore,
    indexes: &Indexes,
    files: Copies,
) -> Result<(Restored, HashSet<Kept>)> {
    let (out, mut pieces) = mpsc::channel(AHEAD);
    let reading = tokio::task::spawn_blocking(move || read(&path, key.as_ref(), &files, &out));
    let mut restored = Restored {
        name: String::new(),
        of: contents.created,
        rows: BTreeMap::new(),
        banks: 0,
        chunks: 0,
        files: contents.items("files/"),
        documents_to_read_again: 0,
        documents_deleted_meanwhile: 0,
        left_out: contents.left_out.clone(),
        left_behind: Vec::new(),
    };
    let (mut filling, mut kept) = (None::<Filling>, HashSet::new());
    while let Some(piece) = pieces.recv().await {
        match piece {
            Piece::Rows(heading, lines) => {
                let count = database.insert(&heading.table, &heading.columns, &lines).await?;
                *restored.rows.entry(heading.table).or_default() += count;
            }
            Piece::Bank(of) => {
                settle(database, filling.take(), &mut restored).await?;
                kept.insert((of.provider_id.clone(), BankKey { tenant: of.tenant.clone(), bank_id: of.bank_id.clone() }));
                filling = Some(begin(of, indexes).await?);
                restored.banks += 1;
            }
            Piece::Changed(changed) => {
                let bank = filling.as_mut().ok_or_else(|| Error::new(Code::DataLoss, "the archive has documents of no bank"))?;
                bank.changed = changed;
            }
            Piece::Chunks(chunks) => {
                let bank = filling.as_mut().ok_or_else(|| Error::new(Code::DataLoss, "the archive has chunks of no bank"))?;
                restored.chunks += chunks.len() as u64;
                chunks.iter().for_each(|chunk| *bank.chunks.entry(chunk.document_id.clone()).or_default() += 1);
                let mut chunks = chunks.into_iter().peekable();
                while chunks.peek().is_some() {
                    bank.index.upsert(&bank.key, chunks.by_ref().take(BATCH).collect()).await?;
                }
            }
        }
    }
    settle(database, filling.take(), &mut restored).await?;
    // What it found comes before what is missing because of it.
    reading.await.map_err(broke_off)??;
    Ok((restored, kept))
}

async fn begin(of: BankOf, indexes: &Indexes) -> Result<Filling> {
    let missing = || Error::failed_precondition(format!("the manifest has no memory provider {:?}", of.provider_id));
    let index = indexes.get(&of.provider_id).ok_or_else(missing)?;
    let key = BankKey { tenant: of.tenant, bank_id: of.bank_id };
    // Perhaps of a restore that was cut off, or of a database that was deleted: no row would name it.
    index.remove(&key).await?;
    index.create(&key, &Shape { dimension: of.dimension, keyword: of.keyword }).await?;
    Ok(Filling { key, index, can_read_again: of.can_read_again, chunks: HashMap::new(), changed: HashMap::new() })
}

async fn settle(database: &mut Restore, bank: Option<Filling>, restored: &mut Restored) -> Result<()> {
    let Some(bank) = bank else { return Ok(()) };
    let BankKey { tenant, bank_id } = &bank.key;
    let settled = database.settle(tenant, bank_id, bank.can_read_again, &bank.chunks, &bank.changed).await?;
    restored.documents_to_read_again += settled.read_again;
    restored.documents_deleted_meanwhile += settled.gone;
    Ok(())
}

/// Members in their order; contents of files go to their places at once. Ends early where nobody takes them.
fn read(path: &Path, key: Option<&BackupKey>, files: &Copies, out: &mpsc::Sender<Piece>) -> Result<()> {
    let bad = |what: &str| Error::new(Code::DataLoss, format!("{what} cannot be read from the archive")).with_reason("bad_backup");
    let mut archive = open(path, key)?;
    for entry in archive.entries().map_err(|error| bad("a member").with_source(error))? {
        let mut entry = entry.map_err(|error| bad("a member").with_source(error))?;
        let name = entry.path().map_err(|error| bad("a name").with_source(error))?.display().to_string();
        if let Some(blob) = name.strip_prefix("files/") {
            files.put(blob, &mut entry)?;
            continue;
        }
        let is_wanted = name.starts_with("database/") || name.starts_with("banks/");
        if !is_wanted {
            continue;
        }
        let mut data = Vec::new();
        entry.read_to_end(&mut data).map_err(|error| bad(&name).with_source(error))?;
        let piece = if name.ends_with(".jsonl") {
            let end = data.iter().position(|byte| *byte == b'\n').ok_or_else(|| bad(&name))?;
            let heading = serde_json::from_slice(&data[..end]).map_err(|error| bad(&name).with_source(error))?;
            Piece::Rows(heading, data.split_off(end + 1))
        } else if name.ends_with("/bank.json") {
            Piece::Bank(serde_json::from_slice(&data).map_err(|error| bad(&name).with_source(error))?)
        } else if name.ends_with("/changed.json") {
            // Of an older program, which told their ids only.
            let ids: HashSet<String> = serde_json::from_slice(&data).map_err(|error| bad(&name).with_source(error))?;
            Piece::Changed(ids.into_iter().map(|id| (id, Document::default())).collect())
        } else if name.ends_with(CHANGED) {
            let documents: Vec<Document> = delimited(&data).map_err(|error| bad(&name).with_source(error))?;
            Piece::Changed(documents.into_iter().map(|document| (document.id.clone(), document)).collect())
        } else if name.ends_with(".chunks") {
            Piece::Chunks(delimited(&data).map_err(|error| bad(&name).with_source(error))?)
        } else {
            return Err(bad(&name));
        };
        if out.blocking_send(piece).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn delimited<T: Message + Default>(mut data: &[u8]) -> std::result::Result<Vec<T>, prost::DecodeError> {
    let mut messages = Vec::new();
    while !data.is_empty() {
        messages.push(T::decode_length_delimited(&mut data)?);
    }
    Ok(messages)
}

fn broke_off(error: tokio::task::JoinError) -> Error {
    Error::internal("reading the archive broke off").with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::archive::{Told, Writer};

    #[tokio::test]
    async fn a_member_that_is_nothing_known_is_taken_for_no_chunks() {
        let folder = tempfile::tempdir().unwrap();
        let (out, mut pieces) = mpsc::channel(100);
        let mut writer = Writer::new(out);
        writer.put("banks/000000/000000.other", 1, b"").await.unwrap();
        let told = Told { name: "test".into(), migrations: Vec::new(), memory_providers: Vec::new(), left_out: Vec::new() };
        writer.end(told).await.unwrap();
        let mut archive = Vec::new();
        while let Some(piece) = pieces.recv().await {
            archive.extend(piece.unwrap().data);
        }
        let path = folder.path().join("kept.tar");
        std::fs::write(&path, archive).unwrap();
        let files = Copies::open(folder.path().join("files")).unwrap();
        let (out, _pieces) = mpsc::channel(1);
        let read = tokio::task::spawn_blocking(move || read(&path, None, &files, &out)).await.unwrap();
        let error = read.unwrap_err();
        assert!(error.reason() == Some("bad_backup") && error.message().contains("000000.other"), "{error}");
    }
}
