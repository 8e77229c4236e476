#!/usr/bin/env python3
"""Records linear layers of integer weights in fastllm's layouts: tests/data/quantized/*.safetensors.

Random weights are quantised and packed here, by the layouts that core/src/weights/fastllm.rs names
(fastllm's `Data` and `LowBitConfig`); y is computed in f64 from the dequantised weight. Needs torch;
run from anywhere. The output depends only on SEED and the package.
"""

from pathlib import Path

import torch

from safetensors_file import write

SEED = 20261124
OUT = Path(__file__).resolve().parents[1] / "data" / "quantized"
ROWS, TOKENS = 11, 10


def quantize(weight, bits):
    """Quants, min and scale of each row, the range made to hold 0 with a whole zero point."""
    low = weight.amin(1, keepdim=True).clamp(max=0)
    high = weight.amax(1, keepdim=True).clamp(min=0)
    scale = (high - low) / (2**bits - 1)
    zero = (-low / scale).round()
    q = (weight / scale + zero + 0.5).floor().clamp(0, 2**bits - 1)
    return q.to(torch.uint8), zero, scale


def nibbles(q):
    """Pairs of elements to bytes: the even one in the high half."""
    return q[..., 0::2] << 4 | q[..., 1::2]


def raw(value, dtype=torch.float32):
    """A row's numbers as bytes."""
    return value.to(dtype).contiguous().view(torch.uint8)


def save(name, fmt, packed, dense, more, settings=()):
    x = torch.randn(TOKENS, dense.shape[1])
    bias = torch.randn(ROWS)
    y = x.double() @ dense.double().T + bias
    tensors = {"x": x, "weight": packed, "bias": bias, "y": y} | more
    write(OUT / name, {"kind": "quantized_linear", "format": fmt, **dict(settings)}, tensors)


def rows(bits, cols):
    weight = torch.randn(ROWS, cols)
    q, zero, scale = quantize(weight, bits)
    packed = q if bits == 8 else nibbles(q)
    return packed, q.double(), zero, scale


def main():
    torch.manual_seed(SEED)
    for bits, cols in ((8, 75), (4, 70)):
        name = f"int{bits}"
        packed, q, zero, scale = rows(bits, cols)
        save(name, name, packed, scale.double() * (q - zero), {"scale": scale[:, 0], "zero": zero[:, 0]})
        packed, q, zero, scale = rows(bits, cols)
        low = -scale * zero
        inline = torch.cat([packed, raw(low), raw(scale)], 1)
        save(f"{name}_perchannel", f"{name}_perchannel", inline, low.double() + scale.double() * q, {})
    packed, q, zero, scale = rows(4, 96)
    low = torch.randn(ROWS, 1)
    save("int4_nozero", "int4_nozero", packed, low.double() + scale.double() * q, {"min": low[:, 0], "scale": scale[:, 0]})

    # Groups of 64, the last of them short.
    packed, q, _, _ = rows(4, 160)
    low, scale = torch.randn(ROWS, 3), torch.rand(ROWS, 3) + 0.1
    each = torch.arange(160) // 64
    dense = low.double()[:, each] + scale.double()[:, each] * q
    save("int4_group", "int4_group", packed, dense, {"min": low, "scale": scale}, {"group": "64"}.items())

    packed, q, _, _ = rows(4, 256)
    low, scale = torch.randn(ROWS, 2), torch.rand(ROWS, 2) + 0.1
    blocks = [part for g in range(2) for part in (packed[:, 64 * g : 64 * g + 64], raw(low[:, g : g + 1]), raw(scale[:, g : g + 1]))]
    each = torch.arange(256) // 128
    dense = low.double()[:, each] + scale.double()[:, each] * q
    save("int4_group128", "int4_group128", torch.cat(blocks, 1), dense, {})

    # Six groups of 32: a block of four and one of two.
    packed, q, _, _ = rows(4, 192)
    scale = (torch.rand(ROWS, 6) + 0.1).to(torch.bfloat16)
    cut = lambda a, b: [packed[:, 16 * a : 16 * b], raw(scale[:, a:b], torch.bfloat16)]
    dense = scale.double()[:, torch.arange(192) // 32] * (q - 8)
    save("int4_group32", "int4_group32", torch.cat(cut(0, 4) + cut(4, 6), 1), dense, {})


if __name__ == "__main__":
    main()
