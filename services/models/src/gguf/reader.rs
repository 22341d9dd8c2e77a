//! Little-endian numbers and strings out of a file that may lie about its lengths.

use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};

use llama_stack_core::{Error, Result};

use super::{invalid, truncated};

/// Headers are some megabytes; one longer than this is not walked through.
const LONGEST_HEADER: u64 = 256 << 20;

pub(super) struct Reader<R> {
    inner: BufReader<R>,
    position: u64,
    len: u64,
}

impl<R: Read + Seek> Reader<R> {
    pub(super) fn new(inner: R, len: u64) -> Self {
        Self { inner: BufReader::with_capacity(256 << 10, inner), position: 0, len }
    }

    /// Of the file.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Fails unless `count` more bytes are there.
    fn claim(&mut self, count: u64) -> Result<()> {
        let end = self.position.saturating_add(count);
        if end > self.len {
            return Err(truncated(end, self.len));
        }
        if end > LONGEST_HEADER {
            return Err(invalid(format!("its header is longer than {LONGEST_HEADER} bytes")));
        }
        self.position = end;
        Ok(())
    }

    pub(super) fn bytes<const N: usize>(&mut self) -> Result<[u8; N]> {
        self.claim(N as u64)?;
        let mut bytes = [0; N];
        self.inner.read_exact(&mut bytes).map_err(broken)?;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    pub(super) fn skip(&mut self, count: u64) -> Result<()> {
        self.claim(count)?;
        let forward = i64::try_from(count).map_err(|_| truncated(u64::MAX, self.len))?;
        self.inner.seek_relative(forward).map_err(broken)
    }

    /// At most `longest` bytes, else the file is refused; what is not UTF-8 is replaced.
    pub(super) fn string(&mut self, what: &str, longest: u64) -> Result<String> {
        let length = self.u64()?;
        self.claim(length)?;
        if length > longest {
            return Err(invalid(format!("{what} is {length} bytes long; {longest} are the most")));
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| truncated(u64::MAX, self.len))?];
        self.inner.read_exact(&mut bytes).map_err(broken)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    pub(super) fn skip_string(&mut self) -> Result<()> {
        let length = self.u64()?;
        self.skip(length)
    }

    pub(super) fn seek(&mut self, position: u64) -> Result<()> {
        self.position = position;
        self.inner.seek(SeekFrom::Start(position)).map(drop).map_err(broken)
    }
}

fn broken(cause: std::io::Error) -> Error {
    let what = if cause.kind() == ErrorKind::UnexpectedEof { "became shorter while it was read" } else { "cannot be read" };
    Error::internal(what).with_source(cause)
}
