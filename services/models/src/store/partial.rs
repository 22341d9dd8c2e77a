//! A download under way: bytes so far, their hash so far, and what is needed to go on after a cut.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use llama_stack_core::{Code, Error, Result};

use super::lock::FileLock;
use crate::{
    Location, ModelFile, Sha256Hex,
    disk::{self, blocking},
};

/// Shared with the thread that writes: it may outlive a dropped download by one chunk, and keeps the lock until then.
#[derive(Clone)]
pub(crate) struct Partial(Arc<Mutex<Inner>>);

pub(crate) struct Inner {
    path: PathBuf,
    file: File,
    len: u64,
    /// Of all bytes, and as it was where the current part begins.
    hasher: Sha256,
    hasher_at_part: Sha256,
    state: State,
    /// More bytes than this are refused.
    limit: u64,
    /// The hash is known beforehand, so bytes of an earlier run can be trusted until the end tells.
    pinned: bool,
    _lock: Arc<FileLock>,
}

/// Kept beside the bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct State {
    /// Bytes of each part that is complete.
    parts: Vec<u64>,
    /// Of the part that is not.
    current: Remote,
}

/// What a server said of the thing that is being fetched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Remote {
    /// For `If-Range`: a strong ETag, or a date.
    pub(crate) validator: Option<String>,
    /// Bytes.
    pub(crate) total: Option<u64>,
}

impl Partial {
    /// What an earlier download of the same file from the same location left, or nothing yet.
    pub(super) async fn open(dir: PathBuf, location: &Location, file: &ModelFile, lock: Arc<FileLock>) -> Result<Self> {
        let parts: Vec<String> = location.parts().iter().map(|part| format!("{part:?}")).collect();
        let key = Sha256Hex::of(Sha256::new_with_prefix(parts.join("\n")));
        let path = dir.join(format!("{}.partial", &key.as_str()[..16]));
        let (limit, pinned) = (file.size.unwrap_or(u64::MAX), file.sha256.is_some());
        blocking(move || {
            let opened = Inner::open(path.clone(), limit, pinned, lock).map_err(|cause| disk::error(&path, cause))?;
            Ok(Self(Arc::new(Mutex::new(opened))))
        })
        .await
    }

    /// Does `work` on a thread that may block.
    pub(crate) async fn with<T: Send + 'static>(&self, work: impl FnOnce(&mut Inner) -> Result<T> + Send + 'static) -> Result<T> {
        let shared = Arc::clone(&self.0);
        blocking(move || work(&mut shared.lock().unwrap_or_else(PoisonError::into_inner))).await
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len
    }

    /// Parts that are complete.
    pub(crate) fn parts(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).state.parts.len()
    }
}

impl Inner {
    fn open(path: PathBuf, limit: u64, pinned: bool, lock: Arc<FileLock>) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
        let state = std::fs::read(path.with_extension("json")).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let state: State = state.unwrap_or_default();
        let (hasher, hasher_at_part) = (Sha256::new(), Sha256::new());
        let mut partial = Self { path, file, len: 0, hasher, hasher_at_part, state, limit, pinned, _lock: lock };
        partial.recall()?;
        Ok(partial)
    }

    /// Hashes what is there; what does not fit the state is thrown away.
    fn recall(&mut self) -> io::Result<()> {
        let (len, done) = (self.file.metadata()?.len(), self.state.parts.iter().fold(0, |sum: u64, part| sum.saturating_add(*part)));
        if done > len || len > self.limit {
            self.state = State::default();
            return self.file.set_len(0);
        }
        disk::read_into(&mut self.file, &mut self.hasher_at_part, done, |_| {})?;
        self.hasher = self.hasher_at_part.clone();
        disk::read_into(&mut self.file, &mut self.hasher, len - done, |_| {})?;
        self.len = len;
        Ok(())
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Bytes of the current part, and what its server said of it.
    pub(crate) fn part(&self) -> (u64, Remote) {
        (self.len - self.part_start(), self.state.current.clone())
    }

    /// Whether the current part may be continued: its server can tell whether it changed, or the hash will.
    pub(crate) fn may_resume(&self) -> bool {
        self.len > self.part_start() && (self.pinned || self.state.current.validator.is_some())
    }

    fn part_start(&self) -> u64 {
        self.state.parts.iter().sum()
    }

    /// Throws the bytes of the current part away.
    pub(crate) fn restart_part(&mut self) -> Result<()> {
        let start = self.part_start();
        if self.len == start {
            return Ok(());
        }
        self.file.set_len(start).and_then(|()| self.file.seek(SeekFrom::Start(start))).map_err(|cause| disk::error(&self.path, cause))?;
        (self.len, self.hasher) = (start, self.hasher_at_part.clone());
        Ok(())
    }

    /// Writes down whose bytes come next.
    pub(crate) fn begin_part(&mut self, remote: Remote) -> Result<()> {
        self.state.current = remote;
        self.save()
    }

    pub(crate) fn end_part(&mut self) -> Result<()> {
        let (bytes, _) = self.part();
        self.state.parts.push(bytes);
        self.state.current = Remote::default();
        self.hasher_at_part = self.hasher.clone();
        self.save()
    }

    fn save(&self) -> Result<()> {
        let text = serde_json::to_vec(&self.state).map_err(|error| Error::internal("a download's state is no JSON").with_source(error))?;
        disk::write_atomically(&self.path.with_extension("json"), &text)
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if self.len + bytes.len() as u64 > self.limit {
            let error = Error::new(Code::DataLoss, format!("wrong size: should be {} bytes, is longer", self.limit));
            self.discard();
            return Err(error.with_reason("size_mismatch"));
        }
        self.file.write_all(bytes).map_err(|cause| disk::error(&self.path, cause))?;
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Appends all of `reader`, unless `wanted` says that nobody waits for it any more.
    pub(crate) fn append_all(&mut self, reader: &mut impl Read, from: &Path, wanted: impl Fn(u64) -> bool) -> Result<()> {
        let mut buffer = vec![0; 256 << 10];
        while wanted(self.len) {
            match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => self.append(&buffer[..read])?,
                Err(cause) => return Err(disk::error(from, cause)),
            }
        }
        Err(Error::new(Code::Cancelled, "the download was stopped"))
    }

    pub(super) fn sha256(&self) -> Sha256Hex {
        Sha256Hex::of(self.hasher.clone())
    }

    /// Makes the bytes the file at `blob`: all of them, durably, or nothing. Nothing may be appended later.
    pub(super) fn land(&mut self, blob: &Path) -> Result<()> {
        let landed = || -> io::Result<()> {
            self.file.sync_all()?;
            std::fs::rename(&self.path, blob)?;
            blob.parent().map_or(Ok(()), disk::sync_dir)
        };
        landed().map_err(|cause| disk::error(blob, cause))?;
        // Half downloads from other mirrors are of no use any more.
        self.path.parent().map(std::fs::remove_dir_all);
        Ok(())
    }

    /// The bytes are of no use.
    pub(super) fn discard(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        let _ = std::fs::remove_file(self.path.with_extension("json"));
    }
}
