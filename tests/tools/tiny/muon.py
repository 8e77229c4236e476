"""Muon for small matrices on a CPU: momentum, made orthogonal by a Newton-Schulz iteration in f32.

torch.optim.Muon iterates in bfloat16, which a CPU without bfloat16 units runs tens of times slower.
Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024.
"""

import torch


def orthogonal(g, steps=5):
    """The nearest orthogonal matrix, roughly, of each matrix in the batch g (N, rows, columns)."""
    tall = g.shape[1] > g.shape[2]
    x = g.transpose(1, 2) if tall else g
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.transpose(1, 2)
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * (a @ a)) @ x
    return x.transpose(1, 2) if tall else x


class Muon(torch.optim.Optimizer):
    """Matrices of one shape are updated as one batch; a parameter (..., rows, columns) is a stack of matrices."""

    def __init__(self, params, lr, momentum=0.95, weight_decay=0.01):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            shapes = {}
            for p in group["params"]:
                shapes.setdefault(tuple(p.shape[-2:]), []).append(p)
            for (rows, columns), ps in shapes.items():
                for p in ps:
                    self.state[p].setdefault("momentum", torch.zeros_like(p)).lerp_(p.grad, 1 - group["momentum"])
                matrices = [p.grad.lerp(self.state[p]["momentum"], group["momentum"]).view(-1, rows, columns) for p in ps]
                update = orthogonal(torch.cat(matrices)).split([len(m) for m in matrices])
                for p, u in zip(ps, update):
                    p.mul_(1 - group["lr"] * group["weight_decay"])
                    p.add_(u.view_as(p), alpha=-group["lr"] * max(1, rows / columns) ** 0.5)
