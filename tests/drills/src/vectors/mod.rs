//! Banks on Qdrant inside the process: 100,000 vectors in clusters, written durably, indexed in the background, searched, with
//! and without a filter that leaves one in a hundred; beside exact search and the embedded stores of Python stacks on the same
//! data. `--long`: a million, with rounded vectors.

mod data;

use std::{
    collections::HashSet,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use data::{DIMENSION, Data, Nearest};
use llama_stack_memory::index::{BankKey, Index, Search, Shape};
use llama_stack_proto::v1::{
    Chunk, Filter, SearchMode, Value,
    filter::{Comparison, Filter as Of, comparison::Operator},
    value::Value as Is,
};
use llama_stack_qdrant::{Quantization, open_edge};

use crate::{
    Verdict,
    figures::{Times, millis},
    python::Python,
};

const BATCH: usize = 256;
const QUERIES: usize = 200;
const TOP: usize = 10;
/// One group is one in a hundred.
const GROUPS: usize = 100;
const PATIENCE: Duration = Duration::from_secs(3_600);

/// How much, and what it must reach.
struct Size {
    vectors: usize,
    quantization: Quantization,
    recall: f64,
    p50: f64,
    p99: f64,
    memory: f64,
}

pub(crate) async fn run(long: bool) -> Verdict {
    let size = if long {
        Size { vectors: 1_000_000, quantization: Quantization::Scalar, recall: 0.95, p50: f64::INFINITY, p99: 25.0, memory: 1_200.0 }
    } else {
        Size { vectors: 100_000, quantization: Quantization::None, recall: 0.98, p50: 2.0, p99: 8.0, memory: f64::INFINITY }
    };
    let (data, count) = (Data::new(), size.vectors);
    let queries: Vec<Vec<f32>> = (0..QUERIES).map(|n| data.query(n)).collect();
    let begun = Instant::now();
    let truth = data.truth(count, &queries, TOP, |_, _| true);
    let exact = begun.elapsed().as_secs_f64() * 1e3 / QUERIES as f64;
    let filtered_truth = data.truth(count, &queries, TOP, |query, n| n % GROUPS == query % GROUPS);

    let folder = tempfile::tempdir().unwrap();
    let index = open_edge(&folder.path().join("edge"), size.quantization).await.unwrap();
    let bank = BankKey { tenant: "drill".into(), bank_id: "vectors".into() };
    index.create(&bank, &Shape { dimension: DIMENSION as u32, keyword: true }).await.unwrap();
    let begun = Instant::now();
    for start in (0..count).step_by(BATCH) {
        let chunks = (start..(start + BATCH).min(count)).map(|n| chunk(&data, n)).collect();
        index.upsert(&bank, chunks).await.unwrap();
    }
    let per_second = count as f64 / begun.elapsed().as_secs_f64();
    let begun = Instant::now();
    let indexed = loop {
        let stats = index.stats(&bank).await.unwrap();
        assert_eq!(stats.chunks, count as u64);
        if stats.indexed_share > 0.99 || begun.elapsed() > PATIENCE {
            break stats.indexed_share;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    let built = begun.elapsed().as_secs_f64();
    let (joining, _) = asked(&index, &bank, &queries, &truth, false).await;
    rested(begun).await;
    let joined = begun.elapsed().as_secs_f64();

    println!(
        "{count} x {DIMENSION}, {QUERIES} queries, top {TOP}; {indexed:.2} indexed after {built:.0} s in the background, joined after {joined:.0} s"
    );
    println!("{:<28} {:>12} {:>10} {:>10} {:>10}", "", "upserts/s", "p50 ms", "p99 ms", "recall");
    let (times, recall) = asked(&index, &bank, &queries, &truth, false).await;
    let (p50, p99) = (millis(times.p50()), millis(times.p99()));
    println!("{:<28} {per_second:>12.0} {p50:>10.2} {p99:>10.2} {recall:>10.3}", "inline::qdrant-edge");
    let (p50_joining, p99_joining) = (millis(joining.p50()), millis(joining.p99()));
    println!("{:<28} {:>12} {p50_joining:>10.2} {p99_joining:>10.2}", "  while segments are joined", "");
    let (times, filtered) = asked(&index, &bank, &queries, &filtered_truth, true).await;
    println!("{:<28} {:>12} {:>10.2} {:>10.2} {filtered:>10.3}", "  with a filter, 1 %", "", millis(times.p50()), millis(times.p99()));
    println!("{:<28} {:>12} {exact:>10.2} {:>10} {:>10.3}", "exact, both cores, no store", "", "", 1.0);
    let (resident, memory) = memory();
    println!("memory of the process: {memory:.0} MB, with pages of its files {resident:.0} MB");
    if !long {
        peers(&data, count, &queries, &truth);
    }
    let holds = recall >= size.recall && p50 <= size.p50 && p99 <= size.p99 && filtered >= size.recall - 0.01 && per_second >= 2_000.0;
    Verdict {
        line: format!(
            "vectors: recall@10 {recall:.3} ({filtered:.3} filtered), p50 {p50:.2} ms, p99 {p99:.2} ms, {per_second:.0} upserts/s, {memory:.0} MB"
        ),
        holds: holds && memory <= size.memory,
    }
}

fn chunk(data: &Data, n: usize) -> Chunk {
    let group = Value { value: Some(Is::Text(format!("g{}", n % GROUPS))) };
    Chunk {
        id: format!("c{n}"),
        document_id: format!("d{}", n / 10),
        index: (n % 10) as u32,
        text: format!("Passage {n} of a report on subject {}: what was measured, and by whom.", n % 1_000),
        vector: data.vector(n),
        attributes: [("group".to_owned(), group)].into(),
        ..Chunk::default()
    }
}

async fn asked(index: &Arc<dyn Index>, bank: &BankKey, queries: &[Vec<f32>], truth: &[Nearest], filtered: bool) -> (Times, f64) {
    let (mut times, mut found, mut wanted) = (Vec::new(), 0, 0);
    // The first round warms the caches.
    for round in 0..2 {
        for (n, query) in queries.iter().enumerate() {
            let group = Value { value: Some(Is::Text(format!("g{}", n % GROUPS))) };
            let comparison = Comparison { attribute: "group".into(), operator: Operator::Eq.into(), values: vec![group] };
            let filter = filtered.then_some(Filter { filter: Some(Of::Comparison(comparison)) });
            let search = Search { vector: query.clone(), mode: SearchMode::Vector, filter, limit: TOP as u32, ..Search::default() };
            let begun = Instant::now();
            let hits = index.search(bank, &search).await.unwrap();
            if round == 1 {
                times.push(begun.elapsed());
                let right: HashSet<String> = truth[n].iter().map(|(_, n)| format!("c{n}")).collect();
                found += hits.iter().filter(|hit| right.contains(&hit.chunk.id)).count();
                wanted += right.len();
            }
        }
    }
    (Times::new(times), found as f64 / wanted as f64)
}

/// Waits until this process has nothing left to do: the graphs are built and joined. At once where the system does not say.
async fn rested(begun: Instant) {
    let mut used = processor();
    while begun.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let now = processor();
        if now - used < 10 {
            return;
        }
        used = now;
    }
}

/// Time on the processors, in ticks of a hundredth of a second.
fn processor() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

/// Resident, in megabytes: all, and of that what is not pages of files, which the kernel can drop and read again. 0 where the
/// system does not say.
fn memory() -> (f64, f64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let megabytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).unwrap_or_default() / 1024.0
    };
    (megabytes("VmRSS:"), megabytes("RssAnon:"))
}

