"""Writes the trained model as GGUF v3 (matrices Q8_0, norms F32) with its tokenizer and chat template.

    python export.py --model tiny.pt --tokenizer tokenizer.json --out tiny.gguf
"""

import argparse
import json

import gguf
import numpy as np
import torch

from bpe import SPECIALS
from model import Config

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LAYER = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp", "mlp.experts.gate_proj": "ffn_gate_exps", "mlp.experts.up_proj": "ffn_up_exps",
    "mlp.experts.down_proj": "ffn_down_exps",
}


def gguf_name(name):
    """The GGUF name of a Hugging Face weight name."""
    name = name.removesuffix(".weight")
    if name == "embed_tokens":
        return "token_embd.weight"
    if name == "norm":
        return "output_norm.weight"
    _, index, rest = name.split(".", 2)
    return f"blk.{index}.{LAYER[rest]}.weight"


def permute(w, heads):
    """Rows of each head from half-split to adjacent-pair order, which GGUF's llama architecture rotates."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def unpermute(w, heads):
    """The inverse of `permute`."""
    return w.reshape(heads, w.shape[0] // heads // 2, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def heads_of(name, c):
    """How many heads a weight's rows are split into, or None if they are not rotated."""
    return {"self_attn.q_proj.weight": c.num_attention_heads, "self_attn.k_proj.weight": c.num_key_value_heads}.get(name.split(".", 2)[-1])


def write_tokenizer(w, path):
    with open(path, encoding="utf-8") as f:
        t = json.load(f)
    ids = t["model"]["vocab"]
    tokens = sorted(ids, key=ids.get)
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(tokens)
    w.add_token_types([gguf.TokenType.CONTROL if x in SPECIALS else gguf.TokenType.NORMAL for x in tokens])
    w.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in t["model"]["merges"]])
    eot, start, stop = SPECIALS
    w.add_bos_token_id(ids[start])
    w.add_eos_token_id(ids[stop])
    w.add_eot_token_id(ids[eot])
    w.add_unk_token_id(ids[eot])
    w.add_pad_token_id(ids[stop])
    w.add_add_bos_token(False)
    w.add_add_space_prefix(False)
    w.add_chat_template(TEMPLATE)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--model", default="tiny.pt")
    p.add_argument("--tokenizer", default="tokenizer.json")
    p.add_argument("--out", default="tiny.gguf")
    a = p.parse_args()
    saved = torch.load(a.model, weights_only=True)
    c = Config(**saved["config"])
    w = gguf.GGUFWriter(a.out, "llama")
    w.add_type(gguf.GGUFType.MODEL)
    w.add_name("Shardlight Tiny MoE" if c.num_local_experts else "Shardlight Tiny")
    w.add_description("Tells short children's stories; trained from nothing on text composed by tests/tools/tiny/stories.py")
    w.add_license("MIT OR Apache-2.0")
    size = sum(x.numel() for x in saved["model"].values()) / 1e6
    w.add_size_label(f"{size:.1f}M")
    w.add_languages(["en"])
    w.add_vocab_size(c.vocab_size)
    w.add_context_length(c.max_position_embeddings)
    w.add_embedding_length(c.hidden_size)
    w.add_block_count(c.num_hidden_layers)
    w.add_feed_forward_length(c.intermediate_size)
    w.add_head_count(c.num_attention_heads)
    w.add_head_count_kv(c.num_key_value_heads)
    w.add_key_length(c.head_dim)
    w.add_value_length(c.head_dim)
    w.add_rope_dimension_count(c.head_dim)
    w.add_rope_freq_base(c.rope_theta)
    w.add_layer_norm_rms_eps(c.rms_norm_eps)
    if c.num_local_experts:
        w.add_expert_count(c.num_local_experts)
        w.add_expert_used_count(c.num_experts_per_tok)
    w.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    w.add_quantization_version(gguf.GGML_QUANT_VERSION)
    write_tokenizer(w, a.tokenizer)
    for name, x in saved["model"].items():
        x = x.float().numpy()
        if heads := heads_of(name, c):
            x = permute(x, heads)
        # A router chooses: rounding it could choose another expert.
        if x.ndim == 1 or name.endswith("mlp.gate.weight"):
            w.add_tensor(gguf_name(name), x)
        else:
            q = gguf.quants.quantize(np.ascontiguousarray(x), gguf.GGMLQuantizationType.Q8_0)
            w.add_tensor(gguf_name(name), q, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()


if __name__ == "__main__":
    main()
