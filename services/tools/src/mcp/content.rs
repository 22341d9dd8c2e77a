//! MCP's results as ours.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use llama_stack_proto::v1::{Image, InvokeToolResponse, Part, image};
use rmcp::model::{CallToolResult, ContentBlock, ResourceContents};

use crate::said;

/// Every part is labelled with its tool. What a model cannot be shown is named in its place, so that the model knows.
pub(super) fn response(tool: &str, result: CallToolResult) -> InvokeToolResponse {
    let mut parts: Vec<Part> = result.content.into_iter().map(|block| part(tool, block)).collect();
    // Servers repeat structured content as text for clients that do not know it; where one does not, we do.
    if let Some(structured) = result.structured_content.filter(|_| parts.iter().all(|part| part.as_text().is_none())) {
        parts.push(said(tool, structured.to_string()));
    }
    if parts.is_empty() {
        parts.push(said(tool, ""));
    }
    InvokeToolResponse { parts, is_error: result.is_error.unwrap_or_default(), ..InvokeToolResponse::default() }
}

fn part(tool: &str, block: ContentBlock) -> Part {
    let text = match block {
        ContentBlock::Text(text) => text.text,
        ContentBlock::Image(image) => return picture(tool, &image.data, image.mime_type),
        ContentBlock::Audio(audio) => format!("[left out: audio, {}]", audio.mime_type),
        ContentBlock::Resource(embedded) => match embedded.resource {
            ResourceContents::TextResourceContents { text, .. } => text,
            ResourceContents::BlobResourceContents { blob, mime_type: Some(kind), .. } if kind.starts_with("image/") => {
                return picture(tool, &blob, kind);
            }
            ResourceContents::BlobResourceContents { uri, mime_type, .. } => {
                format!("[left out: {uri}, {}]", mime_type.as_deref().unwrap_or("bytes of an unknown kind"))
            }
            _ => "[left out: a resource of an unknown kind]".to_owned(),
        },
        ContentBlock::ResourceLink(link) => match link.description {
            Some(description) => format!("{}: {} ({description})", link.name, link.uri),
            None => format!("{}: {}", link.name, link.uri),
        },
        _ => "[left out: content of an unknown kind]".to_owned(),
    };
    said(tool, text)
}

fn picture(tool: &str, data: &str, media_type: String) -> Part {
    match STANDARD.decode(data) {
        Ok(data) => {
            let image = Image { source: Some(image::Source::Data(data)), media_type };
            Part::image(image).with_provenance(format!("tool:{tool}"))
        }
        Err(_) => said(tool, format!("[left out: an image, {media_type}, that is not valid base64]")),
    }
}

#[cfg(test)]
mod tests {
    use llama_stack_proto::v1::part::Content;
    use serde_json::json;

    use super::*;

    fn read(result: serde_json::Value) -> InvokeToolResponse {
        response("t", serde_json::from_value(result).unwrap())
    }

    fn texts(result: serde_json::Value) -> Vec<String> {
        read(result).parts.iter().map(|part| part.as_text().unwrap_or("no text").to_owned()).collect()
    }

    #[test]
    fn every_kind_of_content_reaches_the_model_or_is_named() {
        let response = read(json!({ "isError": true, "content": [
            { "type": "text", "text": "a" },
            { "type": "image", "data": "AAEC", "mimeType": "image/png" },
            { "type": "audio", "data": "AAEC", "mimeType": "audio/wav" },
            { "type": "resource", "resource": { "uri": "file:///b", "text": "b" } },
            { "type": "resource", "resource": { "uri": "file:///c", "blob": "AAEC", "mimeType": "image/gif" } },
            { "type": "resource", "resource": { "uri": "file:///d", "blob": "AAEC", "mimeType": "application/pdf" } },
            { "type": "resource_link", "uri": "file:///e", "name": "e", "description": "an e" },
            { "type": "image", "data": "?", "mimeType": "image/png" },
        ] }));
        assert!(response.is_error && response.parts.iter().all(|part| part.provenance == "tool:t"));
        let shown: Vec<String> = response
            .parts
            .iter()
            .map(|part| match &part.content {
                Some(Content::Text(text)) => text.clone(),
                Some(Content::Image(Image { source: Some(image::Source::Data(data)), media_type })) => format!("{media_type} {data:?}"),
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(shown[1].starts_with("image/png ") && shown[4].starts_with("image/gif "), "{shown:?}");
        assert_eq!((shown[0].as_str(), shown[3].as_str(), shown[6].as_str()), ("a", "b", "e: file:///e (an e)"));
        assert!(shown[2].contains("audio/wav") && shown[5].contains("file:///d") && shown[7].contains("base64"), "{shown:?}");
    }

    #[test]
    fn structured_content_is_shown_where_there_is_no_text() {
        assert_eq!(texts(json!({ "content": [], "structuredContent": { "a": 1 } })), [r#"{"a":1}"#]);
        assert_eq!(texts(json!({ "content": [{ "type": "text", "text": "one" }], "structuredContent": { "a": 1 } })), ["one"]);
        assert_eq!(texts(json!({ "content": [] })), [""]);
    }
}
