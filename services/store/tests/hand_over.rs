//! What is one principal's becomes another's, on every kind of database.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[macro_use]
mod fixture;

use fixture::{Fixture, TENANT, begin};
use llama_stack_core::{Principal, ids};
use llama_stack_proto::v1::{Batch, Caller};

on!(sqlite, memory, postgres: [what_is_ones_becomes_anothers_and_nothing_else_does]);

async fn what_is_ones_becomes_anothers_and_nothing_else_does(fixture: &Fixture) {
    let store = &fixture.store;
    let of = |id: &str, tenant: &str| Principal { id: id.into(), tenant: tenant.into(), roles: Vec::new() };
    for (principal, tenant, id) in [("ann", TENANT, "agent_1"), ("bob", TENANT, "agent_2"), ("ann", "other", "agent_3")] {
        store.put_owner(&of(principal, tenant), id).await.unwrap();
    }
    let batch = Batch { id: ids::new("batch"), owner: "ann".into(), created: Some(ids::now()), ..Batch::default() };
    let author = Caller { principal: "ann".into(), tenant: TENANT.into(), ..Caller::default() };
    store.insert_batch(&batch, &author).await.unwrap();
    // A turn that nobody signed, and its session.
    let turn = begin(store, TENANT).await;
    assert_eq!(store.hand_over(TENANT, "ann", "eve", false).await.unwrap(), 2);
    let owner = async |tenant: &str, id: &str| store.owner(tenant, id).await.unwrap();
    assert_eq!((owner(TENANT, "agent_1").await.as_deref(), owner(TENANT, "agent_2").await.as_deref()), (Some("eve"), Some("bob")));
    assert_eq!(owner("other", "agent_3").await.as_deref(), Some("ann"), "tenants never meet");
    let (given, author) = store.batch_and_author(TENANT, &batch.id, "eve").await.unwrap();
    assert_eq!((given.owner.as_str(), author.principal.as_str()), ("eve", "ann"), "it runs as whoever made it");
    assert!(store.get_batch(TENANT, &batch.id, "ann").await.is_err());
    assert_eq!(store.owner_of_turn(TENANT, &turn).await.unwrap(), None);
    assert_eq!(store.hand_over(TENANT, "", "eve", true).await.unwrap(), 2);
    assert_eq!(store.owner_of_turn(TENANT, &turn).await.unwrap().as_deref(), Some("eve"));
    assert_eq!(store.hand_over(TENANT, "", "bob", true).await.unwrap(), 0, "what was handed over is not nobody's");
    // An erasure of who began it, or of whoever else, does not reach what is another's by now.
    assert_eq!(store.turns_of(TENANT, "eve").await.unwrap(), [turn]);
    assert!(store.turns_of(TENANT, "bob").await.unwrap().is_empty());
}
