"""What measured flow says and how exactly: the settings it is measured with, and motion as 8-bit levels.

A flow frame is uint8 HW2: u to the right and v down, each as 128 + 127 x / bound, rounded, x cut to [-bound, bound] pixels
of the stored size. So 128 is no motion, 0 never occurs, 256 - level is the opposite motion exactly, and the error of a value
within the bound is at most bound / 254. Two-stream networks (Simonyan & Zisserman 2014) and TSN keep flow in 8 bits, too.
Nothing here imports torch, OpenCV or a decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from ssvid.bounds import AtLeast, OneOf
from ssvid.errors import did_you_mean
from ssvid.types import NO_MOTION

# Each is a name of ``ssvid.video.optical_flow.estimator``.
METHODS = ("dis", "raft_small", "raft_large")
LEVELS = 127  # to either side of that of no motion
SYMMETRIC = "symmetric"  # in the name of a measurement


@dataclass(frozen=True)
class FlowSettings:
    """How flow is measured and kept, and what is read of it.

    method: "dis" (Dense Inverse Search, OpenCV's preset MEDIUM), or torchvision's "raft_small" or "raft_large".
    short_side_px: of the frames that flow is measured on and kept for. bound_px: motion is cut to so many pixels of that size to
        either side and kept in 8 bits, with an error of at most bound_px / 254; 0 is TSN's bound, 20 at 256 px, in proportion.
    subtract_mean: from each frame of flow its mean over the frame when it is read, which takes a moving camera out in part
        (Simonyan & Zisserman 2014, section 3.1); the same measurement serves both.
    symmetric: the motion of a frame is the mean of that to the next frame and the opposite of that to the one before, both as
        seen from the frame itself. The flow of the reversed video is then the opposite flow in reverse, exactly; otherwise
        each motion is seen from its first frame, and errors where something is covered tell which frame that was.
    """

    method: Annotated[str, OneOf(*METHODS)] = "dis"
    short_side_px: Annotated[int, AtLeast(16)] = 128
    bound_px: Annotated[float, AtLeast(0)] = 0.0
    subtract_mean: bool = False
    symmetric: bool = False

    @property
    def most_px(self) -> float:
        """The bound: no more motion than this is kept."""
        return self.bound_px or self.short_side_px * 20 / 256

    @property
    def measurement(self) -> str:
        """The name of what is measured: settings that only matter when it is read are not in it."""
        return f"{self.method}-{self.short_side_px}px-{self.most_px:g}" + f"-{SYMMETRIC}" * self.symmetric

    @property
    def text(self) -> str:
        """The settings as a table writes them: ``dis-128px-10``, and ``+centered`` where the mean is subtracted."""
        return self.measurement + "+centered" * self.subtract_mean

    @classmethod
    def parse(cls, text: str) -> FlowSettings:
        """The inverse of ``text``.

        Raises:
            ValueError: it is no such text.
        """
        measurement, plus, centered = text.partition("+")
        method, short, bound, *more = [*measurement.split("-"), "", ""]
        try:
            settings = cls(method, int(short.removesuffix("px")), float(bound), bool(plus), SYMMETRIC in more)
        except ValueError:
            settings = None
        if (
            settings is None
            or settings.method not in METHODS
            or settings.text != text
            or centered not in ("", "centered")
        ):
            raise ValueError(
                f"flow ({text!r}) must name a measurement, such as {cls().text}. {did_you_mean(method, METHODS)}"
            )
        return settings

    @property
    def step_px(self) -> float:
        """Motion of one level, in pixels of the stored size."""
        return self.most_px / LEVELS

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the flow of a video with frames of that size."""
        return short_side_at(height, width, self.short_side_px)


def short_side_at(height: int, width: int, short_px: int) -> tuple[int, int]:
    """Height and width of a frame whose short side is brought to ``short_px``."""
    scale = short_px / min(height, width)
    return max(short_px, round(height * scale)), max(short_px, round(width * scale))


# ---- levels


def to_levels(flow_HW2: np.ndarray, bound_px: float) -> np.ndarray:
    """Motion in pixels as uint8 levels, each within bound_px / 254 of it where it is within the bound."""
    steps = np.rint(flow_HW2 * (LEVELS / bound_px))
    return np.asarray(np.clip(np.nan_to_num(steps), -LEVELS, LEVELS) + NO_MOTION).astype(np.uint8)


def to_pixels(levels: np.ndarray, bound_px: float) -> np.ndarray:
    """Levels as motion in pixels, float32."""
    return (levels.astype(np.float32) - NO_MOTION) * np.float32(bound_px / LEVELS)


def centered(levels_HW2: np.ndarray) -> np.ndarray:
    """The levels of a frame without the mean motion of its pixels, rounded and cut to what there is."""
    steps = levels_HW2.astype(np.float64) - NO_MOTION
    without = np.rint(steps - steps.mean(axis=(0, 1)))
    return (np.clip(without, -LEVELS, LEVELS) + NO_MOTION).astype(np.uint8)
