//! What the command line names: files, standard input, pairs. One rule for what is wrong with them.

use std::{
    fs::File,
    io::{self, ErrorKind, Read as _},
    path::Path,
};

use llama_stack_core::{Code, Error, Result};

/// The text of a file; `-` is standard input.
///
/// # Errors
/// As [`unreadable`].
pub(crate) fn text(file: &Path) -> Result<String> {
    if file == Path::new("-") {
        return standard_input();
    }
    std::fs::read_to_string(file).map_err(|error| unreadable(file, &error))
}

/// All of it.
///
/// # Errors
/// `InvalidArgument` it is not text.
pub(crate) fn standard_input() -> Result<String> {
    let mut text = String::new();
    let read = io::stdin().read_to_string(&mut text);
    read.map(|_| text).map_err(|error| Error::invalid("stdin", "standard input is not text").with_source(error))
}

/// Before anything is done with it: a slip of the pen costs nothing.
///
/// # Errors
/// As [`unreadable`].
pub(crate) fn readable(file: &Path) -> Result<()> {
    let look = || -> io::Result<()> {
        let meta = file.metadata()?;
        if meta.is_dir() {
            return Err(ErrorKind::IsADirectory.into());
        }
        // A pipe is opened once: its writer would find nobody the second time.
        if meta.is_file() { File::open(file).map(drop) } else { Ok(()) }
    };
    look().map_err(|error| unreadable(file, &error))
}

/// `NotFound` the file is not there · `InvalidArgument` it is a folder, or not text · `FailedPrecondition` it cannot be read.
pub(crate) fn unreadable(file: &Path, error: &io::Error) -> Error {
    let code = match error.kind() {
        ErrorKind::NotFound | ErrorKind::NotADirectory => Code::NotFound,
        ErrorKind::IsADirectory | ErrorKind::InvalidData => Code::InvalidArgument,
        _ => Code::FailedPrecondition,
    };
    Error::new(code, format!("{} cannot be read: {error}", file.display())).with_field("file")
}

/// `InvalidArgument` the file is a folder · `FailedPrecondition` it cannot be written, whatever it is.
pub(crate) fn unwritable(file: &Path, error: io::Error) -> Error {
    let code = match error.kind() {
        ErrorKind::IsADirectory => Code::InvalidArgument,
        _ => Code::FailedPrecondition,
    };
    Error::new(code, format!("{} cannot be written: {error}", file.display())).with_source(error)
}

/// Before the work whose end is written there.
///
/// # Errors
/// As [`unwritable`].
pub(crate) fn no_folder(file: &Path) -> Result<()> {
    if file.is_dir() { Err(unwritable(file, ErrorKind::IsADirectory.into())) } else { Ok(()) }
}

/// A file that is there already, and is not written over without `--force`.
pub(crate) fn taken(file: &Path) -> Error {
    let message = format!("{} is there already; name another file, or write over it with --force", file.display());
    Error::new(Code::AlreadyExists, message)
}

/// # Errors
/// `InvalidArgument` the text is not NAME=VALUE.
pub(crate) fn pair(field: &str, text: &str) -> Result<(String, String)> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, value) = pair.ok_or_else(|| Error::invalid(field, format!("{text:?} must be NAME=VALUE")))?;
    Ok((name.into(), value.into()))
}
