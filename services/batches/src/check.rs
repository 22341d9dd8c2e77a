//! What a line must be. All are checked before any is run.

use std::collections::HashSet;

use futures::TryStreamExt as _;
use llama_stack_core::{EventStream, Result};
use llama_stack_proto::v1::BatchError;
use serde_json::{Map, Value};

use crate::input::Line;

/// More mistakes than this are not listed.
const MAX_ERRORS: usize = 100;
const MAX_CUSTOM_ID: usize = 512;

/// A request of a batch.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) custom_id: String,
    pub(crate) body: Map<String, Value>,
}

/// What came of checking an input.
#[derive(Debug, Default)]
pub(crate) struct Checked {
    pub(crate) lines: u64,
    pub(crate) errors: Vec<BatchError>,
}

/// Reads all of an input.
///
/// # Errors
/// Those of reading; mistakes in the input are in what it returns.
pub(crate) async fn check(mut lines: EventStream<Line>, endpoint: &str, max_lines: u64) -> Result<Checked> {
    let (mut checked, mut ids) = (Checked::default(), HashSet::new());
    while let Some(line) = lines.try_next().await? {
        checked.lines += 1;
        if checked.lines > max_lines {
            let message = format!("the input has more than {max_lines} requests, which is the most");
            checked.errors.push(mistake("too_many_requests", message, "", 0));
            return Ok(checked);
        }
        let asked = request(&line, endpoint).and_then(|asked| match ids.insert(asked.custom_id.clone()) {
            true => Ok(asked),
            false => {
                let message = format!("custom_id {:?} is an earlier line's; each line has its own", asked.custom_id);
                Err(mistake("duplicate_custom_id", message, "custom_id", line.number))
            }
        });
        if let Err(error) = asked {
            checked.errors.push(error);
            if checked.errors.len() == MAX_ERRORS {
                return Ok(checked);
            }
        }
    }
    if checked.lines == 0 {
        checked.errors.push(mistake("empty_file", "the input has no requests: it must have one in JSON on each line".into(), "", 0));
    }
    Ok(checked)
}

/// # Errors
/// What is wrong with the line.
pub(crate) fn request(line: &Line, endpoint: &str) -> Result<Asked, BatchError> {
    let wrong = |code: &str, field: &str, message: String| mistake(code, message, field, line.number);
    let parsed: Value = serde_json::from_slice(&line.text)
        .map_err(|error| wrong("invalid_json_line", "", format!("the line is not valid JSON: {error}")))?;
    let Value::Object(mut fields) = parsed else {
        return Err(wrong("invalid_json_line", "", "the line must be a JSON object".into()));
    };
    let text = |fields: &Map<String, Value>, name: &str| match fields.get(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        None => Err(wrong("missing_required_parameter", name, format!("{name} is missing"))),
        Some(_) => Err(wrong("invalid_type", name, format!("{name} must be a text that is not empty"))),
    };
    let custom_id = text(&fields, "custom_id")?;
    if custom_id.len() > MAX_CUSTOM_ID {
        return Err(wrong("invalid_value", "custom_id", format!("custom_id is longer than {MAX_CUSTOM_ID} bytes")));
    }
    let method = text(&fields, "method")?;
    if method != "POST" {
        return Err(wrong("invalid_method", "method", format!("method must be POST, not {method:?}")));
    }
    let url = text(&fields, "url")?;
    if url != endpoint {
        return Err(wrong("invalid_url", "url", format!("url must be the batch's endpoint, {endpoint}, not {url:?}")));
    }
    let body = match fields.remove("body") {
        Some(Value::Object(body)) => body,
        None => return Err(wrong("missing_required_parameter", "body", "body is missing".into())),
        Some(_) => return Err(wrong("invalid_type", "body", "body must be a JSON object".into())),
    };
    for (name, what) in [("stream", "an answer of a batch is not streamed"), ("background", "a batch is in the background already")] {
        if body.get(name) == Some(&Value::Bool(true)) {
            return Err(wrong("invalid_value", &format!("body.{name}"), format!("body.{name} must not be true: {what}")));
        }
    }
    Ok(Asked { custom_id, body })
}

fn mistake(code: &str, message: String, field: &str, line: u64) -> BatchError {
    BatchError { code: code.into(), message, field: field.into(), line }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    const CHAT: &str = "/v1/chat/completions";

    async fn told(texts: &[&str]) -> Vec<(u64, String, String)> {
        let lines: Vec<_> = texts.iter().zip(1..).map(|(text, number)| Ok(Line { number, text: text.to_string().into() })).collect();
        let checked = check(Box::pin(stream::iter(lines)), CHAT, 5).await.unwrap();
        checked.errors.into_iter().map(|error| (error.line, error.code, error.field)).collect()
    }

    fn line(id: &str) -> String {
        format!(r#"{{"custom_id":"{id}","method":"POST","url":"{CHAT}","body":{{"model":"m"}}}}"#)
    }

    #[tokio::test]
    async fn each_wrong_line_is_named_with_what_is_wrong() {
        let good = line("a");
        assert!(told(&[&good, &line("b")]).await.is_empty());
        let said = |line: u64, code: &str, field: &str| (line, code.to_owned(), field.to_owned());
        let method = good.replace("POST", "GET");
        assert_eq!(
            told(&[&good, "{", &good, &method]).await,
            [said(2, "invalid_json_line", ""), said(3, "duplicate_custom_id", "custom_id"), said(4, "invalid_method", "method")]
        );
        let (url, body) = (good.replace("/chat", ""), good.replace(r#"{"model":"m"}"#, "7"));
        let streams = good.replace(r#""model":"m""#, r#""stream":true"#);
        assert_eq!(
            told(&["[]", &url, &body, &streams, r#"{"custom_id":5}"#]).await,
            [
                said(1, "invalid_json_line", ""),
                said(2, "invalid_url", "url"),
                said(3, "invalid_type", "body"),
                said(4, "invalid_value", "body.stream"),
                said(5, "invalid_type", "custom_id")
            ]
        );
    }

    #[tokio::test]
    async fn an_input_of_nothing_or_too_much_is_refused_whole() {
        assert_eq!(told(&[]).await, [(0, "empty_file".to_owned(), String::new())]);
        let lines: Vec<String> = (0..6).map(|n| line(&n.to_string())).collect();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        assert_eq!(told(&lines).await, [(0, "too_many_requests".to_owned(), String::new())]);
    }
}
