//! Deletes what is older than the manifest lets it get.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use llama_stack_core::{Agents, Code, Context, Files, Principal, Result, ids, manifest::Retention};
use llama_stack_proto::v1::{DeleteFileRequest, DeleteSessionRequest};
use llama_stack_store::{Aged, Store};
use prost_types::Timestamp;
use tokio_util::sync::CancellationToken;

/// Between two looks. Days are what is counted in.
const EVERY: Duration = Duration::from_secs(3_600);
const DAY: i64 = 24 * 3_600;

pub(crate) struct Sweeper {
    pub(crate) store: Store,
    pub(crate) agents: Arc<dyn Agents>,
    pub(crate) files: Arc<dyn Files>,
    pub(crate) retention: Retention,
}

impl Sweeper {
    /// At once, and then again and again.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        if self.retention.is_none() {
            return;
        }
        loop {
            let swept = shutdown.run_until_cancelled(self.sweep(ids::now())).await;
            match swept {
                None => return,
                Some(Ok([0, 0, 0])) => {}
                Some(Ok([sessions, files, batches])) => {
                    tracing::info!(target: "llama_stack::audit", sessions, files, batches, "deleted, as retention says");
                }
                Some(Err(error)) => tracing::warn!(error = ?error, "what retention says to delete is not deleted yet"),
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
                return;
            }
        }
    }

    /// How many sessions, files and batches were deleted.
    pub(crate) async fn sweep(&self, now: Timestamp) -> Result<[u64; 3]> {
        let mut swept = [0; 3];
        let named = self.retention.named();
        let tenants: Vec<Option<&str>> = named.iter().copied().map(Some).chain([None]).collect();
        for tenant in tenants {
            let all = WHAT.into_iter().zip(self.retention.shortest(tenant));
            for (deleted, (what, days)) in swept.iter_mut().zip(all) {
                if days > 0 {
                    *deleted += self.sweep_of(what, tenant, &days_before(&now, days), &now, &named).await?;
                }
            }
        }
        Ok(swept)
    }

    /// Of one tenant, or (none) of those in which nobody is named. What is older than `then` may be over: its owner's rule decides.
    async fn sweep_of(&self, what: What, tenant: Option<&str>, then: &Timestamp, now: &Timestamp, named: &BTreeSet<&str>) -> Result<u64> {
        let (mut deleted, mut after) = (0, None::<Aged>);
        // One that cannot go yet keeps no other from going, and is told of at the end.
        let (mut failed, mut first) = (0_u64, None);
        loop {
            let aged = match what {
                What::Sessions => self.store.idle_sessions(then, tenant, after.as_ref()).await?,
                What::Files => self.store.files_before(then, tenant, after.as_ref()).await?,
                What::Batches => self.store.batches_before(then, tenant, after.as_ref()).await?,
            };
            for one in &aged {
                let theirs = tenant.is_some() || !named.contains(one.tenant.as_str());
                if !theirs || !self.is_over(what, one, now) {
                    continue;
                }
                match self.delete(what, one).await {
                    Ok(count) => deleted += count,
                    Err(error) => {
                        failed += 1;
                        first.get_or_insert_with(|| error.context(format!("{}/{}", one.tenant, one.id)));
                    }
                }
            }
            after = aged.into_iter().next_back();
            if after.is_none() {
                break;
            }
        }
        if let Some(error) = first {
            tracing::warn!(failed, error = ?error, ?what, "not all is deleted yet that retention says");
        }
        Ok(deleted)
    }

    fn is_over(&self, what: What, one: &Aged, now: &Timestamp) -> bool {
        let [sessions, files, batches] = self.retention.of_owner(&one.tenant, &one.owner);
        let days = match what {
            What::Sessions => sessions,
            What::Files => files,
            What::Batches => batches,
        };
        days > 0 && one.is_older(&days_before(now, days))
    }

    async fn delete(&self, what: What, one: &Aged) -> Result<u64> {
        if matches!(what, What::Files) && self.store.is_batch_input(&one.tenant, &one.id).await? {
            return Ok(0);
        }
        let (cx, id) = (admin(one.tenant.clone()), one.id.clone());
        match what {
            What::Sessions => gone(self.agents.delete_session(&cx, DeleteSessionRequest { id }).await),
            What::Files => gone(self.files.delete_file(&cx, DeleteFileRequest { id }).await),
            What::Batches => gone(self.store.forget_batch(cx.tenant(), &id).await),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum What {
    Sessions,
    Files,
    Batches,
}

const WHAT: [What; 3] = [What::Sessions, What::Files, What::Batches];

fn days_before(now: &Timestamp, days: u32) -> Timestamp {
    Timestamp { seconds: now.seconds.saturating_sub(i64::from(days) * DAY), nanos: now.nanos }
}

fn admin(tenant: String) -> Context {
    Context::new(Principal { id: "retention".into(), tenant, roles: vec!["admin".into()] })
}

/// Another process was faster, or its owner.
fn gone<T>(deleted: Result<T>) -> Result<u64> {
    match deleted {
        Ok(_) => Ok(1),
        Err(error) if error.code() == Code::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use llama_stack_core::{
        Deps, Registry,
        manifest::{Durability, OwnRetention},
    };
    use llama_stack_files::StoredFiles;
    use llama_stack_proto::v1::{
        Batch, BatchStatus, Caller, DeleteSessionResponse, FileHeader, ListFilesRequest, Session, UploadFileRequest,
        upload_file_request::Message,
    };

    use super::*;

    /// Does not delete this session.
    struct Holding(Arc<dyn Agents>, &'static str);

    #[async_trait::async_trait]
    impl Agents for Holding {
        async fn delete_session(&self, cx: &Context, request: DeleteSessionRequest) -> Result<DeleteSessionResponse> {
            if request.id == self.1 {
                return Err(llama_stack_core::Error::unavailable("not now"));
            }
            self.0.delete_session(cx, request).await
        }
    }

    /// A stack, and its database beside it.
    async fn built(home: &std::path::Path) -> (crate::Stack, Store) {
        let text = "version: 1\nname: t\nstore: { durability: process }\ntools: { runtime_types: [] }\n";
        let manifest = llama_stack_core::Manifest::parse(text, "m.yaml").unwrap();
        let options = crate::Options { home: home.to_owned(), on_progress: Arc::new(|_| {}) };
        let stack = crate::Stack::build(manifest, &Registry::default(), options).await.unwrap();
        let store = Store::open(&format!("sqlite://{}/t/state.db", home.display()), Durability::Process).await.unwrap();
        (stack, store)
    }

    #[tokio::test]
    async fn what_is_older_than_it_may_get_is_deleted_and_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let (stack, store) = built(home.path()).await;
        let files =
            StoredFiles::open(&Deps { folder: home.path().join("t"), ..Deps::new(home.path()) }, store.clone(), Default::default()).await;
        let cx = Context::test("acme");
        let header = FileHeader { filename: "a.txt".into(), purpose: "assistants".into(), ..FileHeader::default() };
        let parts = [Message::Header(header), Message::Data(b"words".to_vec())];
        let parts = futures::stream::iter(parts.map(|message| Ok(UploadFileRequest { message: Some(message) })));
        stack.files.upload_file(&cx, Box::pin(parts)).await.unwrap();
        let session = |id: &str, created: Timestamp| Session { id: id.into(), created: Some(created), ..Session::default() };
        let now = ids::now();
        let days_ago = |days: i64| Timestamp { seconds: now.seconds - days * DAY, nanos: 0 };
        store.put_session("acme", &session("old", days_ago(31))).await.unwrap();
        store.put_session("acme", &session("new", days_ago(29))).await.unwrap();

        let retention = Retention { sessions_days: 30, files_days: 10, ..Retention::default() };
        let sweeper = Sweeper { store: store.clone(), agents: stack.agents.clone(), files: files.unwrap(), retention };
        assert_eq!(sweeper.sweep(now).await.unwrap(), [1, 0, 0]);
        assert!(store.get_session("acme", "old").await.is_err() && store.get_session("acme", "new").await.is_ok());
        assert_eq!(sweeper.sweep(days_ago(-9)).await.unwrap(), [1, 0, 0], "the other session is 38 days old then, and the file 9");
        assert_eq!(sweeper.sweep(days_ago(-11)).await.unwrap(), [0, 1, 0]);
        assert!(stack.files.list_files(&cx, ListFilesRequest::default()).await.unwrap().files.is_empty());
        stack.close().await;
    }

    #[tokio::test]
    async fn what_cannot_go_yet_keeps_nothing_else_and_what_a_batch_reads_stays() {
        let home = tempfile::tempdir().unwrap();
        let (stack, store) = built(home.path()).await;
        let (cx, now) = (Context::test("acme"), ids::now());
        let created = Some(Timestamp { seconds: now.seconds - 20 * DAY, nanos: 0 });
        for id in ["a", "held", "z"] {
            store.put_session("acme", &Session { id: id.into(), created, ..Session::default() }).await.unwrap();
        }
        let header = FileHeader { filename: "a.jsonl".into(), purpose: "batch".into(), ..FileHeader::default() };
        let parts = [Message::Header(header), Message::Data(b"{}".to_vec())];
        let parts = futures::stream::iter(parts.map(|message| Ok(UploadFileRequest { message: Some(message) })));
        let input_file_id = stack.files.upload_file(&cx, Box::pin(parts)).await.unwrap().id;
        let status = BatchStatus::InProgress.into();
        let reading = Batch { id: ids::new("batch"), input_file_id, status, created: Some(now), ..Batch::default() };
        // Nothing is served, so nobody runs it.
        let author = Caller { principal: "ann".into(), tenant: "acme".into(), ..Caller::default() };
        store.insert_batch(&reading, &author).await.unwrap();
        let retention = Retention { sessions_days: 10, files_days: 10, batches_days: 10, ..Retention::default() };
        let agents = Arc::new(Holding(stack.agents.clone(), "held"));
        let sweeper = Sweeper { store: store.clone(), agents, files: stack.files.clone(), retention };
        let later = Timestamp { seconds: now.seconds + 11 * DAY, nanos: now.nanos };
        assert_eq!(sweeper.sweep(later).await.unwrap(), [2, 0, 0]);
        assert!(store.get_session("acme", "held").await.is_ok());
        store.forget_batches("acme", None).await.unwrap();
        assert_eq!(sweeper.sweep(later).await.unwrap(), [0, 1, 0]);
        stack.close().await;
    }

    #[tokio::test]
    async fn a_tenant_that_is_named_has_its_own_time_and_no_other_has() {
        let home = tempfile::tempdir().unwrap();
        let (stack, store) = built(home.path()).await;
        let now = ids::now();
        let created = Some(Timestamp { seconds: now.seconds - 20 * DAY, nanos: 0 });
        for tenant in ["acme", "bank", "law", "zeta"] {
            store.put_session(tenant, &Session { id: "old".into(), created, ..Session::default() }).await.unwrap();
        }
        let own = |days| OwnRetention { sessions_days: Some(days), ..OwnRetention::default() };
        let tenants = [("bank".to_owned(), own(10)), ("law".to_owned(), own(0))].into();
        let retention = Retention { sessions_days: 30, tenants, ..Retention::default() };
        let (agents, files) = (stack.agents.clone(), stack.files.clone());
        let sweeper = Sweeper { store: store.clone(), agents, files, retention };
        let left = async || {
            let mut left = Vec::new();
            for tenant in ["acme", "bank", "law", "zeta"] {
                if store.get_session(tenant, "old").await.is_ok() {
                    left.push(tenant);
                }
            }
            left
        };
        assert_eq!(sweeper.sweep(now).await.unwrap(), [1, 0, 0]);
        assert_eq!(left().await, ["acme", "law", "zeta"]);
        let later = Timestamp { seconds: now.seconds + 20 * DAY, nanos: 0 };
        assert_eq!(sweeper.sweep(later).await.unwrap(), [2, 0, 0]);
        assert_eq!(left().await, ["law"]);
        stack.close().await;
    }

    #[tokio::test]
    async fn a_person_who_is_named_has_their_own_time_for_all_that_is_theirs() {
        let home = tempfile::tempdir().unwrap();
        let (stack, store) = built(home.path()).await;
        let now = ids::now();
        let created = Some(Timestamp { seconds: now.seconds - 20 * DAY, nanos: 0 });
        let cx = |tenant: &str, person: &str| Context::new(Principal { id: person.into(), tenant: tenant.into(), roles: Vec::new() });
        // Of each a session of twenty days, a file of today, and a batch that has ended.
        let everybody = [("acme", "ann"), ("acme", "bob"), ("acme", "cid"), ("zeta", "ann")];
        for (tenant, person) in everybody {
            let cx = cx(tenant, person);
            store.put_session(tenant, &Session { id: person.into(), created, ..Session::default() }).await.unwrap();
            store.put_owner(cx.principal(), person).await.unwrap();
            let header = FileHeader { filename: "a.txt".into(), purpose: "assistants".into(), ..FileHeader::default() };
            let parts = [Message::Header(header), Message::Data(b"words".to_vec())];
            let parts = futures::stream::iter(parts.map(|message| Ok(UploadFileRequest { message: Some(message) })));
            stack.files.upload_file(&cx, Box::pin(parts)).await.unwrap();
            let status = BatchStatus::Completed.into();
            let batch = Batch { id: ids::new("batch"), owner: person.into(), status, created: Some(now), ..Batch::default() };
            let author = Caller { principal: person.into(), tenant: tenant.into(), ..Caller::default() };
            store.insert_batch(&batch, &author).await.unwrap();
        }
        let own = |days| OwnRetention { sessions_days: Some(days), files_days: Some(days), batches_days: Some(days) };
        let retention = Retention {
            sessions_days: 30,
            files_days: 30,
            batches_days: 30,
            principals: [("acme/ann".to_owned(), own(10)), ("acme/bob".to_owned(), own(0))].into(),
            ..Retention::default()
        };
        let (agents, files) = (stack.agents.clone(), stack.files.clone());
        let sweeper = Sweeper { store: store.clone(), agents, files, retention };
        let left = async || {
            let mut left = Vec::new();
            for (tenant, person) in everybody {
                let cx = cx(tenant, person);
                let session = u32::from(store.get_session(tenant, person).await.is_ok());
                let files = stack.files.list_files(&cx, ListFilesRequest::default()).await.unwrap().files.len();
                let batches = store.list_batches(tenant, person, "", 10).await.unwrap().len();
                left.push((session, files, batches));
            }
            left
        };
        let in_days = |days: i64| Timestamp { seconds: now.seconds + days * DAY, nanos: now.nanos };
        assert_eq!(sweeper.sweep(now).await.unwrap(), [1, 0, 0], "Ann's session");
        assert_eq!(sweeper.sweep(in_days(11)).await.unwrap(), [2, 1, 1], "her file and batch; all sessions are too old for the others");
        assert_eq!(left().await, [(0, 0, 0), (1, 1, 1), (0, 1, 1), (0, 1, 1)]);
        assert_eq!(sweeper.sweep(in_days(31)).await.unwrap(), [0, 2, 2]);
        assert_eq!(left().await, [(0, 0, 0), (1, 1, 1), (0, 0, 0), (0, 0, 0)], "what is Bob's stays for ever");
        stack.close().await;
    }

    #[tokio::test]
    async fn people_whose_sessions_lie_between_each_other_have_each_their_own_time_and_no_others() {
        let home = tempfile::tempdir().unwrap();
        let (stack, store) = built(home.path()).await;
        let now = ids::now();
        let created = Some(Timestamp { seconds: now.seconds - 20 * DAY, nanos: 0 });
        // More than one page, of people whose rules differ, in a tenant and beside it.
        let people = ["ann", "bob", "cid"];
        let put = (0..690).map(|number| {
            let tenant = if number < 660 { "acme" } else { "zeta" };
            let (id, person) = (format!("s{number:03}"), people[number % 3]);
            let store = store.clone();
            async move {
                store.put_session(tenant, &Session { id: id.clone(), created, ..Session::default() }).await.unwrap();
                let principal = Principal { id: person.into(), tenant: tenant.into(), roles: Vec::new() };
                store.put_owner(&principal, &id).await.unwrap();
            }
        });
        futures::future::join_all(put).await;
        let own = |days| OwnRetention { sessions_days: Some(days), ..OwnRetention::default() };
        let tenants = [("acme".to_owned(), own(15))].into();
        let principals = [("acme/ann".to_owned(), own(30)), ("acme/bob".to_owned(), own(0)), ("zeta/bob".to_owned(), own(10))].into();
        let retention = Retention { tenants, principals, ..Retention::default() };
        let (agents, files) = (stack.agents.clone(), stack.files.clone());
        let sweeper = Sweeper { store: store.clone(), agents, files, retention };
        let left = async || {
            let mut left = [[0; 3]; 2];
            for number in 0..690 {
                let (tenant, of) = if number < 660 { ("acme", 0) } else { ("zeta", 1) };
                left[of][number % 3] += u32::from(store.get_session(tenant, &format!("s{number:03}")).await.is_ok());
            }
            left
        };
        assert_eq!(sweeper.sweep(now).await.unwrap(), [230, 0, 0]);
        assert_eq!(left().await, [[220, 220, 0], [10, 0, 10]], "those of Cid in the one tenant, and of Bob in the other");
        let later = Timestamp { seconds: now.seconds + 11 * DAY, nanos: 0 };
        assert_eq!(sweeper.sweep(later).await.unwrap(), [220, 0, 0]);
        assert_eq!(left().await, [[0, 220, 0], [10, 0, 10]], "Ann's are over, and what is for ever stays");
        stack.close().await;
    }
}
