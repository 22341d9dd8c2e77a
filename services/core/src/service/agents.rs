use tonic::transport::Channel;

use llama_stack_proto::v1::{
    Agent, CancelTurnRequest, CompactRequest, CompactResponse, CreateAgentRequest, CreateSessionRequest, CreateTurnRequest,
    DeleteAgentRequest, DeleteAgentResponse, DeleteSessionRequest, DeleteSessionResponse, DeleteTurnRequest, DeleteTurnResponse,
    GetAgentRequest, GetSessionRequest, GetTurnRequest, ListAgentsRequest, ListAgentsResponse, ListSessionsRequest, ListSessionsResponse,
    ListTurnsRequest, ListTurnsResponse, RedactTurnRequest, ResumeTurnRequest, Session, Turn, TurnEvent, UpdateAgentRequest,
    UpdateSessionRequest, WatchTurnRequest, agents_client::AgentsClient, agents_server,
};

use crate::{Context, Error, EventStream, Result, grpc::grpc_service};

/// Sessions, and turns that go on until the model has answered.
#[async_trait::async_trait]
pub trait Agents: Send + Sync + 'static {
    async fn create_agent(&self, _cx: &Context, _request: CreateAgentRequest) -> Result<Agent> {
        Err(Error::unimplemented("CreateAgent"))
    }

    async fn get_agent(&self, _cx: &Context, _request: GetAgentRequest) -> Result<Agent> {
        Err(Error::unimplemented("GetAgent"))
    }

    async fn list_agents(&self, _cx: &Context, _request: ListAgentsRequest) -> Result<ListAgentsResponse> {
        Err(Error::unimplemented("ListAgents"))
    }

    async fn update_agent(&self, _cx: &Context, _request: UpdateAgentRequest) -> Result<Agent> {
        Err(Error::unimplemented("UpdateAgent"))
    }

    async fn delete_agent(&self, _cx: &Context, _request: DeleteAgentRequest) -> Result<DeleteAgentResponse> {
        Err(Error::unimplemented("DeleteAgent"))
    }

    async fn create_session(&self, _cx: &Context, _request: CreateSessionRequest) -> Result<Session> {
        Err(Error::unimplemented("CreateSession"))
    }

    async fn get_session(&self, _cx: &Context, _request: GetSessionRequest) -> Result<Session> {
        Err(Error::unimplemented("GetSession"))
    }

    async fn list_sessions(&self, _cx: &Context, _request: ListSessionsRequest) -> Result<ListSessionsResponse> {
        Err(Error::unimplemented("ListSessions"))
    }

    async fn delete_session(&self, _cx: &Context, _request: DeleteSessionRequest) -> Result<DeleteSessionResponse> {
        Err(Error::unimplemented("DeleteSession"))
    }

    async fn get_turn(&self, _cx: &Context, _request: GetTurnRequest) -> Result<Turn> {
        Err(Error::unimplemented("GetTurn"))
    }

    async fn list_turns(&self, _cx: &Context, _request: ListTurnsRequest) -> Result<ListTurnsResponse> {
        Err(Error::unimplemented("ListTurns"))
    }

    async fn cancel_turn(&self, _cx: &Context, _request: CancelTurnRequest) -> Result<Turn> {
        Err(Error::unimplemented("CancelTurn"))
    }

    async fn delete_turn(&self, _cx: &Context, _request: DeleteTurnRequest) -> Result<DeleteTurnResponse> {
        Err(Error::unimplemented("DeleteTurn"))
    }

    async fn redact_turn(&self, _cx: &Context, _request: RedactTurnRequest) -> Result<Turn> {
        Err(Error::unimplemented("RedactTurn"))
    }

    async fn update_session(&self, _cx: &Context, _request: UpdateSessionRequest) -> Result<Session> {
        Err(Error::unimplemented("UpdateSession"))
    }

    async fn compact(&self, _cx: &Context, _request: CompactRequest) -> Result<CompactResponse> {
        Err(Error::unimplemented("Compact"))
    }

    async fn create_turn(&self, _cx: &Context, _request: CreateTurnRequest) -> Result<EventStream<TurnEvent>> {
        Err(Error::unimplemented("CreateTurn"))
    }

    async fn resume_turn(&self, _cx: &Context, _request: ResumeTurnRequest) -> Result<EventStream<TurnEvent>> {
        Err(Error::unimplemented("ResumeTurn"))
    }

    async fn watch_turn(&self, _cx: &Context, _request: WatchTurnRequest) -> Result<EventStream<TurnEvent>> {
        Err(Error::unimplemented("WatchTurn"))
    }
}

grpc_service!(Agents, agents_server::Agents, AgentsClient<Channel> {
    unary create_agent(CreateAgentRequest) -> Agent;
    unary get_agent(GetAgentRequest) -> Agent;
    unary list_agents(ListAgentsRequest) -> ListAgentsResponse;
    unary update_agent(UpdateAgentRequest) -> Agent;
    unary delete_agent(DeleteAgentRequest) -> DeleteAgentResponse;
    unary create_session(CreateSessionRequest) -> Session;
    unary get_session(GetSessionRequest) -> Session;
    unary list_sessions(ListSessionsRequest) -> ListSessionsResponse;
    unary delete_session(DeleteSessionRequest) -> DeleteSessionResponse;
    unary get_turn(GetTurnRequest) -> Turn;
    unary list_turns(ListTurnsRequest) -> ListTurnsResponse;
    unary cancel_turn(CancelTurnRequest) -> Turn;
    unary delete_turn(DeleteTurnRequest) -> DeleteTurnResponse;
    unary redact_turn(RedactTurnRequest) -> Turn;
    unary update_session(UpdateSessionRequest) -> Session;
    unary compact(CompactRequest) -> CompactResponse;
    stream create_turn(CreateTurnRequest) -> TurnEvent as CreateTurnStream;
    stream resume_turn(ResumeTurnRequest) -> TurnEvent as ResumeTurnStream;
    stream watch_turn(WatchTurnRequest) -> TurnEvent as WatchTurnStream;
});
