"""Crops and sizes of whole clips. Axis letters as in ``docs/glossary.md``; boxes are (top, left, side) in pixels."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Box = tuple[int, int, int]


def random_square(height: int, width: int, rng: np.random.Generator, min_scale: float = 1.0) -> Box:
    """A random square inside height x width: side uniform in [min_scale, 1] x short side, position uniform.

    Raises:
        ValueError: min_scale is not in (0, 1].
    """
    if not 0 < min_scale <= 1:
        raise ValueError(f"min_scale ({min_scale}) must lie in (0, 1].")
    short = min(height, width)
    side = max(1, round(short * float(rng.uniform(min_scale, 1.0))))
    return int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1)), side


def center_square(height: int, width: int) -> Box:
    """The largest square in the middle."""
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side


def crop_square(clip_TCHW: Tensor, box: Box, size_px: int) -> Tensor:
    """Cut the box out of every frame and bring it to size_px x size_px; uint8 stays uint8. Returns a contiguous TCHW.

    Bilinear with antialiasing; no resampling at all where the box has the wanted size.
    """
    top, left, side = box
    cut_TCHW = clip_TCHW[..., top : top + side, left : left + side]
    if side != size_px:
        # channels-last is the layout for which torch has a vectorized uint8 path
        cut_TCHW = _resize(cut_TCHW.contiguous(memory_format=torch.channels_last), size_px)
    return cut_TCHW.contiguous()


def squash(clip_TCHW: Tensor, size_px: int) -> Tensor:
    """Bring every whole frame to size_px x size_px, whatever its aspect ratio; uint8 stays uint8. Returns a contiguous TCHW.

    Bilinear with antialiasing.
    """
    if clip_TCHW.shape[-2:] == (size_px, size_px):
        return clip_TCHW.contiguous()
    return _resize(clip_TCHW.contiguous(memory_format=torch.channels_last), size_px).contiguous()


def resize_clips(clips_BCTHW: Tensor, size_px: int) -> Tensor:
    """Resize every frame of float clips to size_px x size_px, bilinear, antialiased when it shrinks.

    Returns:
        float BCTHW.
    """
    if clips_BCTHW.shape[-2:] == (size_px, size_px):
        return clips_BCTHW
    B, C, T, H, W = clips_BCTHW.shape
    frames = _resize(clips_BCTHW.transpose(1, 2).reshape(B * T, C, H, W), size_px)
    return frames.reshape(B, T, C, size_px, size_px).transpose(1, 2).contiguous()


def _resize(frames_NCHW: Tensor, size_px: int) -> Tensor:
    shrinks = min(frames_NCHW.shape[-2:]) > size_px
    return F.interpolate(frames_NCHW, size=(size_px, size_px), mode="bilinear", align_corners=False, antialias=shrinks)
