//! `Memory` over three parts: tables in the store, chunks in an index, text from a parser.
//!
//! ```text
//! InsertDocuments ─ source ─ Parse ─ chunk ─ embed ─┬─ Index     chunks, vectors, words
//!                                                   └─ Store     banks, documents, ingestions
//! Query ─ rewrite ─ embed ─ Index::search, per query and bank ─ merge ─ rerank ─ MMR ─ budget
//! ```
//!
//! Whoever asks sees the banks of their own tenant that are theirs or shared, and those of all its people if they are an
//! admin. Another's bank does not exist. What was acknowledged is in the store and in the index, durably.

mod access;
mod background;
mod chunks;
mod content;
mod documents;
mod embed;
mod ingest;
mod kept;
mod locks;
mod page;
mod query;
mod rank;
mod rewrite;
mod source;
mod tokens;
mod valid;
mod worker;

pub use kept::shape;
pub(crate) use query::{DEFAULT_TOP_K, MAX_BANKS, check_query, fitting, mode};
pub(crate) use rank::cosine;

use std::sync::Arc;

use llama_stack_core::{Context, Deps, Error, EventStream, Files, Inference, Memory, Result, forget::Keepers};
use llama_stack_documents::Parse;
use llama_stack_proto::v1::{
    Bank, CancelIngestionRequest, CreateBankRequest, DeleteBankRequest, DeleteBankResponse, DeleteDocumentsRequest,
    DeleteDocumentsResponse, Document, GetBankRequest, GetDocumentRequest, GetIngestionRequest, Ingestion, InsertChunksRequest,
    InsertChunksResponse, InsertDocumentsRequest, InsertDocumentsResponse, ListBanksRequest, ListBanksResponse, ListChunksRequest,
    ListChunksResponse, ListDocumentsRequest, ListDocumentsResponse, QueryRequest, QueryResponse, UpdateBankRequest, UpdateDocumentRequest,
};
use llama_stack_store::Store;
use serde::Deserialize;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    index::{Index, Indexes},
    plain::PlainText,
};

/// What banks are made of.
pub struct BanksParts {
    pub store: Store,
    pub index: Arc<dyn Index>,
    /// Without it, callers bring the vectors.
    pub inference: Option<Arc<dyn Inference>>,
    /// Without it, documents are inserted by their text or bytes only.
    pub files: Option<Arc<dyn Files>>,
    pub parse: Arc<dyn Parse>,
    /// Those who may have kept what models were told of a document.
    pub keepers: Keepers,
    /// In the manifest. Banks belong to one provider.
    pub provider_id: String,
    pub config: Config,
    pub tasks: TaskTracker,
    pub shutdown: CancellationToken,
}

/// What every provider that keeps banks can be told.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The model of vector banks that name none. Default: the stack's only embedding model, if there is one.
    pub embedding_model: String,
    /// The chat model that writes the lines of `contextual` chunks.
    pub contextual_model: String,
    /// The largest document. Default 64 MiB.
    pub max_document_bytes: Option<u64>,
    /// What the documents of all banks of a tenant may have together, without their vectors. Default: no limit.
    pub max_tenant_bytes: Option<u64>,
}

/// The whole of `Memory` over an [`Index`]. Cheap to clone.
#[derive(Clone)]
pub struct Banks(Arc<Inner>);

struct Inner {
    parts: BanksParts,
    locks: locks::Locks,
    running: background::Running,
    worker: worker::Worker,
}

impl std::ops::Deref for Banks {
    type Target = BanksParts;

    fn deref(&self) -> &BanksParts {
        &self.0.parts
    }
}

