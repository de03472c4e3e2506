"""From a video's own times to an even beat, and to versions of it that are played faster: pure arithmetic on frame numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_EARLY = (
    0.25  # of a beat: a frame that comes so little after it is the one that is seen there; containers round their times
)


@dataclass(frozen=True)
class Timeline:
    """A video at an even rate: which frame is seen at each beat. Networks know frames alone; their rate must not waver.

    frames_N: int64, rising; a frame that stays long comes again, one that is passed over is missing. fps: beats per second.
    places_T: at which beat each frame begins, a fraction where it begins between two.
    """

    frames_N: np.ndarray
    fps: float
    places_T: np.ndarray

    def __len__(self) -> int:
        return len(self.frames_N)

    @classmethod
    def even(cls, num_frames: int, fps: float) -> Timeline:
        """Of a video whose frames come evenly: a beat for each."""
        return cls(np.arange(num_frames), fps, np.arange(num_frames, dtype=np.float64))

    @classmethod
    def of_times(cls, seconds_T: np.ndarray, fps: float) -> Timeline:
        """Of frames that begin at these times: from the first frame's to the last one's, so many beats per second."""
        places_T = (np.asarray(seconds_T, np.float64) - seconds_T[0]) * fps
        beats_N = np.arange(int(np.floor(places_T[-1] + _EARLY)) + 1)
        return cls(np.searchsorted(places_T, beats_N + _EARLY, side="right") - 1, fps, places_T)


def version(num_beats: int, factor: float) -> np.ndarray:
    """The beats that are left where a video is played ``factor`` times as fast: floor(j * factor), int64.

    SpeedNet (Benaim et al., CVPR 2020), section 5.
    """
    count = int(np.floor((num_beats - 1) / factor + 1e-9)) + 1
    return np.floor(np.arange(count) * factor + 1e-9).astype(np.int64)


def window_starts(count: int, window: int, hop: int) -> np.ndarray:
    """Where windows of ``window`` beats begin, every ``hop`` beats, and one that ends with the last beat; none in fewer beats."""
    if count < window:
        return np.zeros(0, np.int64)
    return np.unique([*range(0, count - window + 1, hop), count - window])


def curve_at(
    starts: np.ndarray, values: np.ndarray, window: int, places_T: np.ndarray, factor: float = 1.0
) -> np.ndarray:
    """A value for each place from one value for each window: that of a window stands in its middle, between middles values go
    over evenly, and the first and the last one reach to the ends. Float64 (T,).

    Args:
        starts: of windows in a version ``factor`` times as fast. window: beats of that version. places_T: beats of the video.
    """
    middles = (np.asarray(starts) + (window - 1) / 2) * factor
    return np.interp(places_T, middles, values)


def averaged_at(
    starts: np.ndarray, values: np.ndarray, window: int, places_T: np.ndarray, factor: float = 1.0
) -> np.ndarray:
    """The same as the mean over all windows in which a place lies: smoother, and blind to what is shorter than a window.

    Args:
        as ``curve_at``. Windows must reach from the first to the last beat.
    """
    starts = np.asarray(starts)
    firsts, lasts = starts * factor, (starts + window - 1) * factor
    inside_T = np.clip(places_T, firsts[0], lasts[-1])
    sums = np.concatenate([[0.0], np.cumsum(values)])
    begun_T = np.searchsorted(firsts, inside_T + 1e-9, side="right")
    ended_T = np.searchsorted(lasts, inside_T - 1e-9, side="left")
    between_T = begun_T <= ended_T  # a place that falls between two windows takes the value at it of ``curve_at``
    counts_T = np.where(between_T, 1, begun_T - ended_T)
    means_T = (sums[begun_T] - sums[ended_T]) / counts_T
    return np.where(between_T, curve_at(starts, values, window, places_T, factor), means_T)
