//! The service: whose files there are, and what may be done with them.

use std::{path::PathBuf, sync::Arc};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, TryStreamExt as _};
use llama_stack_core::{Code, Context, Deps, Error, EventStream, Files, Result, ids, manifest};
use llama_stack_proto::v1::{
    DeleteFileRequest, DeleteFileResponse, File, FileChunk, FileHeader, GetFileRequest, ListFilesRequest, ListFilesResponse,
    UploadFileRequest, upload_file_request::Message,
};
use llama_stack_store::{FileList, Store};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    blobs::{Blobs, Draft},
    contents::Contents,
    disk::Disk,
    s3::Bucket,
    sweep::{self, Derived},
};

/// Who has this role reaches every file of their tenant.
const ADMIN: &str = "admin";
const PURPOSES: [&str; 7] = ["assistants", "batch", "batch_output", "fine-tune", "vision", "user_data", "evals"];
/// OpenAI's own range: an hour to thirty days.
const EXPIRES_AFTER: std::ops::RangeInclusive<u64> = 3_600..=2_592_000;
const DEFAULT_PAGE: u32 = 1_000;
const MAX_PAGE: u32 = 10_000;
const MAX_NAME: usize = 255;
/// Gathered before it is written, and read at once.
pub(crate) const PIECE: usize = 1 << 20;

/// The files of a stack: what is known of them in its store, their contents where the manifest says.
pub struct StoredFiles {
    store: Store,
    /// Takes in what arrives, wherever it goes.
    drafts: Blobs,
    contents: Arc<dyn Contents>,
    config: manifest::Files,
    tasks: TaskTracker,
}

impl StoredFiles {
    /// Makes the folder, and from then on removes what a crash left behind.
    ///
    /// # Errors
    /// `Unavailable` the folder cannot be made or written · `FailedPrecondition` the bucket is not there or not for this server.
    pub async fn open(deps: &Deps, store: Store, config: manifest::Files) -> Result<Arc<Self>> {
        let folder: PathBuf = deps.folder.join("files");
        let drafts = Blobs::open(folder.clone()).map_err(|error| error.context(folder.display()))?;
        let (tasks, shutdown) = (deps.tasks.clone(), deps.shutdown.clone());
        let contents: Arc<dyn Contents> = match &config.s3 {
            Some(s3) => Arc::new(Bucket::open(s3, store.clone(), tasks.clone()).await?),
            None => Arc::new(Disk { store: store.clone(), blobs: drafts.clone(), tasks: tasks.clone() }),
        };
        deps.tasks.spawn(sweep::run(store.clone(), contents.clone(), drafts.clone(), tasks.clone(), shutdown));
        Ok(Arc::new(Self { store, drafts, contents, config, tasks }))
    }

    /// From now on removes what has expired, as long as the stack runs.
    pub fn expire(&self, derived: Arc<dyn Derived>, shutdown: CancellationToken) {
        self.tasks.spawn(sweep::expire(self.store.clone(), self.contents.clone(), derived, shutdown));
    }

    async fn get(&self, cx: &Context, id: &str) -> Result<(File, String)> {
        self.store.get_file(cx.tenant(), id, owner(cx)).await
    }

    /// Takes the content in, piece by piece, and the header with it.
    async fn receive(&self, mut messages: EventStream<UploadFileRequest>) -> Result<(FileHeader, Draft)> {
        let Some(Message::Header(mut header)) = next(&mut messages).await? else {
            return Err(Error::invalid("header", "the first message of an upload must be its header"));
        };
        check_early(&header)?;
        let drafts = self.drafts.clone();
        let mut draft = blocking(&self.tasks, move || drafts.draft()).await?;
        let mut gathered = BytesMut::new();
        while let Some(message) = next(&mut messages).await? {
            match message {
                Message::Header(again) => header = again,
                Message::Data(data) => {
                    if draft.bytes + (gathered.len() + data.len()) as u64 > self.config.max_bytes {
                        let message = format!("the file is larger than {} bytes, which is the most", self.config.max_bytes);
                        return Err(Error::new(Code::TooLarge, message).with_field("file").with_reason("file_too_large"));
                    }
                    gathered.extend_from_slice(&data);
                    if gathered.len() >= PIECE {
                        draft = self.write(draft, gathered.split().freeze()).await?;
                    }
                }
            }
        }
        let draft = self.write(draft, gathered.freeze()).await?;
        if draft.bytes == 0 {
            return Err(Error::invalid("file", "the file is empty").with_reason("empty_file"));
        }
        Ok((header, draft))
    }

    async fn write(&self, mut draft: Draft, data: Bytes) -> Result<Draft> {
        blocking(&self.tasks, move || draft.write(&data).map(|()| draft)).await
    }
}

