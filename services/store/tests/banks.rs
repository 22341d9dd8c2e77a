//! Banks, their documents and ingestions: on a file, in memory and on Postgres.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[macro_use]
mod fixture;

use fixture::{Fixture, TENANT, later, of};
use llama_stack_core::{Code, ids};
use llama_stack_proto::v1::{Bank, BankKind, Document, DocumentStatus, Ingestion, document::Content};
use llama_stack_store::{Author, BankList, DocumentList, InsertedDocument, NO_VERSION, PERSONAL_MEMORY, PendingDocument, Store};

on!(sqlite, memory, postgres: [
    a_bank_is_its_tenants_and_providers,
    banks_are_listed_for_those_who_may_read_them,
    an_expired_bank_is_doomed_and_goes_with_all_it_has,
    a_document_keeps_its_place_and_its_newest_content,
    an_insertion_that_was_overtaken_changes_nothing,
    what_is_inserted_waits_beside_what_has_chunks,
    what_waits_takes_the_place_of_what_is_let_go,
    what_was_cancelled_is_not_completed_after_all,
    of_two_who_put_a_content_in_place_of_the_same_one_does,
    a_completed_document_gets_another_name_and_one_that_waits_keeps_its_own,
    what_a_worker_left_is_taken_once_its_lease_has_run_out,
    of_many_takers_each_document_goes_to_one,
    an_ingestion_counts_its_documents,
    expired_documents_are_told,
    documents_are_known_by_their_file,
    documents_that_were_handed_elsewhere_are_known_by_their_file,
    calls_to_forget_are_counted_and_each_tenants_newest_is_kept,
    an_owner_has_one_bank_for_a_purpose,
    who_takes_over_anothers_banks_keeps_their_own_for_a_purpose_though_it_only_says_so,
]);

const PROVIDER: &str = "sqlite";
/// Who inserts what is inserted here.
const WORKER: &str = "me";

fn bank(owner: &str) -> Bank {
    let now = Some(ids::now());
    Bank {
        id: ids::new("bank"),
        name: "docs".into(),
        provider_id: PROVIDER.into(),
        kind: BankKind::Vector.into(),
        owner: owner.into(),
        created: now,
        last_active: now,
        ..Bank::default()
    }
}

async fn kept(store: &Store, bank: &Bank) {
    assert!(store.insert_bank(TENANT, bank).await.unwrap());
}

fn inserted(id: &str, text: &str) -> InsertedDocument {
    let document = Document {
        id: id.into(),
        content: Some(Content::Text(text.into())),
        created: Some(ids::now()),
        status: DocumentStatus::InProgress.into(),
        bytes: text.len() as u64,
        ..Document::default()
    };
    InsertedDocument { document, revision: ids::new("rev") }
}

fn ann() -> Author {
    Author { principal: "ann".into(), roles: vec!["admin".into(), "dev".into()] }
}

async fn a_bank_is_its_tenants_and_providers(Fixture { store, .. }: &Fixture) {
    let mut mine = bank("ann");
    kept(store, &mine).await;
    assert_eq!(store.get_bank(TENANT, PROVIDER, &mine.id).await.unwrap().name, "docs");
    for (tenant, provider) in [("other", PROVIDER), (TENANT, "qdrant")] {
        assert_eq!(store.get_bank(tenant, provider, &mine.id).await.unwrap_err().code(), Code::NotFound);
        assert_eq!(store.doom_bank(tenant, provider, &mine.id).await.unwrap_err().code(), Code::NotFound);
    }
    (mine.name, mine.shared, mine.expires_after_seconds) = ("new".into(), true, 100);
    store.update_bank(TENANT, &mine).await.unwrap();
    let now = store.get_bank(TENANT, PROVIDER, &mine.id).await.unwrap();
    assert_eq!((now.name.as_str(), now.shared), ("new", true));
    assert_eq!(now.expires.unwrap().seconds, now.last_active.unwrap().seconds + 100);
    let mut later = ids::now();
    later.seconds += 50;
    store.touch_bank(TENANT, &mine, &later).await.unwrap();
    // Never back.
    store.touch_bank(TENANT, &mine, &ids::now()).await.unwrap();
    let now = store.get_bank(TENANT, PROVIDER, &mine.id).await.unwrap();
    assert_eq!((now.last_active.unwrap().seconds, now.expires.unwrap().seconds), (later.seconds, later.seconds + 100));
    assert_eq!(store.insert_bank(TENANT, &mine).await.unwrap_err().code(), Code::AlreadyExists);
}

