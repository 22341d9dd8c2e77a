//! A trait on a free port, and its client.

use std::{sync::Arc, time::Duration};

use llama_stack_core::{
    Inference, Tools,
    grpc::{Remote, Served, channel},
};
use llama_stack_proto::v1::{
    inference_client::InferenceClient, inference_server::InferenceServer, tools_client::ToolsClient, tools_server::ToolsServer,
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server, server::Router};

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

pub async fn tools(service: Arc<dyn Tools>) -> OnSocket<dyn Tools> {
    let (url, channel, server) = serve(Server::builder().add_service(ToolsServer::new(Served(service)))).await;
    OnSocket { client: Arc::new(Remote::<ToolsClient<Channel>>::new(channel)), url, server }
}

async fn serve(router: Router) -> (String, Channel, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { router.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap() });
    let channel = channel(&url, Duration::from_secs(5)).unwrap();
    (url, channel, server)
}
