"""What turns a backbone's map into class scores: a linear head, or attention with one learned query."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssvid.backbones import pool_map

_STD = 0.02  # of the attentive head's weights, truncated normal, as in vision transformers


class LinearHead(nn.Module):
    """Mean over time and space, an optional normalization, dropout, one linear layer.

    Args:
        width: channels of the map. norm: "none"; "batch", a batch normalization without weights of its own; "l2_batch",
            the same after dividing each vector by its length (the head of CoCLR's linear probe).
    """

    def __init__(self, width: int, num_classes: int, *, dropout: float = 0.0, norm: str = "none") -> None:
        super().__init__()
        self.l2 = norm.startswith("l2")
        self.norm = nn.BatchNorm1d(width, affine=False) if norm.endswith("batch") else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.classifier = _classifier(width, num_classes)

    def forward(self, map_BCTHW: Tensor) -> Tensor:
        """Logits BK."""
        vector_BD = pool_map(map_BCTHW)
        if self.l2:
            vector_BD = F.normalize(vector_BD, dim=1)
        return self.classifier(self.dropout(self.norm(vector_BD)))


class AttentiveHead(nn.Module):
    """One cross-attention block whose only query is learned, over all cells of the map, then a linear layer.

    The attentive probe of V-JEPA (Bardes et al. 2024, arXiv 2404.08471): query + attention(query, tokens), then a two-layer
    perceptron with a residual. The block sees the cells as a set: where a cell lies it knows only as far as the map
    itself tells.
    """

    def __init__(self, width: int, num_classes: int, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(1, 1, width))
        self.norm_tokens = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, num_heads(width), batch_first=True)
        self.norm_query = nn.LayerNorm(width)
        self.perceptron = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)
        self.classifier = _classifier(width, num_classes)
        self._initialize()

    def _initialize(self) -> None:
        nn.init.trunc_normal_(self.query, std=_STD)
        nn.init.trunc_normal_(self.attention.in_proj_weight, std=_STD)
        for linear in (self.attention.out_proj, *self.perceptron):
            if isinstance(linear, nn.Linear):
                nn.init.trunc_normal_(linear.weight, std=_STD)
                nn.init.zeros_(linear.bias)

    def forward(self, map_BCTHW: Tensor) -> Tensor:
        """Logits BK."""
        tokens_BND = self.norm_tokens(map_BCTHW.flatten(2).transpose(1, 2))
        query_B1D = self.query.expand(len(tokens_BND), -1, -1)
        query_B1D = query_B1D + self.attention(query_B1D, tokens_BND, tokens_BND, need_weights=False)[0]
        query_B1D = query_B1D + self.perceptron(self.norm_query(query_B1D))
        return self.classifier(self.dropout(query_B1D[:, 0]))


def num_heads(width: int) -> int:
    """Attention heads for a width: of 64 channels each, or as near to that as the width divides."""
    wanted = max(1, width // 64)
    return max(heads for heads in range(1, wanted + 1) if width % heads == 0)


def build_head(kind: str, width: int, num_classes: int, *, dropout: float, norm: str, seed: int) -> nn.Module:
    """The head that this seed gives, whatever was drawn before; torch's global generator is left as it was.

    The pretrained and the random network thus start from the same head.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if kind == "attentive":
            return AttentiveHead(width, num_classes, dropout=dropout)
        return LinearHead(width, num_classes, dropout=dropout, norm=norm)


def _classifier(width: int, num_classes: int) -> nn.Linear:
    linear = nn.Linear(width, num_classes)
    nn.init.normal_(linear.weight, std=0.01)
    nn.init.zeros_(linear.bias)
    return linear
