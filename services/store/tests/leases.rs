//! Who runs a turn: one owner at a time, and the right to write goes with the epoch.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[macro_use]
mod fixture;

use fixture::{Fixture, TENANT, begin, begin_in, created, ended, holder, later, of, session, step};
use llama_stack_core::Code;
use llama_stack_proto::v1::{
    TurnEvent,
    TurnStatus::{AwaitingTools, Cancelled, InProgress},
    turn_event::Event,
};
use llama_stack_store::{BeginTurn, Claimed, Held, Store, TurnList};

on!(sqlite, memory, postgres: [
    a_turn_is_claimed_once_its_lease_has_run_out,
    a_stale_owner_is_refused,
    of_many_claimers_each_turn_goes_to_one,
    a_renewed_lease_is_not_claimed,
    a_turn_that_rests_is_nobodys,
    who_takes_a_turn_continues_its_journal_or_is_refused,
    what_is_released_is_claimed_at_once,
    called_turns_are_no_history_and_go_with_their_caller,
    a_stale_owner_deletes_nothing,
]);

mod on_disk {
    use super::{an_opened_database_keeps_its_leases, fixture};

    on!(postgres: [an_opened_database_keeps_its_leases]);
}

fn refused<T: std::fmt::Debug>(result: llama_stack_core::Result<T>) -> (Code, String) {
    let error = result.unwrap_err();
    (error.code(), error.reason().unwrap_or_default().to_owned())
}

fn lost() -> (Code, String) {
    (Code::Aborted, "lease_lost".to_owned())
}

fn held(turn_id: &str, epoch: i64) -> Held {
    Held { tenant: TENANT.into(), turn_id: turn_id.into(), epoch }
}

async fn claimed(store: &Store, owner: &str, seconds: i64) -> Vec<(String, i64)> {
    let claimed = store.claim(later(owner, seconds), 100).await.unwrap();
    claimed.into_iter().map(|Claimed { held, .. }| (held.turn_id, held.epoch)).collect()
}

async fn a_turn_is_claimed_once_its_lease_has_run_out(Fixture { store, .. }: &Fixture) {
    let session = session("");
    store.put_session(TENANT, &session).await.unwrap();
    let turns = [begin_in(store, &session.id).await, begin_in(store, &session.id).await, begin_in(store, &session.id).await];
    store.append(TENANT, &turns[0], 1, &[step(&turns[0], 2, "s")], InProgress).await.unwrap();
    assert_eq!(claimed(store, "other", 50).await, [], "the leases hold for 60 s");
    assert_eq!(claimed(store, "me", 70).await, [], "an owner does not take its own");
    let first = store.claim(later("other", 70), 2).await.unwrap();
    let expected = [(0, 2), (1, 1)].map(|(n, sequence)| Claimed { held: held(&turns[n], 2), session_id: session.id.clone(), sequence });
    assert_eq!(first, expected);
    assert_eq!(claimed(store, "third", 70).await, [(turns[2].clone(), 2)]);
    assert_eq!(claimed(store, "other", 70).await, []);
    assert_eq!(claimed(store, "third", 140).await, [(turns[0].clone(), 3), (turns[1].clone(), 3)]);
}

async fn a_stale_owner_is_refused(Fixture { store, .. }: &Fixture) {
    let turn = &begin(store, TENANT).await;
    assert_eq!(claimed(store, "other", 70).await, [(turn.clone(), 2)]);
    assert_eq!(refused(store.append(TENANT, turn, 1, &[step(turn, 2, "late")], InProgress).await), lost());
    assert_eq!(refused(store.append(TENANT, turn, 1, &[ended(turn, 2)], Cancelled).await), lost());
    store.append(TENANT, turn, 2, &[step(turn, 2, "good")], InProgress).await.unwrap();
    assert_eq!(refused(store.append(TENANT, turn, 1, &[step(turn, 3, "late")], InProgress).await), lost());
    store.append(TENANT, turn, 2, &[ended(turn, 3)], Cancelled).await.unwrap();
    let numbers: Vec<u64> = store.journal(TENANT, turn, 0).await.unwrap().iter().map(|event| event.sequence).collect();
    assert_eq!(numbers, [1, 2, 3]);
    assert_eq!(refused(store.append(TENANT, "none", 1, &[step("none", 2, "s")], InProgress).await).0, Code::NotFound);
}

