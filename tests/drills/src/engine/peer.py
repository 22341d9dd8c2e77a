"""llama.cpp as its users get it, from a prebuilt wheel, to be measured beside: peer.py MODEL THREADS CONTEXT SEQUENCES.

A JSON command a line, a JSON answer a line, in seconds:

    {"prompts": [[ids]], "tokens": 64}     {"prefill": 1.5, "decode": 2.5}     to the first tokens, and from there to the last

Its C functions are called, and none of the wheel's Python. Source of the structures: include/llama.h at build b11549.
"""

import ctypes
import json
import sys
import time
from ctypes import POINTER, Structure, c_bool, c_char_p, c_float, c_int, c_int8, c_int32, c_size_t, c_uint32, c_void_p
from importlib.util import find_spec
from pathlib import Path

class ModelParams(Structure):
    _fields_ = [
        ("devices", c_void_p),
        ("tensor_buft_overrides", c_void_p),
        *[(name, c_int) for name in ("n_gpu_layers", "split_mode", "load_mode", "lazy_mode", "main_gpu")],
        *[(name, c_void_p) for name in ("tensor_split", "progress_callback", "progress_callback_user_data", "kv_overrides")],
        *[(name, c_bool) for name in ("vocab_only", "check_tensors", "use_extra_bufts", "no_host", "no_alloc", "load_mtp")],
    ]


class ContextParams(Structure):
    _fields_ = [
        *[(name, c_uint32) for name in ("n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_rs_seq", "n_outputs_max", "n_outputs_max_per_seq")],
        *[(name, c_int32) for name in ("n_threads", "n_threads_batch")],
        *[(name, c_int) for name in ("ctx_type", "rope_scaling_type", "pooling_type", "attention_type", "flash_attn_type")],
        *[(name, c_float) for name in ("rope_freq_base", "rope_freq_scale", "yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow")],
        ("yarn_orig_ctx", c_uint32),
        ("defrag_thold", c_float),
        *[(name, c_void_p) for name in ("cb_eval", "cb_eval_user_data")],
        *[(name, c_int) for name in ("type_k", "type_v")],
        ("moe_cache_size", c_size_t),
        *[(name, c_void_p) for name in ("abort_callback", "abort_callback_data")],
        *[(name, c_bool) for name in ("embeddings", "offload_kqv", "no_perf", "op_offload", "swa_full", "kv_unified")],
        ("samplers", c_void_p),
        ("n_samplers", c_size_t),
        ("ctx_other", c_void_p),
    ]


class Batch(Structure):
    _fields_ = [
        ("n_tokens", c_int32),
        ("token", POINTER(c_int32)),
        ("embd", c_void_p),
        ("pos", POINTER(c_int32)),
        ("n_seq_id", POINTER(c_int32)),
        ("seq_id", POINTER(POINTER(c_int32))),
        ("logits", POINTER(c_int8)),
    ]


def library():
    # Found, not imported: the extension initialises Python modules that are not needed here.
    folder = Path(find_spec("xllamacpp").origin).parent
    lib = ctypes.CDLL(str(next(folder.glob("xllamacpp*.so"))))
    functions = {
        "llama_log_set": (None, [c_void_p, c_void_p]),
        "llama_backend_init": (None, []),
        "llama_model_default_params": (ModelParams, []),
        "llama_context_default_params": (ContextParams, []),
        "llama_model_load_from_file": (c_void_p, [c_char_p, ModelParams]),
        "llama_init_from_model": (c_void_p, [c_void_p, ContextParams]),
        "llama_get_memory": (c_void_p, [c_void_p]),
        "llama_memory_clear": (None, [c_void_p, c_bool]),
        "llama_batch_init": (Batch, [c_int32, c_int32, c_int32]),
        "llama_decode": (c_int32, [c_void_p, Batch]),
        "llama_sampler_init_greedy": (c_void_p, []),
        "llama_sampler_sample": (c_int32, [c_void_p, c_void_p, c_int32]),
    }
    for name, (answer, arguments) in functions.items():
        function = getattr(lib, name)
        function.restype, function.argtypes = answer, arguments
    return lib


QUIET = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)(lambda level, text, data: None)


class Peer:
    def __init__(self, path, threads, context, sequences):
        self.lib = library()
        self.lib.llama_log_set(ctypes.cast(QUIET, c_void_p), None)
        self.lib.llama_backend_init()
        params = self.lib.llama_context_default_params()
        # The only sign that a structure is not the one of this build.
        assert (params.n_batch, params.type_k, params.type_v, params.offload_kqv) == (2048, 1, 1, True), "another build of llama.cpp"
        params.n_ctx, params.n_seq_max, params.kv_unified = context, sequences, sequences > 1
        params.n_threads, params.n_threads_batch = threads, threads
        model = self.lib.llama_model_load_from_file(path.encode(), self.lib.llama_model_default_params())
        assert model, f"llama.cpp cannot load {path}"
        self.context = self.lib.llama_init_from_model(model, params)
        assert self.context, "llama.cpp makes no context"
        self.batch = self.lib.llama_batch_init(params.n_batch, 0, 1)
        self.greedy = self.lib.llama_sampler_init_greedy()

    def generate(self, prompts, tokens):
        self.lib.llama_memory_clear(self.lib.llama_get_memory(self.context), True)
        lengths = [0] * len(prompts)
        begun = time.perf_counter()
        texts = self.step(prompts, lengths)
        first = time.perf_counter()
        for _ in range(tokens - 1):
            texts = self.step(texts, lengths)
        return {"prefill": first - begun, "decode": time.perf_counter() - first}

    def step(self, texts, lengths):
        """The token after each text; texts go on at their lengths."""
        batch, ends = self.batch, []
        batch.n_tokens = 0
        for sequence, text in enumerate(texts):
            for token in text:
                at = batch.n_tokens
                batch.token[at], batch.pos[at], batch.logits[at] = token, lengths[sequence], 0
                batch.n_seq_id[at], batch.seq_id[at][0] = 1, sequence
                batch.n_tokens += 1
                lengths[sequence] += 1
            batch.logits[at] = 1
            ends.append(at)
        assert self.lib.llama_decode(self.context, batch) == 0, "llama_decode failed"
        return [[self.lib.llama_sampler_sample(self.greedy, self.context, end)] for end in ends]


def main(path, *numbers):
    peer = Peer(path, *map(int, numbers))
    for line in sys.stdin:
        print(json.dumps(peer.generate(**json.loads(line))), flush=True)


main(*sys.argv[1:])
