#!/usr/bin/env python3
"""Records two classifiers of emotions from EEG, in PyTorch: tests/data/eeg/*.safetensors.

Random weights, random signals; the architectures are those of core/src/models/eeg.rs. Each file's
metadata names the operator (`kind`), its tensors are weights, inputs and the probabilities `y`.
Needs torch; run from anywhere. The output depends only on SEED and the package.
"""

from pathlib import Path

import torch
from torch import nn

from safetensors_file import write

SEED = 20261122
OUT = Path(__file__).resolve().parents[1] / "data" / "eeg"


class Recurrent(nn.Module):
    """1D convolution, LSTM or GRU, dense, softmax over four classes."""

    def __init__(self, cell, channels=14, filters=16, hidden=24, classes=4):
        super().__init__()
        self.name = cell
        self.conv = nn.Conv1d(channels, filters, 5, padding=2)
        setattr(self, cell, {"lstm": nn.LSTM, "gru": nn.GRU}[cell](filters, hidden, batch_first=True))
        self.dropout = nn.Dropout(0.5)
        self.dense = nn.Linear(hidden, classes)

    def forward(self, x):
        h = torch.max_pool1d(torch.relu(self.conv(x)), 2)
        y, _ = getattr(self, self.name)(h.transpose(1, 2))
        return torch.softmax(self.dense(self.dropout(y[:, -1])), -1)


class Conv(nn.Module):
    """Stacked 2D convolutions over maps of differential entropy, dense, softmax over four classes."""

    def __init__(self, bands=4, height=9, width=9, classes=4):
        super().__init__()
        self.conv1 = nn.Conv2d(bands, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 12, 3, padding=1)
        self.hidden = nn.Linear(12 * (height // 2) * (width // 2), 20)
        self.dropout = nn.Dropout(0.5)
        self.dense = nn.Linear(20, classes)

    def forward(self, maps):
        h = torch.relu(self.conv2(torch.relu(self.conv1(maps))))
        h = torch.flatten(torch.max_pool2d(h, 2), 1)
        h = self.dropout(torch.relu(self.hidden(h)))
        return torch.softmax(self.dense(h), -1)


def differential_entropy(signals):
    variance = signals.var(-1, correction=0)
    return 0.5 * torch.log(2 * torch.pi * torch.e * variance)


def save(name, kind, tensors):
    write(OUT / name, {"kind": kind}, tensors)


def main():
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    with torch.no_grad():
        for cell in ("lstm", "gru"):
            model = Recurrent(cell).eval()
            x = torch.randn(3, 14, 64)
            save(f"recurrent_{cell}", "eeg_recurrent_classifier", model.state_dict() | {"x": x, "y": model(x)})
        model = Conv().eval()
        # Bands of different power, one trial silent at one electrode but for noise.
        power = torch.rand(3, 4, 9, 9, 1) * 3 + 0.1
        power[1, :, 4, 4] = 1e-3
        signals = torch.randn(3, 4, 9, 9, 32) * power
        maps = differential_entropy(signals.double())
        y = model.double()(maps)
        save("conv_signals", "eeg_conv_classifier", model.state_dict() | {"signals": signals, "y": y})
        save("conv_maps", "eeg_conv_classifier", model.state_dict() | {"x": maps, "y": y})
        save("differential_entropy", "differential_entropy", {"x": signals[0, 0], "y": maps[0, 0]})


if __name__ == "__main__":
    main()
