//! The embedded engine: the promises of every index, and its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

use std::{path::Path, sync::Arc, time::Duration};

use llama_stack_core::{Code, Deps};
use llama_stack_memory::index::{BankKey, Index, Search, Shape};
use llama_stack_proto::v1::{Chunk, SearchMode};
use llama_stack_qdrant_edge::{Config, EdgeIndex, Quantization};
use llama_stack_tests::conformance;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

async fn index(folder: &Path, config: Config) -> Arc<EdgeIndex> {
    Arc::new(EdgeIndex::new(config, &deps(folder)).await.unwrap())
}

fn deps(folder: &Path) -> Deps {
    Deps { provider_id: "edge".into(), ..Deps::new(folder) }
}

fn bank(name: &str) -> BankKey {
    BankKey { tenant: "a".into(), bank_id: name.into() }
}

const SHAPE: Shape = Shape { dimension: 32, keyword: true };

fn chunks(range: std::ops::Range<u64>) -> Vec<Chunk> {
    let each = |n: u64| {
        let mut random = StdRng::seed_from_u64(n);
        Chunk {
            id: format!("c{n}"),
            document_id: format!("d{}", n / 10),
            text: format!("number {n}"),
            index: (n % 10) as u32,
            vector: (0..32).map(|_| random.random_range(-1.0..1.0)).collect(),
            ..Chunk::default()
        }
    };
    range.map(each).collect()
}

/// The chunk is its own nearest neighbour.
async fn finds(index: &EdgeIndex, bank: &BankKey, n: u64) -> bool {
    let vector = chunks(n..n + 1).remove(0).vector;
    let search = Search { vector, mode: SearchMode::Vector, limit: 1, ..Search::default() };
    let hits = [index.search(bank, &search).await.unwrap(), index.search_exactly(bank, &search).await.unwrap()];
    hits.iter().all(|hits| hits.first().is_some_and(|hit| hit.chunk.id == format!("c{n}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_the_promises_of_an_index() {
    let folder = tempfile::tempdir().unwrap();
    conformance::index::all(index(folder.path(), Config::default()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keeps_them_with_quantized_vectors_and_one_open_bank() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config { quantization: Quantization::Scalar, open_banks: 1, ..Config::default() };
    conformance::index::all(index(folder.path(), config).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_the_index_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let bank = bank("again");
    for round in 0..3 {
        let index = index(folder.path(), Config::default()).await;
        index.create(&bank, &SHAPE).await.unwrap();
        index.upsert(&bank, chunks(round * 100..round * 100 + 100)).await.unwrap();
        index.delete_documents(&bank, &[format!("d{}", round * 10)]).await.unwrap();
        assert_eq!(index.stats(&bank).await.unwrap().chunks, (round + 1) * 90);
        assert!(finds(&index, &bank, round * 100 + 50).await && !finds(&index, &bank, round * 100).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_bank_is_indexed_while_changes_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let bank = bank("large");
    let config = Config { index_above_kb: 64, ..Config::default() };
    let first = index(folder.path(), config.clone()).await;
    first.create(&bank, &SHAPE).await.unwrap();
    for batch in 0..16 {
        first.upsert(&bank, chunks(batch * 500..batch * 500 + 500)).await.unwrap();
        first.delete_documents(&bank, &[format!("d{}", batch * 50)]).await.unwrap();
    }
    let indexed = async {
        while first.stats(&bank).await.unwrap().indexed_share < 0.9 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), indexed).await.expect("no index was built");
    for n in (0..8000).step_by(97) {
        assert_eq!(finds(&first, &bank, n).await, n % 500 >= 10, "{n}");
    }
    drop(first);
    let second = index(folder.path(), config).await;
    assert_eq!(second.stats(&bank).await.unwrap().chunks, 16 * 490);
    assert!(finds(&second, &bank, 7777).await && !finds(&second, &bank, 7500).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_banks_than_may_be_open_are_all_there() {
    let folder = tempfile::tempdir().unwrap();
    let index = index(folder.path(), Config { open_banks: 4, ..Config::default() }).await;
    let names: Vec<BankKey> = (0..12).map(|n| bank(&format!("bank {n}"))).collect();
    for bank in &names {
        index.create(bank, &SHAPE).await.unwrap();
        index.upsert(bank, chunks(0..20)).await.unwrap();
    }
    let all = names.iter().map(|bank| {
        let (index, bank) = (index.clone(), bank.clone());
        async move { index.stats(&bank).await.unwrap().chunks }
    });
    assert_eq!(futures::future::join_all(all).await, [20; 12]);
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_at_the_same_time_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (index, bank) = (index(folder.path(), Config::default()).await, bank("busy"));
    index.create(&bank, &SHAPE).await.unwrap();
    let writers = (0..20).map(|n| {
        let (index, bank) = (index.clone(), bank.clone());
        tokio::spawn(async move { index.upsert(&bank, chunks(n * 50..n * 50 + 50)).await })
    });
    for writer in futures::future::join_all(writers).await {
        writer.unwrap().unwrap();
    }
    assert_eq!(index.stats(&bank).await.unwrap().chunks, 1000);
}

#[tokio::test]
async fn a_wrong_configuration_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    for (config, field) in [
        (Config { language: "klingon".into(), ..Config::default() }, "config.language"),
        (Config { open_banks: 0, ..Config::default() }, "config.open_banks"),
        (Config { index_above_kb: 0, ..Config::default() }, "config.index_above_kb"),
    ] {
        let error = EdgeIndex::new(config, &deps(folder.path())).await.err().unwrap();
        assert_eq!((error.code(), error.field()), (Code::InvalidArgument, Some(field)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bank_that_cannot_be_read_says_so_and_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let (broken, whole) = (bank("broken"), bank("whole"));
    {
        let index = index(folder.path(), Config::default()).await;
        for bank in [&broken, &whole] {
            index.create(bank, &SHAPE).await.unwrap();
            index.upsert(bank, chunks(0..20)).await.unwrap();
        }
    }
    let index = index(folder.path(), Config::default()).await;
    // Whose folder it is stands in its description.
    let folders = std::fs::read_dir(folder.path().join("vectors/edge")).unwrap().flatten().map(|entry| entry.path());
    let of_broken = folders.into_iter().find(|path| std::fs::read_to_string(path.join("bank.json")).unwrap().contains("broken")).unwrap();
    std::fs::write(of_broken.join("bank.json"), b"{").unwrap();
    let error = index.stats(&broken).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert_eq!(index.stats(&whole).await.unwrap().chunks, 20);
}
