//! What journals quote of documents goes with the documents: on a file, in memory and on Postgres.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[macro_use]
mod fixture;

use fixture::{Fixture, TENANT, begin};
use llama_stack_core::ids;
use llama_stack_proto::v1::{
    Bank, Citation, Document, InferenceStep, Message, Part, Role, SearchResult, Step, ToolResult, ToolStep, Turn, TurnEvent,
    TurnStatus::{self, Completed, InProgress},
    step,
    turn_event::Event,
};
use llama_stack_store::{Author, InsertedDocument, Store};

on!(sqlite, memory, postgres: [
    a_deleted_document_is_quoted_in_no_journal_and_the_journals_stay,
    what_a_turn_under_way_still_writes_of_it_is_cleaned,
    a_deleted_bank_is_quoted_in_no_journal,
    what_was_found_just_before_the_bank_went_is_not_written,
    what_was_found_of_a_document_that_has_come_again_since_is_not_written,
]);

mod on_disk {
    use super::{a_deleted_document_is_in_no_page_of_the_file, fixture};

    on!(sqlite: [a_deleted_document_is_in_no_page_of_the_file]);
}

/// A search that found a passage of either document, and an answer that cites both.
fn steps() -> Vec<Step> {
    let found = |document: &str, number| SearchResult {
        bank_id: "b".into(),
        document_id: document.into(),
        filename: format!("{document}.txt"),
        text: format!("secret of {document}\n"),
        number,
        ..SearchResult::default()
    };
    let retrieved =
        |document: &str| Part::text(format!("{document}.txt: secret of {document} [1]")).with_provenance(format!("retrieved:b/{document}"));
    let unlabelled = Part::text("found: secret of one, secret of two");
    let result = ToolResult {
        parts: vec![unlabelled, retrieved("one"), retrieved("two")],
        search_results: vec![found("one", 1), found("two", 2)],
        ..ToolResult::default()
    };
    let cited = |document: &str| Citation {
        bank_id: "b".into(),
        document_id: document.into(),
        quote: format!("secret of {document}"),
        filename: format!("{document}.txt"),
        ..Citation::default()
    };
    let said = Message::new(Role::Assistant, vec![Part { citations: vec![cited("one"), cited("two")], ..Part::text("so it is [1][2]") }]);
    let kinds = [
        step::Step::Tool(ToolStep { result: Some(result), ..ToolStep::default() }),
        step::Step::Inference(InferenceStep { message: Some(said), ..InferenceStep::default() }),
    ];
    kinds.map(|kind| Step { id: ids::new("step"), step: Some(kind), ..Step::default() }).into()
}

fn event(turn_id: &str, sequence: u64, event: Event) -> TurnEvent {
    TurnEvent { turn_id: turn_id.into(), sequence, time: Some(ids::now()), event: Some(event) }
}

fn end(turn_id: &str, sequence: u64) -> TurnEvent {
    let turn = Turn { id: turn_id.into(), status: Completed.into(), steps: steps(), ..Turn::default() };
    event(turn_id, sequence, Event::Ended(Box::new(turn)))
}

async fn append(store: &Store, turn: &str, events: &[TurnEvent], status: TurnStatus) {
    store.append(TENANT, turn, 1, events, status).await.unwrap();
}

async fn with_steps(store: &Store) -> String {
    let turn = begin(store, TENANT).await;
    let [search, answer] = steps().try_into().unwrap();
    append(store, &turn, &[event(&turn, 2, Event::StepCompleted(search)), event(&turn, 3, Event::StepCompleted(answer))], InProgress).await;
    turn
}

/// How often these words are in it, and how many events there are.
async fn told(store: &Store, turn: &str, words: &str) -> (usize, usize) {
    let journal = store.journal(TENANT, turn, 0).await.unwrap();
    (format!("{journal:?}").matches(words).count(), journal.len())
}

async fn delete(store: &Store, document: &str) {
    store.delete_documents(TENANT, "b", &[document.to_owned()]).await.unwrap();
}

async fn a_deleted_document_is_quoted_in_no_journal_and_the_journals_stay(Fixture { store, .. }: &Fixture) {
    let turn = with_steps(store).await;
    append(store, &turn, &[end(&turn, 4)], Completed).await;
    let other = with_steps(store).await;
    let all = told(store, &turn, "secret of two").await;
    assert!(all.0 >= 8 && told(store, &turn, "secret of one").await == all);
    delete(store, "one").await;
    for (turn, events) in [(&turn, 4), (&other, 3)] {
        assert_eq!(told(store, turn, "secret of one").await, (0, events));
        assert_eq!(told(store, turn, "one.txt").await.0, 0);
        assert_eq!(store.erased_quotes(TENANT, turn).await.unwrap(), 1);
    }
    assert_eq!(told(store, &turn, "secret of two").await, all);
    assert_eq!(told(store, &turn, "so it is [1][2]").await.0, 2, "what the turn said stays");
    delete(store, "two").await;
    assert_eq!(told(store, &turn, "secret").await, (0, 4));
    // Who asks again what was cut off is told the same.
    let were_quoted = async |document: &str| store.forget_quotes(TENANT, "b", &[document.to_owned()]).await.unwrap();
    assert_eq!((were_quoted("one").await, were_quoted("three").await), (true, false));
}

