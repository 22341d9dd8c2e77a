//! From one real index to the other and back.

use super::*;
use llama_stack_core::{Context, Deps};
use llama_stack_proto::v1::{
    BankKind, ContentPart, DeleteDocumentsRequest, GetDocumentRequest, ListDocumentsRequest, QueryRequest, SearchMode,
    UpdateDocumentRequest, content_part::Part, document::Content,
};
use llama_stack_store::{Durability, Store};

fn chunk(n: u32) -> Chunk {
    let text = |text: &str| Value { value: Some(Is::Text(text.to_owned())) };
    let attributes = [("lang".to_owned(), text("en")), ("year".to_owned(), Value { value: Some(Is::Number(f64::from(n) / 3.0)) })];
    Chunk {
        id: format!("d{}#{}", n % 7, n),
        document_id: format!("d{}", n % 7),
        text: format!("passage {n}"),
        vector: vec![n as f32 + 1.0, 2.0, -1.0],
        attributes: attributes.into(),
        position: Some(Position { page: n, line_start: 1, line_end: 2, heading: "heading".into() }),
        index: n,
        title: "a title".into(),
        ..Chunk::default()
    }
}

/// A stack with a provider of each kind.
async fn both(folder: &std::path::Path) -> Arc<dyn Memory> {
    let store = Store::open("sqlite::memory:", Durability::Process).await.unwrap();
    let registry = crate::registry::registry();
    let mut providers: Vec<(String, Arc<dyn Memory>)> = Vec::new();
    for (id, kind) in [("sqlite", "inline::sqlite"), ("edge", "inline::qdrant-edge")] {
        let mut deps = Deps::new(folder);
        deps.provider_id = id.to_owned();
        deps.extensions.insert(store.clone());
        providers.push((id.to_owned(), registry.memory.build(kind, serde_json::json!({}), deps).await.unwrap()));
    }
    Arc::new(llama_stack_memory::Router::new(providers))
}

fn go(from: &str, to: &str) -> Task {
    Task { from: from.into(), to: to.into(), bank: None, remove: true }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bank_goes_to_qdrant_and_back_and_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let memory = both(folder.path()).await;
    let create =
        CreateBankRequest { name: "papers".into(), kind: BankKind::Vector.into(), embedding_dimension: 3, ..CreateBankRequest::default() };
    let bank = memory.create_bank(&Context::default(), create).await.unwrap();
    assert_eq!(bank.provider_id, "sqlite");
    let (mut came, mut expires) = (llama_stack_core::ids::now(), llama_stack_core::ids::now());
    came.seconds -= 86_400;
    expires.seconds += 86_400;
    let known = Document {
        id: "d3".into(),
        title: "a title".into(),
        content: Some(Content::FileId("file-1".into())),
        created: Some(came),
        expires: Some(expires),
        ..Document::default()
    };
    let request = InsertChunksRequest {
        bank_id: bank.id.clone(),
        chunks: (0..1_200).map(chunk).collect(),
        documents: vec![known.clone()],
        ..InsertChunksRequest::default()
    };
    assert!(memory.insert_chunks(&Context::default(), request).await.unwrap().failures.is_empty());
    let there = all_moved(memory.clone(), go("sqlite", "edge"), &|_, _, _| {}).await.unwrap();
    assert_eq!((there[0].chunks, there[0].sent, there[0].removed), (1_200, 1_200, true));
    let query = QueryRequest {
        bank_ids: vec![there[0].copy.clone()],
        text: "passage 77".into(),
        mode: SearchMode::Keyword.into(),
        ..QueryRequest::default()
    };
    let found = memory.query(&Context::default(), query).await.unwrap().chunks;
    assert_eq!(found[0].chunk.as_ref().unwrap().index, 77);
    let back = all_moved(memory.clone(), go("edge", "sqlite"), &|_, _, _| {}).await.unwrap();
    assert_eq!((&back[0].sha256, back[0].chunks), (&there[0].sha256, 1_200));
    // Of a document nothing is lost on the way, and a bank stays its owner's.
    let request = GetDocumentRequest { bank_id: back[0].copy.clone(), document_id: "d3".into(), ..GetDocumentRequest::default() };
    let document = memory.get_document(&Context::default(), request).await.unwrap();
    assert_eq!((document.created, document.expires, &document.content), (known.created, known.expires, &known.content));
    assert_eq!(super::super::banks(&memory).await.unwrap()[0].owner, bank.owner);
}

