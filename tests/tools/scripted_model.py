#!/usr/bin/env python3
"""Writes tests/data/tools/scripted.gguf: a model that says what is written here, and so calls a function when it is offered one.

Its one layer adds nothing. Each token's embedding is a row of random signs, and the output's row of a token is the embedding of the
one before it: what comes next depends on the last token alone. The template ends with another control token where no function is
offered, and after a result. The marks around calls are control tokens.

Needs numpy and gguf.
"""

from pathlib import Path

import gguf
import numpy as np

OUT = Path(__file__).resolve().parents[1] / "data" / "tools" / "scripted.gguf"
WIDTH = 32
END = "<|im_end|>"
SCRIPTS = [
    ["<|offered|>", "Let", " me", " look", ".\n\n", "<tool_call>", '\n{"name"', ': "get_', 'weather"', ', "arguments":', ' {"city":', ' "Par',
     'á 🦙"', ', "days":', " 3", "}}", "\n", "</tool_call>", END],
    ["<|result|>", "It", " rains", " in", " Pará", "!", END],
    ["<|plain|>", "I", " do", " not", " know", " that", END],
]
CONTROL = ["<|im_start|>", END, "<tool_call>", "</tool_call>"] + [script[0] for script in SCRIPTS]
TEMPLATE = """
{%- if tools %}<|im_start|>system
Answer with <tool_call>{"name", "arguments"}</tool_call> to call one of:{% for tool in tools %}
{{ tool | tojson }}{% endfor %}<|im_end|>
{% endif %}
{%- for message in messages %}<|im_start|>{{ message.role }}
{{ message.content }}
{%- for call in message.tool_calls or [] %}
<tool_call>
{{ call.function | tojson }}
</tool_call>
{%- endfor %}<|im_end|>
{% endfor %}
{%- if add_generation_prompt %}{{ '<|result|>' if messages[-1].role == 'tool' else '<|offered|>' if tools else '<|plain|>' }}{% endif %}"""


def byte_letters():
    """GPT-2's letter of each byte."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [b for b in range(256) if b not in shown]
    return {**{b: chr(b) for b in shown}, **{b: chr(256 + i) for i, b in enumerate(hidden)}}


def main():
    letters = byte_letters()
    spell = lambda text: text if text in CONTROL else "".join(letters[b] for b in text.encode())
    words = dict.fromkeys(spell(text) for script in SCRIPTS for text in script if text not in CONTROL)
    tokens = [letters[b] for b in range(256)] + [word for word in words if len(word) > 1] + CONTROL
    ids = {token: i for i, token in enumerate(tokens)}
    after = {}
    for script in SCRIPTS:
        for a, b in zip(script, script[1:]):
            assert after.setdefault(ids[spell(a)], ids[spell(b)]) == ids[spell(b)], f"two things come after {a!r}"
    for seed in range(1000):
        signs = np.random.default_rng(seed).choice(np.array([-1, 1], np.float16), (len(tokens), WIDTH))
        output = np.zeros_like(signs)
        for a, b in after.items():
            output[b] += signs[a]
        logits = signs.astype(np.float32) @ output.T.astype(np.float32)
        margins = [logits[a, b] - np.delete(logits[a], b).max() for a, b in after.items()]
        if min(margins) >= 8:
            break
    w = gguf.GGUFWriter(OUT, "llama")
    w.add_context_length(1024)
    w.add_embedding_length(WIDTH)
    w.add_block_count(1)
    w.add_feed_forward_length(WIDTH)
    w.add_head_count(1)
    w.add_head_count_kv(1)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_rope_dimension_count(WIDTH)
    w.add_vocab_size(len(tokens))
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre("gpt-2")
    w.add_token_list(tokens)
    w.add_token_types([3 if token in CONTROL else 1 for token in tokens])
    w.add_token_merges([])
    w.add_eos_token_id(ids[END])
    w.add_add_bos_token(False)
    w.add_chat_template(TEMPLATE)
    w.add_tensor("token_embd.weight", signs)
    w.add_tensor("output.weight", output)
    w.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for norm in ["attn_norm", "ffn_norm"]:
        w.add_tensor(f"blk.0.{norm}.weight", np.ones(WIDTH, np.float32))
    for matrix in ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]:
        w.add_tensor(f"blk.0.{matrix}.weight", np.zeros((WIDTH, WIDTH), np.float16))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    print(f"{OUT.name}: {OUT.stat().st_size} bytes, seed {seed}, margins from {min(margins)}")


main()
