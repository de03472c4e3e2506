"""Histograms of directions: how much of a field of vectors points where, in cells around points."""

from __future__ import annotations

import numpy as np

from ssvid.video.optical_flow import require_opencv

STILL_PX = 0.4  # flow that is shorter has no direction
NUM_DIRECTIONS = 8
# What is counted of a pair of frames, and in how many bins: gradients, flow and how both of its components change.
MOTION_BINS = {"hog": NUM_DIRECTIONS, "hof": NUM_DIRECTIONS + 1, "mbhx": NUM_DIRECTIONS, "mbhy": NUM_DIRECTIONS}


def direction_maps(x_HW: np.ndarray, y_HW: np.ndarray, num_bins: int = NUM_DIRECTIONS) -> np.ndarray:
    """The length of each vector, shared out to the two bins that are nearest to its direction: float32 (H, W, bins).

    Bin b is centered on the angle 2 pi b / bins, from x (to the right) to y (down).
    """
    x_N, y_N = (np.ascontiguousarray(values, np.float32).ravel() for values in (x_HW, y_HW))
    length_N = np.hypot(x_N, y_N)
    place_N = np.arctan2(y_N, x_N) * np.float32(num_bins / (2 * np.pi))
    place_N[place_N < 0] += num_bins
    low_N = place_N.astype(np.int64)
    upper_N = length_N * (place_N - low_N)
    low_N[low_N == num_bins] = 0
    high_N = low_N + 1
    high_N[high_N == num_bins] = 0
    maps_ND, pixels_N = np.zeros((len(x_N), num_bins), np.float32), np.arange(len(x_N)) * num_bins
    maps_ND.ravel()[pixels_N + low_N] = length_N - upper_N
    maps_ND.ravel()[pixels_N + high_N] = upper_N
    return maps_ND.reshape(*x_HW.shape, num_bins)


def flow_maps(flow_HW2: np.ndarray) -> np.ndarray:
    """``direction_maps`` of flow, and a last bin that counts the pixels in which next to nothing moves: (H, W, 9)."""
    maps_HWD = direction_maps(flow_HW2[..., 0], flow_HW2[..., 1])
    is_still_HW = (flow_HW2**2).sum(axis=-1) <= STILL_PX**2
    maps_HWD[is_still_HW] = 0
    return np.concatenate([maps_HWD, is_still_HW[..., None].astype(np.float32)], axis=-1)


def gradient_maps(values_HW: np.ndarray) -> np.ndarray:
    """``direction_maps`` of how a gray frame, or a component of flow, changes from left to right and from top to bottom."""
    cv2 = require_opencv()
    x_HW, y_HW = (cv2.Sobel(values_HW, cv2.CV_32F, dx, 1 - dx, ksize=1) for dx in (1, 0))
    return direction_maps(x_HW, y_HW)


def motion_maps(gray_HW: np.ndarray, flow_HW2: np.ndarray) -> np.ndarray:
    """HOG, HOF, MBHx and MBHy of a frame and of the flow from it, before anything is summed: float32 (H, W, 33)."""
    boundaries = [gradient_maps(np.ascontiguousarray(flow_HW2[..., axis])) for axis in (0, 1)]
    return np.concatenate([gradient_maps(gray_HW), flow_maps(flow_HW2), *boundaries], axis=-1)


def cell_sums(maps_HWD: np.ndarray, points_N2: np.ndarray, side_px: int, num_cells: int) -> np.ndarray:
    """Sums of maps over the cells of a square around each point x, y: (N, cells, cells, D), from top left on.

    A square that would reach over the border is moved to it. Both sides of the maps must be ``side_px`` at least.
    """
    cv2, cell_px = require_opencv(), side_px // num_cells
    height, width = maps_HWD.shape[:2]
    flat = {"normalize": False, "borderType": cv2.BORDER_CONSTANT}
    sums_HWD = cv2.boxFilter(maps_HWD, -1, (cell_px, cell_px), anchor=(cell_px // 2, cell_px // 2), **flat)
    first_N2 = (np.rint(points_N2).astype(int) - side_px // 2).clip(0, (width - side_px, height - side_px))
    middle_M = np.arange(num_cells) * cell_px + cell_px // 2  # of each cell, from the first pixel on
    x_NX, y_NY = (first_N2[:, axis, None] + middle_M for axis in (0, 1))
    found: np.ndarray = sums_HWD[y_NY[:, :, None], x_NX[:, None, :]]
    return found
