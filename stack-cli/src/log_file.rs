//! `server.log`: what a stack logs, in a file that does not grow without end.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tracing_subscriber::fmt::MakeWriter;

/// A file that has grown past this is put aside.
const BYTES: u64 = 16 << 20;
/// How many of those are kept: `server.log.1` is the newest.
const KEPT: u32 = 3;

/// The name of the file that is written to.
pub(crate) const NAME: &str = "server.log";

/// The file, for the logging layer: each line is written at once.
#[derive(Clone)]
pub(crate) struct LogFile(Arc<Mutex<Inner>>);

struct Inner {
    folder: PathBuf,
    file: File,
    written: u64,
    limit: u64,
}

/// The files of a folder, oldest first; the last is the one that is written to.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let older = (1..=KEPT).rev().map(|number| folder.join(format!("{NAME}.{number}")));
    older.chain([folder.join(NAME)]).filter(|path| path.is_file()).collect()
}

impl LogFile {
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        Self::with_limit(folder, BYTES)
    }

    fn with_limit(folder: &Path, limit: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let file = append(&folder.join(NAME))?;
        let written = file.metadata()?.len();
        Ok(Self(Arc::new(Mutex::new(Inner { folder: folder.to_owned(), file, written, limit }))))
    }
}

/// One that is there keeps its mode.
fn append(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode(path));
    options.open(path)
}

/// For this user alone, and for the group of a folder that was opened to that: 0755 is what most umasks make of any folder, and
/// says nothing.
#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    let folder = path.parent().and_then(|folder| fs::metadata(folder).ok());
    let folder = folder.map_or(0, |folder| std::os::unix::fs::PermissionsExt::mode(&folder.permissions()));
    if folder & 0o007 == 0 { 0o600 | (folder & 0o040) } else { 0o600 }
}

impl Inner {
    /// Each file takes the next number; the last is gone.
    fn rotate(&mut self) -> io::Result<()> {
        let path = |number: u32| self.folder.join(if number == 0 { NAME.to_owned() } else { format!("{NAME}.{number}") });
        for number in (0..KEPT).rev() {
            if path(number).is_file() {
                fs::rename(path(number), path(number + 1))?;
            }
        }
        self.file = append(&path(0))?;
        self.written = 0;
        Ok(())
    }
}

/// One line's turn at the file.
pub(crate) struct Line<'a>(MutexGuard<'a, Inner>);

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.written > 0 && self.0.written + bytes.len() as u64 > self.0.limit {
            // Where a file cannot be put aside, the log goes on in the one that there is.
            let _ = self.0.rotate();
        }
        let count = self.0.file.write(bytes)?;
        self.0.written += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.file.flush()
    }
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_put_aside_and_only_the_newest_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let log = LogFile::with_limit(folder.path(), 20).unwrap();
        for number in 0..20 {
            log.make_writer().write_all(format!("line {number:02}\n").as_bytes()).unwrap();
        }
        let all: String = files(folder.path()).iter().map(|path| fs::read_to_string(path).unwrap()).collect();
        let last: Vec<String> = (12..20).map(|number| format!("line {number:02}")).collect();
        assert_eq!(all.lines().collect::<Vec<_>>(), last);
        assert_eq!(files(folder.path()).len(), 4);
    }

    #[cfg(unix)]
    #[test]
    fn others_do_not_read_it_unless_the_folder_is_open_to_its_group() {
        use std::os::unix::fs::PermissionsExt as _;
        for (of_folder, of_file) in [(0o755, 0o600), (0o700, 0o600), (0o750, 0o640)] {
            let folder = tempfile::tempdir().unwrap();
            fs::set_permissions(folder.path(), fs::Permissions::from_mode(of_folder)).unwrap();
            let log = LogFile::with_limit(folder.path(), 1).unwrap();
            log.make_writer().write_all(b"a").unwrap();
            log.make_writer().write_all(b"b").unwrap();
            let modes: Vec<u32> =
                files(folder.path()).iter().map(|path| fs::metadata(path).unwrap().permissions().mode() & 0o777).collect();
            assert_eq!(modes, [of_file; 2], "{of_folder:o}");
        }
    }
}
