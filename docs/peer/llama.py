"""A compact Llama-3 in plain PyTorch, with random weights, for `card.py`: the shapes and the counting rule of `fp8flow bench`."""

import torch
import torch.nn.functional as F
from torch import nn

# Vocabulary, hidden, intermediate, blocks, heads, key and value heads, head tied to the embedding: as in core/bench/src/model.rs.
SHAPES = {
    "small": (4096, 512, 1408, 8, 8, 4, False),
    "1b": (128256, 2048, 8192, 16, 32, 8, True),
    "8b": (128256, 4096, 14336, 32, 32, 8, False),
}


def flops_per_token(name, blocks, sequence):
    """Six for every weight that a token is multiplied with, and causal attention."""
    vocabulary, hidden, wide, _, heads, kv_heads, _ = SHAPES[name]
    kv = hidden // heads * kv_heads
    weights = blocks * (2 * hidden * hidden + 2 * kv * hidden + 3 * wide * hidden) + vocabulary * hidden
    return 6 * weights + 6 * blocks * hidden * (sequence + 1)


class Norm(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden))

    def forward(self, x):
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), 1e-6)


def rotate(x, cos, sin):
    low, high = x.chunk(2, dim=-1)
    return torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1)


class Block(nn.Module):
    def __init__(self, hidden, wide, heads, kv_heads, linear):
        super().__init__()
        self.heads, self.kv_heads, self.dim = heads, kv_heads, hidden // heads
        kv = self.dim * kv_heads
        self.before, self.middle = Norm(hidden), Norm(hidden)
        self.q, self.k, self.v = linear(hidden, hidden), linear(hidden, kv), linear(hidden, kv)
        self.o = linear(hidden, hidden)
        self.gate, self.up, self.down = linear(hidden, wide), linear(hidden, wide), linear(wide, hidden)

    def forward(self, x, cos, sin):
        batch, tokens, hidden = x.shape
        y = self.before(x)

        def split(z, heads):
            return z.view(batch, tokens, heads, self.dim).transpose(1, 2)

        q, k = rotate(split(self.q(y), self.heads), cos, sin), rotate(split(self.k(y), self.kv_heads), cos, sin)
        v = split(self.v(y), self.kv_heads)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o(attended.transpose(1, 2).reshape(batch, tokens, hidden))
        y = self.middle(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    """`linear` makes the layers of blocks; the head stays in high precision, as ours does."""

    def __init__(self, name, blocks, sequence, recompute, linear):
        super().__init__()
        vocabulary, hidden, wide, _, heads, kv_heads, tied = SHAPES[name]
        self.embedding = nn.Embedding(vocabulary, hidden)
        self.blocks = nn.ModuleList(Block(hidden, wide, heads, kv_heads, linear) for _ in range(blocks))
        self.norm, self.head = Norm(hidden), nn.Linear(hidden, vocabulary, bias=False)
        for weight in self.parameters():
            if weight.dim() == 2:
                nn.init.normal_(weight, std=0.02)
        if tied:
            self.head.weight = self.embedding.weight
        self.recompute = recompute
        half = hidden // heads // 2
        angles = torch.outer(torch.arange(sequence).float(), 10000.0 ** (-torch.arange(half).float() / half))
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)

    def forward(self, ids, targets):
        x = self.embedding(ids).bfloat16()
        cos, sin = self.cos.to(x.dtype), self.sin.to(x.dtype)
        for block in self.blocks:
            if self.recompute:
                x = torch.utils.checkpoint.checkpoint(block, x, cos, sin, use_reentrant=False)
            else:
                x = block(x, cos, sin)
        return self.loss(x, targets)

    def loss(self, x, targets):
        return F.cross_entropy(self.head(self.norm(x)).float().flatten(0, 1), targets.flatten())

    def compile_parts(self):
        """A block at a time, as torchtitan does: all blocks share what is compiled. The head and the loss are another part."""
        for block in self.blocks:
            block.compile()
        self.loss = torch.compile(self.loss)
