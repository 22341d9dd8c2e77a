//! API keys and owners: on a file, in memory and on Postgres.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

#[macro_use]
mod fixture;

use fixture::{Fixture, TENANT, created, ended, holder};
use llama_stack_core::{Code, Principal, ids};
use llama_stack_proto::v1::{ApiKey, Session, TurnStatus, turn_event::Event};
use llama_stack_store::{BeginTurn, DailyUsage};
use prost_types::Timestamp;

on!(sqlite, memory, postgres: [
    a_rotated_secret_is_good_until_its_time_and_a_revoked_one_never,
    keys_are_a_tenants_and_listed_newest_first,
    a_forgotten_key_leaves_no_usage,
    the_first_owner_stays,
    idle_sessions_come_with_whose_they_are,
]);

fn key(tenant: &str) -> ApiKey {
    ApiKey { id: ids::new("key"), tenant: tenant.into(), principal: "ann".into(), created: Some(ids::now()), ..Default::default() }
}

fn in_seconds(seconds: i64) -> Option<Timestamp> {
    let now = ids::now();
    Some(Timestamp { seconds: now.seconds + seconds, ..now })
}

async fn a_rotated_secret_is_good_until_its_time_and_a_revoked_one_never(Fixture { store, .. }: &Fixture) {
    let key = key(TENANT);
    store.insert_api_key(&key, "one").await.unwrap();
    let hashes = async || store.api_key_record(&key.id).await.unwrap().unwrap().hashes;
    assert_eq!(hashes().await, ["one"]);
    store.rotate_api_key(&key, "two", in_seconds(3600)).await.unwrap();
    assert_eq!(hashes().await, ["two", "one"]);
    store.rotate_api_key(&key, "three", in_seconds(-1)).await.unwrap();
    assert_eq!(hashes().await, ["three"]);
    store.revoke_api_key(&key).await.unwrap();
    assert!(hashes().await.is_empty());
    assert!(store.api_key_record("key_none").await.unwrap().is_none());
    assert_eq!(store.insert_api_key(&key, "four").await.unwrap_err().code(), Code::AlreadyExists);
}

