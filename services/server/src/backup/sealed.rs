//! An archive that only its key opens: AES-256-GCM over pieces of 64 KiB, each in its place, the last one marked.
//!
//! ```text
//! "llama-stack sealed backup 1\n" · id of the key, 8 bytes · salt, 32 · pieces: up to 65,536 bytes, and the tag, 16
//! key of the file = HKDF-SHA-256(salt, key, all of the above) · nonce = number of the piece, 11 bytes · 1 for the last, else 0
//! ```
//!
//! So nothing can be altered, left out, put elsewhere or cut off without being noticed at that place, and memory is bounded by a piece.

use std::{
    io::{self, BufRead, Read},
    path::Path,
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest, hkdf, rand,
};
use llama_stack_core::{Code, Error, Result};

const MARK: &[u8] = b"llama-stack sealed backup 1\n";
/// Of a key's id.
const ID: usize = 8;
const SALT: usize = 32;
const KEY: usize = 32;
const HEAD: usize = MARK.len() + ID + SALT;
const PIECE: usize = 64 << 10;
const TAG: usize = 16;

/// What archives are sealed with. It is in none of them, and a lost one is lost with all of them.
#[derive(Clone)]
pub struct BackupKey {
    id: [u8; ID],
    key: [u8; KEY],
}

impl BackupKey {
    /// A file whose first line is 64 hexadecimal digits.
    ///
    /// # Errors
    /// `NotFound` no such file · `FailedPrecondition` it cannot be read · `InvalidArgument` it holds no key (`bad_backup_key`). What
    /// it holds is not shown.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let message = format!("the key file {} cannot be read: {error}", path.display());
            let code = match error.kind() {
                io::ErrorKind::NotFound => Code::NotFound,
                io::ErrorKind::IsADirectory | io::ErrorKind::InvalidData => Code::InvalidArgument,
                _ => Code::FailedPrecondition,
            };
            Error::new(code, message).with_field("key-file").with_source(error)
        })?;
        Self::parse(text.lines().next().unwrap_or_default().trim())
    }

    fn parse(text: &str) -> Result<Self> {
        let mut key = [0; KEY];
        hex::decode_to_slice(text, &mut key).map_err(|_| {
            let message = "the key of a backup must be 64 hexadecimal digits: `openssl rand -hex 32` makes one";
            Error::invalid("key-file", message).with_reason("bad_backup_key")
        })?;
        let hash = digest::digest(&digest::SHA256, &[b"llama-stack backup key id".as_slice(), &key].concat());
        let mut id = [0; ID];
        id.copy_from_slice(&hash.as_ref()[..ID]);
        Ok(Self { id, key })
    }

    /// The key of one file, by its head.
    fn of_file(&self, head: &[u8]) -> Result<LessSafeKey> {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, &head[MARK.len() + ID..]);
        let broken = |_| Error::internal("the key of a backup cannot be used");
        let key = UnboundKey::from(salt.extract(&self.key).expand(&[head], &AES_256_GCM).map_err(broken)?);
        Ok(LessSafeKey::new(key))
    }
}

fn nonce(number: u64, is_last: bool) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[3..11].copy_from_slice(&number.to_be_bytes());
    nonce[11] = u8::from(is_last);
    Nonce::assume_unique_for_key(nonce)
}

/// Seals a stream of bytes: what its methods return is to be written, in their order.
pub struct Sealing {
    key: LessSafeKey,
    number: u64,
    /// The piece that is not full yet, or full and perhaps the last.
    piece: Vec<u8>,
}

impl Sealing {
    /// With the head of the archive.
    ///
    /// # Errors
    /// `Internal` the machine gives no random bytes.
    pub fn begin(key: &BackupKey) -> Result<(Self, Vec<u8>)> {
        let mut salt = [0; SALT];
        rand::fill(&mut salt).map_err(|_| Error::internal("there are no random bytes to seal a backup with"))?;
        let head = [MARK, &key.id, &salt].concat();
        Ok((Self { key: key.of_file(&head)?, number: 0, piece: Vec::with_capacity(PIECE + TAG) }, head))
    }