async fn banks_are_listed_for_those_who_may_read_them(Fixture { store, .. }: &Fixture) {
    let (first, second) = (bank("ann"), bank("bob"));
    let third = Bank { shared: true, kind: BankKind::Keyword.into(), ..bank("bob") };
    for bank in [&first, &second, &third] {
        kept(store, bank).await;
    }
    let list = async |list: BankList<'_>| {
        let list = BankList { provider_id: PROVIDER, ..list };
        let (banks, _) = store.list_banks(TENANT, list, &ids::now()).await.unwrap();
        banks.into_iter().map(|bank| bank.id).collect::<Vec<_>>()
    };
    let (one, two, three) = (first.id.clone(), second.id.clone(), third.id.clone());
    assert_eq!(list(BankList::default()).await, [one.clone(), two.clone(), three.clone()]);
    assert_eq!(list(BankList { newest_first: true, ..BankList::default() }).await, [three.clone(), two.clone(), one.clone()]);
    assert_eq!(list(BankList { principal: Some("ann"), ..BankList::default() }).await, [one.clone(), three.clone()]);
    assert_eq!(list(BankList { kind: BankKind::Keyword.into(), ..BankList::default() }).await, [three]);
    let page = BankList { provider_id: PROVIDER, page_size: 2, ..BankList::default() };
    let (_, token) = store.list_banks(TENANT, page, &ids::now()).await.unwrap();
    let (rest, end) = store.list_banks(TENANT, BankList { page_token: &token, ..page }, &ids::now()).await.unwrap();
    assert_eq!((rest.len(), end.as_str()), (1, ""));
    let others = BankList { page_token: &token, principal: Some("ann"), ..page };
    assert_eq!(store.list_banks(TENANT, others, &ids::now()).await.unwrap_err().field(), Some("page_token"));
    assert!(store.list_banks("other", page, &ids::now()).await.unwrap().0.is_empty());
}

async fn an_expired_bank_is_doomed_and_goes_with_all_it_has(Fixture { store, .. }: &Fixture) {
    let mine = Bank { expires_after_seconds: 10, ..bank("ann") };
    kept(store, &mine).await;
    store.put_documents(TENANT, &mine.id, &ann(), WORKER, vec![inserted("a", "text")], None).await.unwrap();
    assert!(store.doomed_banks(PROVIDER, &ids::now()).await.unwrap().is_empty());
    let mut later = ids::now();
    later.seconds += 11;
    assert!(store.doomed_banks("qdrant", &later).await.unwrap().is_empty());
    let doomed = store.doomed_banks(PROVIDER, &later).await.unwrap();
    assert_eq!((doomed.len(), &doomed[0].id, doomed[0].tenant.as_str()), (1, &mine.id, TENANT));
    assert_eq!(store.get_bank(TENANT, PROVIDER, &mine.id).await.unwrap_err().code(), Code::NotFound);
    store.delete_bank(TENANT, PROVIDER, &mine.id).await.unwrap();
    store.delete_bank(TENANT, PROVIDER, &mine.id).await.unwrap();
    assert!(store.doomed_banks(PROVIDER, &later).await.unwrap().is_empty());
    assert_eq!(store.get_document(TENANT, &mine.id, "a").await.unwrap_err().code(), Code::NotFound);
    let orphan = store.put_documents(TENANT, &mine.id, &ann(), WORKER, vec![inserted("a", "text")], None).await;
    assert_eq!(orphan.unwrap_err().code(), Code::NotFound);
}

