"""How well masks are followed: region similarity J, contour accuracy F, and the mean IoU of parts.

J and F are those of DAVIS (Perazzi et al., CVPR 2016, section 3; Pont-Tuset et al., arXiv 1704.00675), and agree with the
official program ``davis2017-evaluation`` to rounding. Mean IoU is that of VIP (Zhou et al., arXiv 1808.00397).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ssvid.errors import DataError

BOUNDARY_TOLERANCE = 0.008  # of the diagonal of the frame, rounded up to whole pixels
RECALL_ABOVE = 0.5
CONVENTIONS = ("2017", "2016")
_NUM_BINS = 4  # the first and the last of which tell the decay


# ---- one mask of one frame


def jaccard(truth_HW: np.ndarray, found_HW: np.ndarray, void_HW: np.ndarray | None = None) -> float:
    """Region similarity J: the intersection of two masks over their union. It is 1 where both are empty.

    Args:
        truth_HW, found_HW: of one object; whatever is not 0 belongs to it.
        void_HW: pixels that count for nothing; none where None.
    """
    truth, found = _masks(truth_HW, found_HW, void_HW)
    union = np.count_nonzero(truth | found)
    return np.count_nonzero(truth & found) / union if union else 1.0


def boundary_f(
    truth_HW: np.ndarray,
    found_HW: np.ndarray,
    void_HW: np.ndarray | None = None,
    *,
    tolerance: float = BOUNDARY_TOLERANCE,
) -> float:
    """Contour accuracy F: the harmonic mean of how much of each contour lies near the other one.

    Near is a distance of at most ``tolerance_px``. F is 1 where neither mask has a contour, and 0 where only one has.

    Args:
        truth_HW, found_HW: of one object; whatever is not 0 belongs to it.
        void_HW: pixels that count as background in both; none where None.
        tolerance: share of the frame's diagonal, above 0.
    """
    radius_px = tolerance_px(truth_HW.shape, tolerance)
    truth, found = (boundary_map(mask) for mask in _around_both(*_masks(truth_HW, found_HW, void_HW)))
    num_truth, num_found = np.count_nonzero(truth), np.count_nonzero(found)
    if not num_truth or not num_found:
        return float(num_truth == num_found)
    precision = np.count_nonzero(found & dilated(truth, radius_px)) / num_found
    recall = np.count_nonzero(truth & dilated(found, radius_px)) / num_truth
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def tolerance_px(size: tuple[int, ...], tolerance: float = BOUNDARY_TOLERANCE) -> int:
    """How far a contour may be off: a share of the diagonal of a frame of (height, width), rounded up. 8 at 480p."""
    return math.ceil(tolerance * math.hypot(*size))


def boundary_map(mask_HW: np.ndarray) -> np.ndarray:
    """Where a mask differs from its neighbor to the right, below, or both: contours of one pixel.

    Contours lie half a pixel up and left of where they are, and the edge of the frame is none (Martin, 2003).
    """
    mask = mask_HW.astype(bool, copy=False)
    edge = np.zeros(mask.shape, dtype=bool)
    np.not_equal(mask[:, :-1], mask[:, 1:], out=edge[:, :-1])
    edge[:-1] |= mask[:-1] != mask[1:]
    edge[:-1, :-1] |= mask[:-1, :-1] != mask[1:, 1:]
    return edge


def dilated(mask_HW: np.ndarray, radius_px: int) -> np.ndarray:
    """All pixels whose distance to one of the mask is at most the radius: dilation with a disk.

    A disk is a pile of horizontal runs, and one is as long as the next but for a few pixels: each grows out of the last.
    """
    height, width = mask_HW.shape
    pad = radius_px
    run = np.zeros((height, width + 2 * pad), dtype=bool)
    run[:, pad : pad + width] = mask_HW
    found = np.zeros((height + 2 * pad, width + 2 * pad), dtype=bool)
    half_px = 0
    for dy in range(radius_px, -1, -1):
        longer_px = math.isqrt(radius_px**2 - dy**2)
        for _ in range(longer_px - half_px):
            wider = run.copy()
            wider[:, 1:] |= run[:, :-1]
            wider[:, :-1] |= run[:, 1:]
            run = wider
        half_px = longer_px
        for offset in {dy, -dy}:
            found[pad + offset : pad + offset + height] |= run
    return found[pad : pad + height, pad : pad + width]


def _masks(truth_HW: np.ndarray, found_HW: np.ndarray, void_HW: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    _check_sizes(truth_HW, found_HW)
    truth, found = (mask.astype(bool, copy=False) for mask in (truth_HW, found_HW))
    if void_HW is None:
        return truth, found
    _check_sizes(truth_HW, void_HW)
    scored = np.logical_not(void_HW)
    return truth & scored, found & scored


def _check_sizes(truth_HW: np.ndarray, found_HW: np.ndarray) -> None:
    if truth_HW.shape != found_HW.shape or truth_HW.ndim != 2:
        raise DataError(
            f"a mask of {' x '.join(map(str, found_HW.shape))} (height x width) cannot be scored on one of "
            f"{' x '.join(map(str, truth_HW.shape))}. Resize it, by nearest neighbor, to the size of the truth."
        )


def _around_both(truth_HW: np.ndarray, found_HW: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both cut to where one of them is, and a pixel more: nothing outside can be a contour."""
    either = truth_HW | found_HW
    rows, columns = (np.flatnonzero(either.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return truth_HW[:0], found_HW[:0]
    box = np.s_[max(rows[0] - 1, 0) : rows[-1] + 2, max(columns[0] - 1, 0) : columns[-1] + 2]
    return truth_HW[box], found_HW[box]


# ---- all objects of one frame


class FrameScores(NamedTuple):
    """J and F of each object in one frame. jaccard_K, boundary_K: float64, in [0, 1], in the order of the ids."""

    jaccard_K: np.ndarray
    boundary_K: np.ndarray


def frame_scores(
    truth_HW: np.ndarray,
    found_HW: np.ndarray,
    ids: Sequence[int],
    *,
    void: int | None = 255,
    united: bool = False,
) -> FrameScores:
    """J and F of one frame. An object that was not found anywhere has an empty mask.

    Args:
        truth_HW, found_HW: ids of objects, 0 where there is none.
        ids: of the objects that are scored.
        void: the id in the truth of pixels that count for nothing; None where there is no such id.
        united: score one mask, of all objects together (DAVIS 2016), in place of one for each.
    """
    void_HW = None if void is None else truth_HW == void
    if void_HW is not None and not void_HW.any():
        void_HW = None
    groups = [tuple(ids)] if united else [(i,) for i in ids]
    masks = [(_any_of(truth_HW, group), _any_of(found_HW, group)) for group in groups]
    return FrameScores(
        np.array([jaccard(truth, found, void_HW) for truth, found in masks]),
        np.array([boundary_f(truth, found, void_HW) for truth, found in masks]),
    )


def _any_of(ids_HW: np.ndarray, group: Sequence[int]) -> np.ndarray:
    return ids_HW == group[0] if len(group) == 1 else np.isin(ids_HW, group)


def scored_frames(num_frames: int, given: int = 0) -> range:
    """The frames that DAVIS scores: from the one after the given mask to the last but one.

    Args:
        given: frame in which the object was given; what went before is not scored.
    """
    return range(given + 1, num_frames - 1)


# ---- all frames of an object, and all objects


class Summary(NamedTuple):
    """Of a measure over frames: its mean, the share of frames above 0.5, and how much is lost from the first quarter of the
    frames to the last one.
    """

    mean: float
    recall: float
    decay: float


class ObjectScores(NamedTuple):
    """J and F of one object in the frames that are scored, in order. id: 0 where all objects are united."""

    sequence: str
    id: int
    jaccard_T: np.ndarray
    boundary_T: np.ndarray

    @property
    def name(self) -> str:
        """``sequence/object``."""
        return f"{self.sequence}/{self.id}"

    @property
    def jf(self) -> float:
        """The mean of both means."""
        return (summarize(self.jaccard_T).mean + summarize(self.boundary_T).mean) / 2


class DavisScores(NamedTuple):
    """J and F of a benchmark. jf: J&F, the mean of both means."""

    jf: float
    jaccard: Summary
    boundary: Summary


def summarize(values_T: np.ndarray) -> Summary:
    """Mean, recall and decay as the official program has them. NaN where no frame is scored.

    The quarters overlap by a frame: the first frame of the last one is the last frame of the third.
    Differs: positions of frames are not kept in 8 bits, so that sequences of more than 256 frames have a decay.
    """
    values = np.asarray(values_T, dtype=np.float64)
    if not values.size:
        return Summary(math.nan, math.nan, math.nan)
    edges = (np.round(np.linspace(1, values.size, _NUM_BINS + 1) + 1e-10) - 1).astype(int)
    first, last = values[: edges[1] + 1], values[edges[-2] :]
    return Summary(float(values.mean()), float((values > RECALL_ABOVE).mean()), float(first.mean() - last.mean()))


def davis_scores(objects: Iterable[ObjectScores], convention: str = "2017") -> DavisScores:
    """The benchmark's J&F, J and F: each the mean over objects of what ``summarize`` says of an object.

    Args:
        convention: "2017": every object counts the same, whichever sequence it is in. "2016": every sequence counts the same;
            its objects must have been united.

    Raises:
        DataError: no object has a frame that is scored, or a sequence has several masks in the convention of 2016.
    """
    if convention not in CONVENTIONS:
        raise DataError(f"the convention of DAVIS ({convention!r}) must be one of {', '.join(CONVENTIONS)}.")
    scored = [one for one in objects if len(one.jaccard_T)]
    if not scored:
        raise DataError(
            "no sequence has a frame to score: the first and the last are left out. Use sequences of three frames or more."
        )
    if convention == "2016" and len({one.sequence for one in scored}) < len(scored):
        raise DataError("DAVIS 2016 scores one mask of a sequence. Unite its objects: frame_scores(..., united=True).")
    jaccard_, boundary = (
        Summary(*np.mean([summarize(getattr(one, name)) for one in scored], axis=0).tolist())
        for name in ("jaccard_T", "boundary_T")
    )
    return DavisScores((jaccard_.mean + boundary.mean) / 2, jaccard_, boundary)


# ---- parts


def confusion(
    truth_HW: np.ndarray, found_HW: np.ndarray, num_classes: int, *, ignored: Collection[int] = ()
) -> np.ndarray:
    """How many pixels of each class (row) were taken for which (column): int64 of (num_classes, num_classes).

    Classes are numbered from 0. Pixels whose true class is not below ``num_classes``, void for one, count for nothing.

    Args:
        ignored: more true classes that count for nothing.

    Raises:
        DataError: the sizes differ, or a class was found that does not exist.
    """
    _check_sizes(truth_HW, found_HW)
    scored = (truth_HW >= 0) & (truth_HW < num_classes)
    for label in ignored:
        scored &= truth_HW != label
    truth, found = truth_HW[scored].astype(np.int64), found_HW[scored].astype(np.int64)
    if found.size and not 0 <= found.min() <= found.max() < num_classes:
        raise DataError(
            f"class {found.max() if found.max() >= num_classes else found.min()} was found, and there are {num_classes}: "
            f"classes must be from 0 to {num_classes - 1}. Give the number of classes of the data set."
        )
    return np.bincount(num_classes * truth + found, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_ious(confusion_KK: np.ndarray) -> np.ndarray:
    """Intersection over union of each class; NaN for a class that is neither there nor found."""
    right_K = np.diag(confusion_KK).astype(np.float64)
    union_K = confusion_KK.sum(axis=0) + confusion_KK.sum(axis=1) - right_K
    return np.divide(right_K, union_K, out=np.full(right_K.shape, np.nan), where=union_K > 0)


def mean_iou(confusions_SKK: np.ndarray) -> float:
    """Mean over classes of their IoU, from one confusion of all pixels of all sequences: it is no mean of sequences.

    A class that is neither there nor found is left out. VIP counts frame 0, whose labels are given, among the rest: make
    confusions with it for the published number, and without it for what was followed.

    Args:
        confusions_SKK: of each sequence, as ``confusion`` counts them; an interval draws sequences anew and sums again.

    Raises:
        DataError: no pixel was scored.
    """
    ious_K = class_ious(np.asarray(confusions_SKK).sum(axis=0))
    if np.isnan(ious_K).all():
        raise DataError("no pixel was scored: the truth holds no class. Check the labels of the sequences.")
    return float(np.nanmean(ious_K))
