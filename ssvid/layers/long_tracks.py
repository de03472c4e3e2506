"""Points followed through a clip by pyramidal Lucas-Kanade: what no loss of a layered model has seen, so that it can judge one."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.ndimage import map_coordinates

from ssvid.video.optical_flow import one_thread, require_opencv

_BACK_PX = 0.5  # a step there and back misses its beginning by less where it is believed
_WINDOW_PX, _LEVELS = 15, 3
_QUALITY, _APART_PX = 0.01, 5.0
_MOST_POINTS = 300


def long_tracks(frames_THWC: np.ndarray, mask_HW: np.ndarray, start: int) -> tuple[np.ndarray, np.ndarray]:
    """Corners of an object followed from one frame to both ends: x, y float32 (T, P, 2), and bool (T, P) where they are believed.

    A point that is lost stays so. Shi and Tomasi (CVPR 1994) choose the corners.

    Args:
        frames_THWC: uint8 RGB. mask_HW: bool, where corners are looked for in frame ``start``.
    """
    cv2: Any = require_opencv()
    grays = [cv2.cvtColor(frame_HWC, cv2.COLOR_RGB2GRAY) for frame_HWC in frames_THWC]
    inner = cv2.erode(mask_HW.astype(np.uint8), np.ones((5, 5), np.uint8))
    corners = cv2.goodFeaturesToTrack(grays[start], _MOST_POINTS, _QUALITY, _APART_PX, mask=inner)
    first_P2 = np.zeros((0, 2), np.float32) if corners is None else corners[:, 0]
    points_TP2 = np.repeat(first_P2[None], len(grays), axis=0)
    valid_TP = np.zeros(points_TP2.shape[:2], bool)
    valid_TP[start] = True
    if len(first_P2):
        with one_thread(cv2):
            for step in (1, -1):
                for t in range(start + step, len(grays) if step > 0 else -1, step):
                    points_TP2[t], found_P = _step(cv2, grays[t - step], grays[t], points_TP2[t - step])
                    valid_TP[t] = valid_TP[t - step] & found_P
    return points_TP2, valid_TP


def _step(cv2: Any, before: np.ndarray, after: np.ndarray, points_P2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    options = {"winSize": (_WINDOW_PX, _WINDOW_PX), "maxLevel": _LEVELS}
    there_P2, found_P1, _ = cv2.calcOpticalFlowPyrLK(before, after, points_P2, None, **options)
    back_P2, again_P1, _ = cv2.calcOpticalFlowPyrLK(after, before, there_P2, None, **options)
    near_P = np.linalg.norm(back_P2 - points_P2, axis=1) < _BACK_PX
    height, width = after.shape
    inside_P = ((there_P2 >= 0) & (there_P2 <= (width - 1, height - 1))).all(axis=1)
    return there_P2, near_P & inside_P & (found_P1[:, 0] > 0) & (again_P1[:, 0] > 0)


def address_errors(
    points_TP2: np.ndarray, valid_TP: np.ndarray, uv_px_THW2: np.ndarray, weights_THW: np.ndarray, start: int
) -> np.ndarray:
    """How far tracked points wander in an atlas that is right about them only where they stay: float64 of all points and frames, px of the frame.

    Args:
        points_TP2: x, y in px of the frames of ``uv_px_THW2``. uv_px_THW2: place of each pixel in the atlas. weights_THW: how much of the layer is
            seen: points where it is less than a half are left out.
    """
    found = []
    at_start_P2 = _sampled(uv_px_THW2[start], points_TP2[start])
    px_P = _px_of_atlas(uv_px_THW2[start], points_TP2[start])
    seen_P = _sampled(weights_THW[start, ..., None], points_TP2[start])[:, 0] > 0.5
    for t in range(len(points_TP2)):
        if t != start:
            on_layer_P = _sampled(weights_THW[t, ..., None], points_TP2[t])[:, 0] > 0.5
            away_P = np.linalg.norm(_sampled(uv_px_THW2[t], points_TP2[t]) - at_start_P2, axis=1) / px_P
            found.append(away_P[valid_TP[t] & seen_P & on_layer_P])
    return np.concatenate(found) if found else np.zeros(0)


def _sampled(values_HWC: np.ndarray, points_P2: np.ndarray) -> np.ndarray:
    """Values at places between pixels, (P, C)."""
    places_2P = points_P2.T[::-1].astype(np.float64)
    return np.stack(
        [
            map_coordinates(channel_HW, places_2P, order=1, mode="nearest")
            for channel_HW in np.moveaxis(values_HWC, 2, 0)
        ],
        axis=1,
    )


def _px_of_atlas(uv_px_HW2: np.ndarray, points_P2: np.ndarray) -> np.ndarray:
    """Px of the atlas for each px of the frame at points: the root of how much areas grow, (P,)."""
    across_HW2, down_HW2 = np.gradient(uv_px_HW2, axis=1), np.gradient(uv_px_HW2, axis=0)
    area_HW = np.abs(across_HW2[..., 0] * down_HW2[..., 1] - across_HW2[..., 1] * down_HW2[..., 0])
    scale: np.ndarray = np.sqrt(np.maximum(_sampled(area_HW[..., None], points_P2)[:, 0], 1e-6))
    return scale
