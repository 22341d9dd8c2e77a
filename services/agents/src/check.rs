//! What an agent's configuration must be: the shape first, then what it names must exist.

use std::collections::{HashMap, HashSet};

use llama_stack_core::{
    Context, Error, Result,
    manifest::{AgentLimits, DefaultShields},
};
use llama_stack_proto::v1::{
    AgentConfig, GetModelRequest, GetShieldRequest, Limits, ModelKind, ResponseFormat, SamplingParams, output_moderation,
    response_format::Format, tool_choice::Mode,
};

use crate::{
    arguments,
    conversation::add_missing,
    file_search,
    runtime::{RuntimeParts, Shared},
    toolbox,
};

pub(crate) const MAX_NAME_CHARS: usize = 256;
const MAX_DESCRIPTION_CHARS: usize = 4_096;
const MAX_TOOLS: usize = 128;
const MAX_STEPS: u32 = 256;
/// A day.
const MAX_SECONDS: u32 = 86_400;
const MAX_SHIELDS: usize = 16;
const MAX_WINDOW_TOKENS: u32 = 1_024;
/// How deep agents may call agents, and how deep they do unless it is said.
const MAX_DEPTH: u32 = 8;
const DEPTH: u32 = 3;

/// # Errors
/// `InvalidArgument` for a wrong shape · `NotFound` for a model, tool or shield that is not here, with those that are ·
/// `FailedPrecondition` for shields in a stack without safety.
pub(crate) async fn config(parts: &RuntimeParts, cx: &Context, config: &AgentConfig) -> Result<()> {
    shape(config)?;
    let model = parts.inference.get_model(cx, GetModelRequest { id: config.model.clone() }).await;
    let model = model.map_err(|error| error.with_field("config.model"))?;
    if !matches!(model.kind(), ModelKind::Chat | ModelKind::Unspecified) {
        let message = format!("model {:?} cannot chat: it is {}", config.model, model.kind().as_str_name());
        return Err(Error::invalid("config.model", message).with_reason("wrong_model_kind"));
    }
    tools(parts, cx, config).await?;
    if let Some(search) = &config.file_search {
        file_search::check(parts.memory.as_deref(), cx, search).await?;
    }
    shields(parts, cx, config).await
}

/// A stored agent can have no secrets: they are never written down.
pub(crate) fn no_secrets(config: &AgentConfig) -> Result<()> {
    for (index, server) in config.mcp_servers.iter().enumerate() {
        if !server.authorization.is_empty() || !server.headers.is_empty() {
            let message = "an agent's secrets are not stored: bring them in the configuration of a turn, or name a tool group of \
                           the manifest as connector_id";
            return Err(Error::invalid(format!("config.mcp_servers[{index}].authorization"), message).with_reason("secret_not_stored"));
        }
    }
    Ok(())
}

/// The agents that may be called must be there.
pub(crate) async fn called(shared: &Shared, cx: &Context, config: &AgentConfig) -> Result<()> {
    for (index, tool) in config.agents.iter().enumerate() {
        let found = shared.agent(cx.tenant(), &tool.agent_id).await;
        found.map_err(|error| error.with_field(format!("config.agents[{index}].agent_id")))?;
    }
    let callable = shared.callable(cx, config).await?;
    let taken = config.tools.iter().chain(config.client_tools.iter().map(|tool| &tool.name));
    let search = file_search::offered(config).then_some(file_search::NAME);
    let mut names: HashSet<&str> = taken.map(String::as_str).chain(search).collect();
    for (index, agent) in callable.iter().enumerate() {
        if !names.insert(&agent.name) {
            let message = format!("tool {:?} is named twice: give the agent another name", agent.name);
            return Err(Error::invalid(format!("config.agents[{index}].name"), message).with_reason("duplicate_tool"));
        }
    }
    Ok(())
}

