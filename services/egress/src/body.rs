//! A body as it arrives: unpacked, and no longer than the limit.

use std::io::{self, Write};

use bytes::Bytes;
use flate2::write::MultiGzDecoder;
use http::header::CONTENT_ENCODING;

/// What a body came to.
pub(crate) struct Body {
    pub(crate) bytes: Bytes,
    pub(crate) complete: bool,
}

/// Why it came to nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The connection ended first.
    Broken(reqwest::Error),
    /// It is packed in a way that nobody asked for, or not as it says.
    Unreadable(String),
}

/// Reads until the end or until `limit` bytes are there; what counts is what comes out, so a small body that unpacks to a
/// large one stops as early as a large one.
pub(crate) async fn read(mut response: reqwest::Response, limit: usize) -> Result<Body, Failure> {
    let packing = response.headers().get(CONTENT_ENCODING).map(|value| value.as_bytes().to_ascii_lowercase());
    let mut sink = match packing.as_deref() {
        None | Some(b"" | b"identity") => Sink::Plain(Bounded::new(limit)),
        Some(b"gzip" | b"x-gzip") => Sink::Gzip(Box::new(MultiGzDecoder::new(Bounded::new(limit)))),
        Some(other) => return Err(Failure::Unreadable(format!("in the encoding {:?}, not gzip or none", String::from_utf8_lossy(other)))),
    };
    let (mut empty, mut received) = (true, 0);
    while let Some(chunk) = response.chunk().await.map_err(Failure::Broken)? {
        empty &= chunk.is_empty();
        received += chunk.len();
        let written = sink.write(&chunk);
        // Packed bytes that unpack to nothing must end somewhere, too.
        if sink.bounded().full || received > limit {
            return Ok(Body { bytes: sink.take(), complete: false });
        }
        written.map_err(|_| broken_packing())?;
    }
    // An answer to HEAD says how its body would be packed, and has none.
    if !empty {
        let ended = sink.end();
        if sink.bounded().full {
            return Ok(Body { bytes: sink.take(), complete: false });
        }
        ended.map_err(|_| broken_packing())?;
    }
    Ok(Body { bytes: sink.take(), complete: true })
}

fn broken_packing() -> Failure {
    Failure::Unreadable("in gzip that cannot be unpacked".into())
}

enum Sink {
    Plain(Bounded),
    Gzip(Box<MultiGzDecoder<Bounded>>),
}

impl Sink {
    fn write(&mut self, chunk: &[u8]) -> io::Result<()> {
        match self {
            Sink::Plain(bounded) => bounded.write_all(chunk),
            Sink::Gzip(decoder) => decoder.write_all(chunk),
        }
    }

    fn end(&mut self) -> io::Result<()> {
        match self {
            Sink::Plain(_) => Ok(()),
            Sink::Gzip(decoder) => decoder.try_finish(),
        }
    }

    fn bounded(&self) -> &Bounded {
        match self {
            Sink::Plain(bounded) => bounded,
            Sink::Gzip(decoder) => decoder.get_ref(),
        }
    }

    fn take(self) -> Bytes {
        match self {
            Sink::Plain(bounded) => bounded.bytes.into(),
            Sink::Gzip(mut decoder) => std::mem::take(&mut decoder.get_mut().bytes).into(),
        }
    }
}

/// Takes bytes up to a limit, and fails at the first beyond it.
struct Bounded {
    bytes: Vec<u8>,
    limit: usize,
    full: bool,
}

impl Bounded {
    fn new(limit: usize) -> Self {
        Self { bytes: Vec::new(), limit, full: false }
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = self.limit - self.bytes.len();
        self.bytes.extend_from_slice(&bytes[..room.min(bytes.len())]);
        if bytes.len() > room {
            self.full = true;
            return Err(io::Error::other("the limit is reached"));
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
