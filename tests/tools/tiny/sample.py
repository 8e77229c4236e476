"""Prints what a trained file says: greedy, then at temperature 0.8.

    python sample.py --gguf tiny.gguf --tokenizer tokenizer.json ["a request" ...]
"""

import argparse

import torch
from tokenizers import Tokenizer

from golden import chat_prompt, load
from model import generate

REQUESTS = ["Tell me a story about a dog.", "Tell me a story about a brave girl.", "What is your name?", "What does a cow say?", "What is 2 + 2?"]


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--gguf", default="tiny.gguf")
    p.add_argument("--tokenizer", default="tokenizer.json")
    p.add_argument("--tokens", type=int, default=300)
    p.add_argument("requests", nargs="*", default=REQUESTS)
    a = p.parse_args()
    torch.set_num_threads(1)
    model, tok = load(a.gguf), Tokenizer.from_file(a.tokenizer)
    g = torch.Generator().manual_seed(1)
    for prompt in ["Once upon a time"] + [chat_prompt(r) for r in a.requests]:
        for temperature in (0.0, 0.8):
            out, _ = generate(model, tok.encode(prompt).ids, a.tokens, (0, 2), temperature, g)
            print(f"--- {prompt!r} at {temperature}\n{tok.decode(out)}\n")


if __name__ == "__main__":
    main()
