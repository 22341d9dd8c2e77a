//! What answers over a socket: the database, and the servers that providers name.

use std::{path::Path, sync::Arc, time::Duration};

use futures::future::{self, BoxFuture};
use llama_stack_core::{Code, Context, Deps, Error, Inference, Manifest, Memory, Result, Safety, Tools, manifest::Provider};
use llama_stack_proto::v1::{ListBanksRequest, ListModelsRequest, ListShieldsRequest, ListToolsRequest};
use llama_stack_server::check_listed;
use llama_stack_store::{Inspected, Sealer, inspect};

use super::Finding;
use crate::registry::registry;

/// How long one server may take to answer.
const PATIENCE: Duration = Duration::from_secs(8);

pub(super) async fn database(manifest: &Manifest, home: &Path) -> Finding {
    let url = manifest.store.url.clone();
    let url = url.unwrap_or_else(|| format!("sqlite://{}", home.join(&manifest.name).join("state.db").display()));
    let kind = if url.starts_with("sqlite") { "SQLite" } else { "Postgres" };
    // Keys that cannot be read are told of by themselves.
    let sealer = manifest.secrets.keys(&manifest.lines).and_then(|keys| Sealer::new(&keys)).ok().flatten();
    let looked = tokio::time::timeout(PATIENCE, inspect(&url, sealer.as_ref())).await;
    let late = |_| Error::new(Code::DeadlineExceeded, format!("{kind} has not answered within {} s", PATIENCE.as_secs()));
    match looked.map_err(late).and_then(|looked| looked) {
        Ok(Inspected::Absent) => Finding::ok("database", format!("{kind}, made at the first start")),
        Ok(Inspected::Empty) => Finding::ok("database", format!("{kind} answers; the first start makes its tables")),
        Ok(Inspected::Current) => Finding::ok("database", format!("{kind} answers, and its tables are up to date")),
        Ok(Inspected::Sealed) => Finding::fail(
            "database",
            format!("{kind} answers, and something in it is sealed with a key that is not here"),
            "name that key, in place of the one there is or under secrets.old_key_files",
        ),
        Ok(Inspected::Behind(count)) => Finding::warn(
            "database",
            format!("{kind} answers; its tables are {count} versions behind"),
            "the next start brings them up to date; keep a copy first, older programs do not read it afterwards",
        ),
        Ok(Inspected::Ahead) => {
            Finding::fail("database", format!("a newer version of this program wrote this {kind} database"), "install that version")
        }
        Err(error) if error.code() == Code::DataLoss => Finding::fail(
            "database",
            error.message(),
            "move its files away; `llama-stack restore` puts a backup in their place, a start a new one",
        ),
        Err(error) if kind == "SQLite" => Finding::fail(
            "database",
            error.message(),
            "give this user the right to write it and the disk room for it, or correct store.url",
        ),
        Err(error) => Finding::fail("database", error.message(), "start the database, or correct store.url"),
    }
}

/// Asks every server that a provider stands for something cheap, all at once.
pub(super) async fn upstreams(manifest: &Manifest, home: &Path, findings: &mut Vec<Finding>) {
    llama_stack_server::install_crypto();
    let mut asked: Vec<BoxFuture<'_, Finding>> = Vec::new();
    for (api, providers) in manifest.providers.by_api() {
        for provider in providers.iter().filter(|provider| provider.kind.starts_with("remote::")) {
            asked.push(Box::pin(upstream(api, provider, manifest, home)));
        }
    }
    if !manifest.telemetry.otlp_endpoint.is_empty() {
        asked.push(Box::pin(collector(&manifest.telemetry.otlp_endpoint)));
    }
    findings.extend(future::join_all(asked).await);
}

/// What a start refuses of shields and tools.
pub(super) async fn providers(manifest: &Manifest, home: &Path, findings: &mut Vec<Finding>) {
    llama_stack_server::install_crypto();
    let Ok(wrong) = tokio::time::timeout(PATIENCE, check_listed(manifest, &registry(), home)).await else {
        // Which one, each is asked for itself.
        let message = "shields and tools could not be compared: a server has not answered in time";
        return findings.push(Finding::warn("providers", message, "start it, and look again"));
    };
    if wrong.is_empty() {
        findings.push(Finding::ok("providers", "no shield and no tool is there twice, and the shields that are named are there"));
    }
    findings.extend(wrong.iter().map(|error| Finding::fail("providers", error.message(), "correct that line")));
}

async fn upstream(api: &str, provider: &Provider, manifest: &Manifest, home: &Path) -> Finding {
    let what = format!("{api} {}", provider.id);
    let place = provider.config.get("url").and_then(|url| url.as_str()).map(|url| format!(" at {url}")).unwrap_or_default();
    let kind = &provider.kind;
    let late = |_| Error::new(Code::DeadlineExceeded, format!("no answer within {} s", PATIENCE.as_secs()));
    let answer = tokio::time::timeout(PATIENCE, probe(api, provider, manifest, home)).await.map_err(late).and_then(|answer| answer);
    match answer {
        Ok(()) => Finding::ok(what, format!("{kind}{place} answers")),
        // Not having the cheap question is no failure.
        Err(error) if error.code() == Code::Unimplemented => Finding::ok(what, format!("{kind}{place} answers")),
        Err(error) => {
            let advice = match error.code() {
                Code::Unauthenticated | Code::PermissionDenied => "check its key",
                Code::InvalidArgument => "correct its config",
                _ => "start it, or correct its url; the stack runs without it, and requests for it fail",
            };
            Finding::warn(what, format!("{kind}{place}: {}", error.message()), advice)
        }
    }
}

async fn probe(api: &str, provider: &Provider, manifest: &Manifest, home: &Path) -> Result<()> {
    let registry = registry();
    let deps = Deps { provider_id: provider.id.clone(), egress: manifest.egress.clone(), ..Deps::new(home) };
    let deps = Deps { folder: home.join(&manifest.name), ..deps };
    let (cx, kind, config) = (Context::system(), provider.kind.as_str(), provider.config.clone());
    match api {
        "inference" => {
            let built: Arc<dyn Inference> = registry.inference.build(kind, config, deps).await?;
            built.list_models(&cx, ListModelsRequest::default()).await.map(drop)
        }
        "safety" => {
            let built: Arc<dyn Safety> = registry.safety.build(kind, config, deps).await?;
            built.list_shields(&cx, ListShieldsRequest::default()).await.map(drop)
        }
        "memory" => {
            let built: Arc<dyn Memory> = registry.memory.build(kind, config, deps).await?;
            built.list_banks(&cx, ListBanksRequest { page_size: 1, ..ListBanksRequest::default() }).await.map(drop)
        }
        _ => {
            let built: Arc<dyn Tools> = registry.tools.build(kind, config, deps).await?;
            built.list_tools(&cx, ListToolsRequest::default()).await.map(drop)
        }
    }
}

/// Whether something listens where traces are sent.
async fn collector(endpoint: &str) -> Finding {
    let address = endpoint.trim_start_matches("http://").trim_start_matches("https://").trim_end_matches('/');
    let answer = tokio::time::timeout(PATIENCE, tokio::net::TcpStream::connect(address)).await;
    if answer.is_ok_and(|answer| answer.is_ok()) {
        return Finding::ok("telemetry", format!("a collector listens at {endpoint}"));
    }
    Finding::warn("telemetry", format!("nothing listens at {endpoint}"), "start the collector, or leave telemetry.otlp_endpoint empty")
}
