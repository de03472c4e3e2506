"""One linear layer on the mean of a map; the layer that ends every head."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ssvid.backbones import pool_map


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
        self.classifier = last_layer(width, num_classes)

    def forward(self, map_BCTHW: Tensor) -> Tensor:
        """Logits BK."""
        vector_BD = pool_map(map_BCTHW)
        if self.l2:
            vector_BD = F.normalize(vector_BD, dim=1)
        return self.classifier(self.dropout(self.norm(vector_BD)))


def last_layer(width: int, num_classes: int) -> nn.Linear:
    """From a vector to class scores, with small weights: every head starts near equal probabilities."""
    linear = nn.Linear(width, num_classes)
    nn.init.normal_(linear.weight, std=0.01)
    nn.init.zeros_(linear.bias)
    return linear
