//! Every promise of the store, on a file, in memory and on Postgres.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[macro_use]
mod fixture;

use std::{collections::BTreeSet, future::Future};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use fixture::{Fixture, TENANT, agent, begin, begin_in, created, ended, holder, session, step};
use llama_stack_core::{Code, Result, ids};
use llama_stack_proto::v1::{
    RegisterToolGroupRequest,
    TurnStatus::{AwaitingTools, Cancelled, Completed, InProgress},
    turn_event::Event,
};
use llama_stack_store::{BeginTurn, Begun, Store, TurnList, TurnWalk, Unfinished};
use prost_types::Timestamp;

on!(sqlite, memory, postgres: [
    an_agent_is_kept_replaced_and_deleted,
    a_tool_group_is_kept_once_and_in_order,
    a_tenant_has_a_hundred_tool_groups_at_most,
    lists_are_newest_first_in_pages,
    turns_are_listed_oldest_first_in_pages,
    a_walk_over_turns_goes_on_where_it_was_and_ends_where_it_is_told,
    a_tenant_never_meets_anothers_rows,
    a_turn_and_its_session_begin_together_or_not_at_all,
    a_key_begins_one_turn,
    a_key_outlives_its_turn,
    events_continue_the_journal_without_gaps,
    an_earlier_event_is_amended_with_the_word_that_says_why,
    nothing_follows_the_end,
    of_racing_writers_one_wins_each_number,
    many_turns_append_at_once,
    a_refused_command_does_not_fail_its_neighbours,
    unfinished_turns_are_found_for_all_tenants,
    crooked_page_tokens_are_refused,
    a_nul_character_is_no_defect,
    a_closed_store_refuses,
]);

mod on_disk {
    use super::{
        an_old_key_is_forgotten, deleting_a_session_leaves_no_rows, fixture, many_may_open_a_database_at_once,
        what_was_written_is_there_after_reopening,
    };

    on!(sqlite, postgres: [
        what_was_written_is_there_after_reopening,
        deleting_a_session_leaves_no_rows,
        an_old_key_is_forgotten,
        many_may_open_a_database_at_once,
    ]);
}

fn code<T: std::fmt::Debug>(result: Result<T>) -> Code {
    result.unwrap_err().code()
}

/// Runs `count` futures on tasks of their own, and gives their results in order.
async fn at_once<T: Send + 'static, F: Future<Output = T> + Send + 'static>(count: usize, make: impl Fn(usize) -> F) -> Vec<T> {
    let tasks: Vec<_> = (0..count).map(|n| tokio::spawn(make(n))).collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}

async fn sequences(store: &Store, turn_id: &str) -> Vec<u64> {
    store.journal(TENANT, turn_id, 0).await.unwrap().iter().map(|event| event.sequence).collect()
}

async fn an_agent_is_kept_replaced_and_deleted(Fixture { store, .. }: &Fixture) {
    let mut kept = agent("first");
    store.put_agent(TENANT, &kept).await.unwrap();
    assert_eq!(store.get_agent(TENANT, &kept.id).await.unwrap(), kept);
    kept.config.as_mut().unwrap().name = "second".into();
    store.put_agent(TENANT, &kept).await.unwrap();
    assert_eq!(store.list_agents(TENANT, 0, "").await.unwrap(), (vec![kept.clone()], String::new()));
    store.delete_agent(TENANT, &kept.id).await.unwrap();
    assert_eq!(code(store.get_agent(TENANT, &kept.id).await), Code::NotFound);
    assert_eq!(code(store.delete_agent(TENANT, &kept.id).await), Code::NotFound);
}

