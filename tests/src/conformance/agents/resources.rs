//! Agents and sessions: made, read, changed, listed, deleted, and whose they are.

use std::{collections::HashMap, sync::Arc};

use llama_stack_core::{Agents, Code};
use llama_stack_proto::v1::{
    AgentConfig, CancelTurnRequest, CreateAgentRequest, CreateSessionRequest, CreateTurnRequest, DeleteAgentRequest, DeleteSessionRequest,
    DeleteTurnRequest, GetAgentRequest, GetSessionRequest, ListAgentsRequest, ListSessionsRequest, ListTurnsRequest, ResumeTurnRequest,
    TurnStatus, UpdateAgentRequest, WatchTurnRequest,
};

use super::{
    awaited, begin, code, comes_to_an_end, config, ended, rest, result, run, said, say, say_in, session, somebody, turn, turns_of,
};

pub async fn all(agents: Arc<dyn Agents>) {
    an_agent_is_made_read_changed_and_deleted(agents.clone()).await;
    a_session_is_made_read_and_deleted_with_its_turns(agents.clone()).await;
    a_running_turn_keeps_the_configuration_it_began_with(agents.clone()).await;
    pages_cover_each_list_once_in_its_order(agents.clone()).await;
    another_tenant_finds_nothing(agents).await;
}

/// What is read is what was made; deleted, it is gone, and its sessions stay readable.
pub async fn an_agent_is_made_read_changed_and_deleted(agents: Arc<dyn Agents>) {
    let cx = somebody();
    let made = agents.create_agent(&cx, CreateAgentRequest { config: Some(config()) }).await.unwrap();
    assert_eq!((made.config.as_ref(), made.created), (Some(&config()), made.updated));
    let get = || agents.get_agent(&cx, GetAgentRequest { id: made.id.clone() });
    assert_eq!(get().await.unwrap(), made);

    let brief = AgentConfig { instructions: "be brief".into(), name: "brief".into(), ..config() };
    let changed = agents.update_agent(&cx, UpdateAgentRequest { id: made.id.clone(), config: Some(brief.clone()) }).await.unwrap();
    assert_eq!((&changed.id, &changed.config, changed.created), (&made.id, &Some(brief), made.created));
    assert_eq!(get().await.unwrap(), changed);

    let request = CreateSessionRequest { agent_id: made.id.clone(), ..CreateSessionRequest::default() };
    let session = agents.create_session(&cx, request).await.unwrap();
    let ask = CreateTurnRequest { config: None, ..say_in(&session, "well?") };
    let (_, turn) = run(&agents, &cx, ask.clone()).await;
    assert_eq!((turn.agent_id.as_str(), said(&turn).as_str()), (made.id.as_str(), "you said: well?"));

    agents.delete_agent(&cx, DeleteAgentRequest { id: made.id.clone() }).await.unwrap();
    assert_eq!(code(get().await), Code::NotFound);
    assert!(agents.list_agents(&cx, ListAgentsRequest::default()).await.unwrap().agents.is_empty());
    assert_eq!(agents.get_session(&cx, GetSessionRequest { id: session.id.clone() }).await.unwrap(), session);
    assert_eq!(turns_of(&agents, &cx, &session).await, [turn]);
    assert_eq!(code(agents.create_turn(&cx, ask).await), Code::NotFound);
}

/// Its turns go with it; one that runs ends.
pub async fn a_session_is_made_read_and_deleted_with_its_turns(agents: Arc<dyn Agents>) {
    let cx = somebody();
    let metadata = HashMap::from([("topic".to_owned(), "weather".to_owned())]);
    let request = CreateSessionRequest { agent_id: String::new(), name: "first".into(), metadata: metadata.clone() };
    let made = agents.create_session(&cx, request).await.unwrap();
    assert_eq!((made.name.as_str(), &made.metadata, made.created.is_some()), ("first", &metadata, true));
    let get = || agents.get_session(&cx, GetSessionRequest { id: made.id.clone() });
    assert_eq!(get().await.unwrap(), made);

    let (_, first) = run(&agents, &cx, say_in(&made, "hello")).await;
    let (running, stream) = begin(&agents, &cx, say_in(&made, "forever")).await;
    agents.delete_session(&cx, DeleteSessionRequest { id: made.id.clone() }).await.unwrap();
    // By its end or by its disappearance, whichever the stream is told first.
    comes_to_an_end(stream).await;
    assert_eq!(code(get().await), Code::NotFound);
    for id in [first.id, running] {
        assert_eq!(code(turn(&agents, &cx, &id).await), Code::NotFound);
    }
    assert!(agents.list_sessions(&cx, ListSessionsRequest::default()).await.unwrap().sessions.is_empty());
}

