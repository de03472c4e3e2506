"""How good atlases are, pure functions: of colors, of alphas, of correspondences, of the shape of a mapping, of what an atlas holds.

PSNR alone misleads: an atlas with two copies of an object shows every frame well, and an edit of it sticks to half of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.spatial import cKDTree

from ssvid.layers.motion import grid_px
from ssvid.video.optical_flow import one_thread, require_opencv

_HALF = 0.5
_COARSE_LK, _WINDOW_PX = 3, (15, 15)


class Tracks(NamedTuple):
    """Points of one frame in another one. start_N2, end_N2: x, y in px; found_N: bool, where the tracker believes itself."""

    start_N2: np.ndarray
    end_N2: np.ndarray
    found_N: np.ndarray


class Shape(NamedTuple):
    """Of a mapping. stretch: the mean of |log| of both singular values of its derivative, 0 where it turns and shifts; folded: the share
    of pixels at which it is turned over.
    """

    stretch: float
    folded: float


def psnr(found: np.ndarray, true: np.ndarray, where: np.ndarray | None = None) -> float:
    """Of pictures uint8 (..., C), in dB; inf where they are equal.

    Args:
        where: bool (...), the pixels that count; all where it is None.
    """
    errors = np.square(np.subtract(found, true, dtype=np.float64))
    mean = float(np.mean(errors if where is None else errors[where]))
    return float("inf") if mean == 0 else float(10 * np.log10(255**2 / mean))


def alpha_iou(alpha: np.ndarray, mask: np.ndarray) -> float:
    """Intersection over union of where alpha is above a half and a mask, over all frames together."""
    found = alpha > _HALF
    return float((found & mask).sum() / max((found | mask).sum(), 1))


def places_of(uv_px_HW2: np.ndarray, weights_HW: np.ndarray, wanted_N2: np.ndarray) -> np.ndarray:
    """Where in a frame places of an atlas are seen, x and y in px (N, 2): the pixel that lies nearest, and a step from there by the derivative.

    Args:
        uv_px_HW2: places of all pixels in the atlas. weights_HW: how much is seen of the layer; pixels of a half or more are searched, and
            all where there is none. wanted_N2: places in the atlas.
    """
    height, width = weights_HW.shape
    seen_HW = weights_HW >= _HALF
    seen_HW = seen_HW if seen_HW.any() else np.ones_like(seen_HW)
    pixels_P2 = grid_px(height, width)[seen_HW]
    _, nearest_N = cKDTree(uv_px_HW2[seen_HW]).query(wanted_N2)
    xy_N2 = pixels_P2[nearest_N].astype(np.float64)
    column_N, row_N = pixels_P2[nearest_N].astype(np.int64).T
    along_x, along_y = (np.asarray(np.gradient(uv_px_HW2.astype(np.float64), axis=axis)) for axis in (1, 0))
    jacobian_N22 = np.stack([along_x[row_N, column_N], along_y[row_N, column_N]], axis=-1)
    singular_N = np.abs(np.linalg.det(jacobian_N22)) < 1e-6
    jacobian_N22[singular_N] = np.eye(2)
    missing_N2 = np.where(singular_N[:, None], 0.0, wanted_N2 - uv_px_HW2[row_N, column_N])
    step_N2 = np.linalg.solve(jacobian_N22, missing_N2[..., None])[..., 0]
    places: np.ndarray = xy_N2 + step_N2.clip(-1, 1)
    return places


def track_errors(
    uv_px_THW2: np.ndarray, weights_THW: np.ndarray, start: int, start_N2: np.ndarray, ends_TN2: np.ndarray
) -> np.ndarray:
    """How far points that are looked up by their place in the atlas lie from where they truly are, in px of the frame: (T, N).

    Args:
        start: the number of the frame that points are taken from. start_N2: where they are in it, x and y. ends_TN2: where they are in every
            frame; NaN where that is not known, and so is the error.
    """
    wanted_N2 = between_pixels(uv_px_THW2[start], start_N2)
    errors = np.full(ends_TN2.shape[:2], np.nan)
    for t, (uv_px_HW2, weights_HW) in enumerate(zip(uv_px_THW2, weights_THW, strict=True)):
        known_N = np.isfinite(ends_TN2[t]).all(axis=1)
        if known_N.any():
            found_N2 = places_of(uv_px_HW2, weights_HW, wanted_N2[known_N])
            errors[t, known_N] = np.linalg.norm(found_N2 - ends_TN2[t, known_N], axis=1)
    return errors


def between_pixels(values_HWC: np.ndarray, xy_N2: np.ndarray) -> np.ndarray:
    """Values at places between pixels, bilinear; the border goes on outside: float64 (N, C)."""
    height, width = values_HWC.shape[:2]
    x_N, y_N = xy_N2[:, 0].clip(0, width - 1), xy_N2[:, 1].clip(0, height - 1)
    left_N, top_N = np.minimum(x_N.astype(int), width - 2), np.minimum(y_N.astype(int), height - 2)
    right_N1, down_N1 = (x_N - left_N)[:, None], (y_N - top_N)[:, None]
    values = values_HWC.astype(np.float64)
    upper = values[top_N, left_N] * (1 - right_N1) + values[top_N, left_N + 1] * right_N1
    lower = values[top_N + 1, left_N] * (1 - right_N1) + values[top_N + 1, left_N + 1] * right_N1
    found: np.ndarray = upper * (1 - down_N1) + lower * down_N1
    return found


def centroids(weights_THW: np.ndarray) -> np.ndarray:
    """The middle of what is weighted in every frame, x and y (T, 2); NaN in a frame with nothing."""
    height, width = weights_THW.shape[1:]
    sums_T = weights_THW.sum(axis=(1, 2), dtype=np.float64)
    moments_T2 = np.einsum("thw,hwc->tc", weights_THW.astype(np.float64), grid_px(height, width).astype(np.float64))
    with np.errstate(invalid="ignore"):
        found: np.ndarray = moments_T2 / sums_T[:, None]
    return found


def shape_of(uv_px_THW2: np.ndarray, where_THW: np.ndarray, px_per_px: float) -> Shape:
    """How much a mapping stretches, and where it folds, by differences to the right and lower neighbors.

    Args:
        where_THW: bool, the pixels that count, with both neighbors. px_per_px: how many px of the atlas a px of the frame should be long.
    """
    across = uv_px_THW2[:, :-1, 1:] - uv_px_THW2[:, :-1, :-1]
    down = uv_px_THW2[:, 1:, :-1] - uv_px_THW2[:, :-1, :-1]
    counts = where_THW[:, :-1, :-1] & where_THW[:, :-1, 1:] & where_THW[:, 1:, :-1]
    jacobian_N22 = np.stack([across[counts], down[counts]], axis=-1).astype(np.float64) / px_per_px
    if not len(jacobian_N22):
        return Shape(float("nan"), float("nan"))
    singular_N2 = np.linalg.svd(jacobian_N22, compute_uv=False)
    stretch = float(np.abs(np.log(np.maximum(singular_N2, 1e-6))).mean())
    return Shape(stretch, float((np.linalg.det(jacobian_N22) <= 0).mean()))


def unseen_energy(rgb_HW3: np.ndarray, seen_HW: np.ndarray, reached_HW: np.ndarray) -> float:
    """The mean of |c|^2 (red, green and blue added, each in [0, 1]) where pixels of frames lie in an atlas and none shows it; 0 where there is none.

    Args:
        seen_HW: how much of it is seen in the frame that shows it best. reached_HW: bool, where any pixel lies.
    """
    unseen = reached_HW & (seen_HW < _HALF)
    return float((rgb_HW3[unseen].astype(np.float64) ** 2).sum(axis=-1).mean()) if unseen.any() else 0.0


# ---- a tracker that no loss uses


def lucas_kanade(frames_THWC: np.ndarray, start: int, end: int, start_N2: np.ndarray, most_px: float = 0.5) -> Tracks:
    """Points followed frame by frame with the pyramid of Lucas and Kanade (Bouguet 2000), there and back.

    Args:
        frames_THWC: uint8 RGB. start, end: numbers of frames, in either order. most_px: how far a point that was followed back may
            lie from where it began, to be believed.
    """
    cv2: Any = require_opencv()
    grays = [cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2GRAY) for frame_HWC in frames_THWC]
    way = list(range(start, end + 1)) if start <= end else list(range(start, end - 1, -1))

    def follow(points_N2: np.ndarray, numbers: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        good_N = np.ones(len(points_N2), dtype=bool)
        for a, b in zip(numbers[:-1], numbers[1:], strict=True):
            moved, status, _ = cv2.calcOpticalFlowPyrLK(
                grays[a], grays[b], points_N2[:, None], None, winSize=_WINDOW_PX, maxLevel=_COARSE_LK
            )
            points_N2, good_N = moved[:, 0], good_N & (status[:, 0] == 1)
        return points_N2, good_N

    begun_N2 = np.ascontiguousarray(start_N2, dtype=np.float32)
    if not len(begun_N2):
        return Tracks(begun_N2, begun_N2, np.zeros(0, dtype=bool))
    with one_thread(cv2):
        end_N2, there_N = follow(begun_N2, way)
        back_N2, back_N = follow(end_N2, way[::-1])
    near_N = np.linalg.norm(back_N2 - begun_N2, axis=1) < most_px
    return Tracks(begun_N2, end_N2, there_N & back_N & near_N)


def corners_in(frame_HWC: np.ndarray, where_HW: np.ndarray, most: int) -> np.ndarray:
    """Points that can be followed well (Shi and Tomasi 1994), x and y (N, 2), strongest first.

    Args:
        where_HW: bool, where they may lie. most: of them.
    """
    cv2: Any = require_opencv()
    gray_HW = cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2GRAY)
    with one_thread(cv2):
        found = cv2.goodFeaturesToTrack(gray_HW, most, 0.01, 5, mask=where_HW.astype(np.uint8))
    none = np.zeros((0, 2), dtype=np.float32)
    return none if found is None else np.ascontiguousarray(found[:, 0])
