//! What is not begun, and what is said then.

use std::{collections::HashMap, sync::Arc};

use llama_stack_core::{Agents, Code, Result};
use llama_stack_proto::v1::{
    AgentConfig, CancelTurnRequest, CreateAgentRequest, CreateSessionRequest, CreateTurnRequest, DeleteAgentRequest, DeleteSessionRequest,
    DeleteTurnRequest, GetAgentRequest, GetSessionRequest, Limits, ListAgentsRequest, ListSessionsRequest, ListTurnsRequest, Message,
    ResumeTurnRequest, SamplingParams, ToolChoice, ToolDefinition, UpdateAgentRequest, WatchTurnRequest, tool_choice::Mode,
};

use super::{config, say, session, somebody, turn};
use crate::scripted::{EMBEDDING_MODEL, MODEL};

pub async fn all(agents: Arc<dyn Agents>) {
    unknown_ids_are_named(agents.clone()).await;
    a_wrong_configuration_is_refused_with_its_field(agents.clone()).await;
    what_is_not_there_is_told_with_what_is(agents.clone()).await;
    a_wrong_request_begins_nothing(agents).await;
}

const NOWHERE: &str = "no-such-id";

/// `NotFound`, with the kind of thing, and the id that was asked for in the sentence.
fn unknown<T>(what: &str, field: Option<&str>, result: Result<T>) {
    let error = result.err().expect("it was found");
    assert_eq!((error.code(), error.reason()), (Code::NotFound, Some(format!("{what}_not_found").as_str())), "{error:?}");
    assert!(error.message().contains(what) && error.message().contains(NOWHERE), "{error}");
    assert_eq!(error.field(), field, "{error:?}");
}

pub async fn unknown_ids_are_named(agents: Arc<dyn Agents>) {
    let (cx, id) = (somebody(), || NOWHERE.to_owned());
    unknown("agent", None, agents.get_agent(&cx, GetAgentRequest { id: id() }).await);
    unknown("agent", None, agents.update_agent(&cx, UpdateAgentRequest { id: id(), config: Some(config()) }).await);
    unknown("agent", None, agents.delete_agent(&cx, DeleteAgentRequest { id: id() }).await);
    let request = CreateSessionRequest { agent_id: id(), ..CreateSessionRequest::default() };
    unknown("agent", Some("agent_id"), agents.create_session(&cx, request).await);
    unknown("session", None, agents.get_session(&cx, GetSessionRequest { id: id() }).await);
    unknown("session", None, agents.delete_session(&cx, DeleteSessionRequest { id: id() }).await);
    let request = ListTurnsRequest { session_id: id(), ..ListTurnsRequest::default() };
    unknown("session", Some("session_id"), agents.list_turns(&cx, request).await);
    let request = CreateTurnRequest { agent_id: id(), config: None, ..say("hello") };
    unknown("agent", Some("agent_id"), agents.create_turn(&cx, request).await);
    let request = CreateTurnRequest { session_id: id(), ..say("hello") };
    unknown("session", Some("session_id"), agents.create_turn(&cx, request).await);
    let request = CreateTurnRequest { parent_turn_id: id(), ..say("hello") };
    unknown("turn", Some("parent_turn_id"), agents.create_turn(&cx, request).await);
    unknown("turn", None, turn(&agents, &cx, NOWHERE).await);
    unknown("turn", None, agents.cancel_turn(&cx, CancelTurnRequest { id: id() }).await);
    unknown("turn", None, agents.resume_turn(&cx, ResumeTurnRequest { turn_id: id(), ..ResumeTurnRequest::default() }).await);
    unknown("turn", None, agents.watch_turn(&cx, WatchTurnRequest { turn_id: id(), after_sequence: 0 }).await);
    unknown("turn", None, agents.delete_turn(&cx, DeleteTurnRequest { id: id() }).await);
}

/// Wherever a configuration is brought: with an agent, in its place, or with a turn.
async fn refused(agents: &Arc<dyn Agents>, config: AgentConfig) -> (Code, String, String) {
    let cx = somebody();
    let kept = agents.create_agent(&cx, CreateAgentRequest { config: Some(super::config()) }).await.unwrap();
    let update = UpdateAgentRequest { id: kept.id.clone(), config: Some(config.clone()) };
    let errors = [
        agents.create_agent(&cx, CreateAgentRequest { config: Some(config.clone()) }).await.unwrap_err(),
        agents.update_agent(&cx, update).await.unwrap_err(),
        agents.create_turn(&cx, CreateTurnRequest { config: Some(config), ..say("hello") }).await.err().expect("it was taken"),
    ];
    let told = errors.map(|error| (error.code(), error.field().unwrap_or_default().to_owned(), error.message().to_owned()));
    assert!(told[0] == told[1] && told[1] == told[2], "{told:?}");
    assert_eq!(agents.list_agents(&cx, ListAgentsRequest::default()).await.unwrap().agents, [kept]);
    assert!(agents.list_sessions(&cx, ListSessionsRequest::default()).await.unwrap().sessions.is_empty());
    let [told, ..] = told;
    told
}

