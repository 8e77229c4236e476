#!/usr/bin/env python3
"""Records convolution, pooling, LSTM and GRU in PyTorch: tests/data/signals/*.safetensors.

Random weights and inputs. Each file's metadata names the operator (`kind`) and its settings.
Needs torch; run from anywhere. The output depends only on SEED and the package.
"""

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from safetensors_file import write

SEED = 20261123
OUT = Path(__file__).resolve().parents[1] / "data" / "signals"


def numbers(value):
    return ",".join(map(str, value))


def conv(name, f, x, weight, groups=1, **window):
    x, weight, bias = torch.randn(x), torch.randn(weight), torch.randn(weight[0])
    y = f(x, weight, bias, groups=groups, **window)
    settings = {"group": str(groups)}
    for torch_name, ours in (("stride", "strides"), ("padding", "pads"), ("dilation", "dilations")):
        if torch_name in window:
            settings[ours] = numbers(window[torch_name])
    write(OUT / name, {"kind": f.__name__, **settings}, {"x": x, "weight": weight, "bias": bias, "y": y})


def pool(name, f, x, kernel, ceil=False, **window):
    x = torch.randn(x)
    y, indices = f(x, kernel, ceil_mode=ceil, return_indices=True, **window)
    settings = {"kernel_shape": numbers(kernel), "ceil_mode": str(ceil)}
    # Without a stride PyTorch takes the kernel's sizes.
    settings["strides"] = numbers(window.get("stride", kernel))
    for torch_name, ours in (("padding", "pads"), ("dilation", "dilations")):
        if torch_name in window:
            settings[ours] = numbers(window[torch_name])
    write(OUT / name, {"kind": name.rsplit("_", 1)[0], **settings}, {"x": x, "y": y, "indices": indices})


def recurrent(kind, module, first):
    net = module(5, 7, num_layers=2, bidirectional=True)
    x, lengths = torch.randn(6, 3, 5), torch.tensor([6, 2, 5])
    states = [torch.randn(4, 3, 7) for _ in first]
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
    y, last = net(packed, tuple(states) if len(states) > 1 else states[0])
    y, _ = nn.utils.rnn.pad_packed_sequence(y)
    last = last if len(states) > 1 else [last]
    outputs = {name.replace("_0", "_n"): value for name, value in zip(first, last)}
    tensors = net.state_dict() | {"x": x, "lengths": lengths, "y": y} | outputs | dict(zip(first, states))
    write(OUT / f"{kind}_2_layers", {"kind": kind, "batch_first": "False"}, tensors)


def main():
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    with torch.no_grad():
        conv("conv1d", F.conv1d, (2, 6, 23), (4, 3, 5), groups=2, stride=(2,), padding=(3,), dilation=(2,))
        conv("conv2d", F.conv2d, (2, 4, 9, 8), (6, 2, 3, 2), groups=2, stride=(2, 1), padding=(1, 2), dilation=(1, 3))
        conv("conv3d", F.conv3d, (1, 2, 5, 6, 4), (3, 2, 2, 3, 2), padding=(1, 0, 1))
        pool("max_pool1d_ceil", F.max_pool1d, (2, 3, 20), (3,), ceil=True, padding=(1,))
        pool("max_pool2d_dilated", F.max_pool2d, (2, 3, 9, 8), (3, 2), stride=(2, 1), padding=(1, 1), dilation=(1, 2))
        pool("max_pool3d_plain", F.max_pool3d, (1, 2, 5, 6, 4), (2, 2, 2))
        recurrent("lstm", nn.LSTM, ["h_0", "c_0"])
        recurrent("gru", nn.GRU, ["h_0"])


if __name__ == "__main__":
    main()
