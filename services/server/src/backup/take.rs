//! Making an archive.

use std::{collections::BTreeSet, sync::Arc};

use llama_stack_core::{Code, Context, Error, EventStream, Result, manifest::without_secrets};
use llama_stack_files::{Copies, Pin};
use llama_stack_memory::{
    banks::shape,
    index::{BankKey, Index, Indexes},
};
use llama_stack_proto::v1::{BackupChunk, Bank, BankKind, Document};
use llama_stack_store::{KeptName, Rows, Snapshot, Store};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::archive::{CHANGED, Told, Writer};

/// Bytes of chunks in one member.
const PIECE: usize = 4 << 20;
/// Pieces that wait for the reader.
const AHEAD: usize = 8;
/// Chunks of one document: all of them at once, so that they are of one version.
const ALL: u32 = u32::MAX >> 1;

/// What a stack keeps, and where.
pub(crate) struct Source {
    pub(crate) name: String,
    /// The manifest, before its variables were expanded.
    pub(crate) written: Value,
    pub(crate) store: Store,
    /// None where their contents lie in a bucket.
    pub(crate) files: Option<Copies>,
    pub(crate) indexes: Indexes,
    /// One archive at a time: each keeps a connection of the store for as long as it is read.
    pub(crate) turn: Arc<Semaphore>,
    pub(crate) tasks: TaskTracker,
    pub(crate) shutdown: CancellationToken,
}

/// Whose bank the chunks beside it are of.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct BankOf {
    pub(super) provider_id: String,
    pub(super) tenant: String,
    pub(super) bank_id: String,
    pub(super) dimension: u32,
    pub(super) keyword: bool,
    /// Whether its documents can be read again from what they were made of. Older archives do not say.
    #[serde(default = "yes")]
    pub(super) can_read_again: bool,
}

fn yes() -> bool {
    true
}

/// The columns of a table's rows, as the first line of each of its members.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Heading {
    pub(super) table: String,
    pub(super) columns: Vec<String>,
}

impl Source {
    /// What is there now, as a stream that goes as fast as it is read. Who stops reading ends the work.
    ///
    /// # Errors
    /// As the snapshot of the store; later ones are in the stream.
    pub(crate) async fn take(self: Arc<Self>, cx: &Context) -> Result<EventStream<BackupChunk>> {
        let turn = self.turn.clone().try_acquire_owned().map_err(|_| {
            let message = "another backup is under way; wait for its end";
            Error::new(Code::ResourceExhausted, message).with_reason("backup_under_way")
        })?;
        let files = self.files.clone();
        // Before the snapshot: what its rows name cannot go from now on.
        let pin = self.tasks.spawn_blocking(move || files.as_ref().map(Copies::pin).transpose()).await;
        let pin = pin.map_err(|error| Error::internal("the files could not be pinned").with_source(error))??;
        let snapshot = cx.within(self.store.snapshot()).await?;
        let (out, chunks) = mpsc::channel(AHEAD);
        self.tasks.clone().spawn(async move {
            let shutdown = self.shutdown.clone();
            let stopping = || Err(Error::unavailable("the stack stops: the backup is not complete"));
            let written = shutdown.run_until_cancelled(self.write(snapshot, Writer::new(out.clone()))).await.unwrap_or_else(stopping);
            self.end(pin).await;
            drop(turn);
            if let Err(error) = written {
                tracing::warn!(error = ?error, "a backup was not completed");
                // Who went away does not hear it.
                let _ = out.send(Err(error)).await;
            }
        });
        Ok(Box::pin(ReceiverStream::new(chunks)))
    }

    async fn end(&self, pin: Option<Pin>) {
        let (Some(files), Some(pin)) = (&self.files, pin) else { return };
        if let Err(error) = files.release(pin, &self.store, &self.tasks).await {
            tracing::warn!(error = ?error, "what was deleted during a backup is removed later");
        }
    }