async fn of_many_claimers_each_turn_goes_to_one(Fixture { store, .. }: &Fixture) {
    let mut turns = Vec::new();
    for _ in 0..40 {
        turns.push(begin(store, TENANT).await);
    }
    let claimers = (0..8).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            let owner = format!("claimer {n}");
            let mut mine = Vec::new();
            loop {
                let more = store.claim(later(&owner, 70), 3).await.unwrap();
                if more.is_empty() {
                    return mine;
                }
                assert!(more.len() <= 3);
                mine.extend(more.into_iter().map(|claimed| (claimed.held.turn_id, claimed.held.epoch)));
            }
        })
    });
    let mut all = Vec::new();
    for claimer in claimers.collect::<Vec<_>>() {
        all.extend(claimer.await.unwrap());
    }
    // A claimer that found its choice taken stops early; what it left is still there to be claimed.
    all.extend(claimed(store, "the last", 70).await);
    all.sort();
    assert_eq!(all, turns.into_iter().map(|turn| (turn, 2)).collect::<Vec<_>>());
}

async fn a_renewed_lease_is_not_claimed(Fixture { store, .. }: &Fixture) {
    let (turn, theirs) = (begin(store, TENANT).await, begin(store, "other tenant").await);
    let mut renewed = store.renew(later("me", 50)).await.unwrap();
    renewed.sort_by(|a, b| a.turn_id.cmp(&b.turn_id));
    let other = Held { tenant: "other tenant".into(), ..held(&theirs, 1) };
    assert_eq!(renewed, [held(&turn, 1), other]);
    assert_eq!(claimed(store, "other", 100).await, []);
    assert_eq!(store.renew(later("nobody", 50)).await.unwrap(), []);
    // Even a lease that has run out is renewed, as long as nobody else has taken the turn.
    assert_eq!(store.renew(later("me", 500)).await.unwrap().len(), 2);
    assert_eq!(claimed(store, "other", 600).await.len(), 2);
    assert_eq!(store.renew(later("me", 610)).await.unwrap(), []);
    assert_eq!(store.renew(later("other", 610)).await.unwrap().len(), 2);
}

async fn a_turn_that_rests_is_nobodys(Fixture { store, .. }: &Fixture) {
    let (waits, done) = (begin(store, TENANT).await, begin(store, TENANT).await);
    store.append(TENANT, &waits, 1, &[step(&waits, 2, "s")], AwaitingTools).await.unwrap();
    store.append(TENANT, &done, 1, &[ended(&done, 2)], Cancelled).await.unwrap();
    assert_eq!(store.renew(of("me")).await.unwrap(), []);
    assert_eq!(claimed(store, "other", 700).await, []);
}

async fn who_takes_a_turn_continues_its_journal_or_is_refused(Fixture { store, .. }: &Fixture) {
    let turn = &begin(store, TENANT).await;
    store.append(TENANT, turn, 1, &[step(turn, 2, "s")], AwaitingTools).await.unwrap();
    let behind = store.take(TENANT, turn, of("other"), &[step(turn, 2, "x")], InProgress).await;
    assert_eq!(refused(behind), (Code::Aborted, "sequence_taken".to_owned()));
    // Of several that take it at once, one does.
    let takers = (0..6).map(|n| {
        let (store, turn) = (store.clone(), turn.clone());
        tokio::spawn(async move { store.take(TENANT, &turn, of(&format!("taker {n}")), &[step(&turn, 3, "r")], InProgress).await })
    });
    let mut epochs = Vec::new();
    for taker in takers.collect::<Vec<_>>() {
        match taker.await.unwrap() {
            Ok(epoch) => epochs.push(epoch),
            Err(error) => assert_eq!(error.reason(), Some("sequence_taken")),
        }
    }
    assert_eq!(epochs, [2]);
    assert_eq!(claimed(store, "other", 50).await, [], "it has a lease of its own");
    // One that another runs is taken as well: the other's next write is refused.
    assert_eq!(store.take(TENANT, turn, of("canceller"), &[ended(turn, 4)], Cancelled).await.unwrap(), 3);
    assert_eq!(refused(store.append(TENANT, turn, 2, &[step(turn, 4, "late")], InProgress).await), lost());
    let again = store.take(TENANT, turn, of("canceller"), &[step(turn, 5, "x")], InProgress).await;
    assert_eq!(refused(again), (Code::FailedPrecondition, "turn_ended".to_owned()));
    assert_eq!(refused(store.take("other", turn, of("me"), &[step(turn, 5, "x")], InProgress).await).0, Code::NotFound);
}

