"""Dense trajectories: points of a grid that are followed through the optical flow, and what happens along their way.

Wang, Klaeser, Schmid, Liu, *Dense trajectories and motion boundary descriptors for action recognition* (IJCV 2013): points every
5 px in several scales, tracks of 15 steps, and in a volume around each track histograms of gradients (HOG), of flow (HOF) and of
the gradients of both components of flow (MBH). Normalized as in Wang and Schmid, *Action recognition with improved trajectories*
(ICCV 2013): each descriptor is divided by its sum, and the square root is taken. What the papers leave open, such as when a
track is static, is as in the authors' program.

Differs: flow is Dense Inverse Search instead of Farneback's; motion of the camera is not taken out; no person detector.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from ssvid.features.orientations import MOTION_BINS, cell_sums, motion_maps
from ssvid.features.store import columns_of
from ssvid.video.optical_flow import Dis, one_thread, require_opencv

TRACK_STEPS = 15  # L: a track has one point more
GRID_PX = 5  # W: from one point to the next
VOLUME_PX = 32  # N: side of the volume around a track
CELLS = 2  # n_sigma: of a side
PERIODS = 3  # n_tau: parts of a track, in time
MOST_SCALES, SCALE_FACTOR = 8, 0.5**0.5
QUALITY = 0.001  # points whose smaller eigenvalue is below this share of the frame's largest lie in homogeneous areas
STATIC_PX = 3**0.5  # standard deviation of the points below which a track is static, in both directions
FAR_PX = 50.0  # above which it is none, in either
JUMP_PX, JUMP_SHARE = 20.0, 0.7  # one step longer than both, of the whole way
EVENNESS = 0.05  # added to each bin, of each cell and frame: what holds nothing is even and not noise

# The descriptors of a track, in the order of their columns.
_SIZES = {name: PERIODS * CELLS**2 * bins for name, bins in MOTION_BINS.items()}
DESCRIPTORS = columns_of({"shape": 2 * TRACK_STEPS, **_SIZES})
NUM_VALUES = 2 * TRACK_STEPS + sum(_SIZES.values())


class Tracks(NamedTuple):
    """Tracks that were followed to their end. points_NL2: x and y of their points, in pixels of the frame. starts_N: frame of the
    first point. sums_NTYXD: of ``motion_maps`` over each cell of the volume, from top left on, in each part of the track.
    """

    points_NL2: np.ndarray
    starts_N: np.ndarray
    sums_NTYXD: np.ndarray

    def at(self, which: np.ndarray) -> Tracks:
        """Some of them."""
        return Tracks(*(values[which] for values in self))


def join_tracks(parts: Iterable[Tracks]) -> Tracks:
    """Tracks of several scales or frames as one."""
    return Tracks(*(np.concatenate(values) for values in zip(_no_tracks(), *parts, strict=True)))


def describe(tracks: Tracks) -> np.ndarray:
    """The descriptors of tracks side by side as ``DESCRIPTORS`` says, float32 (N, 426).

    shape: the steps of a track, divided by their summed length. The others: square roots of shares, so that each has length 1.
    """
    steps_NL2 = np.diff(tracks.points_NL2, axis=1)
    way_N = np.hypot(steps_NL2[..., 0], steps_NL2[..., 1]).sum(axis=1)
    parts = [(steps_NL2 / np.maximum(way_N, 1e-12)[:, None, None]).reshape(-1, 2 * TRACK_STEPS)]
    ends = np.cumsum(list(MOTION_BINS.values()))[:-1]
    for sums_NTYXD in np.split(tracks.sums_NTYXD, ends, axis=-1):
        even_ND = sums_NTYXD.reshape(-1, np.prod(sums_NTYXD.shape[1:])) + EVENNESS * TRACK_STEPS / PERIODS
        parts.append(np.sqrt(even_ND / even_ND.sum(axis=1, keepdims=True)))
    return np.concatenate(parts, axis=1).astype(np.float32)


def follow(frames: Iterable[np.ndarray]) -> Iterator[Tracks]:
    """Tracks as they end, frame by frame, of all scales; static and jumping ones are left out. Memory does not grow with the video.

    Args:
        frames: gray, uint8 HW, all of one size. One with a side of less than 32 px has no tracks.

    Raises:
        SsvidError: OpenCV is not installed.
    """
    cv2 = require_opencv()
    scales: list[_Scale] = []
    for number, gray_HW in enumerate(frames):
        if not number:
            scales = _scales(*gray_HW.shape)
        for scale in scales:
            with one_thread(cv2):
                ended = scale.go_on(gray_HW, number)
            yield ended.at(are_moving(ended.points_NL2))


def are_moving(points_NL2: np.ndarray) -> np.ndarray:
    """Which tracks are kept: neither static, nor all over the frame, nor with one step that is most of their way."""
    spread_N2 = points_NL2.std(axis=1)
    steps_NL2 = np.diff(points_NL2, axis=1)
    length_NL = np.hypot(steps_NL2[..., 0], steps_NL2[..., 1])
    longest_N = length_NL.max(axis=1, initial=0)
    jumps_N = (longest_N > JUMP_PX) & (longest_N > JUMP_SHARE * length_NL.sum(axis=1))
    kept_N: np.ndarray = (spread_N2 >= STATIC_PX).any(axis=1) & (spread_N2 <= FAR_PX).all(axis=1) & ~jumps_N
    return kept_N


def new_points(gray_HW: np.ndarray, taken_N2: np.ndarray) -> np.ndarray:
    """Points x, y of the grid that are worth following and have none of ``taken_N2`` in their square; float64 (N, 2)."""
    cv2 = require_opencv()
    rows, columns = (side // GRID_PX for side in gray_HW.shape)
    is_free = np.ones((rows, columns), bool)
    column_N, row_N = ((taken_N2 + 0.5) // GRID_PX).astype(int).T
    inside_N = (row_N >= 0) & (row_N < rows) & (column_N >= 0) & (column_N < columns)
    is_free[row_N[inside_N], column_N[inside_N]] = False
    worth_HW = cv2.cornerMinEigenVal(gray_HW, 3, ksize=3)
    centers = slice(GRID_PX // 2, None, GRID_PX)
    at_grid = worth_HW[centers, centers][:rows, :columns]
    row_N, column_N = np.nonzero(is_free & (at_grid > QUALITY * worth_HW.max()))
    return np.stack([column_N, row_N], axis=1) * float(GRID_PX) + GRID_PX // 2


class _Scale:
    """The tracks of one scale that have not ended yet."""

    def __init__(self, height: int, width: int, factor: float) -> None:
        self.size_px, self.factor = (height, width), factor
        self._flow = Dis()
        self._before: np.ndarray | None = None
        self._points_NL2 = np.empty((0, TRACK_STEPS + 1, 2))
        self._steps_N = np.empty(0, int)
        self._sums_NTYXD = _no_tracks().sums_NTYXD

    def go_on(self, gray_HW: np.ndarray, frame: int) -> Tracks:
        """Follow the tracks to a frame, begin new ones there, and hand out those that end."""
        cv2 = require_opencv()
        small_HW = gray_HW
        if self.factor < 1:
            small_HW = cv2.resize(gray_HW, self.size_px[::-1], interpolation=cv2.INTER_AREA)
        if self._before is not None and len(self._steps_N):
            self._move(self._before, small_HW)
        ended_N = self._steps_N == TRACK_STEPS
        ended = Tracks(
            self._points_NL2[ended_N], np.full(ended_N.sum(), frame - TRACK_STEPS), self._sums_NTYXD[ended_N]
        )
        self._keep(~ended_N)
        here_N2 = self._points_NL2[np.arange(len(self._steps_N)), self._steps_N]
        self._begin(new_points(small_HW, here_N2))
        self._before = small_HW
        return ended._replace(points_NL2=(ended.points_NL2 + 0.5) / self.factor - 0.5)

    def _move(self, before_HW: np.ndarray, now_HW: np.ndarray) -> None:
        cv2, rows = require_opencv(), np.arange(len(self._steps_N))
        flow_2HW = np.moveaxis(self._flow(before_HW, now_HW), -1, 0)
        flow_HW2 = np.stack([cv2.medianBlur(np.ascontiguousarray(part), 3) for part in flow_2HW], axis=-1)
        here_N2 = self._points_NL2[rows, self._steps_N]
        sums_NYXD = cell_sums(motion_maps(before_HW, flow_HW2), here_N2, VOLUME_PX, CELLS)
        self._sums_NTYXD[rows, self._steps_N * PERIODS // TRACK_STEPS] += sums_NYXD
        height, width = now_HW.shape
        x_N, y_N = np.rint(here_N2).astype(int).clip(0, (width - 1, height - 1)).T
        there_N2 = here_N2 + flow_HW2[y_N, x_N]
        self._steps_N += 1
        self._points_NL2[rows, self._steps_N] = there_N2
        self._keep(((there_N2 >= -0.5) & (there_N2 < (width - 0.5, height - 0.5))).all(axis=1))

    def _keep(self, which_N: np.ndarray) -> None:
        self._points_NL2, self._steps_N, self._sums_NTYXD = (
            values[which_N] for values in (self._points_NL2, self._steps_N, self._sums_NTYXD)
        )

    def _begin(self, points_N2: np.ndarray) -> None:
        number = len(points_N2)
        points_NL2 = np.zeros((number, TRACK_STEPS + 1, 2))
        points_NL2[:, 0] = points_N2
        sums_NTYXD = np.zeros((number, *self._sums_NTYXD.shape[1:]), np.float32)
        self._points_NL2 = np.concatenate([self._points_NL2, points_NL2])
        self._steps_N = np.concatenate([self._steps_N, np.zeros(number, int)])
        self._sums_NTYXD = np.concatenate([self._sums_NTYXD, sums_NTYXD])


def _no_tracks() -> Tracks:
    shape = (0, PERIODS, CELLS, CELLS, sum(MOTION_BINS.values()))
    return Tracks(np.empty((0, TRACK_STEPS + 1, 2)), np.empty(0, int), np.empty(shape, np.float32))


def _scales(height: int, width: int) -> list[_Scale]:
    """Each smaller than the one before by sqrt(2), as long as the volume of a track fits."""
    factors = [SCALE_FACTOR**n for n in range(MOST_SCALES)]
    sizes = [(round(height * factor), round(width * factor), factor) for factor in factors]
    return [_Scale(*size) for size in sizes if min(size[:2]) >= VOLUME_PX]
