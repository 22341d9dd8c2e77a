use std::{collections::BTreeMap, path::PathBuf};

use llama_stack_core::{Code, Deps, Error, Result, context::Secret};
use llama_stack_proto::v1::McpServer;
use serde::Deserialize;

use super::{http, stdio};
use crate::timeout;

/// Where the server is, `url` or `command`, and what of it is offered.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Streamable HTTP, for example `https://example.com/mcp`.
    #[serde(default)]
    url: String,
    /// Sent with every request.
    #[serde(default)]
    headers: BTreeMap<String, Secret>,
    /// Sent as `Authorization: Bearer`. Empty: the caller's own key, from `x-llama-stack-provider-key`.
    #[serde(default)]
    authorization: Secret,
    /// A program of this machine that speaks MCP on its standard input and output.
    #[serde(default)]
    command: String,
    #[serde(default)]
    args: Vec<String>,
    /// Its environment, beside `PATH`, `HOME` and the like: nothing else of this process's is passed on.
    #[serde(default)]
    env: BTreeMap<String, Secret>,
    cwd: Option<PathBuf>,
    /// Only these, by the server's names or by those that they have here. Default: all.
    pub(super) allowed_tools: Option<Vec<String>>,
    /// Put before the tools' names.
    #[serde(default)]
    pub(super) prefix: String,
    /// How long a call may take. Default 60.
    #[serde(default = "timeout::default_call")]
    pub(super) timeout_seconds: f64,
    /// How long listing the tools may take, and how long the list is believed where the server does not say that it
    /// changed. Defaults 5 and 30.
    #[serde(default = "timeout::default_list")]
    pub(super) list_timeout_seconds: f64,
    #[serde(default = "timeout::default_list_age")]
    pub(super) list_age_seconds: f64,
}

/// How a session is opened.
#[derive(Clone)]
pub(super) enum Endpoint {
    Http(http::Server),
    Stdio(stdio::Program),
}

impl Config {
    /// There is no way to name a program in a turn.
    pub(super) fn of(server: &McpServer) -> Self {
        Self {
            url: server.url.clone(),
            headers: server.headers.iter().map(|(name, value)| (name.clone(), Secret::new(value))).collect(),
            authorization: Secret::new(&server.authorization),
            command: String::new(),
            args: Vec::new(),
            env: BTreeMap::new(),
            cwd: None,
            allowed_tools: Some(server.allowed_tools.clone()).filter(|tools| !tools.is_empty()),
            prefix: String::new(),
            timeout_seconds: timeout::default_call(),
            list_timeout_seconds: timeout::default_list(),
            list_age_seconds: timeout::default_list_age(),
        }
    }

    /// # Errors
    /// On the field below `config`: `PermissionDenied` for a program at run time · `InvalidArgument` for neither or both of
    /// `url` and `command`, for what belongs to the other of them, and for a URL or header that is none.
    pub(super) fn endpoint(&self, deps: &Deps) -> Result<Endpoint> {
        let of_program = !self.command.is_empty() || !self.args.is_empty() || !self.env.is_empty() || self.cwd.is_some();
        if of_program && deps.at_run_time {
            let message = "only the manifest may name a program to run; a tool group that is registered needs a url";
            return Err(Error::new(Code::PermissionDenied, message).with_field("config.command").with_reason("stdio_not_allowed"));
        }
        match (self.url.is_empty(), self.command.is_empty()) {
            (true, true) => Err(Error::invalid("config.url", "url or command is needed, to know where the server is")),
            (false, false) => Err(Error::invalid("config.command", "url and command exclude each other")),
            (false, true) if of_program => Err(Error::invalid("config.url", "args, env and cwd belong to command, not to url")),
            (false, true) => Ok(Endpoint::Http(http::Server::new(&self.url, &self.headers, &self.authorization, deps)?)),
            (true, false) if !self.headers.is_empty() || !self.authorization.is_empty() => {
                Err(Error::invalid("config.command", "headers and authorization belong to url, not to command"))
            }
            (true, false) => Ok(Endpoint::Stdio(stdio::Program {
                command: self.command.clone(),
                args: self.args.clone(),
                env: self.env.clone(),
                cwd: self.cwd.clone(),
            })),
        }
    }
}
