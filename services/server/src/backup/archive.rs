//! The archive: a tar whose last members say what the others are.
//!
//! ```text
//! manifest.json · database/… · banks/… · files/… · backup.json (every member's length and SHA-256) · backup.json.sha256
//! ```

use std::{
    collections::HashSet,
    fs::File,
    io::{BufReader, Read},
    path::Path,
};

use llama_stack_core::{Code, Error, Result, ids};
use llama_stack_proto::v1::BackupChunk;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::{io::AsyncReadExt as _, sync::mpsc};

use super::sealed::{BackupKey, opened};

/// The newest form of archives. The second has members of changed documents, which who knows the first only takes for chunks.
const FORMAT: u32 = 2;
/// What a bank's documents that were changed meanwhile are called.
pub(super) const CHANGED: &str = "changed.documents";
pub(super) const CONTENTS: &str = "backup.json";
const HASH: &str = "backup.json.sha256";
/// Of tar.
const BLOCK: usize = 512;
/// Bytes that are handed on at a time.
const PIECE: usize = 256 << 10;

/// What an archive has, and of what.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Contents {
    pub format: u32,
    /// The distribution's name.
    pub name: String,
    /// Of the program that made it.
    pub version: String,
    /// Seconds since 1970.
    pub created: i64,
    /// The changes of tables that the database had had.
    pub migrations: Vec<i64>,
    /// The memory providers whose banks are in it.
    pub memory_providers: Vec<String>,
    /// What of the stack is not in it, for people.
    pub left_out: Vec<String>,
    pub members: Vec<Member>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
    /// Rows, chunks, or 1.
    pub items: u64,
}

/// What the list says beside the members.
pub(super) struct Told {
    pub(super) name: String,
    pub(super) migrations: Vec<i64>,
    pub(super) memory_providers: Vec<String>,
    pub(super) left_out: Vec<String>,
}

impl Contents {
    /// Items of the members whose names begin so.
    pub fn items(&self, prefix: &str) -> u64 {
        self.members.iter().filter(|member| member.name.starts_with(prefix)).map(|member| member.items).sum()
    }

    pub fn bytes(&self) -> u64 {
        self.members.iter().map(|member| member.bytes).sum()
    }
}

/// Writes members into a stream, whose reader decides how fast.
pub(super) struct Writer {
    out: mpsc::Sender<Result<BackupChunk>>,
    members: Vec<Member>,
    created: i64,
}

impl Writer {
    pub(super) fn new(out: mpsc::Sender<Result<BackupChunk>>) -> Self {
        Self { out, members: Vec::new(), created: ids::now().seconds }
    }

    async fn send(&self, data: Vec<u8>) -> Result<()> {
        let gone = |_| Error::new(Code::Cancelled, "nobody reads the backup any more");
        self.out.send(Ok(BackupChunk { data })).await.map_err(gone)
    }

    async fn head(&self, name: &str, bytes: u64) -> Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_path(name).map_err(|error| Error::internal("a member's name is too long").with_source(error))?;
        header.set_size(bytes);
        header.set_mode(0o600);
        header.set_mtime(self.created.unsigned_abs());
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        self.send(header.as_bytes().to_vec()).await
    }

    async fn pad(&self, bytes: u64) -> Result<()> {
        match (bytes % BLOCK as u64) as usize {
            0 => Ok(()),
            over => self.send(vec![0; BLOCK - over]).await,
        }
    }

    /// A member that is in memory.
    pub(super) async fn put(&mut self, name: &str, items: u64, data: &[u8]) -> Result<()> {
        let bytes = data.len() as u64;
        self.head(name, bytes).await?;
        for piece in data.chunks(PIECE) {
            self.send(piece.to_vec()).await?;
        }
        self.pad(bytes).await?;
        self.members.push(Member { name: name.to_owned(), bytes, sha256: hex::encode(Sha256::digest(data)), items });
        Ok(())
    }

    /// A member that is a file of this length.
    pub(super) async fn copy(&mut self, name: &str, file: File, bytes: u64) -> Result<()> {
        self.head(name, bytes).await?;
        let failed = |error| Error::unavailable(format!("{name} cannot be read")).with_reason("disk_failed").with_source(error);
        let (mut file, mut hash, mut left) = (tokio::fs::File::from_std(file), Sha256::new(), bytes);
        while left > 0 {
            let mut piece = vec![0; PIECE.min(usize::try_from(left).unwrap_or(PIECE))];
            let read = file.read(&mut piece).await.map_err(failed)?;
            if read == 0 {
                return Err(Error::new(Code::DataLoss, format!("{name} became shorter while it was read")));
            }
            piece.truncate(read);
            hash.update(&piece);
            left -= read as u64;
            self.send(piece).await?;
        }
        self.pad(bytes).await?;
        self.members.push(Member { name: name.to_owned(), bytes, sha256: hex::encode(hash.finalize()), items: 1 });
        Ok(())
    }

    /// The list of all members, and the end.
    pub(super) async fn end(mut self, told: Told) -> Result<()> {
        let Told { name, migrations, memory_providers, left_out } = told;
        let members = std::mem::take(&mut self.members);
        let version = env!("CARGO_PKG_VERSION").to_owned();
        // Others stay readable for older programs.
        let format = if members.iter().any(|member| member.name.ends_with(CHANGED)) { FORMAT } else { 1 };
        let contents = Contents { format, name, version, created: self.created, migrations, memory_providers, left_out, members };
        let text = serde_json::to_vec_pretty(&contents).map_err(|error| Error::internal("the list is no JSON").with_source(error))?;
        self.put(CONTENTS, 1, &text).await?;
        self.put(HASH, 1, hex::encode(Sha256::digest(&text)).as_bytes()).await?;
        self.send(vec![0; 2 * BLOCK]).await
    }
}

