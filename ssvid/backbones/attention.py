"""What video transformers are made of: attention over tokens, blocks, sizes, initialization.

Axis letters: B clips, N tokens, D width; d the width of a head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NORM_EPS = 1e-6


class Variant(NamedTuple):
    """Width of a token, number of blocks, number of heads. The MLP of a block is four times as wide as a token."""

    width: int
    depth: int
    num_heads: int


# ViT (Dosovitskiy 2021, arXiv:2010.11929, table 1) has base and large, DeiT (Touvron 2021, arXiv:2012.12877) tiny and small.
# Mini is ours, for two CPU cores.
VARIANTS = {
    "mini": Variant(96, 4, 3),
    "tiny": Variant(192, 12, 3),
    "small": Variant(384, 12, 6),
    "base": Variant(768, 12, 12),
    "large": Variant(1024, 24, 16),
}
NUM_STAGES = 4


class Rotation(NamedTuple):
    """Angles by which queries and keys are turned, as their cosine and sine: each (B or 1, 1, N, d)."""

    cos: Tensor
    sin: Tensor

    def turn(self, x_BHNd: Tensor) -> Tensor:
        """Turn each pair of neighboring values, (0, 1), (2, 3), ..., each value by its own angle."""
        first, second = x_BHNd.unflatten(-1, (-1, 2)).unbind(-1)
        across = torch.stack((-second, first), dim=-1).flatten(-2)
        return (x_BHNd * self.cos + across * self.sin).to(x_BHNd.dtype)


class SelfAttention(nn.Module):
    """Each token sees all tokens of its clip, in several heads. BND to BND. Keys are those of ViT: ``qkv``, ``proj``."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BND: Tensor, rotation: Rotation | None = None) -> Tensor:
        """Attend. ``rotation`` turns queries and keys by where their tokens are."""
        parts = self.qkv(x_BND).unflatten(2, (3, self.num_heads, -1)).unbind(2)
        queries, keys, values = (part.transpose(1, 2) for part in parts)
        if rotation is not None:
            queries, keys = rotation.turn(queries), rotation.turn(keys)
        seen_BHNd = F.scaled_dot_product_attention(queries, keys, values)
        return self.proj(seen_BHNd.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two layers with GELU between them, on each token by itself. Keys ``fc1``, ``fc2``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Compute."""
        return self.fc2(F.gelu(self.fc1(x)))


class DropPath(nn.Module):
    """Stochastic depth (Huang 2016, arXiv:1603.09382): in training a residual is left out, clip by clip, with this rate.

    What is kept is scaled, so that the mean stays. Drawn from torch's generator; a rate of 0 draws nothing.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Drop. The first axis is that of clips."""
        if not (self.training and self.rate):
            return x
        keep = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(1 - self.rate)
        return x * keep / (1 - self.rate)

    def extra_repr(self) -> str:
        """What ``print`` shows."""
        return f"rate={self.rate:g}"


class Block(nn.Module):
    """A pre-norm transformer block: attention, then an MLP, each beside a residual path. BND to BND."""

    def __init__(self, variant: Variant, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(variant.width, NORM_EPS)
        self.attn = SelfAttention(variant.width, variant.num_heads)
        self.norm2 = nn.LayerNorm(variant.width, NORM_EPS)
        self.mlp = Mlp(variant.width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x_BND: Tensor, rotation: Rotation | None = None) -> Tensor:
        """Compute."""
        x_BND = x_BND + self.drop_path(self.attn(self.norm1(x_BND), rotation))
        return x_BND + self.drop_path(self.mlp(self.norm2(x_BND)))


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """The rate of each block: from 0 for the first, linearly, to ``rate`` for the last."""
    return [rate * i / (depth - 1) for i in range(depth)]


def stage_ends(depth: int) -> tuple[int, ...]:
    """After how many blocks each stage ends: quarters of the depth."""
    return tuple(depth * quarter // NUM_STAGES for quarter in range(1, NUM_STAGES + 1))


def blocks_of_stage(blocks: nn.ModuleList, stage: int) -> list[nn.Module]:
    """The blocks of a stage, counted from 0."""
    ends = (0, *stage_ends(len(blocks)))
    return list(blocks[ends[stage] : ends[stage + 1]])


def initialize_transformer(network: nn.Module, blocks: Sequence[nn.Module]) -> None:
    """Weights N(0, 0.02^2) cut at 2, no bias; the layers that end a residual path of block i divided by sqrt(2 i).

    As V-JEPA 2 initializes (arXiv:2506.09985, its code); i counts from 1, so that the sum of all paths stays in bounds.
    """
    for module in network.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.Conv3d)):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    with torch.no_grad():
        for i, block in enumerate(blocks, 1):
            for name in ("attn.proj.weight", "mlp.fc2.weight"):
                block.get_parameter(name).div_(math.sqrt(2 * i))
