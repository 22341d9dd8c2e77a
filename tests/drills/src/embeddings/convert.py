"""A sentence encoder of the BERT family, from its published folder to a GGUF file: convert.py FOLDER TO f32|q8_0."""

import json
import sys
from pathlib import Path

from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType, PoolingType, TokenType, quantize
from safetensors.numpy import load_file

# From the names in the published layout to those in GGUF, below a layer.
LAYER = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
OUTSIDE = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
}


def target(name):
    stem, kind = name.rsplit(".", 1)
    if stem.startswith("encoder.layer."):
        _, _, number, rest = stem.split(".", 3)
        return f"blk.{number}.{LAYER[rest]}.{kind}"
    return f"{OUTSIDE[stem]}.{kind}" if stem in OUTSIDE else None


def pieces(tokenizer):
    """The vocabulary as llama.cpp holds it: a piece that begins a word is marked, one that continues it is not."""
    vocabulary = sorted(tokenizer["model"]["vocab"].items(), key=lambda entry: entry[1])
    special = {token["content"] for token in tokenizer["added_tokens"]}
    for piece, _ in vocabulary:
        if piece in special:
            yield piece, TokenType.CONTROL
        elif piece.startswith("##"):
            yield piece[2:], TokenType.NORMAL
        else:
            yield "▁" + piece, TokenType.NORMAL


def main(folder, to, form):
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    ids = tokenizer["model"]["vocab"]
    writer = GGUFWriter(to, "bert")
    writer.add_file_type(LlamaFileType.MOSTLY_Q8_0 if form == "q8_0" else LlamaFileType.ALL_F32)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(PoolingType.MEAN)
    writer.add_token_type_count(config["type_vocab_size"])
    tokens, kinds = zip(*pieces(tokenizer))
    writer.add_tokenizer_model("bert")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_uint32("tokenizer.ggml.cls_token_id", ids["[CLS]"])
    writer.add_sep_token_id(ids["[SEP]"])
    writer.add_eos_token_id(ids["[SEP]"])
    writer.add_pad_token_id(ids["[PAD]"])
    writer.add_unk_token_id(ids["[UNK]"])
    writer.add_mask_token_id(ids["[MASK]"])
    for name, tensor in load_file(folder / "model.safetensors").items():
        called = target(name)
        if not called:
            continue
        tensor = tensor.astype("float32")
        # Tables are looked up, not multiplied: only the words', which is half of the file, is worth it.
        if form == "q8_0" and tensor.ndim == 2 and (called.startswith("blk.") or called == "token_embd.weight"):
            kind = GGMLQuantizationType.Q8_0
            writer.add_tensor(called, quantize(tensor, kind), raw_dtype=kind)
        else:
            writer.add_tensor(called, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


main(*sys.argv[1:])