fn bad(message: String) -> Error {
    Error::new(Code::DataLoss, message).with_reason("bad_backup")
}

/// An archive's members in their order, read to the end and compared with its list. Takes time.
///
/// # Errors
/// `NotFound` no such file · `DataLoss` for one that is cut off or altered, with the member's name · `FailedPrecondition` for a
/// form that this program does not know, and for a sealed one without its key.
pub fn verify(path: &Path, key: Option<&BackupKey>) -> Result<Contents> {
    let mut archive = open(path, key)?;
    let (mut read, mut contents, mut hash, mut last) = (Vec::new(), None, None, String::new());
    let foreign = || bad(format!("{} is no archive that `llama-stack backup` wrote, or its beginning was altered", path.display()));
    let broken = |last: &str, error: &std::io::Error| match last {
        // Of what is no tar, that says the bytes.
        "" if error.kind() == std::io::ErrorKind::Other => foreign(),
        "" => bad(format!("the archive cannot be read: {error}")),
        last => bad(format!("the archive cannot be read after {last}: {error}")),
    };
    for entry in archive.entries().map_err(|error| broken(&last, &error))? {
        let mut entry = entry.map_err(|error| broken(&last, &error))?;
        let name = entry.path().map_err(|error| broken(&last, &error))?.display().to_string();
        let (told, mut digest, mut bytes, mut kept) = (entry.size(), Sha256::new(), 0, Vec::new());
        let keeps = name == CONTENTS || name == HASH;
        let mut piece = vec![0; PIECE];
        loop {
            let count = entry.read(&mut piece).map_err(|error| bad(format!("{name} cannot be read: {error}")))?;
            if count == 0 {
                break;
            }
            digest.update(&piece[..count]);
            bytes += count as u64;
            if keeps {
                kept.extend_from_slice(&piece[..count]);
            }
        }
        if bytes != told {
            return Err(bad(format!("{name} is cut off: the archive has {bytes} of its {told} bytes")));
        }
        let sha256 = hex::encode(digest.finalize());
        match name.as_str() {
            CONTENTS => contents = Some((kept, sha256)),
            HASH => hash = Some(String::from_utf8_lossy(&kept).into_owned()),
            _ => read.push((name.clone(), bytes, sha256)),
        }
        last = name;
    }
    let missing = |what: &str| match last.as_str() {
        "" => foreign(),
        last => bad(format!("the archive is cut off after {last}: it has no {what}")),
    };
    let (text, sha256) = contents.ok_or_else(|| missing(CONTENTS))?;
    if hash.ok_or_else(|| missing(HASH))? != sha256 {
        return Err(bad(format!("{CONTENTS} was altered: it has another hash than {HASH} says")));
    }
    let contents: Contents = serde_json::from_slice(&text).map_err(|error| bad(format!("{CONTENTS} is none: {error}")))?;
    if !(1..=FORMAT).contains(&contents.format) {
        let message = format!("the archive has form {}, and this program knows 1 to {FORMAT}", contents.format);
        return Err(Error::failed_precondition(message).with_reason("backup_too_new"));
    }
    compare(&contents, &read)?;
    Ok(contents)
}

fn compare(contents: &Contents, read: &[(String, u64, String)]) -> Result<()> {
    for (told, (name, bytes, sha256)) in contents.members.iter().zip(read) {
        if &told.name != name {
            return Err(bad(format!("{name} stands where {} should", told.name)));
        }
        if (told.bytes, &told.sha256) != (*bytes, sha256) {
            return Err(bad(format!("{name} was altered: it has another hash than {CONTENTS} says")));
        }
    }
    let listed: HashSet<&str> = contents.members.iter().map(|member| member.name.as_str()).collect();
    match (contents.members.get(read.len()), read.get(contents.members.len())) {
        (Some(missing), _) => Err(bad(format!("{} is missing", missing.name))),
        (None, Some((more, ..))) => Err(bad(format!("{more} is not in {CONTENTS}"))),
        (None, None) if listed.len() < read.len() => Err(bad(format!("a member is in {CONTENTS} twice"))),
        (None, None) => Ok(()),
    }
}

pub(super) fn open(path: &Path, key: Option<&BackupKey>) -> Result<tar::Archive<Box<dyn Read>>> {
    let shown = path.display();
    let file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::not_found(format!("no file {shown}")),
        _ => Error::failed_precondition(format!("{shown} cannot be read: {error}")),
    })?;
    opened(BufReader::with_capacity(PIECE, file), key).map(tar::Archive::new)
}