async fn a_tool_group_is_kept_once_and_in_order(Fixture { store, .. }: &Fixture) {
    let group =
        |id: &str, config: &str| RegisterToolGroupRequest { id: id.into(), provider_type: "remote::mcp".into(), config: config.into() };
    let (first, second) = (group("z", "{}"), group("a", r#"{"url":"http://x"}"#));
    store.insert_tool_group(TENANT, &first).await.unwrap();
    store.insert_tool_group(TENANT, &second).await.unwrap();
    store.insert_tool_group("other", &group("z", "1")).await.unwrap();
    assert_eq!(code(store.insert_tool_group(TENANT, &group("z", "2")).await), Code::AlreadyExists);
    assert_eq!(store.list_tool_groups(TENANT).await.unwrap(), [first, second.clone()]);
    store.delete_tool_group(TENANT, "z").await.unwrap();
    assert_eq!(code(store.delete_tool_group(TENANT, "z").await), Code::NotFound);
    assert_eq!(store.list_tool_groups(TENANT).await.unwrap(), [second]);
    assert_eq!(store.list_tool_groups("other").await.unwrap().len(), 1);
}

async fn a_tenant_has_a_hundred_tool_groups_at_most(Fixture { store, .. }: &Fixture) {
    let group = |n: usize| RegisterToolGroupRequest { id: format!("g{n}"), ..RegisterToolGroupRequest::default() };
    for n in 0..100 {
        store.insert_tool_group(TENANT, &group(n)).await.unwrap();
    }
    assert_eq!(code(store.insert_tool_group(TENANT, &group(100)).await), Code::ResourceExhausted);
    store.insert_tool_group("other", &group(100)).await.unwrap();
}

async fn lists_are_newest_first_in_pages(Fixture { store, .. }: &Fixture) {
    let mut of_a = Vec::new();
    for n in 0..7 {
        let session = session(if n % 2 == 0 { "a" } else { "b" });
        store.put_session(TENANT, &session).await.unwrap();
        if n % 2 == 0 {
            of_a.insert(0, session);
        }
    }
    let (first, token) = store.list_sessions(TENANT, "ann", Some("a"), 3, "").await.unwrap();
    assert_eq!(first, of_a[..3]);
    // A row that goes away between two pages, and even the one that the token names, costs no other.
    store.delete_session(TENANT, &of_a[2].id).await.unwrap();
    let (second, end) = store.list_sessions(TENANT, "ann", Some("a"), 3, &token).await.unwrap();
    assert_eq!((second.as_slice(), end.as_str()), (&of_a[3..], ""));
    let (all, end) = store.list_sessions(TENANT, "ann", None, 6, "").await.unwrap();
    assert_eq!((all.len(), end.as_str()), (6, ""));
    assert!(all.is_sorted_by(|a, b| a.id > b.id));

    for name in ["x", "y", "z"] {
        store.put_agent(TENANT, &agent(name)).await.unwrap();
    }
    let (agents, token) = store.list_agents(TENANT, 2, "").await.unwrap();
    let (rest, _) = store.list_agents(TENANT, 2, &token).await.unwrap();
    let names: Vec<_> = agents.iter().chain(&rest).map(|agent| agent.config.as_ref().unwrap().name.as_str()).collect();
    assert_eq!(names, ["z", "y", "x"]);
}

async fn turns_are_listed_oldest_first_in_pages(Fixture { store, .. }: &Fixture) {
    let session = session("");
    store.put_session(TENANT, &session).await.unwrap();
    assert_eq!(store.newest_turn_id(TENANT, &session.id).await.unwrap(), None);
    let mut turns = Vec::new();
    for _ in 0..5 {
        turns.push(begin_in(store, &session.id).await);
    }
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let (page, next) = store.turn_ids(TENANT, of(&session.id, 2, &token)).await.unwrap();
        assert!(page.len() <= 2);
        seen.extend(page);
        if next.is_empty() {
            break;
        }
        token = next;
    }
    assert_eq!(seen, turns);
    assert_eq!(store.newest_turn_id(TENANT, &session.id).await.unwrap(), turns.last().cloned());
    store.delete_turn(TENANT, &turns[4]).await.unwrap();
    assert_eq!(store.newest_turn_id(TENANT, &session.id).await.unwrap().as_ref(), Some(&turns[3]));
    assert_eq!(code(store.journal(TENANT, &turns[4], 0).await), Code::NotFound);
}

async fn a_walk_over_turns_goes_on_where_it_was_and_ends_where_it_is_told(Fixture { store, .. }: &Fixture) {
    let kept = session("");
    store.put_session(TENANT, &kept).await.unwrap();
    let at = |seconds: u32| Timestamp { seconds: seconds.into(), nanos: 0 };
    let mut turns = Vec::new();
    for hour in 1..=5_u32 {
        let id = format!("{}7{:019}", ids::first("turn", u64::from(hour) * 3_600_000), 0);
        let mut created = created(&kept.id);
        created.turn_id.clone_from(&id);
        if let Some(Event::Created(turn)) = &mut created.event {
            // One answers a call, and is met as well.
            let caller_turn_id = if hour == 2 { "turn_caller".into() } else { String::new() };
            **turn = llama_stack_proto::v1::Turn { id: id.clone(), created: Some(at(hour * 3_600)), caller_turn_id, ..(**turn).clone() };
        }
        let begin = BeginTurn { holder: holder(), created: &created, api_key: "", idempotency: None, new_session: None };
        store.begin_turn(TENANT, begin).await.unwrap();
        turns.insert(0, id);
    }
    let two = TurnWalk { most: 2, ..TurnWalk::default() };
    let first = store.walk_turns(TENANT, two).await.unwrap();
    assert_eq!((&first.ids[..], first.left), (&turns[..2], None));
    // One that comes, and one that goes, cost no other.
    let newer = begin_in(store, &kept.id).await;
    store.delete_turn(TENANT, &turns[1]).await.unwrap();
    let second = store.walk_turns(TENANT, TurnWalk { page_token: &first.after(1).unwrap(), ..two }).await.unwrap();
    assert_eq!(second.ids, turns[2..4]);
    let rest = store.walk_turns(TENANT, TurnWalk { page_token: &second.after(0).unwrap(), ..two }).await.unwrap();
    assert_eq!((&rest.ids[..], rest.after(1).unwrap()), (&turns[3..], String::new()));
    // Within one; and within one that is gone.
    let within = rest.within(0, 3).unwrap();
    let again = store.walk_turns(TENANT, TurnWalk { page_token: &within, ..two }).await.unwrap();
    assert_eq!((&again.ids[..], again.left), (&turns[3..], Some(3)));
    store.delete_turn(TENANT, &turns[3]).await.unwrap();
    let gone = store.walk_turns(TENANT, TurnWalk { page_token: &within, ..two }).await.unwrap();
    assert_eq!((&gone.ids[..], gone.left), (&turns[4..], None));

    let (since, until) = (at(3 * 3_600), at(4 * 3_600));
    let between = TurnWalk { since: Some(&since), until: Some(&until), ..TurnWalk::default() };
    assert_eq!(store.walk_turns(TENANT, between).await.unwrap().ids, turns[2..3]);
    let of_session = TurnWalk { session_id: Some(&kept.id), ..two };
    let own = store.walk_turns(TENANT, of_session).await.unwrap();
    assert_eq!(own.ids, [newer, turns[0].clone()]);
    for (tenant, session_id) in [("other", None), (TENANT, Some("none"))] {
        assert!(store.walk_turns(tenant, TurnWalk { session_id, ..two }).await.unwrap().ids.is_empty());
    }
    let bad = "d2Fsay8qCnR1cm5fMS94"; // walk/*, turn_1/x
    for (walk, page_token) in
        [(two, "x"), (two, own.after(1).unwrap().as_str()), (of_session, first.after(1).unwrap().as_str()), (two, bad)]
    {
        assert_eq!(code(store.walk_turns(TENANT, TurnWalk { page_token, ..walk }).await), Code::InvalidArgument, "{page_token}");
    }
}

async fn a_tenant_never_meets_anothers_rows(Fixture { store, .. }: &Fixture) {
    let (agent, session) = (agent("mine"), session("a"));
    store.put_agent(TENANT, &agent).await.unwrap();
    store.put_session(TENANT, &session).await.unwrap();
    let turn = begin_in(store, &session.id).await;

    let other = "other";
    assert_eq!(code(store.get_agent(other, &agent.id).await), Code::NotFound);
    assert_eq!(code(store.get_session(other, &session.id).await), Code::NotFound);
    assert_eq!(code(store.journal(other, &turn, 0).await), Code::NotFound);
    assert_eq!(code(store.append(other, &turn, 1, &[step(&turn, 2, "s")], InProgress).await), Code::NotFound);
    assert_eq!(code(store.delete_agent(other, &agent.id).await), Code::NotFound);
    assert_eq!(code(store.delete_session(other, &session.id).await), Code::NotFound);
    assert_eq!(code(store.delete_turn(other, &turn).await), Code::NotFound);
    let created = created(&session.id);
    let begin = BeginTurn { holder: holder(), created: &created, api_key: "", idempotency: None, new_session: None };
    assert_eq!(code(store.begin_turn(other, begin).await), Code::NotFound);
    assert!(store.list_agents(other, 0, "").await.unwrap().0.is_empty());
    assert!(store.list_sessions(other, "ann", None, 0, "").await.unwrap().0.is_empty());
    assert!(store.list_sessions(other, "ann", Some("a"), 0, "").await.unwrap().0.is_empty());
    assert!(store.turn_ids(other, of(&session.id, 0, "")).await.unwrap().0.is_empty());
    assert_eq!(store.newest_turn_id(other, &session.id).await.unwrap(), None);

    // The same ids may be another tenant's as well, and one's deletion is not the other's.
    store.put_agent(other, &agent).await.unwrap();
    store.put_session(other, &session).await.unwrap();
    store.delete_agent(other, &agent.id).await.unwrap();
    store.delete_session(other, &session.id).await.unwrap();
    assert_eq!(store.get_agent(TENANT, &agent.id).await.unwrap(), agent);
    assert_eq!(sequences(store, &turn).await, [1]);
}

async fn a_turn_and_its_session_begin_together_or_not_at_all(Fixture { store, .. }: &Fixture) {
    let first = session("");
    let created = created(&first.id);
    store
        .begin_turn(TENANT, BeginTurn { holder: holder(), created: &created, api_key: "", idempotency: None, new_session: Some(&first) })
        .await
        .unwrap();
    assert_eq!(store.get_session(TENANT, &first.id).await.unwrap(), first);
    assert_eq!(store.journal(TENANT, &created.turn_id, 0).await.unwrap(), std::slice::from_ref(&created));

    // The turn's id is taken: its new session and its key are not kept either.
    let second = session("");
    let again = BeginTurn { holder: holder(), created: &created, api_key: "", idempotency: Some(("k", "h")), new_session: Some(&second) };
    assert_eq!(code(store.begin_turn(TENANT, again).await), Code::AlreadyExists);
    assert_eq!(code(store.get_session(TENANT, &second.id).await), Code::NotFound);
    let fresh = fixture::created(&first.id);
    let begun = store
        .begin_turn(TENANT, BeginTurn { holder: holder(), created: &fresh, api_key: "", idempotency: Some(("k", "h")), new_session: None })
        .await;
    assert_eq!(begun.unwrap(), Begun::New);

    // A journal begins with its turn's creation.
    let crooked = BeginTurn { holder: holder(), created: &step(&fresh.turn_id, 1, "s"), api_key: "", idempotency: None, new_session: None };
    assert_eq!(code(store.begin_turn(TENANT, crooked).await), Code::Internal);
}

async fn a_key_begins_one_turn(Fixture { store, .. }: &Fixture) {
    let session = session("");
    store.put_session(TENANT, &session).await.unwrap();
    let calls = at_once(16, |_| {
        let (store, created) = (store.clone(), created(&session.id));
        async move {
            let begin =
                BeginTurn { holder: holder(), created: &created, api_key: "", idempotency: Some(("key", "hash")), new_session: None };
            (created.turn_id.clone(), store.begin_turn(TENANT, begin).await.unwrap())
        }
    })
    .await;
    let new: Vec<_> = calls.iter().filter(|(_, begun)| *begun == Begun::New).map(|(id, _)| id.clone()).collect();
    assert_eq!(new.len(), 1);
    assert_eq!(calls.iter().filter(|(_, begun)| *begun == Begun::Existing(new[0].clone())).count(), 15);
    assert_eq!(store.turn_ids(TENANT, of(&session.id, 0, "")).await.unwrap().0, new);

    let created = created(&session.id);
    let reused =
        BeginTurn { holder: holder(), created: &created, api_key: "", idempotency: Some(("key", "another hash")), new_session: None };
    let error = store.begin_turn(TENANT, reused).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::Aborted, Some("idempotency_key_reused")));

    assert_eq!(store.turn_of_key(TENANT, "key", "hash").await.unwrap().as_ref(), new.first());
    assert_eq!(code(store.turn_of_key(TENANT, "key", "another hash").await), Code::Aborted);

    // A key is its tenant's.
    assert_eq!(store.turn_of_key("other", "key", "hash").await.unwrap(), None);
    let theirs = fixture::session("");
    let created = fixture::created(&theirs.id);
    let begin = BeginTurn {
        holder: holder(),
        created: &created,
        api_key: "",
        idempotency: Some(("key", "another hash")),
        new_session: Some(&theirs),
    };
    assert_eq!(store.begin_turn("other", begin).await.unwrap(), Begun::New);
}

