//! What was acknowledged and may not be in the shard's files yet: written and synced before anything is acknowledged, read
//! again at the opening, emptied once the shard has flushed.
//!
//! A record is its length, the beginning of its SHA-256, and the change. One that was cut off was never acknowledged.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
};

use llama_stack_proto::v1::Chunk;
use prost::Message;
use sha2::{Digest as _, Sha256};

use crate::engine::Change;

/// Length and hash.
const HEAD: usize = 4 + 8;

pub(super) struct Journal {
    file: File,
    length: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(enumeration = "Kind", tag = "1")]
    kind: i32,
    #[prost(string, repeated, tag = "2")]
    documents: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    chunks: Vec<Chunk>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum Kind {
    None = 0,
    Upsert = 1,
    Replace = 2,
    Delete = 3,
}

impl Journal {
    /// With the changes that it holds, in their order.
    pub(super) fn open(path: &Path) -> io::Result<(Self, Vec<Change>)> {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let (mut changes, mut rest) = (Vec::new(), bytes.as_slice());
        while let Some((change, after)) = read(rest) {
            changes.push(change);
            rest = after;
        }
        let length = (bytes.len() - rest.len()) as u64;
        if !rest.is_empty() {
            file.set_len(length)?;
        }
        file.seek(SeekFrom::Start(length))?;
        Ok((Self { file, length }, changes))
    }

    /// All of them under one sync, or none.
    pub(super) fn append<'a>(&mut self, changes: impl Iterator<Item = &'a Change>) -> io::Result<()> {
        let mut bytes = Vec::new();
        changes.for_each(|change| write(change, &mut bytes));
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => self.length += bytes.len() as u64,
            Err(_) => {
                self.file.set_len(self.length)?;
                self.file.seek(SeekFrom::Start(self.length))?;
            }
        }
        written
    }

    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.length = 0;
        self.file.sync_data()
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }
}

fn write(change: &Change, bytes: &mut Vec<u8>) {
    let record = match change.clone() {
        Change::Upsert(chunks) => Record { kind: Kind::Upsert.into(), documents: Vec::new(), chunks },
        Change::Replace(document, chunks) => Record { kind: Kind::Replace.into(), documents: vec![document], chunks },
        Change::Delete(documents) => Record { kind: Kind::Delete.into(), documents, chunks: Vec::new() },
    };
    let body = record.encode_to_vec();
    bytes.extend((body.len() as u32).to_le_bytes());
    bytes.extend(&Sha256::digest(&body)[..8]);
    bytes.extend(body);
}

/// The first record, and what comes after it.
fn read(bytes: &[u8]) -> Option<(Change, &[u8])> {
    let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let body = bytes.get(HEAD..HEAD.checked_add(length)?)?;
    if Sha256::digest(body)[..8] != bytes[4..HEAD] {
        return None;
    }
    let Record { kind, mut documents, chunks } = Record::decode(body).ok()?;
    let change = match Kind::try_from(kind).ok()? {
        Kind::Upsert => Change::Upsert(chunks),
        Kind::Replace => Change::Replace(documents.pop()?, chunks),
        Kind::Delete => Change::Delete(documents),
        Kind::None => return None,
    };
    Some((change, &bytes[HEAD + length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(n: u32) -> Change {
        Change::Upsert(vec![Chunk { id: n.to_string(), index: n, vector: vec![1.0, 2.0], ..Chunk::default() }])
    }

    #[test]
    fn a_record_that_was_cut_off_is_not_there_and_the_next_follows_the_last_whole_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let all = [change(1), Change::Replace("d".into(), vec![]), Change::Delete(vec!["a".into(), "b".into()])];
        let (mut journal, there) = Journal::open(&path).unwrap();
        assert_eq!(there, []);
        journal.append(all.iter()).unwrap();
        let whole = journal.length();
        journal.append([change(2)].iter()).unwrap();
        for cut in [1, 4, 13] {
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(whole + cut).unwrap();
            let (mut journal, there) = Journal::open(&path).unwrap();
            assert_eq!(there, all);
            journal.append([change(3)].iter()).unwrap();
            assert_eq!(Journal::open(&path).unwrap().1[3], change(3));
        }
    }
}
