//! `llama-stack doctor`: looks for what keeps a distribution from running well, and says what to do about it.
//!
//! ```text
//! manifest ─┬─ machine: port, home, disk, memory, clock
//!           ├─ edge: callers, certificates, policies, secrets
//!           ├─ models: files and their hashes
//!           └─ servers: database, what providers list, upstreams
//! ```
//!
//! It looks and changes nothing: no folder is made, no file fetched, no table brought up to date.

mod edge;
mod machine;
mod models;
mod servers;

use llama_stack_core::{Code, Error, Manifest, Result};
use serde::Serialize;

use crate::{
    args::DoctorArgs,
    distribution::Source,
    home::home,
    output::{Output, Tone},
};

/// How a look ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Ok,
    /// It runs, but not as well as it could, or not for long.
    Warn,
    /// It does not run.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    /// What, in a word or two.
    pub(crate) what: String,
    pub(crate) status: Status,
    pub(crate) message: String,
    /// What to do; empty where nothing is.
    pub(crate) advice: String,
}

impl Finding {
    pub(crate) fn ok(what: impl Into<String>, message: impl Into<String>) -> Self {
        Self { what: what.into(), status: Status::Ok, message: message.into(), advice: String::new() }
    }

    pub(crate) fn warn(what: impl Into<String>, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what: what.into(), status: Status::Warn, message: message.into(), advice: advice.into() }
    }

    pub(crate) fn fail(what: impl Into<String>, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { what: what.into(), status: Status::Fail, message: message.into(), advice: advice.into() }
    }
}

#[derive(Serialize)]
struct Report {
    distribution: String,
    home: std::path::PathBuf,
    findings: Vec<Finding>,
    warnings: usize,
    failures: usize,
}

pub(crate) async fn run(args: DoctorArgs, output: &Output) -> Result<()> {
    let home = home(args.home.home)?;
    let source = Source::find(&args.distribution)?;
    let mut findings = Vec::new();
    match source.manifest() {
        Err(error) => findings.push(Finding::fail("manifest", error.message(), "correct that line, or set the variable that it names")),
        Ok(manifest) => {
            findings.push(Finding::ok("manifest", format!("{} can be read", source.name)));
            examine(&manifest, &home, args.deep, output, &mut findings).await;
        }
    }
    findings.push(machine::clock());
    let count = |status: Status| findings.iter().filter(|finding| finding.status == status).count();
    let (warnings, failures) = (count(Status::Warn), count(Status::Fail));
    let report = Report { distribution: args.distribution, home, findings, warnings, failures };
    output.result(&report, |report| text(report, output))?;
    match failures {
        0 => Ok(()),
        1 => Err(Error::new(Code::FailedPrecondition, "one thing is wrong; do what is said below it")),
        failures => Err(Error::new(Code::FailedPrecondition, format!("{failures} things are wrong; do what is said below each"))),
    }
}

async fn examine(manifest: &Manifest, home: &std::path::Path, deep: bool, output: &Output, findings: &mut Vec<Finding>) {
    let _working = output.working("looking at files, database and servers");
    findings.push(machine::port(&manifest.server, home).await);
    edge::look(manifest, findings);
    findings.push(machine::home(home));
    let had = models::look(manifest, home, deep, output, findings).await;
    findings.push(machine::disk(home, had.missing));
    findings.push(machine::memory(had.weights));
    findings.push(servers::database(manifest, home).await);
    servers::providers(manifest, home, findings).await;
    servers::upstreams(manifest, home, findings).await;
}

fn text(report: &Report, output: &Output) -> String {
    let width = report.findings.iter().map(|finding| finding.what.chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for finding in &report.findings {
        let mark = match finding.status {
            Status::Ok => output.paint(Tone::Good, "ok  "),
            Status::Warn => output.paint(Tone::Warning, "warn"),
            Status::Fail => output.paint(Tone::Bad, "fail"),
        };
        text += &format!("{mark}  {:<width$}  {}\n", finding.what, finding.message);
        if !finding.advice.is_empty() {
            text += &format!("      {:<width$}  -> {}\n", "", finding.advice);
        }
    }
    text + &format!(
        "{}: {} looked at, {} to mind, {} wrong\n",
        report.distribution,
        report.findings.len(),
        report.warnings,
        report.failures
    )
}
