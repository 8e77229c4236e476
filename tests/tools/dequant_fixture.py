#!/usr/bin/env python3
"""Records what the gguf package makes of random blocks: tests/data/dequant/<type>.bin.

Each file is n blocks in ggml's layout, then their n * block_len values as little-endian f32.
Needs numpy and gguf; run from anywhere. The output depends only on SEED and the package.
"""

from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as T
from gguf.quants import dequantize

SEED = 20250207
OUT = Path(__file__).resolve().parents[1] / "data" / "dequant"
# Type -> byte offsets of the f16 values in a block.
TYPES = {
    T.F32: [], T.F16: [], T.BF16: [],
    T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0],
    T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208], T.MXFP4: [],
}


def blocks(rng, t, n):
    """n blocks of random bits, with the f16 and float values made finite."""
    size = GGML_QUANT_SIZES[t][1]
    b = rng.integers(0, 256, (n, size), dtype=np.uint8)
    for at in TYPES[t]:
        # Every finite exponent, so that subnormals and large scales are covered.
        bits = rng.integers(0, 1 << 16, n, dtype=np.uint16)
        bits = np.where(bits & 0x7C00 == 0x7C00, bits & 0xBFFF, bits).astype("<u2")
        b[:, at : at + 2] = bits.view(np.uint8).reshape(n, 2)
    if t == T.MXFP4:
        # The smallest and largest exponents, 255 among them, which ggml does not take for NaN; with those above 252 only
        # values that stay finite.
        b[:8, 0] = [0, 1, 2, 3, 252, 253, 254, 255]
        b[5:8, 1:] &= np.array([0xDD, 0xBB, 0x99], dtype=np.uint8)[:, None]
    if t in (T.F32, T.BF16):
        top = b[:, -2:].copy().view("<u2")
        b[:, -2:] = np.where(top & 0x7F80 == 0x7F80, top & 0xBFFF, top).astype("<u2").view(np.uint8)
    if t == T.F16:
        half = b.copy().view("<u2")
        b = np.where(half & 0x7C00 == 0x7C00, half & 0xBFFF, half).astype("<u2").view(np.uint8)
    return b


def main():
    rng = np.random.default_rng(SEED)
    OUT.mkdir(parents=True, exist_ok=True)
    for t in TYPES:
        length = GGML_QUANT_SIZES[t][0]
        b = blocks(rng, t, {1: 256, 32: 32, 256: 8}[length])
        raw = b.reshape(-1)
        if t == T.F32:
            y = raw.view("<f4")
        elif t == T.F16:
            y = raw.view("<f2").astype("<f4")
        else:
            y = dequantize(raw, t)
        y = np.ascontiguousarray(y, dtype="<f4").reshape(-1)
        assert y.size == b.shape[0] * length and np.isfinite(y).all(), t
        (OUT / f"{t.name.lower()}.bin").write_bytes(raw.tobytes() + y.tobytes())


if __name__ == "__main__":
    main()
