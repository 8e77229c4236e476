"""A llama-architecture decoder in plain PyTorch, with Hugging Face's weight names and half-split rotary positions."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn


@dataclass
class Config:
    """Hugging Face's names for the sizes. Every inner dimension is a multiple of 32, the block length of Q8_0."""

    vocab_size: int = 1024
    hidden_size: int = 128
    intermediate_size: int = 384
    num_hidden_layers: int = 5
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 32
    max_position_embeddings: int = 512
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5
    num_local_experts: int = 0
    """Experts of a layer, each of intermediate_size; 0 for a dense network."""
    num_experts_per_tok: int = 2


class RMSNorm(nn.Module):
    """arXiv:1910.07467."""

    def __init__(self, dim, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x):
        return F.rms_norm(x, x.shape[-1:], self.weight, self.eps)


def rotary(c, length):
    """cos and sin of every position, (T, D / 2) each."""
    inv = c.rope_theta ** (-torch.arange(0, c.head_dim, 2).double() / c.head_dim)
    angle = torch.arange(length).double()[:, None] * inv
    return angle.cos().float(), angle.sin().float()


def rotate(x, cos, sin):
    """Half-split rotation of x (B, H, T, D): dimension i pairs with i + D / 2."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        linear = lambda i, o: nn.Linear(i, o, bias=False)
        self.q_proj = linear(c.hidden_size, c.num_attention_heads * c.head_dim)
        self.k_proj = linear(c.hidden_size, c.num_key_value_heads * c.head_dim)
        self.v_proj = linear(c.hidden_size, c.num_key_value_heads * c.head_dim)
        self.o_proj = linear(c.num_attention_heads * c.head_dim, c.hidden_size)

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        split = lambda y: y.view(b, t, -1, self.c.head_dim).transpose(1, 2)
        q, k, v = split(self.q_proj(x)), split(self.k_proj(x)), split(self.v_proj(x))
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        groups = self.c.num_attention_heads // self.c.num_key_value_heads
        k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(y.transpose(1, 2).reshape(b, t, -1))


class Mlp(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.up_proj = nn.Linear(c.hidden_size, c.intermediate_size, bias=False)
        self.down_proj = nn.Linear(c.intermediate_size, c.hidden_size, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Experts(nn.Module):
    """The matrices of all experts: gate and up (E, F, C), down (E, C, F)."""

    def __init__(self, c):
        super().__init__()
        empty = lambda *shape: nn.Parameter(torch.empty(c.num_local_experts, *shape))
        self.gate_proj = empty(c.intermediate_size, c.hidden_size)
        self.up_proj = empty(c.intermediate_size, c.hidden_size)
        self.down_proj = empty(c.hidden_size, c.intermediate_size)

    def forward(self, x, e):
        return (F.silu(x @ self.gate_proj[e].T) * (x @ self.up_proj[e].T)) @ self.down_proj[e].T


class SparseMlp(nn.Module):
    """Mixtral's block, arXiv:2401.04088: softmax, the best few experts, weights that sum to one."""

    def __init__(self, c):
        super().__init__()
        self.c = c
        self.gate = nn.Linear(c.hidden_size, c.num_local_experts, bias=False)
        self.experts = Experts(c)

    def forward(self, x):
        rows = x.flatten(0, -2)
        # Switch's jitter of the router's input, arXiv:2101.03961, section 2.2.
        seen = rows * (0.99 + 0.02 * torch.rand_like(rows)) if self.training else rows
        probabilities = self.gate(seen).softmax(-1)
        weights, chosen = probabilities.topk(self.c.num_experts_per_tok)
        weights = weights / weights.sum(-1, keepdim=True)
        self.routed = probabilities, chosen
        y = torch.zeros_like(rows)
        for e in range(self.c.num_local_experts):
            t, k = (chosen == e).nonzero(as_tuple=True)
            y = y.index_add(0, t, self.experts(rows[t], e) * weights[t, k, None])
        return y.view_as(x)


class Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.input_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.self_attn = Attention(c)
        self.post_attention_layernorm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        self.mlp = SparseMlp(c) if c.num_local_experts else Mlp(c)

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Model(nn.Module):
    """Embedding, layers, final norm; the embedding is also the output matrix."""

    def __init__(self, c):
        super().__init__()
        self.c = c
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.num_hidden_layers))
        self.norm = RMSNorm(c.hidden_size, c.rms_norm_eps)
        cos, sin = rotary(c, c.max_position_embeddings)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)
        for name, p in self.named_parameters():
            if name.endswith("mlp.gate.weight"):
                nn.init.normal_(p, std=0.02)
            elif p.dim() > 1:
                scale = (2 * c.num_hidden_layers) ** -0.5 if "o_proj" in name or "down_proj" in name else 1.0
                # A wider start of the embedding keeps words that are used alike (names) apart, so that they can be copied.
                nn.init.normal_(p, std=0.08 if "embed" in name else scale * p.shape[-1] ** -0.5)

    def forward(self, tokens):
        """Logits (B, T, V) of tokens (B, T)."""
        x = self.embed_tokens(tokens)
        cos, sin = self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]]
        for layer in self.layers:
            x = layer(x, cos, sin)
        return F.linear(self.norm(x), self.embed_tokens.weight)


@torch.no_grad()
def generate(model, tokens, count, stop=(), temperature=0.0, generator=None):
    """Up to `count` new tokens, greedy or sampled, and the gap between the two best logits at each step."""
    tokens, out, margins = list(tokens), [], []
    for _ in range(count):
        logits = model(torch.tensor([tokens[-model.c.max_position_embeddings:]]))[0, -1]
        best = logits.topk(2).values
        margins.append(float(best[0] - best[1]))
        if temperature:
            t = int(torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=generator))
        else:
            t = int(logits.argmax())
        tokens.append(t)
        out.append(t)
        if t in stop:
            break
    return out, margins
