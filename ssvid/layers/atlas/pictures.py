"""Atlases as pictures, pure functions: between pixels, what frames cover of an atlas, and a mapping followed backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.ndimage import distance_transform_edt, grey_closing

from ssvid.layers.motion import grid_px
from ssvid.video.optical_flow import one_thread, require_opencv

_NEWTON_STEPS, _FARTHEST_STEP_PX = 6, 2.0
_FOUND_PX = 0.25
_DERIVATIVE_PX = 0.5


def sampled(picture_HWC: np.ndarray, xy_HW2: np.ndarray) -> np.ndarray:
    """A picture at places in px, between its pixels, 0 outside of it: float32, of the shape of the places, channels last if it has any."""
    cv2: Any = require_opencv()
    x_HW, y_HW = (np.ascontiguousarray(xy_HW2[..., axis], dtype=np.float32) for axis in (0, 1))
    with one_thread(cv2):
        found: np.ndarray = cv2.remap(
            picture_HWC.astype(np.float32), x_HW, y_HW, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0
        )
    return found


def to_bytes(shares: np.ndarray) -> np.ndarray:
    """Values in [0, 1] as uint8."""
    return (shares * 255 + 0.5).clip(0, 255).astype(np.uint8)


def covered(uv_px_THW2: np.ndarray, weights_THW: np.ndarray, height: int, width: int) -> np.ndarray:
    """The most that any pixel that lies there is seen: float32 (height, width) of an atlas; 0 where no pixel lies.

    Gaps of one px between pixels are closed.
    """
    column_P, row_P = np.rint(uv_px_THW2.reshape(-1, 2)).astype(np.int64).T
    inside_P = (row_P >= 0) & (row_P < height) & (column_P >= 0) & (column_P < width)
    most = np.zeros((height, width), dtype=np.float32)
    np.maximum.at(most, (row_P[inside_P], column_P[inside_P]), weights_THW.reshape(-1)[inside_P].astype(np.float32))
    closed: np.ndarray = grey_closing(most, (3, 3))
    return closed


def inverted(
    mapping: Callable[[np.ndarray], np.ndarray], uv_px_HW2: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Which place of a frame lies at each px of an atlas: x, y in px of the frame (height, width, 2), and where that was found, bool.

    Each px begins at the pixel of the frame that lies nearest to it, and takes a few steps of Newton.

    Args:
        mapping: from places in the frame (P, 2) to px of the atlas (P, 2). uv_px_HW2: of all pixels of the frame. height, width: of the atlas.
    """
    frame_height, frame_width = uv_px_HW2.shape[:2]
    xy_P2 = _nearest_pixels(uv_px_HW2, height, width)
    wanted_P2 = grid_px(height, width).reshape(-1, 2).astype(np.float64)
    for _ in range(_NEWTON_STEPS):
        here_P2 = mapping(xy_P2)
        columns = [(mapping(xy_P2 + shift) - here_P2) / _DERIVATIVE_PX for shift in _DERIVATIVE_PX * np.eye(2)]
        jacobian_P22 = np.stack(columns, axis=-1)
        turned = np.abs(np.linalg.det(jacobian_P22)) < 1e-3
        jacobian_P22[turned] = np.eye(2)
        step_P2 = np.linalg.solve(jacobian_P22, (wanted_P2 - here_P2)[..., None])[..., 0]
        length_P1 = np.linalg.norm(step_P2, axis=1, keepdims=True)
        xy_P2 = xy_P2 + step_P2 * np.minimum(1, _FARTHEST_STEP_PX / np.maximum(length_P1, 1e-9))
    near_P = np.linalg.norm(mapping(xy_P2) - wanted_P2, axis=1) < _FOUND_PX
    inside_P = ((xy_P2 > -0.5) & (xy_P2 < np.array([frame_width, frame_height]) - 0.5)).all(axis=1)
    return xy_P2.reshape(height, width, 2), (near_P & inside_P).reshape(height, width)


def _nearest_pixels(uv_px_HW2: np.ndarray, height: int, width: int) -> np.ndarray:
    """For each px of an atlas a pixel of the frame that lies near: x, y (height * width, 2), float64."""
    frame_width = uv_px_HW2.shape[1]
    column_P, row_P = np.rint(uv_px_HW2.reshape(-1, 2)).astype(np.int64).T
    row_P, column_P = row_P.clip(0, height - 1), column_P.clip(0, width - 1)
    holder = np.full((height, width), -1, dtype=np.int64)
    holder[row_P, column_P] = np.arange(len(row_P))
    nearest = distance_transform_edt(holder < 0, return_distances=False, return_indices=True)
    pixel_P = holder[tuple(nearest)].reshape(-1)
    return np.stack([pixel_P % frame_width, pixel_P // frame_width], axis=1).astype(np.float64)
