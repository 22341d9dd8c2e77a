//! What is written down at the edge: requests, and what was decided about them. It gathers for a second and goes to the store in
//! groups, so that no request waits for it.
//!
//! ```text
//! Begun, dropped ─┐
//! decisions ──────┴─ waiting, in memory ─ every second, before a look, and at the end ─> the store
//! ```
//!
//! A process that is killed loses what waited. Where the store does not answer for long, the oldest go, and the log says how many.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use llama_stack_core::{
    Context, Result, ids,
    manifest::{self, Audit},
};
use llama_stack_proto::v1::{AuditEvent, RequestRecord};
use llama_stack_store::Store;
use tokio_util::sync::CancellationToken;

use super::{
    audit::{NOBODYS, refusal},
    refused::Refused,
};

/// Between two writes.
const BEAT: Duration = Duration::from_secs(1);
/// Between two looks for what is too old.
const TIDY: Duration = Duration::from_secs(10 * 60);
/// Of each kind that may wait, some tens of megabytes at most.
const WAITING: usize = 65_536;
/// Rows in one transaction: other writes come in between.
const GROUP: usize = 512;
const DAY: Duration = Duration::from_secs(86_400);

/// With its tenant.
type Row<T> = (String, T);

pub(crate) struct Log {
    store: Store,
    config: manifest::Telemetry,
    waiting: Mutex<Waiting>,
    refused: Mutex<Refused>,
    /// One write at a time, so that rows stay in order.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Waiting {
    requests: Vec<Row<RequestRecord>>,
    events: Vec<Row<AuditEvent>>,
    lost: usize,
}

/// A request whose answer is not done. Dropping it writes it down.
pub(crate) struct Begun {
    log: Arc<Log>,
    tenant: String,
    record: RequestRecord,
    started: Instant,
}

/// What was decided, and about what.
#[derive(Default)]
pub(crate) struct Decided<'a> {
    pub(crate) event: AuditEvent,
    /// Nothing was refused, found or changed.
    pub(crate) is_plain: bool,
    pub(crate) tenant: &'a str,
}

impl Log {
    pub(crate) fn new(config: manifest::Telemetry, store: Store) -> Arc<Self> {
        Arc::new(Self { store, config, waiting: Mutex::default(), refused: Mutex::default(), writing: tokio::sync::Mutex::default() })
    }

