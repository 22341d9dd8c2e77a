//! The distribution manifest: what runs, in one file.
//!
//! read → expand `${env.NAME}` and `${env.NAME:=default}` → parse. Unknown keys are refused; every error names file, line and path.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

use crate::{Error, Result};

mod agents;
mod auth;
mod batches;
mod connections;
mod egress;
mod env;
mod files;
mod limits;
mod lines;
mod network;
mod policy;
mod retention;
mod safety;
mod secrets;
mod unsecret;

pub use agents::{
    AgentLimits, Agents, DeclaredAgent, DeclaredAgentTool, DeclaredApproval, DeclaredLimits, DeclaredModeration, DeclaredServer,
    ModerationMode, Price,
};
pub use auth::{AccessPolicy, Attempts, Auth, CertificateName, Claims, Introspection, Jwt, Mtls, Tls};
pub use batches::Batches;
pub use connections::Connections;
pub use egress::{Destination, Egress, Place};
pub use files::{Files, S3};
pub use limits::{Limits, Quota};
pub use lines::Lines;
pub use network::{Network, ProxyHeader};
pub use policy::{DefaultPolicies, Policy};
pub use retention::{OwnRetention, Retention};
pub use safety::{DefaultShields, OnFailure, Safety};
pub use secrets::Secrets;
pub use unsecret::{REMOVED, without_secrets};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Of this format: 1.
    pub version: u32,
    /// 1 to 64 of `[a-z0-9-]`; also the name of the state folder.
    pub name: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub server: Server,
    #[serde(default)]
    pub store: Store,
    #[serde(default)]
    pub files: Files,
    #[serde(default)]
    pub providers: Providers,
    #[serde(default)]
    pub agents: Agents,
    /// Where tools may connect to.
    #[serde(default)]
    pub egress: Egress,
    #[serde(default)]
    pub policy: Policy,
    /// Which shields judge every turn.
    #[serde(default)]
    pub safety: Safety,
    #[serde(default)]
    pub tools: Tools,
    #[serde(default)]
    pub batches: Batches,
    /// How much may be asked, and by whom.
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub telemetry: Telemetry,
    /// How long things are kept.
    #[serde(default)]
    pub retention: Retention,
    /// What kept secrets are sealed with.
    #[serde(default)]
    pub secrets: Secrets,
    /// Where each path stands in the file, for errors that are found later.
    #[serde(skip)]
    pub lines: Lines,
    /// As it was written: before variables were expanded.
    #[serde(skip)]
    pub written: Value,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// `host:port`; port 0 takes a free one.
    pub listen: String,
    /// Largest HTTP body. Default 32 MiB.
    pub max_body_bytes: usize,
    /// How long a shutdown still takes requests while `/readyz` and gRPC's health already say no, so that a load balancer
    /// sends its next ones elsewhere: longer than it takes to notice. Default 0.
    pub drain_notice_seconds: u64,
    /// How long a shutdown waits then for what is under way. Default 30.
    pub drain_seconds: u64,
    /// Origins that browsers may call from; `*` is all. Default: none but the stack's own pages.
    pub cors_origins: Vec<String>,
    /// Names under which a loopback listener is called, beside localhost and loopback addresses; `*` is all. For a proxy on this
    /// machine that sends on the name it was asked under.
    pub hosts: Vec<String>,
    /// Proxies whose word counts on where a request comes from: the last address in `proxy_header` that is none of theirs is the
    /// caller's, in the audit log and for `connections.per_address`. Default: none.
    pub trusted_proxies: Vec<Network>,
    /// The header that they write. Default: `x_forwarded_for`.
    pub proxy_header: ProxyHeader,
    /// Who may call. Without it: everybody who reaches this machine's loopback.
    pub auth: Option<Auth>,
    /// Without it the listener speaks plain HTTP.
    pub tls: Option<Tls>,
    /// What slow and silent peers may take.
    pub connections: Connections,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8321".into(),
            max_body_bytes: 32 << 20,
            drain_notice_seconds: 0,
            drain_seconds: 30,
            cors_origins: Vec::new(),
            hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            proxy_header: ProxyHeader::default(),
            auth: None,
            tls: None,
            connections: Connections::default(),
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// `sqlite://PATH`, `sqlite::memory:` or `postgres://…`. Default: `state.db` in the distribution's folder.
    pub url: Option<String>,
    pub durability: Durability,
}

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Loss of power: synced to disk before it is acknowledged.
    #[default]
    Power,
    /// The end of the process, not of the machine.
    Process,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Providers {
    pub inference: Vec<Provider>,
    pub safety: Vec<Provider>,
    pub memory: Vec<Provider>,
    pub tools: Vec<Provider>,
}