async fn a_document_keeps_its_place_and_its_newest_content(Fixture { store, .. }: &Fixture) {
    let mine = bank("ann");
    kept(store, &mine).await;
    for id in ["z", "a", "m"] {
        store.put_documents(TENANT, &mine.id, &ann(), WORKER, vec![inserted(id, "old")], None).await.unwrap();
    }
    store.put_documents(TENANT, &mine.id, &ann(), WORKER, vec![inserted("z", "newer")], None).await.unwrap();
    let there = store.get_document(TENANT, &mine.id, "z").await.unwrap();
    assert_eq!(there.document.content, Some(Content::Text("newer".into())));
    let list = async |list: DocumentList<'_>| {
        let (documents, next) = store.list_documents(TENANT, &mine.id, list, &ids::now()).await.unwrap();
        assert!(documents.iter().all(|document| document.content.is_none()));
        (documents.into_iter().map(|document| document.id).collect::<Vec<_>>(), next)
    };
    assert_eq!(list(DocumentList::default()).await.0, ["z", "a", "m"]);
    assert_eq!(list(DocumentList { newest_first: true, ..DocumentList::default() }).await.0, ["m", "a", "z"]);
    let (first, token) = list(DocumentList { page_size: 2, ..DocumentList::default() }).await;
    assert_eq!(first, ["z", "a"]);
    assert_eq!(list(DocumentList { page_size: 2, page_token: &token, ..DocumentList::default() }).await.0, ["m"]);
    assert!(list(DocumentList { status: DocumentStatus::Failed.into(), ..DocumentList::default() }).await.0.is_empty());
    let counts = store.count_documents(TENANT, &mine.id).await.unwrap();
    assert_eq!(counts, [(DocumentStatus::InProgress, 3, 11)]);
    assert_eq!(store.get_document("other", &mine.id, "z").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(store.delete_documents("other", &mine.id, &["z".into()]).await.unwrap(), 0);
    assert_eq!(store.delete_documents(TENANT, &mine.id, &["z".into(), "none".into(), "m".into()]).await.unwrap(), 2);
}

async fn an_insertion_that_was_overtaken_changes_nothing(Fixture { store, .. }: &Fixture) {
    let mine = bank("ann");
    kept(store, &mine).await;
    let (first, second) = (inserted("a", "one"), inserted("a", "two"));
    store.put_documents(TENANT, &mine.id, &ann(), WORKER, vec![first.clone()], None).await.unwrap();
    store.put_documents(TENANT, &mine.id, &ann(), WORKER, vec![second.clone()], None).await.unwrap();
    let done = |of: &InsertedDocument| Document { status: DocumentStatus::Completed.into(), ..of.document.clone() };
    assert!(!store.settle_document(TENANT, &mine.id, &done(&first), &first.revision, (1, 1)).await.unwrap());
    assert_eq!(store.get_document(TENANT, &mine.id, "a").await.unwrap().document.status(), DocumentStatus::InProgress);
    assert!(store.settle_document(TENANT, &mine.id, &done(&second), &second.revision, (1, 1)).await.unwrap());
    let there = store.get_document(TENANT, &mine.id, "a").await.unwrap();
    assert_eq!((there.document.status(), there.document.content), (DocumentStatus::Completed, Some(Content::Text("two".into()))));
}

fn text_of(document: &Document) -> &str {
    match &document.content {
        Some(Content::Text(text)) => text,
        _ => "",
    }
}

async fn completed(store: &Store, bank: &Bank, row: InsertedDocument) {
    store.put_documents(TENANT, &bank.id, &ann(), WORKER, vec![row.clone()], None).await.unwrap();
    let done = Document { status: DocumentStatus::Completed.into(), ..row.document };
    assert!(store.complete_document(TENANT, &bank.id, &done, &row.revision, (1, 1)).await.unwrap());
}

