//! Tools and tool groups over HTTP: a view of `Tools`.

use axum::{
    extract::State,
    routing::{get, post},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use llama_stack_core::{Context, Error, Result};
use llama_stack_proto::v1::{
    InvokeToolRequest, InvokeToolResponse, ListToolGroupsRequest, ListToolsRequest, OnInterrupt, Part, RegisterToolGroupRequest, Tool,
    ToolGroup, UnregisterToolGroupRequest, image::Source, part::Content,
};

use crate::{
    http::{ApiError, AppState, Caller, Json, Path, Query},
    openapi::{Api, Operation, route},
};

pub(crate) fn routes(api: &mut Api) {
    let (groups, group) = (route!("/v1/toolgroups"), route!("/v1/toolgroups/{id}"));
    api.get(groups, get(list_groups).post(register), Operation::new("The tool groups that the caller may use.").returns::<GroupList>());
    let operation = Operation::new("Registers a tool group for the caller's tenant.").takes::<RegisterGroup>().returns::<GroupObject>();
    api.describe(groups, "post", operation);
    api.get(group, get(retrieve_group).delete(unregister), Operation::new("One tool group.").returns::<GroupObject>());
    api.describe(group, "delete", Operation::new("Unregisters a tool group of the caller's tenant.").returns::<Unregistered>());
    api.get(route!("/v1/tools"), get(list_tools), Operation::new("The tools that the caller may use.").returns::<ToolList>());
    let operation = Operation::new("Runs a tool.").takes::<Invoke>().returns::<Invoked>();
    api.post(route!("/v1/tools/{name}/invoke"), post(invoke), operation);
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ToolGroupList")]
struct GroupList {
    object: &'static str,
    data: Vec<GroupObject>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ToolGroup")]
struct GroupObject {
    id: String,
    object: &'static str,
    provider_id: String,
    tools: Vec<String>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "RegisterToolGroup")]
struct RegisterGroup {
    /// 1 to 64 of letters, digits, `_`, `-` and `.`.
    id: String,
    /// For example `remote::mcp`.
    provider_type: String,
    /// What that type of provider takes in the manifest, for example `{"url": "https://example.com/mcp"}`.
    #[serde(default)]
    config: Map<String, Value>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ToolGroupUnregistered")]
struct Unregistered {
    id: String,
    object: &'static str,
    deleted: bool,
}

#[derive(Serialize, JsonSchema)]
struct ToolList {
    object: &'static str,
    data: Vec<ToolObject>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Tool")]
struct ToolObject {
    object: &'static str,
    name: String,
    description: String,
    /// JSON Schema of the arguments.
    parameters: Value,
    provider_id: String,
    group_id: String,
    /// What becomes of a call that a crash cut off: `retry`, `fail` or `ask`.
    on_interrupt: &'static str,
    reads_untrusted: bool,
    reads_private: bool,
    changes_state: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    #[serde(default)]
    group_id: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "InvokeTool")]
struct Invoke {
    #[serde(default)]
    arguments: Map<String, Value>,
    /// The model's id of the call, if there is one.
    #[serde(default)]
    call_id: String,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ToolInvocation")]
struct Invoked {
    content: Vec<Piece>,
    /// The tool's own failure, as a model would be told of it.
    is_error: bool,
}

#[derive(Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schemars(rename = "ToolContent")]
enum Piece {
    Text {
        text: String,
    },
    Image {
        /// An address, or a `data:` URL.
        image_url: String,
    },
}

impl From<ToolGroup> for GroupObject {
    fn from(group: ToolGroup) -> Self {
        Self { id: group.id, object: "tool_group", provider_id: group.provider_id, tools: group.tool_names }
    }
}

impl TryFrom<Tool> for ToolObject {
    type Error = Error;

    fn try_from(tool: Tool) -> Result<Self> {
        let on_interrupt = match tool.on_interrupt() {
            OnInterrupt::Retry => "retry",
            OnInterrupt::Ask => "ask",
            OnInterrupt::Fail | OnInterrupt::Unspecified => "fail",
        };
        let definition = tool.definition.unwrap_or_default();
        Ok(Self {
            object: "tool",
            parameters: parameters(&definition.name, &definition.parameters)?,
            name: definition.name,
            description: definition.description,
            provider_id: tool.provider_id,
            group_id: tool.group_id,
            on_interrupt,
            reads_untrusted: tool.reads_untrusted,
            reads_private: tool.reads_private,
            changes_state: tool.changes_state,
        })
    }
}

/// A tool's schema as JSON; without one it takes no arguments.
///
/// # Errors
/// `Internal` where it is none: the router lists no such tool.
pub(crate) fn parameters(tool: &str, schema: &str) -> Result<Value> {
    if schema.is_empty() {
        return Ok(serde_json::json!({ "type": "object", "properties": {} }));
    }
    serde_json::from_str(schema).map_err(|error| Error::internal(format!("the schema of tool {tool:?} is not JSON")).with_source(error))
}

impl TryFrom<InvokeToolResponse> for Invoked {
    type Error = Error;

    fn try_from(response: InvokeToolResponse) -> Result<Self> {
        let content = response.parts.into_iter().map(Piece::try_from).collect::<Result<_>>()?;
        Ok(Self { content, is_error: response.is_error })
    }
}

impl TryFrom<Part> for Piece {
    type Error = Error;

    fn try_from(part: Part) -> Result<Self> {
        match part.content {
            Some(Content::Text(text)) => Ok(Self::Text { text }),
            Some(Content::Image(image)) => Ok(Self::Image {
                image_url: match image.source {
                    Some(Source::Url(url)) => url,
                    Some(Source::Data(data)) => format!("data:{};base64,{}", image.media_type, STANDARD.encode(data)),
                    None => return Err(Error::internal("a tool answered with an image that is not there")),
                },
            }),
            _ => Err(Error::internal("a tool answered with something that is neither text nor image")),
        }
    }
}

/// The whole list, of one group or of all.
///
/// # Errors
/// Those of `ListTools`.
pub(crate) async fn every_tool(tools: &dyn llama_stack_core::Tools, cx: &Context, group_id: String) -> Result<Vec<Tool>> {
    let (mut all, mut request) = (Vec::new(), ListToolsRequest { group_id, ..ListToolsRequest::default() });
    loop {
        let page = cx.within(tools.list_tools(cx, request.clone())).await?;
        all.extend(page.tools);
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        request.page_token = page.next_page_token;
    }
}

async fn every_group(state: &AppState, cx: &Context) -> Result<Vec<GroupObject>> {
    let (mut all, mut request) = (Vec::new(), ListToolGroupsRequest::default());
    loop {
        let page = cx.within(state.tools.list_tool_groups(cx, request.clone())).await?;
        all.extend(page.groups.into_iter().map(GroupObject::from));
        if page.next_page_token.is_empty() {
            return Ok(all);
        }
        request.page_token = page.next_page_token;
    }
}

async fn list_groups(State(state): State<AppState>, Caller(cx): Caller) -> Result<Json<GroupList>, ApiError> {
    Ok(Json(GroupList { object: "list", data: every_group(&state, &cx).await? }))
}

async fn retrieve_group(State(state): State<AppState>, Caller(cx): Caller, Path(id): Path<String>) -> Result<Json<GroupObject>, ApiError> {
    let group = every_group(&state, &cx).await?.into_iter().find(|group| group.id == id);
    let absent =
        || Error::not_found(format!("no tool group {id:?}; GET /v1/toolgroups lists what there is")).with_reason("tool_group_not_found");
    Ok(Json(group.ok_or_else(absent)?))
}

async fn register(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Json(body): Json<RegisterGroup>,
) -> Result<Json<GroupObject>, ApiError> {
    let config = Value::Object(body.config).to_string();
    let request = RegisterToolGroupRequest { id: body.id, provider_type: body.provider_type, config };
    Ok(Json(cx.within(state.tools.register_tool_group(&cx, request)).await?.into()))
}

async fn unregister(State(state): State<AppState>, Caller(cx): Caller, Path(id): Path<String>) -> Result<Json<Unregistered>, ApiError> {
    cx.within(state.tools.unregister_tool_group(&cx, UnregisterToolGroupRequest { id: id.clone() })).await?;
    Ok(Json(Unregistered { id, object: "tool_group", deleted: true }))
}

async fn list_tools(State(state): State<AppState>, Caller(cx): Caller, Query(filter): Query<Filter>) -> Result<Json<ToolList>, ApiError> {
    let tools = every_tool(&*state.tools, &cx, filter.group_id).await?;
    let data = tools.into_iter().map(ToolObject::try_from).collect::<Result<_>>()?;
    Ok(Json(ToolList { object: "list", data }))
}

async fn invoke(
    State(state): State<AppState>,
    Caller(cx): Caller,
    Path(name): Path<String>,
    Json(body): Json<Invoke>,
) -> Result<Json<Invoked>, ApiError> {
    let request = InvokeToolRequest { name, arguments: Value::Object(body.arguments).to_string(), call_id: body.call_id };
    Ok(Json(cx.within(state.tools.invoke_tool(&cx, request)).await?.try_into()?))
}
