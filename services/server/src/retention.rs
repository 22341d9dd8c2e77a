//! Deletes what is older than the manifest lets it get.

use std::{sync::Arc, time::Duration};

use llama_stack_core::{Agents, Code, Context, Files, Principal, Result, ids, manifest::Retention};
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
        let named = self.retention.tenants.keys().map(|tenant| Some(tenant.as_str()));
        for whose in named.chain([None]) {
            let all = [What::Sessions, What::Files, What::Batches].into_iter().zip(self.retention.of(whose));
            for (deleted, (what, days)) in swept.iter_mut().zip(all) {
                *deleted += self.sweep_of(what, whose, days, &now).await?;
            }
        }
        Ok(swept)
    }

    /// `whose`: of one tenant, or of all that are not named.
    async fn sweep_of(&self, what: What, whose: Option<&str>, days: u32, now: &Timestamp) -> Result<u64> {
        if days == 0 {
            return Ok(0);
        }
        let then = Timestamp { seconds: now.seconds.saturating_sub(i64::from(days) * DAY), nanos: now.nanos };
        // Lists go from tenant to tenant.
        let (mut after, mut deleted) = ((whose.unwrap_or_default().to_owned(), String::new()), 0);
        loop {
            let due = match what {
                What::Sessions => self.store.idle_sessions(&then, &after).await?,
                What::Files => self.store.files_before(&then, &after).await?,
                What::Batches => self.store.batches_before(&then, &after).await?,
            };
            let Some(last) = due.last() else { return Ok(deleted) };
            after.clone_from(last);
            for (tenant, id) in due {
                match whose {
                    Some(one) if tenant != one => return Ok(deleted),
                    None if self.retention.tenants.contains_key(&tenant) => continue,
                    _ => {}
                }
                let cx = admin(tenant);
                deleted += match what {
                    What::Sessions => gone(self.agents.delete_session(&cx, DeleteSessionRequest { id }).await)?,
                    // A bank that has read it may not answer: the others do not wait for that.
                    What::Files => gone(self.files.delete_file(&cx, DeleteFileRequest { id }).await).unwrap_or_else(|error| {
                        tracing::warn!(error = ?error, "a file is not deleted yet, as retention says");
                        0
                    }),
                    What::Batches => gone(self.store.forget_batch(cx.tenant(), &id).await)?,
                };
            }
        }
    }
}

#[derive(Clone, Copy)]
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
        manifest::{Durability, TenantRetention},
    };
    use llama_stack_files::StoredFiles;
    use llama_stack_proto::v1::{FileHeader, ListFilesRequest, Session, UploadFileRequest, upload_file_request::Message};

    use super::*;

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
    async fn a_tenant_that_is_named_has_its_own_time_and_no_other_has() {
        let home = tempfile::tempdir().unwrap();
        let (stack, store) = built(home.path()).await;
        let now = ids::now();
        let created = Some(Timestamp { seconds: now.seconds - 20 * DAY, nanos: 0 });
        for tenant in ["acme", "bank", "law", "zeta"] {
            store.put_session(tenant, &Session { id: "old".into(), created, ..Session::default() }).await.unwrap();
        }
        let own = |days| TenantRetention { sessions_days: Some(days), ..TenantRetention::default() };
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
}