async fn what_is_inserted_waits_beside_what_has_chunks(Fixture { store, .. }: &Fixture) {
    let (mine, bob) = (bank("ann"), Author { principal: "bob".into(), roles: vec!["dev".into()] });
    kept(store, &mine).await;
    let there = async || store.get_document(TENANT, &mine.id, "a").await.unwrap();
    let versions = async || store.document_versions(TENANT, &mine.id, &["a", "none"]).await.unwrap();
    let put = async |row: &InsertedDocument| {
        store.put_documents(TENANT, &mine.id, &bob, WORKER, vec![row.clone()], None).await.unwrap();
    };
    let (first, second, third) = (inserted("a", "one"), inserted("a", "number two"), inserted("a", "three"));
    put(&first).await;
    // None of its chunks is found before it has them.
    assert_eq!(there().await.version, NO_VERSION);
    completed(store, &mine, first.clone()).await;
    assert_eq!(versions().await, [("a".to_owned(), [first.revision.clone(), first.revision.clone()])].into());
    let of_bob = store.documents_of(TENANT, "bob").await.unwrap();
    put(&second).await;
    let kept = there().await;
    assert_eq!((kept.document.status(), text_of(&kept.document)), (DocumentStatus::InProgress, "one"));
    assert_eq!(kept.waiting.as_ref().map(text_of), Some("number two"));
    assert_eq!(versions().await, [("a".to_owned(), [first.revision.clone(), second.revision.clone()])].into());
    // Both are somebody's, and both take room.
    assert_eq!((of_bob.len(), store.documents_of(TENANT, "bob").await.unwrap().len()), (0, 1));
    assert_eq!(store.documents_of(TENANT, "ann").await.unwrap().len(), 1);
    assert!(store.document_bytes(TENANT, PROVIDER, &mine.id, "").await.unwrap() >= 13);
    let pending = store.take_documents(later(WORKER, 0), PROVIDER, true).await.unwrap();
    assert_eq!((pending.len(), &pending[0].author), (1, &bob));
    let failed = Document { status: DocumentStatus::Failed.into(), ..kept.document };
    assert!(store.settle_document(TENANT, &mine.id, &failed, &second.revision, (0, 0)).await.unwrap());
    let kept = there().await;
    assert_eq!((text_of(&kept.document), kept.waiting, kept.version.as_str()), ("one", None, first.revision.as_str()));
    assert!(store.documents_of(TENANT, "bob").await.unwrap().is_empty());
    put(&third).await;
    let done = Document { status: DocumentStatus::Completed.into(), ..third.document.clone() };
    assert!(store.complete_document(TENANT, &mine.id, &done, &third.revision, (1, 1)).await.unwrap());
    let kept = there().await;
    assert_eq!((text_of(&kept.document), kept.waiting, kept.version), ("three", None, third.revision.clone()));
    assert_eq!(store.documents_of(TENANT, "bob").await.unwrap().len(), 1);
    // Whose chunks are another's by now is inserted again.
    store.redo_document(TENANT, &mine.id, "a", WORKER).await.unwrap();
    let kept = there().await;
    assert_eq!((kept.document.status(), kept.version.as_str()), (DocumentStatus::InProgress, NO_VERSION));
    let next = store.rename_insertion(TENANT, &mine.id, "a", &third.revision).await.unwrap();
    assert_eq!(next, Some(there().await.revision));
    assert_eq!(store.rename_insertion(TENANT, &mine.id, "a", &third.revision).await.unwrap(), None);
}

async fn what_waits_takes_the_place_of_what_is_let_go(Fixture { store, .. }: &Fixture) {
    let mine = bank("ann");
    kept(store, &mine).await;
    let mut soon = ids::now();
    soon.seconds += 10;
    let first = inserted("a", "one");
    let first = InsertedDocument { document: Document { expires: Some(soon), ..first.document }, ..first };
    completed(store, &mine, first).await;
    let second = inserted("a", "two");
    store.put_documents(TENANT, &mine.id, &ann(), WORKER, vec![second.clone()], None).await.unwrap();
    let mut later = soon;
    later.seconds += 1;
    // What expires is what is there.
    assert_eq!(store.documents_expired_in_wait(TENANT, &mine.id, &later).await.unwrap(), ["a"]);
    let renamed = Document { title: "Two".into(), ..second.document.clone() };
    assert!(store.put_waiting_document(TENANT, &mine.id, &renamed, &second.revision).await.unwrap());
    assert!(store.let_go_document(TENANT, &mine.id, &renamed, &second.revision).await.unwrap());
    let there = store.get_document(TENANT, &mine.id, "a").await.unwrap();
    assert_eq!((there.document.status(), text_of(&there.document)), (DocumentStatus::InProgress, "two"));
    assert_eq!((there.document.title.as_str(), there.waiting, there.version.as_str()), ("Two", None, NO_VERSION));
    assert_ne!(there.revision, second.revision);
    assert!(!store.let_go_document(TENANT, &mine.id, &renamed, &there.revision).await.unwrap());
    assert!(store.expired_documents(TENANT, &mine.id, &later).await.unwrap().is_empty());
}

/// By a process that had not heard of the cancel.
async fn what_was_cancelled_is_not_completed_after_all(Fixture { store, .. }: &Fixture) {
    let (mine, bob) = (bank("ann"), Author { principal: "bob".into(), roles: Vec::new() });
    kept(store, &mine).await;
    completed(store, &mine, inserted("a", "one")).await;
    let (bank_id, created) = (mine.id.clone(), Some(ids::now()));
    let ingestion = Ingestion { id: ids::new("ing"), bank_id, created, documents: 1, ..Ingestion::default() };
    let mut second = inserted("a", "two");
    second.document.ingestion_id.clone_from(&ingestion.id);
    store.put_documents(TENANT, &mine.id, &bob, WORKER, vec![second.clone()], Some(ingestion.clone())).await.unwrap();
    store.end_ingestion(TENANT, &mine.id, &ingestion.id, true, &ids::now()).await.unwrap();
    let done = Document { status: DocumentStatus::Completed.into(), ..second.document.clone() };
    assert!(!store.complete_document(TENANT, &mine.id, &done, &second.revision, (1, 1)).await.unwrap());
    let there = store.get_document(TENANT, &mine.id, "a").await.unwrap();
    assert_eq!((there.document.status(), text_of(&there.document), there.waiting), (DocumentStatus::Cancelled, "one", None));
    assert!(store.documents_of(TENANT, "bob").await.unwrap().is_empty());
    // The old content again is what is there.
    let again = Document { status: DocumentStatus::Completed.into(), ..there.document };
    assert!(store.settle_document(TENANT, &mine.id, &again, &there.revision, (0, 0)).await.unwrap());
    assert_eq!(store.get_document(TENANT, &mine.id, "a").await.unwrap().document.status(), DocumentStatus::Completed);
}

