//! What was read survives a restart: kept prefixes are written to a folder when the stack stops, and read when the model
//! is loaded again.
//!
//! The folder is the users' text in another form: only its owner may read it, each prefix comes back to the tenant it was
//! of, and it belongs to one file of weights.

use std::{
    fs,
    io::{ErrorKind, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use llama_stack_core::{Error, Result, private};
use llama_stack_models::batching::Cache;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::context::Context;

const INDEX: &str = "index.json";
/// Below a home: a folder for each model.
const FOLDERS: &str = "prefixes";

/// Pieces of the weights that tell one file from another; reading all of them would take as long as loading.
const PIECES: u64 = 16;
const PIECE: usize = 4_096;

/// Folders are written by the threads of engines, and by who forgets a tenant: one at a time.
static WRITING: Mutex<()> = Mutex::new(());

/// One folder for one model.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    most_bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    file: String,
    tenant: String,
    tokens: usize,
}

impl Folder {
    /// Below `home`, by what tells the weights and the adapters from others, and `settings`, which change what a cache
    /// holds.
    ///
    /// # Errors
    /// `FailedPrecondition` where the folder cannot be made, or a file cannot be read.
    pub(crate) fn new(home: &Path, weights: &[&Path], settings: &str, megabytes: u64) -> Result<Self> {
        let mut hash = Sha256::new();
        hash.update(settings);
        for file in weights {
            fingerprint(file, &mut hash).map_err(|error| unusable(file, &error))?;
        }
        let print = hex::encode(hash.finalize());
        let path = home.join(FOLDERS).join(print);
        make_private(&path).map_err(|error| unusable(&path, &error))?;
        Ok(Self { path, most_bytes: megabytes << 20 })
    }

    /// Writes the newest prefixes that fit; what is there from before goes. The number of them.
    pub(crate) fn save(&self, context: &Context<'_>, cache: &Cache) -> Result<usize> {
        let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |error: std::io::Error| unusable(&self.path, &error);
        self.clear().map_err(failed)?;
        let (mut saved, mut bytes) = (Vec::<Saved>::new(), 0);
        let kept = cache.kept();
        for (sequence, tenant, tokens) in &kept {
            let contained =
                |other: &(u32, Arc<str>, &[u32])| other.1 == *tenant && other.2.len() > tokens.len() && other.2.starts_with(tokens);
            if kept.iter().any(contained) {
                continue;
            }
            let file = name(tenant, tokens);
            if saved.iter().any(|one| one.file == file) {
                continue;
            }
            let path = self.path.join(&file);
            context.save(*sequence, tokens, &path)?;
            bytes += fs::metadata(&path).map_err(failed)?.len();
            if bytes > self.most_bytes {
                fs::remove_file(&path).map_err(failed)?;
                break;
            }
            saved.push(Saved { file, tenant: tenant.to_string(), tokens: tokens.len() });
        }
        let index = serde_json::to_vec(&saved).map_err(|error| Error::internal("the index is not JSON").with_source(error))?;
        // Last, and at once: without it the files are nothing.
        let beside = self.path.join("index.new");
        fs::write(&beside, index).and_then(|()| fs::rename(&beside, self.path.join(INDEX))).map_err(failed)?;
        Ok(saved.len())
    }

    /// Reads what was saved; what cannot be read is left out. The number of prefixes.
    pub(crate) fn restore(&self, context: &mut Context<'_>, cache: &mut Cache) -> usize {
        let Ok(index) = fs::read(self.path.join(INDEX)) else { return 0 };
        let Ok(saved) = serde_json::from_slice::<Vec<Saved>>(&index) else { return 0 };
        let mut count = 0;
        // The newest was saved first, and shall be the last to go again.
        for Saved { file, tenant, tokens } in saved.into_iter().rev() {
            let Some(sequence) = cache.vacancy(tokens) else { continue };
            match context.restore(sequence, tokens, &self.path.join(file)) {
                Ok(tokens) => {
                    cache.adopt(sequence, tenant.into(), tokens);
                    count += 1;
                }
                Err(error) => tracing::warn!(error = ?error, "a saved prefix cannot be used"),
            }
        }
        count
    }

    fn clear(&self) -> std::io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            fs::remove_file(entry?.path())?;
        }
        Ok(())
    }
}

