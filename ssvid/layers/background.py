"""What lies behind the objects of a video: the camera, the canvas that all frames have a place on, and what is seen on it where nothing hides it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ssvid.errors import DataError
from ssvid.layers.clip import LayerClip
from ssvid.layers.motion import Canvas, ClipMotion, canvas_of, fit_transformation, homographies
from ssvid.video.optical_flow import Dis, one_thread, require_opencv

STILL_ERROR = 1.05  # a camera is still where the frames lie on one another nearly as well as when they are moved
_REFINEMENTS = 2
_REFINED_PX = 0.6  # how near a point must be to count, as in a chain
_INPAINT_RADIUS_PX = 3
_UNSEEN = 256
_STRIP_ROWS = 64


class CameraCanvas(NamedTuple):
    """Where each frame lies on the background. inliers_T: share of the flow that the camera explains, 1 of one that stands still."""

    canvas: Canvas
    inliers_T: np.ndarray


def camera_canvas(clip: LayerClip, motion: ClipMotion, camera: str, grown_px: int = 2) -> CameraCanvas:
    """Where each frame lies on the background.

    Args:
        motion: of the frames of the clip. camera: ``static``, ``moving``, or ``auto``, which takes a camera for still where the frames differ
            from their median no more than ``STILL_ERROR`` times as much as when the camera moves. grown_px: by how much masks are grown.

    Raises:
        DataError: the canvas is much larger than a frame, or masks hide all of every frame.
    """
    frames_THWC, (height, width) = clip.frames_THWC, clip.size
    hidden_THW = grown(np.any(clip.masks_NTHW, axis=0), grown_px)
    if hidden_THW.all():
        raise DataError(
            "the masks, grown a little, cover every frame as a whole, so that nothing is seen of the background. Paint the objects alone, "
            "or take frames in which something else is seen."
        )
    still = canvas_of(np.tile(np.eye(3), (clip.num_frames, 1, 1)), height, width)
    if camera == "static":
        return CameraCanvas(still, np.ones(clip.num_frames))
    chain = homographies(motion, ~hidden_THW)
    try:
        moving, moving_error = _best_of_moving(canvas_of(chain.to_middle_T33, height, width), frames_THWC, hidden_THW)
    except DataError as error:
        raise DataError(f"{error} Where the camera stands still, choose the static camera.") from error
    if camera == "auto" and _registration_error(still, frames_THWC, hidden_THW) <= STILL_ERROR * moving_error:
        return CameraCanvas(still, np.ones(clip.num_frames))
    return CameraCanvas(moving, chain.inliers_T)


def _best_of_moving(chained: Canvas, frames_THWC: np.ndarray, hidden_THW: np.ndarray) -> tuple[Canvas, float]:
    """The chain as it is, or refined: whichever the frames lie on best, and its registration error."""
    canvases = [chained]
    for _ in range(_REFINEMENTS):
        canvases.append(refined(canvases[-1], frames_THWC, hidden_THW))
    errors = [_registration_error(canvas, frames_THWC, hidden_THW) for canvas in canvases]
    best = int(np.argmin(errors))
    return canvases[best], errors[best]


def refined(canvas: Canvas, frames_THWC: np.ndarray, hidden_THW: np.ndarray) -> Canvas:
    """The canvas with each frame moved to where the median of all shows it best: what a chain has gathered of errors goes.

    By flow from what the canvas shows in the place of a frame to the frame, and RANSAC on it where nothing is hidden.
    """
    search, (height, width) = Dis(every_px=True), frames_THWC.shape[1:3]
    median_HWC, seen_HW = masked_median(frames_THWC, hidden_THW, canvas)
    expected_THWC = views(inpainted(median_HWC, seen_HW), canvas, height, width)
    known_THW = views(seen_HW.astype(np.uint8), canvas, height, width) > 0
    matrices = []
    for expected, frame, free_HW, to_canvas in zip(
        expected_THWC, frames_THWC, known_THW & ~hidden_THW, canvas.to_canvas_T33, strict=True
    ):
        step, _ = fit_transformation(search.of_colors(expected, frame), free_HW, "homography", _REFINED_PX)
        matrices.append(to_canvas if step is None else to_canvas @ np.linalg.inv(step))
    to_middle = np.linalg.inv(matrices[len(matrices) // 2]) @ np.stack(matrices)
    return canvas_of(to_middle / to_middle[:, 2:, 2:], height, width)


def _registration_error(canvas: Canvas, frames_THWC: np.ndarray, hidden_THW: np.ndarray) -> float:
    """Mean absolute difference of the frames to the median, where nothing is hidden."""
    median_HWC, seen_HW = masked_median(frames_THWC, hidden_THW, canvas)
    expected_THWC = views(inpainted(median_HWC, seen_HW), canvas, *frames_THWC.shape[1:3])
    return float(np.abs(expected_THWC.astype(np.int16) - frames_THWC)[~hidden_THW].mean())


def grown(masks_THW: np.ndarray, px: int) -> np.ndarray:
    """Masks with all that is within so many px of them (in a disc): bool, of the same shape."""
    if px == 0:
        return masks_THW
    cv2: Any = require_opencv()
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * px + 1, 2 * px + 1))
    flat_NHW = masks_THW.reshape(-1, *masks_THW.shape[-2:]).astype(np.uint8)
    with one_thread(cv2):
        found = np.stack([cv2.dilate(mask_HW, disc) for mask_HW in flat_NHW])
    return found.reshape(masks_THW.shape).astype(bool)


def at_size(canvas: Canvas, size: tuple[int, int], new_size: tuple[int, int]) -> Canvas:
    """The canvas of the same frames at another size.

    Args:
        size, new_size: height and width of the frames that it is of, and of those that it shall be of.
    """
    if size == new_size:
        return canvas
    (down, along), centered = (new / old for new, old in zip(new_size, size, strict=True)), 0.5
    grow = np.array(
        [[along, 0, centered * (along - 1)], [0, down, centered * (down - 1)], [0, 0, 1.0]]
    )  # corners stay corners: pixel centers are at whole numbers
    return Canvas(
        grow @ canvas.to_canvas_T33 @ np.linalg.inv(grow), round(canvas.height * down), round(canvas.width * along)
    )


def masked_median(frames_THWC: np.ndarray, hidden_THW: np.ndarray, canvas: Canvas) -> tuple[np.ndarray, np.ndarray]:
    """The median of all that is seen of each place of the canvas.

    Args:
        frames_THWC: uint8. hidden_THW: bool, what does not count.

    Returns:
        picture_HWC: uint8, 0 where nothing is seen. seen_HW: bool.
    """
    picture_HWC = np.zeros((canvas.height, canvas.width, 3), np.uint8)
    seen_HW = np.zeros((canvas.height, canvas.width), dtype=bool)
    for top in range(0, canvas.height, _STRIP_ROWS):  # a large canvas of many frames need not be in memory as a whole
        rows = min(_STRIP_ROWS, canvas.height - top)
        values_THWC = _strip(frames_THWC, hidden_THW, canvas, top, rows)
        values_THWC.sort(axis=0)
        count_HW = (values_THWC[..., 0] < _UNSEEN).sum(axis=0)
        low_HW, high_HW = ((np.maximum(count_HW, 1) - k) // 2 for k in (1, 0))
        low, high = (np.take_along_axis(values_THWC, place[None, ..., None], axis=0)[0] for place in (low_HW, high_HW))
        seen_HW[top : top + rows] = count_HW > 0
        picture_HWC[top : top + rows] = np.where(count_HW[..., None] > 0, (low + high + 1) // 2, 0)
    return picture_HWC, seen_HW


def _strip(frames_THWC: np.ndarray, hidden_THW: np.ndarray, canvas: Canvas, top: int, rows: int) -> np.ndarray:
    """Rows of the canvas as each frame shows them: int16 THWC, ``_UNSEEN`` where it does not."""
    cv2: Any = require_opencv()
    lift = np.array([[1, 0, 0], [0, 1, -top], [0, 0, 1.0]])
    strips = []
    with one_thread(cv2):
        for frame_HWC, hidden_HW, matrix in zip(frames_THWC, hidden_THW, canvas.to_canvas_T33, strict=True):
            size = (canvas.width, rows)
            colors = cv2.warpPerspective(frame_HWC, lift @ matrix, size, flags=cv2.INTER_LINEAR)
            free = cv2.warpPerspective((~hidden_HW).astype(np.float32), lift @ matrix, size, flags=cv2.INTER_LINEAR)
            strips.append(np.where((free > 0.999)[..., None], colors.astype(np.int16), np.int16(_UNSEEN)))
    return np.stack(strips)


def inpainted(picture_HWC: np.ndarray, seen_HW: np.ndarray) -> np.ndarray:
    """The picture with what was never seen filled from around it (Telea 2004), uint8."""
    if seen_HW.all():
        return picture_HWC
    cv2: Any = require_opencv()
    filled: np.ndarray = cv2.inpaint(picture_HWC, (~seen_HW).astype(np.uint8), _INPAINT_RADIUS_PX, cv2.INPAINT_TELEA)
    return filled


def views(picture_HWC: np.ndarray, canvas: Canvas, height: int, width: int) -> np.ndarray:
    """The canvas as the camera sees it in each frame, THWC of the picture's type."""
    cv2: Any = require_opencv()
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    with one_thread(cv2):
        seen = [
            cv2.warpPerspective(picture_HWC, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
            for matrix in canvas.to_canvas_T33
        ]
    return np.stack(seen)
