//! Writes a manifest without writing over somebody's work.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write},
    path::Path,
};

use llama_stack_core::Result;

use crate::named;

/// # Errors
/// `AlreadyExists` where the file is there, unless `force`.
pub(super) fn write(path: &Path, text: &str, force: bool) -> Result<()> {
    let mut options = OpenOptions::new();
    options.write(true);
    let opened = if force { options.create(true).truncate(true).open(path) } else { options.create_new(true).open(path) };
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => named::taken(path),
        _ => named::unwritable(path, error),
    })
}
