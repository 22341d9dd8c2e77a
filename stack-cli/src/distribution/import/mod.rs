//! `distribution import`: a `run.yaml` of Meta's Llama Stack becomes a manifest; what has no place in one is listed.
//!
//! ```text
//! run.yaml ─ env: references ─ providers: each type's twin ─ tool groups, shields ─> manifest + notes
//! ```

mod env;
mod providers;
#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, Ipv6Addr},
    path::Path,
};

use llama_stack_core::{Error, Manifest, Result, manifest};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{kept, yaml};
use crate::{named, output::Output};

/// Something that did not come over as it was.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Note {
    /// Where it stands in the run.yaml.
    path: String,
    /// False: it is left out; true: it is converted, and something about that should be known.
    converted: bool,
    message: String,
}

/// What a conversion has found so far.
#[derive(Default)]
pub(super) struct Notes(Vec<Note>);

impl Notes {
    fn left_out(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Note { path: path.into(), converted: false, message: message.into() });
    }

    fn changed(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.0.push(Note { path: path.into(), converted: true, message: message.into() });
    }
}

#[derive(Serialize)]
struct Imported {
    manifest: String,
    notes: Vec<Note>,
}

pub(super) fn run(file: &Path, target: Option<&Path>, force: bool, output: &Output) -> Result<()> {
    let text = named::text(file)?;
    let (manifest, notes) = convert(&text, &file.display().to_string())?;
    if let Some(target) = target {
        kept::write(target, &manifest, force)?;
    }
    let imported = Imported { manifest, notes };
    output.result(&imported, |imported| if target.is_some() { String::new() } else { imported.manifest.clone() })?;
    if output.is_json() {
        return Ok(());
    }
    for note in &imported.notes {
        output.note(&format!("{} {}: {}", if note.converted { "note   " } else { "left out" }, note.path, note.message));
    }
    if let Some(target) = target {
        let shown = target.display();
        output.note(&format!("{shown} is written; look at it whole with `llama-stack distribution check {shown}`"));
    }
    Ok(())
}

/// The manifest's text, and what did not come over as it was.
fn convert(text: &str, file: &str) -> Result<(String, Vec<Note>)> {
    let run = manifest::yaml(text, file)?;
    if !run.get("providers").is_some_and(Value::is_object) {
        let sentence = format!("{file} has no `providers:` with a list for each API: is it the run.yaml of a Llama Stack distribution?");
        return Err(Error::invalid("providers", sentence));
    }
    if run.get("providers").and_then(|providers| providers.get("tools")).is_some() && run.get("name").is_some() {
        return Err(Error::invalid("file", format!("{file} is a manifest of this program already; start it with `llama-stack run`")));
    }
    let mut notes = Notes::default();
    let run = env::expand(run, "", &mut notes);
    let mut manifest = Map::new();
    manifest.insert("version".into(), json!(1));
    manifest.insert("name".into(), json!(name(&run, &mut notes)));
    manifest.insert("description".into(), json!(format!("Converted from {}", short(file))));
    server(&run, &mut manifest, &mut notes);
    store(&run, &mut manifest, &mut notes);
    manifest.insert("providers".into(), providers::convert(&run, &mut notes));
    telemetry(&run, &mut manifest, &mut notes);
    leftovers(&run, &mut notes);
    models(&run, &manifest["providers"]["inference"], &mut notes);
    let header = "# Converted from the run.yaml of a Llama Stack distribution by `llama-stack distribution import`.\n";
    let text = format!("{header}{}", yaml::block(&Value::Object(manifest), 0));
    // What is written here must be right whatever was converted; variables count as set.
    Manifest::parse_with(&text, "the converted manifest", &|_| Some("set".into()))?;
    Ok((text, notes.0))
}

fn short(file: &str) -> &str {
    file.rsplit('/').next().unwrap_or(file)
}

fn name(run: &Value, notes: &mut Notes) -> String {
    let had = ["image_name", "distro_name", "distribution_spec"].iter().find_map(|key| run.get(*key).and_then(Value::as_str));
    let had = had.unwrap_or("imported");
    let name: String = had.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(64).collect();
    let name = name.trim_matches('-').to_owned();
    let name = if name.is_empty() { "imported".to_owned() } else { name };
    if name != had {
        notes.changed("image_name", format!("{had:?} is called {name} here: names are a-z, 0-9 and -"));
    }
    name
}