/// One provider: its id, its type, and a configuration that the type defines.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: String,
    #[serde(default)]
    pub config: Value,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tools {
    /// The provider types that callers may register tool groups of while the stack runs. Empty: none.
    pub runtime_types: Vec<String>,
}

impl Default for Tools {
    fn default() -> Self {
        Self { runtime_types: vec!["remote::mcp".into(), "remote::grpc".into()] }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// OTLP over gRPC, for example `http://127.0.0.1:4317`, or `https://` with TLS. Empty: no traces are sent. What the collector wants
    /// in headers is in the variable `OTEL_EXPORTER_OTLP_HEADERS`.
    pub otlp_endpoint: String,
    /// Authorities in PEM that may have signed the collector's certificate, beside those that everybody knows.
    pub otlp_ca: Option<PathBuf>,
    /// Record prompts and answers in traces. Off unless asked for.
    pub capture_content: bool,
    /// How many of each tenant's latest requests are kept in the store to be listed. Default 1,000; 0: none.
    pub requests: usize,
    /// And for how many days. Default 30.
    pub request_days: u32,
    /// Which decisions of policies and shields the audit log keeps. Default all.
    pub audit: Audit,
    /// For how many days. Default 30.
    pub audit_days: u32,
}

/// What is written into the audit log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Audit {
    /// Every decision.
    #[default]
    All,
    /// What was denied, asked about, found or changed.
    Denied,
    /// Nothing.
    None,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            otlp_endpoint: String::new(),
            otlp_ca: None,
            capture_content: false,
            requests: 1_000,
            request_days: 30,
            audit: Audit::default(),
            audit_days: 30,
        }
    }
}

/// YAML as the values that JSON has. `file` is the name for errors.
///
/// # Errors
/// `InvalidArgument`, with the line.
pub fn yaml(text: &str, file: &str) -> Result<Value> {
    let options = serde_saphyr::options! { strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let said = error.to_string();
        // The library speaks to programmers as well.
        let said = said.trim().trim_start_matches("error: ").replace(", set DuplicateKeyPolicy in Options if acceptable", "");
        Error::invalid("manifest", format!("{file}: not valid YAML: {said}"))
    })
}

impl Manifest {
    /// # Errors
    /// `NotFound` for a file that cannot be read; else as [`Manifest::parse`].
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).map_err(|error| Error::not_found(format!("{}: cannot be read: {error}", path.display())))?;
        Self::parse(&text, &path.display().to_string())
    }

    /// `file` is the name for errors.
    ///
    /// # Errors
    /// `InvalidArgument`: `file:line: path: what is wrong`.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        Self::parse_with(text, file, &|name| std::env::var(name).ok())
    }

    /// [`Manifest::parse`] with the variables of `lookup`.
    pub fn parse_with(text: &str, file: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let mut value = yaml(text, file)?;
        if !value.is_object() {
            let sentence = format!("{file}: is no manifest: it must be keys with values, first of all `version: 1` and `name: …`");
            return Err(Error::invalid("manifest", sentence));
        }
        let (lines, written) = (Lines::new(file, text), value.clone());
        env::expand(&mut value, &lines, lookup)?;
        let mut manifest: Manifest = serde_path_to_error::deserialize(value).map_err(|error| {
            let (path, text) = (error_path(&error), error_text(error.inner()));
            lines.error(&path, &text)
        })?;
        (manifest.lines, manifest.written) = (lines, written);
        manifest.validate()?;
        Ok(manifest)
    }

    fn validate(&self) -> Result<()> {
        if self.version != 1 {
            return Err(self.lines.error("version", &format!("is {}; this build reads version 1", self.version)));
        }
        let named = |name: &str| {
            !name.is_empty() && name.len() <= 64 && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        };
        if !named(&self.name) {
            return Err(self.lines.error("name", "must be 1 to 64 of a-z, 0-9 and -"));
        }
        for (api, providers) in self.providers.by_api() {
            let mut seen = HashSet::new();
            for (index, provider) in providers.iter().enumerate() {
                let path = format!("providers.{api}[{index}].id");
                if provider.id.is_empty() || !provider.id.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c)) {
                    return Err(self.lines.error(&path, "must be letters, digits and _ - ."));
                }
                if !seen.insert(&provider.id) {
                    return Err(self.lines.error(&path, &format!("{:?} is taken by an earlier {api} provider", provider.id)));
                }
            }
        }
        if let Some(auth) = &self.server.auth {
            auth.validate(self.server.tls.as_ref(), &self.lines)?;
        }
        for (name, days) in [("request_days", self.telemetry.request_days), ("audit_days", self.telemetry.audit_days)] {
            if !(1..=36_500).contains(&days) {
                return Err(self.lines.error(&format!("telemetry.{name}"), &format!("is {days}; it must be 1 to 36500")));
            }
        }
        if self.telemetry.otlp_ca.is_some() && !self.telemetry.otlp_endpoint.starts_with("https://") {
            return Err(self.lines.error("telemetry.otlp_ca", "is named, and otlp_endpoint is none with https://"));
        }
        self.server.connections.validate(&self.lines)?;
        self.policy.validate(&self.lines)?;
        self.files.validate(&self.lines)?;
        self.agents.validate(&self.lines)?;
        self.batches.validate(&self.lines)?;
        self.limits.validate(&self.lines)?;
        self.retention.validate(&self.lines)?;
        self.safety.validate(&self.lines)
    }
}

