//! Shards that were just made, to make others from: the engine syncs some fifty files, one after the other, to make an empty one,
//! and an empty one need not be synced, since until its first flush its journal has all of it.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use llama_stack_memory::index::Shape;

/// Files are sparse: blocks of nothing are not kept.
const BLOCK: usize = 4_096;
/// Templates that are kept: callers choose the dimensions of their banks, and each costs some hundred kilobytes.
const MOST: usize = 8;

/// By the dimension of the vectors, and whether words are searched.
#[derive(Default)]
pub(super) struct Templates(Mutex<HashMap<(u32, bool), Arc<Template>>>);

/// An empty shard.
struct Template {
    folders: Vec<PathBuf>,
    files: Vec<Sparse>,
}

struct Sparse {
    path: PathBuf,
    length: u64,
    blocks: Vec<(u64, Vec<u8>)>,
}

impl Templates {
    /// Keeps what is in a shard's folder, which has been flushed and has nothing in it.
    pub(super) fn keep(&self, shape: &Shape, folder: &Path) -> io::Result<()> {
        let mut template = Template { folders: Vec::new(), files: Vec::new() };
        template.gather(folder, Path::new(""))?;
        let (mut known, this) = (self.0.lock().unwrap_or_else(PoisonError::into_inner), (shape.dimension, shape.keyword));
        if known.len() >= MOST
            && !known.contains_key(&this)
            && let Some(other) = known.keys().next().copied()
        {
            known.remove(&other);
        }
        known.insert(this, Arc::new(template));
        Ok(())
    }

    /// Makes an empty shard in this folder; false where none of this shape is known yet.
    pub(super) fn make(&self, shape: &Shape, folder: &Path) -> io::Result<bool> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&(shape.dimension, shape.keyword)).cloned();
        let Some(template) = known else { return Ok(false) };
        for inner in &template.folders {
            fs::create_dir_all(folder.join(inner))?;
        }
        template.files.iter().try_for_each(|file| file.write(folder))?;
        Ok(true)
    }
}

impl Template {
    fn gather(&mut self, root: &Path, inner: &Path) -> io::Result<()> {
        for entry in fs::read_dir(root.join(inner))? {
            let entry = entry?;
            let path = inner.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                self.folders.push(path.clone());
                self.gather(root, &path)?;
            } else {
                self.files.push(Sparse::read(root, path)?);
            }
        }
        Ok(())
    }
}

impl Sparse {
    fn read(root: &Path, path: PathBuf) -> io::Result<Self> {
        let mut file = File::open(root.join(&path))?;
        let (length, mut blocks, mut at) = (file.metadata()?.len(), Vec::new(), 0_u64);
        let mut piece = vec![0; BLOCK * 256];
        loop {
            let read = file.read(&mut piece)?;
            if read == 0 {
                return Ok(Self { path, length, blocks });
            }
            for (block, offset) in piece[..read].chunks(BLOCK).zip((at..).step_by(BLOCK)) {
                if block.iter().any(|byte| *byte != 0) {
                    blocks.push((offset, block.to_vec()));
                }
            }
            at += read as u64;
        }
    }

    fn write(&self, root: &Path) -> io::Result<()> {
        let mut file = File::create(root.join(&self.path))?;
        file.set_len(self.length)?;
        for (offset, block) in &self.blocks {
            file.seek(SeekFrom::Start(*offset))?;
            file.write_all(block)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_same_bytes_in_the_same_places() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut large = vec![0_u8; BLOCK * 600 + 17];
        (large[5], large[BLOCK * 300 - 1], large[BLOCK * 600 + 16]) = (1, 2, 3);
        fs::create_dir_all(from.path().join("a/empty")).unwrap();
        fs::write(from.path().join("a/large"), &large).unwrap();
        fs::write(from.path().join("none"), b"").unwrap();
        let (templates, shape) = (Templates::default(), Shape { dimension: 4, keyword: true });
        assert!(!templates.make(&shape, to.path()).unwrap());
        templates.keep(&shape, from.path()).unwrap();
        assert!(templates.make(&shape, to.path()).unwrap());
        assert!(!templates.make(&Shape { dimension: 5, ..shape }, to.path()).unwrap());
        for dimension in 10..40 {
            templates.keep(&Shape { dimension, ..shape }, from.path()).unwrap();
        }
        assert_eq!(templates.0.lock().unwrap().len(), MOST);
        assert!(fs::read(to.path().join("a/large")).unwrap() == large);
        assert!(to.path().join("a/empty").is_dir() && fs::read(to.path().join("none")).unwrap().is_empty());
    }
}