fn server(run: &Value, manifest: &mut Map<String, Value>, notes: &mut Notes) {
    let server = run.get("server").cloned().unwrap_or_default();
    let port = port(&server, notes);
    let had = server.get("host").and_then(Value::as_str).unwrap_or_default();
    let host = env::default_of(had);
    let host = host.trim_matches(['[', ']']);
    let ip: Option<IpAddr> = host.parse().ok();
    // Llama Stack listens for everyone unless it is told otherwise.
    let listened = if ip.is_some_and(|ip| ip.is_unspecified()) || host.is_empty() && !env::is_open(had) {
        let had = if had.contains("${env.") { format!(" whatever {had} says") } else { String::new() };
        notes.changed(
            "server",
            format!("listens on this machine alone{had}; 0.0.0.0 wants a `server.auth` that says who may call, see docs/identity.md"),
        );
        "127.0.0.1".to_owned()
    } else {
        if host.is_empty() {
            notes.changed("server.host", format!("{had} may name this machine alone, or want `server.auth`, see docs/identity.md"));
        } else if host != "localhost" && ip.is_none_or(|ip| !ip.is_loopback()) {
            notes.changed("server.host", "does not start before `server.auth` says who may call, see docs/identity.md");
        }
        let bare = had.trim_matches(['[', ']']);
        if bare.parse::<Ipv6Addr>().is_ok() { format!("[{bare}]") } else { had.to_owned() }
    };
    let mut made = json!({ "listen": format!("{listened}:{port}") });
    if let Some(tls) = tls(&server, notes) {
        made["tls"] = tls;
    }
    manifest.insert("server".into(), made);
    for (key, what) in [
        ("auth", "name who may call under `server.auth`: API keys, tokens of an issuer or certificates, see docs/identity.md"),
        ("quota", "name what each caller may ask under `limits`, see docs/limits.md"),
    ] {
        if server.get(key).is_some_and(|value| !value.is_null()) {
            notes.left_out(format!("server.{key}"), what);
        }
    }
}