async fn tools(parts: &RuntimeParts, cx: &Context, config: &AgentConfig) -> Result<()> {
    for (index, server) in config.mcp_servers.iter().enumerate().filter(|(_, server)| !server.connector_id.is_empty()) {
        if toolbox::list(parts.tools.as_deref(), cx, &server.connector_id).await?.is_empty() {
            let message = format!("no tool group {:?} in this stack", server.connector_id);
            return Err(Error::not_found(message)
                .with_reason("tool_group_not_found")
                .with_field(format!("config.mcp_servers[{index}].connector_id")));
        }
    }
    if config.tools.is_empty() {
        return Ok(());
    }
    let there = toolbox::list(parts.tools.as_deref(), cx, "").await?;
    let names: Vec<&str> = there.iter().filter_map(|tool| Some(tool.definition.as_ref()?.name.as_str())).collect();
    for (index, name) in config.tools.iter().enumerate() {
        if !names.contains(&name.as_str()) {
            let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            let message = format!("no tool {name:?}; there is: {there}");
            return Err(Error::not_found(message).with_reason("tool_not_found").with_field(format!("config.tools[{index}]")));
        }
    }
    Ok(())
}

/// Every shield that is named must be there: one that is missed at run time would let everything pass, or nothing.
pub(crate) async fn shields(parts: &RuntimeParts, cx: &Context, config: &AgentConfig) -> Result<()> {
    for (field, ids) in shield_lists(config) {
        for (index, id) in ids.iter().enumerate() {
            let field = format!("config.{field}[{index}]");
            let Some(safety) = &parts.safety else {
                let message = format!("shield {id:?} cannot be used: this stack has no safety provider");
                return Err(Error::failed_precondition(message).with_reason("no_safety").with_field(field));
            };
            safety.get_shield(cx, GetShieldRequest { id: id.clone() }).await.map_err(|error| error.with_field(field))?;
        }
    }
    Ok(())
}

