"""The embedded stores that Python agent stacks take by default, as they take them: exact, over the same vectors."""

import json
import os
import sqlite3
import sys
import time

import numpy

folder, dimension, batch = sys.argv[1], int(sys.argv[2]), 256
vectors = numpy.fromfile(os.path.join(folder, "vectors.f32"), dtype=numpy.float32).reshape(-1, dimension)
queries = numpy.fromfile(os.path.join(folder, "queries.f32"), dtype=numpy.float32).reshape(-1, dimension)
truth = numpy.fromfile(os.path.join(folder, "truth.u32"), dtype=numpy.uint32).reshape(len(queries), -1)


def told(name, ingest, search):
    begun = time.perf_counter()
    ingest()
    took = time.perf_counter() - begun
    times, found = [], 0
    for query, right in zip(queries, truth):
        begun = time.perf_counter()
        ids = search(query)
        times.append(time.perf_counter() - begun)
        found += len(set(int(n) for n in ids) & set(int(n) for n in right))
    times.sort()
    figures = {
        "name": name,
        "per_second": len(vectors) / took,
        "p50": times[len(times) // 2] * 1e3,
        "p99": times[int((len(times) - 1) * 0.99)] * 1e3,
        "recall": found / truth.size,
    }
    print(json.dumps(figures), flush=True)


def with_faiss():
    import faiss

    faiss.omp_set_num_threads(os.cpu_count())
    index = faiss.IndexFlatIP(dimension)

    def unit(rows):
        return rows / numpy.linalg.norm(rows, axis=-1, keepdims=True)

    def ingest():
        for start in range(0, len(vectors), batch):
            index.add(unit(vectors[start : start + batch]))
        # Once, at the end: after each batch would be minutes.
        faiss.write_index(index, os.path.join(folder, "faiss.index"))

    told("faiss IndexFlatIP", ingest, lambda query: index.search(unit(query[None, :]), truth.shape[1])[1][0])


def with_sqlite_vec():
    import sqlite_vec

    database = sqlite3.connect(os.path.join(folder, "vec.db"))
    database.enable_load_extension(True)
    sqlite_vec.load(database)
    database.execute("PRAGMA journal_mode=WAL")
    database.execute("PRAGMA synchronous=FULL")
    database.execute(f"CREATE VIRTUAL TABLE v USING vec0(embedding float[{dimension}] distance_metric=cosine)")
    database.commit()

    def ingest():
        for start in range(0, len(vectors), batch):
            rows = ((start + n, row.tobytes()) for n, row in enumerate(vectors[start : start + batch]))
            database.executemany("INSERT INTO v(rowid, embedding) VALUES (?, ?)", rows)
            database.commit()

    sql = "SELECT rowid FROM v WHERE embedding MATCH ? AND k = ? ORDER BY distance"
    told("sqlite-vec", ingest, lambda query: [row[0] for row in database.execute(sql, (query.tobytes(), truth.shape[1]))])


for peer in (with_faiss, with_sqlite_vec):
    try:
        peer()
    except Exception as error:  # A peer that is not there is said, and the others are measured.
        print(json.dumps({"name": peer.__name__.removeprefix("with_"), "missing": str(error)}), flush=True)
