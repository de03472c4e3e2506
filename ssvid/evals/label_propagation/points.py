"""Points followed through a video by the features of a frozen network: no training, no memory of the way.

As DINO-Tracker's baseline follows them (Tumanyan et al., arXiv 2403.14548, section 3.1): a point's feature is compared with
every cell of every other frame, and the point lies where the cosine is largest. Each query is computed by itself, by the same
operations in the same order, so that what it says does not depend on which others are asked (TAP-Vid demands it).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ssvid.errors import DataError
from ssvid.features.maps import MapGrid
from ssvid.features.propagation_protocol import PropagationProtocol


class FoundPoints(NamedTuple):
    """Where each query is in each frame. points_TQ2: float64, x and y in pixels of the frame that the network saw.
    visible_TQ: bool.
    """

    points_TQ2: np.ndarray
    visible_TQ: np.ndarray


class Matches(NamedTuple):
    """The places in a map that are most like some features. cells_Q2: x and y in cells, between them too. cosines_Q: of
    the best cells.
    """

    cells_Q2: np.ndarray
    cosines_Q: np.ndarray


@dataclass(frozen=True)
class UnitMap:
    """A map whose cells have length 1. cells_ND: float32, in rows. shape: H and W."""

    cells_ND: np.ndarray
    shape: tuple[int, int]

    @classmethod
    def of(cls, map_DHW: Tensor, precision: str = "float32") -> UnitMap:
        """Of the map of one frame, on whatever device. A cell without any feature stays 0."""
        features_ND = map_DHW.detach().float().flatten(1).T.contiguous().cpu().numpy()
        lengths_N1 = np.linalg.norm(features_ND, axis=1, keepdims=True)
        cells_ND = np.divide(features_ND, lengths_N1, out=np.zeros_like(features_ND), where=lengths_N1 > 0)
        return cls(cells_ND.astype(precision), (map_DHW.shape[1], map_DHW.shape[2]))

    def at(self, cells_Q2: np.ndarray) -> np.ndarray:
        """The features at places x, y, (Q, D) of length 1, float32: bilinear between four cells; the border is repeated."""
        height, width = self.shape
        x_Q, y_Q = np.clip(cells_Q2, 0, (width - 1, height - 1)).T
        left_Q, top_Q = (np.minimum(v.astype(int), max(n - 2, 0)) for v, n in ((x_Q, width), (y_Q, height)))
        right_Q, low_Q = np.minimum(left_Q + 1, width - 1), np.minimum(top_Q + 1, height - 1)
        features_QD = np.zeros((len(cells_Q2), self.cells_ND.shape[1]))
        for row_Q, down_Q in ((top_Q, 1 - (y_Q - top_Q)), (low_Q, y_Q - top_Q)):
            for column_Q, across_Q in ((left_Q, 1 - (x_Q - left_Q)), (right_Q, x_Q - left_Q)):
                features_QD += (down_Q * across_Q)[:, None] * self.cells_ND[row_Q * width + column_Q]
        lengths_Q1 = np.sqrt((features_QD**2).sum(axis=1, keepdims=True))
        return np.divide(features_QD, lengths_Q1, out=features_QD, where=lengths_Q1 > 0).astype(np.float32)

    def match(self, features_QD: np.ndarray, radius_cells: float, temperature: float) -> Matches:
        """Where features are: the best cell, then the mean of the cells around it, by softmax of cosine / temperature.

        Of equal cells the first is the best.

        Args:
            features_QD: of length 1, so that products are cosines. radius_cells: of the circle around the best cell.
        """
        height, width = self.shape
        cells_ND = self.cells_ND.astype(np.float32, copy=False)
        # One product for each query: the last bits of a product of several depend on how many there are.
        cosines_QN = np.stack([cells_ND @ feature_D for feature_D in features_QD])
        best_Q = cosines_QN.argmax(axis=1)
        highest_Q = np.take_along_axis(cosines_QN, best_Q[:, None], axis=1)[:, 0]
        dy_A, dx_A = _circle(radius_cells)
        y_QA, x_QA = best_Q[:, None] // width + dy_A, best_Q[:, None] % width + dx_A
        is_inside_QA = (y_QA >= 0) & (y_QA < height) & (x_QA >= 0) & (x_QA < width)
        around_QA = np.take_along_axis(cosines_QN, np.where(is_inside_QA, y_QA * width + x_QA, 0), axis=1)
        away_QA = around_QA.astype(np.float64) - highest_Q[:, None]
        weights_QA = np.where(is_inside_QA, np.exp(away_QA / temperature), 0.0)
        places_2Q = np.array([(weights_QA * v_QA).sum(axis=1) for v_QA in (x_QA, y_QA)]) / weights_QA.sum(axis=1)
        return Matches(places_2Q.T, highest_Q)


@cache
def _circle(radius_cells: float) -> tuple[np.ndarray, np.ndarray]:
    """Steps down and across to the cells within a radius, in rows."""
    reach = int(radius_cells)
    dy_A, dx_A = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1)
    is_near_A = dy_A**2 + dx_A**2 <= radius_cells**2
    return dy_A[is_near_A], dx_A[is_near_A]


@dataclass(frozen=True)
class _Begun:
    """The queries of one frame. numbers_B: which they are. origin: the map of that frame."""

    numbers_B: np.ndarray
    places_B2: np.ndarray
    features_BD: np.ndarray
    origin: UnitMap


def track_points(
    maps: Iterable[Tensor],
    queries_Q3: np.ndarray,
    grid: MapGrid,
    protocol: PropagationProtocol,
    *,
    both_ways: bool = False,
) -> FoundPoints:
    """Follow points through a video.

    In each frame a point lies where its feature is matched (``UnitMap.match``). It is visible where the cosine of the best
    cell is at least ``point_min_cosine`` and the way back, from there to the frame of the query, ends at most
    ``point_max_cycle_px`` from the query. In the frame of the query it is where it was given, and visible.

    Args:
        maps: features DHW of the frames in turn; read once. queries_Q3: frame, y and x in pixels of the frame that the
            network saw. grid: where the cells of the maps lie in it.
        protocol: its values named ``point_...``, and ``precision``, in which maps are held.
        both_ways: follow points to frames before the query too; all maps are then held. Otherwise a point is not visible
            before its query, and only the maps of frames with queries are held.

    Raises:
        DataError: a query lies outside the frame or the video; maps have another shape than the grid.
    """
    queries = _checked(queries_Q3, grid)
    unit_maps: Iterable[UnitMap] = _unit_maps(maps, grid, protocol)
    followed: dict[int, _Begun] = {}
    if both_ways:
        unit_maps = list(unit_maps)
        for frame, unit_map in enumerate(unit_maps):
            followed |= _begun(frame, unit_map, queries, grid)
    found = list(_each_frame(unit_maps, queries, followed, grid, protocol))
    return FoundPoints(np.array([places_Q2 for places_Q2, _ in found]), np.array([seen_Q for _, seen_Q in found]))


def each_frame_points(
    maps: Iterable[Tensor], queries_Q3: np.ndarray, grid: MapGrid, protocol: PropagationProtocol
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same as ``track_points`` frame by frame, as maps are read: places Q2 and visibilities Q of each."""
    queries = _checked(queries_Q3, grid)
    return _each_frame(_unit_maps(maps, grid, protocol), queries, {}, grid, protocol)


