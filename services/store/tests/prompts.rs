//! Prompts, and lists of turns in either order: on a file, in memory and on Postgres.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[macro_use]
mod fixture;

use fixture::{Fixture, TENANT, begin_in, session};
use llama_stack_core::{Code, Result, ids};
use llama_stack_proto::v1::Prompt;
use llama_stack_store::{Store, TurnList};

on!(sqlite, memory, postgres: [
    a_prompt_has_versions_and_one_default,
    of_racing_versions_one_wins,
    prompts_are_listed_in_pages,
    a_tenants_prompts_are_its_own,
    turns_are_listed_in_either_order_and_over_all_sessions,
]);

fn prompt(text: &str) -> Prompt {
    let variables = vec!["name".to_owned()];
    Prompt { id: ids::new("pmpt"), version: 1, text: text.into(), variables, is_default: true, created: Some(ids::now()) }
}

fn next(before: &Prompt, text: &str) -> Prompt {
    Prompt { version: before.version + 1, text: text.into(), is_default: false, ..before.clone() }
}

fn told<T: std::fmt::Debug>(result: Result<T>) -> (Code, String) {
    let error = result.unwrap_err();
    (error.code(), error.reason().unwrap_or_default().to_owned())
}

async fn a_prompt_has_versions_and_one_default(Fixture { store, .. }: &Fixture) {
    let first = prompt("one");
    store.create_prompt(TENANT, &first).await.unwrap();
    assert_eq!(store.get_prompt(TENANT, &first.id, 0).await.unwrap(), first);
    let second = next(&first, "two");
    store.add_prompt_version(TENANT, &second, false).await.unwrap();
    assert_eq!(store.get_prompt(TENANT, &first.id, 0).await.unwrap(), first);
    assert_eq!(store.get_prompt(TENANT, &first.id, 2).await.unwrap(), second);
    let third = next(&second, "three");
    store.add_prompt_version(TENANT, &third, true).await.unwrap();
    let default = store.get_prompt(TENANT, &first.id, 0).await.unwrap();
    assert_eq!((default.version, default.is_default), (3, true));
    assert!(!store.get_prompt(TENANT, &first.id, 1).await.unwrap().is_default);
    store.set_default_prompt_version(TENANT, &first.id, 2).await.unwrap();
    assert_eq!(store.get_prompt(TENANT, &first.id, 0).await.unwrap().version, 2);

    let no_version = (Code::NotFound, "prompt_version_not_found".to_owned());
    assert_eq!(told(store.get_prompt(TENANT, &first.id, 4).await), no_version);
    for version in [0, 4] {
        assert_eq!(told(store.set_default_prompt_version(TENANT, &first.id, version).await), no_version);
    }
    let ahead = Prompt { version: 9, ..third };
    assert_eq!(told(store.add_prompt_version(TENANT, &ahead, false).await), no_version);
    store.delete_prompt(TENANT, &first.id).await.unwrap();
    let gone = (Code::NotFound, "prompt_not_found".to_owned());
    assert_eq!(told(store.get_prompt(TENANT, &first.id, 1).await), gone);
    assert_eq!(told(store.delete_prompt(TENANT, &first.id).await), gone);
    assert_eq!(told(store.add_prompt_version(TENANT, &second, false).await), gone);
    assert_eq!(told(store.set_default_prompt_version(TENANT, &first.id, 1).await), gone);
    assert_eq!(told(store.list_prompt_versions(TENANT, &first.id, 0, "").await), gone);
}

async fn of_racing_versions_one_wins(Fixture { store, .. }: &Fixture) {
    let first = prompt("one");
    store.create_prompt(TENANT, &first).await.unwrap();
    let tasks: Vec<_> = (0..8)
        .map(|n| {
            let (store, second): (Store, Prompt) = (store.clone(), next(&first, &n.to_string()));
            tokio::spawn(async move { store.add_prompt_version(TENANT, &second, false).await })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(()) => won += 1,
            Err(error) => assert_eq!((error.code(), error.reason()), (Code::Aborted, Some("prompt_version_taken"))),
        }
    }
    assert_eq!(won, 1);
}

