"""Trains builtin:tiny on the CPU: Muon for the matrices of the layers, AdamW for the embedding and the norms.

    python train.py --corpus corpus.txt --valid valid.txt --tokenizer tokenizer.json --minutes 20 --out tiny.pt

The learning rate warms up, then falls along a cosine in wall-clock time, so a slower machine only sees less text.
"""

import argparse
import json
import math
import random
import time

import torch
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
    p.add_argument("--valid", default="valid.txt")
    p.add_argument("--tokenizer", default="tokenizer.json")
    p.add_argument("--out", default="tiny.pt")
    p.add_argument("--minutes", type=float, default=20)
    p.add_argument("--size", type=int, default=1536, help="tokens in a batch")
    p.add_argument("--length", type=int, default=448, help="tokens in a row, at most")
    p.add_argument("--resume", help="a file that --out wrote")
    p.add_argument("--done", type=float, default=0, help="with --resume: how much of the schedule lies behind, 0 to 1")
    p.add_argument("--muon", type=float, default=0.02)
    p.add_argument("--adam", type=float, default=0.004)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--threads", type=int, default=1, help="one is faster than two on a busy machine")
    a = p.parse_args()
    torch.manual_seed(a.seed)
    torch.set_num_threads(a.threads)
    rng = random.Random(a.seed)
    tok = Tokenizer.from_file(a.tokenizer)
    docs = read(a.corpus, tok)
    held = batches(read(a.valid, tok), a.size, a.length, rng, 0)[:24]
    model = Model(Config(vocab_size=tok.get_vocab_size()))
    print(f"{sum(x.numel() for x in model.parameters())} parameters, {sum(map(len, docs))} training tokens", flush=True)
    if a.resume:
        model.load_state_dict(torch.load(a.resume, weights_only=True)["model"])
    matrices = [x for n, x in model.named_parameters() if x.dim() == 2 and "embed" not in n]
    others = [x for n, x in model.named_parameters() if x.dim() != 2 or "embed" in n]
    optimizers = [Muon(matrices, lr=a.muon),
                  torch.optim.AdamW(others, lr=a.adam, betas=(0.9, 0.98), weight_decay=0.0)]
    start = {id(o): o.param_groups[0]["lr"] for o in optimizers}
    order, step, seen, begin = [], 0, 0, time.time()
    while True:
        done = a.done + (1 - a.done) * (time.time() - begin) / (60 * a.minutes)
        if done >= 1:
            break
        rate = min(1, (step + 1) / 40) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * done)))
        for o in optimizers:
            o.param_groups[0]["lr"] = start[id(o)] * rate
        if not order:
            order = batches(docs, a.size, a.length, rng)
        group = order.pop()
        loss = loss_of(model, group)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for o in optimizers:
            o.step()
            o.zero_grad(set_to_none=True)
        step, seen = step + 1, seen + sum(map(len, group))
        if step % 50 == 0:
            print(f"step {step} loss {loss.item():.4f} rate {rate:.3f} {seen / (time.time() - begin):.0f} tokens/s {done:.0%}", flush=True)
        if step % 200 == 0:
            torch.save({"config": vars(model.c), "model": model.state_dict()}, a.out)
            print(tok.decode(generate(model, tok.encode("Once upon a time").ids, 60)[0]), flush=True)
    with torch.no_grad():
        print(f"held-out loss {sum(loss_of(model, g).item() for g in held) / len(held):.4f} after {step} steps, {seen} tokens", flush=True)
    torch.save({"config": vars(model.c), "model": model.state_dict()}, a.out)


if __name__ == "__main__":
    main()
