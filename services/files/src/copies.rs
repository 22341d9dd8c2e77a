//! The contents of a folder of files, for who copies them all: kept from going while they are read, and put back.

use std::{
    fs::{File, TryLockError},
    io::{self, Read},
    path::{Path, PathBuf},
};

use llama_stack_core::{Code, Error, Result, ids};
use llama_stack_store::Store;
use tokio_util::task::TaskTracker;

use crate::{
    blobs::{self, Blobs, failed},
    disk::missing,
    sweep,
};

const PIECE: usize = 1 << 20;

/// The folder, as its service has it: `files` below the distribution's own.
#[derive(Clone)]
pub struct Copies(Blobs);

/// As long as it lives, no content goes, in any process: what is deleted loses its row, and its content when the last pin has
/// been released, or with the next start.
pub struct Pin {
    path: PathBuf,
    /// Locked, so that the pin of a process that died holds nothing.
    _file: File,
}

impl Drop for Pin {
    fn drop(&mut self) {
        // One that stays is not locked, and holds nothing.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Copies {
    /// # Errors
    /// `Unavailable` the folder cannot be made or written.
    pub fn open(folder: PathBuf) -> Result<Self> {
        Blobs::open(folder).map(Self)
    }

    /// Takes time: it waits for whoever adds or removes a content at this moment.
    pub fn pin(&self) -> Result<Pin> {
        let _guard = self.0.lock()?;
        let folder = pins(self.0.folder());
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let path = folder.join(ids::new("pin"));
        let file = File::create_new(&path).map_err(failed)?;
        file.lock().map_err(failed)?;
        Ok(Pin { path, _file: file })
    }

    /// Ends a pin, and removes what was only kept by it.
    pub async fn release(&self, pin: Pin, store: &Store, tasks: &TaskTracker) -> Result<()> {
        drop(pin);
        sweep::left_behind(store, &self.0, tasks).await
    }

    /// A content to be read, and its length. Open, it is read to its end whatever is deleted. Takes time.
    ///
    /// # Errors
    /// `DataLoss` it is not there.
    pub fn read(&self, blob: &str) -> Result<(File, u64)> {
        let file = File::open(self.0.path(blob)).map_err(missing)?;
        let bytes = file.metadata().map_err(failed)?.len();
        Ok((file, bytes))
    }

    /// Puts a content in its place, durably. Takes time.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no name of a content · `Unavailable` where the disk fails or is full.
    pub fn put(&self, blob: &str, source: &mut dyn Read) -> Result<()> {
        if blob.len() != 64 || !blob.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)) {
            return Err(Error::invalid("backup", format!("{blob:?} is not the name of a file's content")));
        }
        let mut draft = self.0.draft()?;
        let mut piece = vec![0; PIECE];
        loop {
            match source.read(&mut piece).map_err(|error| Error::new(Code::DataLoss, "the backup cannot be read").with_source(error))? {
                0 => break,
                read => draft.write(&piece[..read])?,
            }
        }
        draft.sync()?;
        let guard = self.0.lock()?;
        self.0.publish(&draft, blob, &guard)
    }
}

fn pins(folder: &Path) -> PathBuf {
    folder.join("pins")
}

/// Whether somebody copies. Pins of the dead are removed.
pub(crate) fn is_pinned(blobs: &Blobs, _guard: &blobs::Guard) -> Result<bool> {
    let entries = match std::fs::read_dir(pins(blobs.folder())) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries.map_err(failed)?,
    };
    let mut pinned = false;
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        // Released between the two looks.
        let Ok(file) = File::open(&path) else { continue };
        match file.try_lock() {
            Ok(()) => {
                let _ = std::fs::remove_file(&path);
            }
            Err(TryLockError::WouldBlock) => pinned = true,
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
    }
    Ok(pinned)
}