async fn of_two_who_put_a_content_in_place_of_the_same_one_does(Fixture { store, .. }: &Fixture) {
    let mine = bank("ann");
    kept(store, &mine).await;
    store.put_documents(TENANT, &mine.id, &ann(), WORKER, vec![inserted("a", "one")], None).await.unwrap();
    let read = store.get_document(TENANT, &mine.id, "a").await.unwrap();
    let put = async |text: &str| {
        let document = Document { content: Some(Content::Text(text.into())), ..read.document.clone() };
        let document = InsertedDocument { document, revision: read.revision.clone() };
        store.put_document_content(TENANT, &mine.id, document).await.unwrap()
    };
    assert!(put("one and two").await);
    assert!(!put("one and three").await, "what the other wrote would be lost");
    let there = store.get_document(TENANT, &mine.id, "a").await.unwrap();
    assert_eq!(there.document.content, Some(Content::Text("one and two".into())));
}

async fn a_completed_document_gets_another_name_and_one_that_waits_keeps_its_own(Fixture { store, .. }: &Fixture) {
    let mine = bank("ann");
    kept(store, &mine).await;
    let row = inserted("a", "one");
    store.put_documents(TENANT, &mine.id, &ann(), WORKER, vec![row.clone()], None).await.unwrap();
    let renew = async |revision: &str| store.renew_document(TENANT, &mine.id, "a", revision).await.unwrap();
    assert_eq!(renew(&row.revision).await.as_ref(), Some(&row.revision));
    let done = Document { status: DocumentStatus::Completed.into(), ..row.document };
    assert!(store.settle_document(TENANT, &mine.id, &done, &row.revision, (1, 1)).await.unwrap());
    let next = renew(&row.revision).await.unwrap();
    assert_ne!(next, row.revision);
    assert_eq!(store.get_document(TENANT, &mine.id, "a").await.unwrap().revision, next);
    assert_eq!(renew(&row.revision).await, None, "it is another's by now");
    assert_eq!(store.renew_document(TENANT, &mine.id, "nobody", &next).await.unwrap(), None);
}

async fn what_a_worker_left_is_taken_once_its_lease_has_run_out(Fixture { store, .. }: &Fixture) {
    let mine = bank("ann");
    kept(store, &mine).await;
    let done = inserted("done", "x");
    store.put_documents(TENANT, &mine.id, &ann(), WORKER, vec![inserted("a", "x"), done.clone()], None).await.unwrap();
    let document = Document { status: DocumentStatus::Completed.into(), ..done.document };
    store.settle_document(TENANT, &mine.id, &document, &done.revision, (1, 1)).await.unwrap();
    store.renew_worker(of(WORKER)).await.unwrap();
    assert!(!store.are_documents_left(later("other", 50), PROVIDER).await.unwrap(), "the lease holds for 60 s");
    assert!(taken(store, "other", 50, PROVIDER).await.is_empty());
    assert!(!store.are_documents_left(later(WORKER, 70), PROVIDER).await.unwrap(), "a worker does not take its own");
    assert!(taken(store, "other", 70, "qdrant").await.is_empty());
    let pending = taken(store, "other", 70, PROVIDER).await;
    assert_eq!((pending.len(), pending[0].id.as_str(), &pending[0].author), (1, "a", &ann()));
    assert!(store.is_worker_of("other", &pending[0]).await.unwrap() && !store.is_worker_of(WORKER, &pending[0]).await.unwrap());
    assert!(taken(store, "third", 70, PROVIDER).await.is_empty());
    // What it has itself it takes only where it is at none of them.
    assert_eq!(store.take_documents(later("other", 70), PROVIDER, true).await.unwrap().len(), 1);
    assert!(store.are_documents_left(later("-", 140), PROVIDER).await.unwrap(), "its lease has run out too");
    // Who says that it works no more is waited for by nobody.
    store.release_worker("other").await.unwrap();
    assert_eq!(taken(store, "third", 1, PROVIDER).await.len(), 1);
}