    /// Whether requests are written down.
    pub(crate) fn is_on(&self) -> bool {
        self.config.requests > 0
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn begin(self: &Arc<Self>, cx: &Context, id: &str, method: &str, route: &str) -> Begun {
        let record = RequestRecord {
            id: id.into(),
            started: Some(ids::now()),
            method: method.into(),
            route: route.into(),
            // Until there is an answer: whoever asked went away.
            code: "499".into(),
            seconds: 0.0,
            principal: cx.principal().id.clone(),
        };
        Begun { log: self.clone(), tenant: cx.tenant().into(), record, started: Instant::now() }
    }

    /// Puts a decision down, where the manifest wants it.
    pub(crate) fn decided(&self, decided: Decided<'_>) {
        let is_wanted = match self.config.audit {
            Audit::All => true,
            Audit::Denied => !decided.is_plain,
            Audit::None => false,
        };
        if !is_wanted {
            return;
        }
        let event = AuditEvent { id: ids::new("audit"), time: Some(ids::now()), ..decided.event };
        let Waiting { events, lost, .. } = &mut *self.waiting();
        push(events, (decided.tenant.into(), event), lost);
    }

    fn refusals(&self) -> MutexGuard<'_, Refused> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a refused credential from this address has its own row.
    pub(super) fn takes_refusal(&self, address: IpAddr) -> bool {
        self.refusals().takes(address, Instant::now())
    }

    /// Puts down how many refused credentials had no row in a minute that is over, or `at_once`.
    fn sum_up(&self, at_once: bool) {
        let dropped = self.refusals().end(Instant::now(), at_once);
        for (address, dropped) in dropped {
            let event = AuditEvent { address, dropped, ..refusal() };
            self.decided(Decided { event, is_plain: false, tenant: NOBODYS });
        }
    }

    /// Writes down what waits.
    ///
    /// # Errors
    /// As the store; what could not be written waits on.
    pub(crate) async fn flush(&self) -> Result<()> {
        let _writing = self.writing.lock().await;
        let (requests, events, lost) = {
            let mut waiting = self.waiting();
            (std::mem::take(&mut waiting.requests), std::mem::take(&mut waiting.events), std::mem::take(&mut waiting.lost))
        };
        if lost > 0 {
            tracing::error!(lost, "requests and decisions could not be written down: the store did not keep up");
        }
        let mut requests = newest(requests, self.config.requests);
        let done = in_groups(&mut requests, |group| self.store.add_requests(group, self.config.requests)).await;
        let mut events = events;
        let done = done.and(in_groups(&mut events, |group| self.store.add_audit_events(group)).await);
        if !requests.is_empty() || !events.is_empty() {
            let mut waiting = self.waiting();
            let Waiting { requests: later_requests, events: later_events, lost } = &mut *waiting;
            put_back(later_requests, requests, lost);
            put_back(later_events, events, lost);
        }
        done
    }

    /// Writes every second, until the shutdown; lets go of what is too old.
    pub(crate) async fn keep(self: Arc<Self>, shutdown: CancellationToken) {
        let mut tidied: Option<Instant> = None;
        loop {
            let is_over = tokio::time::timeout(BEAT, shutdown.cancelled()).await.is_ok();
            self.sum_up(is_over);
            if let Err(error) = self.flush().await {
                tracing::warn!(error = ?error, "requests and decisions could not be written down: they wait");
            }
            if is_over {
                return;
            }
            if tidied.is_none_or(|at| at.elapsed() >= TIDY) {
                tidied = Some(Instant::now());
                let before = |days: u32| micros_ago(DAY.saturating_mul(days));
                if let Err(error) = self.store.forget_logs(before(self.config.request_days), before(self.config.audit_days)).await {
                    tracing::warn!(error = ?error, "old requests and decisions could not be forgotten");
                }
            }
        }
    }
}

/// Writes rows, oldest first, and takes out those that are written.
async fn in_groups<T: Clone, F: Future<Output = Result<()>>>(rows: &mut Vec<Row<T>>, write: impl Fn(Vec<Row<T>>) -> F) -> Result<()> {
    while !rows.is_empty() {
        let group = rows.len().min(GROUP);
        write(rows[..group].to_vec()).await?;
        rows.drain(..group);
    }
    Ok(())
}

/// Of each tenant, those that would stay.
fn newest(requests: Vec<Row<RequestRecord>>, most: usize) -> Vec<Row<RequestRecord>> {
    if requests.len() <= most {
        return requests;
    }
    let mut counts: HashMap<String, usize> = HashMap::new();
    let mut kept: Vec<_> = requests.into_iter().rev().collect();
    kept.retain(|(tenant, _)| {
        let count = counts.entry(tenant.clone()).or_default();
        *count += 1;
        *count <= most
    });
    kept.reverse();
    kept
}

fn push<T>(rows: &mut Vec<Row<T>>, row: Row<T>, lost: &mut usize) {
    if rows.len() < WAITING {
        rows.push(row);
    } else {
        *lost += 1;
    }
}

/// In front of what came meanwhile; what has no room is lost, the oldest first.
fn put_back<T>(later: &mut Vec<Row<T>>, mut rows: Vec<Row<T>>, lost: &mut usize) {
    let over = (rows.len() + later.len()).saturating_sub(WAITING).min(rows.len());
    rows.drain(..over);
    *lost += over;
    rows.append(later);
    *later = rows;
}

fn micros_ago(age: Duration) -> i64 {
    let then = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(age);
    i64::try_from(then.as_micros()).unwrap_or(i64::MAX)
}

impl Begun {
    pub(crate) fn answered(&mut self, code: &str) {
        code.clone_into(&mut self.record.code);
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let mut record = std::mem::take(&mut self.record);
        record.seconds = self.started.elapsed().as_secs_f64();
        let Waiting { requests, lost, .. } = &mut *self.log.waiting();
        push(requests, (std::mem::take(&mut self.tenant), record), lost);
    }
}

#[cfg(test)]
mod tests {
    use llama_stack_store::Durability;

    use super::*;

    async fn log(config: manifest::Telemetry) -> Arc<Log> {
        Log::new(config, Store::open("sqlite::memory:", Durability::Process).await.unwrap())
    }

    async fn seen(log: &Log, tenant: &str) -> Vec<String> {
        log.flush().await.unwrap();
        log.store.list_requests(tenant, &Default::default()).await.unwrap().0.into_iter().map(|record| record.id).collect()
    }

    #[tokio::test]
    async fn the_newest_of_each_tenant_are_kept() {
        let log = log(manifest::Telemetry { requests: 2, ..Default::default() }).await;
        for n in 0..5 {
            let tenant = if n == 3 { "other" } else { "acme" };
            log.begin(&Context::test(tenant), &n.to_string(), "GET", "/v1/models").answered("200");
        }
        assert_eq!((seen(&log, "acme").await, seen(&log, "other").await), (vec!["4".to_owned(), "2".into()], vec!["3".to_owned()]));
        log.begin(&Context::test("acme"), "5", "GET", "/v1/models").answered("200");
        assert_eq!(seen(&log, "acme").await, ["5", "4"]);
    }

    #[tokio::test]
    async fn what_cannot_be_written_waits_in_order() {
        let log = log(manifest::Telemetry::default()).await;
        let begin = |id: &str| drop(log.begin(&Context::test("acme"), id, "GET", "/v1/models"));
        begin("1");
        log.store.close().await;
        assert!(log.flush().await.is_err());
        begin("2");
        assert!(log.flush().await.is_err());
        let waiting: Vec<String> = log.waiting().requests.iter().map(|(_, record)| record.id.clone()).collect();
        assert_eq!(waiting, ["1", "2"]);
    }

    #[tokio::test]
    async fn a_plain_decision_is_written_down_only_where_all_are() {
        for (audit, expected) in [(Audit::All, 2), (Audit::Denied, 1), (Audit::None, 0)] {
            let log = log(manifest::Telemetry { audit, ..Default::default() }).await;
            for is_plain in [true, false] {
                log.decided(Decided { tenant: "acme", is_plain, ..Default::default() });
            }
            log.flush().await.unwrap();
            assert_eq!(log.store.list_audit_events("acme", &Default::default()).await.unwrap().0.len(), expected, "{audit:?}");
        }
    }
}
