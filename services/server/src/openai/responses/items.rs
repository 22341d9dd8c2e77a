//! Items: what a Response reads and writes.
//!
//! An item's id tells where it is (`Place`), so that it can be found again from its id alone.

use llama_stack_proto::v1::{Citation, Image, Message, Role, TokenLogprob, Turn, image::Source, part::Content};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Value, json};

use super::{echo::Echo, namespaces};

/// Something in `output`, in `input_items`, or in a conversation.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Item {
    Message {
        id: String,
        status: Status,
        role: &'static str,
        content: Vec<ContentPart>,
    },
    FunctionCall {
        id: String,
        status: Status,
        call_id: String,
        name: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        namespace: Option<String>,
        arguments: String,
    },
    FunctionCallOutput {
        id: String,
        status: Status,
        call_id: String,
        output: String,
    },
    Reasoning {
        id: String,
        summary: Vec<Value>,
        content: Vec<ContentPart>,
        status: Status,
    },
    McpListTools {
        id: String,
        server_label: String,
        tools: Vec<Value>,
        error: Option<String>,
    },
    McpCall {
        id: String,
        status: Status,
        server_label: String,
        name: String,
        arguments: String,
        approval_request_id: Option<String>,
        output: Option<String>,
        error: Option<Value>,
    },
    McpApprovalRequest {
        id: String,
        server_label: String,
        name: String,
        arguments: String,
    },
    McpApprovalResponse {
        id: String,
        approval_request_id: String,
        approve: bool,
        reason: Option<String>,
    },
    WebSearchCall {
        id: String,
        status: Status,
        /// What was searched for: `{type: search, query, queries}`.
        action: Value,
    },
    FileSearchCall {
        id: String,
        status: Status,
        queries: Vec<String>,
        /// What was found, where it was asked for.
        results: Option<Vec<Value>>,
    },
    Compaction {
        id: String,
        /// The summary, in a form that only this stack reads. It is encoded, not secret.
        encrypted_content: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    InProgress,
    Completed,
    Incomplete,
    Failed,
}

#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ContentPart {
    InputText {
        text: String,
        /// Not OpenAI's: where a text comes from that the user only quotes.
        #[serde(skip_serializing_if = "Option::is_none")]
        provenance: Option<String>,
    },
    InputImage {
        image_url: String,
        detail: &'static str,
    },
    OutputText {
        text: String,
        annotations: Vec<Value>,
        logprobs: Vec<Value>,
    },
    Refusal {
        refusal: String,
    },
    ReasoningText {
        text: String,
    },
}

impl Item {
    pub(crate) fn id(&self) -> &str {
        match self {
            Item::Message { id, .. }
            | Item::FunctionCall { id, .. }
            | Item::FunctionCallOutput { id, .. }
            | Item::Reasoning { id, .. }
            | Item::McpListTools { id, .. }
            | Item::McpCall { id, .. }
            | Item::McpApprovalRequest { id, .. }
            | Item::McpApprovalResponse { id, .. }
            | Item::WebSearchCall { id, .. }
            | Item::FileSearchCall { id, .. }
            | Item::Compaction { id, .. } => id,
        }
    }

    pub(crate) fn set_status(&mut self, new: Status) {
        match self {
            Item::Message { status, .. }
            | Item::FunctionCall { status, .. }
            | Item::FunctionCallOutput { status, .. }
            | Item::Reasoning { status, .. }
            | Item::McpCall { status, .. }
            | Item::WebSearchCall { status, .. }
            | Item::FileSearchCall { status, .. } => *status = new,
            Item::McpListTools { .. } | Item::McpApprovalRequest { .. } | Item::McpApprovalResponse { .. } | Item::Compaction { .. } => {}
        }
    }

    /// A call without a result that will get none: cut off, or its result was taken out.
    pub(crate) fn is_empty_call(&self) -> bool {
        match self {
            Item::McpCall { status, .. }
            | Item::WebSearchCall { status, .. }
            | Item::FileSearchCall { status, .. }
            | Item::FunctionCallOutput { status, .. } => *status == Status::Incomplete,
            _ => false,
        }
    }
}

/// Where in a turn an item is. Its id is a prefix and the place in hexadecimal digits: 32 of the turn's id, 4 of
/// `section`, 4 or more of `part`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) turn_id: String,
    /// 0: the input. Else a step, counted from 1.
    pub(crate) section: usize,
    /// The first part of the item: of all parts of the input's messages, or of what the step said.
    pub(crate) part: usize,
}

/// In place of a step: decisions, which an input holds beside its messages.
const DECISIONS: usize = 0xffff;

impl Place {
    /// `None` for an id that no item of this stack has.
    pub(crate) fn read(id: &str) -> Option<Self> {
        let (_, place) = id.split_once('_')?;
        let (turn, section, part) = (place.get(..32)?, place.get(32..36)?, place.get(36..)?);
        let number = |digits: &str| usize::from_str_radix(digits, 16).ok();
        let is_hex = place.bytes().all(|byte| byte.is_ascii_hexdigit()) && (4..=8).contains(&part.len());
        is_hex.then_some(())?;
        Some(Self { turn_id: format!("turn_{turn}"), section: number(section)?, part: number(part)? })
    }
}

/// The id of an item in the step `index` of a turn.
pub(crate) fn step_item_id(prefix: &str, turn_id: &str, index: usize, part: usize) -> String {
    item_id(prefix, turn_id, index + 1, part)
}

