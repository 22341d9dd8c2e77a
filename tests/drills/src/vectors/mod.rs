//! Vectors of the embedded index: how many of the true neighbours it finds, how soon, and how fast it takes them durably;
//! beside the stores that Python's stacks embed, on the same data in the same run.

mod data;
mod peers;

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use llama_stack_core::Deps;
use llama_stack_memory::index::{BankKey, Index, Search, Shape};
use llama_stack_proto::v1::{
    Chunk, Filter, SearchMode, Value,
    filter::{Comparison, Filter as Kind, comparison::Operator},
    value,
};
use llama_stack_qdrant_edge::{Config, EdgeIndex, Quantization};

use crate::{
    Verdict,
    figures::{Times, millis},
};
use data::{BUCKETS, DIMENSION, Data};

const BATCH: usize = 256;
const TOP: u32 = 10;

/// What is asked for, by the size.
struct Goal {
    recall: f64,
    filtered: f64,
    p50: Duration,
    p99: Duration,
    upserts: f64,
    /// Of the whole process, with the drill's own vectors.
    memory_mb: Option<u64>,
}

pub(crate) async fn run(long: bool, million: bool) -> Verdict {
    let count = match (million, long) {
        (true, _) => 1_000_000,
        (false, true) => 100_000,
        (false, false) => 20_000,
    };
    let ms = Duration::from_millis;
    let goal = if million {
        Goal { recall: 0.95, filtered: 0.95, p50: ms(25), p99: ms(25), upserts: 2_000.0, memory_mb: Some(1_200) }
    } else {
        Goal { recall: 0.98, filtered: 0.97, p50: ms(2), p99: ms(8), upserts: 2_000.0, memory_mb: None }
    };
    println!("{count} vectors of {DIMENSION} dimensions in {} clusters, batches of {BATCH}, top {TOP}", data::CLUSTERS);
    let found = embedded(count, million, &goal).await;
    if !million {
        let data = Data::new(count);
        for peer in peers::run(&data) {
            println!("{peer}");
        }
    }
    found
}

async fn embedded(count: usize, quantized: bool, goal: &Goal) -> Verdict {
    let folder = tempfile::tempdir().unwrap();
    let deps = Deps { provider_id: "drill".into(), ..Deps::new(folder.path()) };
    let quantization = if quantized { Quantization::Scalar } else { Quantization::None };
    let index = Arc::new(EdgeIndex::new(Config { quantization, ..Config::default() }, &deps).await.unwrap());
    let bank = BankKey { tenant: "drill".into(), bank_id: "vectors".into() };
    index.create(&bank, &Shape { dimension: DIMENSION as u32, keyword: false }).await.unwrap();

    let mut stream = data::Stream::new();
    let began = Instant::now();
    let mut writing = Duration::ZERO;
    for start in (0..count).step_by(BATCH) {
        let batch = (start..(start + BATCH).min(count)).map(|n| chunk(n, stream.next())).collect();
        let one = Instant::now();
        index.upsert(&bank, batch).await.unwrap();
        writing += one.elapsed();
    }
    let upserts = count as f64 / writing.as_secs_f64();
    println!("{:<24} {upserts:>10.0} durable upserts/s, one writer", "qdrant-edge");
    let mut share = 0.0;
    while began.elapsed() < Duration::from_secs(3600) {
        let now = index.stats(&bank).await.unwrap().indexed_share;
        if now > 0.95 || (now > 0.0 && now == share && count < 30_000) {
            share = now;
            break;
        }
        share = now;
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
    println!("{:<24} {:>10.1} s from the first upsert until {:.0} % are indexed", "", began.elapsed().as_secs_f64(), share * 100.0);
    // What indexing leaves in the caches is not what a search that comes later finds.
    tokio::time::sleep(Duration::from_secs(1)).await;

    let queries = data::queries(200);
    let mut recalls = Vec::new();
    let mut slowest = Times::new(vec![Duration::ZERO]);
    for filtered in [false, true] {
        let (mut times, mut right) = (Vec::new(), 0);
        for (n, vector) in queries.iter().enumerate() {
            let filter = filtered.then(|| bucket(n % BUCKETS));
            let search = Search { vector: vector.clone(), mode: SearchMode::Vector, limit: TOP, filter, ..Search::default() };
            let one = Instant::now();
            let hits = index.search(&bank, &search).await.unwrap();
            times.push(one.elapsed());
            let truth = index.search_exactly(&bank, &search).await.unwrap();
            let truth: HashSet<String> = truth.into_iter().map(|hit| hit.chunk.id).collect();
            right += hits.iter().filter(|hit| truth.contains(&hit.chunk.id)).count();
        }
        let (times, recall) = (Times::new(times), right as f64 / (queries.len() * TOP as usize) as f64);
        let name = if filtered { "  filtered, 1 % of all" } else { "  all" };
        println!("{name:<24} recall@10 {recall:.3}, p50 {:.2} ms, p99 {:.2} ms", millis(times.p50()), millis(times.p99()));
        recalls.push(recall);
        if !filtered {
            slowest = times;
        }
    }
    let memory = memory_mb();
    println!("{:<24} {memory:>10} MB resident, {} MB on disk", "", index.stats(&bank).await.unwrap().bytes >> 20);
    let within = goal.memory_mb.is_none_or(|most| memory <= most);
    Verdict {
        line: format!(
            "vectors: recall@10 {:.3}, filtered {:.3}, p50 {:.2} ms, p99 {:.2} ms, {upserts:.0} durable upserts/s, {memory} MB",
            recalls[0],
            recalls[1],
            millis(slowest.p50()),
            millis(slowest.p99())
        ),
        holds: recalls[0] >= goal.recall
            && recalls[1] >= goal.filtered
            && slowest.p50() <= goal.p50
            && slowest.p99() <= goal.p99
            && upserts >= goal.upserts
            && within,
    }
}

fn chunk(n: usize, vector: Vec<f32>) -> Chunk {
    let bucket = Value { value: Some(value::Value::Number((n % BUCKETS) as f64)) };
    Chunk {
        id: n.to_string(),
        document_id: (n / 16).to_string(),
        index: (n % 16) as u32,
        text: format!("chunk {n}"),
        vector,
        attributes: [("bucket".to_owned(), bucket)].into(),
        ..Chunk::default()
    }
}

fn bucket(number: usize) -> Filter {
    let values = vec![Value { value: Some(value::Value::Number(number as f64)) }];
    let comparison = Comparison { attribute: "bucket".into(), operator: Operator::Eq.into(), values };
    Filter { filter: Some(Kind::Comparison(comparison)) }
}

fn memory_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or_default() / 1024
}
