//! The logs of requests and decisions: pages, filters, what goes and what stays.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

#[macro_use]
mod fixture;

use fixture::{Fixture, TENANT};
use llama_stack_core::{Code, ids};
use llama_stack_proto::v1::{AuditEvent, AuditKind, ListAuditEventsRequest, ListRequestsRequest, RequestRecord};
use prost_types::Timestamp;

on!(sqlite, memory, postgres: [
    requests_are_paged_filtered_and_each_tenants_own,
    of_each_tenant_the_newest_stay_and_the_old_go,
    decisions_are_paged_and_filtered,
]);

fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 0 })
}

fn request(tenant: &str, id: &str, principal: &str, code: &str, seconds: i64) -> (String, RequestRecord) {
    let (route, started) = (if code == "200" { "/v1/models" } else { "/v1/files" }.into(), at(seconds));
    (tenant.into(), RequestRecord { id: id.into(), started, route, code: code.into(), principal: principal.into(), ..Default::default() })
}

async fn ids(fixture: &Fixture, tenant: &str, asked: ListRequestsRequest) -> Vec<String> {
    fixture.store.list_requests(tenant, &asked).await.unwrap().0.into_iter().map(|record| record.id).collect()
}

async fn requests_are_paged_filtered_and_each_tenants_own(fixture: &Fixture) {
    let rows = vec![
        request(TENANT, "1", "ann", "200", 10),
        request("other", "2", "ann", "200", 11),
        request(TENANT, "3", "bob", "404", 12),
        request(TENANT, "4", "ann", "404", 13),
    ];
    fixture.store.add_requests(rows, 100).await.unwrap();
    let all = ListRequestsRequest::default;
    assert_eq!(ids(fixture, TENANT, all()).await, ["4", "3", "1"]);
    assert_eq!(ids(fixture, "other", all()).await, ["2"]);
    assert_eq!(ids(fixture, TENANT, ListRequestsRequest { principal: "ann".into(), ..all() }).await, ["4", "1"]);
    assert_eq!(ids(fixture, TENANT, ListRequestsRequest { code: "404".into(), ..all() }).await, ["4", "3"]);
    assert_eq!(ids(fixture, TENANT, ListRequestsRequest { route: "/v1/models".into(), ..all() }).await, ["1"]);
    assert_eq!(ids(fixture, TENANT, ListRequestsRequest { since: at(12), until: at(13), ..all() }).await, ["3"]);
    let (mut seen, mut page_token) = (Vec::new(), String::new());
    loop {
        let asked = ListRequestsRequest { page_size: 2, page_token, ..all() };
        let (page, next) = fixture.store.list_requests(TENANT, &asked).await.unwrap();
        seen.extend(page.into_iter().map(|record| record.id));
        if next.is_empty() {
            break;
        }
        page_token = next;
    }
    assert_eq!(seen, ["4", "3", "1"]);
    let crooked = ListRequestsRequest { page_token: "x".into(), ..all() };
    assert_eq!(fixture.store.list_requests(TENANT, &crooked).await.unwrap_err().code(), Code::InvalidArgument);
}

async fn of_each_tenant_the_newest_stay_and_the_old_go(fixture: &Fixture) {
    let numbered = |tenant: &'static str| (0..5).map(move |n| request(tenant, &n.to_string(), "ann", "200", 100 + n));
    fixture.store.add_requests(numbered("other").collect(), 5).await.unwrap();
    fixture.store.add_requests(numbered(TENANT).collect(), 2).await.unwrap();
    assert_eq!(ids(fixture, TENANT, ListRequestsRequest::default()).await, ["4", "3"]);
    assert_eq!(ids(fixture, "other", ListRequestsRequest::default()).await.len(), 5, "another tenant's were let go of");
    fixture.store.forget_logs(103_000_000, 0).await.unwrap();
    assert_eq!(ids(fixture, "other", ListRequestsRequest::default()).await, ["4", "3"]);
}

async fn decisions_are_paged_and_filtered(fixture: &Fixture) {
    let event = |principal: &str, kind: AuditKind, outcome: &str, seconds| {
        let (id, outcome) = (ids::new("audit"), outcome.to_owned());
        (
            TENANT.to_owned(),
            AuditEvent { id, kind: kind.into(), outcome, principal: principal.into(), time: at(seconds), ..Default::default() },
        )
    };
    let events = vec![
        event("ann", AuditKind::Access, "denied", 1),
        event("ann", AuditKind::Shield, "violation", 2),
        event("bob", AuditKind::Access, "allowed", 3),
    ];
    fixture.store.add_audit_events(events.clone()).await.unwrap();
    let list = async |asked: ListAuditEventsRequest| fixture.store.list_audit_events(TENANT, &asked).await.unwrap().0;
    let all = ListAuditEventsRequest::default;
    assert_eq!(list(all()).await, events.iter().rev().map(|(_, event)| event.clone()).collect::<Vec<_>>());
    assert_eq!(list(ListAuditEventsRequest { kind: AuditKind::Access.into(), ..all() }).await.len(), 2);
    assert_eq!(list(ListAuditEventsRequest { outcome: "denied".into(), ..all() }).await[0].principal, "ann");
    assert_eq!(list(ListAuditEventsRequest { principal: "bob".into(), ..all() }).await.len(), 1);
    assert_eq!(list(ListAuditEventsRequest { since: at(2), ..all() }).await.len(), 2);
    assert!(fixture.store.list_audit_events("other", &all()).await.unwrap().0.is_empty());
    fixture.store.forget_logs(0, 3_000_000).await.unwrap();
    assert_eq!(list(all()).await.len(), 1);
}