fn item_id(prefix: &str, turn_id: &str, section: usize, part: usize) -> String {
    let stem = turn_id.strip_prefix("turn_").unwrap_or(turn_id);
    format!("{prefix}_{stem}{section:04x}{part:04x}")
}

pub(crate) fn logprob(token: &TokenLogprob) -> Value {
    let top: Vec<Value> = token.top.iter().map(|top| json!({ "token": top.token, "logprob": top.logprob, "bytes": top.bytes })).collect();
    json!({ "token": token.token, "logprob": token.logprob, "bytes": token.bytes, "top_logprobs": top })
}

/// The items that a turn was given.
pub(crate) fn input(turn: &Turn) -> Vec<Item> {
    let decisions = turn.decisions.iter().enumerate().map(|(n, decision)| Item::McpApprovalResponse {
        id: item_id("mcpd", &turn.id, DECISIONS, n),
        approval_request_id: decision.approval_request_id.clone(),
        approve: decision.approve,
        reason: (!decision.reason.is_empty()).then(|| decision.reason.clone()),
    });
    let mut items: Vec<Item> = decisions.collect();
    let namespaces = turn.config.as_ref().map(|config| Echo::kept(config).namespaces).unwrap_or_default();
    let mut part = 0;
    for message in &turn.input {
        of_message(message, &namespaces, |prefix, n| item_id(prefix, &turn.id, 0, part + n), &mut items);
        part += message.parts.len();
    }
    items
}

/// Texts and images in a row are one item, each call and each result is one of its own.
fn of_message(message: &Message, namespaces: &[String], id: impl Fn(&str, usize) -> String, items: &mut Vec<Item>) {
    let mut open = false;
    for (n, part) in message.parts.iter().enumerate() {
        let content = match &part.content {
            Some(Content::Text(text)) if message.role() == Role::Assistant => {
                let annotations = annotations(text, &part.citations);
                ContentPart::OutputText { text: text.clone(), annotations, logprobs: Vec::new() }
            }
            Some(Content::Text(text)) => {
                let quoted = part.provenance.starts_with("tool:") || part.provenance.starts_with("retrieved:");
                ContentPart::InputText { text: text.clone(), provenance: quoted.then(|| part.provenance.clone()) }
            }
            Some(Content::Image(image)) => ContentPart::InputImage { image_url: image_url(image), detail: "auto" },
            Some(Content::Refusal(refusal)) => ContentPart::Refusal { refusal: refusal.clone() },
            Some(Content::ToolCall(call)) => {
                open = false;
                let (namespace, name) = namespaces::parted(namespaces, &call.name);
                items.push(Item::FunctionCall {
                    id: id("fc", n),
                    status: Status::Completed,
                    call_id: call.id.clone(),
                    name,
                    namespace,
                    arguments: call.arguments.clone(),
                });
                continue;
            }
            Some(Content::ToolResult(result)) => {
                open = false;
                items.push(Item::FunctionCallOutput {
                    id: id("fco", n),
                    status: Status::Completed,
                    call_id: result.call_id.clone(),
                    output: result.joined_text(),
                });
                continue;
            }
            Some(Content::Reasoning(text)) => {
                open = false;
                let content = vec![ContentPart::ReasoningText { text: text.clone() }];
                items.push(Item::Reasoning { id: id("rs", n), summary: Vec::new(), content, status: Status::Completed });
                continue;
            }
            None => continue,
        };
        match items.last_mut() {
            Some(Item::Message { content: before, .. }) if open => before.push(content),
            _ => {
                let (id, status, role) = (id("msg", n), Status::Completed, role_name(message.role()));
                items.push(Item::Message { id, status, role, content: vec![content] });
                open = true;
            }
        }
    }
}

pub(crate) fn output_text(text: &str) -> ContentPart {
    ContentPart::OutputText { text: text.to_owned(), annotations: Vec::new(), logprobs: Vec::new() }
}

/// What a text rests on. Places are counted in characters; the mark that the text has there, for example `[1]`, stays in it.
/// Not OpenAI's: the page, and what was quoted.
pub(crate) fn annotations(text: &str, citations: &[Citation]) -> Vec<Value> {
    let characters = |bytes: u32| text.get(..bytes as usize).map_or(0, |before| before.chars().count());
    let annotation = |citation: &Citation| {
        if !citation.url.is_empty() {
            let (start, end) = (characters(citation.start), characters(citation.end));
            let (url, title) = (&citation.url, &citation.title);
            return json!({ "type": "url_citation", "start_index": start, "end_index": end, "url": url, "title": title });
        }
        let file_id = if citation.file_id.is_empty() { &citation.document_id } else { &citation.file_id };
        let (index, filename) = (characters(citation.start), &citation.filename);
        let mut annotation = json!({ "type": "file_citation", "index": index, "file_id": file_id, "filename": filename });
        if citation.page > 0 {
            annotation["page"] = citation.page.into();
        }
        if !citation.quote.is_empty() {
            annotation["quote"] = citation.quote.clone().into();
        }
        annotation
    };
    citations.iter().map(annotation).collect()
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::System => "system",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
        Role::User | Role::Unspecified => "user",
    }
}

fn image_url(image: &Image) -> String {
    match &image.source {
        Some(Source::Url(url)) => url.clone(),
        Some(Source::Data(data)) => {
            use base64::Engine as _;
            format!("data:{};base64,{}", image.media_type, base64::engine::general_purpose::STANDARD.encode(data))
        }
        None => String::new(),
    }
}
