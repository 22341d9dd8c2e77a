//! Files and their errors: what the store, the inspectors and the specs do on the disk.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::Path,
    time::UNIX_EPOCH,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use llama_stack_core::{Code, Error, Result};

use crate::Sha256Hex;

/// Runs `work` off the async threads. It goes on to its end when the caller is dropped.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::internal("a task of the model store broke off").with_source(error))?
}

/// What an I/O error means for who asked for the file.
pub(crate) fn error(path: &Path, cause: io::Error) -> Error {
    use io::ErrorKind::{IsADirectory, NotFound, PermissionDenied, QuotaExceeded, StorageFull};
    let (code, what) = match cause.kind() {
        NotFound => (Code::NotFound, "there is no such file"),
        PermissionDenied => (Code::FailedPrecondition, "may not be read or written by this user"),
        IsADirectory => (Code::InvalidArgument, "is a folder, not a file"),
        StorageFull | QuotaExceeded => (Code::ResourceExhausted, "the disk is full"),
        _ => (Code::Internal, "cannot be read or written"),
    };
    let error = Error::new(code, format!("{}: {what}", path.display()));
    let error = if code == Code::ResourceExhausted { error.with_reason(DISK_FULL) } else { error };
    error.with_source(cause)
}

/// The reason of errors that no other mirror helps against.
pub(crate) const DISK_FULL: &str = "disk_full";

/// How a file looked when its content was last known: same stamp, same content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    pub(crate) size: u64,
    /// Nanoseconds since 1970.
    modified: u64,
}

impl Stamp {
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let meta = path.metadata().map_err(|cause| error(path, cause))?;
        if !meta.is_file() {
            return Err(error(path, io::ErrorKind::IsADirectory.into()));
        }
        let modified = meta.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        Ok(Self { size: meta.len(), modified: u64::try_from(modified.as_nanos()).unwrap_or(u64::MAX) })
    }
}

/// The hash of a whole file; `at` is told how many bytes were read.
pub(crate) fn sha256(path: &Path, at: impl Fn(u64)) -> Result<Sha256Hex> {
    let mut file = File::open(path).map_err(|cause| error(path, cause))?;
    let mut hasher = Sha256::new();
    read_into(&mut file, &mut hasher, u64::MAX, at).map_err(|cause| error(path, cause))?;
    Ok(Sha256Hex::of(hasher))
}

/// Feeds at most `limit` bytes into `hasher`.
pub(crate) fn read_into(reader: &mut impl Read, hasher: &mut Sha256, limit: u64, at: impl Fn(u64)) -> io::Result<()> {
    let mut reader = reader.take(limit);
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(()),
            read => hasher.update(&buffer[..read]),
        }
        done = limit.saturating_sub(reader.limit()).max(done);
        at(done);
    }
}

/// Readers see the old bytes or the new ones, also after a loss of power.
pub(crate) fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let written = || -> io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(dir)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        sync_dir(dir)
    };
    written().map_err(|cause| error(path, cause))
}

/// Makes renames in the folder durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    // Windows opens no folders, and needs no such step.
    if cfg!(unix) { File::open(dir)?.sync_all() } else { Ok(()) }
}

/// `text` as the name of one file: what is not a letter, digit, `.`, `_` or `-` becomes `%` and its hexadecimal byte.
pub(crate) fn one_name(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    for byte in text.bytes() {
        // A leading dot would hide the file, and `.` and `..` are folders.
        if byte.is_ascii_alphanumeric() || b"_-".contains(&byte) || (byte == b'.' && !name.is_empty()) {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
    // File systems take 255 bytes; an ending is still to come.
    if name.len() > 200 {
        let hash = Sha256Hex::of(Sha256::new_with_prefix(text));
        name.truncate(150);
        name.push_str(&hash.as_str()[..32]);
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_names_stay_different_files_in_one_folder() {
        assert_eq!(one_name("a/b.gguf"), "a%2Fb.gguf");
        assert_eq!(one_name(".."), "%2E.");
        let (long, other) = ("x".repeat(300), format!("{}y", "x".repeat(299)));
        assert!(one_name(&long).len() <= 200);
        assert_ne!(one_name(&long), one_name(&other));
    }

    #[test]
    fn a_full_disk_is_said_to_be_full() {
        let full = error(Path::new("/m/x"), io::ErrorKind::StorageFull.into());
        assert_eq!((full.code(), full.message()), (Code::ResourceExhausted, "/m/x: the disk is full"));
        assert_eq!(full.reason(), Some(DISK_FULL));
    }
}