/// By a worker that lives, at this time.
async fn taken(store: &Store, owner: &str, seconds: i64, provider: &str) -> Vec<PendingDocument> {
    store.renew_worker(later(owner, seconds)).await.unwrap();
    store.take_documents(later(owner, seconds), provider, false).await.unwrap()
}

async fn of_many_takers_each_document_goes_to_one(Fixture { store, .. }: &Fixture) {
    let mine = bank("ann");
    kept(store, &mine).await;
    let rows = (0..40).map(|n| inserted(&n.to_string(), "x")).collect();
    store.put_documents(TENANT, &mine.id, &ann(), WORKER, rows, None).await.unwrap();
    let takers = (0..8).map(|n| {
        let store = store.clone();
        tokio::spawn(async move { taken(&store, &format!("taker {n}"), 0, PROVIDER).await })
    });
    let taken = futures::future::join_all(takers).await.into_iter().flat_map(Result::unwrap);
    let mut ids: Vec<u32> = taken.map(|pending| pending.id.parse().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..40).collect::<Vec<u32>>());
}

async fn an_ingestion_counts_its_documents(Fixture { store, .. }: &Fixture) {
    let mine = bank("ann");
    kept(store, &mine).await;
    let ingestion = Ingestion {
        id: ids::new("ing"),
        bank_id: mine.id.clone(),
        status: DocumentStatus::InProgress.into(),
        created: Some(ids::now()),
        documents: 3,
        ..Ingestion::default()
    };
    let rows: Vec<InsertedDocument> = ["a", "b", "c"]
        .map(|id| {
            let row = inserted(id, "x");
            InsertedDocument { document: Document { ingestion_id: ingestion.id.clone(), ..row.document }, ..row }
        })
        .into();
    store.put_documents(TENANT, &mine.id, &ann(), WORKER, rows.clone(), Some(ingestion.clone())).await.unwrap();
    assert_eq!(store.unfinished_ingestions(PROVIDER).await.unwrap(), [(TENANT.to_owned(), mine.id.clone(), ingestion.id.clone())]);
    for (row, status) in rows.iter().zip([DocumentStatus::Completed, DocumentStatus::Failed]) {
        let document = Document { status: status.into(), ..row.document.clone() };
        // Whoever was overtaken may do it again: it counts once.
        for _ in 0..2 {
            store.settle_document(TENANT, &mine.id, &document, &row.revision, (4, 3)).await.unwrap();
        }
    }
    let now = store.get_ingestion(TENANT, &mine.id, &ingestion.id).await.unwrap();
    assert_eq!((now.documents, now.completed, now.failed, now.chunks, now.chunks_embedded), (3, 1, 1, 8, 6));
    // One is under way: it does not end by itself.
    store.end_ingestion(TENANT, &mine.id, &ingestion.id, false, &ids::now()).await.unwrap();
    assert_eq!(store.get_ingestion(TENANT, &mine.id, &ingestion.id).await.unwrap().ended, None);
    store.end_ingestion(TENANT, &mine.id, &ingestion.id, true, &ids::now()).await.unwrap();
    let ended = store.get_ingestion(TENANT, &mine.id, &ingestion.id).await.unwrap();
    assert_eq!((ended.status(), ended.completed, ended.failed, ended.cancelled), (DocumentStatus::Cancelled, 1, 1, 1));
    let cancelled = store.get_document(TENANT, &mine.id, "c").await.unwrap().document;
    assert_eq!(cancelled.status(), DocumentStatus::Cancelled);
    let list = DocumentList { ingestion_id: &ingestion.id, ..DocumentList::default() };
    assert_eq!(store.list_documents(TENANT, &mine.id, list, &ids::now()).await.unwrap().0.len(), 3);
    assert_eq!(store.get_ingestion("other", &mine.id, &ingestion.id).await.unwrap_err().code(), Code::NotFound);
}

