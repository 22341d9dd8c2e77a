//! `kill -9` while chunks are inserted, replaced and deleted and indexes are built: what was acknowledged is found, by exact
//! and by approximate search, and what was deleted stays deleted.
//!
//! The test runs itself as a process that writes and says on its output what was acknowledged, and kills it. With
//! `LLAMA_STACK_KILLS=200` it does so as often.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use llama_stack_core::Deps;
use llama_stack_memory::index::{BankKey, Index, Search, Shape};
use llama_stack_proto::v1::{Chunk, SearchMode};
use llama_stack_qdrant_edge::{Config, EdgeIndex};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

const FOLDER: &str = "LLAMA_STACK_CRASH_FOLDER";
const FIRST: &str = "LLAMA_STACK_CRASH_FIRST";
const KILLS: &str = "LLAMA_STACK_KILLS";
const DIMENSION: u32 = 48;
/// Chunks of a document.
const CHUNKS: u32 = 16;

fn bank() -> BankKey {
    BankKey { tenant: "a".into(), bank_id: "crash".into() }
}

async fn open(folder: &Path) -> Arc<EdgeIndex> {
    let deps = Deps { provider_id: "edge".into(), ..Deps::new(folder) };
    let index = EdgeIndex::new(Config { index_above_kb: 100, ..Config::default() }, &deps).await.unwrap();
    index.create(&bank(), &Shape { dimension: DIMENSION, keyword: true }).await.unwrap();
    Arc::new(index)
}

/// The same for the same document and version.
fn document(number: u64, version: u64) -> Vec<Chunk> {
    let each = |at: u32| {
        let mut random = StdRng::seed_from_u64(number << 20 | version << 8 | u64::from(at));
        Chunk {
            id: format!("{number}-{at}"),
            document_id: number.to_string(),
            index: at,
            text: format!("document {number} in version{version}"),
            vector: (0..DIMENSION).map(|_| random.random_range(-1.0..1.0)).collect(),
            ..Chunk::default()
        }
    };
    (0..CHUNKS).map(each).collect()
}

/// Not a test: what is killed. Each line is acknowledged before it is written: `number version`, and 0 for deleted.
#[tokio::test(flavor = "multi_thread")]
async fn writes_until_it_is_killed() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    let index = open(Path::new(&folder)).await;
    let writers = (0..4).map(|writer| {
        let (index, folder) = (index.clone(), folder.clone());
        tokio::spawn(async move {
            let mut said = fs::File::create(Path::new(&folder).join(format!("said-{first}-{writer}"))).unwrap();
            for number in (first + writer..).step_by(4) {
                index.upsert(&bank(), document(number, 1)).await.unwrap();
                writeln!(said, "{number} 1").unwrap();
                // One of an earlier life, or of this one: those of one writer only, so that their order is known.
                if number % 3 == 0 && number >= 40 {
                    let before = number - 40;
                    let version = if number % 2 == 0 { 0 } else { 2 };
                    writeln!(said, "{before} ?").unwrap();
                    match version {
                        0 => index.delete_documents(&bank(), &[before.to_string()]).await.unwrap(),
                        _ => index.upsert(&bank(), document(before, version)).await.unwrap(),
                    }
                    writeln!(said, "{before} {version}").unwrap();
                }
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    writeln!(std::io::stdout(), "\nwriting").unwrap();
    for writer in writers {
        writer.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_outlives_kill_9() {
    let kills = std::env::var(KILLS).ok().and_then(|kills| kills.parse().ok()).unwrap_or(12);
    let folder = tempfile::tempdir().unwrap();
    let mut random = StdRng::seed_from_u64(1);
    let mut known: BTreeMap<u64, String> = BTreeMap::new();
    for kill in 0..kills {
        let first = known.keys().next_back().map_or(0, |last| (last / 4 + 1) * 4);
        live_and_die(folder.path(), first, Duration::from_millis(random.random_range(20..400)));
        let new = said(folder.path(), first);
        known.extend(new);
        check(folder.path(), &known, &mut random, kill).await;
    }
    let deleted = known.values().filter(|version| *version == "0").count();
    assert!(known.len() > 100 && deleted > 5, "too little was written to tell: {} documents, {deleted} deleted", known.len());
}

fn live_and_die(folder: &Path, first: u64, life: Duration) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writes_until_it_is_killed", "--nocapture"])
        .env(FOLDER, folder)
        .env(FIRST, first.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "writing"), "the writer ended before it wrote");
    let began = Instant::now();
    std::thread::sleep(life.saturating_sub(began.elapsed()));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What the writers of this life said, in each one's order; a last line that was cut short is not said.
fn said(folder: &Path, first: u64) -> BTreeMap<u64, String> {
    let mut said = BTreeMap::new();
    for writer in 0..4 {
        let path: PathBuf = folder.join(format!("said-{first}-{writer}"));
        let text = fs::read_to_string(&path).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        for line in whole.lines() {
            let (number, version) = line.split_once(' ').unwrap();
            said.insert(number.parse().unwrap(), version.to_owned());
        }
        let _ = fs::remove_file(path);
    }
    said
}

async fn check(folder: &Path, known: &BTreeMap<u64, String>, random: &mut StdRng, kill: u32) {
    let index = open(folder).await;
    let mut there: BTreeMap<u64, Vec<Chunk>> = BTreeMap::new();
    let mut after: Option<String> = None;
    loop {
        let page = index.scroll(&bank(), None, after.as_deref(), 1000, false).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id.clone());
        for chunk in page {
            there.entry(chunk.document_id.parse().unwrap()).or_default().push(chunk);
        }
    }
    for (number, chunks) in &there {
        assert_eq!(chunks.len(), CHUNKS as usize, "kill {kill}: document {number} is there in part");
        assert!(chunks.iter().all(|chunk| chunk.text == chunks[0].text), "kill {kill}: document {number} is of two versions");
    }
    for (number, version) in known {
        match (version.as_str(), there.get(number)) {
            // It was being changed: either is right.
            ("?", _) | ("0", None) => {}
            ("0", Some(_)) => panic!("kill {kill}: document {number} was deleted, and is back"),
            (version, None) => panic!("kill {kill}: document {number} in version {version} is lost"),
            (version, Some(chunks)) => {
                assert!(chunks[0].text.ends_with(&format!("version{version}")), "kill {kill}: {number} {}", chunks[0].text)
            }
        }
    }
    let numbers: Vec<u64> = known.keys().copied().collect();
    for _ in 0..40 {
        let number = numbers[random.random_range(0..numbers.len())];
        for version in 1..=2 {
            let original = document(number, version).remove(0);
            let search = Search { vector: original.vector.clone(), mode: SearchMode::Vector, limit: 1, ..Search::default() };
            let hits = [index.search(&bank(), &search).await.unwrap(), index.search_exactly(&bank(), &search).await.unwrap()];
            let found = hits.map(|hits| hits.first().is_some_and(|hit| hit.score > 0.999 && hit.chunk.id == original.id));
            match known[&number].as_str() {
                "?" => assert_eq!(found[0], found[1], "kill {kill}: document {number}"),
                acknowledged => {
                    assert_eq!(found, [acknowledged == version.to_string(); 2], "kill {kill}: document {number} version {version}")
                }
            }
        }
    }
}