async fn a_key_outlives_its_turn(Fixture { store, .. }: &Fixture) {
    let session = session("");
    let first = created(&session.id);
    let begin =
        BeginTurn { holder: holder(), created: &first, api_key: "", idempotency: Some(("key", "hash")), new_session: Some(&session) };
    store.begin_turn(TENANT, begin).await.unwrap();
    store.delete_turn(TENANT, &first.turn_id).await.unwrap();
    let second = created(&session.id);
    let begin = BeginTurn { holder: holder(), created: &second, api_key: "", idempotency: Some(("key", "hash")), new_session: None };
    assert_eq!(store.begin_turn(TENANT, begin).await.unwrap(), Begun::Existing(first.turn_id));
    assert_eq!(code(store.journal(TENANT, &second.turn_id, 0).await), Code::NotFound);
}

async fn events_continue_the_journal_without_gaps(Fixture { store, .. }: &Fixture) {
    let turn = &begin(store, TENANT).await;
    let events = [step(turn, 2, "a"), step(turn, 3, "b")];
    store.append(TENANT, turn, 1, &events, InProgress).await.unwrap();
    for wrong in
        [vec![step(turn, 3, "x")], vec![step(turn, 5, "x")], vec![step(turn, 4, "x"), step(turn, 6, "x")], vec![step(turn, 1, "x")]]
    {
        let error = store.append(TENANT, turn, 1, &wrong, InProgress).await.unwrap_err();
        assert_eq!((error.code(), error.reason()), (Code::Aborted, Some("sequence_taken")));
    }
    assert_eq!(code(store.append(TENANT, turn, 1, &[], InProgress).await), Code::Internal);
    assert_eq!(code(store.append(TENANT, turn, 1, &[step("another", 4, "x")], InProgress).await), Code::Internal);
    assert_eq!(code(store.append(TENANT, "none", 1, &[step("none", 2, "x")], InProgress).await), Code::NotFound);
    store.append(TENANT, turn, 1, &[step(turn, 4, "c")], AwaitingTools).await.unwrap();
    let error = store.append(TENANT, turn, 1, &[step(turn, 5, "x")], InProgress).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::FailedPrecondition, Some("turn_waits")));

    assert_eq!(sequences(store, turn).await, [1, 2, 3, 4]);
    assert_eq!(store.journal(TENANT, turn, 1).await.unwrap()[..2], events);
    assert_eq!(store.journal(TENANT, turn, u64::MAX).await.unwrap(), []);
    assert_eq!(code(store.journal(TENANT, "none", 0).await), Code::NotFound);
}

