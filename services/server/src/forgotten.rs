//! What one process of a database is asked to forget, the others forget too: they look every few seconds, and when they start.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use llama_stack_core::{
    Result,
    forget::{Keepers, Tell},
};
use llama_stack_store::Store;
use tokio_util::sync::CancellationToken;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(5);

/// Tells the others in the store.
pub(crate) struct Others {
    pub(crate) store: Store,
    /// This process.
    pub(crate) caller: String,
}

#[async_trait::async_trait]
impl Tell for Others {
    async fn tell(&self, tenant: &str) -> Result<()> {
        self.store.note_forgotten(tenant, &self.caller).await
    }
}

/// Forgets what others call for.
pub(crate) struct Follower {
    store: Store,
    keepers: Keepers,
    caller: String,
    folder: PathBuf,
}

impl Follower {
    pub(crate) fn new(store: Store, keepers: Keepers, caller: String, folder: PathBuf) -> Self {
        Self { store, keepers, caller, folder }
    }

    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let (mut marks, mut seen) = Marks::of(&self.folder).unwrap_or_else(|error| {
            tracing::warn!(error = %error, folder = %self.folder.display(), "what is forgotten is not noted, and is forgotten at each start");
            (Marks(Vec::new()), 0)
        });
        loop {
            match shutdown.run_until_cancelled(self.look(&mut marks, &mut seen)).await {
                None => return,
                Some(Ok(())) => {}
                Some(Err(error)) => tracing::warn!(error = ?error, "what another process deleted is not forgotten here yet"),
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
                return;
            }
        }
    }

    async fn look(&self, marks: &mut Marks, seen: &mut i64) -> Result<()> {
        if self.store.last_forgotten().await? < *seen {
            // An older database was restored, and counts from there.
            *seen = 0;
        }
        for call in self.store.forgotten_since(*seen).await? {
            if call.caller != self.caller {
                self.keepers.forget_here(&call.tenant).await?;
            }
            *seen = call.number;
            if let Err(error) = marks.set(*seen) {
                tracing::warn!(error = %error, "what is forgotten is not noted, and is forgotten again at the next start");
            }
        }
        Ok(())
    }
}

/// In the stack's folder, `forgotten.0` and so on: up to which call what is kept on disk has been forgotten. Processes that share the
/// folder may each leave something there at their end, so each has a file of its own, locked as long as it lives, and what the slowest
/// has not seen may be there. Whoever starts goes on with the files of those that have ended.
struct Marks(Vec<File>);

impl Marks {
    /// This process's own, and what all have seen.
    fn of(folder: &Path) -> io::Result<(Self, i64)> {
        fs::create_dir_all(folder)?;
        let (mut own, mut all) = (Vec::new(), i64::MAX);
        for n in 0_u32.. {
            let path = folder.join(format!("forgotten.{n}"));
            if !own.is_empty() && !path.try_exists()? {
                break;
            }
            let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
            let is_own = match file.try_lock() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => false,
                Err(TryLockError::Error(error)) => return Err(error),
            };
            let mut said = String::new();
            // What cannot be read has seen nothing, which only costs time.
            let seen = file.read_to_string(&mut said).ok().and_then(|_| said.trim().parse::<i64>().ok()).unwrap_or_default();
            all = all.min(seen);
            if is_own {
                own.push(file);
            }
        }
        Ok((Self(own), all))
    }

    fn set(&mut self, seen: i64) -> io::Result<()> {
        for file in &mut self.0 {
            file.rewind()?;
            file.set_len(0)?;
            file.write_all(seen.to_string().as_bytes())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What one has not seen it may still leave on the disk, for whoever starts next.
    #[test]
    fn of_those_who_share_a_folder_the_slowest_counts() {
        let folder = tempfile::tempdir().unwrap();
        let started = || Marks::of(folder.path()).unwrap();
        let (mut first, seen) = started();
        assert_eq!(seen, 0);
        first.set(12).unwrap();
        let (mut second, seen) = started();
        assert_eq!((first.0.len(), second.0.len(), seen), (1, 1, 0));
        second.set(9).unwrap();
        drop(first);
        let (mut first, seen) = started();
        assert_eq!((first.0.len(), seen), (1, 9));
        first.set(13).unwrap();
        drop((first, second));
        // The second has ended before it saw the rest.
        let (mut only, seen) = started();
        assert_eq!((only.0.len(), seen), (2, 9));
        only.set(13).unwrap();
        drop(only);
        assert_eq!(started().1, 13);
    }
}
