"""How well joints are followed: PCK of JHMDB (Yang and Ramanan 2013; Jhuang et al., ICCV 2013)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ssvid.errors import DataError

PCK_FRACTIONS = (0.1, 0.2, 0.3, 0.4, 0.5)
BOX_SHARE = 0.6  # of the diagonal of the box around the joints: the size of a person


class KeypointCounts(NamedTuple):
    """What became of the joints of one sequence. right_FJ: how often each was near enough, for each fraction. total_J: how
    often it was scored. Both int64.
    """

    right_FJ: np.ndarray
    total_J: np.ndarray


class PCK(NamedTuple):
    """Percentage of correct keypoints, as shares. mean_F: mean over joints, for each fraction. joints_FJ: of each joint; NaN
    where it was never scored.
    """

    mean_F: np.ndarray
    joints_FJ: np.ndarray


def count_keypoints(
    truth_TJ2: np.ndarray,
    found_TJ2: np.ndarray,
    visible_TJ: np.ndarray,
    *,
    fractions: Sequence[float] = PCK_FRACTIONS,
    given: int = 0,
) -> KeypointCounts:
    """Count the joints of one sequence that were found near enough.

    Near enough is a distance of at most a fraction of ``person_sizes``. Frames up to the given one are not scored.

    Differs: videowalk leaves a joint out of the frames in which its map has become zero everywhere. Here a joint that was lost
    (NaN) is wrong. Hand ``visible_TJ & np.isfinite(found_TJ2).all(axis=2)`` to do as videowalk does.

    Args:
        truth_TJ2, found_TJ2: x and y in pixels; NaN where unknown.
        visible_TJ: bool; what is not visible is neither scored nor part of the box.
        fractions: of the size of the person.
        given: frame whose joints were given.

    Raises:
        DataError: the shapes do not fit, or a visible joint has no place.
    """
    truth, found, visible = np.asarray(truth_TJ2, float), np.asarray(found_TJ2, float), np.asarray(visible_TJ, bool)
    if truth.shape != found.shape or truth.shape != (*visible.shape, 2):
        raise DataError(
            f"joints found of shape {found.shape}, true ones of {truth.shape} and visible ones of {visible.shape} do not fit: "
            "they must be (frames, joints, 2), twice, and (frames, joints). Give all of the same frames and joints."
        )
    if not np.isfinite(truth[visible]).all():
        raise DataError("a joint is visible and has no place. Mark it as not visible, or give its place.")
    distances = np.linalg.norm(found - truth, axis=2)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative_TJ = distances / person_sizes(truth, visible)[:, None]
    scored_TJ = visible.copy()
    scored_TJ[: given + 1] = False
    right = [((relative_TJ <= fraction) & scored_TJ).sum(axis=0) for fraction in fractions]
    return KeypointCounts(np.array(right, dtype=np.int64), scored_TJ.sum(axis=0, dtype=np.int64))


def person_sizes(truth_TJ2: np.ndarray, visible_TJ: np.ndarray) -> np.ndarray:
    """0.6 of the diagonal of the box around the visible joints of each frame, in pixels; 0 with fewer than two joints."""
    low, high = (
        fold(np.where(visible_TJ[..., None], truth_TJ2, blank), axis=1)
        for fold, blank in ((np.min, np.inf), (np.max, -np.inf))
    )
    spans = np.where(visible_TJ.any(axis=1, keepdims=True), high - low, 0.0)
    return BOX_SHARE * np.hypot(spans[:, 0], spans[:, 1])


def pck(counts: Sequence[KeypointCounts]) -> PCK:
    """PCK over sequences: of each joint over all frames of all sequences, then the mean over joints.

    It is no mean of sequences: an interval draws sequences anew and sums again. A joint that was never scored is left out.

    Raises:
        DataError: no joint was scored.
    """
    right_FJ = np.sum([one.right_FJ for one in counts], axis=0, dtype=np.float64)
    total_J = np.sum([one.total_J for one in counts], axis=0, dtype=np.float64)
    if not np.any(total_J):
        raise DataError(
            "no joint was scored: none is visible after the given frame. Check the joints of the sequences."
        )
    joints_FJ = np.divide(right_FJ, total_J, out=np.full(right_FJ.shape, np.nan), where=total_J > 0)
    return PCK(np.nanmean(joints_FJ, axis=1), joints_FJ)
