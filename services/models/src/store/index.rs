//! What the store knows about each name: one small JSON file per name, each written atomically.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use llama_stack_core::{Error, Result};

use crate::{
    ModelFile, Sha256Hex,
    disk::{self, Stamp},
};

pub(super) struct Index(PathBuf);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) sha256: Option<Sha256Hex>,
    pub(super) size: u64,
    /// How the file looked when it was right; none after a check that failed.
    pub(super) stamp: Option<Stamp>,
    /// Where it is used in place; none for a blob.
    pub(super) path: Option<PathBuf>,
    pub(super) sources: Vec<String>,
    /// Seconds since 1970.
    pub(super) fetched: u64,
    pub(super) verified: Option<u64>,
}

impl Entry {
    pub(super) fn new(name: &str, file: &ModelFile, sha256: Option<Sha256Hex>, path: Option<PathBuf>) -> Self {
        let (now, known) = (super::now(), sha256.is_some());
        let sources = sources(file);
        Self { name: name.to_owned(), sha256, size: 0, stamp: None, path, sources, fetched: now, verified: known.then_some(now) }
    }

    /// Whether this is what `file` asks for: the same hash; or, where it pins none, the same sources.
    pub(super) fn answers(&self, file: &ModelFile) -> bool {
        let content = match &file.sha256 {
            Some(wanted) => self.sha256.as_ref() == Some(wanted),
            None => self.sources == sources(file),
        };
        content && file.size.is_none_or(|size| size == self.size)
    }
}

/// Every part by name, mirrors one after the other.
fn sources(file: &ModelFile) -> Vec<String> {
    file.from.iter().flat_map(|location| location.parts()).map(ToString::to_string).collect()
}

impl Index {
    pub(super) fn new(dir: PathBuf) -> Self {
        Self(dir)
    }

    pub(super) fn get(&self, name: &str) -> Result<Option<Entry>> {
        Ok(read(&self.path(name))?.filter(|entry| entry.name == name))
    }

    /// By name.
    pub(super) fn all(&self) -> Result<Vec<Entry>> {
        let wrong = |cause| disk::error(&self.0, cause);
        let mut entries = Vec::new();
        for file in self.0.read_dir().map_err(wrong)? {
            let path = file.map_err(wrong)?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                entries.extend(read(&path)?);
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    pub(super) fn put(&self, entry: &Entry) -> Result<()> {
        let text = serde_json::to_vec_pretty(entry).map_err(|error| Error::internal("an index entry is no JSON").with_source(error))?;
        disk::write_atomically(&self.path(&entry.name), &text)
    }

    /// Idempotent.
    pub(super) fn delete(&self, name: &str) -> Result<()> {
        let path = self.path(name);
        match std::fs::remove_file(&path) {
            Err(cause) if cause.kind() != ErrorKind::NotFound => Err(disk::error(&path, cause)),
            _ => Ok(()),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(format!("{}.json", disk::one_name(name)))
    }
}

/// An entry that does not parse is as good as none: the blob is hashed again, and the entry written anew.
fn read(path: &Path) -> Result<Option<Entry>> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)
            .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "index entry is damaged"))
            .ok()),
        Err(cause) if cause.kind() == ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(disk::error(path, cause)),
    }
}
