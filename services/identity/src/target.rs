//! What a request is about: the kind of thing, and its id.

use llama_stack_core::guard::Message;
use llama_stack_proto::v1::{
    CancelBatchRequest, CancelIngestionRequest, CancelTurnRequest, ChatRequest, CompactRequest, CompleteRequest, CreateTurnRequest,
    DeleteAgentRequest, DeleteBankRequest, DeleteDocumentsRequest, DeleteFileRequest, DeletePromptRequest, DeleteSessionRequest,
    DeleteTurnRequest, EmbedRequest, GetAgentRequest, GetApiKeyRequest, GetBankRequest, GetBatchRequest, GetDocumentRequest,
    GetFileRequest, GetIngestionRequest, GetModelRequest, GetPromptRequest, GetSessionRequest, GetShieldRequest, GetTurnRequest,
    GetTurnTraceRequest, InsertChunksRequest, InsertDocumentsRequest, InvokeToolRequest, ListChunksRequest, ListDocumentsRequest,
    ListPromptVersionsRequest, ListSpansRequest, ListTurnsRequest, QueryRequest, RedactTurnRequest, RegisterToolGroupRequest,
    ResumeTurnRequest, RevokeApiKeyRequest, RotateApiKeyRequest, RunShieldRequest, SetDefaultPromptVersionRequest,
    UnregisterToolGroupRequest, UpdateAgentRequest, UpdateBankRequest, UpdateDocumentRequest, UpdatePromptRequest, UpdateSessionRequest,
    WatchTurnRequest,
};

/// A kind, as policies call it, and an id that is not empty.
pub(crate) type Target = (&'static str, String);

/// The things that a request names; empty where it makes a new one, or asks for all. None: nobody has said what such a request
/// names.
pub(crate) fn targets(request: &Message) -> Option<Vec<Target>> {
    match request.downcast_ref::<QueryRequest>() {
        Some(query) => Some(query.bank_ids.iter().map(|id| ("bank", id.clone())).collect()),
        None => of_table(request),
    }
}

/// The kinds of things that a request of this name can name, as policies call them.
pub fn kinds(request: &str) -> &'static [&'static str] {
    let found = KINDS.iter().find(|(name, _)| *name == request);
    found.map(|(_, kinds)| *kinds).unwrap_or_default()
}

macro_rules! table {
    ($($type:ident: $($kind:literal $field:ident),+;)*) => {
        const KINDS: &[(&str, &[&str])] = &[("QueryRequest", &["bank"]), $((stringify!($type), &[$($kind),+])),*];

        fn of_table(request: &Message) -> Option<Vec<Target>> {
            let mut found: Vec<Target> = Vec::new();
            $(if let Some(request) = request.downcast_ref::<$type>() {
                $(found.extend(Some(&request.$field).filter(|id| !id.is_empty()).map(|id| ($kind, id.clone())));)+
                return Some(found);
            })*
            None
        }
    };
}

table! {
    ChatRequest: "model" model;
    CompleteRequest: "model" model;
    EmbedRequest: "model" model;
    GetModelRequest: "model" id;
    GetShieldRequest: "shield" id;
    RunShieldRequest: "shield" shield_id;
    InvokeToolRequest: "tool" name;
    RegisterToolGroupRequest: "tool_group" id;
    UnregisterToolGroupRequest: "tool_group" id;
    GetBankRequest: "bank" id;
    UpdateBankRequest: "bank" id;
    DeleteBankRequest: "bank" id;
    InsertDocumentsRequest: "bank" bank_id;
    InsertChunksRequest: "bank" bank_id;
    GetDocumentRequest: "bank" bank_id;
    ListDocumentsRequest: "bank" bank_id;
    DeleteDocumentsRequest: "bank" bank_id;
    UpdateDocumentRequest: "bank" bank_id;
    ListChunksRequest: "bank" bank_id;
    GetIngestionRequest: "bank" bank_id;
    CancelIngestionRequest: "bank" bank_id;
    GetFileRequest: "file" id;
    DeleteFileRequest: "file" id;
    GetAgentRequest: "agent" id;
    UpdateAgentRequest: "agent" id;
    DeleteAgentRequest: "agent" id;
    GetSessionRequest: "session" id;
    UpdateSessionRequest: "session" id;
    DeleteSessionRequest: "session" id;
    CreateTurnRequest: "session" session_id, "turn" parent_turn_id;
    GetTurnRequest: "turn" id;
    ListTurnsRequest: "session" session_id;
    CancelTurnRequest: "turn" id;
    ResumeTurnRequest: "turn" turn_id;
    WatchTurnRequest: "turn" turn_id;
    DeleteTurnRequest: "turn" id;
    RedactTurnRequest: "turn" turn_id;
    CompactRequest: "turn" turn_id;
    GetTurnTraceRequest: "turn" turn_id;
    ListSpansRequest: "session" session_id;
    GetBatchRequest: "batch" id;
    CancelBatchRequest: "batch" id;
    GetPromptRequest: "prompt" id;
    ListPromptVersionsRequest: "prompt" id;
    UpdatePromptRequest: "prompt" id;
    SetDefaultPromptVersionRequest: "prompt" id;
    DeletePromptRequest: "prompt" id;
    GetApiKeyRequest: "api_key" id;
    RotateApiKeyRequest: "api_key" id;
    RevokeApiKeyRequest: "api_key" id;
}
