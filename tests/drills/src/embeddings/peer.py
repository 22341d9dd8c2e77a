"""Sentence embeddings as Python's users compute them: peer.py MODEL THREADS.

Says `ready`, and then answers a JSON command a line:

    {"engine": "sentence-transformers" | "onnxruntime", "texts": […]}     {"seconds": 0.2, "vectors": [[…]]}
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy
import onnxruntime
import torch
from sentence_transformers import SentenceTransformer, models
from tokenizers import Tokenizer

# What the encoder was trained to read, and what sentence-transformers computes at once unless told otherwise.
LONGEST, BATCH = 256, 32


def session(encoder, threads):
    class Hidden(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = encoder

        def forward(self, ids, mask):
            return self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state

    folder = tempfile.TemporaryDirectory()
    path = str(Path(folder.name) / "model.onnx")
    ids = torch.ones((2, 16), dtype=torch.long)
    axes = {"ids": {0: "texts", 1: "tokens"}, "mask": {0: "texts", 1: "tokens"}, "hidden": {0: "texts", 1: "tokens"}}
    torch.onnx.export(Hidden().eval(), (ids, ids), path, input_names=["ids", "mask"], output_names=["hidden"], dynamic_axes=axes, opset_version=17, dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    made = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    folder.cleanup()
    return made


def embed_onnx(onnx, tokenizer, texts):
    """As sentence-transformers does it: texts of like length together, padded to the longest of their batch."""
    order = sorted(range(len(texts)), key=lambda at: -len(texts[at]))
    vectors = [None] * len(texts)
    for begin in range(0, len(texts), BATCH):
        part = order[begin : begin + BATCH]
        encoded = tokenizer.encode_batch([texts[at] for at in part])
        ids = numpy.array([one.ids for one in encoded], dtype=numpy.int64)
        mask = numpy.array([one.attention_mask for one in encoded], dtype=numpy.int64)
        (hidden,) = onnx.run(None, {"ids": ids, "mask": mask})
        pooled = (hidden * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        pooled /= numpy.linalg.norm(pooled, axis=1, keepdims=True)
        for at, vector in zip(part, pooled):
            vectors[at] = vector
    return numpy.stack(vectors)


def main(folder, threads):
    threads = int(threads)
    torch.set_num_threads(threads)
    transformer = models.Transformer(folder, max_seq_length=LONGEST)
    sentence = SentenceTransformer(modules=[transformer, models.Pooling(transformer.get_word_embedding_dimension()), models.Normalize()], device="cpu")
    onnx = session(transformer.auto_model, threads)
    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    tokenizer.enable_truncation(LONGEST)
    tokenizer.enable_padding()
    print("ready", flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        begun = time.perf_counter()
        if command["engine"] == "onnxruntime":
            vectors = embed_onnx(onnx, tokenizer, command["texts"])
        else:
            vectors = sentence.encode(command["texts"], batch_size=BATCH, show_progress_bar=False)
        took = time.perf_counter() - begun
        print(json.dumps({"seconds": took, "vectors": vectors.tolist()}), flush=True)


main(*sys.argv[1:])