    /// # Errors
    /// `Internal`, as no key that there is gives.
    pub fn push(&mut self, mut data: &[u8]) -> Result<Vec<u8>> {
        let mut sealed = Vec::new();
        while !data.is_empty() {
            if self.piece.len() == PIECE {
                self.seal(false, &mut sealed)?;
            }
            let (now, later) = data.split_at(data.len().min(PIECE - self.piece.len()));
            self.piece.extend_from_slice(now);
            data = later;
        }
        Ok(sealed)
    }

    /// The last piece.
    ///
    /// # Errors
    /// As [`Sealing::push`].
    pub fn end(mut self) -> Result<Vec<u8>> {
        let mut sealed = Vec::new();
        self.seal(true, &mut sealed)?;
        Ok(sealed)
    }

    fn seal(&mut self, is_last: bool, sealed: &mut Vec<u8>) -> Result<()> {
        let broken = |_| Error::internal("a backup could not be sealed");
        self.key.seal_in_place_append_tag(nonce(self.number, is_last), Aad::empty(), &mut self.piece).map_err(broken)?;
        sealed.append(&mut self.piece);
        self.number += 1;
        Ok(())
    }
}

/// What was sealed, piece by piece, each once it is known to be whole.
struct Opening<R> {
    inner: R,
    key: LessSafeKey,
    number: u64,
    piece: Vec<u8>,
    /// How much of the piece was read.
    at: usize,
    is_over: bool,
}

impl<R: BufRead> Opening<R> {
    fn advance(&mut self) -> io::Result<()> {
        self.piece.clear();
        self.at = 0;
        self.inner.by_ref().take((PIECE + TAG) as u64).read_to_end(&mut self.piece)?;
        self.is_over = self.inner.fill_buf()?.is_empty();
        let nonce = nonce(self.number, self.is_over);
        let opened = self.key.open_in_place(nonce, Aad::empty(), &mut self.piece).map(|plain| plain.len());
        let damaged = |_| io::Error::new(io::ErrorKind::InvalidData, "the sealed archive is cut off or altered there");
        let length = opened.map_err(damaged)?;
        self.piece.truncate(length);
        self.number += 1;
        Ok(())
    }
}

