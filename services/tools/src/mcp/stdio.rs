//! A program of this machine that speaks MCP on its standard input and output.

use std::{collections::BTreeMap, path::PathBuf, process::Stdio};

use llama_stack_core::{Error, Result, context::Secret};
use process_wrap::tokio::{CommandWrap, KillOnDrop, ProcessGroup};
use rmcp::transport::TokioChildProcess;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{ChildStderr, Command},
};

/// What of this process's environment a program gets to see. The rest may hold keys that are not its business.
const PASSED_ON: [&str; 12] =
    ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ", "SSL_CERT_FILE"];
/// Longest line of a program's standard error that is logged whole.
const MAX_LINE: u64 = 4 << 10;

#[derive(Clone)]
pub(super) struct Program {
    pub(super) command: String,
    pub(super) args: Vec<String>,
    pub(super) env: BTreeMap<String, Secret>,
    pub(super) cwd: Option<PathBuf>,
}

impl Program {
    /// Starts it, in a process group of its own: what it starts itself ends with it, and a Ctrl-C for this process is not
    /// one for it.
    ///
    /// # Errors
    /// `Unavailable` where it cannot be started.
    pub(super) fn start(&self) -> Result<(TokioChildProcess, Option<ChildStderr>)> {
        let mut command = Command::new(&self.command);
        command.args(&self.args).env_clear();
        command.envs(PASSED_ON.iter().filter_map(|name| std::env::var_os(name).map(|value| (name, value))));
        command.envs(self.env.iter().map(|(name, value)| (name, value.expose())));
        if let Some(folder) = &self.cwd {
            command.current_dir(folder);
        }
        let mut command = CommandWrap::from(command);
        command.wrap(ProcessGroup::leader()).wrap(KillOnDrop);
        TokioChildProcess::builder(command).stderr(Stdio::piped()).spawn().map_err(|error| {
            let message = format!("the MCP server {:?} could not be started: {error}", self.command);
            Error::unavailable(message).with_reason("upstream_unreachable")
        })
    }
}

/// Logs what a program writes to its standard error, until it ends.
pub(super) async fn log(provider: String, stderr: ChildStderr) {
    let mut lines = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut lines).take(MAX_LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => tracing::debug!(provider, said = %String::from_utf8_lossy(&line).trim_end(), "MCP server"),
        }
    }
}
