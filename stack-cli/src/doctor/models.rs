//! The model files of a manifest: whether they are here, whole, and what their hashes say.

use std::{collections::HashMap, path::Path};

use llama_stack_core::Manifest;
use llama_stack_models::{ModelFile, ModelStore, StoredFile};

use super::Finding;
use crate::{
    model::{size, specs},
    output::Output,
};

/// Bytes that matter to the machine.
#[derive(Default)]
pub(super) struct Had {
    /// Still to be fetched.
    pub(super) missing: u64,
    /// Of all files, here or not.
    pub(super) weights: u64,
}

pub(super) async fn look(manifest: &Manifest, home: &Path, deep: bool, output: &Output, findings: &mut Vec<Finding>) -> Had {
    let mut had = Had::default();
    let models = match specs(manifest) {
        Ok(models) => models,
        Err(error) => {
            findings.push(Finding::fail("models", error.message(), "correct that line"));
            return had;
        }
    };
    let root = home.join("models");
    // Opening a store makes its folders; where there are none there is nothing to look at.
    let store = if root.is_dir() { ModelStore::open(&root).ok() } else { None };
    let listed = match &store {
        Some(store) => store.list().await.unwrap_or_default(),
        None => Vec::new(),
    };
    let stored: HashMap<&str, &StoredFile> = listed.iter().map(|file| (file.name.as_str(), file)).collect();
    for model in &models {
        let what = format!("model {}", model.id);
        if let Some(path) = &model.path {
            findings.push(match path.exists() {
                true => Finding::ok(what, format!("{} is there", path.display())),
                false => Finding::fail(what, format!("{} is not there", path.display()), "correct its `path`, or put the files there"),
            });
            had.weights += bytes(path);
            continue;
        }
        let (mut missing, mut wrong) = (0, Vec::new());
        for file in &model.files {
            let name = format!("{}/{}", model.id, file.name.as_str());
            had.weights += file.size.unwrap_or_default();
            match stored.get(name.as_str()) {
                None => missing += file.size.unwrap_or_default().max(1),
                Some(found) => {
                    if let Some(problem) = problem(file, found) {
                        wrong.push(problem);
                    } else if let (true, Some(store)) = (deep && file.sha256.is_some(), &store) {
                        let verified = store.verify(&name, &output.progress_of("reading", "read")).await;
                        wrong.extend(verified.err().map(|error| error.message().to_owned()));
                    }
                }
            }
        }
        had.missing += missing;
        findings.push(if !wrong.is_empty() {
            let advice = format!("llama-stack model verify, then llama-stack model pull {}", model.id);
            Finding::fail(what, wrong.join("; "), advice)
        } else if missing > 0 {
            let advice = "the first start fetches them; before that: llama-stack model pull with this distribution";
            Finding::warn(what, format!("{} of files are not here yet", size(missing)), advice)
        } else {
            Finding::ok(what, if deep { "every file has its hash" } else { "every file is here, in its size" })
        });
    }
    had
}

/// What is wrong with a file, as far as its size tells.
fn problem(wanted: &ModelFile, found: &StoredFile) -> Option<String> {
    let name = &found.name;
    let Ok(meta) = std::fs::metadata(&found.path) else { return Some(format!("{name} is gone from the disk")) };
    let expected = wanted.size.unwrap_or(found.size);
    if meta.len() != expected {
        return Some(format!("{name} has {} bytes and must have {expected}", meta.len()));
    }
    let hashes = wanted.sha256.as_ref().zip(found.sha256.as_ref());
    hashes.filter(|(wanted, found)| wanted != found).map(|_| format!("{name} is another file than the manifest names: its hash differs"))
}

/// Of a file, or of the files right in a folder.
fn bytes(path: &Path) -> u64 {
    if path.is_file() {
        return path.metadata().map_or(0, |meta| meta.len());
    }
    let files = std::fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
    files.filter_map(|file| file.metadata().ok()).filter(std::fs::Metadata::is_file).map(|meta| meta.len()).sum()
}
