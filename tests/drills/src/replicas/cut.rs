//! A network that is cut: one replica runs in a network namespace of its own, as on another host, and its cable is pulled.
//!
//! ```text
//! namespace: replica ── veth ──x── veth ── forwarders ─┬─ Postgres
//!                                                       └─ model          replica, on this host
//! ```

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use llama_stack_test_postgres as postgres;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UnixStream},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use super::{
    Faults, PATIENCE, Size,
    load::output_text,
    model::{MODEL, Paced, counted},
};
use crate::{
    Verdict,
    binary::{Process, Site},
};

/// A namespace with a cable to this host; gone with the value.
struct Namespace {
    name: String,
    cable: String,
}

/// Of the cable's ends: on this host, and in the namespace. A net that is for tests (RFC 2544).
const HERE: Ipv4Addr = Ipv4Addr::new(198, 18, 231, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(198, 18, 231, 2);

impl Namespace {
    /// # Errors
    /// Why this machine cannot: no `ip`, or no right to use it.
    fn new() -> Result<Self, String> {
        let id = std::process::id();
        let space = Self { name: format!("llama-stack-{id}"), cable: format!("lsa{id}") };
        let (name, cable, far) = (&space.name, &space.cable, format!("lsb{id}"));
        ip(&["netns", "add", name])?;
        ip(&["link", "add", cable, "type", "veth", "peer", "name", &far])?;
        ip(&["link", "set", &far, "netns", name])?;
        ip(&["addr", "add", &format!("{HERE}/30"), "dev", cable])?;
        ip(&["link", "set", cable, "up"])?;
        ip(&["-n", name, "addr", "add", &format!("{THERE}/30"), "dev", &far])?;
        ip(&["-n", name, "link", "set", &far, "up"])?;
        ip(&["-n", name, "link", "set", "lo", "up"])?;
        Ok(space)
    }

    fn pull(&self) {
        ip(&["link", "set", &self.cable, "down"]).unwrap();
    }

    fn plug(&self) {
        ip(&["link", "set", &self.cable, "up"]).unwrap();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Where it could not be made, parts of it are not there.
        let _ = ip(&["link", "del", &self.cable]);
        let _ = ip(&["netns", "del", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let said = Command::new("ip").args(arguments).output().map_err(|error| format!("ip: {error}"))?;
    if said.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&said.stderr).trim()))
}

/// Where a forwarder leads.
#[derive(Clone)]
enum To {
    Socket(PathBuf),
    Port(SocketAddr),
}

/// On this host's end of the cable.
async fn forward(to: To) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind((HERE, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let forwarding = tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let to = to.clone();
            tokio::spawn(async move {
                // Either side may go away at any time: that is what the drill is for.
                let _ = match to {
                    To::Socket(path) => match UnixStream::connect(path).await {
                        Ok(mut far) => copy_bidirectional(&mut near, &mut far).await,
                        Err(error) => Err(error),
                    },
                    To::Port(address) => match TcpStream::connect(address).await {
                        Ok(mut far) => copy_bidirectional(&mut near, &mut far).await,
                        Err(error) => Err(error),
                    },
                };
            });
        }
    });
    (address, forwarding)
}

fn manifest(listen: Ipv4Addr, store: &str, model: &str) -> String {
    format!(
        "version: 1\nname: {}\nserver: {{ listen: \"{listen}:0\", auth: {{ trust_headers: true }} }}\nstore: {{ url: \"{store}\" }}\n\
         agents: {{ lease_seconds: 3 }}\nproviders:\n  inference:\n    - {{ id: model, type: remote::grpc, config: {{ url: \"{model}\" }} }}\n",
        super::NAME
    )
}

async fn ready(site: &Site) -> (Process, String) {
    let mut process = site.spawn(&[]);
    let address = timeout(PATIENCE, process.ready()).await.expect("not ready in time").expect("it ended before it was ready");
    (process, format!("http://{address}/v1/responses"))
}

