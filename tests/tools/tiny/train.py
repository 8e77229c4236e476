"""Trains builtin:tiny on the CPU: Muon for the matrices of the layers, AdamW for the embedding and the norms.

    python train.py --corpus corpus.txt --drill drill.txt --valid valid.txt --tokenizer tokenizer.json --steps 2000 --out tiny.pt

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

from model import Config, Model, generate
from muon import Muon


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


def loss_of(model, group):
    """Mean cross-entropy of the next tokens of the rows in `group`; the padding behind short rows is not counted."""
    width = max(map(len, group))
    x = torch.tensor([r + [0] * (width - len(r)) for r in group])
    y = torch.tensor([r[1:] + [-100] * (width - len(r)) for r in group])
    return F.cross_entropy(model(x[:, :-1]).flatten(0, 1), y.flatten(), ignore_index=-100)


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
    p.add_argument("--resume", help="a file that --out wrote")
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
    model = Model(Config(vocab_size=tok.get_vocab_size()))
    if a.resume:
        model.load_state_dict(torch.load(a.resume, weights_only=True)["model"])
    say = print if rank == 0 else (lambda *_, **__: None)
    params = list(model.parameters())
    say(f"{sum(x.numel() for x in params)} parameters, {sum(map(len, docs))} training tokens", flush=True)
    matrices = [x for n, x in model.named_parameters() if x.dim() == 2 and "embed" not in n]
    others = [x for n, x in model.named_parameters() if x.dim() != 2 or "embed" in n]
    optimizers = [Muon(matrices, lr=a.muon),
                  torch.optim.AdamW(others, lr=a.adam, betas=(0.9, 0.98), weight_decay=0.0)]
    start = {id(o): o.param_groups[0]["lr"] for o in optimizers}
    order, copies, seen, begin = [], [], 0, time.time()
    for step in range(1, a.steps + 1):
        done = a.done + (1 - a.done) * (step - 1) / a.steps
        rate = min(1, step / 40) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        for o in optimizers:
            o.param_groups[0]["lr"] = start[id(o)] * rate
        order = order or batches(docs, a.size, a.length, rng)
        copies = copies or batches(drills, a.size, a.length, rng)
        # Half of the first batches are drills, one in twenty of the last ones.
        group = (copies if rng.random() < 0.5 - 0.45 * done else order).pop()
        loss = loss_of(model, group)
        loss.backward()
        flat = torch.cat([x.grad.flatten() for x in params] + [torch.tensor([loss.item(), sum(map(len, group))])])
        dist.all_reduce(flat)
        flat /= a.processes
        for x, g in zip(params, flat.split([x.numel() for x in params] + [2])):
            x.grad.copy_(g.view_as(x))
        mean, tokens = flat[-2:].tolist()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        for o in optimizers:
            o.step()
            o.zero_grad(set_to_none=True)
        seen += tokens * a.processes
        if step % 25 == 0:
            say(f"step {step} loss {mean:.4f} rate {rate:.3f} {seen / (time.time() - begin):.0f} tokens/s {done:.0%}", flush=True)
        if step % 100 == 0 and rank == 0:
            torch.save({"config": vars(model.c), "model": model.state_dict()}, a.out)
            say(tok.decode(generate(model, tok.encode("Once upon a time").ids, 60)[0]), flush=True)
    if rank:
        return
    with torch.no_grad():
        print(f"held-out loss {sum(loss_of(model, g).item() for g in held) / len(held):.4f} after {a.steps} steps, {seen:.0f} tokens", flush=True)
    torch.save({"config": vars(model.c), "model": model.state_dict()}, a.out)


if __name__ == "__main__":
    main()
