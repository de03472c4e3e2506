"""Colors of whole clips: one draw for all frames, so that nothing flickers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor


class Jitter(NamedTuple):
    """How the colors of one clip change. brightness, contrast, saturation: factors; hue: in turns, [-0.5, 0.5].

    order: in which of the four come after one another, by their position here.
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float
    order: tuple[int, ...] = (0, 1, 2, 3)


def random_jitter(strengths: Sequence[float], probability: float, rng: np.random.Generator) -> Jitter | None:
    """A draw of color jitter; None where the clip stays as it is.

    Args:
        strengths: of brightness, contrast, saturation (factor uniform in [max(0, 1 - s), 1 + s]) and hue (uniform in
            [-s, s]). probability: of any change at all.
    """
    if not any(strengths) or float(rng.random()) >= probability:
        return None
    factors = [float(rng.uniform(max(0.0, 1 - s), 1 + s)) for s in strengths[:3]]
    hue = float(rng.uniform(-strengths[3], strengths[3]))
    return Jitter(factors[0], factors[1], factors[2], hue, tuple(int(i) for i in rng.permutation(4)))


def jitter_clip(clip_CTHW: Tensor, jitter: Jitter | None) -> Tensor:
    """The clip, float in [0, 1], with its colors changed alike in all frames; contrast is about each frame's mean."""
    if jitter is None:
        return clip_CTHW
    frames_TCHW = clip_CTHW.transpose(0, 1)
    from torchvision.transforms.v2 import functional as pixels  # here: importing it takes seconds

    changes = (pixels.adjust_brightness, pixels.adjust_contrast, pixels.adjust_saturation, pixels.adjust_hue)
    unchanged = (1.0, 1.0, 1.0, 0.0)
    for number in jitter.order:
        if jitter[number] != unchanged[number]:
            frames_TCHW = changes[number](frames_TCHW, jitter[number])
    return frames_TCHW.transpose(0, 1)