def _each_frame(
    unit_maps: Iterable[UnitMap],
    queries: np.ndarray,
    followed: dict[int, _Begun],
    grid: MapGrid,
    protocol: PropagationProtocol,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Places and visibilities. followed: queries that are known before their frame comes, by the frame."""
    num_frames = 0
    for frame, unit_map in enumerate(unit_maps):
        num_frames += 1
        followed = followed | _begun(frame, unit_map, queries, grid)
        places_Q2, seen_Q = queries[:, :0:-1].copy(), queries[:, 0] == frame
        for begun in (begun for start, begun in followed.items() if start != frame):
            places_Q2[begun.numbers_B], seen_Q[begun.numbers_B] = _found(begun, unit_map, grid, protocol)
        yield places_Q2, seen_Q
    if len(queries) > sum(len(begun.numbers_B) for begun in followed.values()):
        raise DataError(
            f"a point is given in frame {queries[:, 0].max():g}, and the video has {num_frames} frames, numbered from 0. "
            "Give it in one of them."
        )


def _unit_maps(maps: Iterable[Tensor], grid: MapGrid, protocol: PropagationProtocol) -> Iterator[UnitMap]:
    for frame, map_DHW in enumerate(maps):
        if tuple(map_DHW.shape[1:]) != tuple(grid.shape):
            raise DataError(
                f"the map of frame {frame} has {map_DHW.shape[1]} x {map_DHW.shape[2]} cells, and the grid "
                f"{grid.height} x {grid.width}. Show the network frames of one size."
            )
        yield UnitMap.of(map_DHW, protocol.precision)


def _begun(frame: int, unit_map: UnitMap, queries_Q3: np.ndarray, grid: MapGrid) -> dict[int, _Begun]:
    """The queries that are given in this frame, by the frame; {} where none is."""
    numbers_B = np.flatnonzero(queries_Q3[:, 0] == frame)
    if not numbers_B.size:
        return {}
    places_B2 = queries_Q3[numbers_B, :0:-1]
    return {frame: _Begun(numbers_B, places_B2, unit_map.at(grid.to_cells(places_B2)), unit_map)}


def _found(
    begun: _Begun, unit_map: UnitMap, grid: MapGrid, protocol: PropagationProtocol
) -> tuple[np.ndarray, np.ndarray]:
    """Where queries are in another frame, in pixels, and which of them are visible there."""
    radius, temperature = protocol.point_radius_cells, protocol.point_temperature
    there = unit_map.match(begun.features_BD, radius, temperature)
    is_like_B = there.cosines_Q >= protocol.point_min_cosine
    seen_B = is_like_B.copy()
    if is_like_B.any():
        back = begun.origin.match(unit_map.at(there.cells_Q2[is_like_B]), radius, temperature)
        away_B2 = grid.to_pixels(back.cells_Q2) - begun.places_B2[is_like_B]
        seen_B[is_like_B] = np.hypot(*away_B2.T) <= protocol.point_max_cycle_px
    return grid.to_pixels(there.cells_Q2), seen_B


def _checked(queries_Q3: np.ndarray, grid: MapGrid) -> np.ndarray:
    """The queries as float64, their frames whole. Raises DataError where one is outside, by half a pixel at the border."""
    queries = np.array(queries_Q3, dtype=np.float64).reshape(-1, 3)
    queries[:, 0] = np.rint(queries[:, 0])
    height, width = grid.frame_px
    is_inside_Q = ((queries >= [0, -0.5, -0.5]) & (queries <= [np.inf, height - 0.5, width - 0.5])).all(axis=1)
    if not is_inside_Q.all():
        t, y, x = queries[is_inside_Q.argmin()]
        raise DataError(
            f"the point x={x:g}, y={y:g} of frame {t:g} is outside a video of {width} x {height} pixels (width x height). "
            "Count pixels and frames from 0, and give a point inside."
        )
    return queries