async fn keys_are_a_tenants_and_listed_newest_first(Fixture { store, .. }: &Fixture) {
    let (first, second, other) = (key(TENANT), key(TENANT), key("umbrella"));
    for key in [&first, &second, &other] {
        store.insert_api_key(key, "hash").await.unwrap();
    }
    let (page, next) = store.list_api_keys(TENANT, 1, "").await.unwrap();
    assert_eq!(page, [second]);
    assert_eq!(store.list_api_keys(TENANT, 1, &next).await.unwrap(), (vec![first.clone()], String::new()));
    assert_eq!(store.get_api_key("umbrella", &first.id).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(store.rotate_api_key(&ApiKey { tenant: "umbrella".into(), ..first }, "x", None).await.unwrap_err().code(), Code::NotFound);
}

async fn a_forgotten_key_leaves_no_usage(Fixture { store, .. }: &Fixture) {
    let (hers, other) = (key(TENANT), ApiKey { principal: "bob".into(), ..key(TENANT) });
    let used = |key: &ApiKey| DailyUsage {
        tenant: TENANT.into(),
        principal: DailyUsage::of_key(&key.id),
        day: 5,
        tokens: 9,
        ..Default::default()
    };
    for key in [&hers, &other] {
        store.insert_api_key(key, "hash").await.unwrap();
    }
    store.add_usage(vec![used(&hers), used(&other)], 0).await.unwrap();
    assert_eq!(store.forget_api_keys(TENANT, Some("ann"), None).await.unwrap(), 1);
    let tokens = async |key: &ApiKey| store.daily_usage(TENANT, &DailyUsage::of_key(&key.id), 5).await.unwrap().tokens;
    assert_eq!((tokens(&hers).await, tokens(&other).await), (0, 9));
    // What a process had counted by then comes later, and goes with all else that is hers.
    store.add_usage(vec![used(&hers)], 0).await.unwrap();
    let erased = store.erase_rows(TENANT, Some("ann"), Vec::new()).await.unwrap();
    assert_eq!(erased.into_iter().collect::<Vec<_>>(), [("daily_usage".to_owned(), 1)]);
    assert_eq!((tokens(&hers).await, tokens(&other).await), (0, 9));
}

async fn the_first_owner_stays(Fixture { store, .. }: &Fixture) {
    let who = |id: &str| Principal { id: id.into(), tenant: TENANT.into(), roles: Vec::new() };
    store.put_owner(&who("ann"), "agent_1").await.unwrap();
    store.put_owner(&who("bob"), "agent_1").await.unwrap();
    assert_eq!(store.owner(TENANT, "agent_1").await.unwrap().as_deref(), Some("ann"));
    assert_eq!(store.owner("umbrella", "agent_1").await.unwrap(), None);
    assert_eq!(store.owner_of_session(TENANT, "session_none").await.unwrap(), None);
}

async fn idle_sessions_come_with_whose_they_are(Fixture { store, .. }: &Fixture) {
    let who = |id: &str, tenant: &str| Principal { id: id.into(), tenant: tenant.into(), roles: Vec::new() };
    let old = |id: &str| Session { id: id.into(), created: in_seconds(-600), ..Session::default() };
    // The same names in both tenants, and others' things between them.
    for (tenant, person) in [(TENANT, "ann"), ("umbrella", "una")] {
        for id in ["began", "handed", "noted", "nobody", "running"] {
            store.put_session(tenant, &old(id)).await.unwrap();
        }
        store.put_owner(&who(person, tenant), "noted").await.unwrap();
        for (session, by) in [("began", person), ("began", "second"), ("handed", person), ("noted", "second"), ("running", person)] {
            let mut created = created(session);
            if let Some(Event::Created(turn)) = &mut created.event {
                turn.principal = by.into();
                turn.created = in_seconds(if by == "second" { -200 } else { -300 });
            }
            let begin = BeginTurn { holder: holder(), created: &created, api_key: "", idempotency: None, new_session: None };
            store.begin_turn(tenant, begin).await.unwrap();
            if session != "running" {
                store.append(tenant, &created.turn_id, 1, &[ended(&created.turn_id, 2)], TurnStatus::Completed).await.unwrap();
            }
            if session == "handed" {
                store.put_owner(&who("heir", tenant), &created.turn_id).await.unwrap();
            }
        }
    }
    let idle = async |seconds, tenant: Option<&str>, after: Option<&llama_stack_store::Aged>| {
        store.idle_sessions(&in_seconds(seconds).unwrap(), tenant, after).await.unwrap()
    };
    let all = idle(-100, None, None).await;
    let told: Vec<_> = all.iter().map(|one| (one.tenant.as_str(), one.id.as_str(), one.owner.as_str())).collect();
    let of = |tenant, person| [(tenant, "began", person), (tenant, "handed", "heir"), (tenant, "nobody", ""), (tenant, "noted", person)];
    assert_eq!(told, [of(TENANT, "ann"), of("umbrella", "una")].concat());
    assert!(all[0].is_older(&in_seconds(-100).unwrap()) && !all[0].is_older(&in_seconds(-250).unwrap()), "its second turn counts");
    // The same of those of a page, whether they are idle or not.
    for (tenant, person) in [(TENANT, "ann"), ("umbrella", "una")] {
        let ids = ["began", "handed", "noted", "nobody", "running", "none"];
        let mut owners: Vec<_> = store.owners_of_sessions(tenant, &ids).await.unwrap().into_iter().collect();
        owners.sort();
        let known = [("began", person), ("handed", "heir"), ("noted", person), ("running", person)];
        assert_eq!(owners, known.map(|(id, owner)| (id.to_owned(), owner.to_owned())));
        for id in ids {
            let one = store.owner_of_session(tenant, id).await.unwrap();
            assert_eq!(one.as_ref(), owners.iter().find(|(known, _)| known == id).map(|(_, owner)| owner), "{id}");
        }
        let noted = store.owners(tenant, &ids).await.unwrap();
        assert_eq!(noted.into_iter().collect::<Vec<_>>(), [("noted".to_owned(), person.to_owned())]);
    }
    assert!(store.owners_of_sessions("acm", &["began", "noted"]).await.unwrap().is_empty());
    assert!(store.owners_of_sessions(TENANT, &[]).await.unwrap().is_empty() && store.owners(TENANT, &[]).await.unwrap().is_empty());
    // One tenant's alone, after one of them, and none in which something was begun since.
    let later = idle(-100, Some(TENANT), Some(&all[1])).await;
    assert_eq!(later, all[2..4]);
    assert!(idle(-100, Some("acm"), None).await.is_empty() && idle(-100, Some(TENANT), all.get(3)).await.is_empty());
    assert_eq!(idle(-250, Some("umbrella"), None).await.iter().map(|one| one.id.as_str()).collect::<Vec<_>>(), ["handed", "nobody"]);
}
