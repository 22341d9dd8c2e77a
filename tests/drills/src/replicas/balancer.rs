//! What a load balancer does: it asks each replica whether it is ready, gives requests to those that are, in turn, and gives
//! a request that could not be connected to another.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::{Client, Method, Response};
use serde_json::Value;
use tokio::{task::JoinHandle, time::sleep};

/// Between two questions.
const PERIOD: Duration = Duration::from_millis(25);

#[derive(Default)]
pub(super) struct Balancer {
    replicas: Mutex<Vec<Replica>>,
    turn: AtomicUsize,
    pub(super) http: Client,
    /// Connections that were refused, and whose requests went elsewhere.
    pub(super) refused: AtomicUsize,
}

#[derive(Clone, Copy)]
struct Replica {
    address: SocketAddr,
    ready: bool,
}

/// Asks for as long as it lives.
pub(super) struct Asking(JoinHandle<()>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Balancer {
    pub(super) fn begin(self: &Arc<Self>) -> Asking {
        let balancer = self.clone();
        Asking(tokio::spawn(async move {
            loop {
                let all: Vec<SocketAddr> = balancer.lock().iter().map(|replica| replica.address).collect();
                for address in all {
                    let asked = balancer.http.get(format!("http://{address}/readyz")).timeout(Duration::from_secs(1)).send().await;
                    balancer.note(address, asked.is_ok_and(|answer| answer.status().is_success()));
                }
                sleep(PERIOD).await;
            }
        }))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Replica>> {
        self.replicas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A replica that is ready, as far as its start says.
    pub(super) fn add(&self, address: SocketAddr) {
        self.lock().push(Replica { address, ready: true });
    }

    pub(super) fn remove(&self, address: SocketAddr) {
        self.lock().retain(|replica| replica.address != address);
    }

    fn note(&self, address: SocketAddr, ready: bool) {
        self.lock().iter_mut().filter(|replica| replica.address == address).for_each(|replica| replica.ready = ready);
    }

    async fn choose(&self) -> SocketAddr {
        loop {
            let ready: Vec<SocketAddr> = self.lock().iter().filter(|replica| replica.ready).map(|replica| replica.address).collect();
            if !ready.is_empty() {
                return ready[self.turn.fetch_add(1, Ordering::Relaxed) % ready.len()];
            }
            sleep(PERIOD).await;
        }
    }

    /// # Errors
    /// The connection broke, after it was there.
    pub(super) async fn send(&self, method: Method, path: &str, key: &str, body: Option<&Value>) -> reqwest::Result<Response> {
        loop {
            let address = self.choose().await;
            let mut request = self.http.request(method.clone(), format!("http://{address}{path}"));
            if !key.is_empty() {
                request = request.header("idempotency-key", key);
            }
            if let Some(body) = body {
                request = request.json(body);
            }
            match request.send().await {
                Err(error) if error.is_connect() => {
                    self.refused.fetch_add(1, Ordering::Relaxed);
                    self.note(address, false);
                }
                other => return other,
            }
        }
    }
}
