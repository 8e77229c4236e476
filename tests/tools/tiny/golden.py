"""Reads the GGUF back, runs it in f32 and records what it generates.

    python golden.py --gguf tiny.gguf --tokenizer tokenizer.json --out golden.json
"""

import argparse
import hashlib
import json
import os
import platform

import gguf
import tokenizers
import torch
from tokenizers import Tokenizer

from bpe import SPECIALS
from export import gguf_name, heads_of, unpermute
from model import Config, Model, generate

STEPS = 48
RAW = ["Once upon a time, there was a little dog. The dog liked", "One sunny day, a girl went to the"]
CHAT = ["Tell me a story about a dog.", "What is your name?"]


def load(path):
    """The model with the file's weights, dequantised to f32 and put back into half-split order."""
    r = gguf.GGUFReader(path)
    value = lambda key, default=None: r.fields[f"llama.{key}"].contents() if default is None or f"llama.{key}" in r.fields else default
    c = Config(
        vocab_size=value("vocab_size"), hidden_size=value("embedding_length"), intermediate_size=value("feed_forward_length"),
        num_hidden_layers=value("block_count"), num_attention_heads=value("attention.head_count"),
        num_key_value_heads=value("attention.head_count_kv"), head_dim=value("attention.key_length"),
        max_position_embeddings=value("context_length"), rope_theta=value("rope.freq_base"),
        rms_norm_eps=value("attention.layer_norm_rms_epsilon"),
        num_local_experts=value("expert_count", 0), num_experts_per_tok=value("expert_used_count", 2),
    )
    tensors = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in r.tensors}
    model = Model(c)
    weights = {}
    for name in model.state_dict():
        x = tensors.pop(gguf_name(name))
        if heads := heads_of(name, c):
            x = unpermute(x, heads)
        weights[name] = torch.tensor(x)
    assert not tensors, f"tensors left over: {list(tensors)}"
    model.load_state_dict(weights)
    return model.eval()


def chat_prompt(text):
    return f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n"


@torch.no_grad()
def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--gguf", default="tiny.gguf")
    p.add_argument("--tokenizer", default="tokenizer.json")
    p.add_argument("--out", default="golden.json")
    a = p.parse_args()
    torch.set_num_threads(1)
    model, tok = load(a.gguf), Tokenizer.from_file(a.tokenizer)
    cases = []
    for text, prompt, user in [(x, x, None) for x in RAW] + [(x, chat_prompt(x), x) for x in CHAT]:
        ids = tok.encode(prompt).ids
        out, margins = generate(model, ids, STEPS, stop=(0, 2))
        case = {"prompt": prompt, "tokens": ids, "greedy": out, "text": tok.decode(out, skip_special_tokens=False),
                "margins": [float(f"{m:.6g}") for m in margins]}
        if user:
            case["user"] = user
        if not cases:
            case["logits"] = [float(f"{x:.6g}") for x in model(torch.tensor([ids]))[0, -1].tolist()]
        cases.append(case)
    with open(a.gguf, "rb") as f:
        digest = hashlib.sha256(f.read()).hexdigest()
    record = {
        "origin": f"tests/tools/tiny/golden.py: PyTorch {torch.__version__} in f32 on the weights of core/data/{os.path.basename(a.gguf)} dequantised by gguf; "
                  f"tokens by tokenizers {tokenizers.__version__}; Python {platform.python_version()}",
        "model_sha256": digest,
        "note": "greedy stops after 48 tokens or after an end token (<|endoftext|> or <|im_end|>), which is kept; margins are the gaps between the two "
                "best logits; logits are those of the last position of the first prompt",
        "specials": dict(zip(["endoftext", "im_start", "im_end"], (tok.token_to_id(s) for s in SPECIALS))),
        "cases": cases,
    }
    with open(a.out, "w", encoding="utf-8") as f:
        f.write("{\n" + ",\n".join(f' {json.dumps(k)}: ' + (json.dumps(v) if k != "cases" else "[\n  " + ",\n  ".join(map(json.dumps, v)) + "\n ]")
                                   for k, v in record.items()) + "\n}\n")


if __name__ == "__main__":
    main()