/// Longer than any message may be that brings it with its chunks; and a run that was broken off in the middle of it.
#[tokio::test(flavor = "multi_thread")]
async fn long_sources_go_part_by_part() {
    let folder = tempfile::tempdir().unwrap();
    let memory = both(folder.path()).await;
    let served = llama_stack_tests::served::memory(memory.clone()).await;
    let create =
        CreateBankRequest { name: "long".into(), kind: BankKind::Vector.into(), embedding_dimension: 3, ..CreateBankRequest::default() };
    let bank = memory.create_bank(&Context::default(), create).await.unwrap();
    // Where a part would end stands a letter of two bytes.
    let text = format!("x{}", "ä".repeat(20 << 20));
    let data: Vec<u8> = (0..36_u32 << 20).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let documents: Vec<Document> = [("d0", Content::Text(text)), ("d1", Content::Data(data)), ("d2", Content::Text("short".into()))]
        .map(|(id, content)| Document {
            id: id.into(),
            sha256: hex::encode(Sha256::digest(bytes_of(&content))),
            content: Some(content),
            ..Document::default()
        })
        .into();
    for (document, n) in documents.iter().zip(0..) {
        let chunks = vec![chunk(n)];
        let request =
            InsertChunksRequest { bank_id: bank.id.clone(), chunks, documents: vec![document.clone()], ..InsertChunksRequest::default() };
        assert!(memory.insert_chunks(&Context::default(), request).await.unwrap().failures.is_empty());
    }
    let there = all_moved(served.client.clone(), go("sqlite", "edge"), &|_, _, _| {}).await.unwrap();
    let copy = &there[0].copy;
    for document in &documents {
        let request = GetDocumentRequest { bank_id: copy.clone(), document_id: document.id.clone(), ..GetDocumentRequest::default() };
        let copied = memory.get_document(&Context::default(), request).await.unwrap();
        assert!(copied.content == document.content && copied.sha256 == document.sha256, "{} is not the same", document.id);
    }
    // As a run leaves it that ended after the first part: the next goes on with it, even if the original is to be removed.
    let begun = CreateBankRequest {
        metadata: [(ORIGIN.to_owned(), copy.clone())].into(),
        ..like(&super::super::banks(&memory).await.unwrap()[0], "sqlite")
    };
    let begun = memory.create_bank(&Context::default(), begun).await.unwrap();
    let known = Document { content: None, bytes: 36 << 20, ..documents[1].clone() };
    let data = bytes_of(documents[1].content.as_ref().unwrap());
    let part = ContentPart { document_id: "d1".into(), offset: 0, part: Some(Part::Data(data[..AT_ONCE].to_vec())) };
    let request =
        InsertChunksRequest { bank_id: begun.id.clone(), chunks: vec![chunk(1)], documents: vec![known], content_parts: vec![part] };
    assert!(memory.insert_chunks(&Context::default(), request).await.unwrap().failures.is_empty());
    let get = || GetDocumentRequest { bank_id: begun.id.clone(), document_id: "d1".into(), ..GetDocumentRequest::default() };
    assert_eq!(memory.get_document(&Context::default(), get()).await.unwrap().sha256, "", "it is not complete");
    let back = all_moved(served.client.clone(), go("edge", "sqlite"), &|_, _, _| {}).await.unwrap();
    assert_eq!((&back[0].copy, back[0].sent, &back[0].sha256), (&begun.id, 2, &there[0].sha256));
    let copied = memory.get_document(&Context::default(), get()).await.unwrap();
    assert!(copied.content == documents[1].content && copied.sha256 == documents[1].sha256);
}

/// Chunks that it has no more are gone, and a source for which there was no room has it.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_replaced_between_two_runs_is_copied_anew() {
    let folder = tempfile::tempdir().unwrap();
    let memory = both(folder.path()).await;
    let create =
        CreateBankRequest { name: "papers".into(), kind: BankKind::Vector.into(), embedding_dimension: 3, ..CreateBankRequest::default() };
    let bank = memory.create_bank(&Context::default(), create).await.unwrap();
    let insert = async |content: &str, chunks: Vec<Chunk>| {
        let sha256 = hex::encode(Sha256::digest(content));
        let known = Document { id: "d1".into(), content: Some(Content::Text(content.into())), sha256, ..Document::default() };
        let request = InsertChunksRequest { bank_id: bank.id.clone(), chunks, documents: vec![known], ..InsertChunksRequest::default() };
        assert!(memory.insert_chunks(&Context::default(), request).await.unwrap().failures.is_empty());
    };
    insert("short", vec![chunk(1), chunk(8)]).await;
    let stays = || Task { remove: false, ..go("sqlite", "edge") };
    let first = all_moved(memory.clone(), stays(), &|_, _, _| {}).await.unwrap();
    let gone = DeleteDocumentsRequest { bank_id: bank.id.clone(), document_ids: vec!["d1".into()], ..DeleteDocumentsRequest::default() };
    memory.delete_documents(&Context::default(), gone).await.unwrap();
    insert(&"long".repeat(100), vec![chunk(1)]).await;
    let second = all_moved(memory.clone(), stays(), &|_, _, _| {}).await.unwrap();
    assert_eq!((&second[0].copy, second[0].chunks, second[0].sent), (&first[0].copy, 1, 1));
    let request = GetDocumentRequest { bank_id: second[0].copy.clone(), document_id: "d1".into(), ..GetDocumentRequest::default() };
    let copied = memory.get_document(&Context::default(), request).await.unwrap();
    assert_eq!(copied.content, Some(Content::Text("long".repeat(100))));
    let third = all_moved(memory.clone(), stays(), &|_, _, _| {}).await.unwrap();
    assert_eq!((third[0].sent, &third[0].sha256), (0, &second[0].sha256));
    // Whoever wrote to the copy meanwhile does not lose it to the original, nor the original to it.
    let other = Content::Text("written to the copy".into());
    let sha256 = hex::encode(Sha256::digest(bytes_of(&other)));
    let known = Document { id: "d1".into(), content: Some(other.clone()), sha256, ..Document::default() };
    let copy = third[0].copy.clone();
    let gone = DeleteDocumentsRequest { bank_id: copy.clone(), document_ids: vec!["d1".into()], ..DeleteDocumentsRequest::default() };
    memory.delete_documents(&Context::default(), gone).await.unwrap();
    let request =
        InsertChunksRequest { bank_id: copy.clone(), chunks: vec![chunk(1)], documents: vec![known], ..InsertChunksRequest::default() };
    memory.insert_chunks(&Context::default(), request).await.unwrap();
    let refused = all_moved(memory.clone(), go("sqlite", "edge"), &|_, _, _| {}).await.unwrap_err();
    assert_eq!(refused.reason(), Some("copy_differs"), "{refused}");
    let request = GetDocumentRequest { bank_id: copy, document_id: "d1".into(), ..GetDocumentRequest::default() };
    assert_eq!(memory.get_document(&Context::default(), request).await.unwrap().content, Some(other));
}

