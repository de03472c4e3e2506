"""Frames of some videos with the flow that was measured between them, in the colors of the wheel beside: for the eye."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from ssvid import pictures
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.video.flow import FlowSettings, to_pixels

_TILE_PX, _GAP_PX, _LABEL_PX = 128, 4, 22
_MOMENTS = 5  # of each video, evenly spaced
_FULL_COLOR = 0.99  # the share of pixels that move no further than what has full color


def flow_sheet(manifest: Manifest, rows: Sequence[VideoRow], settings: FlowSettings) -> np.ndarray:
    """Two lines for each video, its frames and below them their flow, and the wheel: uint8 HWC.

    Colors are stretched video by video, to the length that the fastest hundredth of its pixels exceeds; it stands above.

    Args:
        rows: of the manifest; their flow was measured.

    Raises:
        DecodeError: a video, or its flow, cannot be read.
    """
    lines = [line for row in rows for line in _lines_of(manifest, row, settings)]
    wheel = [_labeled("where to, how far", _fitted(pictures.wheel_picture()))]
    return pictures.sheet([*lines, pictures.row(wheel, _GAP_PX)])


def _lines_of(manifest: Manifest, row: VideoRow, settings: FlowSettings) -> list[np.ndarray]:
    numbers = np.linspace(0, max(row.num_frames - 2, 0), _MOMENTS).round().astype(int)
    with replace(row, flow="").open(manifest.root) as reader:
        frames_NCHW = reader.frames_at(numbers)
    with replace(row, flow=settings.text).open(manifest.root) as reader:
        flow_NHW2 = to_pixels(reader.frames_at(numbers).permute(0, 2, 3, 1).numpy(), settings.most_px)
    most_px = max(float(np.quantile(np.hypot(flow_NHW2[..., 0], flow_NHW2[..., 1]), _FULL_COLOR)), settings.step_px)
    colored = [_fitted(pictures.flow_colors(flow_HW2, most_px)) for flow_HW2 in flow_NHW2]
    width = (_TILE_PX + _GAP_PX) * _MOMENTS
    told = f"{row.path}: frames {', '.join(map(str, numbers))}; full color at {most_px:.1f} px a frame"
    title = pictures.words([(told, pictures.LIGHT)], width, _LABEL_PX)
    return [title, pictures.row(pictures.tiles(frames_NCHW, _TILE_PX), _GAP_PX), pictures.row(colored, _GAP_PX)]


def _fitted(picture_HWC: np.ndarray) -> np.ndarray:
    return pictures.tiles(torch.from_numpy(picture_HWC).permute(2, 0, 1)[None], _TILE_PX)[0]


def _labeled(told: str, picture: np.ndarray) -> np.ndarray:
    return np.concatenate([picture, pictures.words([(told, pictures.LIGHT)], picture.shape[1], _LABEL_PX)])
