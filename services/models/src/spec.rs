//! A local model in a manifest, and the folder that it becomes.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use llama_stack_core::{Error, Result, registry::OnProgress};

use crate::{
    ModelFile, ModelStore,
    disk::{self, blocking},
    gguf, safetensors,
};

/// A model that an engine runs in this process:
///
/// ```yaml
/// id: smollm2-135m-instruct
/// files: [ { name: model.gguf, sha256: …, from: [ "hf://…" ] } ]     # or path: /a/folder, or /a/file.gguf
/// chat_template: file:///a/template.jinja                            # or its text; default: what the files bring
/// context_length: 4096                                               # tokens; default and maximum: the model's own
/// license: Apache-2.0                                                # of its weights
/// options: { … }                                                     # what only its engine knows
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// The id that requests name.
    pub id: String,
    /// Files to have in the model store. Either these or `path`.
    #[serde(default)]
    pub files: Vec<ModelFile>,
    /// A folder (safetensors, `config.json`, `tokenizer.json`) or one `.gguf` file (of a split model, any of its
    /// files), used where it is.
    #[serde(default)]
    pub path: Option<PathBuf>,
    /// Jinja text, or `file:///path` of it, in place of the template that the files bring.
    #[serde(default)]
    pub chat_template: Option<String>,
    /// Tokens. Smaller than the model's own saves memory.
    #[serde(default)]
    pub context_length: Option<u32>,
    /// Under which licence its weights are, as an expression of SPDX: `Apache-2.0`, or `LicenseRef-llama-3.1` for one that SPDX does
    /// not list. Told of the model, whose use does not depend on it. What has other letters than such an expression is an error that
    /// stops the start; whether SPDX lists it is not asked.
    #[serde(default)]
    pub license: Option<String>,
    /// Settings of one engine, read by it with [`ModelSpec::options`].
    #[serde(default)]
    pub options: Map<String, Value>,
}

/// When an engine reads a model's weights. Files are fetched and checked at start in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Load {
    /// From the start, while the stack serves already; early requests wait for it.
    #[default]
    Background,
    /// Before the stack serves.
    Eager,
    /// With the first request.
    Lazy,
}

/// A model whose files are on this disk, whole and plausible.
#[derive(Clone, Debug)]
pub struct Resolved {
    pub id: String,
    /// Holds every file under its proper name.
    pub dir: PathBuf,
    /// Name → path, all below `dir`.
    pub files: BTreeMap<String, PathBuf>,
    /// The header of the model's GGUF file (of the first, if it is split), when it has one.
    pub gguf: Option<gguf::Info>,
    /// The override's text.
    pub chat_template: Option<String>,
    pub context_length: Option<u32>,
    /// As [`ModelSpec::license`].
    pub license: Option<String>,
}

/// Of a licence, in bytes.
const LONGEST_LICENSE: usize = 200;

impl ModelSpec {
    /// Fetches what is missing and checks what is there. Offline and quick when all files were had before.
    ///
    /// # Errors
    /// As [`ModelStore::ensure`] · `InvalidArgument` (`field` below the model) for both or none of `files` and `path`, for a file
    /// that is no GGUF or safetensors in spite of its name, and for an empty template · `NotFound` for a path that is not there ·
    /// `DataLoss` for a truncated file. The message begins with the model's id.
    pub async fn resolve(&self, store: &ModelStore, on_progress: &OnProgress) -> Result<Resolved> {
        self.resolve_inner(store, on_progress).await.map_err(|error| error.context(format_args!("model {:?}", self.id)))
    }

    /// The engine's own settings, read into its own type; defaults for what is not given.
    ///
    /// # Errors
    /// `InvalidArgument` for a wrong type or (where `T` denies it) an unknown key.
    pub fn options<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_value(Value::Object(self.options.clone()))
            .map_err(|error| Error::invalid("options", format!("model {:?}: options: {error}", self.id)))
    }

    async fn resolve_inner(&self, store: &ModelStore, on_progress: &OnProgress) -> Result<Resolved> {
        if let Some(license) = self.license.as_deref().filter(|license| !is_spdx(license)) {
            let message =
                format!("{license:?} is no expression of SPDX, such as Apache-2.0, or LicenseRef-NAME for what SPDX does not list");
            return Err(Error::invalid("license", message));
        }
        let (dir, files) = match (&self.path, self.files.as_slice()) {
            (Some(path), []) => {
                let path = path.clone();
                blocking(move || local(&path)).await?
            }
            (None, [_, ..]) => self.fetched(store, on_progress).await?,
            (Some(_), [_, ..]) => return Err(Error::invalid("path", "`files` or `path`, not both")),
            (None, []) => return Err(Error::invalid("files", "needs `files` or a `path`")),
        };
        let (checked, template) = (files.clone(), self.chat_template.clone());
        let (gguf, chat_template) = blocking(move || Ok((check(&checked)?, template.map(template_text).transpose()?))).await?;
        Ok(Resolved {
            id: self.id.clone(),
            dir,
            files,
            gguf,
            chat_template,
            context_length: self.context_length,
            license: self.license.clone(),
        })
    }

    async fn fetched(&self, store: &ModelStore, on_progress: &OnProgress) -> Result<(PathBuf, BTreeMap<String, PathBuf>)> {
        let mut names = std::collections::HashSet::new();
        if let Some(twice) = self.files.iter().position(|file| !names.insert(&file.name)) {
            let name = self.files[twice].name.as_str();
            return Err(Error::invalid(format!("files[{twice}].name"), format!("{name:?} is the name of an earlier file")));
        }
        let paths = store.ensure_all(&self.id, &self.files, on_progress).await?;
        let paths = self.files.iter().map(|file| file.name.to_string()).zip(paths).collect();
        store.link(&self.id, paths).await
    }
}

