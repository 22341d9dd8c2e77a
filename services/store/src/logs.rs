//! What happened at the edge: the log of requests, and the audit log. Rows come in groups, and go by count or by age.

use async_trait::async_trait;
use llama_stack_core::{Result, ids};
use llama_stack_proto::v1::{AuditEvent, ListAuditEventsRequest, ListRequestsRequest, RequestRecord};
use prost::Message as _;

use crate::{
    Store,
    command::{Command, Failure, Outcome},
    failure,
    page::Page,
    sql::{Conn, Row, args},
    turns::micros,
};

const ADD_REQUEST: &str = "INSERT INTO requests (tenant, id, at_us, principal, route, code, body) VALUES ($1, $2, $3, $4, $5, $6, $7)";
const LIST_REQUESTS: &str = "SELECT body, id FROM requests WHERE tenant = $1 AND id < $2 AND ($3 = '' OR principal = $3) \
                             AND ($4 = '' OR route = $4) AND ($5 = '' OR code = $5) AND at_us >= $6 AND at_us < $7 \
                             ORDER BY id DESC LIMIT $8";
/// All but the newest; where there are fewer, none.
const TRIM_REQUESTS: &str = "DELETE FROM requests WHERE tenant = $1 AND id <= \
                             (SELECT id FROM requests WHERE tenant = $1 ORDER BY id DESC LIMIT 1 OFFSET $2)";
const FORGET_REQUESTS: &str = "DELETE FROM requests WHERE at_us < $1";

const ADD_EVENT: &str = "INSERT INTO audit_events (tenant, id, at_us, principal, kind, outcome, body) VALUES ($1, $2, $3, $4, $5, $6, $7)";
const LIST_EVENTS: &str = "SELECT body, id FROM audit_events WHERE tenant = $1 AND id < $2 AND ($3 = '' OR principal = $3) \
                           AND ($4 = 0 OR kind = $4) AND ($5 = '' OR outcome = $5) AND at_us >= $6 AND at_us < $7 \
                           ORDER BY id DESC LIMIT $8";
const FORGET_EVENTS: &str = "DELETE FROM audit_events WHERE at_us < $1";

struct AddRequests {
    records: Vec<(String, RequestRecord)>,
    /// Of each tenant, at most so many stay.
    most: i64,
}

#[async_trait]
impl Command for AddRequests {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        let mut tenants = Vec::new();
        for (tenant, record) in &self.records {
            let (id, at, body) = (ids::new("request"), micros(record.started.as_ref()), record.encode_to_vec());
            conn.execute(ADD_REQUEST, args![tenant, &id, at, &record.principal, &record.route, &record.code, &body]).await?;
            if !tenants.contains(&tenant) {
                tenants.push(tenant);
            }
        }
        // In one order, so that two processes never wait for each other's rows.
        tenants.sort_unstable();
        for tenant in tenants {
            conn.execute(TRIM_REQUESTS, args![tenant, self.most]).await?;
        }
        Ok(Outcome::Done)
    }
}

struct AddEvents(Vec<(String, AuditEvent)>);

#[async_trait]
impl Command for AddEvents {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        for (tenant, event) in &self.0 {
            let (at, kind, body) = (micros(event.time.as_ref()), i64::from(event.kind), event.encode_to_vec());
            conn.execute(ADD_EVENT, args![tenant, &event.id, at, &event.principal, kind, &event.outcome, &body]).await?;
        }
        Ok(Outcome::Done)
    }
}

/// Rows from before these times go.
struct Forget {
    requests_us: i64,
    events_us: i64,
}

#[async_trait]
impl Command for Forget {
    async fn apply(&self, conn: &mut Conn<'_>) -> Result<Outcome, Failure> {
        conn.execute(FORGET_REQUESTS, args![self.requests_us]).await?;
        conn.execute(FORGET_EVENTS, args![self.events_us]).await?;
        Ok(Outcome::Done)
    }
}

impl Store {
    /// Writes requests down with their tenants, oldest first, and lets go of all but the newest `most` of each of these tenants.
    pub async fn add_requests(&self, records: Vec<(String, RequestRecord)>, most: usize) -> Result<()> {
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        self.write(AddRequests { records, most }).await.map(drop)
    }

    /// Writes decisions down with their tenants, oldest first.
    pub async fn add_audit_events(&self, events: Vec<(String, AuditEvent)>) -> Result<()> {
        self.write(AddEvents(events)).await.map(drop)
    }

    /// Forgets requests and decisions that are older than these moments, in microseconds since 1970.
    pub async fn forget_logs(&self, requests_us: i64, events_us: i64) -> Result<()> {
        self.write(Forget { requests_us, events_us }).await.map(drop)
    }

    /// A page, newest first, and the token of the next (empty at the end). `page_size` 0 means 100, at most 1,000.
    ///
    /// # Errors
    /// `InvalidArgument` a token that this list never gave
    pub async fn list_requests(&self, tenant: &str, asked: &ListRequestsRequest) -> Result<(Vec<RequestRecord>, String)> {
        let ListRequestsRequest { page_size, route, page_token, code, principal, since, until } = asked;
        let page = self.page(&[tenant, "requests"], *page_size, page_token).await?;
        let (from, to) = (micros(since.as_ref()), until.as_ref().map_or(i64::MAX, |until| micros(Some(until))));
        let rows = self.read(LIST_REQUESTS, args![tenant, page.newest_first(), principal, route, code, from, to, page.limit()]).await?;
        listed(&page, &rows)
    }

    /// As [`Store::list_requests`].
    ///
    /// # Errors
    /// As [`Store::list_requests`]
    pub async fn list_audit_events(&self, tenant: &str, asked: &ListAuditEventsRequest) -> Result<(Vec<AuditEvent>, String)> {
        let ListAuditEventsRequest { page_size, page_token, kind, outcome, principal, since, until } = asked;
        let page = self.page(&[tenant, "audit_events"], *page_size, page_token).await?;
        let (from, to) = (micros(since.as_ref()), until.as_ref().map_or(i64::MAX, |until| micros(Some(until))));
        let kind = i64::from(*kind);
        let rows = self.read(LIST_EVENTS, args![tenant, page.newest_first(), principal, kind, outcome, from, to, page.limit()]).await?;
        listed(&page, &rows)
    }
}

/// Rows of a body and the row's own id.
fn listed<M: prost::Message + Default>(page: &Page, rows: &[Row]) -> Result<(Vec<M>, String)> {
    let read = |row: &Row| Ok((failure::decode(row)?, row.text(1).map_err(|error| failure::report(&error))?));
    let (rows, next) = page.cut(rows.iter().map(read).collect::<Result<Vec<(M, String)>>>()?, |(_, id)| id)?;
    Ok((rows.into_iter().map(|(message, _)| message).collect(), next))
}