impl<R: BufRead> Read for Opening<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            if self.is_over {
                return Ok(0);
            }
            if let Err(error) = self.advance() {
                // Whoever asks again is told again.
                (self.at, self.is_over) = (0, false);
                self.piece.clear();
                return Err(error);
            }
        }
        let count = out.len().min(self.piece.len() - self.at);
        out[..count].copy_from_slice(&self.piece[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

/// The archive in a file, sealed or not.
///
/// # Errors
/// `InvalidArgument` it is a folder · `FailedPrecondition` it is sealed and there is no key (`backup_sealed`), or another one (`wrong_backup_key`), or it is not sealed and
/// there is one (`backup_not_sealed`) · `DataLoss` cut off within its head.
pub(super) fn opened<R: BufRead + 'static>(mut file: R, key: Option<&BackupKey>) -> Result<Box<dyn Read>> {
    let unreadable = |error: io::Error| {
        let code = match error.kind() {
            io::ErrorKind::IsADirectory => Code::InvalidArgument,
            _ => Code::FailedPrecondition,
        };
        Error::new(code, "the archive cannot be read").with_source(error)
    };
    let is_sealed = file.fill_buf().map_err(unreadable)?.starts_with(MARK);
    let refused = |message: &str, reason: &str| Err(Error::failed_precondition(message).with_field("key-file").with_reason(reason));
    let key = match (is_sealed, key) {
        (false, None) => return Ok(Box::new(file)),
        (true, Some(key)) => key,
        (true, None) => return refused("the archive is sealed: name the file of its key with --key-file", "backup_sealed"),
        // What was put in the place of a sealed one must not pass for it.
        (false, Some(_)) => return refused("the archive is not sealed: leave --key-file out if that is right", "backup_not_sealed"),
    };
    let mut head = [0; HEAD];
    file.read_exact(&mut head).map_err(|error| {
        Error::new(Code::DataLoss, "the archive is cut off within its head").with_reason("bad_backup").with_source(error)
    })?;
    if head[MARK.len()..MARK.len() + ID] != key.id {
        return refused("the archive is sealed with another key than that of --key-file", "wrong_backup_key");
    }
    Ok(Box::new(Opening { key: key.of_file(&head)?, inner: file, number: 0, piece: Vec::new(), at: 0, is_over: false }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(digit: &str) -> BackupKey {
        BackupKey::parse(&digit.repeat(64)).unwrap()
    }

    /// Written in pieces of an odd size.
    fn sealed(plain: &[u8]) -> Vec<u8> {
        let (mut sealing, mut out) = Sealing::begin(&key("a")).unwrap();
        for data in plain.chunks(10_007) {
            out.extend(sealing.push(data).unwrap());
        }
        out.extend(sealing.end().unwrap());
        out
    }

    fn open(sealed: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        let mut opened = opened(io::Cursor::new(sealed.to_vec()), Some(&key("a"))).map_err(io::Error::other)?;
        opened.read_to_end(&mut plain).map(|_| plain)
    }

    fn text(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn what_was_sealed_is_opened_whatever_its_length() {
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 17] {
            let (plain, sealed) = (text(length), sealed(&text(length)));
            assert!(open(&sealed).unwrap() == plain, "{length}");
            assert_eq!(sealed.len(), HEAD + length + TAG * length.div_ceil(PIECE).max(1), "{length}");
        }
        assert_ne!(sealed(b"canary"), sealed(b"canary"), "no two files have the same key");
    }

    #[test]
    fn what_is_altered_cut_off_or_moved_is_noticed() {
        let whole = sealed(&text(2 * PIECE + 100));
        for at in [0, MARK.len(), MARK.len() + ID, HEAD - 1, HEAD, HEAD + PIECE, HEAD + PIECE + TAG, whole.len() - 1] {
            let mut altered = whole.clone();
            altered[at] ^= 1;
            assert!(open(&altered).is_err(), "byte {at}");
        }
        let piece = PIECE + TAG;
        for length in [0, MARK.len() + 3, HEAD, HEAD + 5, HEAD + piece, HEAD + 2 * piece, whole.len() - 1] {
            assert!(open(&whole[..length]).is_err(), "cut off after {length}");
        }
        let (head, first, second) = (&whole[..HEAD], &whole[HEAD..HEAD + piece], &whole[HEAD + piece..HEAD + 2 * piece]);
        let rest = &whole[HEAD + 2 * piece..];
        assert!(open(&[head, second, first, rest].concat()).is_err(), "two pieces in each other's place");
        assert!(open(&[head, first, rest].concat()).is_err(), "one is left out");
        assert!(open(&[whole.as_slice(), b"more"].concat()).is_err(), "there is more than there was");
    }

    #[test]
    fn only_the_right_key_opens_it_and_its_lack_is_said() {
        let reason = |sealed: Vec<u8>, key: Option<&BackupKey>| {
            opened(io::Cursor::new(sealed), key).err().and_then(|error| error.reason().map(str::to_owned)).unwrap()
        };
        assert_eq!(reason(sealed(b"x"), None), "backup_sealed");
        assert_eq!(reason(sealed(b"x"), Some(&key("b"))), "wrong_backup_key");
        assert_eq!(reason(b"a tar".to_vec(), Some(&key("a"))), "backup_not_sealed");
        for text in ["", "abc", "g".repeat(64).as_str(), "a".repeat(63).as_str(), "a".repeat(66).as_str()] {
            assert_eq!(BackupKey::parse(text).err().unwrap().reason(), Some("bad_backup_key"), "{text}");
        }
    }
}
