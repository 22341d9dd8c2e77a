//! Server-sent events, out of bytes that may be cut anywhere.
//!
//! Source: the HTML standard, "Parsing an event stream". Lines end with LF, CRLF or CR; a blank line ends an event. The one
//! liberty taken: an event that the end of the stream cuts off before its blank line counts.

use bytes::{Bytes, BytesMut};

use llama_stack_core::{Error, Result};

/// Bounds a server that never ends its line, or its event.
const MAX_EVENT: usize = 16 << 20;

/// One event. `data` shares the memory of what was received.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Its name was `error`.
    pub(super) error: bool,
    pub(super) data: Bytes,
}

#[derive(Default)]
pub(super) struct Decoder {
    /// Received and not yet read: the beginning of a line, mostly nothing.
    rest: Bytes,
    /// How much of `rest` is known to hold no end of a line.
    seen: usize,
    /// The last line ended with CR: a LF now belongs to it.
    after_cr: bool,
    started: bool,
    error: bool,
    data: Option<Bytes>,
}

impl Decoder {
    /// # Errors
    /// `Unavailable` for an event that goes on beyond all measure.
    pub(super) fn push(&mut self, chunk: Bytes) -> Result<()> {
        if self.rest.is_empty() {
            self.rest = chunk;
        } else {
            let mut joined = BytesMut::from(std::mem::take(&mut self.rest));
            joined.extend_from_slice(&chunk);
            self.rest = joined.freeze();
        }
        let kept = self.data.as_ref().map_or(0, Bytes::len);
        if self.rest.len().saturating_sub(self.seen) > MAX_EVENT || self.seen > MAX_EVENT || kept > MAX_EVENT {
            return Err(Error::unavailable("the upstream sent an event of more than 16 MiB").with_reason("upstream_malformed"));
        }
        Ok(())
    }

    /// The next whole event, if it has been received.
    pub(super) fn next(&mut self) -> Option<Event> {
        while let Some(line) = self.line() {
            if line.is_empty() {
                if let Some(event) = self.event() {
                    return Some(event);
                }
            } else {
                self.field(&line);
            }
        }
        None
    }

    /// After the last byte: what was left unended.
    pub(super) fn end(&mut self) -> Option<Event> {
        let last = std::mem::take(&mut self.rest);
        self.seen = 0;
        if !last.is_empty() {
            self.field(&last);
        }
        self.event()
    }

    fn event(&mut self) -> Option<Event> {
        let error = std::mem::take(&mut self.error);
        self.data.take().map(|data| Event { error, data })
    }

    /// The next line without its end.
    fn line(&mut self) -> Option<Bytes> {
        if self.after_cr && !self.rest.is_empty() {
            self.after_cr = false;
            if self.rest[0] == b'\n' {
                self.rest = self.rest.slice(1..);
            }
        }
        let Some(at) = self.rest[self.seen..].iter().position(|b| *b == b'\n' || *b == b'\r') else {
            self.seen = self.rest.len();
            return None;
        };
        let mut line = self.rest.split_to(self.seen + at);
        self.after_cr = self.rest[0] == b'\r';
        self.rest = self.rest.slice(1..);
        self.seen = 0;
        if !std::mem::replace(&mut self.started, true) && line.starts_with(b"\xEF\xBB\xBF") {
            line = line.slice(3..);
        }
        Some(line)
    }

    /// Comments, ids and retry times are of no use here.
    fn field(&mut self, line: &Bytes) {
        let (name, value) = match line.iter().position(|b| *b == b':') {
            Some(colon) => (&line[..colon], line.slice(colon + 1..)),
            None => (&line[..], Bytes::new()),
        };
        let value = if value.starts_with(b" ") { value.slice(1..) } else { value };
        match name {
            b"data" => {
                self.data = Some(match self.data.take() {
                    None => value,
                    Some(before) => {
                        let mut joined = BytesMut::from(before);
                        joined.extend_from_slice(b"\n");
                        joined.extend_from_slice(&value);
                        joined.freeze()
                    }
                });
            }
            b"event" => self.error = &value[..] == b"error",
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With every kind of line there is, and characters of several bytes.
    const STREAM: &str = "\u{FEFF}: hello\n\ndata: {\"a\":1}\n\nevent: error\r\ndata: erreur é\r\n\r\nid: 7\rdata:tight\rdata:  two 🦀\r\rretry: 5\n\ndata\n\ndata: [DONE]";

    fn expected() -> Vec<(bool, &'static str)> {
        vec![(false, "{\"a\":1}"), (true, "erreur é"), (false, "tight\n two 🦀"), (false, ""), (false, "[DONE]")]
    }

    fn decode<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Vec<(bool, String)> {
        let (mut decoder, mut events) = (Decoder::default(), Vec::new());
        for chunk in chunks {
            decoder.push(Bytes::copy_from_slice(chunk)).unwrap();
            events.extend(std::iter::from_fn(|| decoder.next()));
        }
        events.extend(decoder.end());
        events.into_iter().map(|event| (event.error, String::from_utf8(event.data.to_vec()).unwrap())).collect()
    }

    fn as_expected(events: &[(bool, String)]) {
        let events: Vec<(bool, &str)> = events.iter().map(|(error, data)| (*error, data.as_str())).collect();
        assert_eq!(events, expected());
    }

    #[test]
    fn a_stream_reads_the_same_however_it_is_cut() {
        let bytes = STREAM.as_bytes();
        as_expected(&decode(std::iter::once(bytes)));
        as_expected(&decode(bytes.chunks(1)));
        for first in 0..=bytes.len() {
            for second in first..=bytes.len() {
                as_expected(&decode([&bytes[..first], &bytes[first..second], &bytes[second..]].into_iter()));
            }
        }
    }

    /// Whoever reads asks for the next one after each, also after the last.
    #[test]
    fn nothing_comes_after_a_line_that_was_cut_off() {
        let mut decoder = Decoder::default();
        decoder.push(Bytes::from_static(b"data: cut")).unwrap();
        assert_eq!(decoder.next(), None);
        assert_eq!(decoder.end().unwrap().data, "cut");
        assert_eq!((decoder.next(), decoder.end()), (None, None));
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut decoder = Decoder::default();
        let chunk = Bytes::from(vec![b'x'; 1 << 20]);
        let refused = (0..40).find_map(|_| {
            let pushed = decoder.push(chunk.clone()).err();
            decoder.next();
            pushed
        });
        assert_eq!(refused.unwrap().reason(), Some("upstream_malformed"));
    }

    #[test]
    fn an_event_of_endless_lines_is_refused() {
        let mut decoder = Decoder::default();
        let chunk = Bytes::from(format!("data: {}\n", "x".repeat(1 << 20)));
        let refused = (0..40).find_map(|_| {
            let pushed = decoder.push(chunk.clone()).err();
            decoder.next();
            pushed
        });
        assert_eq!(refused.unwrap().reason(), Some("upstream_malformed"));
    }
}
