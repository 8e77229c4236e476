#!/usr/bin/env python3
"""Writes tests/data/families/gpt_oss as GGUF with experts in MXFP4, as gpt-oss's own files have them: mxfp4.gguf beside it.

Needs numpy and gguf. llama.cpp rounds YaRN's range of frequencies, which this model's config.json does not want, so its logits are
near the recorded ones, not equal to them.
"""

import json
import struct
from pathlib import Path

import gguf
import numpy as np

FOLDER = Path(__file__).resolve().parents[1] / "data" / "families" / "gpt_oss"
LAYER = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "post_attention_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.router": "ffn_gate_inp",
}
WHOLE = {"lm_head.weight": "output.weight", "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}


def read(path):
    """The tensors of a safetensors file of f32."""
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8:8 + length])
    header.pop("__metadata__", None)
    at = lambda x: 8 + length + x
    return {name: np.frombuffer(raw[at(t["data_offsets"][0]):at(t["data_offsets"][1])], "<f4").reshape(t["shape"]) for name, t in header.items()}


def converted(name, x):
    """Its GGUF names and tensors. Experts: gate and up in turns become two, and matrices (in, out) become (out, in)."""
    if name in WHOLE:
        return {WHOLE[name]: x}
    _, _, layer, rest = name.split(".", 3)
    block = f"blk.{layer}"
    if rest == "self_attn.sinks":
        return {f"{block}.attn_sinks.weight": x}
    if rest.startswith("mlp.experts."):
        which = rest.removeprefix("mlp.experts.").removesuffix("_bias").removesuffix("_proj")
        kind, x = ("bias", x) if rest.endswith("_bias") else ("weight", x.swapaxes(1, 2))
        parts = {"gate": x[:, ::2], "up": x[:, 1::2]} if which == "gate_up" else {"down": x}
        return {f"{block}.ffn_{part}_exps.{kind}": v for part, v in parts.items()}
    rest, kind = rest.rsplit(".", 1)
    return {f"{block}.{LAYER[rest]}.{kind}": x}


def main():
    c = json.loads((FOLDER / "config.json").read_text())
    rope = c["rope_parameters"]
    w = gguf.GGUFWriter(FOLDER / "mxfp4.gguf", "gpt-oss")
    w.add_context_length(c["max_position_embeddings"])
    w.add_embedding_length(c["hidden_size"])
    w.add_block_count(c["num_hidden_layers"])
    w.add_feed_forward_length(c["intermediate_size"])
    w.add_expert_feed_forward_length(c["intermediate_size"])
    w.add_head_count(c["num_attention_heads"])
    w.add_head_count_kv(c["num_key_value_heads"])
    w.add_key_length(c["head_dim"])
    w.add_value_length(c["head_dim"])
    w.add_layer_norm_rms_eps(c["rms_norm_eps"])
    w.add_sliding_window(c["sliding_window"])
    w.add_expert_count(c["num_local_experts"])
    w.add_expert_used_count(c["num_experts_per_tok"])
    w.add_rope_freq_base(rope["rope_theta"])
    w.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    w.add_rope_scaling_factor(rope["factor"])
    w.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    w.add_file_type(gguf.LlamaFileType.MOSTLY_MXFP4_MOE)
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for name, x in read(FOLDER / "model.safetensors").items():
        for to, x in converted(name, x).items():
            x = np.ascontiguousarray(x)
            if to.endswith("_exps.weight"):
                kind = gguf.GGMLQuantizationType.MXFP4
                w.add_tensor(to, gguf.quants.quantize(x, kind), raw_dtype=kind)
            else:
                w.add_tensor(to, x)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    main()