async fn an_earlier_event_is_amended_with_the_word_that_says_why(Fixture { store, .. }: &Fixture) {
    let turn = &begin(store, TENANT).await;
    let events = [step(turn, 2, "a secret"), step(turn, 3, "b")];
    store.append(TENANT, turn, 1, &events, InProgress).await.unwrap();
    let why = [step(turn, 4, "why")];
    let amended = [step(turn, 2, "taken out")];
    // A stale owner changes nothing, neither the end nor what was before.
    let stale = store.append_amending(TENANT, turn, 0, &why, InProgress, &amended).await.unwrap_err();
    assert_eq!(stale.reason(), Some("lease_lost"));
    assert_eq!(code(store.append_amending(TENANT, turn, 1, &why, InProgress, &[step(turn, 4, "x")]).await), Code::Internal);
    assert!(format!("{:?}", store.journal(TENANT, turn, 0).await.unwrap()).contains("secret"));
    store.append_amending(TENANT, turn, 1, &why, InProgress, &amended).await.unwrap();
    let journal = store.journal(TENANT, turn, 1).await.unwrap();
    assert_eq!(journal, [amended[0].clone(), events[1].clone(), why[0].clone()]);
}

async fn nothing_follows_the_end(Fixture { store, .. }: &Fixture) {
    let turn = &begin(store, TENANT).await;
    store.append(TENANT, turn, 1, &[step(turn, 2, "a"), ended(turn, 3)], Completed).await.unwrap();
    let error = store.append(TENANT, turn, 1, &[step(turn, 4, "late")], InProgress).await.unwrap_err();
    assert_eq!((error.code(), error.reason()), (Code::FailedPrecondition, Some("turn_ended")));
    assert_eq!(sequences(store, turn).await, [1, 2, 3]);
}

