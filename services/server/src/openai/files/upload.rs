//! A form becomes an upload: its fields a header, the file's bytes pieces, as they come.

use std::time::Duration;

use axum::extract::{
    FromRequest, Multipart, Request, State,
    multipart::{Field, MultipartError},
};
use llama_stack_core::{Code, Error, Result};
use llama_stack_proto::v1::{FileHeader, UploadFileRequest, upload_file_request::Message};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};

use super::FileObject;
use crate::{
    connections::late,
    http::{ApiError, AppState, Caller, Json},
};

/// Pieces that wait to be written.
const AHEAD: usize = 4;
/// Of a form that was refused, this much more is read, so that a client that is still sending gets to read why.
const DISCARD_BYTES: usize = 64 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(5);
const MAX_FIELD: usize = 1_024;

/// The form, for the API's description.
#[derive(Deserialize, JsonSchema)]
#[expect(dead_code, reason = "read field by field, as they come")]
pub(super) struct CreateFile {
    /// The content, with its name.
    file: String,
    /// `assistants`, `batch`, `batch_output`, `fine-tune`, `vision`, `user_data` or `evals`.
    purpose: String,
    /// `created_at`.
    #[serde(rename = "expires_after[anchor]")]
    anchor: Option<String>,
    /// 3,600 to 2,592,000.
    #[serde(rename = "expires_after[seconds]")]
    seconds: Option<u64>,
}

type Sender = mpsc::Sender<Result<UploadFileRequest>>;

pub(super) async fn create(State(state): State<AppState>, Caller(cx): Caller, request: Request) -> Result<Json<FileObject>, ApiError> {
    let form = Multipart::from_request(request, &state).await.map_err(|rejection| {
        let message = format!("the body must be multipart/form-data with a file and its purpose: {}", rejection.body_text());
        Error::new(Code::InvalidArgument, message).with_reason("invalid_form")
    })?;
    let (sender, receiver) = mpsc::channel(AHEAD);
    let uploading = state.files.upload_file(&cx, Box::pin(ReceiverStream::new(receiver)));
    let (uploaded, ()) = tokio::join!(uploading, feed(form, sender));
    Ok(Json(uploaded?.into()))
}

/// Sends the form on. What is wrong with it goes the same way, and ends the upload.
async fn feed(mut form: Multipart, sender: Sender) {
    match read(&mut form, &sender).await {
        Ok(()) => {}
        // Nobody listens any more: the upload has failed, and its error is the answer.
        Err(None) => {
            drop(sender);
            let _ = tokio::time::timeout(DISCARD_TIME, discard(form)).await;
        }
        Err(Some(error)) => {
            let _ = sender.send(Err(error)).await;
        }
    }
}

/// All that a form sends on, for fuzzers.
pub(crate) async fn all(form: Multipart) -> Result<Vec<UploadFileRequest>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let ((), sent) = tokio::join!(feed(form, sender), ReceiverStream::new(receiver).collect::<Vec<_>>());
    sent.into_iter().collect()
}

/// `Err(None)`: nobody listens.
async fn read(form: &mut Multipart, sender: &Sender) -> Result<(), Option<Error>> {
    let (mut header, mut anchor, mut sent) = (FileHeader::default(), None, None);
    while let Some(mut field) = next_field(form).await? {
        let name = field.name().unwrap_or_default().to_owned();
        match name.as_str() {
            "file" if sent.is_some() => return Err(Some(Error::invalid("file", "there must be one file, and here are two"))),
            "file" => {
                header.filename = field.file_name().unwrap_or_default().to_owned();
                header.media_type = field.content_type().unwrap_or_default().to_owned();
                send(sender, Message::Header(header.clone())).await?;
                sent = Some(header.clone());
                while let Some(data) = told(field.chunk()).await? {
                    send(sender, Message::Data(data.to_vec())).await?;
                }
            }
            "purpose" => header.purpose = text(&mut field, &name).await?,
            "expires_after[anchor]" => anchor = Some(text(&mut field, &name).await?),
            "expires_after[seconds]" => {
                let seconds = text(&mut field, &name).await?.trim().parse().ok().filter(|seconds| *seconds > 0);
                let wrong = || Error::invalid("expires_after.seconds", "expires_after.seconds must be a number from 3600 to 2592000");
                header.expires_after_seconds = seconds.ok_or_else(wrong)?;
            }
            other => {
                let message =
                    format!("a file has no field {other:?}; there is: file, purpose, expires_after[anchor], expires_after[seconds]");
                return Err(Some(Error::invalid(other, message).with_reason("unknown_field")));
            }
        }
    }
    let expires = header.expires_after_seconds > 0;
    if anchor.as_deref().is_some_and(|anchor| anchor != "created_at") || (anchor.is_none() && expires) {
        return Err(Some(Error::invalid("expires_after.anchor", "expires_after.anchor must be \"created_at\"")));
    }
    if anchor.is_some() && !expires {
        let message = "expires_after.seconds is missing; it must be a number from 3600 to 2592000";
        return Err(Some(Error::invalid("expires_after.seconds", message)));
    }
    match sent {
        None => Err(Some(Error::invalid("file", "file: missing field").with_reason("missing_field"))),
        Some(sent) if sent != header => send(sender, Message::Header(header)).await,
        Some(_) => Ok(()),
    }
}

async fn send(sender: &Sender, message: Message) -> Result<(), Option<Error>> {
    sender.send(Ok(UploadFileRequest { message: Some(message) })).await.map_err(|_| None)
}

async fn next_field(form: &mut Multipart) -> Result<Option<Field<'_>>, Option<Error>> {
    told(form.next_field()).await
}

async fn told<T>(work: impl Future<Output = Result<T, MultipartError>>) -> Result<T, Option<Error>> {
    work.await.map_err(|error| {
        if let Some(late) = late(&error) {
            return Some(late);
        }
        let message = format!("the form cannot be read: {}", error.body_text());
        Some(Error::new(Code::InvalidArgument, message).with_reason("invalid_form").with_source(error))
    })
}

async fn text(field: &mut Field<'_>, name: &str) -> Result<String, Option<Error>> {
    let mut bytes = Vec::new();
    while let Some(piece) = told(field.chunk()).await? {
        bytes.extend_from_slice(&piece);
        if bytes.len() > MAX_FIELD {
            return Err(Some(Error::invalid(name, format!("{name} is longer than {MAX_FIELD} bytes"))));
        }
    }
    String::from_utf8(bytes).map_err(|_| Some(Error::invalid(name, format!("{name} is not UTF-8"))))
}

async fn discard(mut form: Multipart) {
    let mut left = DISCARD_BYTES;
    while let Ok(Some(mut field)) = form.next_field().await {
        while let Ok(Some(piece)) = field.chunk().await {
            left = left.saturating_sub(piece.len());
            if left == 0 {
                return;
            }
        }
    }
}