/// By what is in it, so that no index, however old, takes one tenant's text for another's.
fn name(tenant: &str, tokens: &[u32]) -> String {
    let mut hash = Sha256::new();
    hash.update((tenant.len() as u64).to_le_bytes());
    hash.update(tenant);
    tokens.iter().for_each(|token| hash.update(token.to_le_bytes()));
    format!("{}.kv", hex::encode(hash.finalize()))
}

/// Removes what is on disk of a tenant, for whichever model: how many prefixes it was. What no index names may be anybody's,
/// and goes too.
///
/// # Errors
/// `FailedPrecondition` where a folder cannot be read or changed.
pub(crate) fn forget(home: &Path, tenant: &str) -> Result<u64> {
    let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let root = home.join(FOLDERS);
    let folders = match fs::read_dir(&root) {
        Ok(folders) => folders,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(unusable(&root, &error)),
    };
    let mut count = 0;
    for folder in folders {
        let folder = folder.map_err(|error| unusable(&root, &error))?.path();
        if folder.is_dir() {
            count += forget_in(&folder, tenant).map_err(|error| unusable(&folder, &error))?;
        }
    }
    Ok(count)
}

fn forget_in(folder: &Path, tenant: &str) -> std::io::Result<u64> {
    let index = match fs::read(folder.join(INDEX)) {
        Ok(index) => serde_json::from_slice::<Vec<Saved>>(&index).ok(),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let mut kept = Vec::new();
    let mut count = 0;
    if let Some(saved) = index {
        let (theirs, others): (Vec<Saved>, Vec<Saved>) = saved.into_iter().partition(|saved| saved.tenant == tenant);
        if !theirs.is_empty() {
            let beside = folder.join("index.less");
            fs::write(&beside, serde_json::to_vec(&others)?)?;
            fs::rename(&beside, folder.join(INDEX))?;
        }
        count = theirs.len() as u64;
        kept.push(INDEX.to_owned());
        kept.extend(others.into_iter().map(|saved| saved.file));
    }
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !kept.iter().any(|name| entry.file_name() == name.as_str()) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(count)
}

fn fingerprint(weights: &Path, hash: &mut Sha256) -> std::io::Result<()> {
    let mut file = fs::File::open(weights)?;
    let length = file.metadata()?.len();
    hash.update(length.to_le_bytes());
    let mut piece = vec![0; PIECE];
    for n in 0..PIECES {
        file.seek(SeekFrom::Start(length.saturating_sub(PIECE as u64) / (PIECES - 1) * n))?;
        let read = file.read(&mut piece)?;
        hash.update(&piece[..read]);
    }
    Ok(())
}

#[cfg(unix)]
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    private::folder(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

#[cfg(not(unix))]
fn make_private(path: &Path) -> std::io::Result<()> {
    private::folder(path)
}

fn unusable(path: &Path, error: &std::io::Error) -> Error {
    Error::failed_precondition(format!("{}: {error}", path.display())).with_reason("prefix_folder_unusable")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(home: &Path, name: &str, index: Option<&str>, files: &[&str]) -> PathBuf {
        let folder = home.join(FOLDERS).join(name);
        fs::create_dir_all(&folder).unwrap();
        if let Some(index) = index {
            fs::write(folder.join(INDEX), index).unwrap();
        }
        files.iter().for_each(|file| fs::write(folder.join(file), "text").unwrap());
        folder
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_nobody_can_say_whose_it_is_goes_with_what_a_tenant_had() {
        let home = tempfile::tempdir().unwrap();
        let index = r#"[{"file":"a.kv","tenant":"a","tokens":1},{"file":"b.kv","tenant":"b","tokens":1}]"#;
        let whole = folder(home.path(), "whole", Some(index), &["a.kv", "b.kv", "left.kv", "index.new"]);
        let broken = folder(home.path(), "broken", Some("["), &["a.kv"]);
        let unnamed = folder(home.path(), "unnamed", None, &["a.kv"]);
        assert_eq!(forget(home.path(), "a").unwrap(), 1);
        assert_eq!(names(&whole), ["b.kv", INDEX]);
        assert!(names(&broken).is_empty() && names(&unnamed).is_empty());
        assert_eq!(forget(home.path(), "a").unwrap(), 0);
        assert_eq!(names(&whole), ["b.kv", INDEX]);
    }

    #[test]
    fn an_index_that_cannot_be_read_is_told() {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join(FOLDERS).join("model").join(INDEX)).unwrap();
        assert_eq!(forget(home.path(), "a").unwrap_err().reason(), Some("prefix_folder_unusable"));
    }
}