    async fn write(&self, mut snapshot: Snapshot, mut to: Writer) -> Result<()> {
        let broken = |error| Error::internal("what is written is no JSON").with_source(error);
        let manifest = serde_json::to_vec_pretty(&without_secrets(&self.written)).map_err(broken)?;
        to.put("manifest.json", 1, &manifest).await?;
        let migrations = snapshot.versions().to_vec();
        for (number, table) in snapshot.tables().into_iter().enumerate() {
            let heading = serde_json::to_vec(&Heading { columns: snapshot.columns(&table), table: table.clone() }).map_err(broken)?;
            let (out, mut pieces) = mpsc::channel::<Rows>(1);
            let writing = async {
                let mut number_of_piece = 0;
                while let Some(rows) = pieces.recv().await {
                    let data = [heading.as_slice(), b"\n", &rows.lines].concat();
                    to.put(&format!("database/{number:03}-{table}/{number_of_piece:06}.jsonl"), rows.count, &data).await?;
                    number_of_piece += 1;
                }
                // Dropped here, so that who reads does not wait for who has failed.
                drop(pieces);
                Ok::<_, Error>(())
            };
            let (read, written) = tokio::join!(snapshot.rows(&table, out), writing);
            written.and(read)?;
        }
        let (banks, blobs) = (snapshot.banks().await?, snapshot.blobs().await?);
        // Nothing more is asked of it: the log may be emptied again.
        drop(snapshot);
        let (mut left_out, mut providers) = (Vec::new(), BTreeSet::new());
        for (number, kept) in banks.iter().enumerate() {
            let Some(index) = self.indexes.get(&kept.bank.provider_id) else {
                left_out.push(format!("the chunks of bank {}: provider {} is not of this stack", kept.bank.id, kept.bank.provider_id));
                continue;
            };
            providers.insert(kept.bank.provider_id.clone());
            self.bank(&mut to, number, index.as_ref(), &kept.tenant, &kept.bank, &kept.documents).await?;
        }
        if self.files.is_none() && !blobs.is_empty() {
            left_out.push(format!("the contents of {} files: they lie in a bucket", blobs.len()));
        }
        for (blob, file) in blobs {
            let Some(files) = self.files.clone() else { break };
            let named = blob.clone();
            let read = self.tasks.spawn_blocking(move || files.read(&named)).await;
            let read = read.map_err(|error| Error::internal("a file could not be read").with_source(error))?;
            let (content, bytes) = read.map_err(|error| error.context(format!("{file}: delete it, or put its content back")))?;
            to.copy(&format!("files/{blob}"), content, bytes).await?;
        }
        let memory_providers = providers.into_iter().collect();
        to.end(Told { name: self.name.clone(), migrations, memory_providers, left_out }).await
    }

    /// The chunks of a bank, document by document.
    async fn bank(
        &self,
        to: &mut Writer,
        number: usize,
        index: &dyn Index,
        tenant: &str,
        bank: &Bank,
        documents: &[KeptName],
    ) -> Result<()> {
        let (key, shape) = (BankKey { tenant: tenant.to_owned(), bank_id: bank.id.clone() }, shape(bank));
        let of = BankOf {
            provider_id: bank.provider_id.clone(),
            tenant: key.tenant.clone(),
            bank_id: key.bank_id.clone(),
            dimension: shape.dimension,
            keyword: shape.keyword,
            can_read_again: bank.kind() != BankKind::Vector || !bank.embedding_model.is_empty(),
        };
        let of = serde_json::to_vec(&of).map_err(|error| Error::internal("a bank is no JSON").with_source(error))?;
        to.put(&format!("banks/{number:06}/bank.json"), 1, &of).await?;
        if shape.dimension == 0 && !shape.keyword {
            // Its documents are in the database alone.
            return Ok(());
        }
        let (mut data, mut count, mut piece) = (Vec::new(), 0, 0);
        // What its chunks say of a document whose row may say something else.
        let (mut changed, mut changes) = (Vec::new(), 0);
        for KeptName { id: document, revision, version } in documents {
            let mut chunks = match index.scroll(&key, Some(document), None, ALL, true).await {
                // Deleted since.
                Err(error) if error.code() == Code::NotFound => break,
                chunks => chunks.map_err(|error| error.context(&bank.id))?,
            };
            // A new revision is written before its chunks are: what is of none but this one has been so all the time.
            if self.store.document_revision(tenant, &bank.id, document).await?.as_ref() != Some(revision) {
                let said = chunks.last().map(|chunk| (chunk.title.clone(), chunk.attributes.clone())).unwrap_or_default();
                let (id, chunk_count) = (document.clone(), chunks.len() as u32);
                append(&Document { id, title: said.0, attributes: said.1, chunk_count, ..Document::default() }, &mut changed)?;
                changes += 1;
                if version.is_empty() {
                    // Those that its row vouches for say nothing of a version, and there may be nothing to read it again from.
                    chunks.iter_mut().for_each(|chunk| chunk.revision.clear());
                }
            }
            for chunk in chunks {
                append(&chunk, &mut data)?;
                count += 1;
                if data.len() >= PIECE {
                    to.put(&format!("banks/{number:06}/{piece:06}.chunks"), count, &data).await?;
                    data.clear();
                    (count, piece) = (0, piece + 1);
                }
            }
        }
        if count > 0 {
            to.put(&format!("banks/{number:06}/{piece:06}.chunks"), count, &data).await?;
        }
        if changes > 0 {
            to.put(&format!("banks/{number:06}/{CHANGED}"), changes, &changed).await?;
        }
        Ok(())
    }
}

/// Each with its length before it, as protobuf's own tools write messages in a row.
fn append(message: &impl prost::Message, data: &mut Vec<u8>) -> Result<()> {
    message.encode_length_delimited(data).map_err(|error| Error::internal("a chunk or a document cannot be written").with_source(error))
}
