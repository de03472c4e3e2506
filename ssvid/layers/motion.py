"""How a clip moves: flow both ways, the similarity that an object follows, the homography that the camera follows, the canvas of a background."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ssvid.errors import DataError
from ssvid.video.optical_flow import Dis, one_thread, require_opencv

CONSISTENT_PX = 1.0  # flow there and back misses its beginning by less where it is believed
LARGEST_CANVAS = 6.0  # times the area of a frame
_FEWEST_POINTS = 12
_MOST_POINTS = 4000


@dataclass(frozen=True)
class ClipMotion:
    """Flow between consecutive frames, in px of the frames that it was measured on.

    forward_THW2: float32 (T - 1, H, W, 2), from each frame to the next one, at the pixels of the earlier; backward_THW2: from each but
    the first to the one before, at the pixels of the later. forward_valid_THW, backward_valid_THW: bool, where there and back agree.
    """

    forward_THW2: np.ndarray
    backward_THW2: np.ndarray
    forward_valid_THW: np.ndarray
    backward_valid_THW: np.ndarray


@dataclass(frozen=True)
class Chain:
    """One transformation for each frame, to the frame in the middle.

    to_middle_T33: float64, homogeneous, in px. inliers_T: share of the flow that the step of each frame towards the middle explains; 1 of the
    middle itself.
    """

    to_middle_T33: np.ndarray
    inliers_T: np.ndarray


@dataclass(frozen=True)
class Canvas:
    """A picture that all frames have a place on.

    to_canvas_T33: from px of each frame to px of the canvas. height, width: of it, in px.
    """

    to_canvas_T33: np.ndarray
    height: int
    width: int


def measure_motion(frames_THWC: np.ndarray) -> ClipMotion:
    """Dense Inverse Search both ways between consecutive frames, to the last pixel: what layers are fitted to is small.

    Args:
        frames_THWC: uint8 RGB, two frames at least.

    Raises:
        SsvidError: OpenCV is not installed.
    """
    search = Dis(every_px=True)
    pairs = list(zip(frames_THWC[:-1], frames_THWC[1:], strict=True))
    forward = np.stack([search.of_colors(before, after) for before, after in pairs])
    backward = np.stack([search.of_colors(after, before) for before, after in pairs])
    valid = [(consistent(there, back), consistent(back, there)) for there, back in zip(forward, backward, strict=True)]
    return ClipMotion(forward, backward, np.stack([v[0] for v in valid]), np.stack([v[1] for v in valid]))


def consistent(there_HW2: np.ndarray, back_HW2: np.ndarray) -> np.ndarray:
    """Where flow from one frame to another ends within it and comes back to within ``CONSISTENT_PX``, bool HW."""
    cv2: Any = require_opencv()
    height, width = there_HW2.shape[:2]
    end_HW2 = grid_px(height, width) + there_HW2
    with one_thread(cv2):
        back_at_end = cv2.remap(
            back_HW2, end_HW2[..., 0], end_HW2[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
    inside = (end_HW2 >= 0).all(axis=2) & (end_HW2 <= (width - 1, height - 1)).all(axis=2)
    near: np.ndarray = np.linalg.norm(there_HW2 + back_at_end, axis=2) < CONSISTENT_PX
    return near & inside


def grid_px(height: int, width: int) -> np.ndarray:
    """The place of every pixel, x and y: float32 HW2."""
    return np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=2).astype(np.float32)


def similarities(motion: ClipMotion, masks_THW: np.ndarray, threshold_px: float = 0.7) -> Chain:
    """How an object moves as a whole: turned, scaled and shifted from frame to frame, chained to the middle frame.

    By RANSAC on the flow inside the mask; a step with too little of it repeats the one before towards the middle.

    Args:
        masks_THW: bool, where the object is.
    """
    return _chained(motion, masks_THW, "similarity", threshold_px)


def homographies(motion: ClipMotion, outside_THW: np.ndarray, threshold_px: float = 0.6) -> Chain:
    """How the camera moves, by RANSAC on the flow where no object is, chained to the middle frame.

    Args:
        outside_THW: bool, where no object is.
    """
    return _chained(motion, outside_THW, "homography", threshold_px)


def _chained(motion: ClipMotion, where_THW: np.ndarray, kind: str, threshold_px: float) -> Chain:
    num_frames = len(motion.forward_THW2) + 1
    middle = num_frames // 2
    matrices, inliers = np.tile(np.eye(3), (num_frames, 1, 1)), np.ones(num_frames)
    for outwards in (range(middle - 1, -1, -1), range(middle + 1, num_frames)):
        step = np.eye(3)
        for t in outwards:
            earlier = t < middle
            flow = motion.forward_THW2[t] if earlier else motion.backward_THW2[t - 1]
            valid = motion.forward_valid_THW[t] if earlier else motion.backward_valid_THW[t - 1]
            found, share = fit_transformation(flow, where_THW[t] & valid, kind, threshold_px)
            step = step if found is None else found
            matrices[t] = matrices[t + 1 if earlier else t - 1] @ step
            inliers[t] = share
    return Chain(matrices / matrices[:, 2:, 2:], inliers)


def fit_transformation(
    flow_HW2: np.ndarray, where_HW: np.ndarray, kind: str, threshold_px: float
) -> tuple[np.ndarray | None, float]:
    """The matrix 33 that most of the flow follows, and the share that does; None and 0 where there are too few points.

    Args:
        kind: ``similarity`` or ``homography``. threshold_px: how near a point must be to count.
    """
    cv2: Any = require_opencv()
    start_N2 = grid_px(*where_HW.shape)[where_HW]
    end_N2 = start_N2 + flow_HW2[where_HW]
    every = max(1, len(start_N2) // _MOST_POINTS)
    start_N2, end_N2 = (np.ascontiguousarray(points_N2[::every]) for points_N2 in (start_N2, end_N2))
    if len(start_N2) < _FEWEST_POINTS:
        return None, 0.0
    cv2.setRNGSeed(0)  # the same points, the same answer
    with one_thread(cv2):
        if kind == "homography":
            matrix, inliers = cv2.findHomography(start_N2, end_N2, cv2.RANSAC, threshold_px)
        else:
            matrix, inliers = cv2.estimateAffinePartial2D(
                start_N2, end_N2, method=cv2.RANSAC, ransacReprojThreshold=threshold_px
            )
            matrix = None if matrix is None else np.vstack([matrix, [0.0, 0.0, 1.0]])
    return (None, 0.0) if matrix is None else (matrix, float(inliers.mean()))


def canvas_of(to_middle_T33: np.ndarray, height: int, width: int) -> Canvas:
    """The smallest canvas that holds all frames, in px of the middle one.

    Raises:
        DataError: it is more than ``LARGEST_CANVAS`` times as large as a frame: the camera is lost, or does not turn about a point.
    """
    corners = np.array([[0, 0, 1], [width - 1, 0, 1], [0, height - 1, 1], [width - 1, height - 1, 1]], dtype=float)
    placed_TN3 = corners @ np.swapaxes(to_middle_T33, 1, 2)
    behind = bool((placed_TN3[..., 2] <= 0).any())
    placed_TN2 = placed_TN3[..., :2] / placed_TN3[..., 2:]
    low, high = np.floor(placed_TN2.min(axis=(0, 1))), np.ceil(placed_TN2.max(axis=(0, 1)))
    canvas_width, canvas_height = (int(side) + 1 for side in high - low)
    times = canvas_width * canvas_height / (width * height)
    if behind or not times <= LARGEST_CANVAS:
        grown = (
            "has no end"
            if behind
            else f"would be {times:.1f} times as large as a frame ({canvas_width} x {canvas_height} px)"
        )
        raise DataError(
            f"the canvas of the background {grown}; at most {LARGEST_CANVAS:g} times is taken. The motion of the camera was not "
            "found, or is more than turning and zooming. Take fewer frames, or frames in which the background is seen better."
        )
    shift = np.array([[1, 0, -low[0]], [0, 1, -low[1]], [0, 0, 1]])
    return Canvas(shift @ to_middle_T33, canvas_height, canvas_width)


def apply(matrix_33: np.ndarray, points_N2: np.ndarray) -> np.ndarray:
    """Points moved by a homogeneous matrix, (N, 2)."""
    moved_N3 = np.concatenate([points_N2, np.ones((len(points_N2), 1))], axis=1) @ matrix_33.T
    return moved_N3[:, :2] / moved_N3[:, 2:]
