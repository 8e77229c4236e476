#!/usr/bin/env python3
"""Writes tests/data/families/gpt_oss with experts in MXFP4 as gpt-oss's own safetensors have them, and transformers' logits of it:
tests/data/families/gpt_oss_mxfp4.

Needs numpy, torch, transformers and gguf, whose quantiser makes the blocks: the values are those of gpt_oss/mxfp4.gguf. transformers'
convert_moe_packed_tensors decodes them for the logits.
"""

import json
import struct

import gguf
import numpy as np
import torch
from gpt_oss_mxfp4 import FOLDER, read
from transformers import GptOssConfig, GptOssForCausalLM
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

OUT = FOLDER.parent / "gpt_oss_mxfp4"
KIND = gguf.GGMLQuantizationType.MXFP4


def packed(x):
    """Blocks and scales of (E, in, out) experts."""
    x = np.ascontiguousarray(x.swapaxes(1, 2))
    raw = gguf.quants.quantize(x, KIND).reshape(*x.shape[:2], -1, 17)
    scales, q = raw[..., 0], raw[..., 1:]
    elements = np.concatenate([q & 15, q >> 4], -1)
    return np.ascontiguousarray(elements[..., ::2] | elements[..., 1::2] << 4), np.ascontiguousarray(scales)


def write(path, tensors, metadata):
    header, blobs, at = {"__metadata__": metadata}, [], 0
    for name, x in sorted(tensors.items()):
        dtype = {"uint8": "U8", "float32": "F32"}[str(x.dtype)]
        header[name] = {"dtype": dtype, "shape": list(x.shape), "data_offsets": [at, at + x.nbytes]}
        blobs.append(x.tobytes())
        at += x.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def main():
    OUT.mkdir(exist_ok=True)
    config = json.loads((FOLDER / "config.json").read_text())
    tensors, state = {}, {}
    for name, x in read(FOLDER / "model.safetensors").items():
        if not name.endswith((".gate_up_proj", ".down_proj")):
            tensors[name], state[name] = x, torch.from_numpy(x.copy())
            continue
        blocks, scales = packed(x)
        tensors[f"{name}_blocks"], tensors[f"{name}_scales"] = blocks, scales
        state[name] = convert_moe_packed_tensors(torch.from_numpy(blocks), torch.from_numpy(scales), dtype=torch.float32)
        # The same numbers by another way, so that no order of nibbles is taken for the other.
        again = gguf.quants.dequantize(gguf.quants.quantize(np.ascontiguousarray(x.swapaxes(1, 2)), KIND), KIND)
        assert np.array_equal(state[name].numpy(), again.swapaxes(1, 2)), name
    model = GptOssForCausalLM._from_config(GptOssConfig(**config), attn_implementation="eager", dtype=torch.float32)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not missing and not unexpected, (missing, unexpected)
    model.eval()
    case = json.loads((FOLDER / "case.json").read_text())
    tokens = case["tokens"]
    with torch.no_grad():
        logits = model(torch.tensor([tokens]), use_cache=False).logits[0]
        greedy = []
        while len(greedy) < len(case["greedy"]):
            last = model(torch.tensor([tokens + greedy]), use_cache=False).logits[0, -1]
            top = last.topk(2).values
            greedy.append(int(last.argmax()))
            print(f"{greedy[-1]}: ahead by {float(top[0] - top[1]):.3f}")
    import transformers

    case["greedy"] = greedy
    case["origin"] = f"transformers {transformers.__version__}, torch {torch.__version__}, eager attention, f32; blocks of {FOLDER.name}"
    case["std"] = float(logits.std())
    config["quantization_config"] = {
        "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens", "lm_head"],
        "quant_method": "mxfp4",
    }
    (OUT / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (OUT / "case.json").write_text(json.dumps(case))
    write(OUT / "model.safetensors", tensors, {"format": "pt"})
    write(OUT / "logits.safetensors", {"logits": logits.numpy()}, {"origin": case["origin"]})


if __name__ == "__main__":
    main()
