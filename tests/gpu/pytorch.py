"""The shapes of run.py in PyTorch, and what the device can do by its libraries. Prints one line of JSON.

A Llama with fused projections, scaled_dot_product_attention and a static cache, in bfloat16. A decode step is captured as a CUDA graph,
once as it is and once with its layers compiled; tokens stay on the device. The faster way of each test is reported, with its name.
`{"missing": …}` without PyTorch, `{"error": …}` when it sees no GPU.
"""

import gc
import json
import os
import statistics
import sys
import time
from functools import partial

SMOKE = os.environ.get("SMOKE") == "1"
REPS = 1 if SMOKE else 5
# channels, hidden, layers, (query heads, key/value heads, their size), vocabulary, is the output layer the embedding?
SHAPES = {
    "smollm2-135m": (576, 1536, 30, (9, 3, 64), 49152, True),
    "llama3.2-1b": (2048, 8192, 16, (32, 8, 64), 128256, True),
    "llama3-8b": (4096, 14336, 32, (32, 8, 128), 128256, False),
}
PROMPTS, DECODED = [512, 2048], 128
if SMOKE:
    SHAPES, PROMPTS, DECODED = {"tiny": (128, 384, 2, (4, 2, 32), 1024, True)}, [2, 3], 2


def median(measure):
    """Of REPS measurements after one that does not count."""
    measure()
    return statistics.median(measure() for _ in range(REPS))


def main():
    try:
        import torch
    except ImportError as error:
        return {"missing": f"PyTorch cannot be imported: {error}"}
    if not torch.cuda.is_available() and not SMOKE:
        return {"error": f"PyTorch {torch.__version__} sees no GPU"}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_grad_enabled(False)
    torch.manual_seed(0)
    found = {"torch": torch.__version__, "dtype": "bf16", "device": torch.cuda.get_device_name() if device == "cuda" else "cpu"}
    found |= limits(torch, device)
    found["shapes"] = []
    for name, shape in SHAPES.items():
        try:
            found["shapes"].append({"shape": name, "results": tests(torch, device, shape)})
        except Exception as error:  # PyTorch's are of many kinds.
            found["shapes"].append({"shape": name, "error": f"{type(error).__name__}: {error}".splitlines()[0]})
        gc.collect()
        if device == "cuda":
            torch.cuda.empty_cache()
    return found


