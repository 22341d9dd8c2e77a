//! `tools` and `tool_choice`: what a request says, and what a Response says of it again.

use std::collections::HashMap;

use llama_stack_core::{Code, Error, Result};
use llama_stack_proto::v1::{
    AgentConfig, Approval, FileSearch, McpServer, SearchMode, ToolChoice, ToolDefinition, approval, tool_choice::Mode,
};
use serde_json::{Value, json};

use super::{
    input::text,
    namespaces,
    steps::{FILE_SEARCH, WEB_SEARCH},
};
use crate::openai::vector_stores::{bank_id, filters, ids::store_id, ranking};

/// Tools, by who runs them.
#[derive(Debug, Default)]
pub(crate) struct Tools {
    pub(crate) functions: Vec<ToolDefinition>,
    /// Which some of the functions are in.
    pub(crate) namespaces: Vec<String>,
    pub(crate) servers: Vec<McpServer>,
    /// The search tool as it was asked for.
    pub(crate) web_search: Option<Value>,
    pub(crate) file_search: Option<FileSearch>,
}

/// The OpenAI API's bound.
const MAX_FOUND: u32 = 50;

const WEB_SEARCH_TYPES: [&str; 4] = [WEB_SEARCH, "web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11"];

/// Of each tool of a request its kind and its place.
pub(super) fn kinds(tools: &[Value]) -> Vec<(String, String)> {
    let kind = |tool: &Value| tool.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut kinds = Vec::new();
    for (index, tool) in tools.iter().enumerate() {
        let place = format!("tools[{index}]");
        match tool.get("tools").and_then(Value::as_array).filter(|_| kind(tool) == "namespace") {
            Some(within) => kinds.extend(within.iter().enumerate().map(|(n, tool)| (kind(tool), format!("{place}.tools[{n}]")))),
            None => kinds.push((kind(tool), place)),
        }
    }
    kinds
}

/// Where in the request a field of a turn's tools is: the turn has a list for each kind.
pub(super) fn place(field: &str, kinds: &[(String, String)]) -> Option<String> {
    let lists = [("client_tools[", "function"), ("mcp_servers[", "mcp"), ("tools[", WEB_SEARCH)];
    lists.into_iter().find_map(|(list, kind)| {
        let (number, rest) = field.strip_prefix(list)?.split_once(']')?;
        let (_, place) = kinds.iter().filter(|(one, _)| one.starts_with(kind)).nth(number.parse().ok()?)?;
        let rest = match rest {
            ".label" => ".server_label",
            ".url" => ".server_url",
            rest => rest,
        };
        Some(format!("{place}{rest}"))
    })
}

pub(super) fn absent(field: String, message: String) -> Error {
    Error::new(Code::Unimplemented, message).with_field(field)
}

/// # Errors
/// `InvalidArgument` with the tool's place · `Unimplemented` for tools, and for restrictions of tools, that this stack does
/// not have.
pub(crate) fn read(tools: &[Value]) -> Result<Tools> {
    let mut read = Tools::default();
    for (index, tool) in tools.iter().enumerate() {
        let field = format!("tools[{index}]");
        match tool.get("type").and_then(Value::as_str) {
            Some("function") => read.functions.push(function(&field, tool)?),
            Some("namespace") => namespace(&field, tool, &mut read)?,
            Some("mcp") => read.servers.push(server(&field, tool)?),
            Some(FILE_SEARCH) if read.file_search.is_some() => {
                return Err(Error::invalid(field, "there is one file_search tool: name all vector stores in it"));
            }
            Some(FILE_SEARCH) => read.file_search = Some(file_search(&field, tool)?),
            Some(kind) if WEB_SEARCH_TYPES.contains(&kind) => {
                // Whoever restricts a search relies on it.
                if tool.get("filters").is_some_and(|filters| !filters.is_null()) {
                    return Err(absent(format!("{field}.filters"), "filters of a web search are not supported yet".into()));
                }
                read.web_search = Some(tool.clone());
            }
            Some(other) => {
                let message =
                    format!("tools of type {other:?} are not supported yet; use \"function\", \"mcp\", \"file_search\" or \"web_search\"");
                return Err(absent(format!("{field}.type"), message));
            }
            None => return Err(Error::invalid(format!("{field}.type"), "a tool needs a type, for example \"function\"")),
        }
    }
    Ok(read)
}

