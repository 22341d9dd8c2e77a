//! Where banks lie on disk.
//!
//! ```text
//! ROOT/<owner>/bank.json             whose it is and its shape: there once the bank is complete
//! ROOT/<owner>/<creation>/journal    what the engine has not yet flushed
//! ROOT/<owner>/<creation>/engine/    the engine's own files
//! ROOT/.removed-<uuid>/              about to be deleted
//! ```
//!
//! A bank that is created again has another folder, so that an engine of the old one, which may end later, cannot write into it.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use llama_stack_core::{Code, Error, Result};
use llama_stack_memory::{
    index::{BankKey, Shape},
    qdrant::point::owner,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const DESCRIPTION: &str = "bank.json";
const REMOVED: &str = ".removed-";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    version: u32,
    tenant: String,
    bank_id: String,
    dimension: u32,
    keyword: bool,
    creation: Uuid,
}

/// A bank that is there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    pub(crate) shape: Shape,
    pub(crate) path: PathBuf,
}

#[derive(Clone, Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    /// Makes it, and deletes what a crash kept from being deleted.
    pub(crate) fn open(root: PathBuf) -> Result<Self> {
        let make = || -> io::Result<()> {
            fs::create_dir_all(&root)?;
            for entry in fs::read_dir(&root)? {
                let entry = entry?;
                if entry.file_name().to_string_lossy().starts_with(REMOVED) {
                    fs::remove_dir_all(entry.path())?;
                }
            }
            Ok(())
        };
        make().map_err(|error| broken("the folder of the vectors cannot be used", &root, error))?;
        Ok(Self(root))
    }

    fn of(&self, bank: &BankKey) -> PathBuf {
        self.0.join(owner(bank))
    }

    pub(crate) fn find(&self, bank: &BankKey) -> Result<Option<Found>> {
        let path = self.of(bank).join(DESCRIPTION);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(broken("a bank cannot be read", &path, error)),
        };
        let found: Description =
            serde_json::from_slice(&text).map_err(|error| broken("a bank's description cannot be read", &path, error.into()))?;
        if (found.version, &found.tenant, &found.bank_id) != (1, &bank.tenant, &bank.bank_id) {
            let cause = format!("{}: version {}, of another bank or a newer program", path.display(), found.version);
            return Err(Error::new(Code::DataLoss, "a bank's description is not its own").with_source(cause));
        }
        let shape = Shape { dimension: found.dimension, keyword: found.keyword };
        Ok(Some(Found { shape, path: self.of(bank).join(found.creation.to_string()) }))
    }

    /// Makes a bank in place of one that was not completed; `fill` gets its empty folder. It is there, durably, once this returns.
    pub(crate) fn create(&self, bank: &BankKey, shape: &Shape, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let (path, creation) = (self.of(bank), Uuid::new_v4());
        let inner = path.join(creation.to_string());
        let begin = || -> io::Result<()> {
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => fs::create_dir_all(inner.join("engine")),
            }
        };
        begin().map_err(|error| broken("a bank's folder cannot be made", &path, error))?;
        fill(&inner)?;
        let Shape { dimension, keyword } = *shape;
        let BankKey { tenant, bank_id } = bank.clone();
        let description = Description { version: 1, tenant, bank_id, dimension, keyword, creation };
        let complete = || -> io::Result<()> {
            let new = path.join("bank.json.new");
            let mut file = File::create(&new)?;
            file.write_all(&serde_json::to_vec(&description)?)?;
            file.sync_all()?;
            fs::rename(&new, path.join(DESCRIPTION))?;
            [&inner, &path, &self.0].into_iter().try_for_each(|folder| sync(folder))
        };
        complete().map_err(|error| broken("a bank cannot be written", &path, error))
    }

    /// Gone at once, for every later request and after a crash; the space is free when this returns.
    pub(crate) fn remove(&self, bank: &BankKey) -> Result<()> {
        let (path, away) = (self.of(bank), self.0.join(format!("{REMOVED}{}", Uuid::new_v4())));
        let remove = || -> io::Result<()> {
            match fs::rename(&path, &away) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                other => other?,
            }
            sync(&self.0)?;
            fs::remove_dir_all(&away)
        };
        remove().map_err(|error| broken("a bank cannot be removed", &path, error))
    }
}

/// What a folder holds on disk, in bytes; what vanishes meanwhile is not counted.
pub(crate) fn size(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let each = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => size(&entry.path()),
        Ok(meta) => on_disk(&meta),
        Err(_) => 0,
    };
    entries.flatten().map(each).sum()
}

/// The engine's files are sparse: it makes room for much and fills little.
#[cfg(unix)]
fn on_disk(meta: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(meta) * 512
}

#[cfg(not(unix))]
fn on_disk(meta: &fs::Metadata) -> u64 {
    meta.len()
}

/// A new name in a folder survives power loss once the folder is synced.
fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

pub(crate) fn broken(what: &str, path: &Path, error: io::Error) -> Error {
    let code = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::ResourceExhausted,
        _ => Code::Unavailable,
    };
    Error::new(code, what).with_source(format!("{}: {error}", path.display()))
}