async fn expired_documents_are_told(Fixture { store, .. }: &Fixture) {
    let mine = bank("ann");
    kept(store, &mine).await;
    let mut soon = ids::now();
    soon.seconds += 10;
    let row = inserted("soon", "x");
    let row = InsertedDocument { document: Document { expires: Some(soon), ..row.document }, ..row };
    store.put_documents(TENANT, &mine.id, &ann(), WORKER, vec![row, inserted("stays", "x")], None).await.unwrap();
    assert!(store.expired_documents(TENANT, &mine.id, &ids::now()).await.unwrap().is_empty());
    let mut later = soon;
    later.seconds += 1;
    assert_eq!(store.expired_documents(TENANT, &mine.id, &later).await.unwrap(), ["soon"]);
    let all = store.all_expired_documents(PROVIDER, &later).await.unwrap();
    assert_eq!(all, [(TENANT.to_owned(), mine.id.clone(), "soon".to_owned())]);
    let (listed, _) = store.list_documents(TENANT, &mine.id, DocumentList::default(), &later).await.unwrap();
    assert_eq!(listed.iter().map(|document| document.id.as_str()).collect::<Vec<_>>(), ["stays"]);
    // Settled with another end, or with none, that one counts.
    let there = store.get_document(TENANT, &mine.id, "soon").await.unwrap();
    let document = Document { expires: None, ..there.document };
    assert!(store.settle_document(TENANT, &mine.id, &document, &there.revision, (0, 0)).await.unwrap());
    assert!(store.expired_documents(TENANT, &mine.id, &later).await.unwrap().is_empty());
}

async fn documents_are_known_by_their_file(Fixture { store, .. }: &Fixture) {
    let (one, other) = (bank("ann"), bank("bob"));
    let of_file = |id: &str| {
        let mut made = inserted(id, "");
        made.document.content = Some(Content::FileId("file-1".into()));
        made
    };
    for bank in [&one, &other] {
        kept(store, bank).await;
        let documents = vec![of_file("file-1"), of_file("again"), inserted("words", "file-1")];
        store.put_documents(TENANT, &bank.id, &ann(), WORKER, documents, None).await.unwrap();
    }
    // In its place there is a text now; and a bank that is being deleted has nothing any more.
    store.put_documents(TENANT, &one.id, &ann(), WORKER, vec![inserted("again", "words")], None).await.unwrap();
    store.doom_bank(TENANT, PROVIDER, &other.id).await.unwrap();
    assert_eq!(store.documents_of_file(TENANT, "file-1").await.unwrap(), [(one.id.clone(), "file-1".to_owned())]);
    assert!(store.documents_of_file("other", "file-1").await.unwrap().is_empty());
}

async fn documents_that_were_handed_elsewhere_are_known_by_their_file(Fixture { store, .. }: &Fixture) {
    let of = |document: &str, file: &str| (document.to_owned(), file.to_owned());
    let known = async |file: &str| {
        let found = store.documents_of_file(TENANT, file).await.unwrap();
        found.into_iter().map(|(bank, document)| format!("{bank}/{document}")).collect::<Vec<String>>()
    };
    store.note_handed(TENANT, "far", vec![of("a", "file-far"), of("b", "file-far"), of("a", "file-other")]).await.unwrap();
    store.note_handed(TENANT, "far", vec![of("a", "file-far")]).await.unwrap();
    store.note_handed(TENANT, "gone", vec![of("a", "file-far")]).await.unwrap();
    assert_eq!(known("file-far").await, ["far/a", "far/b", "gone/a"]);
    store.forget_handed_bank(TENANT, "gone").await.unwrap();
    // What is in place of what it was made of before is the one's alone, or nobody's.
    store.settle_handed(TENANT, "far", vec![of("a", "file-other"), of("b", "")]).await.unwrap();
    assert!(known("file-far").await.is_empty());
    let of_both = [of("a", "file-other"), of("a", "file-far"), of("b", "file-far")];
    assert_eq!(store.handed_documents(TENANT, "far", &of_both).await.unwrap(), [of("a", "file-other")].into());
    store.forget_handed(TENANT, "far", vec![of("a", "file-far")]).await.unwrap();
    assert_eq!(known("file-other").await, ["far/a"]);
    store.forget_handed(TENANT, "far", vec![of("a", "")]).await.unwrap();
    assert!(known("file-other").await.is_empty());
}