/// Each list of shields, with its name.
fn shield_lists(config: &AgentConfig) -> [(&'static str, &Vec<String>); 5] {
    [
        ("input_shields", &config.input_shields),
        ("tool_argument_shields", &config.tool_argument_shields),
        ("tool_result_shields", &config.tool_result_shields),
        ("retrieved_shields", &config.retrieved_shields),
        ("output_shields", &config.output_shields),
    ]
}

/// Whether a configuration names nothing but shields: one that an agent's can be made stricter with.
pub(crate) fn only_shields(config: &AgentConfig) -> bool {
    let rest = AgentConfig {
        input_shields: Vec::new(),
        tool_argument_shields: Vec::new(),
        tool_result_shields: Vec::new(),
        retrieved_shields: Vec::new(),
        output_shields: Vec::new(),
        ..config.clone()
    };
    rest == AgentConfig::default()
}

/// Adds the shields of a request to those of its agent. How answers are shown stays the agent's choice.
pub(crate) fn add_shields(config: &mut AgentConfig, more: AgentConfig) {
    add_missing(&mut config.input_shields, &more.input_shields);
    add_missing(&mut config.tool_argument_shields, &more.tool_argument_shields);
    add_missing(&mut config.tool_result_shields, &more.tool_result_shields);
    add_missing(&mut config.retrieved_shields, &more.retrieved_shields);
    add_missing(&mut config.output_shields, &more.output_shields);
}

/// Adds the shields of every turn. They were looked for when the stack was built.
pub(crate) fn add_defaults(config: &mut AgentConfig, defaults: &DefaultShields) {
    add_missing(&mut config.input_shields, &defaults.input);
    add_missing(&mut config.tool_argument_shields, &defaults.tool_arguments);
    add_missing(&mut config.tool_result_shields, &defaults.tool_results);
    add_missing(&mut config.retrieved_shields, &defaults.retrieved);
    add_missing(&mut config.output_shields, &defaults.output);
}

/// What can be said without asking anyone.
pub(crate) fn shape(config: &AgentConfig) -> Result<()> {
    if config.model.is_empty() {
        return Err(Error::invalid("config.model", "config.model is required: the id of a model"));
    }
    text("config.name", &config.name, MAX_NAME_CHARS)?;
    text("config.description", &config.description, MAX_DESCRIPTION_CHARS)?;
    metadata("config.metadata", &config.metadata)?;
    limits(config.limits.as_ref())?;
    servers(config)?;
    config.file_search.as_ref().map_or(Ok(()), file_search::shape)?;
    tool_names(config)?;
    if config.output_moderation.is_some_and(|moderation| moderation.window_tokens > MAX_WINDOW_TOKENS) {
        let message = format!("config.output_moderation.window_tokens must be at most {MAX_WINDOW_TOKENS}; 0 means 64");
        return Err(Error::invalid("config.output_moderation.window_tokens", message));
    }
    if config.output_moderation.is_some_and(|moderation| output_moderation::Mode::try_from(moderation.mode).is_err()) {
        return Err(Error::invalid("config.output_moderation.mode", "config.output_moderation.mode must be HELD, WINDOWED or AFTER"));
    }
    for (field, ids) in shield_lists(config) {
        let distinct: HashSet<&String> = ids.iter().collect();
        if ids.len() > MAX_SHIELDS || distinct.len() != ids.len() {
            return Err(Error::invalid(format!("config.{field}"), format!("config.{field} must be at most {MAX_SHIELDS} different ids")));
        }
    }
    if config.top_logprobs.is_some_and(|top| top > 20) {
        return Err(Error::invalid("config.top_logprobs", "config.top_logprobs must be 0 to 20"));
    }
    config.sampling.as_ref().map_or(Ok(()), sampling)?;
    config.response_format.as_ref().map_or(Ok(()), response_format)
}

fn limits(limits: Option<&Limits>) -> Result<()> {
    let Some(limits) = limits else { return Ok(()) };
    let bounds = [
        ("max_steps", limits.max_steps, MAX_STEPS),
        ("max_seconds", limits.max_seconds, MAX_SECONDS),
        ("max_depth", limits.max_depth, MAX_DEPTH),
    ];
    for (field, value, max) in bounds {
        if value > max {
            return Err(Error::invalid(format!("config.limits.{field}"), format!("config.limits.{field} must be at most {max}")));
        }
    }
    if !limits.max_cost.is_finite() || limits.max_cost < 0.0 {
        return Err(Error::invalid("config.limits.max_cost", "config.limits.max_cost must be 0 or more"));
    }
    Ok(())
}

fn servers(config: &AgentConfig) -> Result<()> {
    let mut labels = HashSet::new();
    for (index, server) in config.mcp_servers.iter().enumerate() {
        let field = |name: &str| format!("config.mcp_servers[{index}].{name}");
        if !is_name(&server.label) || !labels.insert(&server.label) {
            let message = format!("server {:?}: a label is 1 to 64 of letters, digits, _ and -, and no two are the same", server.label);
            return Err(Error::invalid(field("label"), message));
        }
        if server.url.is_empty() == server.connector_id.is_empty() {
            return Err(Error::invalid(field("url"), format!("server {:?} needs a url or a connector_id, and not both", server.label)));
        }
        if !server.url.is_empty() && !server.url.starts_with("https://") && !server.url.starts_with("http://") {
            return Err(Error::invalid(field("url"), format!("{:?} must begin with https:// or http://", server.url)));
        }
    }
    Ok(())
}

/// Of tools and servers.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
}