pub async fn a_wrong_configuration_is_refused_with_its_field(agents: Arc<dyn Agents>) {
    let client = |name: &str, schema: &str| vec![ToolDefinition::new(name, "", schema)];
    let limits = |max_steps, max_seconds| Some(Limits { max_steps, max_seconds, ..Limits::default() });
    let sampling = |sampling| AgentConfig { sampling: Some(sampling), ..config() };
    let named = ToolChoice { mode: Mode::Named.into(), name: "fly".into(), ..ToolChoice::default() };
    let long = HashMap::from([("note".to_owned(), "x".repeat(513))]);
    let cases = [
        ("config.model", AgentConfig { model: String::new(), ..config() }),
        ("config.model", AgentConfig { model: EMBEDDING_MODEL.into(), ..config() }),
        ("config.tools[0]", AgentConfig { tools: vec!["a b".into()], ..config() }),
        ("config.tools[1]", AgentConfig { tools: vec!["calculator".into(), "calculator".into()], ..config() }),
        ("config.client_tools[0].name", AgentConfig { client_tools: client("calculator", ""), ..config() }),
        ("config.client_tools[0].parameters", AgentConfig { client_tools: client("ask", "{"), ..config() }),
        ("config.client_tools[0].parameters", AgentConfig { client_tools: client("ask", r#"{"type":"nonsense"}"#), ..config() }),
        ("config.tool_choice.name", AgentConfig { tool_choice: Some(named), ..config() }),
        ("config.limits.max_steps", AgentConfig { limits: limits(257, 0), ..config() }),
        ("config.limits.max_seconds", AgentConfig { limits: limits(0, u32::MAX), ..config() }),
        ("config.sampling.temperature", sampling(SamplingParams { temperature: Some(9.0), ..SamplingParams::default() })),
        ("config.sampling.max_tokens", sampling(SamplingParams { max_tokens: Some(0), ..SamplingParams::default() })),
        ("config.top_logprobs", AgentConfig { top_logprobs: Some(21), ..config() }),
        ("config.metadata.note", AgentConfig { metadata: long, ..config() }),
    ];
    for (field, config) in cases {
        let (code, told, message) = refused(&agents, config).await;
        assert_eq!((code, told.as_str()), (Code::InvalidArgument, field), "{message}");
    }
    let error = agents.create_agent(&somebody(), CreateAgentRequest { config: None }).await.unwrap_err();
    assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some("config")));
}

/// A model and a tool, by name.
pub async fn what_is_not_there_is_told_with_what_is(agents: Arc<dyn Agents>) {
    let (code, field, message) = refused(&agents, AgentConfig { model: "no-such-model".into(), ..config() }).await;
    assert_eq!((code, field.as_str()), (Code::NotFound, "config.model"));
    assert!(message.contains("no-such-model") && message.contains(MODEL), "{message}");
    let tools = vec!["calculator".into(), "no_such_tool".into()];
    let (code, field, message) = refused(&agents, AgentConfig { tools, ..config() }).await;
    assert_eq!((code, field.as_str()), (Code::NotFound, "config.tools[1]"));
    assert!(message.contains("no_such_tool") && message.contains("calculator"), "{message}");
    let (_, field, message) = refused(&agents, AgentConfig { input_shields: vec!["no-such-shield".into()], ..config() }).await;
    assert_eq!(field, "config.input_shields[0]");
    assert!(message.contains("no-such-shield"), "{message}");
}

/// With the field that is wrong; the session stays empty, and free.
pub async fn a_wrong_request_begins_nothing(agents: Arc<dyn Agents>) {
    let cx = somebody();
    let session = session(&agents, &cx).await;
    let agent = agents.create_agent(&cx, CreateAgentRequest { config: Some(config()) }).await.unwrap();
    let many = (0..17).map(|n| (n.to_string(), String::new())).collect();
    let cases = [
        ("agent_id", CreateTurnRequest { config: None, ..say("hello") }),
        ("config", CreateTurnRequest { agent_id: agent.id, ..say("hello") }),
        ("input", CreateTurnRequest { input: vec![], ..say("") }),
        ("input[0].role", CreateTurnRequest { input: vec![Message::default()], ..say("") }),
        ("input[1].parts", CreateTurnRequest { input: vec![Message::user("hello"), Message::tool(vec![])], ..say("") }),
        ("input[0].parts[0].call_id", CreateTurnRequest { input: vec![Message::tool(vec![super::result("call_1", "")])], ..say("") }),
        ("metadata", CreateTurnRequest { metadata: many, ..say("hello") }),
    ];
    for (field, request) in cases {
        let error = agents.create_turn(&cx, CreateTurnRequest { session_id: session.id.clone(), ..request }).await.err().unwrap();
        assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some(field)), "{error:?}");
    }
    assert!(super::turns_of(&agents, &cx, &session).await.is_empty());
    super::run(&agents, &cx, super::say_in(&session, "hello")).await;
    let request = CreateSessionRequest { name: "x".repeat(257), ..CreateSessionRequest::default() };
    assert_eq!(agents.create_session(&cx, request).await.unwrap_err().field(), Some("name"));
}