impl BanksParts {
    /// What a factory of a provider has: its files and its parser are those that the server hands on, else none and plain
    /// text alone.
    ///
    /// # Errors
    /// `FailedPrecondition` in a stack without a store.
    pub fn new(index: Arc<dyn Index>, config: Config, deps: &Deps) -> Result<Self> {
        let store = deps.extensions.get::<Store>().cloned();
        let parse = deps.extensions.get::<Arc<dyn Parse>>().cloned();
        if let Some(indexes) = deps.extensions.get::<Indexes>() {
            indexes.note(&deps.provider_id, index.clone());
        }
        Ok(Self {
            store: store.ok_or_else(|| Error::failed_precondition("banks need the stack's store, and there is none"))?,
            index,
            inference: deps.inference.clone(),
            files: deps.extensions.get::<Arc<dyn Files>>().cloned(),
            parse: parse.unwrap_or_else(|| Arc::new(PlainText)),
            keepers: deps.extensions.get::<Keepers>().cloned().unwrap_or_default(),
            provider_id: deps.provider_id.clone(),
            config,
            tasks: deps.tasks.clone(),
            shutdown: deps.shutdown.clone(),
        })
    }
}

impl Banks {
    /// Goes on with what a crash cut off, and from now on deletes what expires, in the background.
    ///
    /// # Errors
    /// Those of the store, which is asked what there is to go on with.
    pub async fn new(parts: BanksParts) -> Result<Self> {
        let banks = Self(Arc::new(Inner {
            parts,
            locks: locks::Locks::default(),
            running: background::Running::default(),
            worker: worker::Worker::default(),
        }));
        banks.end_ingestions().await?;
        banks.resume().await?;
        banks.sweep();
        banks.keep_worker();
        Ok(banks)
    }
}

#[async_trait::async_trait]
impl Memory for Banks {
    async fn create_bank(&self, cx: &Context, request: CreateBankRequest) -> Result<Bank> {
        cx.within(self.create(cx, request)).await
    }

    async fn get_bank(&self, cx: &Context, request: GetBankRequest) -> Result<Bank> {
        cx.within(self.get(cx, &request)).await
    }

    async fn update_bank(&self, cx: &Context, request: UpdateBankRequest) -> Result<Bank> {
        cx.within(self.update(cx, request)).await
    }

    async fn list_banks(&self, cx: &Context, request: ListBanksRequest) -> Result<ListBanksResponse> {
        cx.within(self.list(cx, request)).await
    }

    async fn delete_bank(&self, cx: &Context, request: DeleteBankRequest) -> Result<DeleteBankResponse> {
        cx.within(self.delete(cx, &request.id)).await
    }

    async fn insert_documents(&self, cx: &Context, request: InsertDocumentsRequest) -> Result<InsertDocumentsResponse> {
        cx.within(self.insert(cx, request)).await
    }

    async fn insert_chunks(&self, cx: &Context, request: InsertChunksRequest) -> Result<InsertChunksResponse> {
        cx.within(self.insert_ready(cx, request)).await
    }

    async fn get_document(&self, cx: &Context, request: GetDocumentRequest) -> Result<Document> {
        cx.within(self.document(cx, request)).await
    }

    async fn list_documents(&self, cx: &Context, request: ListDocumentsRequest) -> Result<ListDocumentsResponse> {
        cx.within(self.documents(cx, request)).await
    }

    async fn delete_documents(&self, cx: &Context, request: DeleteDocumentsRequest) -> Result<DeleteDocumentsResponse> {
        cx.within(self.remove_documents(cx, request)).await
    }

    async fn query(&self, cx: &Context, request: QueryRequest) -> Result<QueryResponse> {
        cx.within(self.search(cx, request)).await
    }

    async fn update_document(&self, cx: &Context, request: UpdateDocumentRequest) -> Result<Document> {
        cx.within(self.change_document(cx, request)).await
    }

    async fn list_chunks(&self, cx: &Context, request: ListChunksRequest) -> Result<ListChunksResponse> {
        cx.within(self.scroll(cx, request)).await
    }

    async fn get_ingestion(&self, cx: &Context, request: GetIngestionRequest) -> Result<Ingestion> {
        cx.within(self.ingestion(cx, &request.bank_id, &request.id)).await
    }

    async fn cancel_ingestion(&self, cx: &Context, request: CancelIngestionRequest) -> Result<Ingestion> {
        cx.within(self.cancel(cx, &request.bank_id, &request.id)).await
    }

    async fn watch_ingestion(&self, cx: &Context, request: GetIngestionRequest) -> Result<EventStream<Ingestion>> {
        cx.within(self.watch(cx, request)).await
    }
}
