//! `inline::sqlite`: every promise of `Memory`, in process and over a socket; and what is its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod banks;

use std::{
    path::Path,
    sync::{Arc, atomic::Ordering},
};

use banks::{FILES, Stand};
use futures::StreamExt as _;
use llama_stack_core::{Code, Context, Memory};
use llama_stack_memory::{
    Router, SqliteIndex,
    index::{BankKey, Index as _},
};
use llama_stack_proto::v1::{
    Bank, CancelIngestionRequest, Chunk, ContentPart, DeleteDocumentsRequest, Document, DocumentStatus, GetDocumentRequest,
    GetIngestionRequest, Ingestion, InsertChunksRequest, InsertDocumentsRequest, ListChunksRequest, QueryRequest, SearchMode,
    UpdateDocumentRequest, content_part::Part, document::Content,
};
use llama_stack_tests::{conformance::memory, served};
use serde_json::json;
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tokio::time::timeout;

#[tokio::test(flavor = "multi_thread")]
async fn keeps_every_promise() {
    let stand = Stand::new().await;
    memory::all(stand.memory.clone()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_every_promise_behind_the_router_and_over_a_socket() {
    let stand = Stand::new().await;
    let router: Arc<dyn Memory> = Arc::new(Router::new(vec![("sqlite".into(), stand.memory.clone())]));
    let served = served::memory(router).await;
    memory::all(served.client.clone()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_searches_find_nothing_foreign() {
    let stand = Stand::new().await;
    memory::isolation::nothing_foreign_is_found(stand.memory.clone(), 10_000).await;
}

/// Where all scores are cosines of one model, whose bank it is makes no difference to what is found.
#[tokio::test(flavor = "multi_thread")]
async fn banks_of_two_providers_are_searched_as_two_of_one() {
    let (one, other, both) = (Stand::new().await, Stand::new().await, Stand::new().await);
    let providers = vec![("one".into(), one.memory.clone()), ("other".into(), other.memory.clone())];
    let (router, cx): (Arc<dyn Memory>, Context) = (Arc::new(Router::new(providers)), memory::somebody());
    let halves = [
        vec![memory::text("cat", "the cat purrs on the sofa"), memory::text("dog", "the dog barks at the cat")],
        vec![memory::text("tiger", "the tiger purrs"), memory::text("whale", "a whale sings in the sea")],
    ];
    let (mut apart, mut together) = (Vec::new(), Vec::new());
    for (at, documents) in [&one, &other].into_iter().zip(halves) {
        for (memory, ids) in [(&at.memory, &mut apart), (&both.memory, &mut together)] {
            let bank = memory::made(memory, &cx).await;
            memory::inserted(memory, &cx, &bank, documents.clone()).await;
            ids.push(bank.id);
        }
    }
    let found = async |memory: &Arc<dyn Memory>, bank_ids: &[String], mode: SearchMode| {
        let text = "the cat purrs".into();
        let request = QueryRequest { bank_ids: bank_ids.to_vec(), text, mode: mode.into(), top_k: 3, ..QueryRequest::default() };
        let chunks = memory.query(&cx, request).await.unwrap().chunks;
        chunks.into_iter().map(|scored| (scored.chunk.unwrap().document_id, scored.score)).collect::<Vec<(String, f32)>>()
    };
    for mode in [SearchMode::Vector, SearchMode::Hybrid] {
        let expected = found(&both.memory, &together, mode).await;
        assert_eq!((expected.len(), expected[0].0.as_str()), (3, "cat"));
        assert_eq!(found(&router, &apart, mode).await, expected, "{mode:?}");
    }
}

/// What was acknowledged, and not yet done when the process ended, is done by the next; and nothing twice.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_end_of_the_process_cut_off_goes_on() {
    let stand = Stand::new().await;
    let cx = memory::somebody();
    let bank = memory::made(&stand.memory, &cx).await;
    let closed = stand.worded.gate.write().await;
    let documents = (0..20).map(|n| memory::text(&format!("d{n}"), &format!("animal number {n}"))).collect();
    let ingestion = background(&stand, &cx, &bank, documents).await;
    assert_eq!(ingestion.status(), DocumentStatus::InProgress);
    stand.deps.shutdown.cancel();
    drop(closed);
    let folder = stand.stop().await;

    let stand = Stand::open(folder).await;
    let get = GetIngestionRequest { bank_id: bank.id.clone(), id: ingestion.id };
    let told: Vec<_> = timeout(memory::NEVER, stand.memory.watch_ingestion(&cx, get).await.unwrap().collect()).await.unwrap();
    let last = told.last().unwrap().as_ref().unwrap();
    assert_eq!((last.status(), last.completed, last.failed), (DocumentStatus::Completed, 20, 0));
    let listed = ListChunksRequest { bank_id: bank.id.clone(), page_size: 1_000, ..ListChunksRequest::default() };
    assert_eq!(stand.memory.list_chunks(&cx, listed).await.unwrap().chunks.len(), 20);
    assert_eq!(memory::found(&stand.memory, &cx, memory::query(&bank, "17", SearchMode::Keyword)).await, ["d17"]);
}

/// Of two processes with one database, the other leaves alone what one is at, and goes on with it once that one has ended.
#[tokio::test(flavor = "multi_thread")]
async fn an_ingestion_is_one_process_s_until_it_ends() {
    let one = Stand::new().await;
    let cx = memory::somebody();
    let bank = memory::made(&one.memory, &cx).await;
    let embedded = |at: &Stand| at.worded.embedded.load(Ordering::SeqCst);
    let before = embedded(&one);
    let closed = one.worded.gate.write().await;
    let documents = |prefix: &str| (0..10).map(|n| memory::text(&format!("{prefix}{n}"), &format!("{prefix} {n}"))).collect();
    let first = background(&one, &cx, &bank, documents("cat")).await;
    let other = Stand::open(one.folder.clone()).await;
    drop(closed);
    let ended = async |at: &Stand, ingestion: Ingestion| {
        let get = GetIngestionRequest { bank_id: bank.id.clone(), id: ingestion.id };
        let told: Vec<_> = timeout(memory::NEVER, at.memory.watch_ingestion(&cx, get).await.unwrap().collect()).await.unwrap();
        let last = told.last().unwrap().as_ref().unwrap();
        (last.status(), last.completed, last.chunks)
    };
    let all = (DocumentStatus::Completed, 10, 10);
    assert_eq!(ended(&other, first).await, all);
    assert_eq!((embedded(&one) - before, embedded(&other)), (10, 0));

    let closed = one.worded.gate.write().await;
    let second = background(&one, &cx, &bank, documents("dog")).await;
    one.deps.shutdown.cancel();
    drop(closed);
    one.stop().await;
    assert_eq!(ended(&other, second).await, all);
    assert_eq!(memory::found(&other.memory, &cx, memory::query(&bank, "dog 7", SearchMode::Keyword)).await[0], "dog7");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_the_next_start() {
    let stand = Stand::new().await;
    let cx = memory::somebody();
    let bank = memory::made(&stand.memory, &cx).await;
    memory::inserted(&stand.memory, &cx, &bank, vec![memory::text("a", "cats purr"), memory::text("b", "dogs bark")]).await;
    let gone = DeleteDocumentsRequest { bank_id: bank.id.clone(), document_ids: vec!["b".into()], ..DeleteDocumentsRequest::default() };
    stand.memory.delete_documents(&cx, gone).await.unwrap();
    let stand = Stand::open(stand.stop().await).await;
    for mode in [SearchMode::Vector, SearchMode::Keyword, SearchMode::Hybrid] {
        assert_eq!(memory::found(&stand.memory, &cx, memory::query(&bank, "cats bark", mode)).await, ["a"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_content_is_not_embedded_again() {
    let stand = Stand::new().await;
    let cx = memory::somebody();
    let bank = memory::made(&stand.memory, &cx).await;
    memory::inserted(&stand.memory, &cx, &bank, vec![memory::text("a", "cats purr")]).await;
    let before = stand.worded.embedded.load(Ordering::SeqCst);
    let renamed = memory::with(memory::text("a", "cats purr"), &[("lang", memory::value("en"))]);
    memory::inserted(&stand.memory, &cx, &bank, vec![renamed]).await;
    let ingestion = background(&stand, &cx, &bank, vec![memory::text("a", "cats purr")]).await;
    let get = GetIngestionRequest { bank_id: bank.id.clone(), id: ingestion.id };
    let told: Vec<_> = timeout(memory::NEVER, stand.memory.watch_ingestion(&cx, get).await.unwrap().collect()).await.unwrap();
    assert_eq!(told.last().unwrap().as_ref().unwrap().completed, 1);
    assert_eq!(stand.worded.embedded.load(Ordering::SeqCst), before);
    memory::inserted(&stand.memory, &cx, &bank, vec![memory::text("a", "cats sleep")]).await;
    assert_eq!(stand.worded.embedded.load(Ordering::SeqCst), before + 1);
}

/// Else it would be deleted with a file that it is not made of any more, and outlive its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_document_goes_with_the_file_it_was_last_made_of_though_the_content_is_the_same() {
    let stand = Stand::new().await;
    let cx = memory::somebody();
    let bank = memory::made(&stand.memory, &cx).await;
    let of = |file: &str| Document { id: "a".into(), content: Some(Content::FileId(file.into())), ..Document::default() };
    // As the store knows it, and as its passage says.
    let made_of = async || {
        let mut files = Vec::new();
        for file in FILES {
            if !stand.store.documents_of_file(cx.tenant(), file).await.unwrap().is_empty() {
                files.push(file.to_owned());
            }
        }
        let listed = ListChunksRequest { bank_id: bank.id.clone(), ..ListChunksRequest::default() };
        files.extend(stand.memory.list_chunks(&cx, listed).await.unwrap().chunks.into_iter().map(|chunk| chunk.file_id));
        files
    };
    for file in FILES {
        memory::inserted(&stand.memory, &cx, &bank, vec![of(file)]).await;
        assert_eq!(made_of().await, [file, file]);
    }
    let ingestion = background(&stand, &cx, &bank, vec![of(FILES[0])]).await;
    let get = GetIngestionRequest { bank_id: bank.id.clone(), id: ingestion.id };
    let told: Vec<_> = timeout(memory::NEVER, stand.memory.watch_ingestion(&cx, get).await.unwrap().collect()).await.unwrap();
    assert_eq!(told.last().unwrap().as_ref().unwrap().completed, 1);
    assert_eq!(made_of().await, [FILES[0], FILES[0]]);
    memory::inserted(&stand.memory, &cx, &bank, vec![memory::text("a", "cats purr")]).await;
    assert_eq!(made_of().await, [""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cancelled_is_not_inserted() {
    let stand = Stand::new().await;
    let cx = memory::somebody();
    let bank = memory::made(&stand.memory, &cx).await;
    let closed = stand.worded.gate.write().await;
    let documents = (0..5).map(|n| memory::text(&format!("d{n}"), "an animal")).collect();
    let ingestion = background(&stand, &cx, &bank, documents).await;
    let cancel = CancelIngestionRequest { bank_id: bank.id.clone(), id: ingestion.id };
    let cancelled = stand.memory.cancel_ingestion(&cx, cancel.clone()).await.unwrap();
    assert_eq!((cancelled.status(), cancelled.cancelled), (DocumentStatus::Cancelled, 5));
    drop(closed);
    assert_eq!(stand.memory.cancel_ingestion(&cx, cancel).await.unwrap(), cancelled);
    assert!(memory::found(&stand.memory, &cx, memory::query(&bank, "animal", SearchMode::Keyword)).await.is_empty());
}

/// A model that does not answer for a while holds up an ingestion, and does not fail it.
#[tokio::test(flavor = "multi_thread")]
async fn what_fails_for_a_while_is_tried_again() {
    let stand = Stand::new().await;
    let cx = memory::somebody();
    let bank = memory::made(&stand.memory, &cx).await;
    stand.worded.failures.store(1, Ordering::SeqCst);
    let ingestion = background(&stand, &cx, &bank, vec![memory::text("a", "cats purr")]).await;
    let get = GetIngestionRequest { bank_id: bank.id.clone(), id: ingestion.id };
    let told: Vec<_> = timeout(memory::NEVER, stand.memory.watch_ingestion(&cx, get).await.unwrap().collect()).await.unwrap();
    assert_eq!(told.last().unwrap().as_ref().unwrap().completed, 1);
}

/// Whatever fails: reading it, or an index that refuses it. What is told of a document and what is found of it are of one version.
#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_that_fails_leaves_what_was_there_to_answer() {
    let stand = Stand::new().await;
    let cx = memory::somebody();
    let bank = memory::made(&stand.memory, &cx).await;
    let titled = |title: &str, text: &str| Document { title: title.into(), ..memory::text("a", text) };
    memory::inserted(&stand.memory, &cx, &bank, vec![titled("Cats", "cats purr")]).await;
    let mut index = SqliteConnection::connect_with(&index_file(&stand)).await.unwrap();
    let stays = async |reason: &str| {
        let there = document(&stand, &cx, &bank, "a").await;
        assert_eq!((there.status(), there.error.clone().unwrap().reason.as_str()), (DocumentStatus::Failed, reason));
        assert_eq!((there.title.as_str(), there.content), ("Cats", Some(Content::Text("cats purr".into()))));
        for (asked, title) in [("purr", Some("Cats")), ("bark", None)] {
            let found = stand.memory.query(&cx, memory::query(&bank, asked, SearchMode::Keyword)).await.unwrap().chunks;
            let titles: Vec<String> = found.into_iter().map(|scored| scored.chunk.unwrap().title).collect();
            assert_eq!(titles, title.into_iter().collect::<Vec<_>>(), "{asked} after {reason}");
        }
    };
    let last = ended(&stand, &cx, background(&stand, &cx, &bank, vec![titled("Dogs", " \n ")]).await).await;
    assert_eq!((last.status(), last.failed), (DocumentStatus::Failed, 1));
    stays("empty_file").await;
    sqlx::query("CREATE TRIGGER refused BEFORE INSERT ON chunks BEGIN SELECT RAISE(ABORT, 'refused'); END")
        .execute(&mut index)
        .await
        .unwrap();
    let last = ended(&stand, &cx, background(&stand, &cx, &bank, vec![titled("Dogs", "dogs bark")]).await).await;
    assert_eq!(last.failed, 1);
    stays("index_failed").await;
    sqlx::query("DROP TRIGGER refused").execute(&mut index).await.unwrap();
    // The old content again is here already; and the new one takes its place once it can.
    let before = stand.worded.embedded.load(Ordering::SeqCst);
    memory::inserted(&stand.memory, &cx, &bank, vec![titled("Cats", "cats purr")]).await;
    assert_eq!(stand.worded.embedded.load(Ordering::SeqCst), before);
    assert_eq!(document(&stand, &cx, &bank, "a").await.status(), DocumentStatus::Completed);
    assert_eq!(ended(&stand, &cx, background(&stand, &cx, &bank, vec![titled("Dogs", "dogs bark")]).await).await.completed, 1);
    let there = document(&stand, &cx, &bank, "a").await;
    assert_eq!((there.title.as_str(), there.error), ("Dogs", None));
    assert_eq!(memory::found(&stand.memory, &cx, memory::query(&bank, "purr bark", SearchMode::Keyword)).await, ["a"]);
}

/// While it waits for its model, and if it is cancelled then.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_there_answers_until_it_is_replaced() {
    let stand = Stand::new().await;
    let cx = memory::somebody();
    let bank = memory::made(&stand.memory, &cx).await;
    memory::inserted(&stand.memory, &cx, &bank, vec![memory::text("a", "cats purr")]).await;
    let closed = stand.worded.gate.write().await;
    let ingestion = background(&stand, &cx, &bank, vec![memory::text("a", "dogs bark")]).await;
    let old = async |status: DocumentStatus| {
        let there = document(&stand, &cx, &bank, "a").await;
        assert_eq!((there.status(), there.content), (status, Some(Content::Text("cats purr".into()))));
        assert_eq!(memory::found(&stand.memory, &cx, memory::query(&bank, "purr", SearchMode::Keyword)).await, ["a"]);
    };
    old(DocumentStatus::InProgress).await;
    let cancel = CancelIngestionRequest { bank_id: bank.id.clone(), id: ingestion.id };
    stand.memory.cancel_ingestion(&cx, cancel).await.unwrap();
    old(DocumentStatus::Cancelled).await;
    // A name that is given while it waits is that of both.
    let ingestion = background(&stand, &cx, &bank, vec![memory::text("a", "dogs bark")]).await;
    let named = UpdateDocumentRequest {
        bank_id: bank.id.clone(),
        document_id: "a".into(),
        title: Some("Pets".into()),
        ..UpdateDocumentRequest::default()
    };
    assert_eq!(stand.memory.update_document(&cx, named).await.unwrap().title, "Pets");
    old(DocumentStatus::InProgress).await;
    drop(closed);
    assert_eq!(ended(&stand, &cx, ingestion).await.completed, 1);
    let there = document(&stand, &cx, &bank, "a").await;
    assert_eq!((there.title.as_str(), there.content), ("Pets", Some(Content::Text("dogs bark".into()))));
}

/// Of an insertion that was cut off, or that another process overtook. It goes where the document's next one fails as well.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_index_has_of_another_version_is_not_found() {
    let stand = Stand::new().await;
    let cx = memory::somebody();
    let bank = memory::made(&stand.memory, &cx).await;
    memory::inserted(&stand.memory, &cx, &bank, vec![memory::text("a", "cats purr"), memory::text("b", "cats sleep")]).await;
    let index = SqliteIndex::open(&stand.folder.path().join("memory/sqlite")).await.unwrap();
    let key = BankKey { tenant: cx.tenant().into(), bank_id: bank.id.clone() };
    let foreign = |n: usize| {
        let id = format!("a#of another {n}");
        Chunk { revision: "rev_other".into(), ..memory::chunk(&id, "a", "cats cats cats bark", &llama_stack_tests::worded::vector("cats")) }
    };
    index.upsert(&key, (0..60).map(foreign).collect()).await.unwrap();
    let listed = async || {
        let request = ListChunksRequest { bank_id: bank.id.clone(), ..ListChunksRequest::default() };
        stand.memory.list_chunks(&cx, request).await.unwrap().chunks
    };
    let texts: Vec<String> = listed().await.into_iter().map(|chunk| chunk.text).collect();
    assert_eq!(texts, ["cats purr", "cats sleep"]);
    assert!(listed().await.iter().all(|chunk| chunk.revision.is_empty()));
    assert!(memory::found(&stand.memory, &cx, memory::query(&bank, "bark", SearchMode::Keyword)).await.is_empty());
    for mode in [SearchMode::Keyword, SearchMode::Vector] {
        // Nor does it take the place of what is.
        let mut found = memory::found(&stand.memory, &cx, QueryRequest { top_k: 2, ..memory::query(&bank, "cats", mode) }).await;
        found.sort_unstable();
        assert_eq!(found, ["a", "b"]);
    }
    assert_eq!(ended(&stand, &cx, background(&stand, &cx, &bank, vec![memory::text("a", " ")]).await).await.failed, 1);
    let there = document(&stand, &cx, &bank, "a").await;
    assert_eq!((there.status(), there.chunk_count, index.stats(&key).await.unwrap().chunks), (DocumentStatus::Failed, 0, 1));
    memory::inserted(&stand.memory, &cx, &bank, vec![memory::text("a", "cats purr")]).await;
    assert_eq!(memory::found(&stand.memory, &cx, memory::query(&bank, "purr", SearchMode::Keyword)).await, ["a"]);
}

/// Neither version is there in whole then, and the old one comes back when it is inserted again.
#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_leaves_nothing_of_what_a_crash_left_in_the_middle_of_being_stored() {
    let stand = Stand::new().await;
    let cx = memory::somebody();
    let bank = memory::made(&stand.memory, &cx).await;
    memory::inserted(&stand.memory, &cx, &bank, vec![memory::text("a", "cats purr"), memory::text("b", "cats sleep")]).await;
    let closed = stand.worded.gate.write().await;
    let documents = vec![memory::text("a", "dogs bark"), memory::text("b", "dogs sleep")];
    let ingestion = background(&stand, &cx, &bank, documents).await;
    let index = SqliteIndex::open(&stand.folder.path().join("memory/sqlite")).await.unwrap();
    let key = BankKey { tenant: cx.tenant().into(), bank_id: bank.id.clone() };
    let revision = stand.store.get_document(cx.tenant(), &bank.id, "a").await.unwrap().revision;
    let stored = Chunk { revision, ..memory::chunk("a#0", "a", "dogs bark", &llama_stack_tests::worded::vector("dogs bark")) };
    index.replace(&key, "a", vec![stored]).await.unwrap();
    let cancel = CancelIngestionRequest { bank_id: bank.id.clone(), id: ingestion.id };
    let ended = stand.memory.cancel_ingestion(&cx, cancel).await.unwrap();
    assert_eq!((ended.status(), ended.cancelled), (DocumentStatus::Cancelled, 2));
    drop(closed);
    let found = async |words: &str| memory::found(&stand.memory, &cx, memory::query(&bank, words, SearchMode::Keyword)).await;
    let there = document(&stand, &cx, &bank, "a").await;
    assert_eq!((there.status(), there.chunk_count), (DocumentStatus::Cancelled, 0));
    assert!(found("dogs bark purr").await.is_empty());
    assert_eq!(found("cats").await, ["b"]);
    memory::inserted(&stand.memory, &cx, &bank, vec![memory::text("a", "cats purr")]).await;
    assert_eq!(found("purr").await, ["a"]);
}

/// Neither its row nor its chunks say anything of a version.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_inserted_before_versions_were_noted_goes_on_being_found() {
    let stand = Stand::new().await;
    let cx = memory::somebody();
    let bank = memory::made(&stand.memory, &cx).await;
    memory::inserted(&stand.memory, &cx, &bank, vec![memory::text("a", "cats purr")]).await;
    let index = SqliteIndex::open(&stand.folder.path().join("memory/sqlite")).await.unwrap();
    let key = BankKey { tenant: cx.tenant().into(), bank_id: bank.id.clone() };
    let mut chunks = index.scroll(&key, Some("a"), None, 10, true).await.unwrap();
    assert!(chunks.iter().all(|chunk| !chunk.revision.is_empty()));
    chunks.iter_mut().for_each(|chunk| chunk.revision.clear());
    index.upsert(&key, chunks).await.unwrap();
    let state = SqliteConnectOptions::new().filename(stand.folder.path().join("state.db"));
    let mut state = SqliteConnection::connect_with(&state).await.unwrap();
    sqlx::query("UPDATE bank_documents SET version = ''").execute(&mut state).await.unwrap();
    let found = async |words: &str| {
        let found = stand.memory.query(&cx, memory::query(&bank, words, SearchMode::Hybrid)).await.unwrap().chunks;
        found.into_iter().map(|scored| scored.chunk.unwrap()).map(|chunk| (chunk.title, chunk.text)).collect::<Vec<_>>()
    };
    assert_eq!(found("purr").await.len(), 1);
    let named = UpdateDocumentRequest {
        bank_id: bank.id.clone(),
        document_id: "a".into(),
        title: Some("Cats".into()),
        ..UpdateDocumentRequest::default()
    };
    stand.memory.update_document(&cx, named).await.unwrap();
    assert_eq!(found("purr").await, [("Cats".to_owned(), "cats purr".to_owned())]);
    // As long as another is to come, and once it has come.
    let closed = stand.worded.gate.write().await;
    let ingestion = background(&stand, &cx, &bank, vec![memory::text("a", "dogs bark")]).await;
    let by_words = memory::found(&stand.memory, &cx, memory::query(&bank, "purr", SearchMode::Keyword)).await;
    assert_eq!(by_words, ["a"]);
    drop(closed);
    assert_eq!(ended(&stand, &cx, ingestion).await.completed, 1);
    let texts: Vec<String> = found("purr bark").await.into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["dogs bark"]);
}

/// However many chunks it has: a search finds all of them under one title.
#[tokio::test(flavor = "multi_thread")]
async fn a_rename_that_fails_changes_no_chunk() {
    let stand = Stand::new().await;
    let cx = memory::somebody();
    let bank = memory::made(&stand.memory, &cx).await;
    let vector = llama_stack_tests::worded::vector("cats");
    // More than are looked through at a time.
    let many = (0..1_001).map(|n| Chunk { index: n, title: "Cats".into(), ..memory::chunk(&format!("a#{n}"), "a", "cats", &vector) });
    stand.memory.insert_chunks(&cx, memory::chunks(&bank, many.collect())).await.unwrap();
    let mut index = SqliteConnection::connect_with(&index_file(&stand)).await.unwrap();
    sqlx::query("CREATE TRIGGER refused BEFORE INSERT ON chunks WHEN NEW.place = 1000 BEGIN SELECT RAISE(ABORT, 'refused'); END")
        .execute(&mut index)
        .await
        .unwrap();
    let rename = UpdateDocumentRequest {
        bank_id: bank.id.clone(),
        document_id: "a".into(),
        title: Some("Dogs".into()),
        ..UpdateDocumentRequest::default()
    };
    let named = async |title: &str| {
        let sql = "SELECT COUNT(*) FROM chunks WHERE title = ?";
        let mut index = SqliteConnection::connect_with(&index_file(&stand)).await.unwrap();
        sqlx::query_scalar::<_, i64>(sql).bind(title.to_owned()).fetch_one(&mut index).await.unwrap()
    };
    let refused = stand.memory.update_document(&cx, rename.clone()).await.unwrap_err();
    assert_eq!(refused.reason(), Some("index_failed"), "{refused}");
    assert_eq!((named("Cats").await, document(&stand, &cx, &bank, "a").await.title.as_str()), (1_001, "Cats"));
    sqlx::query("DROP TRIGGER refused").execute(&mut index).await.unwrap();
    assert_eq!(stand.memory.update_document(&cx, rename).await.unwrap().title, "Dogs");
    assert_eq!(named("Dogs").await, 1_001);
}

/// Else the text of a file would be there as long as what takes its place is not read, or go with what does.
#[tokio::test(flavor = "multi_thread")]
async fn what_goes_with_its_file_leaves_what_is_inserted_in_its_place() {
    let stand = Stand::new().await;
    let cx = memory::somebody();
    let bank = memory::made(&stand.memory, &cx).await;
    let of_file = Document { id: "a".into(), content: Some(Content::FileId(FILES[0].into())), ..Document::default() };
    memory::inserted(&stand.memory, &cx, &bank, vec![of_file]).await;
    let forget = DeleteDocumentsRequest { bank_id: bank.id.clone(), document_ids: vec!["a".into()], file_id: FILES[0].into() };
    let closed = stand.worded.gate.write().await;
    let ingestion = background(&stand, &cx, &bank, vec![memory::text("a", "dogs bark")]).await;
    assert_eq!(stand.memory.delete_documents(&cx, forget.clone()).await.unwrap().deleted, 1);
    assert!(memory::found(&stand.memory, &cx, memory::query(&bank, "purr", SearchMode::Keyword)).await.is_empty());
    drop(closed);
    assert_eq!(ended(&stand, &cx, ingestion).await.completed, 1);
    // It is of something else by now.
    assert_eq!(stand.memory.delete_documents(&cx, forget).await.unwrap().deleted, 0);
    assert_eq!(memory::found(&stand.memory, &cx, memory::query(&bank, "bark", SearchMode::Keyword)).await, ["a"]);
}

/// The quota is each tenant's own, over all of its banks; what is replaced or deleted makes room.
#[tokio::test(flavor = "multi_thread")]
async fn a_tenants_documents_keep_to_their_quota() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let stand = Stand::configured(folder, Arc::default(), json!({ "max_tenant_bytes": 1_000 })).await;
    let cx = memory::somebody();
    let (bank, second) = (memory::made(&stand.memory, &cx).await, memory::made(&stand.memory, &cx).await);
    let sized = |id: &str, bytes: usize| memory::text(id, &"ab ".repeat(bytes.div_ceil(3))[..bytes]);
    memory::inserted(&stand.memory, &cx, &bank, vec![sized("a", 600)]).await;
    let refused = memory::insert(&stand.memory, &cx, &second, vec![sized("b", 500)]).await.unwrap();
    let error = refused.failures[0].error.clone().unwrap();
    assert_eq!((error.reason.as_str(), refused.document_ids.len()), ("storage_quota", 0));
    assert!(["500", "600", "1000"].iter().all(|number| error.message.contains(number)), "{error:?}");
    memory::inserted(&stand.memory, &cx, &bank, vec![sized("a", 900)]).await;
    let background =
        |documents| InsertDocumentsRequest { bank_id: second.id.clone(), documents, background: true, ..InsertDocumentsRequest::default() };
    let error = stand.memory.insert_documents(&cx, background(vec![sized("c", 101)])).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::ResourceExhausted, Some("storage_quota")));
    let chunk = memory::chunk("d#0", "d", &"x".repeat(101), &[]);
    let error = stand.memory.insert_chunks(&cx, memory::chunks(&second, vec![chunk])).await.unwrap_err();
    assert_eq!(error.reason(), Some("storage_quota"));
    // Another tenant has room of its own.
    let other = memory::somebody();
    let theirs = memory::made(&stand.memory, &other).await;
    memory::inserted(&stand.memory, &other, &theirs, vec![sized("a", 1_000)]).await;
    let gone = DeleteDocumentsRequest { bank_id: bank.id.clone(), document_ids: vec!["a".into()], ..DeleteDocumentsRequest::default() };
    stand.memory.delete_documents(&cx, gone).await.unwrap();
    memory::inserted(&stand.memory, &cx, &second, vec![sized("b", 500)]).await;
}

/// The revision tells whether the content was written.
#[tokio::test(flavor = "multi_thread")]
async fn parts_of_a_call_are_written_together_or_not_at_all() {
    let stand = Stand::new().await;
    let cx = memory::somebody();
    let bank = memory::made(&stand.memory, &cx).await;
    memory::inserted(&stand.memory, &cx, &bank, vec![memory::text("a", "cats purr")]).await;
    let put = async |parts: &[(u64, &str)]| {
        let part = |(offset, text): &(u64, &str)| ContentPart {
            document_id: "a".into(),
            offset: *offset,
            part: Some(Part::Text((*text).to_owned())),
        };
        let content_parts = parts.iter().map(part).collect();
        let request = InsertChunksRequest { bank_id: bank.id.clone(), content_parts, ..InsertChunksRequest::default() };
        stand.memory.insert_chunks(&cx, request).await
    };
    let there = async || {
        let request = GetDocumentRequest { bank_id: bank.id.clone(), document_id: "a".into(), ..GetDocumentRequest::default() };
        let content = stand.memory.get_document(&cx, request).await.unwrap().content;
        (content, stand.store.document_revision(cx.tenant(), &bank.id, "a").await.unwrap())
    };
    let before = there().await;
    put(&[(9, ""); 100]).await.unwrap();
    put(&[(0, "cats"), (4, " purr")]).await.unwrap();
    assert_eq!(there().await, before, "nothing changed, and it was written");
    assert_eq!(put(&[(0, "dogs"), (5, "beyond")]).await.unwrap_err().field(), Some("content_parts[1]"));
    assert_eq!(there().await, before, "the first part was written without the second");
    put(&[(0, "dogs"), (4, " bar"), (8, "k")]).await.unwrap();
    let (content, revision) = there().await;
    assert_eq!(content, Some(Content::Text("dogs bark".into())));
    assert_ne!(revision, before.1);
}

/// Not in the tables, not in the words, not in what is free, not in the log.
#[tokio::test(flavor = "multi_thread")]
async fn deleted_text_is_in_no_file_of_the_index() {
    let stand = Stand::new().await;
    let cx = memory::somebody();
    let bank = memory::made(&stand.memory, &cx).await;
    let secret = |n: usize| memory::text(&format!("s{n}"), &format!("{} zanzibar{n} quokka", "filler words ".repeat(50)));
    memory::inserted(&stand.memory, &cx, &bank, (0..10).map(secret).collect()).await;
    memory::inserted(&stand.memory, &cx, &bank, vec![memory::text("stays", "meerkat")]).await;
    let index = stand.folder.path().join("memory/sqlite");
    assert!(holds(&index, "zanzibar7") && holds(&index, "meerkat"), "the scan does not see what is there");
    let ids = (0..10).map(|n| format!("s{n}")).collect();
    let delete = DeleteDocumentsRequest { bank_id: bank.id.clone(), document_ids: ids, ..DeleteDocumentsRequest::default() };
    assert_eq!(stand.memory.delete_documents(&cx, delete).await.unwrap().deleted, 10);
    for word in ["zanzibar", "quokka"] {
        assert!(!holds(&index, word), "{word} is still in a file");
    }
    assert!(holds(&index, "meerkat"));
}

fn holds(folder: &Path, word: &str) -> bool {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    files.into_iter().any(|bytes| bytes.windows(word.len()).any(|window| window == word.as_bytes()))
}

async fn background(stand: &Stand, cx: &Context, bank: &Bank, documents: Vec<Document>) -> Ingestion {
    let request = InsertDocumentsRequest { bank_id: bank.id.clone(), documents, background: true, ..InsertDocumentsRequest::default() };
    stand.memory.insert_documents(cx, request).await.unwrap().ingestion.unwrap()
}

/// What is told of it last.
async fn ended(stand: &Stand, cx: &Context, ingestion: Ingestion) -> Ingestion {
    let get = GetIngestionRequest { bank_id: ingestion.bank_id, id: ingestion.id };
    let told: Vec<_> = timeout(memory::NEVER, stand.memory.watch_ingestion(cx, get).await.unwrap().collect()).await.unwrap();
    told.last().unwrap().as_ref().unwrap().clone()
}

async fn document(stand: &Stand, cx: &Context, bank: &Bank, id: &str) -> Document {
    let request = GetDocumentRequest { bank_id: bank.id.clone(), document_id: id.into(), ..GetDocumentRequest::default() };
    stand.memory.get_document(cx, request).await.unwrap()
}

fn index_file(stand: &Stand) -> SqliteConnectOptions {
    SqliteConnectOptions::new().filename(stand.folder.path().join("memory/sqlite/index.db"))
}
