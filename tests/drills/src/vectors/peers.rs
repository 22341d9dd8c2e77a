//! What Python's stacks embed by default, as they use it: faiss with a flat index that is written whole after each batch, and
//! sqlite-vec with a virtual table and a commit for each batch.

use std::{fs, process::Command};

use serde_json::Value;

use super::data::Data;
use crate::python::Python;

const SCRIPT: &str = r#"
import json, os, sqlite3, sys, time
import numpy as np
folder, batch, top = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
dimension = 384
load = lambda name: np.fromfile(os.path.join(folder, name), dtype=np.float32).reshape(-1, dimension)
unit = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)
data, queries = unit(load("data.f32")), unit(load("queries.f32"))
truth = [set(np.argpartition(-(data @ q), top)[:top].tolist()) for q in queries]

def measure(name, insert, search, flush):
    began = time.perf_counter()
    for start in range(0, len(data), batch):
        insert(start, data[start:start + batch])
    flush()
    seconds = time.perf_counter() - began
    times, right = [], 0
    for q, expected in zip(queries, truth):
        one = time.perf_counter()
        found = search(q)
        times.append((time.perf_counter() - one) * 1e3)
        right += len(expected & set(found))
    times.sort()
    print(json.dumps({"name": name, "rate": len(data) / seconds, "recall": right / (top * len(queries)),
                      "p50": times[len(times) // 2], "p99": times[int(len(times) * 0.99)]}), flush=True)

import faiss
flat = faiss.IndexFlatL2(dimension)
def keep():
    path = os.path.join(folder, "faiss.index")
    faiss.write_index(flat, path)
    with open(path, "rb") as file:
        os.fsync(file.fileno())
measure("faiss flat, written once", lambda start, rows: flat.add(rows), lambda q: flat.search(q[None, :], top)[1][0].tolist(), keep)

import sqlite_vec
db = sqlite3.connect(os.path.join(folder, "vec.db"))
db.enable_load_extension(True)
sqlite_vec.load(db)
db.execute(f"CREATE VIRTUAL TABLE vectors USING vec0(embedding FLOAT[{dimension}])")
db.commit()
def insert(start, rows):
    db.executemany("INSERT INTO vectors (rowid, embedding) VALUES (?, ?)", [(start + n, row.tobytes()) for n, row in enumerate(rows)])
    db.commit()
def search(q):
    rows = db.execute("SELECT rowid FROM vectors WHERE embedding MATCH ? AND k = ? ORDER BY distance", (q.tobytes(), top))
    return [row[0] for row in rows]
measure("sqlite-vec", insert, search, lambda: None)
"#;

/// A line of the table for each.
pub(super) fn run(data: &Data) -> Vec<String> {
    let python = Python::new();
    for package in ["numpy", "faiss-cpu", "sqlite-vec"] {
        python.install(package, &[]);
    }
    let folder = tempfile::tempdir().unwrap();
    for (name, rows) in [("data.f32", &data.vectors), ("queries.f32", &data.queries)] {
        let bytes: Vec<u8> = rows.iter().flatten().flat_map(|number| number.to_le_bytes()).collect();
        fs::write(folder.path().join(name), bytes).unwrap();
    }
    let script = python.script("peers.py", SCRIPT);
    let (batch, top) = (super::BATCH.to_string(), super::TOP.to_string());
    let output = Command::new(python.path()).arg(script).arg(folder.path()).args([batch, top]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let each = |line: &str| {
        let found: Value = serde_json::from_str(line).unwrap();
        let number = |key: &str| found[key].as_f64().unwrap();
        format!(
            "{:<24} {:>10.0} upserts/s, recall@10 {:.3}, p50 {:.2} ms, p99 {:.2} ms",
            found["name"].as_str().unwrap(),
            number("rate"),
            number("recall"),
            number("p50"),
            number("p99")
        )
    };
    String::from_utf8_lossy(&output.stdout).lines().map(each).collect()
}
