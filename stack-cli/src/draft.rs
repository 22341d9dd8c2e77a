//! A file that is there in whole or not at all.

use std::{
    ffi::OsString,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use llama_stack_core::{Code, Error, Result};
use tokio::{
    fs::{self, File, OpenOptions},
    io::AsyncWriteExt as _,
};

use crate::named::{taken, unwritable};

/// What is written so far, beside its place. Dropping it takes it away.
pub(crate) struct Draft {
    to: PathBuf,
    /// What is there gives way.
    force: bool,
    path: PathBuf,
    file: File,
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Where it was renamed there is none.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// # Errors
/// `InvalidArgument` what is there is no file · `AlreadyExists` it is one, and is to stay.
pub(crate) fn free(to: &Path, force: bool) -> Result<()> {
    match to.metadata() {
        Ok(meta) if !meta.is_file() => Err(Error::invalid("output", format!("{} is there, and is no file; name another", to.display()))),
        Ok(_) if !force => Err(taken(to)),
        // What else is wrong with it is told when it is written.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Puts what `work` wrote in its place. Ctrl-C ends the work, and no draft is left; once it is whole, it is no longer stopped.
pub(crate) async fn unless_stopped<T>(work: impl Future<Output = Result<(Draft, T)>>) -> Result<T> {
    let (draft, done) = tokio::select! {
        done = work => done?,
        _ = tokio::signal::ctrl_c() => return Err(Error::new(Code::Cancelled, "stopped before it was whole; nothing of it is kept")),
    };
    draft.finish().await?;
    Ok(done)
}

impl Draft {
    pub(crate) async fn begin(to: &Path, force: bool) -> Result<Self> {
        // Another's draft of the same file is another's, and so is one that a killed program left.
        let (number, ..) = uuid::Uuid::new_v4().as_fields();
        let mut name = OsString::from(".");
        name.push(to.file_name().unwrap_or_default());
        name.push(format!(".{number:08x}.partial"));
        let path = to.with_file_name(name);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        // It holds what people said to their agents.
        #[cfg(unix)]
        options.mode(0o600);
        let file = options.open(&path).await.map_err(|error| unwritable(to, error))?;
        Ok(Self { to: to.to_owned(), force, path, file })
    }

    pub(crate) async fn write(&mut self, data: &[u8]) -> Result<()> {
        self.file.write_all(data).await.map_err(|error| unwritable(&self.to, error))
    }

    /// Puts it in its place, where it would survive power loss.
    ///
    /// # Errors
    /// `AlreadyExists` somebody else made the file meanwhile.
    async fn finish(mut self) -> Result<()> {
        let failed = |error| unwritable(&self.to, error);
        self.file.flush().await.map_err(failed)?;
        self.file.sync_all().await.map_err(failed)?;
        self.put().await.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => {
                Error::new(Code::AlreadyExists, format!("{} was made meanwhile; name another file", self.to.display()))
            }
            _ => unwritable(&self.to, error),
        })?;
        // Windows opens no folders, and needs no such step.
        if cfg!(unix) {
            let folder = self.to.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let folder = File::open(folder).await.map_err(|error| unwritable(&self.to, error))?;
            folder.sync_all().await.map_err(|error| unwritable(&self.to, error))?;
        }
        Ok(())
    }

    async fn put(&self) -> io::Result<()> {
        if self.force {
            return fs::rename(&self.path, &self.to).await;
        }
        match fs::hard_link(&self.path, &self.to).await {
            // Not all file systems have links: the name is made first there, so that it is nobody else's.
            Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::Unsupported) => {
                OpenOptions::new().write(true).create_new(true).open(&self.to).await?;
                fs::rename(&self.path, &self.to).await
            }
            linked => linked,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn draft(to: &Path, force: bool, text: &str) -> Draft {
        let mut draft = Draft::begin(to, force).await.unwrap();
        draft.write(text.as_bytes()).await.unwrap();
        draft
    }

    fn names(folder: &Path) -> Vec<OsString> {
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    #[tokio::test]
    async fn a_file_that_was_made_meanwhile_stays() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("a");
        let ours = draft(&to, false, "ours").await;
        std::fs::write(&to, "theirs").unwrap();
        assert_eq!(ours.finish().await.unwrap_err().code(), Code::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&to).unwrap(), "theirs");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[tokio::test]
    async fn two_drafts_of_one_file_do_not_meet() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("a");
        let (one, other) = (draft(&to, true, "one").await, draft(&to, true, "the other").await);
        one.finish().await.unwrap();
        assert_eq!(std::fs::read_to_string(&to).unwrap(), "one");
        other.finish().await.unwrap();
        assert_eq!(std::fs::read_to_string(&to).unwrap(), "the other");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn only_a_file_gives_way() {
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("a");
        free(&to, false).unwrap();
        std::fs::write(&to, "").unwrap();
        free(&to, true).unwrap();
        assert_eq!(free(&to, false).unwrap_err().code(), Code::AlreadyExists);
        for other in [folder.path(), Path::new("/dev/null")] {
            assert_eq!(free(other, true).unwrap_err().code(), Code::InvalidArgument, "{}", other.display());
        }
    }
}
