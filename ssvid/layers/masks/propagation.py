"""From a few painted masks to one of every frame: carried along flow, cut anew in each frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssvid.errors import DataError
from ssvid.layers.masks.cutting import cut_by_mask
from ssvid.layers.motion import grid_px
from ssvid.progress import Progress
from ssvid.video.optical_flow import Dis, one_thread, require_opencv, resized

WORK_PX = 180  # short side on which masks are carried: flow and colors of a larger frame cost more and tell no more
_BAND_SHARE = 1 / 80  # of the short side: how far from the edge of a carried mask its colors are asked
_KEPT = 0.4  # share of a pixel that must have come from the object


def propagate(
    frames_THWC: np.ndarray,
    painted: Mapping[int, np.ndarray],
    told: Progress = lambda done, total: None,
    *,
    absent_is_known: bool = False,
) -> np.ndarray:
    """The masks of all frames, bool (N, T, H, W), from those of some.

    A frame takes the mask of an object from the painted one nearest in time: frame by frame along Dense Inverse Search flow, then cut
    by GrabCut, which keeps errors from adding up. Painted masks stay as they are. Objects do not overlap: where two claim a pixel, the
    first of them has it.

    Args:
        frames_THWC: uint8 RGB, of any size. painted: frame -> bool (N, H, W), N objects in the order front to back.
        absent_is_known: whether an object that a painted frame lacks is not there; else nothing is known of it in that frame.

    Raises:
        DataError: nothing is painted, or a painted frame is not there. SsvidError: OpenCV is not installed.
    """
    num_frames, height, width = frames_THWC.shape[:3]
    _check_painted(painted, num_frames)
    scale = min(1.0, WORK_PX / min(height, width))
    work = (round(height * scale), round(width * scale))
    carrier = _Carrier(np.stack([resized(frame_HWC, *work) for frame_HWC in frames_THWC]))
    count = len(next(iter(painted.values())))
    masks_NTHW = np.zeros((count, num_frames, height, width), bool)
    for number, own_THW in enumerate(masks_NTHW):
        known = {t: masks[number] for t, masks in painted.items() if absent_is_known or masks[number].any()}
        for t, mask_HW in _carried(carrier, known, num_frames, work).items():
            own_THW[t] = known[t] if t in known else _sized(mask_HW, height, width)
        own_THW &= ~masks_NTHW[:number].any(axis=0)
        told(number + 1, count)
    return masks_NTHW


def _carried(
    carrier: _Carrier, known: Mapping[int, np.ndarray], num_frames: int, work: tuple[int, int]
) -> dict[int, np.ndarray]:
    """Frame -> the mask of one object, bool HW at the size ``work``; {} where nothing is known of it."""
    if not known:
        return {}
    sources = sorted(known)
    found = {t: _sized(known[t], *work) for t in sources}
    for t in sorted((t for t in range(num_frames) if t not in known), key=lambda t: _way(t, sources)[1]):
        source, _ = _way(t, sources)
        before = t - 1 if source < t else t + 1
        found[t] = carrier.carry(found[before], before, t)
    return found


def _check_painted(painted: Mapping[int, np.ndarray], num_frames: int) -> None:
    if not painted:
        raise DataError("no mask is given: at least one frame must be painted.")
    if outside := [t for t in painted if not 0 <= t < num_frames]:
        raise DataError(
            f"a mask is given for frame {outside[0]}, and there are frames 0 to {num_frames - 1}. Give it for one of these."
        )


def _way(t: int, sources: list[int]) -> tuple[int, int]:
    """The nearest painted frame, the earlier of two, and how far it is."""
    return min(((source, abs(source - t)) for source in sources), key=lambda way: (way[1], way[0]))


def _sized(mask_HW: np.ndarray, height: int, width: int) -> np.ndarray:
    sized: np.ndarray = resized(mask_HW.astype(np.float32), height, width) >= 0.5
    return sized


class _Carrier:
    """A mask of one frame of a clip -> that of a neighbor."""

    def __init__(self, frames_THWC: np.ndarray) -> None:
        self._frames_THWC, self._search = frames_THWC, Dis()
        self._flows: dict[tuple[int, int], np.ndarray] = {}
        self._grid_HW2 = grid_px(*frames_THWC.shape[1:3])
        self._band_px = max(1, round(min(frames_THWC.shape[1:3]) * _BAND_SHARE))

    def carry(self, mask_HW: np.ndarray, before: int, after: int) -> np.ndarray:
        """The mask of frame ``after`` from that of its neighbor ``before``."""
        if not mask_HW.any():
            return mask_HW
        if (after, before) not in self._flows:
            self._flows[after, before] = self._search.of_colors(self._frames_THWC[after], self._frames_THWC[before])
        rough_HW = warped(mask_HW, self._grid_HW2 + self._flows[after, before]) >= _KEPT
        return cut_by_mask(self._frames_THWC[after], rough_HW, self._band_px)


def warped(mask_HW: np.ndarray, from_HW2: np.ndarray) -> np.ndarray:
    """The mask as another frame sees it, float32 HW in [0, 1]: each of its pixels comes from ``from_HW2`` (x, y); 0 from outside."""
    cv2: Any = require_opencv()
    with one_thread(cv2):
        moved: np.ndarray = cv2.remap(
            mask_HW.astype(np.float32), from_HW2[..., 0], from_HW2[..., 1], cv2.INTER_LINEAR, borderValue=0.0
        )
    return moved
