//! The other process: it binds itself, reads one file, answers, and ends.

use std::{
    io::{self, Read as _, Write as _},
    os::{fd::AsFd as _, unix::net::UnixStream},
    panic::{AssertUnwindSafe, catch_unwind},
};

use rlimit::Resource;

use super::wire::{Answer, Request};
use crate::{failure, parse};

/// Files that the process may have open: its socket, and what the runtime of the language asks for.
const FILES: u64 = 16;
const MAX_REQUEST: u64 = 1 << 16;

/// Reads one file from the socket that is this process's standard input, and answers there.
///
/// # Errors
/// Whoever asked is gone, or has asked for something else.
pub fn serve() -> io::Result<()> {
    let mut socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    // Before anything of the file is seen.
    let mut length = [0; 8];
    socket.read_exact(&mut length)?;
    let request = read(&mut socket, u64::from_le_bytes(length).min(MAX_REQUEST))?;
    let request: Request = serde_json::from_slice(&request).map_err(io::Error::other)?;
    bind(request.memory)?;
    socket.read_exact(&mut length)?;
    let data = match read(&mut socket, u64::from_le_bytes(length)) {
        // As an allocation that fails does elsewhere.
        Err(error) if error.kind() == io::ErrorKind::OutOfMemory => std::process::abort(),
        data => data?,
    };
    // A reader's defect is the file's failure, and not worth a report on the terminal.
    std::panic::set_hook(Box::new(|_| {}));
    let parsed = catch_unwind(AssertUnwindSafe(|| parse::parse(&request.filename, &request.media_type, &data, request.text)));
    drop(data);
    let parsed = parsed.unwrap_or_else(|_| Err(failure::malformed("file of its kind", "its reader failed")));
    let answer = serde_json::to_vec(&Answer::from(parsed)).map_err(io::Error::other)?;
    socket.write_all(&(answer.len() as u64).to_le_bytes())?;
    socket.write_all(&answer)
}

fn read(socket: &mut UnixStream, length: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    socket.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == length { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// No more memory than was allowed, no files, no traces of a crash. Time is kept by who asked.
fn bind(memory: u64) -> io::Result<()> {
    for (resource, most) in [(Resource::FSIZE, 0), (Resource::CORE, 0), (Resource::NOFILE, FILES)] {
        resource.set(most, most)?;
    }
    // Elsewhere the system does not keep it.
    if cfg!(target_os = "linux") {
        Resource::AS.set(memory, memory)?;
    }
    Ok(())
}
