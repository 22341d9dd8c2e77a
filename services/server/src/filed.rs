//! Files, and what banks have read of them: who deletes a file deletes both, and so does a file's end.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use llama_stack_core::{Code, Context, Error, EventStream, Files, Memory, Principal, Result};
use llama_stack_files::Derived;
use llama_stack_proto::v1::{
    DeleteDocumentsRequest, DeleteFileRequest, DeleteFileResponse, File, FileChunk, GetFileRequest, ListFilesRequest, ListFilesResponse,
    UploadFileRequest,
};
use llama_stack_store::Store;

/// How long a bank may take to forget one document: whoever waits for one that does not answer waits in vain, and so do all behind it.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Filed {
    files: Arc<dyn Files>,
    memory: Arc<dyn Memory>,
    store: Store,
    patience: Duration,
}

impl Filed {
    pub(crate) fn new(files: Arc<dyn Files>, memory: Arc<dyn Memory>, store: Store) -> Self {
        Self { files, memory, store, patience: PATIENCE }
    }
}

#[async_trait]
impl Files for Filed {
    async fn get_file(&self, cx: &Context, request: GetFileRequest) -> Result<File> {
        self.files.get_file(cx, request).await
    }

    async fn list_files(&self, cx: &Context, request: ListFilesRequest) -> Result<ListFilesResponse> {
        self.files.list_files(cx, request).await
    }

    async fn download_file(&self, cx: &Context, request: GetFileRequest) -> Result<EventStream<FileChunk>> {
        self.files.download_file(cx, request).await
    }

    async fn upload_file(&self, cx: &Context, request: EventStream<UploadFileRequest>) -> Result<File> {
        self.files.upload_file(cx, request).await
    }

    /// The file last: as long as it is there, who was refused half way can ask again.
    async fn delete_file(&self, cx: &Context, request: DeleteFileRequest) -> Result<DeleteFileResponse> {
        self.files.get_file(cx, GetFileRequest { id: request.id.clone() }).await?;
        cx.within(self.forget(cx.tenant(), &request.id)).await?;
        self.files.delete_file(cx, request).await
    }
}

#[async_trait]
impl Derived for Filed {
    async fn forget(&self, tenant: &str, file_id: &str) -> Result<()> {
        // Whose the file is says what becomes of its text, whoever has a bank with it.
        let admin = Context::new(Principal { id: "files".into(), tenant: tenant.into(), roles: vec!["admin".into()] });
        for (bank_id, document) in self.store.documents_of_file(tenant, file_id).await? {
            let undeletable = format!(
                "bank {bank_id:?} has what was read of the file, and its provider cannot delete documents: delete the bank, then the file"
            );
            let request = DeleteDocumentsRequest { bank_id, document_ids: vec![document], file_id: file_id.to_owned() };
            let admin = admin.clone().with_timeout(self.patience);
            match admin.within(self.memory.delete_documents(&admin, request)).await {
                // The bank has gone meanwhile, or its provider from the manifest.
                Err(error) if error.code() == Code::NotFound => {}
                Err(error) if error.code() == Code::Unimplemented => {
                    return Err(Error::failed_precondition(undeletable).with_reason("documents_stay").with_source(error));
                }
                deleted => drop(deleted?),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use llama_stack_core::ids;
    use llama_stack_proto::v1::{Bank, DeleteDocumentsResponse, Document, document::Content};
    use llama_stack_store::{Author, Durability, InsertedDocument};
    use tokio::sync::Mutex;

    use super::*;

    struct NoFiles;

    impl Files for NoFiles {}

    /// Forgets, and never answers for the bank that is held.
    #[derive(Default)]
    struct Forgetful {
        held: String,
        forgot: Mutex<Vec<String>>,
    }

    #[async_trait]
    impl Memory for Forgetful {
        async fn delete_documents(&self, _cx: &Context, request: DeleteDocumentsRequest) -> Result<DeleteDocumentsResponse> {
            if request.bank_id == self.held {
                std::future::pending::<()>().await;
            }
            self.forgot.lock().await.extend(request.document_ids);
            Ok(DeleteDocumentsResponse::default())
        }
    }

    /// Else one provider that hangs would end the expiry of all files.
    #[tokio::test]
    async fn a_bank_that_never_answers_is_given_up_and_the_file_waits_for_it() {
        let store = Store::open("sqlite::memory:", Durability::Process).await.unwrap();
        let banks = [ids::new("bank"), ids::new("bank")];
        for (bank, file) in banks.iter().zip(["file-held", "file-free"]) {
            let made = Bank { id: bank.clone(), provider_id: "sqlite".into(), created: Some(ids::now()), ..Bank::default() };
            assert!(store.insert_bank("acme", &made).await.unwrap());
            let content = Some(Content::FileId(file.into()));
            let document = Document { id: format!("of {file}"), content, created: Some(ids::now()), ..Document::default() };
            let inserted = vec![InsertedDocument { document, revision: ids::new("rev") }];
            store.put_documents("acme", bank, &Author::default(), "me", inserted, None).await.unwrap();
        }
        let memory = Arc::new(Forgetful { held: banks[0].clone(), ..Forgetful::default() });
        let filed = Filed { patience: Duration::from_millis(50), ..Filed::new(Arc::new(NoFiles), memory.clone(), store) };
        assert_eq!(filed.forget("acme", "file-held").await.unwrap_err().code(), Code::DeadlineExceeded);
        let free = Filed { patience: PATIENCE, ..filed };
        free.forget("acme", "file-free").await.unwrap();
        assert_eq!(*memory.forgot.lock().await, ["of file-free"]);
    }
}
