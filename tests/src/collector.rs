//! A collector of OpenTelemetry over gRPC that keeps what it is sent, as it came.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    response::IntoResponse,
};
use tokio::{net::TcpListener, task::JoinHandle};

/// Ends when it is dropped.
pub struct Collector {
    pub url: String,
    taken: Arc<Mutex<Vec<u8>>>,
    server: JoinHandle<()>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Collector {
    pub async fn start() -> Self {
        let taken: Arc<Mutex<Vec<u8>>> = Arc::default();
        let router = Router::new().fallback(take).layer(DefaultBodyLimit::disable()).with_state(taken.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, taken, server }
    }

    /// The bodies of all exports until now, one after the other.
    pub fn taken(&self) -> Vec<u8> {
        self.taken.lock().unwrap().clone()
    }
}

/// Whatever it is, it is accepted: an empty message, and the status ahead of it, where it needs no trailer.
async fn take(State(taken): State<Arc<Mutex<Vec<u8>>>>, body: Bytes) -> impl IntoResponse {
    taken.lock().unwrap().extend_from_slice(&body);
    ([("content-type", "application/grpc"), ("grpc-status", "0")], Bytes::from_static(&[0; 5]))
}
