//! `llama-stack model`: the model files on this machine, and what a running stack says of its models.

mod show;

use llama_stack_core::{Code, Error, Manifest, Result};
use llama_stack_models::{ModelSpec, ModelStore, StoredFile};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    args::{HomeArgs, ModelVerb},
    distribution::{self, Source},
    home::home,
    output::Output,
};

pub(crate) use show::{all, kind};

pub(crate) async fn run(verb: ModelVerb, output: &Output) -> Result<()> {
    match verb {
        ModelVerb::List { server: Some(server), .. } => show::list(&server, output).await,
        ModelVerb::List { server: None, home } => list(&open(home)?, output).await,
        ModelVerb::Pull { model, home } => pull(&open(home)?, &model, output).await,
        ModelVerb::Show { model, server, home } => show::show(&model, &server.server, home, output).await,
        ModelVerb::PromptFormat { model, text, system, tools, server } => {
            show::prompt_format(show::Question { model, text, system, tools }, &server.server, output).await
        }
        ModelVerb::Verify { file, home } => verify(&open(home)?, file.as_deref(), output).await,
        ModelVerb::Remove { file, home } => remove(&open(home)?, &file, output).await,
    }
}

pub(super) fn open(args: HomeArgs) -> Result<ModelStore> {
    ModelStore::open(home(args.home)?.join("models"))
}

/// A file of the store, as `--json` shows it.
#[derive(Serialize)]
struct Listed {
    name: String,
    size: u64,
    sha256: Option<String>,
    path: std::path::PathBuf,
    in_place: bool,
    sources: Vec<String>,
}

impl From<StoredFile> for Listed {
    fn from(file: StoredFile) -> Self {
        let StoredFile { name, size, path, in_place, sources, .. } = file;
        Self { name, size, sha256: file.sha256.map(|hash| hash.as_str().to_owned()), path, in_place, sources }
    }
}

async fn list(store: &ModelStore, output: &Output) -> Result<()> {
    let files: Vec<Listed> = store.list().await?.into_iter().map(Listed::from).collect();
    output.result(&files, |files| {
        if files.is_empty() {
            return "no model files; `llama-stack model pull starter` fetches some\n".into();
        }
        let short = |file: &Listed| file.sha256.as_ref().map_or("unhashed".to_owned(), |hash| hash.chars().take(12).collect());
        files.iter().map(|file| format!("{:<60} {:>10}  {}\n", file.name, size(file.size), short(file))).collect()
    })
}

/// Decimal units, as disks and download pages count.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

#[derive(Serialize)]
struct Pulled {
    id: String,
    dir: std::path::PathBuf,
}

async fn pull(store: &ModelStore, wanted: &str, output: &Output) -> Result<()> {
    let on_progress = output.progress();
    let mut pulled = Vec::new();
    for spec in wanted_specs(wanted)? {
        let resolved = spec.resolve(store, &on_progress).await?;
        pulled.push(Pulled { id: resolved.id, dir: resolved.dir });
    }
    output.result(&pulled, |pulled| pulled.iter().map(|one| format!("{} is in {}\n", one.id, one.dir.display())).collect())
}

/// The models of a manifest, or the one of that id in any built-in distribution.
fn wanted_specs(wanted: &str) -> Result<Vec<ModelSpec>> {
    if let Ok(source) = Source::find(wanted) {
        let specs = specs(&source.manifest()?)?;
        return if specs.is_empty() {
            Err(Error::not_found(format!("{wanted} runs no models in this process: there is nothing to fetch")))
        } else {
            Ok(specs)
        };
    }
    let mut there = Vec::new();
    for manifest in distribution::built_in() {
        for spec in specs(&manifest)? {
            if spec.id == wanted {
                return Ok(vec![spec]);
            }
            there.push(spec.id);
        }
    }
    Err(Error::not_found(format!("no model, distribution or manifest {wanted:?}; models are: {}", there.join(", "))))
}

/// What the in-process providers of a manifest run: they name models alike.
pub(crate) fn specs(manifest: &Manifest) -> Result<Vec<ModelSpec>> {
    let mut specs = Vec::new();
    for (index, provider) in manifest.providers.inference.iter().enumerate().filter(|(_, provider)| provider.kind.starts_with("inline::")) {
        let Some(mut models) = provider.config.get("models").cloned() else { continue };
        if provider.kind == "inline::local" {
            // Which engine runs it is that provider's own.
            for model in models.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
                model.remove("engine");
            }
        }
        let read: Vec<ModelSpec> = serde_json::from_value(models)
            .map_err(|error| manifest.lines.error(&format!("providers.inference[{index}].config.models"), &error.to_string()))?;
        specs.extend(read);
    }
    Ok(specs)
}

async fn verify(store: &ModelStore, file: Option<&str>, output: &Output) -> Result<()> {
    let names: Vec<String> = match file {
        Some(name) => vec![name.to_owned()],
        None => store.list().await?.into_iter().map(|file| file.name).collect(),
    };
    let (mut wrong, on_progress) = (Vec::new(), output.progress_of("reading", "read"));
    for name in &names {
        if let Err(error) = store.verify(name, &on_progress).await {
            if file.is_some() && error.code() == Code::NotFound {
                return Err(error);
            }
            output.note(&format!("{name}: {error}"));
            wrong.push(name.clone());
        }
    }
    output.result(&json!({ "verified": names.len() - wrong.len(), "wrong": wrong }), |_| {
        format!("{} of {} good\n", names.len() - wrong.len(), names.len())
    })?;
    if wrong.is_empty() { Ok(()) } else { Err(Error::new(Code::DataLoss, "files are damaged; remove them and pull again")) }
}

async fn remove(store: &ModelStore, name: &str, output: &Output) -> Result<()> {
    store.remove(name).await?;
    output.result(&json!({ "removed": name }), |_| format!("removed {name}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the program fetches by itself is what it was when its licence was read.
    #[test]
    fn the_models_of_built_in_distributions_have_hashes_and_licences() {
        let specs: Vec<ModelSpec> = distribution::built_in().flat_map(|manifest| specs(&manifest).unwrap()).collect();
        assert!(specs.len() >= 3, "{specs:?}");
        for spec in specs {
            assert!(spec.license.is_some(), "{} has no licence", spec.id);
            for file in &spec.files {
                assert!(file.sha256.is_some() && file.size.is_some(), "{}/{} is not pinned", spec.id, file.name);
            }
        }
    }

    #[test]
    fn an_engine_beside_a_model_is_for_the_provider_that_chooses_one() {
        let read = |kind: &str| {
            let text = format!(
                "version: 1\nname: t\nproviders: {{ inference: [{{ id: l, type: \"{kind}\", config: {{ models: [{{ id: m, path: /m, engine: candle }}] }} }}] }}\n"
            );
            specs(&Manifest::parse(&text, "m.yaml").unwrap())
        };
        assert_eq!(read("inline::local").unwrap()[0].id, "m");
        assert!(read("inline::candle").unwrap_err().message().contains("engine"));
    }
}
