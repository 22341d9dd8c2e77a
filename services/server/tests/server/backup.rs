//! What a backup has of documents that are changed while it is made.

use futures::StreamExt as _;
use llama_stack_core::{Context, ids};
use llama_stack_memory::{
    SqliteIndex,
    index::{BankKey, Index as _},
};
use llama_stack_proto::v1::{
    BackupRequest, BankKind, Chunk, CreateBankRequest, Document, DocumentStatus, InsertChunksRequest, InsertDocumentsRequest,
    UpdateDocumentRequest, document::Content,
};
use llama_stack_server::{Stack, backup};
use llama_stack_store::{Durability, Store};
use tempfile::TempDir;

use crate::{
    client::{manifest, options},
    scripted::Script,
};

const BANKS: &str = "  memory:\n    - { id: banks, type: inline::sqlite }\n";

/// One that has its source is read again; of one that has not, the row says what its chunks say.
#[tokio::test(flavor = "multi_thread")]
async fn documents_that_are_renamed_while_it_is_made_agree_with_their_chunks() {
    let (home, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (cx, registry) = (Context::default(), Script::default().registry());
    let stack = Stack::build(manifest(BANKS), &registry, options(&home)).await.unwrap();
    let bank = |kind: BankKind| CreateBankRequest { name: "docs".into(), kind: kind.into(), ..CreateBankRequest::default() };
    // More than is written before it is read: so all of the chunks are read after what follows.
    let bulk = stack.memory.create_bank(&cx, bank(BankKind::KeyValue)).await.unwrap();
    let document = Document { id: "bulk".into(), content: Some(Content::Data(vec![b'x'; 8 << 20])), ..Document::default() };
    let request = InsertDocumentsRequest { bank_id: bulk.id, documents: vec![document], ..InsertDocumentsRequest::default() };
    assert!(stack.memory.insert_documents(&cx, request).await.unwrap().failures.is_empty());
    let bank = stack.memory.create_bank(&cx, bank(BankKind::Keyword)).await.unwrap();
    let own =
        CreateBankRequest { name: "own".into(), kind: BankKind::Vector.into(), embedding_dimension: 2, ..CreateBankRequest::default() };
    let own = stack.memory.create_bank(&cx, own).await.unwrap();
    let chunk = |document: &str| Chunk {
        id: format!("{document}#0"),
        document_id: document.into(),
        text: "a word".into(),
        title: "before".into(),
        ..Chunk::default()
    };
    let source = Some(Content::Text("a word".into()));
    let kept = Document { id: "kept".into(), title: "before".into(), content: source, created: Some(ids::now()), ..Document::default() };
    let chunks = vec![chunk("kept"), chunk("bare"), chunk("same")];
    let request = InsertChunksRequest { bank_id: bank.id.clone(), chunks, documents: vec![kept.clone()], ..InsertChunksRequest::default() };
    assert!(stack.memory.insert_chunks(&cx, request).await.unwrap().failures.is_empty());
    // Its callers make the vectors, so nobody else can read it again.
    let chunks = vec![Chunk { vector: vec![1.0, 0.0], ..chunk("kept") }];
    let request = InsertChunksRequest { bank_id: own.id.clone(), chunks, documents: vec![kept], ..InsertChunksRequest::default() };
    assert!(stack.memory.insert_chunks(&cx, request).await.unwrap().failures.is_empty());

    let mut pieces = stack.info.backup(&cx, BackupRequest {}).await.unwrap();
    for (bank, id) in [(&bank, "kept"), (&bank, "bare"), (&own, "kept")] {
        let (bank_id, document_id, title) = (bank.id.clone(), id.to_owned(), Some("after".to_owned()));
        let request = UpdateDocumentRequest { bank_id, document_id, title, ..UpdateDocumentRequest::default() };
        assert_eq!(stack.memory.update_document(&cx, request).await.unwrap().title, "after");
    }
    // As if a text had been inserted in its place.
    let index = SqliteIndex::open(&home.path().join("test/memory/banks")).await.unwrap();
    let later = Chunk { title: "after".into(), revision: "rev_later".into(), ..chunk("bare") };
    index.upsert(&BankKey { tenant: cx.tenant().to_owned(), bank_id: bank.id.clone() }, vec![later]).await.unwrap();
    let mut archive = Vec::new();
    while let Some(piece) = pieces.next().await {
        archive.extend(piece.unwrap().data);
    }
    let file = home.path().join("kept.tar");
    std::fs::write(&file, archive).unwrap();
    // Older programs would take its list of changed documents for chunks.
    assert_eq!(backup::verify(&file, None).unwrap().format, 2);

    let restored = backup::restore(file, None, &manifest(BANKS), &registry, options(&elsewhere), false).await.unwrap();
    assert_eq!((restored.chunks, restored.documents_to_read_again, restored.documents_deleted_meanwhile), (4, 1, 0));
    let folder = elsewhere.path().join("test");
    let store = Store::open(&format!("sqlite://{}", folder.join("state.db").display()), Durability::Process).await.unwrap();
    let index = SqliteIndex::open(&folder.join("memory/banks")).await.unwrap();
    for (bank, id, title) in [(&bank, "bare", "after"), (&bank, "same", "before"), (&own, "kept", "after")] {
        let key = BankKey { tenant: cx.tenant().to_owned(), bank_id: bank.id.clone() };
        let kept = store.get_document(cx.tenant(), &bank.id, id).await.unwrap();
        let (row, chunks) = (kept.document, index.scroll(&key, Some(id), None, 10, false).await.unwrap());
        assert_eq!(chunks[0].revision, kept.version, "{id} is not found");
        assert_eq!((row.title.as_str(), row.chunk_count, chunks[0].title.as_str()), (title, 1, title), "{id}");
        assert_eq!(row.status(), DocumentStatus::Completed, "{id}");
    }
    store.close().await;
}

/// A bank of a provider that the manifest has not is told before there is a database.
#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_refused_leaves_nothing() {
    let (home, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let (cx, registry) = (Context::default(), Script::default().registry());
    let stack = Stack::build(manifest(BANKS), &registry, options(&home)).await.unwrap();
    let bank = CreateBankRequest { name: "docs".into(), kind: BankKind::Keyword.into(), ..CreateBankRequest::default() };
    stack.memory.create_bank(&cx, bank).await.unwrap();
    let mut archive = Vec::new();
    let mut pieces = stack.info.backup(&cx, BackupRequest {}).await.unwrap();
    while let Some(piece) = pieces.next().await {
        archive.extend(piece.unwrap().data);
    }
    let file = home.path().join("kept.tar");
    std::fs::write(&file, archive).unwrap();
    assert_eq!(backup::verify(&file, None).unwrap().format, 1);
    let other = manifest(&BANKS.replace("id: banks", "id: others"));
    let refused = backup::restore(file, None, &other, &registry, options(&elsewhere), false).await.unwrap_err();
    assert_eq!(refused.reason(), Some("no_such_provider"), "{refused}");
    assert!(!elsewhere.path().join("test/state.db").exists(), "a database was made");
}
