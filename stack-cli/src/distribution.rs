//! Built-in distributions, and manifests in files.

mod diff;
mod import;
mod init;
mod kept;
mod wizard;
mod yaml;

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use llama_stack_core::{Error, Manifest, Result};
use llama_stack_proto::v1::{Provider, ProviderStatus};
use llama_stack_server::{Options, Stack};
use serde::Serialize;

use crate::{args::DistributionVerb, home::home, named, output::Output, registry::registry};

const BUILT_IN: [(&str, &str); 4] = [
    ("starter", include_str!("../../distributions/starter.yaml")),
    ("tiny", include_str!("../../distributions/tiny.yaml")),
    ("remote", include_str!("../../distributions/remote.yaml")),
    ("cluster", include_str!("../../distributions/cluster.yaml")),
];

/// Made from the types that read a manifest, by the tests of the docs.
const SCHEMA: &str = include_str!("../../docs/manifest.schema.json");

/// A manifest's text, and its name for errors.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
}

impl Source {
    /// A file where the name looks like one or is one, else a built-in distribution.
    ///
    /// # Errors
    /// `NotFound`, with the built-in names · `InvalidArgument` it is a folder.
    pub(crate) fn find(name: &str) -> Result<Self> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            return Ok(Self { name: format!("{name}.yaml (built in)"), text: (*text).to_owned() });
        }
        let path = Path::new(name);
        if path.is_file() {
            return Ok(Self { name: name.into(), text: named::text(path)? });
        }
        if path.is_dir() {
            return Err(named::unreadable(path, &ErrorKind::IsADirectory.into()));
        }
        let there: Vec<&str> = BUILT_IN.iter().map(|(name, _)| *name).collect();
        Err(Error::not_found(format!("no distribution and no file {name:?}; built in are: {}", there.join(", "))))
    }

    pub(crate) fn manifest(&self) -> Result<Manifest> {
        Manifest::parse(&self.text, &self.name)
    }
}

/// The text of a built-in distribution; empty where there is none of that name.
fn built_in_text(name: &str) -> &'static str {
    BUILT_IN.iter().find(|(built_in, _)| *built_in == name).map_or("", |(_, text)| text)
}

/// The manifests of all built-in distributions. Those that need a variable which is not set are left out.
pub(crate) fn built_in() -> impl Iterator<Item = Manifest> {
    BUILT_IN.iter().filter_map(|(name, text)| Manifest::parse(text, name).ok())
}

#[derive(Serialize)]
struct Listed {
    name: &'static str,
    description: String,
}

#[derive(Serialize)]
struct Checked {
    name: String,
    providers: Vec<String>,
}

pub(crate) async fn run(verb: DistributionVerb, output: &Output) -> Result<()> {
    match verb {
        DistributionVerb::List => list(output),
        DistributionVerb::Show { distribution } => show(&Source::find(&distribution)?, output),
        DistributionVerb::Schema => output.write(SCHEMA),
        DistributionVerb::Check { distribution, home } => check(&distribution, home, output).await,
        DistributionVerb::Init(args) => init::run(args, output).await,
        DistributionVerb::Diff { a, b, text, exit_code } => diff::run(&a, &b, text, exit_code, output),
        DistributionVerb::Import { file, output: target, force } => import::run(&file, target.as_deref(), force, output),
    }
}

fn list(output: &Output) -> Result<()> {
    let listed: Vec<Listed> = BUILT_IN
        .iter()
        .map(|(name, text)| {
            // The variables that a manifest needs do not matter for its description.
            let manifest = Manifest::parse_with(text, name, &|_| Some("unset".into()))?;
            Ok(Listed { name, description: manifest.description })
        })
        .collect::<Result<_>>()?;
    output.result(&listed, |listed| listed.iter().map(|one| format!("{:<10} {}\n", one.name, one.description)).collect())
}

/// As it is written. `${env.NAME}` stays what it is, in JSON as well.
fn show(source: &Source, output: &Output) -> Result<()> {
    if output.is_json() { output.result(&diff::read(source)?, |_| String::new()) } else { output.write(&source.text) }
}

async fn check(name: &str, named_home: Option<PathBuf>, output: &Output) -> Result<()> {
    let manifest = Source::find(name)?.manifest()?;
    let name = manifest.name.clone();
    let (on_progress, building) = output.progress_within(&format!("{name} is built"));
    let checked = Stack::check(manifest, &registry(), Options { home: home(named_home)?, on_progress }).await;
    building.end();
    let providers = checked?.providers;
    let line = |one: &Provider| match one.status() {
        ProviderStatus::Failing => format!("{}: {} ({}): not answering: {}", one.api, one.id, one.r#type, one.status_message),
        _ => format!("{}: {} ({})", one.api, one.id, one.r#type),
    };
    let checked = Checked { name, providers: providers.iter().map(line).collect() };
    output.result(&checked, |checked| {
        let lines: String = checked.providers.iter().map(|line| format!("  {line}\n")).collect();
        format!("{} is good\n{lines}", checked.name)
    })
}
