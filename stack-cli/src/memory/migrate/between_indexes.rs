//! From one real index to the other and back.

use super::*;
use llama_stack_core::{Context, Deps};
use llama_stack_proto::v1::{BankKind, QueryRequest, SearchMode, document::Content};
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
        file_id: String::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bank_goes_to_qdrant_and_back_and_is_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open("sqlite::memory:", Durability::Process).await.unwrap();
    let registry = crate::registry::registry();
    let mut providers: Vec<(String, Arc<dyn Memory>)> = Vec::new();
    for (id, kind) in [("sqlite", "inline::sqlite"), ("edge", "inline::qdrant-edge")] {
        let mut deps = Deps::new(folder.path());
        deps.provider_id = id.to_owned();
        deps.extensions.insert(store.clone());
        providers.push((id.to_owned(), registry.memory.build(kind, serde_json::json!({}), deps).await.unwrap()));
    }
    let memory: Arc<dyn Memory> = Arc::new(llama_stack_memory::Router::new(providers));
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
    let request = InsertChunksRequest { bank_id: bank.id.clone(), chunks: (0..1_200).map(chunk).collect(), documents: vec![known.clone()] };
    assert!(memory.insert_chunks(&Context::default(), request).await.unwrap().failures.is_empty());
    let go = |from: &str, to: &str| Task { from: from.into(), to: to.into(), bank: None, remove: true };
    let there = run(memory.clone(), go("sqlite", "edge"), &|_, _, _| {}).await.unwrap();
    assert_eq!((there[0].chunks, there[0].sent, there[0].removed), (1_200, 1_200, true));
    let query = QueryRequest {
        bank_ids: vec![there[0].copy.clone()],
        text: "passage 77".into(),
        mode: SearchMode::Keyword.into(),
        ..QueryRequest::default()
    };
    let found = memory.query(&Context::default(), query).await.unwrap().chunks;
    assert_eq!(found[0].chunk.as_ref().unwrap().index, 77);
    let back = run(memory.clone(), go("edge", "sqlite"), &|_, _, _| {}).await.unwrap();
    assert_eq!((&back[0].sha256, back[0].chunks), (&there[0].sha256, 1_200));
    // Of a document nothing is lost on the way, and a bank stays its owner's.
    let request = GetDocumentRequest { bank_id: back[0].copy.clone(), document_id: "d3".into() };
    let document = memory.get_document(&Context::default(), request).await.unwrap();
    assert_eq!((document.created, document.expires, &document.content), (known.created, known.expires, &known.content));
    assert_eq!(super::super::banks(&memory).await.unwrap()[0].owner, bank.owner);
}
