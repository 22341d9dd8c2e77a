//! Deletes what is older than the manifest lets it get.

use std::{sync::Arc, time::Duration};

use llama_stack_core::{Agents, Code, Context, Error, Files, Principal, Result, ids, manifest::Retention};
use llama_stack_proto::v1::{DeleteFileRequest, DeleteSessionRequest};
use llama_stack_store::Store;
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
        let people = self.retention.people().map(|(tenant, person)| Whose::Person(tenant, person));
        let tenants = self.retention.tenants.keys().map(|tenant| Whose::Tenant(tenant));
        let everybody: Vec<Whose<'_>> = people.chain(tenants).chain([Whose::Others]).collect();
        for whose in everybody {
            let days = match whose {
                Whose::Person(tenant, person) => self.retention.of_principal(tenant, person).unwrap_or_default(),
                Whose::Tenant(tenant) => self.retention.of(Some(tenant)),
                Whose::Others => self.retention.of(None),
            };
            let all = [What::Sessions, What::Files, What::Batches].into_iter().zip(days);
            for (deleted, (what, days)) in swept.iter_mut().zip(all) {
                *deleted += self.sweep_of(what, whose, days, &now).await?;
            }
        }
        Ok(swept)
    }

    async fn sweep_of(&self, what: What, whose: Whose<'_>, days: u32, now: &Timestamp) -> Result<u64> {
        if days == 0 {
            return Ok(0);
        }
        let then = Timestamp { seconds: now.seconds.saturating_sub(i64::from(days) * DAY), nanos: now.nanos };
        // Lists go from tenant to tenant.
        let (mut after, mut deleted) = ((whose.tenant().unwrap_or_default().to_owned(), String::new()), 0);
        // One that cannot go yet keeps no other from going, and is told of at the end.
        let (mut failed, mut first) = (0_u64, None);
        let told = |failed: u64, first: Option<Error>| {
            if let Some(error) = first {
                tracing::warn!(failed, error = ?error, ?what, "not all is deleted yet that retention says");
            }
        };
        loop {
            let due = match what {
                What::Sessions => self.store.idle_sessions(&then, &after).await?,
                What::Files => self.store.files_before(&then, &after).await?,
                What::Batches => self.store.batches_before(&then, &after).await?,
            };
            let Some(last) = due.last() else {
                told(failed, first);
                return Ok(deleted);
            };
            after.clone_from(last);
            for (tenant, id) in due {
                if whose.tenant().is_some_and(|one| tenant != one) {
                    told(failed, first);
                    return Ok(deleted);
                }
                let place = format!("{tenant}/{id}");
                match self.delete(what, tenant, id, whose).await {
                    Ok(count) => deleted += count,
                    Err(error) => {
                        failed += 1;
                        first.get_or_insert_with(|| error.context(place));
                    }
                }
            }
        }
    }

    /// Where it is theirs.
    async fn delete(&self, what: What, tenant: String, id: String, whose: Whose<'_>) -> Result<u64> {
        if !self.is_of(what, &tenant, &id, whose).await? {
            return Ok(0);
        }
        if matches!(what, What::Files) && self.store.is_batch_input(&tenant, &id).await? {
            return Ok(0);
        }
        let cx = admin(tenant);
        match what {
            What::Sessions => gone(self.agents.delete_session(&cx, DeleteSessionRequest { id }).await),
            What::Files => gone(self.files.delete_file(&cx, DeleteFileRequest { id }).await),
            What::Batches => gone(self.store.forget_batch(cx.tenant(), &id).await),
        }
    }

    /// Whether nobody else than these is named for it.
    async fn is_of(&self, what: What, tenant: &str, id: &str, whose: Whose<'_>) -> Result<bool> {
        match whose {
            Whose::Person(_, person) => return Ok(self.owner(what, tenant, id).await?.as_deref() == Some(person)),
            Whose::Others if self.retention.tenants.contains_key(tenant) => return Ok(false),
            Whose::Tenant(_) | Whose::Others => {}
        }
        // Whose it is matters only where somebody is named.
        if !self.retention.people().any(|(of, _)| of == tenant) {
            return Ok(true);
        }
        let owner = self.owner(what, tenant, id).await?;
        Ok(owner.is_none_or(|person| self.retention.of_principal(tenant, &person).is_none()))
    }

    async fn owner(&self, what: What, tenant: &str, id: &str) -> Result<Option<String>> {
        let found = match what {
            What::Sessions => return self.store.owner_of_session(tenant, id).await,
            What::Files => self.store.get_file(tenant, id, "").await.map(|(file, _)| file.owner),
            What::Batches => self.store.get_batch(tenant, id, "").await.map(|batch| batch.owner),
        };
        match found {
            Ok(owner) => Ok(Some(owner)),
            // Deleted meanwhile, or a file whose own time is over.
            Err(error) if error.code() == Code::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Whose things are looked at.
#[derive(Clone, Copy)]
enum Whose<'a> {
    /// One person's of a tenant.
    Person(&'a str, &'a str),
    /// A tenant's, but for those of its people who are named.
    Tenant(&'a str),
    /// Everybody's who is not named.
    Others,
}

impl<'a> Whose<'a> {
    fn tenant(self) -> Option<&'a str> {
        match self {
            Self::Person(tenant, _) | Self::Tenant(tenant) => Some(tenant),
            Self::Others => None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum What {
    Sessions,
    Files,
    Batches,
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
}
