//! `llama-stack file`: the files that a running stack keeps, over gRPC.

use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use futures::TryStreamExt as _;
use llama_stack_core::{Code, Error, EventStream, Files as _, Progress, Result, grpc::Remote};
use llama_stack_proto::v1::{
    DeleteFileRequest, File, FileHeader, GetFileRequest, ListFilesRequest, UploadFileRequest, files_client::FilesClient,
    upload_file_request::Message,
};
use serde::Serialize;
use serde_json::json;
use tokio::io::AsyncReadExt as _;
use tonic::transport::Channel;

use crate::{
    args::{FileVerb, ToArgs},
    caller::caller,
    draft::{self, Draft},
    model::size,
    named,
    output::Output,
    reach,
    table::{table, told},
};

pub(crate) type Client = Remote<FilesClient<Channel>>;

/// What is sent in one message.
const PIECE: u64 = 1 << 20;
/// Largest page.
const PAGE: u32 = 10_000;
const DAY: u64 = 24 * 60 * 60;

/// A file, for people and programs.
#[derive(Serialize)]
struct Row {
    id: String,
    filename: String,
    bytes: u64,
    purpose: String,
    media_type: String,
    sha256: String,
    owner: String,
    created: Option<String>,
    expires: Option<String>,
}

impl From<File> for Row {
    fn from(file: File) -> Self {
        let File { id, filename, media_type, bytes, sha256, purpose, created, expires, owner } = file;
        Self { id, filename, bytes, purpose, media_type, sha256, owner, created: created.map(told), expires: expires.map(told) }
    }
}

/// The days of an option as the contract counts; none are for ever.
pub(crate) fn seconds(days: Option<u64>) -> u64 {
    days.unwrap_or_default() * DAY
}

pub(crate) async fn run(verb: FileVerb, output: &Output) -> Result<()> {
    match verb {
        FileVerb::Upload { files, purpose, days, server } => {
            files.iter().try_for_each(|path| named::readable(path))?;
            let (client, mut rows, mut broken_off) = (Files::at(&server.server)?, Vec::with_capacity(files.len()), Ok(()));
            for path in &files {
                match client.upload(path, &purpose, seconds(days), output).await {
                    Ok(file) => rows.push(Row::from(file)),
                    Err(error) => {
                        broken_off = Err(error);
                        break;
                    }
                }
            }
            // What is there has to be known, whatever became of the rest.
            if !rows.is_empty() {
                output.result(&rows, |rows| rows.iter().map(|row| format!("{}\n", row.id)).collect())?;
            }
            broken_off
        }
        FileVerb::List { purpose, limit, server } => Files::at(&server.server)?.list(purpose, limit, output).await,
        FileVerb::Show { file, server } => {
            let row = Row::from(Files::at(&server.server)?.get(&file).await?);
            output.result(&row, shown)
        }
        FileVerb::Download { file, to, server } => {
            if output.is_json() && to.output.is_none() {
                return Err(Error::invalid("json", "a file's content has no JSON: say with --output where it goes"));
            }
            Files::at(&server.server)?.download(&file, &to, output).await
        }
        FileVerb::Delete { file, server } => {
            Files::at(&server.server)?.delete(&file).await?;
            output.result(&json!({ "id": file, "deleted": true }), |_| format!("deleted {file}\n"))
        }
    }
}

fn shown(row: &Row) -> String {
    let lines = [
        ("id", row.id.clone()),
        ("filename", row.filename.clone()),
        ("bytes", row.bytes.to_string()),
        ("purpose", row.purpose.clone()),
        ("media type", row.media_type.clone()),
        ("sha256", row.sha256.clone()),
        ("created", row.created.clone().unwrap_or_default()),
        ("expires", row.expires.clone().unwrap_or_else(|| "never".into())),
    ];
    lines.iter().map(|(name, value)| format!("{name:<10}  {value}\n")).collect()
}

/// The files of a stack.
pub(crate) struct Files<'a> {
    client: Client,
    server: &'a str,
}

impl<'a> Files<'a> {
    pub(crate) fn at(server: &'a str) -> Result<Self> {
        Ok(Self { client: Client::new(reach::connect(server)?), server })
    }

    fn explained(&self, error: Error) -> Error {
        reach::listed(error, self.server, "file list")
    }

    async fn get(&self, id: &str) -> Result<File> {
        self.client.get_file(&caller(), GetFileRequest { id: id.to_owned() }).await.map_err(|error| self.explained(error))
    }

    async fn delete(&self, id: &str) -> Result<()> {
        let deleted = self.client.delete_file(&caller(), DeleteFileRequest { id: id.to_owned() }).await;
        deleted.map(drop).map_err(|error| self.explained(error))
    }

