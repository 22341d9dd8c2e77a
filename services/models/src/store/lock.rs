//! Locks that processes share. The system frees them when a process ends, however it ends.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    time::Duration,
};

use llama_stack_core::Result;

use crate::disk;

/// How often a waiting process looks again. Waiting in the system call could not be cancelled.
const POLL: Duration = Duration::from_millis(100);

/// Held until it is dropped. The file stays: deleting it would let two processes hold "the" lock.
#[derive(Debug)]
pub(crate) struct FileLock {
    _file: File,
}

impl FileLock {
    /// Waits for whoever holds it; `what` is for the log.
    pub(super) async fn acquire(path: PathBuf, what: &str) -> Result<Self> {
        let mut told = false;
        loop {
            if let Some(lock) = Self::try_acquire(&path)? {
                return Ok(lock);
            }
            if !told {
                tracing::info!(file = what, "waiting for another download of the same file");
                told = true;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// `None` while another holds it.
    pub(crate) fn try_acquire(path: &Path) -> Result<Option<Self>> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(cause)) => Err(disk::error(path, cause)),
        }
    }

    /// Blocks; for changes that are over in a moment.
    pub(super) fn wait(path: &Path) -> Result<Self> {
        let file = open(path)?;
        file.lock().map_err(|cause| disk::error(path, cause))?;
        Ok(Self { _file: file })
    }
}

fn open(path: &Path) -> Result<File> {
    File::options().create(true).append(true).open(path).map_err(|cause| disk::error(path, cause))
}
