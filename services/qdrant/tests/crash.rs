//! `kill -9` while chunks are inserted, replaced and deleted: what was acknowledged holds, what was deleted does not come back.
//!
//! The test starts itself again as the process that is killed. That one writes down what was acknowledged, after it was.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod power;
mod stand;

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use llama_stack_memory::{
    SqliteIndex,
    index::{Index, Search, Shape},
};
use llama_stack_proto::v1::{Chunk, SearchMode};
use llama_stack_qdrant::{Quantization, open_edge};

const CHILD: &str = "LLAMA_STACK_CRASH_TEST";
const DIMENSION: usize = 16;
const NEVER: Duration = Duration::from_secs(300);
/// Documents that are written again and again, so that lives meet.
const DOCUMENTS: usize = 400;

async fn open(kind: &str, folder: &Path) -> Arc<dyn Index> {
    match kind {
        "sqlite" => Arc::new(SqliteIndex::open(folder).await.unwrap()),
        _ => open_edge(folder, Quantization::None).await.unwrap(),
    }
}

/// A document of two chunks that say which version they are.
fn version(document: usize, version: usize) -> Vec<Chunk> {
    let one = |index: u32| Chunk {
        id: format!("d{document}#{index}"),
        document_id: format!("d{document}"),
        index,
        text: format!("document {document} version{version}x"),
        title: version.to_string(),
        ..stand::chunk(document * 2 + index as usize, DIMENSION)
    };
    vec![one(0), one(1)]
}

/// What the process does that is killed; nothing when the tests are run.
#[tokio::test(flavor = "multi_thread")]
async fn the_process_that_is_killed() {
    let Ok(asked) = std::env::var(CHILD) else { return };
    let (kind, rest) = asked.split_once('|').unwrap();
    let (life, folder) = rest.split_once('|').unwrap();
    let (life, folder) = (life.parse::<usize>().unwrap(), PathBuf::from(folder));
    let index = open(kind, &folder.join("index")).await;
    let bank = stand::bank("crash");
    index.create(&bank, &Shape { dimension: DIMENSION as u32, keyword: true }).await.unwrap();
    let mut ledger = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("ledger")).unwrap();
    for n in 0.. {
        let document = (n * 7 + life * 31) % DOCUMENTS;
        let number = life * 1_000_000 + n;
        let begun = |ledger: &mut std::fs::File, what: &str| writeln!(ledger, "{what} {document} {number}").unwrap();
        // What is begun may be or not; what is done is.
        if n % 5 == 4 {
            begun(&mut ledger, "deleting");
            index.delete_documents(&bank, &[format!("d{document}")]).await.unwrap();
            begun(&mut ledger, "deleted");
        } else {
            begun(&mut ledger, "writing");
            index.replace(&bank, &format!("d{document}"), version(document, number)).await.unwrap();
            begun(&mut ledger, "written");
        }
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn live(kind: &str, life: usize, folder: &Path, until: usize) {
    let before = lines(folder);
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_process_that_is_killed"])
        .env(CHILD, format!("{kind}|{life}|{}", folder.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut child = Killed(child.unwrap());
    let begun = Instant::now();
    while lines(folder) < before + until {
        assert!(child.0.try_wait().unwrap().is_none(), "life {life} of {kind} ended by itself");
        assert!(begun.elapsed() < NEVER, "life {life} of {kind} does nothing");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn lines(folder: &Path) -> usize {
    std::fs::read_to_string(folder.join("ledger")).unwrap_or_default().lines().count()
}

/// For each document, what it may be now: `None` for not there, else its version.
fn allowed(folder: &Path) -> BTreeMap<usize, Vec<Option<usize>>> {
    let mut allowed: BTreeMap<usize, Vec<Option<usize>>> = BTreeMap::new();
    let text = std::fs::read_to_string(folder.join("ledger")).unwrap();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for line in whole.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let (document, number) = (words[1].parse().unwrap(), words[2].parse().unwrap());
        let may = allowed.entry(document).or_insert_with(|| vec![None]);
        match words[0] {
            "deleting" => may.push(None),
            "writing" => may.push(Some(number)),
            "deleted" => *may = vec![None],
            _ => *may = vec![Some(number)],
        }
    }
    allowed
}

async fn holds(kind: &str, lives: usize) {
    let folder = tempfile::tempdir().unwrap();
    let bank = stand::bank("crash");
    for life in 0..lives {
        live(kind, life, folder.path(), 150 + 40 * life);
        let index = open(kind, &folder.path().join("index")).await;
        let there = index.scroll(&bank, None, None, 10_000, true).await.unwrap();
        for (document, may) in allowed(folder.path()) {
            let id = format!("d{document}");
            let chunks: Vec<&Chunk> = there.iter().filter(|chunk| chunk.document_id == id).collect();
            let now = chunks.first().map(|chunk| chunk.title.parse::<usize>().unwrap());
            assert!(may.contains(&now), "{kind}, life {life}: {id} is {now:?} and may be {may:?}");
            let Some(number) = now else { continue };
            assert_eq!(chunks.len(), 2, "{kind}, life {life}: {id}");
            assert!(chunks.iter().all(|chunk| chunk.title == chunks[0].title), "{kind}, life {life}: {id} is of two versions");
            let search =
                |mode| Search { text: format!("version{number}x"), vector: chunks[0].vector.clone(), mode, limit: 2, ..Search::default() };
            for mode in [SearchMode::Vector, SearchMode::Keyword] {
                let hits = index.search(&bank, &search(mode)).await.unwrap();
                assert!(hits.iter().any(|hit| hit.chunk.document_id == id), "{kind}, life {life}: {id} is not found by {mode:?}");
            }
        }
        assert_eq!(index.stats(&bank).await.unwrap().chunks, there.len() as u64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_embedded_engine_keeps_what_it_acknowledged() {
    holds("edge", 6).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exact_index_keeps_what_it_acknowledged() {
    holds("sqlite", 3).await;
}