async fn what_a_turn_under_way_still_writes_of_it_is_cleaned(Fixture { store, .. }: &Fixture) {
    let turn = with_steps(store).await;
    delete(store, "one").await;
    append(store, &turn, &[end(&turn, 4)], Completed).await;
    assert_eq!(told(store, &turn, "secret of one").await, (0, 4));
    assert!(told(store, &turn, "secret of two").await.0 >= 8);
}

async fn a_deleted_bank_is_quoted_in_no_journal(Fixture { store, .. }: &Fixture) {
    let turn = with_steps(store).await;
    store.delete_bank(TENANT, "sqlite", "b").await.unwrap();
    assert_eq!(told(store, &turn, "secret").await, (0, 3));
}

async fn insert_bank(store: &Store) {
    let now = Some(ids::now());
    let bank =
        Bank { id: "b".into(), provider_id: "sqlite".into(), owner: "ann".into(), created: now, last_active: now, ..Bank::default() };
    store.insert_bank(TENANT, &bank).await.unwrap();
}

async fn what_was_found_just_before_the_bank_went_is_not_written(Fixture { store, .. }: &Fixture) {
    insert_bank(store).await;
    store.doom_bank(TENANT, "sqlite", "b").await.unwrap();
    let doomed = with_steps(store).await;
    store.delete_bank(TENANT, "sqlite", "b").await.unwrap();
    let deleted = with_steps(store).await;
    for turn in [doomed, deleted] {
        assert_eq!(told(store, &turn, "secret").await, (0, 3));
    }
}

/// Nor what an answer cites of an earlier turn; and a turn that searches afterwards finds the one that has come.
async fn what_was_found_of_a_document_that_has_come_again_since_is_not_written(Fixture { store, .. }: &Fixture) {
    insert_bank(store).await;
    let insert = async |id: &str| {
        let document = Document { id: id.into(), created: Some(ids::now()), ..Document::default() };
        let inserted = InsertedDocument { document, revision: ids::new("rev") };
        store.put_documents(TENANT, "b", &Author::default(), "worker", vec![inserted], None).await.unwrap();
    };
    insert("one").await;
    insert("two").await;
    let intend = async |turn: &str| {
        let [search, answer]: [Step; 2] = steps().try_into().unwrap();
        let intent = Step { step: Some(step::Step::Tool(ToolStep::default())), ..search.clone() };
        append(store, turn, &[event(turn, 2, Event::StepStarted(intent))], InProgress).await;
        [search, answer]
    };
    let finish = async |turn: &str, [search, answer]: [Step; 2]| {
        append(store, turn, &[event(turn, 3, Event::StepCompleted(search))], InProgress).await;
        append(store, turn, &[event(turn, 4, Event::StepCompleted(answer))], InProgress).await;
        append(store, turn, &[end(turn, 5)], Completed).await;
    };
    let (early, citing, late) = (begin(store, TENANT).await, begin(store, TENANT).await, begin(store, TENANT).await);
    let found_early = intend(&early).await;
    delete(store, "one").await;
    insert("one").await;
    let found_late = intend(&late).await;
    finish(&early, found_early).await;
    finish(&late, found_late).await;
    let [_, answer]: [Step; 2] = steps().try_into().unwrap();
    append(store, &citing, &[event(&citing, 2, Event::StepCompleted(answer))], InProgress).await;
    assert_eq!(told(store, &early, "secret of one").await, (0, 5));
    assert!(told(store, &early, "secret of two").await.0 >= 8);
    assert!(told(store, &late, "secret of one").await.0 >= 8);
    assert_eq!((told(store, &citing, "secret of one").await.0, told(store, &citing, "secret of two").await.0), (0, 1));
}

async fn a_deleted_document_is_in_no_page_of_the_file(Fixture { store, url, .. }: &Fixture) {
    let turn = with_steps(store).await;
    append(store, &turn, &[end(&turn, 4)], Completed).await;
    let folder = std::path::Path::new(url.trim_start_matches("sqlite://")).parent().unwrap().to_owned();
    let there = |words: &str| {
        let files = std::fs::read_dir(&folder).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap_or_default());
        files.into_iter().any(|bytes| bytes.windows(words.len()).any(|window| window == words.as_bytes()))
    };
    assert!(there("secret of one") && there("secret of two"));
    delete(store, "one").await;
    assert!(!there("secret of one") && there("secret of two"));
}