async fn calls_to_forget_are_counted_and_each_tenants_newest_is_kept(Fixture { store, .. }: &Fixture) {
    let before = store.last_forgotten().await.unwrap();
    for (tenant, caller) in [("a", "one"), ("b", "two"), ("a", "three")] {
        store.note_forgotten(tenant, caller).await.unwrap();
    }
    let since = async |number: i64| {
        let calls = store.forgotten_since(before + number).await.unwrap();
        calls.into_iter().map(|call| (call.tenant, call.number - before, call.caller)).collect::<Vec<_>>()
    };
    let (second, third) = (("b".to_owned(), 2, "two".to_owned()), ("a".to_owned(), 3, "three".to_owned()));
    assert_eq!(since(0).await, [second, third.clone()]);
    assert_eq!(since(2).await, [third]);
    assert_eq!((since(3).await.len(), store.last_forgotten().await.unwrap()), (0, before + 3));
}

async fn an_owner_has_one_bank_for_a_purpose(Fixture { store, .. }: &Fixture) {
    let of = |owner: &str| Bank { purpose: "memory".into(), ..bank(owner) };
    let there = async |owner: &str| store.bank_for(TENANT, PROVIDER, owner, "memory", &ids::now()).await.unwrap().map(|bank| bank.id);
    let made: Vec<Bank> = (0..8).map(|_| of("ann")).collect();
    let first = futures::future::join_all(made.iter().map(|bank| store.insert_bank(TENANT, bank))).await;
    let first: Vec<String> =
        made.iter().zip(first).filter(|(_, first)| *first.as_ref().unwrap()).map(|(bank, _)| bank.id.clone()).collect();
    assert_eq!(first.len(), 1);
    assert_eq!(there("ann").await.as_ref(), first.first());
    // Another's, another provider's, and those that are for nothing are not in its way.
    let (bobs, elsewhere) = (of("bob"), Bank { provider_id: "qdrant".into(), ..of("ann") });
    for bank in [&bobs, &elsewhere, &bank("ann"), &bank("ann")] {
        kept(store, bank).await;
    }
    // One that has expired makes room, and so does one that is deleted.
    let before = ids::now().seconds - 100;
    let over = Some(prost_types::Timestamp { seconds: before, nanos: 0 });
    let expired = Bank { purpose: "a while".into(), last_active: over, expires_after_seconds: 10, ..bank("ann") };
    kept(store, &expired).await;
    assert!(store.bank_for(TENANT, PROVIDER, "ann", "a while", &ids::now()).await.unwrap().is_none());
    kept(store, &Bank { purpose: "a while".into(), ..bank("ann") }).await;
    assert_eq!(store.get_bank(TENANT, PROVIDER, &expired.id).await.unwrap_err().code(), Code::NotFound);
    store.doom_bank(TENANT, PROVIDER, &first[0]).await.unwrap();
    assert_eq!(there("ann").await, None);
    let next = of("ann");
    kept(store, &next).await;
    // Who takes another's over keeps their own for it.
    store.hand_over(TENANT, "ann", "bob", false).await.unwrap();
    assert_eq!((there("bob").await, there("ann").await), (Some(bobs.id), None));
    let given = store.get_bank(TENANT, PROVIDER, &next.id).await.unwrap();
    assert_eq!((given.owner.as_str(), given.purpose.as_str()), ("bob", ""));
}

/// Banks that are older than purposes have theirs in their metadata.
async fn who_takes_over_anothers_banks_keeps_their_own_for_a_purpose_though_it_only_says_so(Fixture { store, .. }: &Fixture) {
    let (name, purpose) = PERSONAL_MEMORY;
    let said = |owner: &str| Bank { metadata: [(name.to_owned(), purpose.to_owned())].into(), ..bank(owner) };
    let there = async |owner: &str| store.bank_for(TENANT, PROVIDER, owner, purpose, &ids::now()).await.unwrap().map(|bank| bank.id);
    // Bob's are old, a copy among them; Ann's is not; and Eve, who has none, takes it over from Bob in the end.
    let (anns, bobs) = (Bank { purpose: purpose.into(), ..said("ann") }, said("bob"));
    for bank in [&anns, &bobs, &said("bob"), &bank("bob")] {
        kept(store, bank).await;
    }
    assert_eq!((there("ann").await.as_ref(), there("bob").await), (Some(&anns.id), None));
    store.hand_over(TENANT, "ann", "bob", false).await.unwrap();
    assert_eq!(there("bob").await.as_ref(), Some(&bobs.id));
    assert_eq!(store.get_bank(TENANT, PROVIDER, &anns.id).await.unwrap().purpose, "");
    store.hand_over(TENANT, "bob", "eve", false).await.unwrap();
    assert_eq!((there("eve").await, there("bob").await), (Some(bobs.id), None));
}
