//! What was acknowledged and is not yet in the engine's own files.
//!
//! The engine's log is not replayed when a shard is opened again, and a flush while an index is being built does not reach
//! what was deleted meanwhile. So every change is written here and synced before it is acknowledged, and read again when the
//! shard is opened; what a flush of the whole shard has made durable is cut off. Playing a change twice changes nothing.
//!
//! A record is `length: u32 | CRC-32 of the rest: u32 | kind: u8 | protobuf`, little-endian. What a crash cut short at the end
//! was never acknowledged, and is cut off.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use llama_stack_proto::v1::{Chunk, DeleteDocumentsRequest, InsertChunksRequest};
use prost::Message as _;

const HEAD: usize = 8;

/// A change of a shard.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change {
    Upsert(Vec<Chunk>),
    /// Of documents.
    Delete(Vec<String>),
}

impl Change {
    pub(crate) fn encode(self) -> (Self, Vec<u8>) {
        let (kind, message, change) = match self {
            Self::Upsert(chunks) => {
                let request = InsertChunksRequest { chunks, ..InsertChunksRequest::default() };
                (0, request.encode_to_vec(), Self::Upsert(request.chunks))
            }
            Self::Delete(document_ids) => {
                let request = DeleteDocumentsRequest { document_ids, ..DeleteDocumentsRequest::default() };
                (1, request.encode_to_vec(), Self::Delete(request.document_ids))
            }
        };
        let mut record = vec![0; HEAD];
        record.push(kind);
        record.extend(message);
        let length = u32::try_from(record.len() - HEAD).unwrap_or(u32::MAX);
        let check = crc32fast::hash(&record[HEAD..]);
        record[..4].copy_from_slice(&length.to_le_bytes());
        record[4..HEAD].copy_from_slice(&check.to_le_bytes());
        (change, record)
    }

    fn decode(body: &[u8]) -> io::Result<Self> {
        let wrong = |cause: &str| io::Error::new(io::ErrorKind::InvalidData, cause.to_owned());
        match body.split_first() {
            Some((0, message)) => {
                InsertChunksRequest::decode(message).map(|request| Self::Upsert(request.chunks)).map_err(|error| wrong(&error.to_string()))
            }
            Some((1, message)) => DeleteDocumentsRequest::decode(message)
                .map(|request| Self::Delete(request.document_ids))
                .map_err(|error| wrong(&error.to_string())),
            _ => Err(wrong("a record of a kind that this program does not know")),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Journal {
    file: File,
    path: PathBuf,
    length: u64,
}

impl Journal {
    /// Opens it and plays each of its records.
    ///
    /// # Errors
    /// What the disk or `play` says; `InvalidData` for a whole record that cannot be read.
    pub(crate) fn open(path: &Path, mut play: impl FnMut(Change) -> io::Result<()>) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let all = file.metadata()?.len();
        let mut reader = io::BufReader::new(&mut file);
        let (mut length, mut body) = (0, Vec::new());
        while let Some(record) = next(&mut reader, all - length, &mut body)? {
            play(Change::decode(&body)?)?;
            length += record;
        }
        drop(reader);
        let mut journal = Self { file, path: path.to_owned(), length };
        journal.cut(length)?;
        Ok(journal)
    }

    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    /// Returns once the records would survive power loss. After an error none of them is there.
    pub(crate) fn append(&mut self, records: &[&[u8]]) -> io::Result<()> {
        let before = self.length;
        let mut write = || {
            for record in records {
                self.file.write_all(record)?;
                self.length += record.len() as u64;
            }
            self.file.sync_data()
        };
        match write() {
            Ok(()) => Ok(()),
            Err(error) => {
                self.cut(before)?;
                Err(error)
            }
        }
    }

    /// Leaves the first `length` bytes.
    pub(crate) fn cut(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.file.seek(SeekFrom::Start(length))?;
        self.length = length;
        self.file.sync_data()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Reads a record's body and says how long the record is; `None` at the end, and where the rest is no whole record.
fn next(reader: &mut impl io::Read, left: u64, body: &mut Vec<u8>) -> io::Result<Option<u64>> {
    if left < HEAD as u64 {
        return Ok(None);
    }
    let mut head = [0; HEAD];
    reader.read_exact(&mut head)?;
    let [a, b, c, d, e, f, g, h] = head;
    let (length, check) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
    if length == 0 || u64::from(length) > left - HEAD as u64 {
        return Ok(None);
    }
    body.clear();
    reader.take(u64::from(length)).read_to_end(body)?;
    Ok((crc32fast::hash(body) == check).then_some(HEAD as u64 + u64::from(length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &Path) -> (Journal, Vec<Change>) {
        let mut changes = Vec::new();
        let journal = Journal::open(path, |change| {
            changes.push(change);
            Ok(())
        });
        (journal.unwrap(), changes)
    }

    fn changes() -> Vec<Change> {
        let chunk = Chunk { id: "c".into(), text: "words".into(), vector: vec![1.0, 2.0], ..Chunk::default() };
        vec![Change::Upsert(vec![chunk.clone()]), Change::Delete(vec!["d".into()]), Change::Upsert(vec![chunk])]
    }

    #[test]
    fn what_was_appended_is_played_again_and_what_was_cut_off_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let (mut journal, none) = read(&path);
        assert_eq!(none, []);
        let records: Vec<Vec<u8>> = changes().into_iter().map(|change| change.encode().1).collect();
        journal.append(&records.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
        assert_eq!(read(&path).1, changes());
        journal.cut(0).unwrap();
        assert_eq!(read(&path).1, []);
    }

    #[test]
    fn a_record_that_was_cut_short_anywhere_takes_none_before_it_along() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let records: Vec<Vec<u8>> = changes().into_iter().map(|change| change.encode().1).collect();
        let whole = records.concat();
        for end in 0..whole.len() {
            std::fs::write(&path, &whole[..end]).unwrap();
            let there = (0..=3).rev().find(|count| records[..*count].concat().len() <= end).unwrap();
            let (mut journal, found) = read(&path);
            assert_eq!(found, changes()[..there], "cut at {end}");
            journal.append(&[&records[1]]).unwrap();
            assert_eq!(read(&path).1.len(), there + 1);
        }
        let mut torn = whole.clone();
        torn[records[0].len() + HEAD] ^= 1;
        std::fs::write(&path, torn).unwrap();
        assert_eq!(read(&path).1, changes()[..1]);
    }
}
