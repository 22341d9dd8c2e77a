//! Batches and daily usage: who runs, what is kept, and what is counted, on every kind of database.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

#[macro_use]
mod fixture;

use fixture::{Fixture, TENANT, later, of};
use llama_stack_core::{Code, ids};
use llama_stack_proto::v1::{Batch, BatchStatus, BatchUsage, Caller, File};
use llama_stack_store::{BatchLine, DailyUsage, HeldBatch, LineResults, LineUsage};
use prost_types::Timestamp;

on!(sqlite, memory, postgres: [
    a_batch_goes_to_one_and_an_old_owner_is_refused,
    a_lines_first_answer_stays_and_is_counted_once,
    what_answers_used_is_added_up_once,
    a_cancel_is_not_overruled,
    a_batch_that_has_ended_can_be_forgotten_and_one_that_runs_cannot,
    a_persons_batches_are_forgotten_while_they_run_and_their_runner_is_refused,
    what_a_batch_reads_is_there_until_it_has_ended_whatever_its_time,
    usage_adds_up,
    what_others_added_lately_is_found_without_asking_for_each,
]);

async fn made(fixture: &Fixture) -> Batch {
    let status = BatchStatus::Validating.into();
    let batch = Batch { id: ids::new("batch"), owner: "ann".into(), status, created: Some(ids::now()), ..Batch::default() };
    let author = Caller { principal: "ann".into(), tenant: TENANT.into(), roles: vec!["dev".into(), "ops".into()], ..Caller::default() };
    fixture.store.insert_batch(&batch, &author).await.unwrap();
    batch
}

async fn claimed(fixture: &Fixture) -> HeldBatch {
    made(fixture).await;
    fixture.store.claim_batches(of("one"), 1).await.unwrap().pop().unwrap()
}

fn answer(line: u64, failed: bool, text: &str) -> BatchLine {
    BatchLine { line, failed, body: text.into() }
}

async fn a_batch_goes_to_one_and_an_old_owner_is_refused(fixture: &Fixture) {
    let store = &fixture.store;
    let (first, second) = (made(fixture).await, made(fixture).await);
    let one = store.claim_batches(of("one"), 1).await.unwrap();
    assert_eq!((one.len(), one[0].batch_id.as_str(), one[0].epoch), (1, first.id.as_str(), 1), "the oldest goes first");
    let other = store.claim_batches(of("other"), 10).await.unwrap();
    assert_eq!(other.iter().map(|held| &held.batch_id).collect::<Vec<_>>(), [&second.id]);
    assert!(store.claim_batches(of("third"), 10).await.unwrap().is_empty());
    assert_eq!(store.renew_batches(of("one")).await.unwrap(), one);
    let (batch, author) = store.batch_and_author(TENANT, &first.id, "ann").await.unwrap();
    assert_eq!((author.principal.as_str(), author.roles.len()), ("ann", 2));

    // The lease runs out, and another takes it.
    let taken = store.claim_batches(later("third", 120), 1).await.unwrap();
    assert_eq!((taken[0].batch_id.as_str(), taken[0].epoch), (first.id.as_str(), 2));
    let refused = store.record_batch_line(&one[0], answer(1, false, "late"), LineUsage::default()).await.unwrap_err();
    assert_eq!((refused.code(), refused.reason()), (Code::Aborted, Some("lease_lost")));
    assert_eq!(store.advance_batch(&one[0], &batch).await.unwrap_err().reason(), Some("lease_lost"));
    assert!(store.renew_batches(of("one")).await.unwrap().is_empty());
    // What is given up is anybody's at once; what ended is nobody's.
    store.release_batch(&taken[0]).await.unwrap();
    let again = store.claim_batches(of("one"), 10).await.unwrap();
    let ended = Batch { status: BatchStatus::Completed.into(), ..batch };
    assert_eq!(store.advance_batch(&again[0], &ended).await.unwrap().status(), BatchStatus::Completed);
    assert!(store.claim_batches(later("x", 600), 10).await.unwrap().iter().all(|held| held.batch_id != first.id));
}

async fn a_lines_first_answer_stays_and_is_counted_once(fixture: &Fixture) {
    let (store, held) = (&fixture.store, claimed(fixture).await);
    for line in [answer(2, false, "two"), answer(1, false, "one"), answer(3, true, "three"), answer(2, true, "again")] {
        assert_eq!(store.record_batch_line(&held, line, LineUsage::default()).await.unwrap(), BatchStatus::Validating);
    }
    let batch = store.get_batch(TENANT, &held.batch_id, "").await.unwrap();
    assert_eq!((batch.completed, batch.failed), (2, 1));
    let mut lines = store.recorded_batch_lines(&held).await.unwrap();
    lines.sort_unstable();
    assert_eq!(lines, [1, 2, 3]);
    let read = async |failed, after| store.batch_results(&held, LineResults { failed, after, limit: 1 }).await.unwrap();
    assert_eq!(read(false, 0).await, [answer(1, false, "one")]);
    assert_eq!(read(false, 1).await, [answer(2, false, "two")]);
    assert_eq!((read(false, 2).await, read(true, 0).await), (vec![], vec![answer(3, true, "three")]));
    // At the end they are in files, and here no more.
    store.advance_batch(&held, &Batch { status: BatchStatus::Completed.into(), total: 3, ..batch }).await.unwrap();
    assert!(store.recorded_batch_lines(&held).await.unwrap().is_empty());
    let batch = store.get_batch(TENANT, &held.batch_id, "ann").await.unwrap();
    assert_eq!((batch.total, batch.completed, batch.failed), (3, 2, 1));
    assert_eq!(store.get_batch(TENANT, &held.batch_id, "bob").await.unwrap_err().code(), Code::NotFound);
}

