"""Pictures of frames, for the eye: tiles of one size, rows of them, words beside them. All are uint8 HWC."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from ssvid.types import FLOW_CHANNELS, NO_MOTION

Color = tuple[int, int, int]
LIGHT: Color = (235, 235, 235)
RIGHT: Color = (60, 170, 80)
WRONG: Color = (210, 60, 60)
GRAY: Color = (170, 170, 170)
_DARK: Color = (24, 24, 24)
_LINE_PX = 18


def tiles(frames_NCHW: Tensor, size_px: int) -> list[np.ndarray]:
    """Each frame as a square of ``size_px``. frames: uint8, or float in [0, 1], on any device; of flow in its colors, full at
    the longest motion.
    """
    frames = frames_NCHW.detach().cpu()
    shares = frames.float() if frames.is_floating_point() else frames.float() / 255
    if shares.shape[1] == FLOW_CHANNELS:
        shares = _colored(shares)
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


# ---- flow


def _colored(levels_N2HW: Tensor) -> Tensor:
    """Frames of flow in [0, 1] as colors, N3HW in [0, 1]."""
    motion_NHW2 = (levels_N2HW - NO_MOTION / 255).permute(0, 2, 3, 1).numpy()
    colors = flow_colors(motion_NHW2, float(np.hypot(motion_NHW2[..., 0], motion_NHW2[..., 1]).max()))
    return torch.from_numpy(colors).permute(0, 3, 1, 2).float() / 255


def flow_colors(flow_HW2: np.ndarray, most_px: float) -> np.ndarray:
    """Flow as colors, uint8 HWC: the hue says where to, the saturation how far; white is no motion.

    Baker et al., *A Database and Evaluation Methodology for Optical Flow* (IJCV 2011), section 5: the color wheel of 55 hues.

    Args:
        most_px: the length that has full color; what is longer is darker.
    """
    wheel_N3 = _color_wheel()
    count = len(wheel_N3)
    u_HW, v_HW = (flow_HW2[..., axis].astype(np.float64) / max(most_px, 1e-6) for axis in (0, 1))
    length_HW1 = np.hypot(u_HW, v_HW)[..., None]
    place_HW = (np.arctan2(-v_HW, -u_HW) / np.pi + 1) / 2 * (count - 1)
    below_HW = np.floor(place_HW).astype(int)
    share_HW1 = (place_HW - below_HW)[..., None]
    hue_HW3 = (1 - share_HW1) * wheel_N3[below_HW % count] + share_HW1 * wheel_N3[(below_HW + 1) % count]
    inside_HW3 = 1 - length_HW1 * (1 - hue_HW3)
    return np.floor(255 * np.where(length_HW1 <= 1, inside_HW3, 0.75 * hue_HW3)).astype(np.uint8)


def _color_wheel() -> np.ndarray:
    """The 55 hues of Baker et al., float N3 in [0, 1]: red, yellow, green, cyan, blue, magenta and back, not evenly spaced."""
    parts = ((15, 0, 1, 1), (6, 1, 0, -1), (4, 1, 2, 1), (11, 2, 1, -1), (13, 2, 0, 1), (6, 0, 2, -1))
    hues = []
    for count, full, moving, sign in parts:
        part_N3 = np.zeros((count, 3))
        part_N3[:, full] = 1
        ramp_N = np.arange(count) / count
        part_N3[:, moving] = ramp_N if sign > 0 else 1 - ramp_N
        hues.append(part_N3)
    return np.concatenate(hues)


def wheel_picture(side_px: int = 151) -> np.ndarray:
    """The color of each direction and length, uint8 HWC: no motion in the middle, full color at the circle."""
    axis = np.linspace(-1.1, 1.1, side_px)
    flow_HW2 = np.stack(np.meshgrid(axis, axis), axis=-1)
    return flow_colors(flow_HW2, 1.0)
