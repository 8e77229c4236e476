"""Trains builtin:tiny on the CPU: Muon for the matrices of the layers, AdamW for the embedding and the norms.

    python train.py --corpus corpus.txt --drill drill.txt --valid valid.txt --tokenizer tokenizer.json --steps 2000 --out tiny.pt

With --upcycle FILE it trains builtin:tiny-moe: a mixture of experts that starts from the dense model in FILE.

The learning rate warms up over 40 steps, then falls along a cosine.
"""

import argparse
import json
import math
import os
import random
import tempfile
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from tokenizers import Tokenizer

from golden import load
from model import Config, Model, generate
from muon import Muon


# How far the slices of a dense network are scaled up when a mixture of experts is made of them: the lowest held-out loss at the start.
UPCYCLED = 0.625


def read(path, tokenizer):
    """The documents of a corpus as token ids."""
    with open(path, encoding="utf-8") as f:
        return [e.ids for e in tokenizer.encode_batch([json.loads(x) for x in f])]


def batches(docs, size, length, rng, packed=0.1):
    """Batches of about `size` tokens. Most hold documents of like lengths, one a row, so that no row sees another document;
    a part `packed` of the text is packed into rows of `length` tokens, so that all positions are trained."""
    docs = list(docs)
    rng.shuffle(docs)
    cut = int(len(docs) * packed)
    rows, row = [], []
    for d in docs[:cut]:
        row = row + d
        if len(row) >= length:
            rows.append(row[:length])
            row = []
    rows += sorted((d[:length] for d in docs[cut:]), key=lambda d: len(d) + rng.random())
    out, group = [], []
    for r in rows:
        if group and max(len(r), len(group[0])) * (len(group) + 1) > size:
            out.append(group)
            group = []
        group.append(r)
    out.append(group)
    rng.shuffle(out)
    return out


def upcycled(dense, experts, hidden):
    """A mixture of `experts` experts of `hidden` channels each, cut out of the dense model's networks one after the other and from the
    start again. All else is the dense model's, and the routers start at random."""
    c = Config(**{**vars(dense.c), "intermediate_size": hidden, "num_local_experts": experts})
    model = Model(c)
    weights = dense.state_dict()
    cut = torch.arange(experts * hidden).remainder(dense.c.intermediate_size)
    for i in range(c.num_hidden_layers):
        take = lambda name: weights.pop(f"layers.{i}.mlp.{name}_proj.weight")
        to = f"layers.{i}.mlp.experts"
        for name in ("gate", "up"):
            weights[f"{to}.{name}_proj"] = take(name)[cut].view(experts, hidden, -1)
        # A token gets the mean of two experts in the place of the sum of all slices.
        scale = UPCYCLED * dense.c.intermediate_size / hidden
        weights[f"{to}.down_proj"] = scale * take("down").T[cut].view(experts, hidden, -1).transpose(1, 2)
        weights[f"layers.{i}.mlp.gate.weight"] = model.layers[i].mlp.gate.weight
    model.load_state_dict(weights)
    return model


def balance(model, kept):
    """Switch's load-balancing loss (arXiv:2101.03961, eq. 4), the mean of all layers, and the share of pairs each layer's experts have
    (layers, E); `kept` (B * T) leaves padding out. None of a dense model."""
    routed = [layer.mlp.routed for layer in model.layers if model.c.num_local_experts]
    if not routed:
        return None, None
    experts = model.c.num_local_experts
    load = torch.stack([F.one_hot(chosen[kept], experts).float().mean((0, 1)) for _, chosen in routed])
    mean = torch.stack([p[kept].mean(0) for p, _ in routed])
    return experts * (load * mean).sum(-1).mean(), load


def loss_of(model, group):
    """Mean cross-entropy of the next tokens of the rows in `group`; the padding behind short rows is not counted."""
    width = max(map(len, group))
    x = torch.tensor([r + [0] * (width - len(r)) for r in group])
    y = torch.tensor([r[1:] + [-100] * (width - len(r)) for r in group]).flatten()
    loss = F.cross_entropy(model(x[:, :-1]).flatten(0, 1), y, ignore_index=-100)
    return loss, *balance(model, y != -100)