impl Providers {
    /// Left to right, as the services may call each other.
    pub fn by_api(&self) -> [(&'static str, &Vec<Provider>); 4] {
        [("inference", &self.inference), ("safety", &self.safety), ("memory", &self.memory), ("tools", &self.tools)]
    }

    /// Ids by API, for lists.
    pub fn ids(&self) -> BTreeMap<&'static str, Vec<&str>> {
        self.by_api().map(|(api, providers)| (api, providers.iter().map(|provider| provider.id.as_str()).collect())).into()
    }
}

/// The path of a deserialization error, the field that is missing or unknown included.
pub(crate) fn error_path(error: &serde_path_to_error::Error<serde_json::Error>) -> String {
    let path = error.path().to_string();
    let mut path = if path == "." { String::new() } else { path };
    if let Some(field) = missing_field(&error.inner().to_string()) {
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(field);
    }
    path
}

/// What is wrong, without what the path says already.
pub(crate) fn error_text(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if missing_field(&text).is_some() { "missing field".into() } else { text }
}

fn missing_field(text: &str) -> Option<&str> {
    text.strip_prefix("missing field `")?.split('`').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str =
        "version: 1\nname: t\nproviders:\n  safety:\n    - id: a\n      type: x\n      config: { key: \"${env.KEY:=none}\" }\n";

    fn parse(text: &str) -> Result<Manifest> {
        Manifest::parse_with(text, "m.yaml", &|name| (name == "SET").then(|| "set: value".to_owned()))
    }

    fn message(text: &str) -> String {
        parse(text).unwrap_err().message().to_owned()
    }

    #[test]
    fn variables_are_values_not_syntax() {
        let manifest = parse(&GOOD.replace("KEY:=none", "SET")).unwrap();
        assert_eq!(manifest.providers.safety[0].config["key"], "set: value");
        assert_eq!(parse(GOOD).unwrap().providers.safety[0].config["key"], "none");
    }

    #[test]
    fn errors_name_file_line_and_path() {
        assert_eq!(
            message(&GOOD.replace("KEY:=none", "NOPE")),
            "m.yaml:7: providers.safety[0].config.key: the environment variable NOPE is not set, and there is no default"
        );
        assert_eq!(message(&GOOD.replace("      type: x\n", "")), "m.yaml:5: providers.safety[0].type: missing field");
        assert!(message(&GOOD.replace("type: x", "typ: x")).starts_with("m.yaml:6: providers.safety[0].typ: unknown field `typ`"));
        let twice = format!("{GOOD}    - {{ id: a, type: y }}\n");
        assert_eq!(
            message(&twice),
            "m.yaml:8: providers.safety[0].id".replace("[0]", "[1]") + ": \"a\" is taken by an earlier safety provider"
        );
        assert!(message("version: 1\nname: t\n  x: [").starts_with("m.yaml: not valid YAML"));
        assert!(!message("version: 1\nname: t\nname: u\n").contains("DuplicateKeyPolicy"));
        for text in ["", "- a\n"] {
            assert!(message(text).contains("is no manifest"), "{text:?}: {}", message(text));
        }
        assert!(message("version: 2\nname: t\n").starts_with("m.yaml:1: version: is 2"));
        let bucket = "version: 1\nname: t\nfiles:\n  s3:\n    bucket: b\n";
        assert!(parse(bucket).is_ok());
        assert!(
            message(&format!("{bucket}    endpoint: http://127.0.0.1:9000\n")).starts_with("m.yaml:6: files.s3.endpoint: is without TLS")
        );
        assert!(parse(&format!("{bucket}    endpoint: http://127.0.0.1:9000\n    allow_http: true\n")).is_ok());
    }
}