async fn of_racing_writers_one_wins_each_number(Fixture { store, .. }: &Fixture) {
    const LAST: u64 = 40;
    let turn = begin(store, TENANT).await;
    let wins = at_once(2, |writer| {
        let (store, turn) = (store.clone(), turn.clone());
        async move {
            let mut won = Vec::new();
            for number in 2..=LAST {
                match store.append(TENANT, &turn, 1, &[step(&turn, number, &format!("writer {writer}"))], InProgress).await {
                    Ok(()) => won.push((number, format!("writer {writer}"))),
                    Err(error) => assert_eq!(error.code(), Code::Aborted, "{error:?}"),
                }
                // Behind the other one's head there is nothing to win.
                while sequences(&store, &turn).await.len() < number as usize {
                    tokio::task::yield_now().await;
                }
            }
            won
        }
    })
    .await;
    let mut wins: Vec<_> = wins.concat();
    wins.sort();
    let journal = store.journal(TENANT, &turn, 1).await.unwrap();
    let stored: Vec<_> = journal.into_iter().map(|event| (event.sequence, step_id(event))).collect();
    assert_eq!(stored, wins);
    assert_eq!(stored.len(), LAST as usize - 1);
}

fn step_id(event: llama_stack_proto::v1::TurnEvent) -> String {
    match event.event {
        Some(llama_stack_proto::v1::turn_event::Event::StepStarted(step)) => step.id,
        other => panic!("not a step: {other:?}"),
    }
}