fn used(model: &str, input: u64) -> LineUsage {
    let tokens = BatchUsage { input_tokens: input, cached_tokens: 1, output_tokens: 2, reasoning_tokens: 1 };
    LineUsage { tokens, model: model.into() }
}

async fn what_answers_used_is_added_up_once(fixture: &Fixture) {
    let (store, held) = (&fixture.store, claimed(fixture).await);
    let now = async || store.get_batch(TENANT, &held.batch_id, "").await.unwrap();
    assert_eq!((now().await.usage, now().await.model.as_str()), (Some(BatchUsage::default()), ""));
    let record = async |line, used| store.record_batch_line(&held, answer(line, false, "said"), used).await.unwrap();
    record(1, used("m", 10)).await;
    record(2, LineUsage::default()).await;
    record(3, used("m", 5)).await;
    // Its answer is there: what a second one used is not this line's.
    record(3, used("other", 1_000)).await;
    let wanted = BatchUsage { input_tokens: 15, cached_tokens: 2, output_tokens: 4, reasoning_tokens: 2 };
    assert_eq!((now().await.usage, now().await.model.as_str()), (Some(wanted), "m"));
    // Whoever goes on with it goes on with its sums, and a step of the batch leaves them.
    let taken = store.claim_batches(later("another", 120), 1).await.unwrap().pop().unwrap();
    store.advance_batch(&taken, &Batch { status: BatchStatus::InProgress.into(), ..Batch::default() }).await.unwrap();
    store.record_batch_line(&taken, answer(4, false, "said"), used("other", u64::MAX)).await.unwrap();
    let batch = &store.list_batches(TENANT, "", "", 1).await.unwrap()[0];
    assert_eq!(batch.usage.as_ref().unwrap().input_tokens, 15 + u64::from(u32::MAX));
    assert_eq!(batch.model, "", "two models have answered");
    store.record_batch_line(&taken, answer(5, false, "said"), used("m", 0)).await.unwrap();
    assert_eq!(now().await.model, "");
}

async fn a_cancel_is_not_overruled(fixture: &Fixture) {
    let (store, held) = (&fixture.store, claimed(fixture).await);
    let batch = store.get_batch(TENANT, &held.batch_id, "").await.unwrap();
    assert_eq!(store.cancel_batch(TENANT, &held.batch_id, "bob").await.unwrap_err().code(), Code::NotFound);
    let cancelled = store.cancel_batch(TENANT, &held.batch_id, "ann").await.unwrap();
    assert_eq!(cancelled.status(), BatchStatus::Cancelling);
    // Whoever runs it does not know yet, and goes a step on.
    let on = Batch { status: BatchStatus::InProgress.into(), total: 5, ..batch };
    let told = store.advance_batch(&held, &on).await.unwrap();
    assert_eq!((told.status(), told.total, told.cancelling), (BatchStatus::Cancelling, 5, cancelled.cancelling));
    assert_eq!(store.record_batch_line(&held, answer(1, false, "one"), LineUsage::default()).await.unwrap(), BatchStatus::Cancelling);
    assert_eq!(store.renew_batches(of("one")).await.unwrap()[0].status, BatchStatus::Cancelling);
    let end = Batch { status: BatchStatus::Cancelled.into(), ..told };
    assert_eq!(store.advance_batch(&held, &end).await.unwrap().status(), BatchStatus::Cancelled);
    assert_eq!(store.cancel_batch(TENANT, &held.batch_id, "ann").await.unwrap().status(), BatchStatus::Cancelled);
}

async fn a_batch_that_has_ended_can_be_forgotten_and_one_that_runs_cannot(fixture: &Fixture) {
    let (store, held) = (&fixture.store, claimed(fixture).await);
    let batch = store.get_batch(TENANT, &held.batch_id, "").await.unwrap();
    store.advance_batch(&held, &Batch { status: BatchStatus::Completed.into(), ..batch }).await.unwrap();
    let running = made(fixture).await.id;
    let before = async |seconds: i64| {
        let then = Timestamp { seconds: ids::now().seconds + seconds, nanos: 0 };
        store
            .batches_before(&then, None, None)
            .await
            .unwrap()
            .into_iter()
            .map(|aged| (aged.tenant, aged.id, aged.owner))
            .collect::<Vec<_>>()
    };
    assert!(before(-60).await.is_empty());
    assert_eq!(before(60).await, [(TENANT.to_owned(), held.batch_id.clone(), "ann".to_owned())]);
    for id in [&held.batch_id, &running] {
        store.forget_batch(TENANT, id).await.unwrap();
    }
    assert_eq!(store.get_batch(TENANT, &held.batch_id, "").await.unwrap_err().code(), Code::NotFound);
    assert!(store.get_batch(TENANT, &running, "").await.is_ok());
}

