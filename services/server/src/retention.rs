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
        if self.retention.sessions_days == 0 && self.retention.files_days == 0 {
            return;
        }
        loop {
            let swept = shutdown.run_until_cancelled(self.sweep(ids::now())).await;
            match swept {
                None => return,
                Some(Ok((0, 0))) => {}
                Some(Ok((sessions, files))) => {
                    tracing::info!(target: "llama_stack::audit", sessions, files, "deleted, as retention says");
                }
                Some(Err(error)) => tracing::warn!(error = ?error, "what retention says to delete is not deleted yet"),
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
                return;
            }
        }
    }

    /// How many sessions and files were deleted.
    pub(crate) async fn sweep(&self, now: Timestamp) -> Result<(u64, u64)> {
        let before = |days: u32| Timestamp { seconds: now.seconds.saturating_sub(i64::from(days) * DAY), nanos: now.nanos };
        let (mut sessions, mut files) = (0, 0);
        if self.retention.sessions_days > 0 {
            let (since, mut after) = (before(self.retention.sessions_days), (String::new(), String::new()));
            loop {
                let idle = self.store.idle_sessions(&since, &after).await?;
                let Some(last) = idle.last() else { break };
                after.clone_from(last);
                for (tenant, id) in idle {
                    sessions += gone(self.agents.delete_session(&admin(tenant), DeleteSessionRequest { id }).await)?;
                }
            }
        }
        if self.retention.files_days > 0 {
            let (then, mut after) = (before(self.retention.files_days), (String::new(), String::new()));
            loop {
                let old = self.store.files_before(&then, &after).await?;
                let Some(last) = old.last() else { break };
                after.clone_from(last);
                for (tenant, id) in old {
                    files += gone(self.files.delete_file(&admin(tenant), DeleteFileRequest { id }).await)?;
                }
            }
        }
        Ok((sessions, files))
    }
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
    use llama_stack_core::{Deps, Registry, manifest::Durability};
    use llama_stack_files::StoredFiles;
    use llama_stack_proto::v1::{FileHeader, ListFilesRequest, Session, UploadFileRequest, upload_file_request::Message};

    use super::*;

    #[tokio::test]
    async fn what_is_older_than_it_may_get_is_deleted_and_nothing_else() {
        let home = tempfile::tempdir().unwrap();
        let text = "version: 1\nname: t\nstore: { durability: process }\ntools: { runtime_types: [] }\n";
        let manifest = llama_stack_core::Manifest::parse(text, "m.yaml").unwrap();
        let options = crate::Options { home: home.path().to_owned(), on_progress: Arc::new(|_| {}) };
        let stack = crate::Stack::build(manifest, &Registry::default(), options).await.unwrap();
        let store = Store::open(&format!("sqlite://{}/t/state.db", home.path().display()), Durability::Process).await.unwrap();
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

        let retention = Retention { sessions_days: 30, files_days: 10 };
        let sweeper = Sweeper { store: store.clone(), agents: stack.agents.clone(), files: files.unwrap(), retention };
        assert_eq!(sweeper.sweep(now).await.unwrap(), (1, 0));
        assert!(store.get_session("acme", "old").await.is_err() && store.get_session("acme", "new").await.is_ok());
        assert_eq!(sweeper.sweep(days_ago(-9)).await.unwrap(), (1, 0), "the other session is 38 days old then, and the file 9");
        assert_eq!(sweeper.sweep(days_ago(-11)).await.unwrap(), (0, 1));
        assert!(stack.files.list_files(&cx, ListFilesRequest::default()).await.unwrap().files.is_empty());
        stack.close().await;
    }
}
