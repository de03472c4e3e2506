"""Where an answer comes from, painted on the frame: blue and green as fast as the video usually is, yellow and orange slower."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from ssvid.apps.asking import MapSums

MOST_OPACITY = 0.65
# Position 0 is the lowest logit, 1 the highest; a half is usual in this video.
_STOPS = (0.0, 0.3, 0.55, 1.0)
_COLORS = ((235, 110, 20), (250, 215, 70), (50, 165, 95), (35, 95, 215))  # orange, yellow, green, blue
_SAMPLED = 256  # beats from which the scale is taken
_PERCENTILE = 98


@dataclass(frozen=True)
class MapScale:
    """What is usual in a video. local: the median logit of a place, weighted by how much there is to judge by.

    strength: of a place that is painted fully.
    """

    local: float
    strength: float

    @classmethod
    def of(cls, maps: MapSums) -> MapScale:
        """From beats that are spread over the video."""
        beats = np.unique(np.linspace(0, len(maps.counts_N) - 1, _SAMPLED).round().astype(int))
        both = np.stack([np.stack(maps.at(int(beat))) for beat in beats])
        local, strength = both[:, 0].ravel(), both[:, 1].ravel()
        order = np.argsort(local)
        weights = np.cumsum(strength[order])
        median = local[order][np.searchsorted(weights, weights[-1] / 2)] if weights[-1] > 0 else 0.0
        return cls(float(median), max(float(np.percentile(strength, _PERCENTILE)), 1e-6))


def speed_colors(places: np.ndarray) -> np.ndarray:
    """Colors of places from 0 (orange) over yellow and green to 1 (blue): float (..., 3) from 0 to 255."""
    return np.stack([np.interp(places, _STOPS, channel) for channel in zip(*_COLORS, strict=True)], axis=-1)


def overlaid(frame_HWC: np.ndarray, local_HW: np.ndarray, strength_HW: np.ndarray, scale: MapScale) -> np.ndarray:
    """The frame, gray, with each place painted by its logit, the more of it the more there is to judge by; uint8 HWC.

    Args:
        local_HW, strength_HW: cells of a map of the whole frame, as ``MapSums.at`` gives them.
    """
    logits_HW = np.clip(local_HW - scale.local, -30, 30)
    colors = _enlarged(speed_colors(1 / (1 + np.exp(-logits_HW))), frame_HWC)
    opacity = _enlarged(255 * MOST_OPACITY * np.clip(strength_HW / scale.strength, 0, 1), frame_HWC)
    frame = Image.fromarray(frame_HWC)
    base = Image.blend(frame.convert("L").convert("RGB"), frame, 0.5)
    return np.asarray(Image.composite(colors, base, opacity))


def _enlarged(cells: np.ndarray, frame_HWC: np.ndarray) -> Image.Image:
    """Values of cells from 0 to 255 as a picture of the frame's size."""
    return Image.fromarray(cells.round().astype(np.uint8)).resize(frame_HWC.shape[1::-1], Image.Resampling.BICUBIC)
