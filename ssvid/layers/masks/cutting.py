"""An object cut out of a frame by its colors: GrabCut of OpenCV, from a rough mask or from a box."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from ssvid.errors import DataError
from ssvid.video.optical_flow import one_thread, require_opencv

Box = tuple[int, int, int, int]  # x, y, width, height in px
_ROUNDS_MASK, _ROUNDS_BOX = 4, 5
_LEAST_KEPT = 0.4  # of a rough mask; where less is left, colors did not tell the object
_LEAST_PART = 0.05
_SURE_BACK, _SURE_OBJECT, _MAYBE_BACK, _MAYBE_OBJECT = 0, 1, 2, 3  # OpenCV's GC_BGD, GC_FGD, GC_PR_BGD, GC_PR_FGD


def cut_by_mask(frame_HWC: np.ndarray, rough_HW: np.ndarray, band_px: int) -> np.ndarray:
    """The rough mask with its edge moved to where the colors change, bool HW.

    Rother et al., *GrabCut* (SIGGRAPH 2004). Deep inside the rough mask is the object for sure, far outside the background. The rough mask
    itself comes back where nothing is left to learn the colors of one of them from, or where too little of it is kept.

    Args:
        frame_HWC: uint8 RGB. rough_HW: bool. band_px: how far from its edge pixels are asked.
    """
    cv2: Any = require_opencv()
    if not rough_HW.any():
        return rough_HW.copy()
    rough = rough_HW.astype(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * band_px + 1, 2 * band_px + 1))
    inside_HW, near_HW = cv2.erode(rough, kernel) > 0, cv2.dilate(rough, kernel) > 0
    said_HW = np.where(rough_HW, _MAYBE_OBJECT, _MAYBE_BACK).astype(np.uint8)
    said_HW[inside_HW], said_HW[~near_HW] = _SURE_OBJECT, _SURE_BACK
    if not (said_HW == _SURE_BACK).any():
        return rough_HW.copy()
    found_HW = without_specks(_grab_cut(cv2, frame_HWC, said_HW, _ROUNDS_MASK))
    return found_HW if found_HW.sum() >= _LEAST_KEPT * rough_HW.sum() else rough_HW.copy()


def without_specks(mask_HW: np.ndarray) -> np.ndarray:
    """The mask without parts that are smaller than ``_LEAST_PART`` of it, bool HW: something of its color beside an object."""
    labels_HW, count = ndimage.label(mask_HW, np.ones((3, 3)))
    areas = np.bincount(labels_HW.ravel(), minlength=count + 1)
    areas[0] = 0
    kept: np.ndarray = (areas >= _LEAST_PART * mask_HW.sum())[labels_HW] & mask_HW
    return kept


def cut_by_box(frame_HWC: np.ndarray, box: Box) -> np.ndarray:
    """What stands out in a box from all around it, bool HW.

    Args:
        frame_HWC: uint8 RGB. box: the object lies in it, with some background around.

    Raises:
        DataError: the box is empty, ends outside the frame, or is all of it; or nothing was found in it.
    """
    cv2: Any = require_opencv()
    x, y, width, height = box
    frame_height, frame_width = frame_HWC.shape[:2]
    told = f"box {x},{y},{width},{height} (x, y, width, height)"
    if width < 2 or height < 2 or x < 0 or y < 0 or x + width > frame_width or y + height > frame_height:
        raise DataError(
            f"{told} must lie in the frame, which has {frame_width}x{frame_height} px, and be at least 2 px wide and high. Count from "
            "the upper left pixel."
        )
    if x == 0 and y == 0 and width == frame_width and height == frame_height:
        raise DataError(
            f"{told} is all of the frame: nothing outside tells how the background looks. Draw a smaller box, or paint a mask."
        )
    said_HW = np.zeros(frame_HWC.shape[:2], np.uint8)
    said_HW[y : y + height, x : x + width] = _MAYBE_OBJECT
    found_HW = _grab_cut(cv2, frame_HWC, said_HW, _ROUNDS_BOX)
    if not found_HW.any():
        raise DataError(
            f"nothing in {told} stands out from what is around it. Draw the box tighter around the object, or paint a mask."
        )
    return found_HW


def _grab_cut(cv2: Any, frame_HWC: np.ndarray, said_HW: np.ndarray, rounds: int) -> np.ndarray:
    colors = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # the same frame, the same answer
    with one_thread(cv2):
        cv2.grabCut(np.ascontiguousarray(frame_HWC), said_HW, None, *colors, rounds, cv2.GC_INIT_WITH_MASK)
    found: np.ndarray = (said_HW == _SURE_OBJECT) | (said_HW == _MAYBE_OBJECT)
    return found
