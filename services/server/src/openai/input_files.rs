//! Files in an input: a part of type `input_file` is read, and its text stands in its place.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use llama_stack_core::{Code, Context, Error, Result};
use llama_stack_proto::v1::GetFileRequest;
use serde_json::{Value, json};

use crate::http::AppState;

/// Of one file.
const MAX_BYTES: u64 = 32 << 20;
/// Of the text of all files of a request: what is longer is searched, not read whole.
const MAX_TEXT_BYTES: usize = 2 << 20;

/// # Errors
/// `InvalidArgument` with the part's place, also for a file that cannot be read · `NotFound` no such file · `OutOfRange` too
/// large · `Unimplemented` files by URL.
pub(super) async fn read(state: &AppState, cx: &Context, field: &str, items: &mut [Value]) -> Result<()> {
    let mut left = MAX_TEXT_BYTES;
    for (index, item) in items.iter_mut().enumerate() {
        let Some(parts) = item.get_mut("content").and_then(Value::as_array_mut) else { continue };
        for (number, part) in parts.iter_mut().enumerate() {
            if part.get("type").and_then(Value::as_str) != Some("input_file") {
                continue;
            }
            let field = format!("{field}[{index}].content[{number}]");
            let text = text_of(state, cx, &field, part).await?;
            let too_long = || {
                let message = "the files have more than 2 MiB of text together: put them into a vector store, and let the model search";
                Error::new(Code::TooLarge, message).with_reason("file_too_large").with_field(&field)
            };
            left = left.checked_sub(text.len()).ok_or_else(too_long)?;
            *part = json!({ "type": "input_text", "text": text });
        }
    }
    Ok(())
}

async fn text_of(state: &AppState, cx: &Context, field: &str, part: &Value) -> Result<String> {
    let said = |key: &str| part.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (filename, media_type, data) = match (said("file_id"), said("file_data"), said("file_url")) {
        (Some(id), None, None) => uploaded(state, cx, id).await.map_err(|error| error.with_field(format!("{field}.file_id")))?,
        (None, Some(data), None) => {
            let (media_type, data) = inline(field, data)?;
            (said("filename").unwrap_or("file").to_owned(), media_type, data)
        }
        (None, None, Some(_)) => {
            let message = "files by URL are not supported; upload the file, or send it as file_data";
            return Err(Error::new(Code::Unimplemented, message).with_field(format!("{field}.file_url")));
        }
        _ => return Err(Error::invalid(field, "an input_file has a file_id or file_data, and one of them only")),
    };
    let parsed = cx.within(state.parser.parse(&filename, &media_type, data)).await.map_err(|error| error.with_field(field))?;
    let blocks: Vec<&str> = parsed.blocks.iter().map(|block| block.text.as_str()).collect();
    Ok(format!("File {filename}:\n\n{}", blocks.join("\n\n")))
}

async fn uploaded(state: &AppState, cx: &Context, id: &str) -> Result<(String, String, Bytes)> {
    let file = cx.within(state.files.get_file(cx, GetFileRequest { id: id.to_owned() })).await?;
    let too_large = || Error::new(Code::TooLarge, "a file of an input has at most 32 MiB").with_reason("file_too_large");
    if file.bytes > MAX_BYTES {
        return Err(too_large());
    }
    let mut chunks = cx.within(state.files.download_file(cx, GetFileRequest { id: id.to_owned() })).await?;
    let mut data = BytesMut::new();
    while let Some(chunk) = chunks.next().await {
        data.extend_from_slice(&chunk?.data);
        if data.len() as u64 > MAX_BYTES {
            return Err(too_large());
        }
    }
    Ok((file.filename, file.media_type, data.freeze()))
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
