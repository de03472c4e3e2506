"""Crops and sizes of whole clips. Axis letters as in ``docs/glossary.md``; boxes are (top, left, side) in pixels,
rectangles (top, left, height, width)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssvid.transforms.flow import is_flow, mirrored, scaled_motion

Box = tuple[int, int, int]
Rectangle = tuple[int, int, int, int]
_DRAWS = 10


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


def square(box: Box) -> Rectangle:
    """The rectangle that a square box is."""
    top, left, side = box
    return top, left, side, side


def crop_square(clip_TCHW: Tensor, box: Box, size_px: int) -> Tensor:
    """Cut the box out of every frame and bring it to size_px x size_px; uint8 stays uint8. Returns a contiguous TCHW.

    Bilinear with antialiasing; no resampling at all where the box has the wanted size.
    """
    return crop_rectangle(clip_TCHW, square(box), size_px)


def random_area(
    height: int,
    width: int,
    rng: np.random.Generator,
    *,
    min_area: float = 0.25,
    max_area: float = 1.0,
    max_aspect: float = 4 / 3,
) -> Rectangle:
    """A random rectangle inside height x width: area uniform in [min_area, max_area] of the frame, aspect ratio log-uniform
    in [1 / max_aspect, max_aspect], position uniform. Szegedy et al. 2015, section 6 (min_area 0.08 there).

    Where ten draws do not fit it is the largest centered rectangle whose aspect ratio is allowed.

    Raises:
        ValueError: min_area is not in (0, max_area], max_area is above 1, or max_aspect is below 1.
    """
    if not 0 < min_area <= max_area <= 1 or max_aspect < 1:
        raise ValueError(
            f"min_area ({min_area}) and max_area ({max_area}) must lie in (0, 1] in this order, and max_aspect"
            f" ({max_aspect}) be at least 1."
        )
    for _ in range(_DRAWS):
        area = height * width * float(rng.uniform(min_area, max_area))
        aspect = float(np.exp(rng.uniform(-np.log(max_aspect), np.log(max_aspect))))
        w, h = round(float(np.sqrt(area * aspect))), round(float(np.sqrt(area / aspect)))
        if 0 < w <= width and 0 < h <= height:
            return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
    w = min(width, round(height * max_aspect))
    h = min(height, round(width * max_aspect))
    return (height - h) // 2, (width - w) // 2, h, w


def crop_rectangle(clip_TCHW: Tensor, rectangle: Rectangle, size_px: int) -> Tensor:
    """Cut the rectangle out of every frame and bring it to size_px x size_px; uint8 stays uint8. A contiguous TCHW.

    Bilinear with antialiasing; no resampling where the rectangle has the wanted size.
    """
    top, left, height, width = rectangle
    cut_TCHW = clip_TCHW[..., top : top + height, left : left + width]
    return squash(cut_TCHW, size_px)


def shifted_boxes(box: Box, share: float, count: int, rng: np.random.Generator) -> list[Box]:
    """Squares of one side, by ``share`` smaller than the box, each anywhere within it."""
    top, left, side = box
    inner = max(1, round(side * (1 - share)))
    moves_T2 = rng.integers(side - inner + 1, size=(count, 2))
    return [(top + int(dy), left + int(dx), inner) for dy, dx in moves_T2]


def frame_squares(
    height: int, width: int, rng: np.random.Generator, count: int, *, min_scale: float = 1.0, shift: float = 0.0
) -> list[Box]:
    """One random square for all frames; above a shift of 0 one for each of ``count``, this share smaller and within it."""
    box = random_square(height, width, rng, min_scale)
    return shifted_boxes(box, shift, count, rng) if shift > 0 else [box]


def crop_squares(clip_TCHW: Tensor, boxes: Sequence[Box], size_px: int) -> Tensor:
    """Cut a box of its own out of each frame and bring it to size_px x size_px, as ``crop_square`` does."""
    return crop_rectangles(clip_TCHW, [square(box) for box in boxes], size_px)


def crop_rectangles(clip_TCHW: Tensor, rectangles: Sequence[Rectangle], size_px: int) -> Tensor:
    """The same of rectangles."""
    if len(set(rectangles)) == 1:
        return crop_rectangle(clip_TCHW, rectangles[0], size_px)
    frames = zip(clip_TCHW, rectangles, strict=True)
    return torch.cat([crop_rectangle(frame_CHW[None], rectangle, size_px) for frame_CHW, rectangle in frames])


def squash(clip_TCHW: Tensor, size_px: int) -> Tensor:
    """Bring every whole frame to size_px x size_px, whatever its aspect ratio; uint8 stays uint8. Returns a contiguous TCHW.

    Bilinear with antialiasing. Motion of flow is scaled with its frames.
    """
    if clip_TCHW.shape[-2:] == (size_px, size_px):
        return clip_TCHW.contiguous()
    # channels-last is the layout for which torch has a vectorized uint8 path
    return _resize(clip_TCHW.contiguous(memory_format=torch.channels_last), size_px).contiguous()


def resize_clips(clips_BCTHW: Tensor, size_px: int) -> Tensor:
    """Resize every frame of float clips to size_px x size_px, bilinear, antialiased when it shrinks; motion of flow with it.

    Returns:
        float BCTHW.
    """
    if clips_BCTHW.shape[-2:] == (size_px, size_px):
        return clips_BCTHW
    B, C, T, H, W = clips_BCTHW.shape
    frames = _resize(clips_BCTHW.transpose(1, 2).reshape(B * T, C, H, W), size_px)
    return frames.reshape(B, T, C, size_px, size_px).transpose(1, 2).contiguous()


def _resize(frames_NCHW: Tensor, size_px: int) -> Tensor:
    if is_flow(frames_NCHW, 1):
        fine_NCHW = _interpolated(frames_NCHW.float(), size_px)
        return scaled_motion(fine_NCHW, frames_NCHW.shape[-2:], as_type=frames_NCHW.dtype)
    return _interpolated(frames_NCHW, size_px)


def _interpolated(frames_NCHW: Tensor, size_px: int) -> Tensor:
    shrinks = min(frames_NCHW.shape[-2:]) > size_px
    return F.interpolate(frames_NCHW, size=(size_px, size_px), mode="bilinear", align_corners=False, antialias=shrinks)


def flip_clips(clips: Tensor, flipped_B: Tensor) -> Tensor:
    """Those clips of a batch (B, ..., C, T, H, W) mirrored that are to be flipped; of flow, u is negated."""
    return torch.where(flipped_B.view(-1, *[1] * (clips.ndim - 1)), mirrored(clips, -4), clips)


def flip_at_random(clips: Tensor, draws: Sequence[np.random.Generator]) -> Tensor:
    """Half of a batch of clips, by one draw of each sample, as ``flip_clips`` mirrors them."""
    return flip_clips(clips, coins(draws, clips.device))


def coins(draws: Sequence[np.random.Generator], device: torch.device) -> Tensor:
    """One toss of each sample's generator: bool (B,)."""
    return torch.tensor([bool(draw.integers(2)) for draw in draws], device=device)


def flip_some(images: Tensor, flipped_B: Tensor) -> Tensor:
    """Those images, or clips, of a batch (B, ..., W) mirrored that are to be flipped."""
    return torch.where(flipped_B.view(-1, *[1] * (images.ndim - 1)), images.flip(-1), images)
