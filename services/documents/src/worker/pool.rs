//! Processes that wait for a file: each reads one, and while it does, the next is begun.

use std::{
    ffi::OsString,
    io,
    os::{fd::OwnedFd, unix::net::UnixStream as Pair},
    path::PathBuf,
    process::Stdio,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use llama_stack_core::Result;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    process::{Child, Command},
    sync::Semaphore,
};
use tokio_util::task::TaskTracker;

use super::{Limits, broken, wire};
use crate::{Parsed, failure};

pub(super) struct Pool {
    program: PathBuf,
    arguments: Vec<OsString>,
    places: Semaphore,
    /// Has begun, and has not been told anything.
    spare: Mutex<Option<Worker>>,
    tasks: TaskTracker,
}

struct Worker {
    socket: UnixStream,
    /// Killed when this is dropped.
    child: Child,
}

/// JSON takes more room than the text in it, and so do the places of a million blocks.
const JSON: usize = 6;
const BLOCKS: u64 = 256 << 20;
/// One that fell silent ends soon, on a busy machine too, or something else is wrong with it.
const ENDING: Duration = Duration::from_secs(15);

impl Pool {
    pub(super) fn new(program: PathBuf, arguments: Vec<OsString>, at_once: usize) -> Self {
        Self { program, arguments, places: Semaphore::new(at_once.max(1)), spare: Mutex::new(None), tasks: TaskTracker::new() }
    }

    /// Waiting for a place costs none of the time.
    pub(super) async fn read(&self, request: &wire::Request, data: &[u8], limits: &Limits) -> Result<Parsed> {
        let _place = self.places.acquire().await.map_err(|closed| broken(io::Error::other(closed)))?;
        let mut worker = self.take().map_err(broken)?;
        let spoken = tokio::time::timeout(limits.time, worker.speak(request, data, limits)).await;
        match spoken {
            Ok(Ok(answer)) => {
                let read = self.tasks.spawn_blocking(move || serde_json::from_slice::<wire::Answer>(&answer)).await;
                read.map_err(broken)?.map_err(broken)?.into()
            }
            Ok(Err(error)) => Err(worker.end(error).await),
            Err(_) => Err(failure::limits(format!("it was not done in {} seconds", limits.time.as_secs()))),
        }
    }

    /// One that waits, or a new one; and another begins to wait.
    fn take(&self) -> io::Result<Worker> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).take();
        // One that ended while it waited is none.
        let alive = spare.and_then(|mut worker| matches!(worker.child.try_wait(), Ok(None)).then_some(worker));
        let worker = match alive {
            Some(worker) => worker,
            None => self.begin()?,
        };
        match self.begin() {
            Ok(next) => *self.spare.lock().unwrap_or_else(PoisonError::into_inner) = Some(next),
            Err(error) => tracing::warn!(cause = %error, "no process begins that reads the next file"),
        }
        Ok(worker)
    }

    fn begin(&self) -> io::Result<Worker> {
        let (ours, theirs) = Pair::pair()?;
        ours.set_nonblocking(true)?;
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        Ok(Worker { socket: UnixStream::from_std(ours)?, child })
    }
}

impl Worker {
    async fn speak(&mut self, request: &wire::Request, data: &[u8], limits: &Limits) -> io::Result<Vec<u8>> {
        let request = serde_json::to_vec(request)?;
        self.socket.write_all(&(request.len() as u64).to_le_bytes()).await?;
        self.socket.write_all(&request).await?;
        self.socket.write_all(&(data.len() as u64).to_le_bytes()).await?;
        self.socket.write_all(data).await?;
        let length = self.socket.read_u64_le().await?;
        if length > (limits.text.saturating_mul(JSON) as u64).saturating_add(BLOCKS) {
            return Err(io::Error::other("the answer is too long"));
        }
        let mut answer = Vec::new();
        (&mut self.socket).take(length).read_to_end(&mut answer).await?;
        if (answer.len() as u64) < length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(answer)
    }

    /// What it means that the process fell silent.
    async fn end(&mut self, error: io::Error) -> llama_stack_core::Error {
        use std::os::unix::process::ExitStatusExt as _;
        match tokio::time::timeout(ENDING, self.child.wait()).await {
            // It ran out of memory or of stack, whose guards abort it.
            Ok(Ok(status)) if status.signal().is_some() => failure::limits("memory").with_source(error),
            _ => broken(error),
        }
    }
}
