//! What a document is made of: its text, its bytes, or a file's.

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use llama_stack_core::{Code, Context, Error, Result};
use llama_stack_proto::v1::{Document, File, GetFileRequest, document::Content};
use prost_types::Timestamp;
use sha2::{Digest as _, Sha256};

use super::Banks;

const MAX_BYTES: u64 = 64 << 20;

pub(super) struct Source {
    pub(super) filename: String,
    pub(super) media_type: String,
    pub(super) data: Bytes,
    pub(super) sha256: String,
    /// Empty where it is no file.
    pub(super) file_id: String,
    /// When the file does.
    pub(super) expires: Option<Timestamp>,
}

impl Banks {
    /// # Errors
    /// `InvalidArgument` there is no content (`empty_file`) · `OutOfRange` it is too large (`file_too_large`) · `NotFound` no
    /// such file · `FailedPrecondition` it is a file's, and the stack keeps none (`no_files`).
    pub(super) async fn source(&self, cx: &Context, document: &Document) -> Result<Source> {
        let (mut filename, mut media_type) = (document.title.clone(), document.media_type.clone());
        let (mut file_id, mut expires) = (String::new(), None);
        let data = match &document.content {
            None => {
                return Err(
                    Error::invalid("content", "the document has no content: give text, data or a file_id").with_reason("empty_file")
                );
            }
            Some(Content::Text(text)) => {
                if media_type.is_empty() {
                    media_type = "text/plain".into();
                }
                Bytes::copy_from_slice(text.as_bytes())
            }
            Some(Content::Data(data)) => Bytes::from(data.clone()),
            Some(Content::FileId(id)) => {
                let (file, data) = self.file(cx, id).await?;
                filename = file.filename;
                if media_type.is_empty() {
                    media_type = file.media_type;
                }
                file_id.clone_from(id);
                expires = file.expires;
                data
            }
        };
        self.check_size(data.len() as u64)?;
        if data.is_empty() {
            return Err(Error::invalid("content", "the document is empty").with_reason("empty_file"));
        }
        let hashed = data.clone();
        let sha256 = tokio::task::spawn_blocking(move || hex::encode(Sha256::digest(&hashed))).await.map_err(broke_off)?;
        Ok(Source { filename, media_type, data, sha256, file_id, expires })
    }

    async fn file(&self, cx: &Context, id: &str) -> Result<(File, Bytes)> {
        let files = self.files.as_ref().ok_or_else(|| {
            let message = "this stack keeps no files: insert the document by its text or its bytes";
            Error::failed_precondition(message).with_field("file_id").with_reason("no_files")
        })?;
        let request = GetFileRequest { id: id.into() };
        let file = files.get_file(cx, request.clone()).await?;
        self.check_size(file.bytes)?;
        let mut content = files.download_file(cx, request).await?;
        let mut data = BytesMut::with_capacity(file.bytes as usize);
        while let Some(chunk) = content.next().await {
            data.extend_from_slice(&chunk?.data);
            self.check_size(data.len() as u64)?;
        }
        Ok((file, data.freeze()))
    }

    pub(super) fn check_size(&self, bytes: u64) -> Result<()> {
        let most = self.config.max_document_bytes.unwrap_or(MAX_BYTES);
        if bytes > most {
            let message = format!("the document has {bytes} bytes, and may have {most}");
            return Err(Error::new(Code::TooLarge, message).with_reason("file_too_large"));
        }
        Ok(())
    }
}

/// A task on another thread that panicked, or was ended with the process.
pub(super) fn broke_off(error: tokio::task::JoinError) -> Error {
    Error::internal("reading the document broke off").with_source(error)
}