@torch.no_grad()
def held_out(model, groups):
    """The mean loss of held-out batches, and the mean share of pairs each layer's experts have (none of a dense model)."""
    model.eval()
    losses, _, loads = zip(*(loss_of(model, g) for g in groups))
    model.train()
    return sum(losses).item() / len(groups), [] if loads[0] is None else sum(loads) / len(groups)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--corpus", default="corpus.txt")
    p.add_argument("--drill", default="drill.txt")
    p.add_argument("--valid", default="valid.txt")
    p.add_argument("--tokenizer", default="tokenizer.json")
    p.add_argument("--out", default="tiny.pt")
    p.add_argument("--steps", type=int, default=2000)
    p.add_argument("--size", type=int, default=2048, help="tokens in a batch of one process")
    p.add_argument("--length", type=int, default=448, help="tokens in a row, at most")
    p.add_argument("--minutes", type=float, default=math.inf, help="stop after these if the steps are not done yet")
    p.add_argument("--resume", help="a file that --out wrote")
    p.add_argument("--upcycle", help="a GGUF of the dense model that a mixture of experts starts from")
    p.add_argument("--experts", type=int, default=8)
    p.add_argument("--hidden", type=int, default=96, help="channels of an expert")
    p.add_argument("--balance", type=float, default=0.01, help="weight of the load-balancing loss")
    p.add_argument("--done", type=float, default=0, help="with --resume: how much of the schedule lies behind, 0 to 1")
    p.add_argument("--muon", type=float, default=0.006)
    p.add_argument("--adam", type=float, default=0.001)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--processes", type=int, default=2, help="of one thread each; faster than two threads on a busy machine")
    a = p.parse_args()
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(train, (a, f"file://{folder}/meet"), a.processes)


def train(rank, a, meet):
    """One of the processes: each sees its own batches, gradients are averaged at every step, so all hold the same weights."""
    dist.init_process_group("gloo", meet, rank=rank, world_size=a.processes)
    torch.manual_seed(a.seed)
    torch.set_num_threads(1)
    rng = random.Random(a.seed * 1000 + rank)
    tok = Tokenizer.from_file(a.tokenizer)
    docs, drills = read(a.corpus, tok), read(a.drill, tok)
    held = batches(read(a.valid, tok), a.size, a.length, random.Random(0), 0)[:24]
    if a.resume:
        saved = torch.load(a.resume, weights_only=True)
        model = Model(Config(**saved["config"]))
        model.load_state_dict(saved["model"])
    elif a.upcycle:
        model = upcycled(load(a.upcycle), a.experts, a.hidden)
    else:
        model = Model(Config(vocab_size=tok.get_vocab_size()))
    say = print if rank == 0 else (lambda *_, **__: None)
    params = list(model.parameters())
    say(f"{sum(x.numel() for x in params)} parameters, {sum(map(len, docs))} training tokens", flush=True)
    muon = lambda n, x: x.dim() > 1 and "embed" not in n and not n.endswith("mlp.gate.weight")
    matrices = [x for n, x in model.named_parameters() if muon(n, x)]
    others = [x for n, x in model.named_parameters() if not muon(n, x)]
    optimizers = [Muon(matrices, lr=a.muon),
                  torch.optim.AdamW(others, lr=a.adam, betas=(0.9, 0.98), weight_decay=0.0)]
    start = {id(o): o.param_groups[0]["lr"] for o in optimizers}
    order, copies, seen, begin, step, passed = [], [], 0, time.time(), 0, 0
    say(f"held-out loss {held_out(model, held)[0]:.4f} before", flush=True)
    while passed < 1:
        step += 1
        done = a.done + (1 - a.done) * passed
        rate = min(1, step / 40) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        for o in optimizers:
            o.param_groups[0]["lr"] = start[id(o)] * rate
        order = order or batches(docs, a.size, a.length, rng)
        copies = copies or batches(drills, a.size, a.length, rng)
        # Half of the first batches are drills, one in twenty of the last ones.
        group = (copies if rng.random() < 0.5 - 0.45 * done else order).pop()
        loss, uneven, _ = loss_of(model, group)
        (loss if uneven is None else loss + a.balance * uneven).backward()
        passed = max(step / a.steps, (time.time() - begin) / 60 / a.minutes)
        flat = torch.cat([x.grad.flatten() for x in params] + [torch.tensor([loss.item(), sum(map(len, group)), passed])])
        dist.all_reduce(flat)
        flat /= a.processes
        for x, g in zip(params, flat.split([x.numel() for x in params] + [3])):
            x.grad.copy_(g.view_as(x))
        mean, tokens, passed = flat[-3:].tolist()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        for o in optimizers:
            o.step()
            o.zero_grad(set_to_none=True)
        seen += tokens * a.processes
        if step % 25 == 0:
            say(f"step {step} loss {mean:.4f} rate {rate:.3f} {seen / (time.time() - begin):.0f} tokens/s {done:.0%}", flush=True)
        if step % 100 == 0 and rank == 0:
            torch.save({"config": vars(model.c), "model": model.state_dict()}, a.out)
            say(f"held-out loss {held_out(model, held)[0]:.4f}")
            say(tok.decode(generate(model, tok.encode("Once upon a time").ids, 60)[0]), flush=True)
    if rank:
        return
    loss, loads = held_out(model, held)
    print(f"held-out loss {loss:.4f} after {step} steps, {seen:.0f} tokens", flush=True)
    for i, share in enumerate(loads):
        print(f"layer {i}: pairs of each expert in percent: {' '.join(f'{100 * x:.1f}' for x in share)}")
    torch.save({"config": vars(model.c), "model": model.state_dict()}, a.out)


if __name__ == "__main__":
    main()