async fn many_turns_append_at_once(Fixture { store, .. }: &Fixture) {
    let turns = at_once(64, |_| {
        let store = store.clone();
        async move {
            let turn = begin(&store, TENANT).await;
            for number in 2..=11 {
                store.append(TENANT, &turn, 1, &[step(&turn, number, &turn)], InProgress).await.unwrap();
            }
            turn
        }
    })
    .await;
    for turn in turns {
        let journal = store.journal(TENANT, &turn, 0).await.unwrap();
        assert_eq!(journal.len(), 11);
        assert!(journal.into_iter().skip(1).all(|event| step_id(event) == turn));
    }
}

/// Callers that wait together share a transaction, and a third of them ask for what is refused in one way or another.
async fn a_refused_command_does_not_fail_its_neighbours(Fixture { store, .. }: &Fixture) {
    let session = session("");
    let taken = created(&session.id);
    store
        .begin_turn(TENANT, BeginTurn { holder: holder(), created: &taken, api_key: "", idempotency: None, new_session: Some(&session) })
        .await
        .unwrap();
    let results = at_once(90, |n| {
        let (store, session, taken) = (store.clone(), session.clone(), taken.clone());
        async move {
            let turn = begin_in(&store, &session.id).await;
            match n % 6 {
                0 => Err(store.append(TENANT, &turn, 1, &[step(&turn, 9, "gap")], InProgress).await.unwrap_err().code()),
                // Violates a constraint, which spoils the transaction.
                3 => {
                    let begin = BeginTurn { holder: holder(), created: &taken, api_key: "", idempotency: None, new_session: None };
                    Err(store.begin_turn(TENANT, begin).await.unwrap_err().code())
                }
                _ => {
                    store.append(TENANT, &turn, 1, &[step(&turn, 2, "good")], InProgress).await.unwrap();
                    Ok(turn)
                }
            }
        }
    })
    .await;
    assert_eq!(results.iter().filter(|result| **result == Err(Code::Aborted)).count(), 15);
    assert_eq!(results.iter().filter(|result| **result == Err(Code::AlreadyExists)).count(), 15);
    for turn in results.into_iter().flatten() {
        assert_eq!(sequences(store, &turn).await, [1, 2]);
    }
}