    async fn list(&self, purpose: String, limit: u32, output: &Output) -> Result<()> {
        let (mut rows, mut left) = (Vec::<Row>::new(), limit);
        let mut request = ListFilesRequest { purpose, newest_first: true, ..ListFilesRequest::default() };
        while left > 0 {
            request.page_size = left.min(PAGE);
            let page = self.client.list_files(&caller(), request.clone()).await.map_err(|error| self.explained(error))?;
            left = left.saturating_sub(page.files.len() as u32);
            rows.extend(page.files.into_iter().map(Row::from));
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        output.result(&rows, |rows| {
            if rows.is_empty() {
                return "there are no files; `llama-stack file upload` sends one\n".into();
            }
            let line = |row: &Row| {
                let created = row.created.clone().unwrap_or_default();
                [row.id.clone(), size(row.bytes), row.purpose.clone(), created, row.filename.clone()]
            };
            table(["FILE", "SIZE", "PURPOSE", "CREATED", "NAME"], rows.iter().map(line))
        })
    }

    /// Sends a file whole, or leaves nothing of it there.
    pub(crate) async fn upload(&self, path: &Path, purpose: &str, expires_after_seconds: u64, output: &Output) -> Result<File> {
        named::readable(path)?;
        let unreadable = |error: std::io::Error| named::unreadable(path, &error);
        let mut file = tokio::fs::File::open(path).await.map_err(unreadable)?;
        let meta = file.metadata().await.map_err(unreadable)?;
        // A pipe has no length, and what is in /proc says that it has none.
        let total = Some(meta.len()).filter(|length| meta.is_file() && *length > 0);
        let item = path.display().to_string();
        let header = FileHeader {
            filename: path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            purpose: purpose.to_owned(),
            expires_after_seconds,
            ..FileHeader::default()
        };
        let on_progress = output.progress_of("sending", "sent");
        let report = move |done, finished| on_progress(Progress { item: item.clone(), done, total, finished });
        // A file that cannot be read to its end ends the stream too, which says nothing to the stack.
        let failure = Arc::new(Mutex::new(None));
        let (told, failed) = (report.clone(), failure.clone());
        let messages: EventStream<UploadFileRequest> = Box::pin(async_stream::stream! {
            yield Ok::<_, Error>(UploadFileRequest { message: Some(Message::Header(header)) });
            let mut done = 0;
            loop {
                let mut data = Vec::new();
                match (&mut file).take(PIECE).read_to_end(&mut data).await {
                    Ok(0) => break,
                    Ok(read) => done += read as u64,
                    Err(error) => {
                        *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                        break;
                    }
                }
                told(done, false);
                yield Ok(UploadFileRequest { message: Some(Message::Data(data)) });
            }
        });
        let uploaded = self.client.upload_file(&caller(), messages).await;
        let failure = failure.lock().unwrap_or_else(PoisonError::into_inner).take().map(unreadable);
        let uploaded = match (uploaded, failure) {
            (Ok(uploaded), failure) => {
                let changed = total.filter(|total| *total != uploaded.bytes).map(|total| {
                    let message = format!("{} of {total} bytes of {} were read: it changes", uploaded.bytes, path.display());
                    Error::new(Code::Aborted, message)
                });
                if let Some(error) = failure.or(changed) {
                    self.take_back(&uploaded.id, output).await;
                    return Err(error);
                }
                uploaded
            }
            (Err(_), Some(failure)) => return Err(failure),
            (Err(error), None) => return Err(self.explained(error)),
        };
        report(uploaded.bytes, true);
        Ok(uploaded)
    }

    /// Deletes what was sent in vain.
    pub(crate) async fn take_back(&self, id: &str, output: &Output) {
        if let Err(left) = self.delete(id).await {
            output.note(&format!("{id} was sent, and is still there: {left}"));
        }
    }

    /// Puts the content where it is to go.
    pub(crate) async fn download(&self, id: &str, to: &ToArgs, output: &Output) -> Result<()> {
        if let Some(path) = &to.output {
            draft::free(path, to.force)?;
        }
        let file = self.get(id).await?;
        let content = self.client.download_file(&caller(), GetFileRequest { id: id.to_owned() }).await;
        let mut content = content.map_err(|error| self.explained(error))?;
        let Some(path) = &to.output else {
            while let Some(piece) = content.try_next().await.map_err(|error| self.explained(error))? {
                output.write_bytes(&piece.data)?;
            }
            return Ok(());
        };
        let on_progress = output.progress();
        let report = |done, finished| on_progress(Progress { item: file.filename.clone(), done, total: Some(file.bytes), finished });
        let fetched = draft::unless_stopped(async {
            let (mut draft, mut done) = (Draft::begin(path, to.force).await?, 0);
            while let Some(piece) = content.try_next().await.map_err(|error| self.explained(error))? {
                draft.write(&piece.data).await?;
                done += piece.data.len() as u64;
                report(done, false);
            }
            Ok::<_, Error>((draft, done))
        });
        let done = fetched.await?;
        report(done, true);
        let place = path.display().to_string();
        output.result(&json!({ "id": id, "file": place, "bytes": done }), |_| format!("{place}: {}\n", size(done)))
    }
}
