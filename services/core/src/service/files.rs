use tonic::transport::Channel;

use llama_stack_proto::v1::{
    DeleteFileRequest, DeleteFileResponse, File, FileChunk, GetFileRequest, ListFilesRequest, ListFilesResponse, UploadFileRequest,
    files_client::FilesClient, files_server,
};

use crate::{Context, Error, EventStream, Result, grpc::grpc_service};

/// Uploaded content, kept by its hash.
#[async_trait::async_trait]
pub trait Files: Send + Sync + 'static {
    async fn get_file(&self, _cx: &Context, _request: GetFileRequest) -> Result<File> {
        Err(Error::unimplemented("GetFile"))
    }

    async fn list_files(&self, _cx: &Context, _request: ListFilesRequest) -> Result<ListFilesResponse> {
        Err(Error::unimplemented("ListFiles"))
    }

    async fn delete_file(&self, _cx: &Context, _request: DeleteFileRequest) -> Result<DeleteFileResponse> {
        Err(Error::unimplemented("DeleteFile"))
    }

    async fn download_file(&self, _cx: &Context, _request: GetFileRequest) -> Result<EventStream<FileChunk>> {
        Err(Error::unimplemented("DownloadFile"))
    }

    async fn upload_file(&self, _cx: &Context, _request: EventStream<UploadFileRequest>) -> Result<File> {
        Err(Error::unimplemented("UploadFile"))
    }
}

grpc_service!(Files, files_server::Files, FilesClient<Channel> {
    unary get_file(GetFileRequest) -> File;
    unary list_files(ListFilesRequest) -> ListFilesResponse;
    unary delete_file(DeleteFileRequest) -> DeleteFileResponse;
    stream download_file(GetFileRequest) -> FileChunk as DownloadFileStream;
    upload upload_file(UploadFileRequest) -> File;
});