/// A number, or a reference to the environment, which stays one.
fn port(server: &Value, notes: &mut Notes) -> String {
    let had = match server.get("port") {
        None | Some(Value::Null) => return "8321".into(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    if env::is_open(&had) || env::default_of(&had).parse::<u16>().is_ok() {
        return had;
    }
    notes.left_out("server.port", format!("{had:?} is no port; 8321 is taken"));
    "8321".into()
}

/// Llama Stack refuses clients without a certificate where it has an authority for them; here that is for `server.auth` to say.
fn tls(server: &Value, notes: &mut Notes) -> Option<Value> {
    let file = |key: &str| server.get(key).and_then(Value::as_str).filter(|file| !file.is_empty());
    let (cert, key, ca) = (file("tls_certfile"), file("tls_keyfile"), file("tls_cafile"));
    let (Some(cert), Some(key)) = (cert, key) else {
        if cert.or(key).or(ca).is_some() {
            notes.left_out("server.tls_certfile", "TLS takes a certificate and its key: `server.tls: { cert: …, key: … }`");
        }
        return None;
    };
    let mut made = json!({ "cert": cert, "key": key });
    if let Some(ca) = ca {
        made["client_ca"] = json!(ca);
        notes.changed(
            "server.tls_cafile",
            "clients are asked for a certificate; add `server.auth: { mtls: {} }` to let nobody in without one",
        );
    }
    Some(made)
}

/// Postgres comes over by its address; every other database was a file that this program cannot read.
fn store(run: &Value, manifest: &mut Map<String, Value>, notes: &mut Notes) {
    let backends = run.get("storage").and_then(|storage| storage.get("backends")).and_then(Value::as_object);
    let backends = backends.into_iter().flatten().map(|(name, value)| (format!("storage.backends.{name}"), value));
    let named = ["metadata_store", "inference_store", "conversations_store"];
    let named = named.into_iter().filter_map(|key| run.get(key).map(|value| (key.to_owned(), value)));
    let (mut url, mut sqlite) = (None, false);
    for (path, value) in backends.chain(named) {
        let kind = value.get("type").and_then(Value::as_str).unwrap_or_default();
        match kind {
            "postgres" | "kv_postgres" | "sql_postgres" if url.is_none() => url = Some(postgres(value)),
            "postgres" | "kv_postgres" | "sql_postgres" => {}
            "sqlite" | "kv_sqlite" | "sql_sqlite" | "" => sqlite = true,
            other => notes.left_out(path, format!("{other} is no database of this program; state is in SQLite or Postgres")),
        }
    }
    match url {
        Some(url) => {
            manifest.insert("store".into(), json!({ "url": url }));
            notes.changed("store", "one Postgres database for all; agents, sessions and files of the old stack are not taken over");
        }
        None if sqlite => {
            notes.changed("store", "state is a new SQLite file; agents, sessions and files of the old stack are not taken over")
        }
        None => {}
    }
}

fn postgres(value: &Value) -> String {
    let part = |key: &str, default: &str| match value.get(key) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => default.to_owned(),
    };
    let (user, password) = (part("user", "postgres"), part("password", ""));
    let password = if password.is_empty() { String::new() } else { format!(":{password}") };
    format!("postgres://{user}{password}@{}:{}/{}", part("host", "localhost"), part("port", "5432"), part("db", "llamastack"))
}

fn telemetry(run: &Value, manifest: &mut Map<String, Value>, notes: &mut Notes) {
    let listed = run["providers"]["telemetry"].as_array().into_iter().flatten();
    let endpoint = listed.filter_map(|one| one["config"]["otel_exporter_otlp_endpoint"].as_str()).find(|endpoint| !endpoint.is_empty());
    if let Some(endpoint) = endpoint {
        manifest.insert("telemetry".into(), json!({ "otlp_endpoint": endpoint }));
        notes.changed("providers.telemetry", "traces are sent over gRPC: the collector's port is most often 4317, not 4318");
    }
}

/// Sections that have no place in a manifest.
fn leftovers(run: &Value, notes: &mut Notes) {
    let resources = run.get("registered_resources").cloned().unwrap_or_default();
    let filled = |key: &str| {
        let list = run.get(key).or_else(|| resources.get(key)).and_then(Value::as_array);
        list.map_or(0, Vec::len)
    };
    for (key, what) in [
        ("vector_dbs", "banks are made by callers, with POST /v1/vector_stores or CreateBank; put the documents in again"),
        ("vector_stores", "banks are made by callers, with POST /v1/vector_stores or CreateBank; put the documents in again"),
        ("datasets", "this program evaluates nothing"),
        ("scoring_fns", "this program evaluates nothing"),
        ("benchmarks", "this program evaluates nothing"),
    ] {
        match filled(key) {
            0 => {}
            count => notes.left_out(key, format!("{count} of them: {what}")),
        }
    }
    if run.get("external_providers_dir").is_some_and(|value| !value.is_null()) {
        notes.left_out("external_providers_dir", "a provider of your own is a gRPC server here: `llama-stack provider new`");
    }
}

/// Names that models have there alone, where their server came over: `converted` is the list of those that did.
fn models(run: &Value, converted: &Value, notes: &mut Notes) {
    let provider = |model: &Value| -> Option<String> {
        let mut there = converted.as_array().into_iter().flatten().filter_map(|one| one["id"].as_str());
        match model["provider_id"].as_str().map(providers::tidy) {
            Some(named) => there.any(|id| id == named).then_some(named),
            // Of the only one, if it is that.
            None => there.next().filter(|_| run["providers"]["inference"].as_array().is_some_and(|all| all.len() == 1)).map(str::to_owned),
        }
    };
    let lists = [("models", &run["models"]), ("registered_resources.models", &run["registered_resources"]["models"])];
    let listed = lists.into_iter().flat_map(|(list, models)| {
        models.as_array().into_iter().flatten().enumerate().map(move |(index, model)| (format!("{list}[{index}].model_id"), model))
    });
    let all: Vec<(String, &Value, String)> = listed.filter_map(|(path, model)| Some((path, model, provider(model)?))).collect();
    for (path, model, server) in &all {
        let Some((_, theirs)) = names(model).filter(|(id, theirs)| id != theirs) else { continue };
        // A list of models is all that a provider offers.
        let entries: Vec<String> = all.iter().filter(|(_, _, of)| of == server).filter_map(|(_, model, _)| entry(model)).collect();
        let message = format!(
            "is called {theirs}, as its server calls it; `models: [{}]` in the config of {server} keeps its name, and {server} then offers \
             what is in that list alone",
            entries.join(", ")
        );
        notes.left_out(path, message);
    }
}

/// What a model is called there, and by its server.
fn names(model: &Value) -> Option<(&str, &str)> {
    let id = model["model_id"].as_str()?;
    Some((id, model["provider_model_id"].as_str().unwrap_or(id)))
}

/// A model in the `models` of `remote::openai`.
fn entry(model: &Value) -> Option<String> {
    let (id, theirs) = names(model)?;
    let upstream = if id == theirs { String::new() } else { format!(", upstream: {theirs:?}") };
    let kind = if model["model_type"] == "embedding" { ", kind: embedding" } else { "" };
    Some(format!("{{ id: {id:?}{upstream}{kind} }}"))
}
