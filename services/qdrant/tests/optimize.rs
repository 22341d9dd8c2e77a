//! A large bank becomes quick in the background: it is searched, written and deleted from meanwhile.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod stand;

use std::time::{Duration, Instant};

use llama_stack_memory::index::{Search, Shape};
use llama_stack_proto::v1::SearchMode;
use llama_stack_qdrant::{Quantization, open_edge};

const NEVER: Duration = Duration::from_secs(600);
const DIMENSION: usize = 256;
/// Enough for a graph: more than 10 MB of vectors.
const CHUNKS: usize = 12_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_bank_is_used_while_its_graph_is_built() {
    let folder = tempfile::tempdir().unwrap();
    let index = open_edge(folder.path(), Quantization::None).await.unwrap();
    let bank = stand::bank("large");
    index.create(&bank, &Shape { dimension: DIMENSION as u32, keyword: true }).await.unwrap();
    for from in (0..CHUNKS).step_by(1_000) {
        index.upsert(&bank, (from..from + 1_000).map(|n| stand::chunk(n, DIMENSION)).collect()).await.unwrap();
    }
    let nearest = async |n: usize| {
        let search = Search { vector: stand::vector(n, DIMENSION), mode: SearchMode::Vector, limit: 1, ..Search::default() };
        index.search(&bank, &search).await.unwrap().into_iter().next().unwrap().chunk.id
    };
    let (begun, mut n, mut missed) = (Instant::now(), 0, 0);
    loop {
        // Deleted and new ones, and those that the graph is being built of.
        let (gone, new, there) = (n, CHUNKS + n, CHUNKS / 2 + n % (CHUNKS / 2));
        index.delete_documents(&bank, &[format!("c{gone}")]).await.unwrap();
        index.upsert(&bank, vec![stand::chunk(new, DIMENSION)]).await.unwrap();
        assert_ne!(nearest(gone).await, format!("c{gone}"));
        assert_eq!(nearest(new).await, format!("c{new}"));
        missed += usize::from(nearest(there).await != format!("c{there}"));
        // A graph is a good guess: what it was just built of may be missed once.
        assert!(missed <= 1, "{missed} of {n} were not found");
        n += 1;
        let stats = index.stats(&bank).await.unwrap();
        assert_eq!(stats.chunks, CHUNKS as u64);
        if stats.indexed_share > 0.5 {
            break;
        }
        assert!(n < CHUNKS / 2 && begun.elapsed() < NEVER, "{stats:?} after {n} changes");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(index);
    // And in the next process nothing has come back.
    let index = open_edge(folder.path(), Quantization::None).await.unwrap();
    let there = index.scroll(&bank, None, None, 20_000, false).await.unwrap();
    assert_eq!(there.len(), CHUNKS);
    assert!(there.iter().all(|chunk| chunk.id[1..].parse::<usize>().unwrap() >= n));
}
