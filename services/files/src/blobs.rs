//! Contents on the disk, by what they are: `<two digits>/<64 digits>`, and drafts of those that are still arriving, wherever they go.
//!
//! All of it blocks: for threads that may.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use llama_stack_core::{Code, Error, Result, ids, private};
use sha2::{Digest as _, Sha256};

/// A folder of contents. Several processes may share it.
#[derive(Clone)]
pub(crate) struct Blobs {
    folder: PathBuf,
}

/// A content that is arriving. Nothing of it stays unless it is [published](Blobs::publish).
pub(crate) struct Draft {
    path: PathBuf,
    /// Locked as long as somebody writes to it, so that a draft whose writer died can be told from one that grows.
    file: File,
    hash: Sha256,
    pub(crate) bytes: u64,
}

/// Holds the folder's lock: no content comes or goes meanwhile but by its holder's hand.
pub(crate) struct Guard {
    _file: File,
}

impl Blobs {
    pub(crate) fn open(folder: PathBuf) -> Result<Self> {
        private::folder(&folder.join("drafts")).map_err(failed)?;
        Ok(Self { folder })
    }

    pub(crate) fn lock(&self) -> Result<Guard> {
        let file = File::options().create(true).truncate(false).write(true).open(self.folder.join("lock")).map_err(failed)?;
        file.lock().map_err(failed)?;
        Ok(Guard { _file: file })
    }

    pub(crate) fn draft(&self) -> Result<Draft> {
        loop {
            let path = self.folder.join("drafts").join(ids::new("draft"));
            let file = File::create_new(&path).map_err(failed)?;
            file.lock().map_err(failed)?;
            // Who clears drafts may have taken it for a dead writer's, between the two.
            if path.exists() {
                return Ok(Draft { path, file, hash: Sha256::new(), bytes: 0 });
            }
        }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Notes that a content stays though no row names it, because somebody copies them all: it has to go later.
    pub(crate) fn leave(&self, blob: &str, _guard: &Guard) -> Result<()> {
        let folder = self.folder.join("left");
        fs::create_dir_all(&folder).map_err(failed)?;
        File::create(folder.join(blob)).map(drop).map_err(failed)
    }

    /// Those that were [left](Blobs::leave).
    pub(crate) fn left(&self) -> Result<Vec<String>> {
        self.names("left")
    }

    /// It has gone, or is used again.
    pub(crate) fn settle(&self, blob: &str, _guard: &Guard) -> Result<()> {
        gone(&self.folder.join("left").join(blob))
    }

    pub(crate) fn path(&self, blob: &str) -> PathBuf {
        self.folder.join(blob.get(..2).unwrap_or("00")).join(blob)
    }

    /// Puts a content in its place, in that of an equal one if need be, to be there after a loss of power.
    pub(crate) fn publish(&self, draft: &Draft, blob: &str, _guard: &Guard) -> Result<()> {
        let path = self.path(blob);
        let folder = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(folder).map_err(failed)?;
        fs::rename(&draft.path, &path).map_err(failed)?;
        for folder in [folder, self.folder.as_path()] {
            File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
        }
        Ok(())
    }

    pub(crate) fn remove(&self, blob: &str, _guard: &Guard) -> Result<()> {
        gone(&self.path(blob))
    }

    /// The names of contents that begin with these two digits.
    pub(crate) fn names(&self, digits: &str) -> Result<Vec<String>> {
        let entries = match fs::read_dir(self.folder.join(digits)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let name = |entry: io::Result<fs::DirEntry>| Ok(entry.map_err(failed)?.file_name().into_string().ok());
        entries.filter_map(|entry| name(entry).transpose()).collect()
    }

    /// Removes drafts whose writers are gone, and says how many there were.
    pub(crate) fn clear_drafts(&self) -> Result<usize> {
        let mut cleared = 0;
        for entry in fs::read_dir(self.folder.join("drafts")).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let Ok(file) = File::open(&path) else { continue };
            match file.try_lock() {
                Ok(()) => {
                    gone(&path)?;
                    cleared += 1;
                }
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
        }
        Ok(cleared)
    }
}

impl Draft {
    pub(crate) fn write(&mut self, data: &[u8]) -> Result<()> {
        self.hash.update(data);
        self.bytes += data.len() as u64;
        self.file.write_all(data).map_err(failed)
    }

    /// The SHA-256 of what was written.
    pub(crate) fn hash(&mut self) -> String {
        hex::encode(self.hash.finalize_reset())
    }

    /// Everything is on the disk.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.file.sync_all().map_err(failed)
    }

    /// Its beginning, of at most this length.
    pub(crate) fn rewound(&mut self, length: usize) -> Result<Vec<u8>> {
        self.file.rewind().map_err(failed)?;
        self.next(length)
    }

    /// What comes after that; nothing at the end.
    pub(crate) fn next(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut read = Vec::new();
        (&self.file).take(length as u64).read_to_end(&mut read).map_err(failed)?;
        Ok(read)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Published, it is no longer here.
        if let Err(error) = gone(&self.path) {
            tracing::warn!(error = ?error, "a draft could not be removed");
        }
    }
}

fn gone(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
        _ => Ok(()),
    }
}

pub(crate) fn failed(error: io::Error) -> Error {
    let (message, reason) = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ("the disk for files is full", "disk_full"),
        _ => return Error::new(Code::Unavailable, "the disk for files fails").with_reason("disk_failed").with_source(error),
    };
    Error::unavailable(message).with_reason(reason).with_source(error)
}