pub(crate) fn function(field: &str, tool: &Value) -> Result<ToolDefinition> {
    let name = tool.get("name").and_then(Value::as_str);
    let name = name.ok_or_else(|| Error::invalid(format!("{field}.name"), "a function tool needs a name"))?;
    let text = |key: &str| tool.get(key).and_then(Value::as_str).unwrap_or_default();
    let parameters = tool.get("parameters").filter(|schema| !schema.is_null()).map(Value::to_string).unwrap_or_default();
    let strict = tool.get("strict").and_then(Value::as_bool).unwrap_or(false);
    Ok(ToolDefinition { strict, ..ToolDefinition::new(name, text("description"), parameters) })
}

/// The functions of a namespace.
fn namespace(field: &str, tool: &Value, read: &mut Tools) -> Result<()> {
    let name = text(field, tool, "name")?;
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
        return Err(Error::invalid(format!("{field}.name"), "the name of a namespace is made of letters, digits, _ and -"));
    }
    let tools = tool.get("tools").and_then(Value::as_array);
    let tools = tools.ok_or_else(|| Error::invalid(format!("{field}.tools"), "a namespace needs tools: a list of functions"))?;
    for (index, tool) in tools.iter().enumerate() {
        let field = format!("{field}.tools[{index}]");
        let kind = tool.get("type").and_then(Value::as_str).unwrap_or_default();
        if kind != "function" {
            let message = format!("tools of type {kind:?} in a namespace are not supported yet; use \"function\"");
            return Err(absent(format!("{field}.type"), message));
        }
        let within = function(&field, tool)?;
        read.functions.push(ToolDefinition { name: namespaces::joined(&name, &within.name), ..within });
    }
    read.namespaces.push(name);
    Ok(())
}

/// Searches by meaning and by words.
fn file_search(field: &str, tool: &Value) -> Result<FileSearch> {
    let at = format!("{field}.vector_store_ids");
    let stores = tool.get("vector_store_ids").map(|list| names(&at, list)).transpose()?.unwrap_or_default();
    if stores.is_empty() {
        return Err(Error::invalid(at, "a file_search tool needs vector_store_ids: at least one"));
    }
    let at = format!("{field}.max_num_results");
    let max_results = match tool.get("max_num_results").filter(|given| !given.is_null()) {
        None => 0,
        Some(given) => {
            let count = given.as_u64().and_then(|count| u32::try_from(count).ok()).filter(|count| (1..=MAX_FOUND).contains(count));
            count.ok_or_else(|| Error::invalid(at, format!("max_num_results must be 1 to {MAX_FOUND}")))?
        }
    };
    let at = format!("{field}.ranking_options");
    let options = tool.get("ranking_options").filter(|given| !given.is_null());
    let options = options.map(|options| serde_json::from_value(options.clone())).transpose();
    let options = options.map_err(|error| Error::invalid(&at, format!("{at}: {error}")))?;
    let (ranker, score_threshold) = ranking::read(&at, options.as_ref())?;
    Ok(FileSearch {
        bank_ids: stores.iter().map(|id| bank_id(id)).collect(),
        filter: filters::read(&format!("{field}.filters"), tool.get("filters"))?,
        max_results,
        mode: SearchMode::Hybrid.into(),
        ranker,
        score_threshold,
        rewrite_query: false,
    })
}