/// By its letters: whether SPDX lists the licence is not asked.
fn is_spdx(license: &str) -> bool {
    let letters = |letter: char| letter.is_ascii_alphanumeric() || "-.+:() ".contains(letter);
    license.len() <= LONGEST_LICENSE
        && license.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '(')
        && license.chars().all(letters)
}

impl Resolved {
    /// # Errors
    /// `InvalidArgument` that lists the files there are.
    pub fn file(&self, name: &str) -> Result<&Path> {
        self.files.get(name).map(PathBuf::as_path).ok_or_else(|| {
            let there: Vec<&str> = self.files.keys().map(String::as_str).collect();
            Error::invalid("files", format!("model {:?} needs a file {name:?}; it has: {}", self.id, there.join(", ")))
        })
    }

    /// Paths of the files with this ending (without dot), sorted by name: the parts of a split model are in order.
    pub fn with_extension(&self, extension: &str) -> Vec<&Path> {
        let ending = format!(".{extension}");
        self.files.iter().filter(|(name, _)| name.ends_with(&ending)).map(|(_, path)| path.as_path()).collect()
    }
}

/// The files of a folder (and of its folders, one level down), or the one file, with the other parts where it is one of a
/// split model.
fn local(path: &Path) -> Result<(PathBuf, BTreeMap<String, PathBuf>)> {
    let wrong = |cause| disk::error(path, cause).with_field("path");
    let mut files = BTreeMap::new();
    if path.metadata().map_err(wrong)?.is_file() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let dir = path.parent().unwrap_or(Path::new("/")).to_owned();
        files.extend(parts(&name).map(|name| (name.clone(), dir.join(name))).filter(|(_, path)| path.is_file()));
        files.insert(name, path.to_owned());
        return Ok((dir, files));
    }
    collect(path, "", &mut files).map_err(wrong)?;
    if files.is_empty() {
        return Err(Error::not_found(format!("{}: the folder is empty", path.display())).with_field("path"));
    }
    Ok((path.to_owned(), files))
}

/// The names of all files that a split model has, by the name of one: `NAME-00001-of-00003.gguf`.
fn parts(name: &str) -> impl Iterator<Item = String> {
    let split = || {
        let (numbered, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
        Some((numbered.rsplit_once('-')?.0, count.parse::<u16>().ok().filter(|_| count.len() == 5)?))
    };
    let (stem, count) = split().unwrap_or_default();
    (1..=count).map(move |number| format!("{stem}-{number:05}-of-{count:05}.gguf"))
}

fn collect(dir: &Path, prefix: &str, files: &mut BTreeMap<String, PathBuf>) -> std::io::Result<()> {
    for entry in dir.read_dir()? {
        let path = entry?.path();
        let name = format!("{prefix}{}", path.file_name().unwrap_or_default().to_string_lossy());
        // Through symbolic links: hub caches are made of them.
        match path.metadata() {
            Ok(meta) if meta.is_file() => drop(files.insert(name, path)),
            Ok(meta) if meta.is_dir() && prefix.is_empty() => collect(&path, &format!("{name}/"), files)?,
            _ => {}
        }
    }
    Ok(())
}

fn template_text(template: String) -> Result<String> {
    let text = match template.strip_prefix("file://") {
        Some(path) => {
            let path = Path::new(path);
            std::fs::read_to_string(path).map_err(|cause| disk::error(path, cause).context("chat_template").with_field("chat_template"))?
        }
        None => template,
    };
    if text.trim().is_empty() {
        return Err(Error::invalid("chat_template", "chat_template: is empty"));
    }
    Ok(text)
}

/// Looks at headers and lengths, not at weights.
fn check(files: &BTreeMap<String, PathBuf>) -> Result<Option<gguf::Info>> {
    let (mut first, mut parts) = (None::<gguf::Info>, 0);
    for (name, path) in files {
        let named = |error: Error| error.context(name);
        if name.ends_with(".gguf") {
            let info = gguf::inspect(path).map_err(named)?;
            parts += 1;
            match &mut first {
                Some(first) => first.scaled_positions |= info.scaled_positions,
                None => first = Some(info),
            }
        } else if name.ends_with(".safetensors") {
            safetensors::inspect(path).map_err(named)?;
        }
    }
    match first.as_ref().map_or(0, |first| first.parts) {
        wanted if wanted > parts => {
            let message = format!("the model is split into {wanted} files, and {parts} of them are there");
            Err(Error::invalid("files", message).with_reason("model_file_missing"))
        }
        _ => Ok(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_licence_is_an_expression_of_spdx() {
        for license in ["Apache-2.0", "MIT OR Apache-2.0", "(MIT AND BSD-3-Clause)", "LicenseRef-llama-3.1", "GPL-2.0+"] {
            assert!(is_spdx(license), "{license}");
        }
        for none in ["", " MIT", "see <https://x.org>", "MIT\n", &"A".repeat(LONGEST_LICENSE + 1)] {
            assert!(!is_spdx(none), "{none:?}");
        }
    }

    #[tokio::test]
    async fn a_licence_that_is_none_is_named() {
        let (home, spec) = (tempfile::tempdir().unwrap(), serde_json::json!({ "id": "m", "path": "/none", "license": "free!" }));
        let spec: ModelSpec = serde_json::from_value(spec).unwrap();
        let store = ModelStore::open(home.path().to_owned()).unwrap();
        let on_progress: OnProgress = std::sync::Arc::new(|_| {});
        let error = spec.resolve(&store, &on_progress).await.unwrap_err();
        assert_eq!(error.field(), Some("license"), "{error}");
    }
}
