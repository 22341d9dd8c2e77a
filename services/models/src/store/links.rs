//! Folders in which the files of one model have their proper names.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use llama_stack_core::Result;

use crate::{Sha256Hex, disk};

/// Makes `LINKS/MODEL-HASH/`, where the hash is of names and targets: another version of the model is another folder, so that
/// no process finds its files exchanged under it. Idempotent.
pub(super) fn make(links: &Path, model: &str, files: BTreeMap<String, PathBuf>) -> Result<(PathBuf, BTreeMap<String, PathBuf>)> {
    let mut hasher = Sha256::new();
    for (name, path) in &files {
        hasher.update(format!("{name}\0{}\0", path.display()));
    }
    let dir = links.join(format!("{}-{}", disk::one_name(model), &Sha256Hex::of(hasher).as_str()[..12]));
    let mut linked = BTreeMap::new();
    for (name, target) in files {
        let link = dir.join(&name);
        link_to(&target, &link).map_err(|cause| disk::error(&link, cause))?;
        linked.insert(name, link);
    }
    Ok((dir, linked))
}

fn link_to(target: &Path, link: &Path) -> io::Result<()> {
    if link.exists() {
        return Ok(());
    }
    if let Some(folder) = link.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // A dangling link is replaced; one that another process makes at the same time is the same.
    let _ = std::fs::remove_file(link);
    match symlink(target, link) {
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

/// Elsewhere symbolic links want rights that users lack.
#[cfg(not(unix))]
fn symlink(target: &Path, link: &Path) -> io::Result<()> {
    std::fs::hard_link(target, link)
}

/// Deletes folders with a link that leads nowhere; whoever needs one makes it again.
pub(super) fn prune(links: &Path) {
    let Ok(dirs) = links.read_dir() else { return };
    for dir in dirs.flatten() {
        if dangles(&dir.path(), 0) {
            let _ = std::fs::remove_dir_all(dir.path());
        }
    }
}

fn dangles(dir: &Path, depth: usize) -> bool {
    let Ok(entries) = dir.read_dir() else { return false };
    entries.flatten().any(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => depth < 8 && dangles(&entry.path(), depth + 1),
        _ => !entry.path().exists(),
    })
}
