//! Folders of what people keep here: for the owner's eyes only.

use std::{fs::DirBuilder, io, path::Path};

/// Makes a folder, and those above it that are not there yet, for this user alone. What is there stays as it is: who runs a stack
/// may have opened it to others.
///
/// # Errors
/// Whatever keeps a folder from being made.
pub fn folder(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}
