//! A bank's folder: the shard, which one process at a time has open, and its journal.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use llama_stack_core::{Code, Error, Result};
use qdrant_edge::{EdgeConfig, EdgeShard, OperationResult};

use super::{journal::Journal, native, shard::Of};
use crate::{condition::KEYWORDS, engine::Change};

/// How long a shard that another has open is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// Says that nothing of the shard has been flushed yet: the journal has all of it. What the engine wrote when it made its
/// files is not synced, and after a loss of power it cannot be told what of them is left.
const UNFLUSHED: &str = "unflushed";

/// Only for who has the shard open: another's journal may be in the middle of a record.
pub(super) fn journal(of: &Of) -> Result<(Journal, Vec<Change>)> {
    let opened = Journal::open(&of.folder.join("journal")).map_err(native::unusable)?;
    std::fs::File::open(&of.folder).and_then(|folder| folder.sync_all()).map_err(native::unusable)?;
    Ok(opened)
}

/// The shard has been flushed: from now on its files count, and they are there by their names.
pub(super) fn note_flushed(folder: &Path) -> std::io::Result<()> {
    // A flush writes what has changed; what came with the template never has, and is synced here, once.
    sync_tree(&folder.join("shard"), folder.join(UNFLUSHED).exists())?;
    match std::fs::remove_file(folder.join(UNFLUSHED)) {
        Ok(()) => std::fs::File::open(folder)?.sync_all(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn sync_tree(folder: &Path, with_files: bool) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path(), with_files)?;
        } else if with_files {
            std::fs::File::open(entry.path())?.sync_all()?;
        }
    }
    std::fs::File::open(folder)?.sync_all()
}

/// Removes what an end before the first flush left of a shard, unless another process is at it.
fn begin_anew(folder: &Path) -> std::io::Result<()> {
    let shard = folder.join("shard");
    if !folder.join(UNFLUSHED).exists() {
        return Ok(());
    }
    // The engine locks this folder as long as it has the shard open.
    if std::fs::File::open(shard.join("wal")).is_ok_and(|log| log.try_lock().is_err()) {
        return Ok(());
    }
    std::fs::remove_dir_all(&shard)?;
    std::fs::create_dir(&shard)
}

/// Waits for another that has it, such as a process that is ending.
pub(super) fn opened(of: &Of) -> Result<EdgeShard> {
    let folder = of.folder.join("shard");
    // One at a time looks and makes.
    let opening = std::fs::File::create(of.folder.join("opening")).map_err(native::unusable)?;
    opening.lock().map_err(native::unusable)?;
    if !folder.exists() {
        std::fs::File::create(of.folder.join(UNFLUSHED)).map_err(native::unusable)?;
    }
    std::fs::create_dir_all(&folder).map_err(native::unusable)?;
    let config = native::config(&of.shape, &of.settings);
    let begun = Instant::now();
    loop {
        begin_anew(&of.folder).map_err(native::unusable)?;
        let mut there = folder.join("edge_config.json").exists();
        if !there && of.folder.join(UNFLUSHED).exists() {
            there = of.templates.make(&of.shape, &folder).map_err(native::unusable)?;
        }
        let open = || if there { EdgeShard::load(&folder, Some(config.clone())) } else { made(of, &folder, config.clone()) };
        let error = match catch_unwind(AssertUnwindSafe(open)) {
            Ok(Ok(shard)) => return Ok(shard),
            Ok(Err(error)) => error,
            Err(_) => return Err(Error::new(Code::DataLoss, "the index is damaged").with_reason("index_damaged")),
        };
        let locked = error.to_string().contains("WAL");
        if !locked || begun.elapsed() > PATIENCE {
            let told = if locked {
                Error::unavailable("another process has the index of this bank open").with_reason("index_busy")
            } else {
                Error::failed_precondition("the index cannot be opened or written").with_reason("index_unusable")
            };
            return Err(told.with_source(error));
        }
        std::thread::sleep(PAUSE);
    }
}

/// A new shard, with its indexes: a pattern for others.
fn made(of: &Of, folder: &Path, config: EdgeConfig) -> OperationResult<EdgeShard> {
    let shard = EdgeShard::new(folder, config)?;
    for field in KEYWORDS {
        if let Ok(index) = native::index(field, false) {
            shard.update(index)?;
        }
    }
    shard.flush();
    if let Err(error) = of.templates.keep(&of.shape, folder) {
        tracing::warn!(%error, "a new shard cannot be read: the next ones take longer to make");
    }
    Ok(shard)
}

/// The engine's log is never read again once it was flushed; all but the newest of its closed files go.
pub(super) fn remove_old_log(folder: &Path) {
    let Ok(files) = std::fs::read_dir(folder.join("shard").join("wal")) else { return };
    let number = |path: &Path| path.file_name()?.to_str()?.strip_prefix("closed-")?.parse::<u64>().ok();
    let mut closed: Vec<(u64, PathBuf)> =
        files.flatten().filter_map(|file| number(&file.path()).map(|number| (number, file.path()))).collect();
    closed.sort_unstable();
    closed.pop();
    for (_, path) in closed {
        let _ = std::fs::remove_file(path);
    }
}
