//! Who has a SQLite file open, as the processes of one machine see each other: a lock on a file beside it.
//!
//! Whoever has the database open holds the lock shared, from its opening to its end, however that comes. So whoever gets
//! it exclusively, for the time of opening, is alone: no turn runs there, and no lease of an earlier process holds.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    path::Path,
    time::{Duration, Instant},
};

use tokio::time::sleep;

/// How often a process that opens looks again while another one does. Waiting in the system call could not be cancelled.
const POLL: Duration = Duration::from_millis(10);

/// Holds the lock; the system frees it with the value or the process. The file stays: to delete it would let two
/// processes hold "the" lock.
pub(crate) struct Presence(File);

impl Presence {
    /// Waits for others that are opening. `true`: nobody else has the database open, and nobody can open it until
    /// [`Presence::share`].
    pub(crate) async fn enter(database: &Path, patience: Duration) -> io::Result<(Self, bool)> {
        let file = open(database)?;
        let since = Instant::now();
        loop {
            if taken(file.try_lock())? {
                return Ok((Self(file), true));
            }
            if taken(file.try_lock_shared())? {
                return Ok((Self(file), false));
            }
            pause(since, patience).await?;
        }
    }

    /// Lets others in.
    pub(crate) async fn share(&self, patience: Duration) -> io::Result<()> {
        // Not every system turns one kind of lock into the other. Whoever slips in between is alone as well: this process
        // runs nothing yet.
        self.0.unlock()?;
        let since = Instant::now();
        while !taken(self.0.try_lock_shared())? {
            pause(since, patience).await?;
        }
        Ok(())
    }

    /// The process has the database open no longer.
    pub(crate) fn leave(&self) {
        if let Err(error) = self.0.unlock() {
            tracing::debug!(cause = %error, "the lock beside the database is freed with the process");
        }
    }
}

fn open(database: &Path) -> io::Result<File> {
    let mut name = database.as_os_str().to_owned();
    name.push(".lock");
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(name)
}

fn taken(tried: Result<(), TryLockError>) -> io::Result<bool> {
    match tried {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

async fn pause(since: Instant, patience: Duration) -> io::Result<()> {
    if since.elapsed() >= patience {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "another process opens the database and does not come to an end"));
    }
    sleep(POLL).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn who_comes_first_is_alone_and_the_next_one_again_only_when_all_have_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let (first, alone) = Presence::enter(&path, PATIENCE).await.unwrap();
        assert!(alone);
        let refused = Presence::enter(&path, Duration::from_millis(50)).await.err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut, "nobody gets in while the first one opens");
        first.share(PATIENCE).await.unwrap();
        let (second, alone) = Presence::enter(&path, PATIENCE).await.unwrap();
        assert!(!alone);
        drop(first);
        let (third, alone) = Presence::enter(&path, PATIENCE).await.unwrap();
        assert!(!alone, "the second is still there, though the first has gone");
        drop(second);
        third.leave();
        assert!(Presence::enter(&path, PATIENCE).await.unwrap().1);
    }
}
