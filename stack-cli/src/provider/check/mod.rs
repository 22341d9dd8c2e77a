//! `llama-stack provider check`: asks a provider for what the contract promises, over the wire, and reports what it keeps.
//!
//! ```text
//! URL ── which APIs does it serve? ──> tools · inference · safety · memory ──> Report ─ text, JSON, exit code
//! ```
//!
//! Everything asked is cheap and harmless: tools are called with arguments that they must refuse, models write eight tokens, and
//! the one bank that is made is deleted again.

mod inference;
mod memory;
mod report;
mod safety;
mod tools;

use std::time::Duration;

use llama_stack_core::{Code, Context, Error, Inference, Memory, Result, Safety, Tools, grpc::Remote};
use llama_stack_proto::v1::{
    ListBanksRequest, ListModelsRequest, ListShieldsRequest, ListToolsRequest, inference_client::InferenceClient,
    memory_client::MemoryClient, safety_client::SafetyClient, tools_client::ToolsClient,
};
use tonic::transport::Channel;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use crate::{
    args::{Api, CheckArgs},
    output::Output,
    reach,
};
use report::Report;

const APIS: [Api; 4] = [Api::Inference, Api::Safety, Api::Memory, Api::Tools];

/// The other end, and how long one of its answers may take.
struct Peer {
    channel: Channel,
    limit: Duration,
}

impl Peer {
    /// A call's context: an answer that comes later is none.
    fn cx(&self) -> Context {
        Context::default().with_timeout(self.limit)
    }
}

pub(crate) async fn run(args: CheckArgs, output: &Output) -> Result<()> {
    let peer = Peer { channel: reach::connect(&args.url)?, limit: Duration::from_secs(args.timeout) };
    let served = served(&peer, &args.url).await?;
    let wanted: Vec<Api> = match args.api {
        Some(api) if served.contains(&api) => vec![api],
        Some(api) => {
            let sentence = format!("{} does not serve llama_stack.v1.{}; add that service to its gRPC server", args.url, api.service());
            return Err(Error::new(Code::Unimplemented, sentence));
        }
        None if served.is_empty() => {
            let names: Vec<&str> = APIS.iter().map(|api| api.service()).collect();
            let sentence = format!("{} speaks gRPC and serves none of {} of llama_stack.v1", args.url, names.join(", "));
            return Err(Error::new(Code::Unimplemented, sentence));
        }
        None => served,
    };
    if args.model.is_some() && !wanted.contains(&Api::Inference) {
        return Err(Error::invalid("model", "--model names a model, and only inference has some"));
    }
    let mut report = Report::new(&args.url);
    for api in wanted {
        let _working = output.working(&format!("asking {} of {}", api.name(), args.url));
        report.begin(api);
        health(&peer, api, &mut report).await;
        match api {
            Api::Tools => tools::check(&peer, &mut report).await,
            Api::Inference => inference::check(&peer, args.model.as_deref(), &mut report).await?,
            Api::Safety => safety::check(&peer, &mut report).await,
            Api::Memory => memory::check(&peer, &mut report).await,
        }
    }
    output.result(&report, |report| report.text(output))?;
    match report.broken {
        0 => Ok(()),
        1 => Err(Error::failed_precondition("one promise is broken; what was answered stands beside it")),
        broken => Err(Error::failed_precondition(format!("{broken} promises are broken; what was answered stands beside each"))),
    }
}

/// The APIs whose cheapest question is known there, whatever the answer is.
async fn served(peer: &Peer, url: &str) -> Result<Vec<Api>> {
    let (mut served, channel) = (Vec::new(), &peer.channel);
    for api in APIS {
        let cx = peer.cx();
        let asked = match api {
            Api::Inference => {
                let client = Remote::<InferenceClient<Channel>>::new(channel.clone());
                client.list_models(&cx, ListModelsRequest::default()).await.map(drop)
            }
            Api::Safety => {
                let client = Remote::<SafetyClient<Channel>>::new(channel.clone());
                client.list_shields(&cx, ListShieldsRequest::default()).await.map(drop)
            }
            Api::Memory => {
                let client = Remote::<MemoryClient<Channel>>::new(channel.clone());
                client.list_banks(&cx, ListBanksRequest::default()).await.map(drop)
            }
            Api::Tools => {
                let client = Remote::<ToolsClient<Channel>>::new(channel.clone());
                client.list_tools(&cx, ListToolsRequest::default()).await.map(drop)
            }
        };
        match asked {
            Err(error) if reach::is_nobody(&error) => {
                let sentence = format!("nothing that speaks gRPC answers at {url}; start the provider, or correct the address");
                return Err(Error::unavailable(sentence).with_source(error.to_string()));
            }
            Err(error) if error.code() == Code::Unimplemented => {}
            _ => served.push(api),
        }
    }
    Ok(served)
}

/// Asking for health is usual, and not required of a provider.
async fn health(peer: &Peer, api: Api, report: &mut Report) {
    let promise = "its health service says that it serves";
    let request = HealthCheckRequest { service: format!("llama_stack.v1.{}", api.service()) };
    let mut client = HealthClient::new(peer.channel.clone());
    let mut answer = client.check(peer.cx().request(request)).await;
    if answer.as_ref().is_err_and(|status| status.code() == tonic::Code::NotFound) {
        // It tells of the whole server only.
        answer = client.check(peer.cx().request(HealthCheckRequest::default())).await;
    }
    match answer {
        Ok(answer) if answer.get_ref().status() == ServingStatus::Serving => report.kept(promise),
        Ok(answer) => report.broken(promise, format!("it says {}", answer.get_ref().status().as_str_name())),
        Err(status) if status.code() == tonic::Code::Unimplemented => report.skipped(promise, "it has no grpc.health.v1.Health"),
        Err(status) => report.broken(promise, told(&status.into())),
    }
}

/// The first of these ids that is none, or stands there twice.
fn unclear<'a>(ids: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut seen = std::collections::HashSet::new();
    for id in ids {
        if id.is_empty() {
            return Some("one has no id".into());
        }
        if !seen.insert(id) {
            return Some(format!("{id:?} is listed twice"));
        }
    }
    None
}

/// An error as a report shows it.
fn told(error: &Error) -> String {
    format!("{} {:?}", error.code().name(), error.message())
}

/// What was answered where an error with one of these codes was due.
fn refused<T>(report: &mut Report, promise: &str, answer: Result<T>, codes: &[Code]) {
    let names: Vec<&str> = codes.iter().map(|code| code.name()).collect();
    match answer {
        Err(error) if codes.contains(&error.code()) => report.kept(promise),
        Err(error) if error.code() == Code::Unimplemented => report.skipped(promise, "it does not have that method"),
        Err(error) => report.broken(promise, format!("answered with {}, where {} is due", told(&error), names.join(" or "))),
        Ok(_) => report.broken(promise, format!("answered as if it were right, where {} is due", names.join(" or "))),
    }
}