async fn unfinished_turns_are_found_for_all_tenants(Fixture { store, .. }: &Fixture) {
    let [running, waiting, done, cancelled] =
        [begin(store, TENANT).await, begin(store, "other").await, begin(store, TENANT).await, begin(store, "other").await];
    store.append("other", &waiting, 1, &[step(&waiting, 2, "s")], AwaitingTools).await.unwrap();
    store.append(TENANT, &done, 1, &[ended(&done, 2)], Completed).await.unwrap();
    store.append("other", &cancelled, 1, &[ended(&cancelled, 2)], Cancelled).await.unwrap();
    let expected = [(TENANT, running, InProgress), ("other", waiting, AwaitingTools)];
    let expected = expected.map(|(tenant, turn_id, status)| Unfinished { tenant: tenant.into(), turn_id, status });
    assert_eq!(store.unfinished_turns().await.unwrap(), expected);
}

async fn crooked_page_tokens_are_refused(Fixture { store, .. }: &Fixture) {
    for _ in 0..2 {
        store.put_session(TENANT, &session("a")).await.unwrap();
    }
    let (given, of_a) = store.list_sessions(TENANT, "ann", Some("a"), 1, "").await.unwrap();
    // It names nothing of what it stands for, and serves nobody else.
    let bytes = URL_SAFE_NO_PAD.decode(&of_a).unwrap();
    assert!(!bytes.windows(8).any(|eight| eight == &given[0].id.as_bytes()[..8]), "{of_a}");
    for (tenant, viewer) in [(TENANT, "bob"), ("other", "ann")] {
        assert_eq!(code(store.list_sessions(tenant, viewer, Some("a"), 1, &of_a).await), Code::InvalidArgument);
    }
    let turns = TurnList { viewer: "ann", page_size: 1, ..TurnList::default() };
    for _ in 0..2 {
        begin(store, TENANT).await;
    }
    let (_, next) = store.turn_ids(TENANT, turns).await.unwrap();
    let going_on = TurnList { page_token: &next, ..turns };
    assert_eq!(store.turn_ids(TENANT, going_on).await.unwrap().0.len(), 1);
    for (tenant, list) in [(TENANT, TurnList { viewer: "bob", ..going_on }), ("other", going_on)] {
        assert_eq!(code(store.turn_ids(tenant, list).await), Code::InvalidArgument);
    }
    for token in ["x", "%00", "c2VzcwBpb25z", of_a.as_str(), &of_a[1..]] {
        assert_eq!(code(store.list_agents(TENANT, 1, token).await), Code::InvalidArgument);
        assert_eq!(code(store.list_sessions(TENANT, "ann", None, 1, token).await), Code::InvalidArgument);
        assert_eq!(code(store.turn_ids(TENANT, of("s", 1, token)).await), Code::InvalidArgument);
    }
    assert_eq!(store.list_sessions(TENANT, "ann", Some("a"), 1, &of_a).await.unwrap().0.len(), 1);
}

async fn a_nul_character_is_no_defect(Fixture { store, .. }: &Fixture) {
    for code in [code(store.get_agent(TENANT, "a\0b").await), code(store.delete_session(TENANT, "\0").await)] {
        assert!([Code::NotFound, Code::InvalidArgument].contains(&code), "{code:?}");
    }
    store.check().await.unwrap();
}

async fn a_closed_store_refuses(Fixture { store, .. }: &Fixture) {
    let turn = begin(store, TENANT).await;
    store.check().await.unwrap();
    store.clone().close().await;
    for error in [store.delete_turn(TENANT, &turn).await.unwrap_err(), store.check().await.unwrap_err()] {
        assert_eq!((error.code(), error.reason()), (Code::Unavailable, Some("store_closed")));
    }
}