async fn what_is_released_is_claimed_at_once(Fixture { store, .. }: &Fixture) {
    let (first, second) = (begin(store, TENANT).await, begin(store, TENANT).await);
    store.release_turn(&held(&first, 7)).await.unwrap();
    assert_eq!(claimed(store, "other", 1).await, [], "held under another epoch");
    store.release_turn(&held(&first, 1)).await.unwrap();
    assert_eq!(claimed(store, "other", 1).await, [(first.clone(), 2)]);
    assert_eq!(store.release_all("me").await.unwrap(), [held(&second, 1)]);
    assert_eq!(store.release_all("me").await.unwrap(), []);
    assert_eq!(claimed(store, "me", 1).await, [(second.clone(), 2)]);
    assert_eq!(refused(store.append(TENANT, &second, 1, &[step(&second, 2, "late")], InProgress).await), lost());
}

/// A turn that answers a tool call of another.
async fn called(store: &Store, session_id: &str, caller: &str) -> String {
    let mut created = created(session_id);
    if let Some(Event::Created(turn)) = &mut created.event {
        turn.caller_turn_id = caller.into();
    }
    store
        .begin_turn(TENANT, BeginTurn { holder: holder(), created: &created, api_key: "", idempotency: None, new_session: None })
        .await
        .unwrap();
    created.turn_id
}

async fn called_turns_are_no_history_and_go_with_their_caller(Fixture { store, .. }: &Fixture) {
    let session = session("");
    store.put_session(TENANT, &session).await.unwrap();
    let (first, second) = (begin_in(store, &session.id).await, begin_in(store, &session.id).await);
    let child = called(store, &session.id, &first).await;
    let sibling = called(store, &session.id, &first).await;
    let mut deep = vec![child.clone()];
    while deep.len() < 8 {
        deep.push(called(store, &session.id, deep.last().unwrap()).await);
    }
    let others = called(store, &session.id, &second).await;
    assert_eq!(store.newest_turn_id(TENANT, &session.id).await.unwrap(), Some(second.clone()));
    let (listed, _) = store.turn_ids(TENANT, page_of(&session.id, 0, "")).await.unwrap();
    assert_eq!(listed, [first.clone(), second.clone()]);

    let there = async |id: &String| store.journal(TENANT, id, 0).await.map(|events: Vec<TurnEvent>| events.len());
    assert_eq!(there(&child).await.unwrap(), 1);
    store.delete_turn(TENANT, &first).await.unwrap();
    for gone in deep.iter().chain([&first, &sibling]) {
        assert_eq!(there(gone).await.unwrap_err().code(), Code::NotFound, "{gone}");
    }
    assert_eq!((there(&second).await.unwrap(), there(&others).await.unwrap()), (1, 1));
    assert_eq!(store.delete_turn(TENANT, &first).await.unwrap_err().code(), Code::NotFound);
}

async fn a_stale_owner_deletes_nothing(Fixture { store, .. }: &Fixture) {
    let turn = begin(store, TENANT).await;
    claimed(store, "other", 70).await;
    assert_eq!(refused(store.delete_held_turn(TENANT, &turn, 1).await), lost());
    store.delete_held_turn(TENANT, &turn, 2).await.unwrap();
    assert_eq!(refused(store.delete_held_turn(TENANT, &turn, 2).await).0, Code::NotFound);
}

/// Another replica may be at work there, however many open it.
async fn an_opened_database_keeps_its_leases(fixture: &Fixture) {
    let turn = begin(&fixture.store, TENANT).await;
    let second = fixture::open(&fixture.url).await;
    assert_eq!(claimed(&second, "other", 1).await, []);
    fixture.store.append(TENANT, &turn, 1, &[step(&turn, 2, "s")], InProgress).await.unwrap();
    second.close().await;
}

/// A file that nobody else has open holds no lease; one that another process has open keeps them.
#[tokio::test]
async fn who_opens_a_file_alone_need_not_wait_for_the_dead() {
    let fixture = fixture::sqlite().await.unwrap();
    let turn = begin(&fixture.store, TENANT).await;
    let second = fixture::open(&fixture.url).await;
    assert_eq!(claimed(&second, "second", 1).await, [], "the first is still there");
    let Fixture { store, url, _folder, .. } = fixture;
    drop(store);
    let third = fixture::open(&url).await;
    assert_eq!(claimed(&third, "third", 1).await, [], "the second may be at work");
    drop(second);
    third.close().await;
    let fourth = fixture::open(&url).await;
    assert_eq!(claimed(&fourth, "fourth", 1).await, [(turn, 2)]);
}

/// A page of a session's turns, oldest first.
fn page_of<'a>(session_id: &'a str, page_size: u32, page_token: &'a str) -> TurnList<'a> {
    TurnList { viewer: "ann", session_id: Some(session_id), newest_first: false, after: "", page_size, page_token }
}