/// `None`, said on standard error, where this machine has no Postgres or no namespaces.
pub(super) async fn run(binary: &Path, size: Size) -> Option<Verdict> {
    let server = postgres::Server::start_or_skip().unwrap()?;
    let space = Namespace::new().inspect_err(|why| eprintln!("skipped: a cut network, no namespaces here: {why}")).ok()?;
    let model = std::sync::Arc::new(Paced::default());
    let served = llama_stack_tests::served::inference(model.clone()).await;
    let store = server.database().unwrap();
    let (database, rest) = store.trim_start_matches("postgres:///").split_once("?host=").unwrap();
    let socket = Path::new(rest.split('&').next().unwrap()).join(".s.PGSQL.5432");
    let (postgres_at, _forwarding) = forward(To::Socket(socket)).await;
    let (model_at, _also) = forward(To::Port(served.url.trim_start_matches("http://").parse().unwrap())).await;

    let near = Site::new(binary, &manifest(Ipv4Addr::LOCALHOST, &store, &served.url));
    let far_store = format!("postgres://postgres@{postgres_at}/{database}");
    let far = Site::within(&space.name, binary, &manifest(THERE, &far_store, &format!("http://{model_at}")));
    let (near_process, near) = ready(&near).await;
    let (far_process, far) = ready(&far).await;

    let faults = Faults::default();
    let http = Client::builder().timeout(Duration::from_secs(30)).build().unwrap();
    let (mut slowest, mut healed, mut beside) = (Duration::ZERO, Duration::ZERO, 0);
    for _ in 0..size.cuts {
        model.shut();
        let begun = post(&http, &far, json!({ "model": MODEL, "input": "gate", "background": true })).await.unwrap();
        let id = begun["id"].as_str().unwrap_or_else(|| panic!("{begun}")).to_owned();
        timeout(PATIENCE, model.asked(1)).await.expect("the turn did not begin");
        space.pull();
        let since = Instant::now();
        timeout(PATIENCE, model.asked(2)).await.expect("nobody took the turn over");
        slowest = slowest.max(since.elapsed());
        model.open();
        let ended = until(&http, &near, &id, PATIENCE).await.unwrap_or_default();
        if output_text(&ended) != "answer 2" {
            faults.add(format!("the replica that is left ended the turn as {ended}"));
        }
        // Whoever is left works on as if nothing had been.
        for words in 1..=20 {
            let body = json!({ "model": MODEL, "input": format!("count {words}") });
            match post(&http, &near, body).await {
                Ok(response) if output_text(&response) == counted(words) => beside += 1,
                other => faults.add(format!("beside the cut a turn of {words} words was {other:?}")),
            }
        }
        space.plug();
        let since = Instant::now();
        match until(&http, &far, &id, PATIENCE).await {
            Some(seen) if output_text(&seen) == "answer 2" => {}
            other => faults.add(format!("the replica that was cut off shows {other:?}")),
        }
        let again = post(&http, &far, json!({ "model": MODEL, "input": "count 3" })).await;
        if again.as_ref().map(output_text) != Ok(counted(3)) {
            faults.add(format!("the replica that was cut off answers {again:?}"));
        }
        healed = healed.max(since.elapsed());
        // What the other wrote stays.
        let kept = until(&http, &near, &id, PATIENCE).await.unwrap_or_default();
        if kept["output"] != ended["output"] {
            faults.add(format!("the turn became {kept}"));
        }
    }
    near_process.kill().await;
    far_process.kill().await;
    let failed = faults.show();
    println!("{:<44} {:>12}", "slowest to be taken over, s (lease 3 s)", format!("{:.1}", slowest.as_secs_f64()));
    println!("{:<44} {:>12}", "slowest to be well after the cut, s", format!("{:.1}", healed.as_secs_f64()));
    Some(Verdict { line: format!("{} cuts, {beside} turns beside them, {failed} faults", size.cuts), holds: failed == 0 })
}

/// # Errors
/// What was wrong, in words.
async fn post(http: &Client, url: &str, body: Value) -> Result<Value, String> {
    let sent = http.post(url).header("x-llama-stack-principal", "drill").json(&body).send().await;
    sent.map_err(|error| format!("{error:?}"))?.json().await.map_err(|error| format!("{error:?}"))
}

/// The turn, once it has ended and the replica says so.
async fn until(http: &Client, url: &str, id: &str, patience: Duration) -> Option<Value> {
    let ended = async {
        loop {
            let sent = http.get(format!("{url}/{id}")).header("x-llama-stack-principal", "drill").send().await;
            if let Ok(answer) = sent
                && answer.status().is_success()
                && let Ok(response) = answer.json::<Value>().await
                && !matches!(response["status"].as_str(), Some("in_progress" | "queued"))
            {
                return response;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(patience, ended).await.ok()
}
