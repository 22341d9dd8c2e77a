"""A classifier of Prompt Guard 2 22M's shape with random weights, and its reference implementations, to be measured beside:
peer.py FOLDER THREADS.

Writes the model into FOLDER in the published layout, says `ready`, and then answers a JSON command a line:

    {"engine": "transformers" | "onnxruntime", "ids": [[…]]}     {"seconds": 0.2, "logits": [[…]]}
"""

import json
import sys
import time
from pathlib import Path

import numpy
import onnxruntime
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification


def tokenizer():
    pieces = [("[PAD]", 0.0), ("[CLS]", 0.0), ("[SEP]", 0.0), ("[UNK]", 0.0)]
    pieces += [(letter, -9.0) for letter in "▁abcdefghijklmnopqrstuvwxyz,.?!"]
    made = Tokenizer(models.Unigram(pieces, unk_id=3))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    return made


def model():
    torch.manual_seed(7)
    # microsoft/deberta-v3-xsmall, on which Prompt Guard 2 22M was trained. The range of the weights is wider than at the
    # beginning of a training, so that the logits say something.
    config = DebertaV2Config(
        vocab_size=128_100, hidden_size=384, num_hidden_layers=12, num_attention_heads=6, intermediate_size=1_536,
        max_position_embeddings=512, type_vocab_size=0, layer_norm_eps=1e-7, relative_attention=True, max_relative_positions=-1,
        position_buckets=256, norm_rel_ebd="layer_norm", share_att_key=True, pos_att_type=["p2c", "c2p"],
        position_biased_input=False, pooler_dropout=0, pooler_hidden_act="gelu", pooler_hidden_size=384, initializer_range=0.05,
        id2label={0: "BENIGN", 1: "MALICIOUS"}, label2id={"BENIGN": 0, "MALICIOUS": 1},
    )
    return DebertaV2ForSequenceClassification(config).eval()


def session(made, folder, threads):
    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.made = made

        def forward(self, ids, mask):
            return self.made(input_ids=ids, attention_mask=mask).logits

    path = str(folder / "model.onnx")
    ids = torch.ones((2, 16), dtype=torch.long)
    axes = {"ids": {0: "texts", 1: "tokens"}, "mask": {0: "texts", 1: "tokens"}}
    torch.onnx.export(Logits().eval(), (ids, ids), path, input_names=["ids", "mask"], output_names=["logits"], dynamic_axes=axes, opset_version=17, dynamo=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def main(folder, threads):
    folder, threads = Path(folder), int(threads)
    torch.set_num_threads(threads)
    made = model()
    made.save_pretrained(folder, safe_serialization=True)
    tokenizer().save(str(folder / "tokenizer.json"))
    onnx = session(made, folder, threads)
    print("ready", flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        ids = numpy.array(command["ids"], dtype=numpy.int64)
        mask = numpy.ones_like(ids)
        if command["engine"] == "transformers":
            ids, mask = torch.from_numpy(ids), torch.from_numpy(mask)
            begun = time.perf_counter()
            with torch.inference_mode():
                logits = made(input_ids=ids, attention_mask=mask).logits
        else:
            begun = time.perf_counter()
            (logits,) = onnx.run(None, {"ids": ids, "mask": mask})
        took = time.perf_counter() - begun
        print(json.dumps({"seconds": took, "logits": logits.tolist()}), flush=True)


main(*sys.argv[1:])