pub async fn a_running_turn_keeps_the_configuration_it_began_with(agents: Arc<dyn Agents>) {
    let cx = somebody();
    let agent = agents.create_agent(&cx, CreateAgentRequest { config: Some(config()) }).await.unwrap();
    let request = CreateTurnRequest { agent_id: agent.id.clone(), config: None, ..say("call ask {}") };
    let (events, waiting) = run(&agents, &cx, request).await;
    let changed = AgentConfig { instructions: "be brief".into(), client_tools: Vec::new(), ..config() };
    agents.update_agent(&cx, UpdateAgentRequest { id: agent.id.clone(), config: Some(changed) }).await.unwrap();
    let results = vec![result(&awaited(&events)[0].id, "Ann")];
    let request = ResumeTurnRequest { turn_id: waiting.id.clone(), results, ..ResumeTurnRequest::default() };
    let gone_on = ended(&rest(agents.resume_turn(&cx, request).await.unwrap()).await);
    assert_eq!((gone_on.status(), &gone_on.config), (TurnStatus::Completed, &waiting.config));
    assert_eq!(gone_on.config.unwrap().instructions, "");
}

/// Agents and sessions newest first, turns oldest first; a list takes its own tokens only.
pub async fn pages_cover_each_list_once_in_its_order(agents: Arc<dyn Agents>) {
    let cx = somebody();
    let agent = agents.create_agent(&cx, CreateAgentRequest { config: Some(config()) }).await.unwrap();
    let (mut made, mut sessions, mut turns) = (vec![agent.id.clone()], Vec::new(), Vec::new());
    for _ in 0..4 {
        made.push(agents.create_agent(&cx, CreateAgentRequest { config: Some(config()) }).await.unwrap().id);
        let request = CreateSessionRequest { agent_id: agent.id.clone(), ..CreateSessionRequest::default() };
        sessions.push(agents.create_session(&cx, request).await.unwrap().id);
    }
    let other = session(&agents, &cx).await;
    for n in 0..5 {
        turns.push(run(&agents, &cx, say_in(&other, &n.to_string())).await.1.id);
    }
    made.reverse();
    sessions.reverse();

    let listed = paged(async |page_token| {
        let page = agents.list_agents(&cx, ListAgentsRequest { page_size: 2, page_token }).await.unwrap();
        (page.agents.into_iter().map(|agent| agent.id).collect(), page.next_page_token)
    });
    assert_eq!(listed.await, made);
    let listed = paged(async |page_token| {
        let request = ListSessionsRequest { agent_id: agent.id.clone(), page_size: 2, page_token };
        let page = agents.list_sessions(&cx, request).await.unwrap();
        (page.sessions.into_iter().map(|session| session.id).collect(), page.next_page_token)
    });
    assert_eq!(listed.await, sessions);
    let listed = paged(async |page_token| {
        let request = ListTurnsRequest { session_id: other.id.clone(), page_size: 2, page_token, ..ListTurnsRequest::default() };
        let page = agents.list_turns(&cx, request).await.unwrap();
        (page.turns.into_iter().map(|turn| turn.id).collect(), page.next_page_token)
    });
    assert_eq!(listed.await, turns);

    let whole = agents.list_sessions(&cx, ListSessionsRequest::default()).await.unwrap().sessions;
    assert_eq!((whole.len(), &whole[0].id), (5, &other.id));
    let page = agents.list_agents(&cx, ListAgentsRequest { page_size: 2, ..ListAgentsRequest::default() }).await.unwrap();
    let crooked = ListSessionsRequest { page_token: page.next_page_token, ..ListSessionsRequest::default() };
    let error = agents.list_sessions(&cx, crooked).await.unwrap_err();
    assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some("page_token")));
}