async fn prompts_are_listed_in_pages(Fixture { store, .. }: &Fixture) {
    let mut made = Vec::new();
    for n in 0..5 {
        let first = prompt(&n.to_string());
        store.create_prompt(TENANT, &first).await.unwrap();
        made.insert(0, first);
    }
    let (page, token) = store.list_prompts(TENANT, 3, "").await.unwrap();
    assert_eq!(page, made[..3]);
    let (page, end) = store.list_prompts(TENANT, 3, &token).await.unwrap();
    assert_eq!((page.as_slice(), end.as_str()), (&made[3..], ""));

    let mut newest = made[0].clone();
    // Past nine, so that versions are seen to be ordered as numbers.
    for _ in 0..11 {
        newest = next(&newest, "more");
        store.add_prompt_version(TENANT, &newest, false).await.unwrap();
    }
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let (page, next) = store.list_prompt_versions(TENANT, &newest.id, 5, &token).await.unwrap();
        seen.extend(page.iter().map(|prompt| prompt.version));
        if next.is_empty() {
            break;
        }
        token = next;
    }
    assert_eq!(seen, (1..=12).rev().collect::<Vec<u32>>());
    assert_eq!(told(store.list_prompts(TENANT, 3, &token).await).0, Code::InvalidArgument);
}

async fn a_tenants_prompts_are_its_own(Fixture { store, .. }: &Fixture) {
    let mine = prompt("one");
    store.create_prompt(TENANT, &mine).await.unwrap();
    assert_eq!(told(store.get_prompt("other", &mine.id, 0).await).0, Code::NotFound);
    assert_eq!(told(store.add_prompt_version("other", &next(&mine, "two"), true).await).0, Code::NotFound);
    assert_eq!(told(store.set_default_prompt_version("other", &mine.id, 1).await).0, Code::NotFound);
    assert_eq!(told(store.delete_prompt("other", &mine.id).await).0, Code::NotFound);
    assert!(store.list_prompts("other", 0, "").await.unwrap().0.is_empty());
    assert_eq!(store.get_prompt(TENANT, &mine.id, 0).await.unwrap(), mine);
}

async fn turns_are_listed_in_either_order_and_over_all_sessions(Fixture { store, .. }: &Fixture) {
    let (one, two) = (session(""), session(""));
    store.put_session(TENANT, &one).await.unwrap();
    store.put_session(TENANT, &two).await.unwrap();
    let mut all = Vec::new();
    for n in 0..6 {
        all.push(begin_in(store, if n % 2 == 0 { &one.id } else { &two.id }).await);
    }
    let of_one: Vec<String> = all.iter().step_by(2).cloned().collect();
    let reversed = |ids: &[String]| ids.iter().rev().cloned().collect::<Vec<_>>();
    for (session_id, expected) in [(None, all.clone()), (Some(one.id.as_str()), of_one)] {
        for (newest_first, expected) in [(false, expected.clone()), (true, reversed(&expected))] {
            let list = TurnList { session_id, newest_first, page_size: 2, ..TurnList::default() };
            let (mut seen, mut token) = (Vec::new(), String::new());
            loop {
                let (page, next) = store.turn_ids(TENANT, TurnList { page_token: &token, ..list }).await.unwrap();
                seen.extend(page);
                if next.is_empty() {
                    break;
                }
                token = next;
            }
            assert_eq!(seen, expected);
            let (rest, _) = store.turn_ids(TENANT, TurnList { after: &expected[0], ..list }).await.unwrap();
            assert_eq!(rest, expected[1..3]);
        }
    }
    assert!(store.turn_ids("other", TurnList::default()).await.unwrap().0.is_empty());
}