pub(crate) fn server(field: &str, tool: &Value) -> Result<McpServer> {
    let given = |key: &str| match tool.get(key) {
        None | Some(Value::Null) => Ok(String::new()),
        Some(_) => text(field, tool, key),
    };
    let server = McpServer {
        label: text(field, tool, "server_label")?,
        url: given("server_url")?,
        connector_id: given("connector_id")?,
        allowed_tools: allowed_tools(&format!("{field}.allowed_tools"), tool.get("allowed_tools"))?,
        require_approval: Some(approval(&format!("{field}.require_approval"), tool.get("require_approval"))?),
        description: given("server_description")?,
        authorization: given("authorization")?,
        headers: headers(&format!("{field}.headers"), tool.get("headers"))?,
    };
    match (server.url.is_empty(), server.connector_id.is_empty()) {
        (true, true) => Err(Error::invalid(format!("{field}.server_url"), "an mcp tool needs a server_url or a connector_id")),
        (false, false) => Err(Error::invalid(format!("{field}.connector_id"), "an mcp tool has a server_url or a connector_id, not both")),
        _ => Ok(server),
    }
}

/// A list of names, or `{tool_names}`.
fn allowed_tools(field: &str, value: Option<&Value>) -> Result<Vec<String>> {
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Object(_)) => filter(field, value),
        Some(list) => names(field, list),
    }
}

/// `{tool_names}`.
fn filter(field: &str, value: Option<&Value>) -> Result<Vec<String>> {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(Vec::new()) };
    if value.get("read_only").is_some_and(|only| !only.is_null()) {
        return Err(absent(format!("{field}.read_only"), "choosing tools by read_only is not supported yet; use tool_names".into()));
    }
    match value.get("tool_names") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(list) => names(&format!("{field}.tool_names"), list),
    }
}

fn names(field: &str, list: &Value) -> Result<Vec<String>> {
    let wrong = || Error::invalid(field, format!("{field} must be a list of names"));
    let list = list.as_array().ok_or_else(wrong)?;
    list.iter().map(|name| name.as_str().map(str::to_owned).ok_or_else(wrong)).collect()
}

fn approval(field: &str, value: Option<&Value>) -> Result<Approval> {
    let simple = |mode: approval::Mode| Approval { mode: mode.into(), ..Approval::default() };
    match value {
        None | Some(Value::Null) => Ok(simple(approval::Mode::Always)),
        Some(Value::String(mode)) if mode == "always" => Ok(simple(approval::Mode::Always)),
        Some(Value::String(mode)) if mode == "never" => Ok(simple(approval::Mode::Never)),
        Some(by_tool @ Value::Object(_)) => Ok(Approval {
            mode: approval::Mode::ByTool.into(),
            always: filter(&format!("{field}.always"), by_tool.get("always"))?,
            never: filter(&format!("{field}.never"), by_tool.get("never"))?,
        }),
        Some(_) => Err(Error::invalid(field, "require_approval must be \"always\", \"never\" or {always, never} with tool_names")),
    }
}

fn headers(field: &str, value: Option<&Value>) -> Result<HashMap<String, String>> {
    let wrong = || Error::invalid(field, "headers must be an object of texts");
    match value {
        None | Some(Value::Null) => Ok(HashMap::new()),
        Some(Value::Object(headers)) => {
            let pair = |(name, value): (&String, &Value)| Ok((name.clone(), value.as_str().ok_or_else(wrong)?.to_owned()));
            headers.iter().map(pair).collect()
        }
        Some(_) => Err(wrong()),
    }
}

