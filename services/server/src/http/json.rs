//! JSON in and out: bodies within the limit, errors that name the field.

use std::time::Duration;

use ::http::{HeaderMap, header};
use axum::{
    body::Body,
    extract::{FromRequest, Request},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::error::Category;

use llama_stack_core::{Code, Error, Result};

use super::{ApiError, AppState};
use crate::connections::late;

/// Of a body that is too large, this much more is read and thrown away, so that a client that is still sending gets to
/// read the answer; beyond it the connection breaks.
const DISCARD_BYTES: usize = 64 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// A request's body, read; or an answer, written.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<AppState> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &AppState) -> Result<Self, ApiError> {
        is_json(request.headers())?;
        let body = read(request.into_body(), state.max_body_bytes).await?;
        Ok(Self(decode(&body)?))
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// A body that does not say what it is is taken for JSON.
fn is_json(headers: &HeaderMap) -> Result<()> {
    let Some(kind) = headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let kind = kind.to_str().unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") || essence.to_ascii_lowercase().ends_with("+json") {
        return Ok(());
    }
    Err(Error::new(Code::InvalidArgument, format!("content-type must be application/json, not {kind:?}"))
        .with_reason("unsupported_media_type"))
}

/// The whole body. One that came in one piece is not copied.
///
/// # Errors
/// `TooLarge` · `DeadlineExceeded` it does not come · `Cancelled` it broke off
pub(crate) async fn read(mut body: Body, limit: usize) -> Result<Bytes> {
    if body.size_hint().lower() > limit as u64 {
        discard(body).await;
        return Err(too_large(limit));
    }
    let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
    while let Some(piece) = next_piece(&mut body).await? {
        if first.len() + rest.len() + piece.len() > limit {
            discard(body).await;
            return Err(too_large(limit));
        }
        if first.is_empty() && rest.is_empty() {
            first = piece;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&std::mem::take(&mut first));
            }
            rest.extend_from_slice(&piece);
        }
    }
    Ok(if rest.is_empty() { first } else { rest.freeze() })
}

async fn next_piece(body: &mut Body) -> Result<Option<Bytes>> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Ok(frame)) => {
                if let Ok(piece) = frame.into_data() {
                    return Ok(Some(piece));
                }
            }
            Some(Err(error)) => {
                let broken = |error: axum::Error| Error::new(Code::Cancelled, "the body broke off").with_source(error);
                return Err(late(&error).unwrap_or_else(|| broken(error)));
            }
        }
    }
}

async fn discard(mut body: Body) {
    let reading = async {
        let mut left = DISCARD_BYTES;
        while let Ok(Some(piece)) = next_piece(&mut body).await {
            left = left.saturating_sub(piece.len());
            if left == 0 {
                break;
            }
        }
    };
    // Late or not, the answer goes out next.
    let _ = tokio::time::timeout(DISCARD_TIME, reading).await;
}

fn too_large(limit: usize) -> Error {
    Error::new(Code::TooLarge, format!("the body is larger than {limit} bytes")).with_reason("request_too_large")
}

/// Paths are kept only for a body that is wrong: keeping them costs time.
fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    serde_json::from_slice(body).or_else(|_| explain(body))
}

fn explain<T: DeserializeOwned>(body: &[u8]) -> Result<T> {
    if body.is_empty() {
        return Err(syntax("the body is empty; it must be a JSON object"));
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let inner = error.inner();
        if inner.classify() != Category::Data {
            return syntax(format!("the body is not valid JSON: {inner}"));
        }
        let path = error.path().to_string();
        wrong_field("the body", &path, &inner.to_string())
    })?;
    reader.end().map_err(|error| syntax(format!("the body is not valid JSON: {error}")))?;
    Ok(value)
}

fn syntax(message: impl Into<String>) -> Error {
    Error::new(Code::InvalidArgument, message).with_reason("invalid_json")
}

/// `path` is serde's, and so is `text`, with its ` at line 1 column 2`, which says nothing that the path does not say
/// better. `whole`: what there is no path in.
pub(super) fn wrong_field(whole: &str, path: &str, text: &str) -> Error {
    let path = if path == "." { "" } else { path };
    let text = text.rfind(" at line ").map_or(text, |end| &text[..end]);
    if let Some(field) = text.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
        let path = if path.is_empty() { field.to_owned() } else { format!("{path}.{field}") };
        return Error::invalid(&path, format!("{path}: missing field")).with_reason("missing_field");
    }
    let place = if path.is_empty() { whole } else { path };
    let error = Error::new(Code::InvalidArgument, format!("{place}: {text}")).with_reason("invalid_type");
    if path.is_empty() { error } else { error.with_field(path) }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Outer {
        #[expect(dead_code)]
        items: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    struct Inner {
        #[expect(dead_code)]
        count: u32,
    }

    fn told(body: &str) -> (String, Option<String>) {
        let error = decode::<Outer>(body.as_bytes()).unwrap_err();
        (error.message().to_owned(), error.field().map(Into::into))
    }

    #[test]
    fn a_wrong_field_is_named_by_its_path() {
        let (message, field) = told(r#"{"items":[{"count":1},{"count":"x"}]}"#);
        assert_eq!(message, r#"items[1].count: invalid type: string "x", expected u32"#);
        assert_eq!(field.as_deref(), Some("items[1].count"));
        assert_eq!(told(r#"{"items":[{}]}"#), ("items[0].count: missing field".into(), Some("items[0].count".into())));
        assert_eq!(told("{}"), ("items: missing field".into(), Some("items".into())));
        assert_eq!(told("[]").1, None);
    }

    #[test]
    fn bad_json_says_where() {
        assert_eq!(told("{\"items\": [\n}").0, "the body is not valid JSON: expected value at line 2 column 1");
        assert_eq!(told(r#"{"items":[]} x"#).0, "the body is not valid JSON: trailing characters at line 1 column 14");
        assert_eq!(told("").0, "the body is empty; it must be a JSON object");
    }

    #[tokio::test]
    async fn a_body_in_pieces_is_whole_and_bounded() {
        let piece = |_| Ok::<_, std::io::Error>(Bytes::from_static(b"abcd"));
        let pieces = |count: usize| Body::from_stream(stream::iter((0..count).map(piece)));
        assert_eq!(read(pieces(3), 12).await.unwrap(), "abcdabcdabcd");
        assert_eq!(read(pieces(4), 12).await.unwrap_err().code(), Code::TooLarge);
        assert_eq!(read(Body::from("abcde"), 4).await.unwrap_err().code(), Code::TooLarge);
    }
}
