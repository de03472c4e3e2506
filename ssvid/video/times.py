"""When the frames of a file are shown: seconds to frames and back, by time stamps and never by the rate."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

# A time as people and containers round it may lie so much before a frame that it means: a part of the usual interval.
# Clocks that are coarse beside it (milliseconds in Matroska) round by half of their unit.
_ROUNDED_DECIMALS = 1e-6
_MOST_CLOCK_ROUNDING = 0.02
# A last frame that is said to stay so many usual intervals stays; below that, containers merely guess.
_LONG_FRAME = 2.5


@dataclass(frozen=True)
class FrameTimes:
    """The time of every frame of a file.

    Seconds count from the zero of the file's own time line, as players show them: a picture that begins two seconds after
    the sound begins at 2 s. Where the container's clock may start anywhere (MPEG-TS and PS, tapes), they count from its
    first time stamp.

    pts: int64 (F,), rising, in units of ``unit`` seconds, from that zero. end: when the last frame ends, likewise.
    """

    pts: np.ndarray
    end: int
    unit: Fraction

    @property
    def seconds(self) -> np.ndarray:
        """When each frame begins, float64 (F,)."""
        return self.pts * float(self.unit)

    @property
    def end_seconds(self) -> float:
        """When the last frame ends."""
        return float(self.end * self.unit)

    @property
    def usual_interval(self) -> float:
        """Seconds from a frame to the next, the median."""
        return usual_interval(self.pts, self.end) * float(self.unit)

    def frames_before(self, seconds: float) -> int:
        """How many frames begin before a time; a time that was rounded to just before a frame means that frame."""
        usual, unit = self.usual_interval, float(self.unit)
        rounding = max(
            _ROUNDED_DECIMALS * usual, min(unit / 2, _MOST_CLOCK_ROUNDING * usual) if usual > 4 * unit else 0.0
        )
        return int(np.searchsorted(self.pts, (seconds - rounding) / unit, side="left"))

    def to_text(self) -> str:
        """Exact and short: a few characters where the rate is constant."""
        steps = np.diff(self.pts, prepend=0, append=self.end).astype("<i8").tobytes()
        return f"{self.unit} {base64.b85encode(zlib.compress(steps)).decode()}"

    @classmethod
    def from_text(cls, text: str) -> FrameTimes:
        """What ``to_text`` wrote.

        Raises:
            ValueError: it is none.
        """
        unit, _, steps = text.partition(" ")
        try:
            times = np.cumsum(np.frombuffer(zlib.decompress(base64.b85decode(steps)), "<i8"))
        except zlib.error as cause:
            raise ValueError(f"no frame times: {cause}") from cause
        return cls(times[:-1], int(times[-1]), Fraction(unit))


def usual_interval(pts: np.ndarray, end: int = 0) -> float:
    """The median of the intervals of rising times; of a single frame, how long it stays."""
    return float(np.median(np.diff(pts))) if len(pts) > 1 else float(max(end - int(pts[0]), 1))


def frame_times(pts: Sequence[int | None], last_duration: int, unit: Fraction, zero: int) -> FrameTimes | None:
    """The times of decoded frames; None where they do not all carry one, or not in order.

    Args:
        pts: of every frame, as decoded. last_duration: of the last one, 0 where unknown; all in ``unit`` seconds.
        zero: where the time line of the file begins, in that unit.
    """
    if not pts or any(time is None for time in pts):
        return None
    times = np.array(pts, np.int64)
    if (np.diff(times) <= 0).any():
        return None
    stays = long_last_frame(times, last_duration) or max(
        round(usual_interval(times, int(times[-1]) + last_duration)), 1
    )
    start = min(zero, int(times[0]))  # nothing is shown before zero
    return FrameTimes(times - start, int(times[-1]) + stays - start, unit)


def evenly_spaced(num_frames: int, fps: float) -> FrameTimes:
    """The times of frames that carry none: from 0 on, by the rate."""
    unit = 1 / Fraction(fps)
    return FrameTimes(np.arange(num_frames), num_frames, unit)


def long_last_frame(times: np.ndarray, last_duration: int) -> int:
    """How long the last frame stays, where that is markedly longer than usual; else 0."""
    return last_duration if last_duration > _LONG_FRAME * usual_interval(times) else 0
