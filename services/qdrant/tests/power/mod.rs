//! The loss of power: what was written after the last sync is gone, or there in part.
//!
//! The files are copied while they are being written, as a sudden end would leave them. Then the log, which is what an index syncs
//! before it acknowledges, is cut at a random place after the last acknowledgement, with rubbish in place of its last bytes;
//! and of the embedded engine's own files, which nothing has synced yet, a part is empty or gone.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use llama_stack_memory::index::{Index, Search, Shape};
use llama_stack_proto::v1::{Chunk, SearchMode};

use super::{DIMENSION, open, stand, version};

const ROUNDS: u64 = 6;
const DOCUMENTS: u64 = 12;

/// Numbers that are the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % most.max(1)
    }
}

/// What the index syncs before it acknowledges.
fn log(folder: &Path) -> PathBuf {
    let mut found = Vec::new();
    files(folder, &mut found);
    let named = |path: &&PathBuf| path.file_name().is_some_and(|name| name == "journal" || name == "index.db-wal");
    found.iter().find(named).cloned().unwrap_or_else(|| folder.join("index.db-wal"))
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |about| about.len())
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

/// As a sudden end would leave it. A file that goes meanwhile was not there any more; the engine's large ones, of which nothing
/// is synced, are only as long as they were.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let (path, copied) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &copied);
        } else if is_the_engine_s(&path) && length(&path) > 1 << 20 {
            fs::File::create(copied).and_then(|file| file.set_len(length(&path))).unwrap();
        } else if let Ok(bytes) = fs::read(&path) {
            fs::write(copied, bytes).unwrap();
        }
    }
}

fn is_the_engine_s(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "shard")
}

/// Whether nothing has been flushed yet: the engine's files may be anything after a loss of power then.
fn is_unflushed(folder: &Path) -> bool {
    let mut all = Vec::new();
    files(folder, &mut all);
    all.iter().any(|path| path.file_name().is_some_and(|name| name == "unflushed"))
}

fn drop_unsynced(random: &mut Random, folder: &Path, synced: u64) {
    let log = log(folder);
    let end = length(&log);
    assert!(end >= synced, "what was synced is there: {synced} of {end} bytes");
    if end > 0 {
        let cut = synced + random.below(end - synced + 1);
        let mut bytes = fs::read(&log).unwrap();
        bytes.truncate(cut as usize);
        let torn = synced + random.below(cut - synced + 1);
        bytes[torn as usize..].fill(0xa5);
        fs::write(&log, bytes).unwrap();
    }
    // A shared memory file is nobody's after the end of all.
    let _ = fs::remove_file(folder.join("index.db-shm"));
    let mut all = Vec::new();
    files(folder, &mut all);
    for path in all.iter().filter(|path| is_the_engine_s(path)) {
        match random.below(3) {
            0 => fs::remove_file(path).unwrap(),
            1 => fs::write(path, b"").unwrap(),
            _ => {}
        }
    }
}

/// False where the machine was so slow that the engine flushed meanwhile: what that leaves, a copy in the midst of it does not show.
async fn round(kind: &str, random: &mut Random) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let (there, lost) = (folder.path().join("there"), folder.path().join("lost"));
    let bank = stand::bank("crash");
    let index = open(kind, &there).await;
    index.create(&bank, &Shape { dimension: DIMENSION as u32, keyword: true }).await.unwrap();
    let mut acknowledged: BTreeMap<usize, Option<usize>> = BTreeMap::new();
    for n in 0..10 + random.below(30) as usize {
        let document = random.below(DOCUMENTS) as usize;
        if random.below(4) == 0 {
            index.delete_documents(&bank, &[format!("d{document}")]).await.unwrap();
            acknowledged.insert(document, None);
        } else {
            index.replace(&bank, &format!("d{document}"), version(document, n)).await.unwrap();
            acknowledged.insert(document, Some(n));
        }
    }
    let synced = length(&log(&there));
    // More is written while the power goes, of other documents.
    let (writer, to) = (index.clone(), bank.clone());
    let writing = tokio::spawn(async move {
        for document in DOCUMENTS as usize..DOCUMENTS as usize + 20 {
            writer.upsert(&to, version(document, 0)).await.unwrap();
        }
    });
    tokio::task::yield_now().await;
    copy(&there, &lost);
    let flushed = kind == "edge" && !(is_unflushed(&there) && is_unflushed(&lost));
    writing.await.unwrap();
    if flushed {
        return false;
    }
    drop_unsynced(random, &lost, synced);

    let index: Arc<dyn Index> = open(kind, &lost).await;
    let all = index.scroll(&bank, None, None, 10_000, true).await.unwrap();
    for (document, wanted) in acknowledged {
        let id = format!("d{document}");
        let chunks: Vec<&Chunk> = all.iter().filter(|chunk| chunk.document_id == id).collect();
        let now = chunks.first().map(|chunk| chunk.title.parse::<usize>().unwrap());
        assert_eq!((now, chunks.len()), (wanted, if wanted.is_some() { 2 } else { 0 }), "{kind}: {id}");
        let Some(number) = now else { continue };
        for mode in [SearchMode::Vector, SearchMode::Keyword] {
            let (text, vector) = (format!("version{number}x"), chunks[0].vector.clone());
            let hits = index.search(&bank, &Search { text, vector, mode, limit: 2, ..Search::default() }).await.unwrap();
            assert!(hits.iter().any(|hit| hit.chunk.document_id == id), "{kind}: {id} is not found by {mode:?}");
        }
    }
    // What was not acknowledged is there in whole or not at all.
    for document in DOCUMENTS as usize..DOCUMENTS as usize + 20 {
        let chunks = all.iter().filter(|chunk| chunk.document_id == format!("d{document}")).count();
        assert!(chunks == 0 || chunks == 2, "{kind}: d{document} has {chunks} chunks");
    }
    true
}

async fn rounds(kind: &str, mut random: Random) {
    let (mut done, mut tried) = (0, 0);
    while done < ROUNDS {
        assert!(tried < 10 * ROUNDS, "{kind}: {done} of {tried} rounds were quick enough");
        done += u64::from(round(kind, &mut random).await);
        tried += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_engine_survives_the_loss_of_what_it_had_not_synced() {
    rounds("edge", Random(0x5eed)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exact_index_survives_the_loss_of_what_it_had_not_synced() {
    rounds("sqlite", Random(0xdead)).await;
}