/// Those that can be installed here.
fn peers(data: &Data, count: usize, queries: &[Vec<f32>], truth: &[Nearest]) {
    let python = Python::new();
    for package in ["numpy", "faiss-cpu", "sqlite-vec"] {
        if !python.try_install(package) {
            println!("skipped: {package} cannot be installed");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let floats = |rows: &mut dyn Iterator<Item = Vec<f32>>, name: &str| write(folder.path(), name, rows.flatten().map(f32::to_le_bytes));
    floats(&mut (0..count).map(|n| data.vector(n)), "vectors.f32");
    floats(&mut queries.iter().cloned(), "queries.f32");
    write(folder.path(), "truth.u32", truth.iter().flatten().map(|(_, n)| n.to_le_bytes()));
    let script = python.script("peer.py", include_str!("peer.py"));
    let ran = Command::new(python.path()).arg(script).arg(folder.path()).arg(DIMENSION.to_string()).stderr(Stdio::null()).output();
    let told = ran.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    for line in told.lines() {
        let Ok(figures) = serde_json::from_str::<serde_json::Value>(line) else { continue };
        let name = figures["name"].as_str().unwrap_or_default();
        let number = |key: &str| figures[key].as_f64().unwrap_or(f64::NAN);
        match figures["missing"].as_str() {
            Some(why) => println!("{name:<28} skipped: {why}"),
            None => println!(
                "{name:<28} {:>12.0} {:>10.2} {:>10.2} {:>10.3}",
                number("per_second"),
                number("p50"),
                number("p99"),
                number("recall")
            ),
        }
    }
}

fn write(folder: &Path, name: &str, numbers: impl Iterator<Item = [u8; 4]>) {
    let bytes: Vec<u8> = numbers.flatten().collect();
    std::fs::write(folder.join(name), bytes).unwrap();
}