#[async_trait]
impl Files for StoredFiles {
    async fn upload_file(&self, cx: &Context, request: EventStream<UploadFileRequest>) -> Result<File> {
        let (header, mut draft) = cx.within(self.receive(request)).await?;
        let filename = checked(&header)?;
        let sha256 = draft.hash();
        let created = ids::now();
        let expires = (header.expires_after_seconds > 0).then(|| {
            let seconds = created.seconds.saturating_add_unsigned(header.expires_after_seconds);
            prost_types::Timestamp { seconds, nanos: created.nanos }
        });
        let file = File {
            id: ids::new("file").replacen('_', "-", 1),
            filename,
            media_type: Some(header.media_type).filter(|kind| !kind.is_empty()).unwrap_or_else(|| "application/octet-stream".into()),
            bytes: draft.bytes,
            sha256,
            purpose: header.purpose,
            created: Some(created),
            expires,
            owner: cx.principal().id.clone(),
        };
        self.contents.keep(cx.tenant(), &file, draft, self.config.max_tenant_bytes).await?;
        Ok(file)
    }

    async fn get_file(&self, cx: &Context, request: GetFileRequest) -> Result<File> {
        self.get(cx, &request.id).await.map(|(file, _)| file)
    }

    async fn list_files(&self, cx: &Context, request: ListFilesRequest) -> Result<ListFilesResponse> {
        let limit = if request.page_size == 0 { DEFAULT_PAGE } else { request.page_size.min(MAX_PAGE) };
        if !request.page_token.is_empty() && !is_id(&request.page_token) {
            return Err(Error::invalid("page_token", "page_token is not one that this list gave").with_reason("bad_page_token"));
        }
        let list = FileList {
            owner: owner(cx),
            purpose: &request.purpose,
            after: &request.page_token,
            newest_first: request.newest_first,
            limit: limit + 1,
        };
        let mut files = self.store.list_files(cx.tenant(), list).await?;
        let more = files.len() > limit as usize;
        files.truncate(limit as usize);
        let next_page_token = files.last().filter(|_| more).map(|file| file.id.clone()).unwrap_or_default();
        Ok(ListFilesResponse { files, next_page_token })
    }

    async fn download_file(&self, cx: &Context, request: GetFileRequest) -> Result<EventStream<FileChunk>> {
        let (_, blob) = self.get(cx, &request.id).await?;
        let content = self.contents.read(&blob).await?;
        Ok(Box::pin(content.map_ok(|piece| FileChunk { data: piece.into() })))
    }

    async fn delete_file(&self, cx: &Context, request: DeleteFileRequest) -> Result<DeleteFileResponse> {
        let (file, blob) = self.get(cx, &request.id).await?;
        self.contents.delete(cx.tenant(), &file.id, &blob).await?;
        Ok(DeleteFileResponse {})
    }
}

/// Whose files a caller sees: their own, and an admin everyone's.
fn owner(cx: &Context) -> &str {
    let principal = cx.principal();
    if principal.roles.iter().any(|role| role == ADMIN) { "" } else { &principal.id }
}

async fn next(messages: &mut EventStream<UploadFileRequest>) -> Result<Option<Message>> {
    messages.next().await.transpose().map(|message| message.and_then(|message| message.message))
}

/// What can be seen before the content comes. A form may say the rest after it.
fn check_early(header: &FileHeader) -> Result<()> {
    if header.purpose.is_empty() { Ok(()) } else { checked(header).map(drop) }
}

/// The file's name, of a header that is right.
fn checked(header: &FileHeader) -> Result<String> {
    if !PURPOSES.contains(&header.purpose.as_str()) {
        let message = match header.purpose.as_str() {
            "" => format!("purpose is missing; it must be one of {}", PURPOSES.join(", ")),
            other => format!("purpose must be one of {}, not {other:?}", PURPOSES.join(", ")),
        };
        return Err(Error::invalid("purpose", message).with_reason("invalid_purpose"));
    }
    let seconds = header.expires_after_seconds;
    if seconds != 0 && !EXPIRES_AFTER.contains(&seconds) {
        let message = format!("expires_after.seconds must be 3600 (an hour) to 2592000 (30 days), not {seconds}");
        return Err(Error::invalid("expires_after.seconds", message));
    }
    // Some clients send the whole path. It names nothing on this machine's disk either way.
    let name = header.filename.rsplit(['/', '\\']).next().unwrap_or_default();
    let name: String = name.chars().filter(|c| !c.is_control()).collect();
    if name.trim_matches(['.', ' ']).is_empty() {
        let message = format!("a file needs a name, and {:?} is none", header.filename);
        return Err(Error::invalid("file", message).with_reason("invalid_filename"));
    }
    if name.len() > MAX_NAME {
        return Err(Error::invalid("file", format!("the file's name is longer than {MAX_NAME} bytes")).with_reason("invalid_filename"));
    }
    Ok(name)
}

fn is_id(text: &str) -> bool {
    text.strip_prefix("file-")
        .is_some_and(|rest| !rest.is_empty() && rest.len() <= 64 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

/// Work that blocks, off the async threads. Who stops waiting for it lets it end.
pub(crate) async fn blocking<T: Send + 'static>(tasks: &TaskTracker, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tasks.spawn_blocking(work).await;
    done.unwrap_or_else(|broken| Err(Error::internal("reading or writing a file broke off").with_source(broken)))
}
