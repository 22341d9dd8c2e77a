//! The lines of an input file, as they come.

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt};
use llama_stack_core::{Code, Context, Error, EventStream, Files, Result};
use llama_stack_proto::v1::{FileChunk, GetFileRequest};

/// Of one line: more than any body that the port takes by default.
const MAX_LINE: usize = 32 << 20;

/// A line that is not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// In the file, from 1; empty lines count.
    pub(crate) number: u64,
    pub(crate) text: Bytes,
}

/// # Errors
/// As the file's: `NotFound` it is gone · `DataLoss`
pub(crate) async fn open(files: &dyn Files, cx: &Context, id: &str) -> Result<EventStream<Line>> {
    let chunks = files.download_file(cx, GetFileRequest { id: id.to_owned() }).await?;
    Ok(Box::pin(lines(chunks)))
}

fn lines(mut chunks: EventStream<FileChunk>) -> impl Stream<Item = Result<Line>> + Send {
    async_stream::try_stream! {
        let (mut rest, mut number) = (BytesMut::new(), 0);
        loop {
            let chunk = chunks.next().await.transpose()?;
            let is_last = chunk.is_none();
            let looked_at = rest.len();
            rest.extend_from_slice(&chunk.map(|chunk| chunk.data).unwrap_or_default());
            let mut from = looked_at;
            while let Some(at) = rest[from..].iter().position(|byte| *byte == b'\n') {
                let line = rest.split_to(from + at + 1).freeze();
                from = 0;
                number += 1;
                if let Some(text) = trimmed(&line, number) {
                    yield Line { number, text };
                }
            }
            if rest.len() > MAX_LINE {
                let message = format!("line {} is longer than {} MiB, which is the most", number + 1, MAX_LINE >> 20);
                Err(Error::new(Code::TooLarge, message).with_reason("line_too_long"))?;
            }
            if is_last {
                break;
            }
        }
        if let Some(text) = trimmed(&rest.freeze(), number + 1) {
            yield Line { number: number + 1, text };
        }
    }
}

/// Without white space around it, and without the mark that some editors write at the beginning of a file.
fn trimmed(line: &Bytes, number: u64) -> Option<Bytes> {
    let text = if number == 1 { line.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(line) } else { line };
    let text = text.trim_ascii();
    (!text.is_empty()).then(|| line.slice_ref(text))
}

#[cfg(test)]
mod tests {
    use futures::{TryStreamExt, stream};

    use super::*;

    async fn read(pieces: &[&str]) -> Vec<(u64, String)> {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok(FileChunk { data: piece.as_bytes().to_vec() })).collect();
        let read: Vec<Line> = lines(Box::pin(stream::iter(pieces))).try_collect().await.unwrap();
        read.into_iter().map(|line| (line.number, String::from_utf8(line.text.to_vec()).unwrap())).collect()
    }

    #[tokio::test]
    async fn lines_do_not_care_how_the_file_was_cut() {
        let whole = "\u{FEFF}{\"a\":1}\r\n\n{\"b\":2}\n{\"c\":3}";
        let wanted = vec![(1, r#"{"a":1}"#.to_owned()), (3, r#"{"b":2}"#.to_owned()), (4, r#"{"c":3}"#.to_owned())];
        assert_eq!(read(&[whole]).await, wanted);
        let (one, other) = whole.split_at(14);
        assert_eq!(read(&[one, other, "\n"]).await, wanted);
        let bytes: Vec<String> = whole.chars().map(String::from).collect();
        assert_eq!(read(&bytes.iter().map(String::as_str).collect::<Vec<_>>()).await, wanted);
        assert!(read(&["", "\n \n"]).await.is_empty());
    }
}
