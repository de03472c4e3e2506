"""Pictures of frames, for the eye: tiles of one size, rows of them, words beside them. All are uint8 HWC."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

Color = tuple[int, int, int]
LIGHT: Color = (235, 235, 235)
_DARK: Color = (24, 24, 24)
_LINE_PX = 18


def tiles(frames_NCHW: Tensor, size_px: int) -> list[np.ndarray]:
    """Each frame as a square of ``size_px``. frames: uint8, or float in [0, 1], on any device."""
    frames = frames_NCHW.detach().cpu()
    shares = frames.float() if frames.is_floating_point() else frames.float() / 255
    small = F.interpolate(shares, size=(size_px, size_px), mode="bilinear", antialias=True)
    return list((small.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy())


def row(pictures: Iterable[np.ndarray], gap_px: int = 0) -> np.ndarray:
    """Pictures of one height side by side, with a black gap to the right of each and below."""
    return np.concatenate([np.pad(picture, ((0, gap_px), (0, gap_px), (0, 0))) for picture in pictures], axis=1)


def sheet(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows one below the other; what a short one lacks is black."""
    width = max(line.shape[1] for line in rows)
    return np.concatenate([np.pad(line, ((0, 0), (0, width - line.shape[1]), (0, 0))) for line in rows])


def words(lines: Sequence[tuple[str, Color]], width_px: int, height_px: int) -> np.ndarray:
    """A dark field with lines of text, each in its color."""
    field = Image.new("RGB", (width_px, height_px), _DARK)
    draw = ImageDraw.Draw(field)
    top = (height_px - _LINE_PX * len(lines)) // 2 + 2
    for number, (text, color) in enumerate(lines):
        draw.text((6, top + _LINE_PX * number), text, fill=color)
    return np.asarray(field)


def outlined(picture: np.ndarray, corners_px: Sequence[Sequence[float]], color: Color) -> np.ndarray:
    """The picture with a closed line through the corners (x, y), and a dot on the first of them."""
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    draw.line([(x, y) for x, y in (*corners_px, corners_px[0])], fill=color, width=2)
    x, y = corners_px[0]
    draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill=color)
    return np.asarray(image)


def voc_colors(count: int = 256) -> np.ndarray:
    """The colors under which PASCAL VOC, and DAVIS after it, store object ids: uint8 (count, 3), black for id 0.

    The bits of an id are dealt out to red, green and blue in turn, the lowest three bits becoming the
    highest of a color (VOC devkit, ``VOClabelcolormap``).
    """
    ids_N = np.arange(count)
    colors_N3 = np.zeros((count, 3), np.uint8)
    for place in range(8):
        for channel in range(3):
            colors_N3[:, channel] |= (((ids_N >> (3 * place + channel)) & 1) << (7 - place)).astype(np.uint8)
    return colors_N3