def seconds(torch, device, work, times=1):
    """Seconds of one of so many calls."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    begin = time.perf_counter()
    for _ in range(times):
        work()
    wait()
    return (time.perf_counter() - begin) / times


def limits(torch, device):
    """Rates of a copy, read and written, and of a bf16 product of random matrices."""
    words, n, times = (1 << 16, 64, 1) if SMOKE else (1 << 28, 8192, 20)
    x, y = torch.ones(words, device=device), torch.empty(words, device=device)
    copy = median(lambda: seconds(torch, device, lambda: y.copy_(x), times))
    a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
    product = median(lambda: seconds(torch, device, lambda: a @ b, times))
    return {"copy_gb_per_second": 8e-9 * words / copy, "matmul_size": n, "matmul_tflops_per_second": 2e-12 * n**3 / product}


class Model:
    """Random weights and one conversation."""

    def __init__(self, torch, device, shape, room):
        channels, hidden, layers, (heads, kv_heads, size), vocab, tied = shape
        self.torch, self.shape, self.room, self.device = torch, shape, room, device
        width = (heads + 2 * kv_heads) * size

        def matrix(rows, columns):
            return torch.randn(rows, columns, device=device, dtype=torch.bfloat16) / columns**0.5

        ones = torch.ones(channels, device=device, dtype=torch.bfloat16)
        self.embedding = matrix(vocab, channels)
        self.head = self.embedding if tied else matrix(vocab, channels)
        self.layers = []
        for _ in range(layers):
            cache = torch.zeros(2, 1, kv_heads, room, size, device=device, dtype=torch.bfloat16)
            matrices = [matrix(width, channels), matrix(channels, heads * size), matrix(2 * hidden, channels), matrix(channels, hidden)]
            self.layers.append((ones.clone(), ones.clone(), *matrices, cache[0], cache[1]))
        self.norm = ones
        angles = torch.outer(torch.arange(room), 1e4 ** (-torch.arange(0, size, 2) / size))
        angles = torch.cat([angles, angles], 1).to(device)
        self.cos, self.sin = angles.cos().bfloat16(), angles.sin().bfloat16()
        self.mask = torch.ones(room, room, device=device, dtype=torch.bool).tril()
        # Elements of what a token multiplies with, without and with the output layer.
        self.body = sum(w.numel() for layer in self.layers for w in layer[2:6])
        self.all = self.body + self.head.numel()

    def layer(self, x, cos, sin, mask, at, norm1, norm2, qkv, out, gate_up, down, keys, values):
        """One layer; with a mask tokens see the whole cache, without each other."""
        torch, (channels, _, _, (heads, kv_heads, size), _, _) = self.torch, self.shape
        f = torch.nn.functional
        y = f.linear(f.rms_norm(x, (channels,), norm1, 1e-5), qkv)
        y = y.view(1, -1, heads + 2 * kv_heads, size).transpose(1, 2)
        qk, v = y[:, : heads + kv_heads], y[:, heads + kv_heads :]
        half = torch.cat([-qk[..., size // 2 :], qk[..., : size // 2]], -1)
        qk = qk * cos + half * sin
        q, k = qk[:, :heads], qk[:, heads:]
        keys.index_copy_(2, at, k)
        values.index_copy_(2, at, v)
        if mask is None:
            y = f.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        else:
            y = f.scaled_dot_product_attention(q, keys, values, attn_mask=mask, enable_gqa=True)
        x = x + f.linear(y.transpose(1, 2).reshape(1, -1, heads * size), out)
        gate, up = f.linear(f.rms_norm(x, (channels,), norm2, 1e-5), gate_up).chunk(2, -1)
        return x + f.linear(f.silu(gate) * up, down)

    def step(self, layer, tokens, at, masked):
        """The likeliest token behind these, at the positions `at`."""
        torch = self.torch
        x = torch.nn.functional.embedding(tokens, self.embedding).unsqueeze(0)
        cos, sin = self.cos[at], self.sin[at]
        mask = self.mask[at] if masked else None
        for parts in self.layers:
            x = layer(x, cos, sin, mask, at, *parts)
        x = torch.nn.functional.rms_norm(x[0, -1:], x.shape[-1:], self.norm, 1e-5)
        return torch.nn.functional.linear(x, self.head).argmax(-1)

    def prefill(self, layer, count):
        """Seconds of so many tokens."""
        tokens = self.torch.arange(count, device=self.device) % self.shape[4]
        at = self.torch.arange(count, device=self.device)
        return median(lambda: seconds(self.torch, self.device, lambda: self.step(layer, tokens, at, False).cpu()))

    def decode(self, layer, count):
        """Seconds of so many tokens, one by one."""
        torch = self.torch
        token, at = (torch.zeros(1, device=self.device, dtype=torch.long) for _ in range(2))

        def one():
            token.copy_(self.step(layer, token, at, True))
            at.add_(1)

        replay = one
        if self.device == "cuda":
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    at.zero_()
                    one()
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                one()
            replay = graph.replay

        def all_of_them():
            # Behind one token, as ours.
            at.fill_(1)
            return count * seconds(torch, self.device, replay, count)

        return median(all_of_them)


def tests(torch, device, shape):
    """Each test's speed and what it needs, as `shardlight bench --json` has them."""
    channels, _, layers, (heads, kv_heads, size), vocab, _ = shape
    found = {}
    for way in ["graph", "compiled"]:
        # Compiling for the CPU needs a C++ compiler and shows nothing.
        if way == "compiled" and device == "cpu":
            continue
        for count in [0, *PROMPTS]:
            # The cache of decoding is no longer than it must be: attention with a mask reads all of it.
            model = Model(torch, device, shape, count or DECODED + 8)
            layer = model.layer
            if way == "compiled":
                torch._dynamo.reset()
                layer = torch.compile(partial(Model.layer, model), dynamic=False)
            tokens = count or DECODED
            try:
                took = model.prefill(layer, count) if count else model.decode(layer, DECODED)
            except Exception as error:  # The compiler's are of many kinds.
                if way == "graph":
                    raise
                print(f"compiled: {type(error).__name__}: {error}", file=sys.stderr)
                continue
            if count:
                seen, flops = count * (count + 1) // 2, 2 * (count * model.body + model.head.numel())
                read = 2 * model.all + 2 * count * 2 * layers * kv_heads * size
            else:
                seen = sum(range(2, tokens + 2))
                flops = 2 * tokens * model.all
                read = 2 * tokens * model.all + 2 * seen * 2 * layers * kv_heads * size
            flops += seen * 4 * layers * heads * size
            name = f"pp{count}" if count else f"tg{tokens}"
            result = {"test": name, "tokens": tokens, "way": way, "median": tokens / took}
            result |= {"gb_per_second": 1e-9 * read / took, "tflops_per_second": 1e-12 * flops / took}
            if name not in found or found[name]["median"] < result["median"]:
                result["others"] = [found[name]] if name in found else []
                found[name] = result
            else:
                found[name]["others"].append(result)
            del model, layer
            gc.collect()
            if device == "cuda":
                torch.cuda.empty_cache()
    return list(found.values())


if __name__ == "__main__":
    print(json.dumps(main()))