async fn what_was_written_is_there_after_reopening(fixture: &Fixture) {
    let turn = begin(&fixture.store, TENANT).await;
    fixture.store.append(TENANT, &turn, 1, &[step(&turn, 2, "s")], AwaitingTools).await.unwrap();
    let before = fixture.store.journal(TENANT, &turn, 0).await.unwrap();
    fixture.store.close().await;
    let again = fixture::open(&fixture.url).await;
    assert_eq!(again.journal(TENANT, &turn, 0).await.unwrap(), before);
    let epoch = again.take(TENANT, &turn, holder(), &[step(&turn, 3, "s")], InProgress).await.unwrap();
    assert_eq!(epoch, 2, "the epoch outlives the process");
    again.append(TENANT, &turn, epoch, &[step(&turn, 4, "s")], InProgress).await.unwrap();
    again.close().await;
}

async fn deleting_a_session_leaves_no_rows(fixture: &Fixture) {
    let store = &fixture.store;
    let (gone, kept) = (session(""), session(""));
    store.put_session(TENANT, &gone).await.unwrap();
    store.put_session(TENANT, &kept).await.unwrap();
    let turn = begin_in(store, &gone.id).await;
    store.append(TENANT, &turn, 1, &[step(&turn, 2, "s")], InProgress).await.unwrap();
    let survivor = begin_in(store, &kept.id).await;
    store.delete_session(TENANT, &gone.id).await.unwrap();

    assert_eq!(code(store.append(TENANT, &turn, 1, &[step(&turn, 3, "late")], InProgress).await), Code::NotFound);
    assert_eq!(sequences(store, &survivor).await, [1]);
    assert_eq!(fixture.raw("SELECT count(*) FROM turns").await, 1);
    assert_eq!(fixture.raw("SELECT count(*) FROM journal").await, 1);
    assert_eq!(fixture.raw("SELECT count(*) FROM sessions").await, 1);
}

async fn an_old_key_is_forgotten(fixture: &Fixture) {
    let session = session("");
    fixture.store.put_session(TENANT, &session).await.unwrap();
    let begin = async |hash| {
        let created = created(&session.id);
        fixture
            .store
            .begin_turn(
                TENANT,
                BeginTurn { holder: holder(), created: &created, api_key: "", idempotency: Some(("key", hash)), new_session: None },
            )
            .await
    };
    begin("one").await.unwrap();
    fixture.raw("UPDATE idempotency_keys SET created_us = created_us - CAST(23 AS BIGINT) * 3600000000").await;
    assert_eq!(code(begin("two").await), Code::Aborted);
    fixture.raw("UPDATE idempotency_keys SET created_us = created_us - CAST(2 AS BIGINT) * 3600000000").await;
    assert_eq!(fixture.store.turn_of_key(TENANT, "key", "one").await.unwrap(), None);
    assert_eq!(begin("two").await.unwrap(), Begun::New);
}

async fn many_may_open_a_database_at_once(fixture: &Fixture) {
    // The fixture's own store has made the tables: these meet an empty database, all at once.
    let url = match fixture.url.strip_suffix("state.db") {
        Some(folder) => format!("{folder}a/new/folder/state.db"),
        None => fixture::postgres().await.unwrap().url,
    };
    let turns = at_once(8, |_| {
        let url = url.clone();
        async move {
            let store = fixture::open(&url).await;
            let turn = begin(&store, TENANT).await;
            for number in 2..=6 {
                store.append(TENANT, &turn, 1, &[step(&turn, number, "s")], InProgress).await.unwrap();
            }
            store.close().await;
            turn
        }
    })
    .await;
    let store = fixture::open(&url).await;
    let unfinished: BTreeSet<_> = store.unfinished_turns().await.unwrap().into_iter().map(|turn| turn.turn_id).collect();
    assert_eq!(unfinished, turns.into_iter().collect());
    store.close().await;
}

/// A page of a session's turns, oldest first.
fn of<'a>(session_id: &'a str, page_size: u32, page_token: &'a str) -> TurnList<'a> {
    TurnList { viewer: "ann", session_id: Some(session_id), newest_first: false, after: "", page_size, page_token }
}