fn tool_names(config: &AgentConfig) -> Result<()> {
    let mut seen = HashSet::new();
    let ours = config.tools.iter().enumerate().map(|(index, name)| (format!("config.tools[{index}]"), name));
    let clients = config.client_tools.iter().enumerate().map(|(index, tool)| (format!("config.client_tools[{index}].name"), &tool.name));
    for (field, name) in ours.chain(clients) {
        if !is_name(name) {
            return Err(Error::invalid(field, format!("tool {name:?}: a name is 1 to 64 of letters, digits, _ and -")));
        }
        if !seen.insert(name.as_str()) {
            return Err(Error::invalid(field, format!("tool {name:?} is named twice")).with_reason("duplicate_tool"));
        }
    }
    if file_search::offered(config) && !seen.insert(file_search::NAME) {
        let message = format!("a tool has the name {:?}, which is that of the search over config.file_search", file_search::NAME);
        return Err(Error::invalid("config.file_search", message).with_reason("duplicate_tool"));
    }
    if seen.len() > MAX_TOOLS {
        return Err(Error::invalid("config.tools", format!("an agent has at most {MAX_TOOLS} tools, not {}", seen.len())));
    }
    for (index, tool) in config.client_tools.iter().enumerate() {
        arguments::compile(&tool.parameters).map_err(|why| {
            let message = format!("the parameters of tool {:?} are not a JSON Schema of an object: {why}", tool.name);
            Error::invalid(format!("config.client_tools[{index}].parameters"), message).with_reason("invalid_schema")
        })?;
    }
    // Servers and agents bring tools that are not known here.
    let others = !config.mcp_servers.is_empty() || !config.agents.is_empty();
    let allowed = config.tool_choice.iter().flat_map(|choice| &choice.allowed);
    if let Some(name) = allowed.into_iter().find(|name| !others && !seen.contains(name.as_str())) {
        let message = format!("tool_choice allows {name:?}, which is none of the agent's tools");
        return Err(Error::invalid("config.tool_choice.allowed", message));
    }
    if let Some((index, name)) = config.require_approval.iter().enumerate().find(|(_, name)| !others && !seen.contains(name.as_str())) {
        let message = format!("require_approval names {name:?}, which is none of the agent's tools");
        return Err(Error::invalid(format!("config.require_approval[{index}]"), message));
    }
    match config.tool_choice.as_ref().map(|choice| (choice.mode(), choice.name.as_str())) {
        Some((Mode::Named, name)) if !others && !seen.contains(name) => {
            Err(Error::invalid("config.tool_choice.name", format!("tool_choice names {name:?}, which is none of the agent's tools")))
        }
        Some((Mode::Required, _)) if !others && seen.is_empty() => {
            Err(Error::invalid("config.tool_choice", "tool_choice requires a call, and the agent has no tools"))
        }
        _ => Ok(()),
    }
}

/// The ranges of the contract, so that a turn that cannot run is refused and not begun.
fn sampling(sampling: &SamplingParams) -> Result<()> {
    let ranges = [
        ("temperature", sampling.temperature, 0.0..=2.0),
        ("top_p", sampling.top_p, f32::MIN_POSITIVE..=1.0),
        ("min_p", sampling.min_p, 0.0..=1.0),
        ("frequency_penalty", sampling.frequency_penalty, -2.0..=2.0),
        ("presence_penalty", sampling.presence_penalty, -2.0..=2.0),
        ("repetition_penalty", sampling.repetition_penalty, f32::MIN_POSITIVE..=f32::MAX),
    ];
    for (field, value, range) in ranges {
        if value.is_some_and(|value| !range.contains(&value)) {
            return Err(Error::invalid(format!("config.sampling.{field}"), format!("{field} is out of its range")));
        }
    }
    for (field, value) in [("top_k", sampling.top_k), ("max_tokens", sampling.max_tokens)] {
        if value == Some(0) {
            return Err(Error::invalid(format!("config.sampling.{field}"), format!("{field} must be at least 1")));
        }
    }
    if sampling.stop.len() > 16 || sampling.stop.iter().any(String::is_empty) {
        return Err(Error::invalid("config.sampling.stop", "stop must be at most 16 strings, none of them empty"));
    }
    Ok(())
}

fn response_format(format: &ResponseFormat) -> Result<()> {
    let Some(Format::JsonSchema(format)) = &format.format else { return Ok(()) };
    arguments::compile(&format.schema).map(drop).map_err(|why| {
        let message = format!("the schema of the response format is not a JSON Schema: {why}");
        Error::invalid("config.response_format.json_schema.schema", message).with_reason("invalid_schema")
    })
}

/// At most 16 pairs, keys of 1 to 64 characters, values of at most 512: the OpenAI API's bounds.
pub(crate) fn metadata(field: &str, metadata: &HashMap<String, String>) -> Result<()> {
    if metadata.len() > 16 {
        return Err(Error::invalid(field, format!("{field} holds at most 16 pairs, not {}", metadata.len())));
    }
    for (key, value) in metadata {
        if key.is_empty() || key.chars().count() > 64 {
            return Err(Error::invalid(field, format!("{field}: a key has 1 to 64 characters")));
        }
        text(&format!("{field}.{key}"), value, 512)?;
    }
    Ok(())
}