/// Title and attributes are a document's own, beside those of its chunks; and what is in the copy alone keeps no run from its end.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_renamed_or_deleted_between_two_runs_is_so_in_the_copy() {
    let folder = tempfile::tempdir().unwrap();
    let memory = both(folder.path()).await;
    let create =
        CreateBankRequest { name: "papers".into(), kind: BankKind::Vector.into(), embedding_dimension: 3, ..CreateBankRequest::default() };
    let bank = memory.create_bank(&Context::default(), create).await.unwrap();
    let known = |id: &str| Document {
        id: id.into(),
        title: "before".into(),
        content: Some(Content::Text(id.into())),
        sha256: hex::encode(Sha256::digest(id)),
        ..Document::default()
    };
    let request = InsertChunksRequest {
        bank_id: bank.id.clone(),
        chunks: vec![chunk(1), chunk(2)],
        documents: vec![known("d1"), known("d2")],
        ..InsertChunksRequest::default()
    };
    assert!(memory.insert_chunks(&Context::default(), request).await.unwrap().failures.is_empty());
    let stays = || Task { remove: false, ..go("sqlite", "edge") };
    let copy = all_moved(memory.clone(), stays(), &|_, _, _| {}).await.unwrap()[0].copy.clone();
    // What the copy holds by now, once a run that would remove the original has refused to, and one that would not has ended.
    let after = async || {
        let refused = all_moved(memory.clone(), go("sqlite", "edge"), &|_, _, _| {}).await.unwrap_err();
        assert_eq!(refused.reason(), Some("copy_differs"), "{refused}");
        let moved = all_moved(memory.clone(), stays(), &|_, _, _| {}).await.unwrap();
        let request = ListDocumentsRequest { bank_id: copy.clone(), ..ListDocumentsRequest::default() };
        let there = memory.list_documents(&Context::default(), request).await.unwrap().documents;
        let there: Vec<(String, String, bool)> =
            there.into_iter().map(|document| (document.id, document.title, document.attributes.contains_key("new"))).collect();
        (moved[0].chunks, moved[0].sent, there)
    };
    let of = |id: &str, title: &str, is_new: bool| (id.to_owned(), title.to_owned(), is_new);
    let rename = UpdateDocumentRequest {
        bank_id: bank.id.clone(),
        document_id: "d1".into(),
        attributes: [("new".to_owned(), Value { value: Some(Is::Boolean(true)) })].into(),
        title: Some("after".into()),
    };
    memory.update_document(&Context::default(), rename).await.unwrap();
    assert_eq!(after().await, (2, 1, vec![of("d1", "after", true), of("d2", "before", false)]));
    for (gone, left) in [("d1", vec![of("d2", "before", false)]), ("d2", Vec::new())] {
        let request =
            DeleteDocumentsRequest { bank_id: bank.id.clone(), document_ids: vec![gone.into()], ..DeleteDocumentsRequest::default() };
        memory.delete_documents(&Context::default(), request).await.unwrap();
        assert_eq!(after().await, (left.len() as u64, 0, left));
    }
    let removed = all_moved(memory.clone(), go("sqlite", "edge"), &|_, _, _| {}).await.unwrap();
    assert!(removed[0].removed);
}
