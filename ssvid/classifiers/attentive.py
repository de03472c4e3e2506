"""Heads that look: at all cells of a map with one learned query, or from frame to frame."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssvid.backbones.attention import NORM_EPS, Block, Variant, initialize_transformer
from ssvid.backbones.positions import sincos_flat
from ssvid.classifiers.fusion import frame_vectors
from ssvid.classifiers.linear import last_layer

_STD = 0.02  # of the weights, truncated normal, as in vision transformers


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
        self.classifier = last_layer(width, num_classes)
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


class TemporalAttentionHead(nn.Module):
    """A transformer encoder over the frames of a clip: each frame is one token, a class token collects what is said of all.

    The temporal encoder of ViViT's factorised encoder (Arnab et al. 2021, arXiv 2103.15691, section 3.3, model 2). Positions
    tell the order of the frames; without them the frames would be a set.

    Differs: one layer where the paper has four; the positions are sines and cosines, not learned, so that clips may be of
    any length; a frame's token is the mean of its map over space, after a layer normalization.

    Args:
        width: channels D of the map, which is that of the tokens too. num_layers: blocks of attention and perceptron.
    """

    def __init__(self, width: int, num_classes: int, *, num_layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm_frames = nn.LayerNorm(width, NORM_EPS)
        self.class_token = nn.Parameter(torch.empty(1, 1, width))
        variant = Variant(width, num_layers, num_heads(width))
        self.blocks = nn.ModuleList(Block(variant) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width, NORM_EPS)
        self.dropout = nn.Dropout(dropout)
        initialize_transformer(self, list(self.blocks))
        nn.init.trunc_normal_(self.class_token, std=_STD)
        self.classifier = last_layer(width, num_classes)

    def forward(self, map_BCTHW: Tensor) -> Tensor:
        """Logits BK."""
        vectors_BTD = self.norm_frames(frame_vectors(map_BCTHW))
        tokens_BTD = vectors_BTD + positions_in_time(*vectors_BTD.shape[1:]).to(vectors_BTD)
        tokens_BND = torch.cat([self.class_token.expand(len(tokens_BTD), -1, -1).to(tokens_BTD), tokens_BTD], dim=1)
        for block in self.blocks:
            tokens_BND = block(tokens_BND)
        return self.classifier(self.dropout(self.norm(tokens_BND[:, 0])))


def positions_in_time(num_frames: int, width: int) -> Tensor:
    """Sines and cosines of the frame's number, TD (Vaswani et al. 2017, arXiv 1706.03762, section 3.5)."""
    return sincos_flat((num_frames,), width + width % 2)[:width].T


def num_heads(width: int) -> int:
    """Attention heads for a width: of 64 channels each, or as near to that as the width divides."""
    wanted = max(1, width // 64)
    return max(heads for heads in range(1, wanted + 1) if width % heads == 0)