pub(crate) fn text(field: &str, text: &str, max_chars: usize) -> Result<()> {
    if text.chars().count() > max_chars {
        return Err(Error::invalid(field, format!("{field} has at most {max_chars} characters")));
    }
    Ok(())
}

/// The bounds that a turn runs with: its own, else the stack's, else the contract's.
pub(crate) fn effective(limits: Option<&Limits>, defaults: &AgentLimits) -> Limits {
    let or = |own: u32, stacks: u32, contracts: u32| [own, stacks, contracts].into_iter().find(|value| *value != 0).unwrap_or(contracts);
    let own = limits.copied().unwrap_or_default();
    Limits {
        max_steps: or(own.max_steps, defaults.max_steps, 16).min(MAX_STEPS),
        max_seconds: or(own.max_seconds, defaults.max_seconds, 600).min(MAX_SECONDS),
        max_depth: or(own.max_depth, 0, DEPTH).min(MAX_DEPTH),
        ..own
    }
}

#[cfg(test)]
mod tests {
    use llama_stack_proto::v1::{ToolChoice, ToolDefinition};

    use super::*;

    fn field(change: impl FnOnce(&mut AgentConfig)) -> Option<String> {
        let mut config = AgentConfig { model: "m".into(), tools: vec!["a".into()], ..AgentConfig::default() };
        change(&mut config);
        shape(&config).err().map(|error| error.field().unwrap_or_default().to_owned())
    }

    #[test]
    fn each_wrong_field_is_named() {
        let tool = |name: &str, schema: &str| ToolDefinition::new(name, "", schema);
        assert_eq!(field(|_| ()), None);
        assert_eq!(field(|config| config.model.clear()).unwrap(), "config.model");
        assert_eq!(field(|config| config.tools.push("a".into())).unwrap(), "config.tools[1]");
        assert_eq!(field(|config| config.tools.push("a b".into())).unwrap(), "config.tools[1]");
        assert_eq!(field(|config| config.client_tools.push(tool("a", ""))).unwrap(), "config.client_tools[0].name");
        assert_eq!(field(|config| config.client_tools.push(tool("b", "["))).unwrap(), "config.client_tools[0].parameters");
        assert_eq!(field(|config| config.client_tools.push(tool("b", "[]"))).unwrap(), "config.client_tools[0].parameters");
        let limits = |max_steps, max_seconds| Some(Limits { max_steps, max_seconds, ..Limits::default() });
        assert_eq!(field(|config| config.limits = limits(257, 0)).unwrap(), "config.limits.max_steps");
        assert_eq!(field(|config| config.limits = limits(0, u32::MAX)).unwrap(), "config.limits.max_seconds");
        let choice = ToolChoice { mode: Mode::Named.into(), name: "b".into(), ..ToolChoice::default() };
        assert_eq!(field(|config| config.tool_choice = Some(choice)).unwrap(), "config.tool_choice.name");
        assert_eq!(field(|config| config.top_logprobs = Some(21)).unwrap(), "config.top_logprobs");
        let hot = SamplingParams { temperature: Some(f32::NAN), ..SamplingParams::default() };
        assert_eq!(field(|config| config.sampling = Some(hot)).unwrap(), "config.sampling.temperature");
        assert_eq!(field(|config| config.output_shields = vec!["s".into(), "s".into()]).unwrap(), "config.output_shields");
        let long = "x".repeat(513);
        assert_eq!(field(|config| drop(config.metadata.insert("k".into(), long))).unwrap(), "config.metadata.k");
        assert_eq!(field(|config| config.metadata = (0..17).map(|n| (n.to_string(), String::new())).collect()).unwrap(), "config.metadata");
    }

    #[test]
    fn a_turns_own_bounds_come_before_the_stacks() {
        let stacks = AgentLimits { max_steps: 8, max_seconds: 0 };
        let own = Limits { max_seconds: 5, max_tool_calls: 3, ..Limits::default() };
        assert_eq!(
            effective(Some(&own), &stacks),
            Limits { max_steps: 8, max_seconds: 5, max_tool_calls: 3, max_depth: DEPTH, ..Limits::default() }
        );
        assert_eq!(effective(None, &stacks).max_seconds, 600);
    }
}