/// # Errors
/// `InvalidArgument` for what is no choice · `Unimplemented` for choices of tools that this stack does not have.
pub(crate) fn choice(choice: &Value, tools: &Tools) -> Result<ToolChoice> {
    let wrong = || {
        let message = "tool_choice must be \"none\", \"auto\", \"required\", or an object of type function, mcp, allowed_tools, file_search or web_search";
        Error::invalid("tool_choice", message)
    };
    if let Value::String(mode) = choice {
        let mode = match mode.as_str() {
            "none" => Mode::None,
            "auto" => Mode::Auto,
            "required" => Mode::Required,
            _ => return Err(wrong()),
        };
        return Ok(ToolChoice { mode: mode.into(), ..ToolChoice::default() });
    }
    let kind = choice.get("type").and_then(Value::as_str).ok_or_else(wrong)?;
    if kind == "allowed_tools" {
        let mode = match choice.get("mode").and_then(Value::as_str) {
            None | Some("auto") => Mode::Auto,
            Some("required") => Mode::Required,
            Some(_) => return Err(Error::invalid("tool_choice.mode", "tool_choice.mode must be \"auto\" or \"required\"")),
        };
        let listed = choice.get("tools").and_then(Value::as_array);
        let listed = listed.ok_or_else(|| Error::invalid("tool_choice.tools", "tool_choice.tools must be a list of tools"))?;
        let mut allowed = Vec::new();
        for (index, tool) in listed.iter().enumerate() {
            allowed.extend(chosen(&format!("tool_choice.tools[{index}]"), tool, tools)?);
        }
        if allowed.is_empty() {
            return Err(Error::invalid("tool_choice.tools", "tool_choice.tools must name at least one tool"));
        }
        return Ok(ToolChoice { mode: mode.into(), name: String::new(), allowed });
    }
    let mut names = chosen("tool_choice", choice, tools)?;
    Ok(match (names.len(), names.pop()) {
        (1, Some(name)) => ToolChoice { mode: Mode::Named.into(), name, allowed: Vec::new() },
        (_, last) => ToolChoice { mode: Mode::Required.into(), name: String::new(), allowed: names.into_iter().chain(last).collect() },
    })
}

/// The names of the tools that an entry stands for.
fn chosen(field: &str, tool: &Value, tools: &Tools) -> Result<Vec<String>> {
    match tool.get("type").and_then(Value::as_str) {
        Some("function") => Ok(vec![namespaces::told(tool, text(field, tool, "name")?)]),
        Some(kind) if WEB_SEARCH_TYPES.contains(&kind) => Ok(vec![WEB_SEARCH.to_owned()]),
        Some(FILE_SEARCH) if tools.file_search.is_none() => {
            Err(Error::invalid(format!("{field}.type"), "tool_choice names file_search, which is none of the request's tools"))
        }
        Some(FILE_SEARCH) => Ok(vec![FILE_SEARCH.to_owned()]),
        Some("mcp") => {
            let label = text(field, tool, "server_label")?;
            let server = tools.servers.iter().find(|server| server.label == label);
            let no_server =
                || Error::invalid(format!("{field}.server_label"), format!("no mcp tool of this request has the label {label:?}"));
            let server = server.ok_or_else(no_server)?;
            match tool.get("name").and_then(Value::as_str) {
                Some(name) => Ok(vec![name.to_owned()]),
                None if !server.allowed_tools.is_empty() => Ok(server.allowed_tools.clone()),
                None => {
                    let message = format!("all tools of server {label:?} cannot be meant yet; name one, or list its allowed_tools");
                    Err(absent(format!("{field}.name"), message))
                }
            }
        }
        Some(other) => Err(absent(format!("{field}.type"), format!("tools of type {other:?} are not supported yet"))),
        None => Err(Error::invalid(format!("{field}.type"), "a tool needs a type, for example \"function\"")),
    }
}

/// The tools of a configuration as a request would list them, without what is secret. `web_search`: as it was asked for.
pub(crate) fn show(config: &AgentConfig, web_search: Option<Value>) -> Vec<Value> {
    let functions = config.client_tools.iter().map(show_function);
    let servers = config.mcp_servers.iter().map(show_server);
    let search = config.tools.iter().any(|tool| tool == WEB_SEARCH).then(|| web_search.unwrap_or_else(|| json!({ "type": WEB_SEARCH })));
    let own: Vec<&String> = config.tools.iter().filter(|tool| *tool != WEB_SEARCH).collect();
    let asked: Vec<&String> = config.require_approval.iter().filter(|tool| *tool != WEB_SEARCH).collect();
    let approval = if asked.is_empty() { json!("never") } else { json!({ "always": { "tool_names": asked } }) };
    let own =
        (!own.is_empty()).then(|| json!({ "type": "mcp", "server_label": "stack", "allowed_tools": own, "require_approval": approval }));
    let files = config.file_search.as_ref().map(show_file_search);
    functions.chain(servers).chain(files).chain(search).chain(own).collect()
}

