"""How well points are followed: position accuracy delta, occlusion accuracy OA and average Jaccard AJ of TAP-Vid.

Doersch et al., arXiv 2211.03726, section 3.3 and appendix; the equations agree with the official ``evaluation_datasets.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ssvid.errors import DataError

TAPVID_THRESHOLDS_PX = (1, 2, 4, 8, 16)
TAPVID_SIZE_PX = 256  # thresholds hold for videos that were resized to a square of that side
QUERY_STRIDE_FRAMES = 5
QUERY_MODES = ("first", "strided")


class Queries(NamedTuple):
    """Points to follow. places_Q3: float64, (frame, y, x). tracks_Q: int64, which track each was taken from."""

    places_Q3: np.ndarray
    tracks_Q: np.ndarray


class TapVidScores(NamedTuple):
    """Of one video, or the means over videos; shares.

    delta: of the points that can be seen, those found within a threshold. oa: of all points, those whose visibility was found.
    aj: both in one. Each is the mean over thresholds of delta_D or jaccard_D (D thresholds). NaN where nothing is visible.
    """

    delta: float
    oa: float
    aj: float
    delta_D: np.ndarray
    jaccard_D: np.ndarray


def make_queries(
    points_TQ2: np.ndarray, visible_TQ: np.ndarray, mode: str, *, stride_frames: int = QUERY_STRIDE_FRAMES
) -> Queries:
    """The points that TAP-Vid asks for.

    Args:
        points_TQ2: x and y in pixels. visible_TQ: bool.
        mode: "first": each track once, in the first frame in which it is visible. "strided": in every
            ``stride_frames``-th frame all tracks that are visible there.

    Raises:
        DataError: an unknown mode, or no track is visible where the mode looks.
    """
    check_mode(mode)
    visible = np.asarray(visible_TQ, dtype=bool)
    if mode == "first":
        tracks = np.flatnonzero(visible.any(axis=0))
        frames = visible[:, tracks].argmax(axis=0)
    else:
        steps, tracks = np.nonzero(visible[::stride_frames])
        frames = steps * stride_frames
    if not len(tracks):
        raise DataError(
            f"no point is visible in a frame that queries ({mode}) are taken from. Check the tracks of the video."
        )
    x_Q, y_Q = np.asarray(points_TQ2, dtype=np.float64)[frames, tracks].T
    return Queries(np.stack([frames.astype(np.float64), y_Q, x_Q], axis=1), tracks.astype(np.int64))


def check_mode(mode: str) -> None:
    """Raise DataError where there is no such mode of queries."""
    if mode not in QUERY_MODES:
        raise DataError(f"the mode of queries ({mode!r}) must be one of {', '.join(QUERY_MODES)}.")


def scored_points(query_frames_Q: np.ndarray, num_frames: int, mode: str) -> np.ndarray:
    """Which points count, as bool TQ: those after the query ("first"), or all but the query ("strided")."""
    check_mode(mode)
    frames_T1 = np.arange(num_frames)[:, None]
    query_Q = np.rint(query_frames_Q).astype(int)
    return frames_T1 > query_Q if mode == "first" else frames_T1 != query_Q


def at_scored_size(points_TQ2: np.ndarray, height_px: int, width_px: int) -> np.ndarray:
    """Points of a video of that size as they lie in one of 256 by 256."""
    return np.asarray(points_TQ2, dtype=np.float64) * (TAPVID_SIZE_PX / np.array([width_px, height_px]))


def tapvid_metrics(
    points_TQ2: np.ndarray,
    visible_TQ: np.ndarray,
    found_TQ2: np.ndarray,
    found_visible_TQ: np.ndarray,
    query_frames_Q: np.ndarray,
    mode: str,
    *,
    thresholds_px: Sequence[float] = TAPVID_THRESHOLDS_PX,
) -> TapVidScores:
    """The metrics of one video; all arrays have one column for each query.

    Args:
        points_TQ2, found_TQ2: x and y, true and found, in pixels of 256 by 256 (``at_scored_size``).
        visible_TQ, found_visible_TQ: bool.
        query_frames_Q: the frame of each query, and mode: how they were made; the query itself never counts.

    Raises:
        DataError: the shapes do not fit, or a visible point has no place.
    """
    truth, found = np.asarray(points_TQ2, dtype=np.float64), np.asarray(found_TQ2, dtype=np.float64)
    visible, found_visible = np.asarray(visible_TQ, dtype=bool), np.asarray(found_visible_TQ, dtype=bool)
    _check_shapes(truth, found, visible, found_visible, np.asarray(query_frames_Q))
    scored = scored_points(np.asarray(query_frames_Q), len(truth), mode)
    squares_TQ = ((found - truth) ** 2).sum(axis=2)
    num_visible = (visible & scored).sum()
    delta_D, jaccard_D = [], []
    for threshold in thresholds_px:
        within = squares_TQ < threshold**2
        right = visible & within & scored
        num_hits = (right & found_visible).sum()
        num_false = (found_visible & scored & ~right).sum()
        delta_D.append(_share(right.sum(), num_visible))
        jaccard_D.append(_share(num_hits, num_visible + num_false))
    oa = _share(((visible == found_visible) & scored).sum(), scored.sum())
    return TapVidScores(float(np.mean(delta_D)), oa, float(np.mean(jaccard_D)), np.array(delta_D), np.array(jaccard_D))


def mean_scores(videos: Sequence[TapVidScores]) -> TapVidScores:
    """The benchmark's numbers: the mean over videos, each of which counts the same.

    A video in which nothing is visible after its queries says nothing about a metric (NaN) and is left out of its mean.

    Raises:
        DataError: there is no video with a number.
    """
    if not videos or any(all(np.isnan(getattr(v, name)) for v in videos) for name in ("delta", "oa", "aj")):
        raise DataError("no video has a point that can be scored. Check the tracks of the videos.")
    delta_D, jaccard_D = (np.nanmean([getattr(v, name) for v in videos], axis=0) for name in ("delta_D", "jaccard_D"))
    delta, oa, aj = (float(np.nanmean([getattr(v, name) for v in videos])) for name in ("delta", "oa", "aj"))
    return TapVidScores(delta, oa, aj, delta_D, jaccard_D)


def _share(part: int, whole: int) -> float:
    return float(part / whole) if whole else math.nan


def _check_shapes(
    truth: np.ndarray, found: np.ndarray, visible: np.ndarray, found_visible: np.ndarray, query_frames: np.ndarray
) -> None:
    shapes = {found.shape, (*visible.shape, 2), (*found_visible.shape, 2)}
    if truth.ndim != 3 or shapes != {truth.shape} or query_frames.shape != truth.shape[1:2]:
        raise DataError(
            f"true points of shape {truth.shape}, found ones of {found.shape}, visibilities of {visible.shape} and "
            f"{found_visible.shape} and {query_frames.shape} frames of queries do not fit. Give one column for each query."
        )
    if not np.isfinite(truth[visible]).all():
        raise DataError("a point is visible and has no place. Mark it as not visible, or give its place.")
