//! Files in an input: a part of type `input_file`, or `file` in a chat, is read, and its text stands in its place; an `input_image`
//! that names an upload becomes the image itself.

use axum::http::header::CONTENT_TYPE;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use llama_stack_core::{Code, Context, Error, Result, manifest::Egress};
use llama_stack_egress::{Client, Limits, Request};
use llama_stack_proto::v1::GetFileRequest;
use serde_json::{Value, json};

use crate::http::AppState;

/// Of one file.
const MAX_BYTES: usize = 32 << 20;
/// Of the text of all files of a request: what is longer is searched, not read whole.
const MAX_TEXT_BYTES: usize = 2 << 20;
/// Of one request: each is fetched, one after the other.
const MAX_FETCHED: usize = 8;
/// The label of what they say: as if a tool had brought it.
const FETCHED: &str = "tool:http_fetch";
/// Of all images of a request that are uploads: a turn keeps what it was given.
const MAX_IMAGE_BYTES: usize = 16 << 20;

/// Fetches files by URL, within what the manifest lets tools reach.
pub(crate) fn client(egress: Egress) -> Client {
    Client::new(egress, Limits { max_bytes: MAX_BYTES, ..Limits::default() })
}

/// # Errors
/// `InvalidArgument` with the part's place, also for a file that cannot be read · `NotFound` no such file · `OutOfRange` too
/// large · `PermissionDenied` a URL that may not be reached.
pub(super) async fn read(state: &AppState, cx: &Context, field: &str, items: &mut [Value]) -> Result<()> {
    let (mut room, mut images, mut fetched) = (Room::default(), MAX_IMAGE_BYTES, 0);
    for (index, item) in items.iter_mut().enumerate() {
        // Of messages, and of what functions brought.
        for list in ["content", "output"] {
            let Some(parts) = item.get_mut(list).and_then(Value::as_array_mut) else { continue };
            for (number, part) in parts.iter_mut().enumerate() {
                let field = format!("{field}[{index}].{list}[{number}]");
                match part.get("type").and_then(Value::as_str) {
                    Some("input_file") => {
                        let by_url = part.get("file_url").is_some_and(|url| !url.is_null());
                        fetched += usize::from(by_url);
                        if fetched > MAX_FETCHED {
                            let message = format!("at most {MAX_FETCHED} files of a request are given by URL; upload the others");
                            return Err(Error::invalid(format!("{field}.file_url"), message));
                        }
                        let text = text_of(state, cx, &field, part).await?;
                        room.take(&field, &text)?;
                        *part = json!({ "type": "input_text", "text": text });
                        if by_url {
                            part["provenance"] = FETCHED.into();
                        }
                    }
                    Some("input_image") => {
                        let Some(id) = uploaded_image(part) else { continue };
                        let field = format!("{field}.file_id");
                        let (media_type, data) = image(state, cx, &id).await.map_err(|error| error.with_field(&field))?;
                        let message = "the images have more than 16 MiB together: make them smaller, or give them by URL";
                        images = images.checked_sub(data.len()).ok_or_else(|| too_large(message).with_field(&field))?;
                        part["image_url"] = format!("data:{media_type};base64,{}", STANDARD.encode(data)).into();
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

/// The text of a chat's file: `{file_id}`, or `{file_data, filename}`.
///
/// # Errors
/// As those of [`read`].
pub(super) async fn of_chat(state: &AppState, cx: &Context, field: &str, file: &Value, room: &mut Room) -> Result<String> {
    let given = |key: &&str| file.get(key).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
    if ["file_id", "file_data"].iter().filter(|key| given(key)).count() != 1 {
        return Err(Error::invalid(field, "a file of a chat has a file_id or file_data, and one of them only"));
    }
    let text = text_of(state, cx, field, file).await?;
    room.take(field, &text)?;
    Ok(text)
}

/// For the text of all files of a request.
pub(super) struct Room(usize);

impl Default for Room {
    fn default() -> Self {
        Self(MAX_TEXT_BYTES)
    }
}

impl Room {
    fn take(&mut self, field: &str, text: &str) -> Result<()> {
        let message = "the files have more than 2 MiB of text together: put them into a vector store, and let the model search";
        self.0 = self.0.checked_sub(text.len()).ok_or_else(|| too_large(message).with_field(field))?;
        Ok(())
    }
}

fn too_large(message: &str) -> Error {
    Error::new(Code::TooLarge, message).with_reason("file_too_large")
}

/// The upload that an image names, where no URL does.
fn uploaded_image(part: &Value) -> Option<String> {
    let said = |key: &str| part.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    if said("image_url").is_some() { None } else { said("file_id").map(str::to_owned) }
}

/// Its media type, and what is in it. What it is called says nothing: its first bytes do.
async fn image(state: &AppState, cx: &Context, id: &str) -> Result<(&'static str, Bytes)> {
    let (filename, _, data) = uploaded(state, cx, id).await?;
    let media_type = match &*data {
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        [0xff, 0xd8, 0xff, ..] => "image/jpeg",
        [b'G', b'I', b'F', b'8', ..] => "image/gif",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "image/webp",
        _ => {
            let message = format!("{filename} is no PNG, JPEG, GIF or WebP image");
            return Err(Error::invalid("file_id", message).with_reason("not_an_image"));
        }
    };
    Ok((media_type, data))
}

async fn text_of(state: &AppState, cx: &Context, field: &str, part: &Value) -> Result<String> {
    let said = |key: &str| part.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (filename, media_type, data) = match (said("file_id"), said("file_data"), said("file_url")) {
        (Some(id), None, None) => uploaded(state, cx, id).await.map_err(|error| error.with_field(format!("{field}.file_id")))?,
        (None, Some(data), None) => {
            let (media_type, data) = inline(field, data)?;
            (said("filename").unwrap_or("file").to_owned(), media_type, data)
        }
        (None, None, Some(url)) => fetch(state, cx, url).await.map_err(|error| error.with_field(format!("{field}.file_url")))?,
        _ => return Err(Error::invalid(field, "an input_file has a file_id, file_data or file_url, and one of them only")),
    };
    let parsed = cx.within(state.parser.parse(&filename, &media_type, data)).await.map_err(|error| error.with_field(field))?;
    let blocks: Vec<&str> = parsed.blocks.iter().map(|block| block.text.as_str()).collect();
    Ok(format!("File {filename}:\n\n{}", blocks.join("\n\n")))
}

async fn uploaded(state: &AppState, cx: &Context, id: &str) -> Result<(String, String, Bytes)> {
    let file = cx.within(state.files.get_file(cx, GetFileRequest { id: id.to_owned() })).await?;
    let over = || too_large("a file of an input has at most 32 MiB");
    if file.bytes > MAX_BYTES as u64 {
        return Err(over());
    }
    let mut chunks = cx.within(state.files.download_file(cx, GetFileRequest { id: id.to_owned() })).await?;
    let mut data = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        data.extend_from_slice(&chunk?.data);
        if data.len() > MAX_BYTES {
            return Err(over());
        }
    }
    Ok((file.filename, file.media_type, data.freeze()))
}

/// Its name, its media type, and what is in it.
async fn fetch(state: &AppState, cx: &Context, url: &str) -> Result<(String, String, Bytes)> {
    let wrong = |message: String| Error::invalid("file_url", message);
    let url = url.trim().parse().map_err(|_| wrong("file_url must be a URL that begins with https:// or http://".to_owned()))?;
    let response = state.egress.send(cx, Request::get(url)).await?;
    if !response.is_success() {
        return Err(wrong(format!("file_url was answered with status {}", response.status)).with_reason("file_not_fetched"));
    }
    if !response.complete {
        return Err(too_large("a file of an input has at most 32 MiB"));
    }
    let named = response.url.path_segments().and_then(|mut segments| segments.next_back()).filter(|name| !name.is_empty());
    let media_type = response.header(CONTENT_TYPE).and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    Ok((named.unwrap_or("file").to_owned(), media_type.to_owned(), response.body.clone()))
}

/// `data:<media type>;base64,<data>`, or the base64 alone.
fn inline(field: &str, data: &str) -> Result<(String, Bytes)> {
    let url = data.strip_prefix("data:").and_then(|url| url.split_once(";base64,"));
    let (media_type, encoded) = url.unwrap_or(("", data));
    let decoded = STANDARD.decode(encoded.trim()).map_err(|error| {
        let field = format!("{field}.file_data");
        Error::invalid(&field, format!("{field} must be base64, or a data URL of it: {error}"))
    })?;
    Ok((media_type.to_owned(), decoded.into()))
}
