//! A bank's folder: the shard, which one process at a time has open, and its journal.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use llama_stack_core::{Code, Error, Result};
use qdrant_edge::EdgeShard;

use super::{journal::Journal, native, shard::Of};
use crate::engine::Change;

/// How long a shard that another has open is waited for.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// Only for who has the shard open: another's journal may be in the middle of a record.
pub(super) fn journal(of: &Of) -> Result<(Journal, Vec<Change>)> {
    let opened = Journal::open(&of.folder.join("journal")).map_err(native::unusable)?;
    std::fs::File::open(&of.folder).and_then(|folder| folder.sync_all()).map_err(native::unusable)?;
    Ok(opened)
}

/// Waits for another that has it, such as a process that is ending.
pub(super) fn opened(of: &Of) -> Result<EdgeShard> {
    let folder = of.folder.join("shard");
    std::fs::create_dir_all(&folder).map_err(native::unusable)?;
    let config = native::config(&of.shape, &of.settings);
    let begun = Instant::now();
    loop {
        let there = folder.join("edge_config.json").exists();
        let open = || if there { EdgeShard::load(&folder, Some(config.clone())) } else { EdgeShard::new(&folder, config.clone()) };
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
