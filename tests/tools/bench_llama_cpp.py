"""Speeds of `shardlight bench` and of llama.cpp on the same file, in turns.

    pip install xllamacpp
    python tests/tools/bench_llama_cpp.py --program target/release/shardlight --gguf smollm2.gguf

Prints medians in tokens per second of pp64, pp512 and tg64, and their ratios (over 1: we are ahead). Both use all
processors, an f16 cache and no GPU. llama.cpp rounds activations to 8 bits; we compute with f32 ones.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import urllib.request

import xllamacpp


def ours(program, gguf):
    out = subprocess.run(
        [program, "bench", "-m", gguf, "--device", "cpu", "--reps", "1", "--json", "--quiet"], check=True, capture_output=True, text=True
    )
    return {r["test"]: r["median"] for r in json.loads(out.stdout)["results"]}


def theirs(address, rng):
    def ask(prompt, count):
        body = {"prompt": prompt, "n_predict": count, "temperature": 0.0, "ignore_eos": True, "cache_prompt": False}
        request = urllib.request.Request(f"{address}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)["timings"]

    tokens = lambda n: [rng.randrange(1000, 40000) for _ in range(n)]
    return {
        "pp64": ask(tokens(64), 1)["prompt_per_second"],
        "pp512": ask(tokens(512), 1)["prompt_per_second"],
        "tg64": ask(tokens(4), 65)["predicted_per_second"],
    }


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--program", default="target/release/shardlight")
    p.add_argument("--gguf", required=True)
    p.add_argument("--rounds", type=int, default=5)
    a = p.parse_args()
    threads = os.cpu_count()
    params = xllamacpp.CommonParams()
    params.model.path = a.gguf
    params.n_ctx = 1024
    params.n_parallel = 1
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    server = xllamacpp.Server(params)
    rng = random.Random(1)
    theirs(server.listening_address, rng)
    rounds = [(ours(a.program, a.gguf), theirs(server.listening_address, rng)) for _ in range(a.rounds)]
    for test in ["pp64", "pp512", "tg64"]:
        we = statistics.median(r[0][test] for r in rounds)
        they = statistics.median(r[1][test] for r in rounds)
        ratio = statistics.median(r[0][test] / r[1][test] for r in rounds)
        print(f"{test:6} ours {we:8.1f}  llama.cpp {they:8.1f}  ratio {ratio:.2f}")
    print(f"medians of {a.rounds}, {threads} threads, llama.cpp as in xllamacpp {xllamacpp.__version__}")


if __name__ == "__main__":
    main()
