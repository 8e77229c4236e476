"""Writes tensors of PyTorch into a safetensors file, without a package for it."""

import json
import struct


def write(path, metadata, tensors):
    """`path` without its ending; floats become f32, integers i64 but for bytes."""
    header, blobs, at = {"__metadata__": metadata}, [], 0
    for key in sorted(tensors):
        value = tensors[key].detach()
        dtype, kind = ("F32", "<f4") if value.is_floating_point() else ("I64", "<i8")
        if str(value.dtype) == "torch.uint8":
            dtype, kind = "U8", "u1"
        blob = value.contiguous().numpy().astype(kind).tobytes()
        header[key] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": [at, at + len(blob)]}
        at += len(blob)
        blobs.append(blob)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"".join(blobs))
