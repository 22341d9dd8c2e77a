//! A file that is there in whole or not at all.

use std::path::{Path, PathBuf};

use llama_stack_core::Result;
use tokio::{fs::File, io::AsyncWriteExt as _};

use crate::named::unwritable;

/// What is written so far, beside its place. Dropping it takes it away.
pub(crate) struct Draft {
    to: PathBuf,
    path: PathBuf,
    file: File,
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Once it is in its place there is none.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Draft {
    pub(crate) async fn begin(to: &Path) -> Result<Self> {
        let mut name = to.as_os_str().to_owned();
        name.push(".partial");
        let path = PathBuf::from(name);
        let mut options = tokio::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        // It holds what people said to their agents.
        #[cfg(unix)]
        options.mode(0o600);
        let file = options.open(&path).await.map_err(|error| unwritable(to, error))?;
        Ok(Self { to: to.to_owned(), path, file })
    }

    pub(crate) async fn write(&mut self, data: &[u8]) -> Result<()> {
        self.file.write_all(data).await.map_err(|error| unwritable(&self.to, error))
    }

    /// Puts it in its place, where it would survive power loss.
    pub(crate) async fn finish(mut self) -> Result<()> {
        let failed = |error| unwritable(&self.to, error);
        self.file.flush().await.map_err(failed)?;
        self.file.sync_all().await.map_err(failed)?;
        tokio::fs::rename(&self.path, &self.to).await.map_err(failed)
    }
}
