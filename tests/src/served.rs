//! A trait on a free port, and its client.

use std::{sync::Arc, time::Duration};

use llama_stack_core::{
    Agents, Inference, Memory, Safety, Tools,
    grpc::{MAX_MESSAGE_BYTES, Remote, Served, channel},
};
use llama_stack_proto::v1::{
    agents_client::AgentsClient, agents_server::AgentsServer, inference_client::InferenceClient, inference_server::InferenceServer,
    memory_client::MemoryClient, memory_server::MemoryServer, safety_client::SafetyClient, safety_server::SafetyServer,
    tools_client::ToolsClient, tools_server::ToolsServer,
};
use tokio::net::TcpListener;
use tonic::transport::{
    Channel, Server,
    server::{Router, TcpIncoming},
};

/// Ends its server when it is dropped.
pub struct OnSocket<S: ?Sized> {
    pub client: Arc<S>,
    pub url: String,
    server: tokio::task::JoinHandle<()>,
}

impl<S: ?Sized> Drop for OnSocket<S> {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub async fn inference(service: Arc<dyn Inference>) -> OnSocket<dyn Inference> {
    let (url, channel, server) = serve(Server::builder().add_service(InferenceServer::new(Served(service)))).await;
    OnSocket { client: Arc::new(Remote::<InferenceClient<Channel>>::new(channel)), url, server }
}

pub async fn safety(service: Arc<dyn Safety>) -> OnSocket<dyn Safety> {
    let (url, channel, server) = serve(Server::builder().add_service(SafetyServer::new(Served(service)))).await;
    OnSocket { client: Arc::new(Remote::<SafetyClient<Channel>>::new(channel)), url, server }
}

pub async fn tools(service: Arc<dyn Tools>) -> OnSocket<dyn Tools> {
    let (url, channel, server) = serve(Server::builder().add_service(ToolsServer::new(Served(service)))).await;
    OnSocket { client: Arc::new(Remote::<ToolsClient<Channel>>::new(channel)), url, server }
}

pub async fn agents(service: Arc<dyn Agents>) -> OnSocket<dyn Agents> {
    let (url, channel, server) = serve(Server::builder().add_service(AgentsServer::new(Served(service)))).await;
    OnSocket { client: Arc::new(Remote::<AgentsClient<Channel>>::new(channel)), url, server }
}

pub async fn memory(service: Arc<dyn Memory>) -> OnSocket<dyn Memory> {
    // As the stack does.
    let service = MemoryServer::new(Served(service)).max_decoding_message_size(MAX_MESSAGE_BYTES);
    let (url, channel, server) = serve(Server::builder().add_service(service)).await;
    OnSocket { client: Arc::new(Remote::<MemoryClient<Channel>>::new(channel)), url, server }
}

async fn serve(router: Router) -> (String, Channel, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    // As the stack does: else the kernel holds each small answer back for 40 milliseconds.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = tokio::spawn(async move { router.serve_with_incoming(incoming).await.unwrap() });
    let channel = channel(&url, Duration::from_secs(5)).unwrap();
    (url, channel, server)
}
