use llama_stack_core::{Agents as _, Code};
use llama_stack_proto::v1::{
    AgentConfig, CreateAgentRequest, CreateSessionRequest, CreateTurnRequest, DeleteAgentRequest, GetAgentRequest, ListAgentsRequest,
    ListSessionsRequest, Message, UpdateAgentRequest,
};

use crate::{
    doubles::Say::Text,
    world::{World, config, said},
};

#[tokio::test]
async fn an_agent_is_kept_changed_listed_and_deleted() {
    let world = World::new(vec![vec![Text("yes")]]).await;
    let (agents, cx) = (&world.runtime, &world.cx);
    let made = agents.create_agent(cx, CreateAgentRequest { config: Some(config()) }).await.unwrap();
    assert_eq!(agents.get_agent(cx, GetAgentRequest { id: made.id.clone() }).await.unwrap(), made);
    let changed = AgentConfig { instructions: "be brief".into(), ..config() };
    let updated = agents.update_agent(cx, UpdateAgentRequest { id: made.id.clone(), config: Some(changed.clone()) }).await.unwrap();
    assert_eq!((updated.config, updated.created), (Some(changed), made.created));
    assert_eq!(agents.list_agents(cx, ListAgentsRequest::default()).await.unwrap().agents.len(), 1);

    let request = CreateSessionRequest { agent_id: made.id.clone(), ..CreateSessionRequest::default() };
    let session = agents.create_session(cx, request).await.unwrap();
    let request = CreateTurnRequest { session_id: session.id.clone(), input: vec![Message::user("sure?")], ..CreateTurnRequest::default() };
    let (_, turn) = world.run(request.clone()).await;
    assert_eq!((said(&turn).as_str(), turn.agent_id.as_str()), ("yes", made.id.as_str()));
    assert_eq!(world.script.request(0).messages[0].joined_text(), "be brief");
    let limits = turn.config.unwrap().limits.unwrap();
    assert_eq!((limits.max_steps, limits.max_seconds), (16, 600), "a turn says what it ran with");

    agents.delete_agent(cx, DeleteAgentRequest { id: made.id.clone() }).await.unwrap();
    assert_eq!(agents.get_agent(cx, GetAgentRequest { id: made.id.clone() }).await.unwrap_err().code(), Code::NotFound);
    let of_agent = ListSessionsRequest { agent_id: made.id, ..ListSessionsRequest::default() };
    assert_eq!(agents.list_sessions(cx, of_agent).await.unwrap().sessions, [session], "its sessions stay readable");
    assert_eq!(world.begin(request).await.err().unwrap().code(), Code::NotFound);
}

#[tokio::test]
async fn an_agent_names_only_what_is_there() {
    let world = World::new(vec![]).await;
    let refused = async |config: AgentConfig| {
        let error = world.runtime.create_agent(&world.cx, CreateAgentRequest { config: Some(config) }).await.unwrap_err();
        (error.code(), error.field().unwrap().to_owned(), error.message().to_owned())
    };
    let (code, field, message) = refused(AgentConfig { model: "gpt-9".into(), ..config() }).await;
    assert!(code == Code::NotFound && field == "config.model" && message.contains("scripted"), "{message}");
    let (code, field, message) = refused(AgentConfig { tools: vec!["fly".into()], ..config() }).await;
    assert!(code == Code::NotFound && field == "config.tools[0]" && message.contains("add"), "{message}");
    let (code, field, _) = refused(AgentConfig { output_shields: vec!["fly".into()], ..config() }).await;
    assert_eq!((code, field.as_str()), (Code::NotFound, "config.output_shields[0]"));
}
