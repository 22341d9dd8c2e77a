//! Files, and what banks have read of them: who deletes a file deletes both, and so does a file's end.

use std::sync::Arc;

use async_trait::async_trait;
use llama_stack_core::{Code, Context, EventStream, Files, Memory, Principal, Result};
use llama_stack_files::Derived;
use llama_stack_proto::v1::{
    DeleteDocumentsRequest, DeleteFileRequest, DeleteFileResponse, File, FileChunk, GetFileRequest, ListFilesRequest, ListFilesResponse,
    UploadFileRequest,
};
use llama_stack_store::Store;

pub(crate) struct Filed {
    pub(crate) files: Arc<dyn Files>,
    pub(crate) memory: Arc<dyn Memory>,
    pub(crate) store: Store,
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
            let request = DeleteDocumentsRequest { bank_id, document_ids: vec![document] };
            match self.memory.delete_documents(&admin, request).await {
                // The bank has gone meanwhile, or its provider from the manifest.
                Err(error) if error.code() == Code::NotFound => {}
                deleted => drop(deleted?),
            }
        }
        Ok(())
    }
}
