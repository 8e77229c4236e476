"""What run.sh runs: conformance, greedy text, benchmarks and PyTorch beside them, each step by itself.

A step that fails is recorded with its message, and the next one runs; the exit status tells.
"""

import datetime
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import table

HERE = Path(__file__).resolve().parent
SMOKE = os.environ.get("SMOKE") == "1"
PROGRAM = os.environ["SHARDLIGHT_BIN"]
SMOLLM2 = HERE / "smollm2.gguf"
# Seconds that a step may take.
PATIENCE = 120 if SMOKE else 1800

# Tests of tests/tests/cuda/, and what each prints.
TESTS = {
    "every_kernel_compiles_and_executes": "cuda: ",
    "kernels_written_by_hand_give_what_the_references_give": "tuned: ",
    "products::products_by_cublaslt_give_what_the_references_give": "cublaslt: ",
    "products::activations_beyond_f16_and_far_below_it_are_multiplied": "",
    "models_say_what_they_say_on_the_cpu": "",
    "a_decode_step_replays_a_graph_and_allocates_nothing": "a token: ",
}
if SMOKE:
    # Of one kernel, which has none written by hand.
    os.environ.setdefault("SHARDLIGHT_KERNEL", "add")
    del TESTS["kernels_written_by_hand_give_what_the_references_give"]
    del TESTS["products::products_by_cublaslt_give_what_the_references_give"]
CUDA = {way: ["--device", "cuda", "--kernels", way] for way in ["tuned", "own", "generated"]}
VULKAN = {"vulkan": ["--device", "vulkan"]}
# The CPU stands for Vulkan where there is none.
WAYS = CUDA | ({"cpu": ["--device", "cpu"]} if SMOKE else VULKAN)
SIZES = ["--prompt", "2,3", "--gen", "2", "--reps", "1"] if SMOKE else ["--prompt", "512,2048", "--gen", "128", "--reps", "5"]
LIMITS = "--limits=1MiB" if SMOKE else "--limits"
TYPES = ["q4_0"] if SMOKE else ["f16", "q8_0", "q4_0"]
SHAPES = ["smollm2-135m"] if SMOKE else ["llama3.2-1b", "llama3-8b"]


class Failed(Exception):
    """A step's message."""


def call(args, log, env=None):
    """Standard output of a program; all it said goes to the file `log`."""
    try:
        end = subprocess.run(args, capture_output=True, text=True, errors="replace", timeout=PATIENCE, env=os.environ | (env or {}))
    except subprocess.TimeoutExpired:
        raise Failed(f"not done after {PATIENCE} s: {' '.join(map(str, args))}") from None
    except OSError as error:
        raise Failed(str(error)) from None
    log.write_text(f"{end.stdout}\n{end.stderr}")
    if end.returncode != 0:
        lines = (end.stdout + end.stderr).splitlines()
        # A test's message is on the line behind its place.
        said = [after if "panicked at" in line else line for line, after in zip(lines, [*lines[1:], ""]) if re.search("^error|panicked at", line)]
        raise Failed(f"exit status {end.returncode}: " + "; ".join(said[:4] or lines[-2:]))
    return end.stdout


def conformance(log):
    """Every kernel against its reference on the CUDA device."""
    said = call([HERE / "cuda", "--nocapture", "--exact", *TESTS], log)
    # libtest puts a test's name before the first line of what it prints. NVIDIA's driver does not count.
    told = [re.search(f"(?:{start}|nothing was (?:counted|run)).*", said) for start in TESTS.values() if start]
    if not all(told):
        raise Failed(f"the tests said only {[t.group() for t in told if t]}")
    return {"lines": [t.group() for t in told]}


def conformance_vulkan(log):
    """Every kernel against its reference on the Vulkan adapter."""
    call([HERE / "kernels", "--nocapture", "--exact", "gpu_results_match_the_references"], log, {"SHARDLIGHT_REQUIRE_VULKAN": "1"})
    return {}


def text(flags):
    """A step that compares greedy tokens with those of the CPU."""

    def step(log):
        model = SMOLLM2 if SMOLLM2.is_file() and not SMOKE else "builtin:tiny"
        prompts = ["Once upon a time", "The capital of France is", "Write a poem about the sea."]
        lines = []
        for prompt in prompts[:1] if SMOKE else prompts:
            run = [PROGRAM, "run", "--quiet", "--json", "-m", model, "-n", "8" if SMOKE else "64"]
            want = json.loads(call([*run, "--device", "cpu", prompt], log))
            got = json.loads(call([*run, *flags, prompt], log))
            if got["tokens"] != want["tokens"]:
                same = os.path.commonprefix([got["tokens"], want["tokens"]])
                raise Failed(f"{prompt!r}: other tokens behind {len(same)}: {got['text']!r}, on the CPU {want['text']!r}")
            lines.append(f"{prompt!r}: {len(want['tokens'])} tokens of {Path(model).name} as on the CPU")
        return {"lines": lines}

    return step


