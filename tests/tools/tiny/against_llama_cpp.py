"""Compares the recorded greedy tokens with llama.cpp's on the same file.

    python against_llama_cpp.py --gguf tiny.gguf --golden golden.json

llama.cpp rounds activations to 8 bits, so a step whose margin is small may differ; a wrong order of the rotated rows differs at once.
"""

import argparse
import json
import urllib.request

import xllamacpp


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--gguf", default="tiny.gguf")
    p.add_argument("--golden", default="golden.json")
    a = p.parse_args()
    params = xllamacpp.CommonParams()
    params.model.path = a.gguf
    params.n_ctx = 512
    params.n_parallel = 1
    params.cpuparams.n_threads = 1
    params.cpuparams_batch.n_threads = 1
    params.warmup = False
    server = xllamacpp.Server(params)
    with open(a.golden, encoding="utf-8") as f:
        cases = json.load(f)["cases"]
    for c in cases:
        body = {"prompt": c["prompt"], "n_predict": len(c["greedy"]), "temperature": 0.0, "top_k": 1, "return_tokens": True, "cache_prompt": False}
        ask = urllib.request.Request(f"{server.listening_address}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(ask) as answer:
            r = json.load(answer)
        got = r["tokens"]
        want = [t for t in c["greedy"] if t not in (0, 2)]
        got = [t for t in got if t not in (0, 2)]
        same = next((i for i, (x, y) in enumerate(zip(got, want)) if x != y), min(len(got), len(want)))
        margin = f", margin there {c['margins'][same]}" if same < len(want) else ""
        print(f"{c['prompt']!r}: {r['tokens_evaluated']} prompt tokens (recorded {len(c['tokens'])}), {same} of {len(want)} tokens the same{margin}")
        print(f"  {r['content']!r}")


if __name__ == "__main__":
    main()
