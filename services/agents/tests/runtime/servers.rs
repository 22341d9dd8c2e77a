//! MCP servers that a turn brings.

use std::sync::{Arc, Mutex};

use llama_stack_agents::Connect;
use llama_stack_core::{Agents as _, Context, Result, Tools};
use llama_stack_proto::v1::{
    Approval, ApprovalDecision, CreateTurnRequest, McpServer, ResumeTurnRequest, ToolListStep, Turn, TurnStatus, approval, step::Step,
    turn_event::Event,
};

use crate::{
    doubles::{
        Hands,
        Say::{Call, Text},
    },
    world::{World, rest, say, tool_results},
};

/// Every address leads to the same tools.
#[derive(Default)]
struct Wire {
    hands: Arc<Hands>,
    connected: Mutex<Vec<McpServer>>,
}

#[async_trait::async_trait]
impl Connect for Wire {
    async fn connect(&self, _: &Context, server: &McpServer) -> Result<Arc<dyn Tools>> {
        self.connected.lock().unwrap().push(server.clone());
        Ok(self.hands.clone())
    }
}

fn with_server(text: &str, change: impl FnOnce(&mut McpServer)) -> CreateTurnRequest {
    let mut request = say(text);
    let mut server = McpServer {
        label: "desk".into(),
        url: "https://desk.example/mcp".into(),
        authorization: "hunter2".into(),
        allowed_tools: vec!["add".into()],
        require_approval: Some(Approval { mode: approval::Mode::Never.into(), ..Approval::default() }),
        ..McpServer::default()
    };
    change(&mut server);
    let config = request.config.as_mut().unwrap();
    (config.mcp_servers, config.tools) = (vec![server], Vec::new());
    request
}

fn lists(turn: &Turn) -> Vec<ToolListStep> {
    turn.steps
        .iter()
        .filter_map(|step| match &step.step {
            Some(Step::ToolList(list)) => Some(list.clone()),
            _ => None,
        })
        .collect()
}

#[tokio::test]
async fn a_server_is_asked_for_its_tools_and_runs_them_and_its_secret_is_kept_nowhere() {
    let wire = Arc::<Wire>::default();
    let world =
        World::changed(vec![vec![Call("a", "add", r#"{"a":2,"b":2}"#)], vec![Text("four")]], |parts| parts.connect = Some(wire.clone()))
            .await;
    let (events, turn) = world.run(with_server("add", |_| ())).await;
    assert_eq!((turn.status(), tool_results(&turn)[0].joined_text().as_str()), (TurnStatus::Completed, "4"));
    assert_eq!((lists(&turn)[0].tools.len(), lists(&turn)[0].retry.as_slice()), (1, &["add".to_owned()][..]));
    assert_eq!((world.script.request(0).tools.last().unwrap().name.as_str(), world.hands.calls(), wire.hands.calls()), ("add", 0, 1));
    let connected = wire.connected.lock().unwrap().clone();
    assert_eq!((connected.len(), connected[0].authorization.as_str()), (1, "hunter2"));
    assert!(!format!("{events:?}{:?}", world.store.journal("acme", &turn.id, 0).await.unwrap()).contains("hunter2"));
}

#[tokio::test]
async fn a_servers_calls_wait_for_approval_unless_it_is_said_that_they_need_not() {
    let wire = Arc::<Wire>::default();
    let world = World::changed(vec![vec![Call("a", "add", r#"{"a":2,"b":2}"#)]], |parts| parts.connect = Some(wire.clone())).await;
    let (events, turn) = world.run(with_server("add", |server| server.require_approval = None)).await;
    assert_eq!((turn.status(), wire.hands.calls()), (TurnStatus::AwaitingTools, 0));
    // Approved, it runs with the authorization that the turn began with.
    let Some(Event::AwaitingTools(awaiting)) = &events.last().unwrap().event else { panic!("{events:?}") };
    let approve = ApprovalDecision { approval_request_id: awaiting.approvals[0].id.clone(), approve: true, reason: String::new() };
    let resume = ResumeTurnRequest { turn_id: turn.id.clone(), decisions: vec![approve], ..ResumeTurnRequest::default() };
    rest(world.runtime.resume_turn(&world.cx, resume).await.unwrap()).await;
    assert_eq!(tool_results(&world.turn(&turn.id).await)[0].joined_text(), "4");
    assert_eq!(wire.connected.lock().unwrap().last().unwrap().authorization, "hunter2");
}

#[tokio::test]
async fn a_tool_that_stands_in_for_another_is_not_offered() {
    let wire = Arc::<Wire>::default();
    let world = World::changed(vec![vec![Text("hm")]], |parts| parts.connect = Some(wire.clone())).await;
    let mut request = with_server("add", |_| ());
    request.config.as_mut().unwrap().tools = vec!["add".into()];
    let (_, turn) = world.run(request).await;
    let error = lists(&turn)[0].error.clone().unwrap();
    assert_eq!((error.reason.as_str(), turn.status(), world.script.request(0).tools.len()), ("tool_shadowed", TurnStatus::Completed, 2));
}

#[tokio::test]
async fn of_two_servers_with_a_tool_of_one_name_the_second_is_not_offered() {
    let wire = Arc::<Wire>::default();
    let world = World::changed(vec![vec![Text("hm")]], |parts| parts.connect = Some(wire.clone())).await;
    let mut request = with_server("add", |_| ());
    let servers = &mut request.config.as_mut().unwrap().mcp_servers;
    servers.push(McpServer { label: "other".into(), ..servers[0].clone() });
    let (_, turn) = world.run(request).await;
    let told: Vec<bool> = lists(&turn).iter().map(|list| list.error.is_some()).collect();
    assert_eq!(told, [false, true], "{:?}", lists(&turn));
}

#[tokio::test]
async fn what_a_server_lacks_is_told_and_the_turn_goes_on() {
    let wire = Arc::<Wire>::default();
    let world = World::changed(vec![vec![Text("hm")]], |parts| parts.connect = Some(wire.clone())).await;
    let (_, turn) = world.run(with_server("fly", |server| server.allowed_tools = vec!["fly".into()])).await;
    assert!(lists(&turn)[0].error.clone().unwrap().message.contains("no tool \"fly\""));
    assert_eq!(turn.status(), TurnStatus::Completed);
    let alone = World::new(vec![]).await;
    let (_, turn) = alone.run(with_server("add", |_| ())).await;
    assert!(lists(&turn)[0].error.clone().unwrap().message.contains("reaches no MCP servers"));
}

#[tokio::test]
async fn crooked_servers_and_stored_secrets_are_refused() {
    let world = World::new(vec![]).await;
    let field = async |request| world.begin(request).await.err().unwrap().field().unwrap_or_default().to_owned();
    assert_eq!(field(with_server("x", |server| server.label = "a b".into())).await, "config.mcp_servers[0].label");
    assert_eq!(field(with_server("x", |server| server.url.clear())).await, "config.mcp_servers[0].url");
    assert_eq!(field(with_server("x", |server| server.url = "file:///etc".into())).await, "config.mcp_servers[0].url");
    let agent = llama_stack_proto::v1::CreateAgentRequest { config: with_server("x", |_| ()).config };
    let error = llama_stack_core::Agents::create_agent(&*world.runtime, &world.cx, agent).await.unwrap_err();
    assert_eq!(error.reason(), Some("secret_not_stored"));
}