async fn a_persons_batches_are_forgotten_while_they_run_and_their_runner_is_refused(fixture: &Fixture) {
    let (store, held) = (&fixture.store, claimed(fixture).await);
    store.record_batch_line(&held, answer(1, false, "one"), LineUsage::default()).await.unwrap();
    assert_eq!((store.forget_batches(TENANT, Some("bob")).await.unwrap(), store.forget_batches("other", None).await.unwrap()), (0, 0));
    assert!(store.get_batch(TENANT, &held.batch_id, "").await.is_ok());
    assert_eq!(store.forget_batches(TENANT, Some("ann")).await.unwrap(), 1);
    assert_eq!(store.get_batch(TENANT, &held.batch_id, "").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(
        store.record_batch_line(&held, answer(2, false, "two"), LineUsage::default()).await.unwrap_err().reason(),
        Some("lease_lost")
    );
    assert!(store.recorded_batch_lines(&held).await.unwrap().is_empty());
}

async fn what_a_batch_reads_is_there_until_it_has_ended_whatever_its_time(fixture: &Fixture) {
    let store = &fixture.store;
    let over = || File { id: ids::new("file"), expires: Some(Timestamp { seconds: 1, nanos: 0 }), ..File::default() };
    let (input, other) = (over(), over());
    for (tenant, file) in [(TENANT, &input), (TENANT, &other), ("other", &input)] {
        store.insert_file(tenant, file, "blob").await.unwrap();
    }
    let status = BatchStatus::Validating.into();
    // What it only names, it does not read.
    let metadata = [("file".to_owned(), other.id.clone())].into();
    let (id, input_file_id) = (ids::new("batch"), input.id.clone());
    let batch = Batch { id, input_file_id, status, created: Some(ids::now()), metadata, ..Batch::default() };
    store.insert_batch(&batch, &Caller { principal: "ann".into(), tenant: TENANT.into(), ..Caller::default() }).await.unwrap();
    let is_there = async |tenant: &str, file: &File| store.get_file(tenant, &file.id, "").await.is_ok();
    assert!(store.is_batch_input(TENANT, &input.id).await.unwrap() && is_there(TENANT, &input).await);
    assert!(!is_there(TENANT, &other).await && !is_there("other", &input).await);
    assert!(!store.is_batch_input(TENANT, &other.id).await.unwrap() && !store.is_batch_input("other", &input.id).await.unwrap());
    let held = store.claim_batches(of("one"), 1).await.unwrap().pop().unwrap();
    store.advance_batch(&held, &Batch { status: BatchStatus::Completed.into(), ..batch }).await.unwrap();
    assert!(!store.is_batch_input(TENANT, &input.id).await.unwrap() && !is_there(TENANT, &input).await);
}

async fn usage_adds_up(fixture: &Fixture) {
    let store = &fixture.store;
    let used = |principal: &str, day, tokens| DailyUsage {
        tenant: TENANT.into(),
        principal: principal.into(),
        day,
        tokens,
        cost_micros: tokens * 2,
        requests: 1,
    };
    store.add_usage(vec![used("ann", 5, 10), used("", 5, 10)], 100).await.unwrap();
    store.add_usage(vec![used("", 5, 7), used("bob", 5, 7), used("ann", 6, 1)], 200).await.unwrap();
    assert_eq!(store.daily_usage(TENANT, "", 5).await.unwrap(), DailyUsage { requests: 2, ..used("", 5, 17) });
    assert_eq!(store.daily_usage(TENANT, "ann", 5).await.unwrap(), used("ann", 5, 10));
    assert_eq!(store.daily_usage("other", "ann", 5).await.unwrap().tokens, 0);
    store.forget_usage(6).await.unwrap();
    assert_eq!(store.daily_usage(TENANT, "ann", 5).await.unwrap().tokens, 0);
    assert_eq!(store.daily_usage(TENANT, "ann", 6).await.unwrap().tokens, 1);
}

async fn what_others_added_lately_is_found_without_asking_for_each(fixture: &Fixture) {
    let store = &fixture.store;
    let used = |principal: &str, day, requests| DailyUsage {
        tenant: TENANT.into(),
        principal: principal.into(),
        day,
        requests,
        ..DailyUsage::default()
    };
    store.add_usage(vec![used("ann", 5, 1), used("bob", 5, 1), used("ann", 6, 1)], 100).await.unwrap();
    store.add_usage(vec![used("ann", 5, 3)], 200).await.unwrap();
    let changed = async |since| {
        let mut changed = store.usage_changed(since, 5).await.unwrap();
        changed.sort_unstable_by(|a, b| a.principal.cmp(&b.principal));
        changed
    };
    assert_eq!(changed(100).await, [used("ann", 5, 4), used("bob", 5, 1)]);
    assert_eq!(changed(101).await, [used("ann", 5, 4)], "the sum, whoever added to it");
    assert!(changed(201).await.is_empty());
}
