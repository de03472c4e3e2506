"""Where a video is cut: pure arithmetic on how much each frame differs from the one before.

A cut is one large difference among small ones; fast motion, and frames that were dropped or doubled, are many. So a frame begins a shot
where it differs from the one before by ``LEAST`` gray levels and ``RATIO`` times as much as any of its neighbors, ``NEIGHBORS`` to
each side. The adaptive detector of PySceneDetect (github.com/Breakthrough/PySceneDetect) compares alike.

Differs: it takes the mean of two neighbors to each side, which finds a cut at every dropped frame; it looks at hue, saturation and
value. Here shots are at least as long as the neighborhood, and a dissolve is not found.
"""

from __future__ import annotations

import numpy as np

RATIO, LEAST, NEIGHBORS = 2.0, 15.0, 8


def shot_starts(changes_T: np.ndarray) -> np.ndarray:
    """The number of the first frame of every shot, int64, rising from 0.

    Args:
        changes_T: mean absolute difference of each frame from the one before, in gray levels of 0 to 255; that of the first is 0.
    """
    changes_T = np.asarray(changes_T, np.float64)
    padded = np.pad(changes_T, NEIGHBORS)
    around_TN = np.lib.stride_tricks.sliding_window_view(padded, 2 * NEIGHBORS + 1)
    largest_beside_T = np.delete(around_TN, NEIGHBORS, axis=1).max(axis=1)
    is_cut_T = (changes_T >= LEAST) & (changes_T >= RATIO * largest_beside_T)
    return np.union1d([0], np.flatnonzero(is_cut_T)).astype(np.int64)
