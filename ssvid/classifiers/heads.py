"""What turns a backbone's map into class scores, built as a protocol says."""

from __future__ import annotations

import torch
from torch import nn

from ssvid.classifiers.attentive import AttentiveHead, TemporalAttentionHead
from ssvid.classifiers.fusion import AverageHead, LateConcatHead, LatePoolHead
from ssvid.classifiers.linear import LinearHead
from ssvid.classifiers.protocol import FinetuneSettings
from ssvid.classifiers.recurrent import LRCN_WIDTH, RecurrentHead


def build_head(protocol: FinetuneSettings, width: int, num_classes: int, *, seed: int) -> nn.Module:
    """The head that this seed gives, whatever was drawn before; torch's global generator is left as it was.

    The pretrained and the random network thus start from the same head.

    Args:
        protocol: says which (``head``) and how large. width: channels of the map.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _new_head(protocol, width, num_classes)


def _new_head(p: FinetuneSettings, width: int, num_classes: int) -> nn.Module:
    hidden, dropout = p.head_width or width, p.dropout
    match p.head:
        case "attentive":
            return AttentiveHead(width, num_classes, dropout=dropout)
        case "average":
            return AverageHead(width, num_classes, dropout=dropout)
        case "late_concat":
            return LateConcatHead(width, num_classes, num_frames=p.num_frames, hidden_width=hidden, dropout=dropout)
        case "late_pool":
            return LatePoolHead(width, num_classes, hidden_width=hidden, dropout=dropout)
        case "lstm":
            units = p.head_width or LRCN_WIDTH
            return RecurrentHead(width, num_classes, hidden_width=units, num_layers=p.head_layers, dropout=dropout)
        case "attention":
            return TemporalAttentionHead(width, num_classes, num_layers=p.head_layers, dropout=dropout)
        case _:
            return LinearHead(width, num_classes, dropout=dropout, norm=p.head_norm)
