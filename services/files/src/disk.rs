//! The service: whose files there are, and what may be done with them.

use std::{io::Read as _, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use llama_stack_core::{Code, Context, Deps, Error, EventStream, Files, Result, ids, manifest};
use llama_stack_proto::v1::{
    DeleteFileRequest, DeleteFileResponse, File, FileChunk, FileHeader, GetFileRequest, ListFilesRequest, ListFilesResponse,
    UploadFileRequest, upload_file_request::Message,
};
use llama_stack_store::{FileList, Store};
use tokio_util::task::TaskTracker;

use crate::{
    blobs::{self, Blobs, Draft},
    sweep,
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
const PIECE: usize = 1 << 20;

/// Files on the disk of this machine, in `files` below the distribution's folder.
pub struct DiskFiles {
    store: Store,
    blobs: Blobs,
    config: manifest::Files,
    tasks: TaskTracker,
}

impl DiskFiles {
    /// Makes the folder, and from then on removes what has expired and what a crash left behind.
    ///
    /// # Errors
    /// `Unavailable` the folder cannot be made or written.
    pub fn open(deps: &Deps, store: Store, config: manifest::Files) -> Result<Arc<Self>> {
        let folder: PathBuf = deps.folder.join("files");
        let blobs = Blobs::open(folder.clone()).map_err(|error| error.context(folder.display()))?;
        let files = Self { store: store.clone(), blobs: blobs.clone(), config, tasks: deps.tasks.clone() };
        deps.tasks.spawn(sweep::run(store, blobs, deps.tasks.clone(), deps.shutdown.clone()));
        Ok(Arc::new(files))
    }

    async fn get(&self, cx: &Context, id: &str) -> Result<(File, String)> {
        self.store.get_file(cx.tenant(), id, owner(cx)).await
    }

    /// # Errors
    /// `ResourceExhausted` the tenant would have more than it may: with what it has, what it needs and what it may have.
    async fn check_quota(&self, tenant: &str, bytes: u64) -> Result<()> {
        let most = self.config.max_tenant_bytes;
        if most == 0 {
            return Ok(());
        }
        let has = self.store.file_bytes(tenant).await?;
        if has.saturating_add(bytes) <= most {
            return Ok(());
        }
        let message =
            format!("the file has {bytes} bytes, and the files that are there {has} of the {most} that they may have: delete some");
        Err(Error::new(Code::ResourceExhausted, message).with_field("file").with_reason("storage_quota"))
    }

    /// Takes the content in, piece by piece, and the header with it.
    async fn receive(&self, mut messages: EventStream<UploadFileRequest>) -> Result<(FileHeader, Draft)> {
        let Some(Message::Header(mut header)) = next(&mut messages).await? else {
            return Err(Error::invalid("header", "the first message of an upload must be its header"));
        };
        check_early(&header)?;
        let blobs = self.blobs.clone();
        let mut draft = blocking(&self.tasks, move || blobs.draft()).await?;
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
impl Files for DiskFiles {
    async fn upload_file(&self, cx: &Context, request: EventStream<UploadFileRequest>) -> Result<File> {
        let (header, mut draft) = cx.within(self.receive(request)).await?;
        let filename = checked(&header)?;
        let (sha256, draft) = blocking(&self.tasks, move || Ok((draft.finish()?, draft))).await?;
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
        let blob = blobs::name(cx.tenant(), &file.sha256);
        let (blobs, named) = (self.blobs.clone(), blob.clone());
        let locked = blobs.clone();
        // Until the row is there, nobody may take the content for an orphan, or its place in the tenant's quota.
        let guard = blocking(&self.tasks, move || locked.lock()).await?;
        self.check_quota(cx.tenant(), file.bytes).await?;
        let _guard = blocking(&self.tasks, move || blobs.publish(&draft, &named, &guard).map(|()| guard)).await?;
        self.store.insert_file(cx.tenant(), &file, &blob).await?;
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
        let (path, tasks) = (self.blobs.path(&blob), self.tasks.clone());
        // Open, it can be read to its end even if it is deleted meanwhile.
        let mut file = blocking(&tasks, move || std::fs::File::open(path).map_err(missing)).await?;
        Ok(Box::pin(async_stream::try_stream! {
            loop {
                let read = blocking(&tasks, move || {
                    let mut piece = Vec::with_capacity(PIECE);
                    (&file).take(PIECE as u64).read_to_end(&mut piece).map_err(blobs::failed)?;
                    Ok((file, piece))
                });
                let (back, piece) = read.await?;
                if piece.is_empty() {
                    break;
                }
                file = back;
                yield FileChunk { data: piece };
            }
        }))
    }

    async fn delete_file(&self, cx: &Context, request: DeleteFileRequest) -> Result<DeleteFileResponse> {
        let (file, blob) = self.get(cx, &request.id).await?;
        sweep::delete(&self.store, &self.blobs, &self.tasks, cx.tenant(), &file.id, &blob).await?;
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

pub(crate) fn missing(error: std::io::Error) -> Error {
    if error.kind() != std::io::ErrorKind::NotFound {
        return blobs::failed(error);
    }
    Error::new(Code::DataLoss, "the file's content is not on this machine's disk").with_reason("content_missing").with_source(error)
}

/// Work that blocks, off the async threads. Who stops waiting for it lets it end.
pub(crate) async fn blocking<T: Send + 'static>(tasks: &TaskTracker, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tasks.spawn_blocking(work).await;
    done.unwrap_or_else(|broken| Err(Error::internal("reading or writing a file broke off").with_source(broken)))
}
