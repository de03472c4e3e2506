"""The values of pictures: which of them a video uses, and how gray of more than 8 bits becomes 8 bits."""

from __future__ import annotations

import numpy as np

# A video is said to use a small part of its range where nearly all its values are within so many of 256.
FEW_VALUES = 64


def gray_levels(low: int, high: int) -> np.ndarray:
    """For each value of 16 bits the nearest one of 8, from 0 at ``low`` to 255 at ``high``."""
    values = np.arange(2**16, dtype=np.float64)
    return np.clip(np.rint((values - low) * 255 / (high - low)), 0, 255).astype(np.uint8)


class ValueRange:
    """Which values the pictures of a video use, from a sample of its pixels."""

    _EVERY_FRAMES, _EVERY_PIXELS = 8, 8
    _LEFT_OUT = 0.01  # at either end: a caption, a dead pixel

    def __init__(self) -> None:
        self._counts = np.zeros(256, np.int64)
        self._num_frames = 0

    def add(self, pixels_HWC: np.ndarray) -> None:
        """Take the next frame of the video."""
        # The first frames all: there may be no others.
        if self._num_frames < self._EVERY_FRAMES or self._num_frames % self._EVERY_FRAMES == 0:
            sample = pixels_HWC[:: self._EVERY_PIXELS, :: self._EVERY_PIXELS]
            self._counts += np.bincount(sample.ravel(), minlength=256)
        self._num_frames += 1

    def of_nearly_all(self) -> tuple[int, int]:
        """The values between which 98 % of all lie."""
        share = np.cumsum(self._counts) / max(self._counts.sum(), 1)
        low, high = np.searchsorted(share, [self._LEFT_OUT, 1 - self._LEFT_OUT])
        return int(low), int(high)

    def note(self, bits: int, *, is_deep_gray: bool, is_stretched: bool) -> str:
        """What is to be said where nearly all values lie in a small part of the range, or "".

        bits: of the video's own values. is_deep_gray: it is gray of more than 8 bits. is_stretched: by a ``gray_range``.
        """
        low, high = self.of_nearly_all()
        if high - low >= FEW_VALUES:
            return ""
        cut = f" (of its {bits} bits the upper 8 are kept)" if bits > 8 else ""
        if is_deep_gray:
            step = 1 << bits - 8
            found = f"--gray-range {max(low * step - step // 2, 0)} {high * step + step // 2 - 1} stretches them"
            cut = f"{cut[:-1]}, {found})" if not is_stretched else ""
        return f"nearly all values lie between {low} and {high} of 255{cut}"
