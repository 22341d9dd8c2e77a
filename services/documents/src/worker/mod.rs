//! Files are read by processes of their own: one file each, bounded in memory and time, and killed with whoever waits.
//!
//! ```text
//! Workers ─ socket on the child's standard input ─> serve: limits ─ header, bytes ─ parse ─┐
//!    └──────────────────── what was read, or why not <───────────────────────────────────┘
//! ```

mod pool;
mod serve;
mod wire;

use std::{ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use llama_stack_core::{Error, Result};
use tokio_util::task::TaskTracker;

use crate::{
    Parse, Parsed, failure,
    parse::{self, Format},
};
use pool::Pool;

pub use serve::serve;

/// The verb with which this project's binary reads one file and ends.
pub const WORKER_VERB: &str = "parse-worker";

const PROGRAM: &str = "llama-stack";

/// Plain text of at most this many bytes is read here: it takes no longer than a process takes to begin.
const PLAIN: usize = 1 << 20;

/// What reading one file may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of the file.
    pub input: u64,
    /// Bytes of memory that the process may ask for.
    pub memory: u64,
    /// From the first byte to the last, however busy the machine is.
    pub time: Duration,
    /// Bytes of text that come out.
    pub text: usize,
    /// Files that are read at once; others wait.
    pub at_once: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { input: 128 << 20, memory: 1 << 30, time: Duration::from_secs(60), text: 32 << 20, at_once: 2 }
    }
}

/// Reads files in processes of their own. Cheap to clone.
#[derive(Clone)]
pub struct Workers {
    pool: Arc<Pool>,
    limits: Limits,
    tasks: TaskTracker,
}

impl Workers {
    /// `program` with `arguments` must call [`serve`], and nothing before that reads or prints.
    pub fn new(program: impl Into<PathBuf>, arguments: &[&str], limits: Limits) -> Self {
        let arguments = arguments.iter().map(OsString::from).collect();
        let pool = Arc::new(Pool::new(program.into(), arguments, limits.at_once));
        Self { pool, limits, tasks: TaskTracker::new() }
    }
}

/// Reads files by the program that is running, where that is this project's own.
///
/// Any other program, such as a test's, reads them itself: see [`InProcess`].
pub fn parser(limits: Limits) -> Arc<dyn Parse> {
    match std::env::current_exe() {
        Ok(running) if running.file_stem().is_some_and(|name| name == PROGRAM) => Arc::new(Workers::new(running, &[WORKER_VERB], limits)),
        _ => Arc::new(InProcess::new(limits)),
    }
}

#[async_trait]
impl Parse for Workers {
    async fn parse(&self, filename: &str, media_type: &str, data: Bytes) -> Result<Parsed> {
        check_size(&data, &self.limits)?;
        if data.len() <= PLAIN && Format::of(filename, media_type, &data).is_ok_and(Format::is_plain) {
            return here(&self.tasks, &self.limits, filename, media_type, data).await;
        }
        let request =
            wire::Request { filename: filename.into(), media_type: media_type.into(), text: self.limits.text, memory: self.limits.memory };
        self.pool.read(&request, &data, &self.limits).await
    }
}

/// Reads files in this process, for programs that have no other and trust what they read: nothing but the bounds on bytes
/// is kept, and a file that takes all memory takes the program's.
pub struct InProcess {
    limits: Limits,
    tasks: TaskTracker,
}

impl InProcess {
    pub fn new(limits: Limits) -> Self {
        Self { limits, tasks: TaskTracker::new() }
    }
}

#[async_trait]
impl Parse for InProcess {
    async fn parse(&self, filename: &str, media_type: &str, data: Bytes) -> Result<Parsed> {
        check_size(&data, &self.limits)?;
        here(&self.tasks, &self.limits, filename, media_type, data).await
    }
}

fn check_size(data: &Bytes, limits: &Limits) -> Result<()> {
    let bytes = data.len() as u64;
    if bytes > limits.input { Err(failure::too_large(bytes, limits.input)) } else { Ok(()) }
}

async fn here(tasks: &TaskTracker, limits: &Limits, filename: &str, media_type: &str, data: Bytes) -> Result<Parsed> {
    let (filename, media_type, text) = (filename.to_owned(), media_type.to_owned(), limits.text);
    let reading = tasks.spawn_blocking(move || parse::parse(&filename, &media_type, &data, text));
    reading.await.unwrap_or_else(|broken| Err(failure::malformed("file of its kind", "its reader failed").with_source(broken)))
}

/// What went wrong between the two processes.
fn broken(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::internal("a process that reads files could not be run").with_reason("parser_failed").with_source(error)
}