fn show_file_search(search: &FileSearch) -> Value {
    json!({
        "type": FILE_SEARCH,
        "vector_store_ids": search.bank_ids.iter().map(|id| store_id(id)).collect::<Vec<_>>(),
        "max_num_results": (search.max_results > 0).then_some(search.max_results),
        "filters": search.filter.as_ref().map(filters::show),
        "ranking_options": ranking::show(search.ranker.as_ref(), search.score_threshold),
    })
}

pub(crate) fn show_function(tool: &ToolDefinition) -> Value {
    json!({
        "type": "function",
        "name": tool.name,
        "description": (!tool.description.is_empty()).then_some(&tool.description),
        "parameters": parsed(&tool.parameters),
        "strict": tool.strict,
    })
}

pub(crate) fn show_server(server: &McpServer) -> Value {
    let given = |text: &String| (!text.is_empty()).then(|| text.clone());
    let approval = server.require_approval.clone().unwrap_or_default();
    let require_approval = match approval.mode() {
        approval::Mode::Unspecified | approval::Mode::Always => json!("always"),
        approval::Mode::Never => json!("never"),
        approval::Mode::ByTool => {
            json!({ "always": { "tool_names": approval.always }, "never": { "tool_names": approval.never } })
        }
    };
    let mut shown = json!({
        "type": "mcp",
        "server_label": server.label,
        "server_description": given(&server.description),
        "allowed_tools": (!server.allowed_tools.is_empty()).then_some(&server.allowed_tools),
        "require_approval": require_approval,
    });
    if server.connector_id.is_empty() {
        shown["server_url"] = server.url.clone().into();
    } else {
        shown["connector_id"] = server.connector_id.clone().into();
    }
    shown
}

pub(crate) fn show_choice(config: &AgentConfig) -> Value {
    let Some(choice) = &config.tool_choice else { return json!("auto") };
    if !choice.allowed.is_empty() {
        let mode = if choice.mode() == Mode::Required { "required" } else { "auto" };
        let tools: Vec<Value> = choice.allowed.iter().map(|name| show_chosen(config, name)).collect();
        return json!({ "type": "allowed_tools", "mode": mode, "tools": tools });
    }
    match choice.mode() {
        Mode::None => json!("none"),
        Mode::Required => json!("required"),
        Mode::Named => show_chosen(config, &choice.name),
        Mode::Auto | Mode::Unspecified => json!("auto"),
    }
}

/// A function, the search tool, or a tool of the server that it most likely is of.
fn show_chosen(config: &AgentConfig, name: &str) -> Value {
    let listed = |server: &&McpServer| server.allowed_tools.iter().any(|tool| tool == name);
    let is_function = config.client_tools.iter().any(|tool| tool.name == name);
    match config.mcp_servers.iter().find(listed).or(config.mcp_servers.first()) {
        _ if is_function => json!({ "type": "function", "name": name }),
        _ if name == WEB_SEARCH && config.tools.iter().any(|tool| tool == name) => json!({ "type": WEB_SEARCH }),
        _ if name == FILE_SEARCH && config.file_search.is_some() => json!({ "type": FILE_SEARCH }),
        Some(server) => json!({ "type": "mcp", "server_label": server.label, "name": name }),
        None => json!({ "type": "function", "name": name }),
    }
}

/// A schema was JSON when it came; an empty one is none.
pub(crate) fn parsed(schema: &str) -> Value {
    serde_json::from_str(schema).unwrap_or(Value::Null)
}