/// What `page` gives for token after token, from the first to the last: at most two ids each, and the next token.
async fn paged(page: impl AsyncFn(String) -> (Vec<String>, String)) -> Vec<String> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let (ids, next) = page(token).await;
        assert!((1..=2).contains(&ids.len()), "{ids:?}");
        all.extend(ids);
        if next.is_empty() {
            return all;
        }
        token = next;
    }
}

/// By no method: to another tenant it is as if nothing were there, and nothing of it is changed.
pub async fn another_tenant_finds_nothing(agents: Arc<dyn Agents>) {
    let cx = somebody().with_idempotency_key("the same key");
    let agent = agents.create_agent(&cx, CreateAgentRequest { config: Some(config()) }).await.unwrap();
    let request = CreateSessionRequest { agent_id: agent.id.clone(), ..CreateSessionRequest::default() };
    let session = agents.create_session(&cx, request.clone()).await.unwrap();
    let (events, waiting) = run(&agents, &cx, say_in(&session, "call ask {}")).await;

    let other = somebody().with_idempotency_key("the same key");
    let (agent_id, session_id, turn_id) = (agent.id.clone(), session.id.clone(), waiting.id.clone());
    let mine = || CreateTurnRequest { config: None, agent_id: agent_id.clone(), ..say("hello") };
    let update = UpdateAgentRequest { id: agent_id.clone(), config: Some(AgentConfig::default()) };
    let results = vec![result(&awaited(&events)[0].id, "Mallory")];
    let codes = [
        code(agents.get_agent(&other, GetAgentRequest { id: agent_id.clone() }).await),
        code(agents.update_agent(&other, update).await),
        code(agents.delete_agent(&other, DeleteAgentRequest { id: agent_id.clone() }).await),
        code(agents.create_session(&other, request).await),
        code(agents.get_session(&other, GetSessionRequest { id: session_id.clone() }).await),
        code(agents.delete_session(&other, DeleteSessionRequest { id: session_id.clone() }).await),
        code(agents.list_turns(&other, ListTurnsRequest { session_id, ..ListTurnsRequest::default() }).await),
        code(agents.create_turn(&other, say_in(&session, "hello")).await),
        code(agents.create_turn(&other, mine()).await),
        code(agents.create_turn(&other, CreateTurnRequest { parent_turn_id: turn_id.clone(), ..say("hello") }).await),
        code(turn(&agents, &other, &turn_id).await),
        code(agents.cancel_turn(&other, CancelTurnRequest { id: turn_id.clone() }).await),
        code(agents.resume_turn(&other, ResumeTurnRequest { turn_id: turn_id.clone(), results, ..ResumeTurnRequest::default() }).await),
        code(agents.watch_turn(&other, WatchTurnRequest { turn_id: turn_id.clone(), after_sequence: 0 }).await),
        code(agents.delete_turn(&other, DeleteTurnRequest { id: turn_id.clone() }).await),
    ];
    assert_eq!(codes, [Code::NotFound; 15]);
    assert!(agents.list_agents(&other, ListAgentsRequest::default()).await.unwrap().agents.is_empty());
    let of_agent = ListSessionsRequest { agent_id: agent.id.clone(), ..ListSessionsRequest::default() };
    assert!(agents.list_sessions(&other, of_agent).await.unwrap().sessions.is_empty());
    assert!(agents.list_sessions(&other, ListSessionsRequest::default()).await.unwrap().sessions.is_empty());

    // Nor do their keys meet.
    let (_, others) = run(&agents, &other, say("hello")).await;
    assert_ne!(others.id, waiting.id);
    assert_eq!(agents.get_agent(&cx, GetAgentRequest { id: agent.id.clone() }).await.unwrap(), agent);
    assert_eq!(turns_of(&agents, &cx, &session).await, [waiting]);
}
