"""How large frames are shown to the network, and how they become that large."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor

from ssvid.features.maps import Size
from ssvid.features.propagation_protocol import PropagationProtocol


def frame_size(height_px: int, width_px: int, protocol: PropagationProtocol) -> Size:
    """Height and width in pixels of what the network sees of a video of that size."""
    rule, size = protocol.size_rule, protocol.size_px
    if rule == "square":
        sides = (float(size), float(size))
    elif rule == "exact":
        sides = (float(size), float(protocol.width_px))
    elif rule == "native":
        sides = (float(height_px), float(width_px))
    else:
        side = min(height_px, width_px) if rule == "short_side" else max(height_px, width_px)
        sides = (height_px * size / side, width_px * size / side)
    set_side = {"short_side": min(sides), "long_side": max(sides)}.get(rule)
    is_set = [protocol.multiple_sides == "other" and side == set_side for side in sides]
    height, width = (
        round(side) if kept else _multiple(side, protocol) for side, kept in zip(sides, is_set, strict=True)
    )
    return height, width


def _multiple(side: float, protocol: PropagationProtocol) -> int:
    step = protocol.multiple_px
    steps = round(side / step, 6)
    whole = {"down": math.floor(steps), "up": math.ceil(steps), "nearest": round(steps)}[protocol.multiple_rounding]
    return max(step, whole * step)


def resize_frame(frame_CHW: Tensor, size_px: Size, protocol: PropagationProtocol) -> Tensor:
    """A uint8 frame in another size; the same one where it has that size."""
    if tuple(frame_CHW.shape[1:]) == tuple(size_px):
        return frame_CHW
    mode = protocol.frame_resampling.replace("_", "-")
    if mode.startswith("nearest"):
        return F.interpolate(frame_CHW[None], size_px, mode=mode)[0]
    return F.interpolate(frame_CHW[None], size_px, mode=mode, align_corners=False, antialias=protocol.antialias)[0]