def bench(model, flags):
    """A step that measures."""

    def step(log):
        limits = [] if "cpu" in flags else [LIMITS]
        return json.loads(call([PROGRAM, "bench", "--quiet", "--json", "-m", model, *flags, *SIZES, *limits], log))

    return step


def pytorch(log):
    """The same shapes in PyTorch, and what the device can do by its libraries."""
    # The last line: libraries print, too.
    found = json.loads(call([sys.executable, HERE / "pytorch.py"], log).strip().splitlines()[-1])
    if "missing" in found:
        return {"status": "missing", "message": found["missing"]}
    broken = [f"{shape['shape']}: {shape['error']}" for shape in found.get("shapes", []) if "error" in shape]
    if "error" in found or broken:
        found |= {"status": "failed", "message": found.get("error") or "; ".join(broken)}
    return found


class Steps:
    """Runs what was asked for, and keeps what came of it."""

    def __init__(self, out, wanted):
        self.out, self.wanted = out, wanted
        self.file = out / "results.json"
        self.results = json.loads(self.file.read_text()) if self.file.is_file() else {"steps": {}}
        self.failures = 0

    def wants(self, name):
        return not self.wanted or any(name.startswith(w) for w in self.wanted)

    def run(self, name, step, always=False, **about):
        if not always and not self.wants(name):
            return
        log, begin = self.out / f"{name.replace(' ', '-')}.log", time.monotonic()
        try:
            entry = {"status": "ok"} | about | step(log)
        except (Failed, OSError, ValueError, KeyError) as error:
            entry = {"status": "failed", "message": f"{error}" if isinstance(error, Failed) else repr(error)} | about
        self.failures += entry["status"] == "failed"
        entry["seconds"] = round(time.monotonic() - begin, 1)
        told = [entry["message"]] if "message" in entry else entry.get("lines", [])
        print(f"{entry['status']:8}{name}, {entry['seconds']} s", *told, sep="\n        ", flush=True)
        self.results["steps"][name] = entry
        self.write()

    def write(self):
        self.file.write_text(json.dumps(self.results, indent=1) + "\n")
        (self.out / "table.md").write_text(table.markdown(self.results))


def machine():
    """Names of GPU and driver, and the date."""
    about = {"date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), "smoke": SMOKE}
    commit = HERE / "commit"
    about["commit"] = commit.read_text().strip() if commit.is_file() else None
    try:
        query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
        said = subprocess.run(query, capture_output=True, text=True, timeout=60, check=True).stdout
        about["gpu"], about["driver"], about["memory"] = (part.strip() for part in said.splitlines()[0].split(","))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        about["gpu"], about["driver"] = None, f"nvidia-smi: {error}"
    try:
        said = subprocess.run([PROGRAM, "devices", "--json"], capture_output=True, text=True, timeout=60, check=True).stdout
        about["devices"] = json.loads(said)["devices"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        about["devices"] = f"shardlight devices: {error}"
    return about


def main():
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "gpu-results").resolve()
    out.mkdir(parents=True, exist_ok=True)
    # Code that NVRTC makes is kept with the results, so that a second call measures no compiler.
    os.environ.setdefault("SHARDLIGHT_CACHE", str(out / "cache"))
    steps = Steps(out, sys.argv[2:])
    steps.results["machine"] = machine()
    steps.run("conformance", conformance)
    if not SMOKE:
        steps.run("conformance-vulkan", conformance_vulkan)
    for way, flags in CUDA.items():
        steps.run(f"text {way}", text(flags))
    models = [("smollm2-135m", "q4_1", SMOLLM2 if SMOLLM2.is_file() else None)]
    if SMOKE:
        models = [("builtin:tiny", "as built in", "builtin:tiny")]
    models += [(shape, dtype, None) for shape in SHAPES for dtype in TYPES]
    for shape, dtype, file in models:
        # On what stands in for a driver only the tiniest model is fast enough.
        ways = ["cpu"] if SMOKE and file is None else WAYS
        # Without cuBLASLt nothing else changes.
        ways = [way for way in ways if way != "own" or dtype == "f16"]
        names = {way: f"bench {shape} {dtype} {way}" for way in ways}
        if not any(steps.wants(name) for name in names.values()):
            continue
        made = None
        if file is None:
            made = file = out / f"{shape}-{dtype}.gguf"
            step = lambda log: {"file": call([PROGRAM, "synth", "--force", "--shape", shape, "--type", dtype, made], log).strip()}
            steps.run(f"synth {shape} {dtype}", step, always=True)
        for way, name in names.items():
            steps.run(name, bench(file, WAYS[way]), shape=shape, type=dtype, way=way)
        if made:
            made.unlink(missing_ok=True)
    steps.run("pytorch", pytorch)
    steps.write()
    print((out / "table.md").read_text())
    sys.exit(1 if steps.failures else 0)


if __name__ == "__main__":
    main()
