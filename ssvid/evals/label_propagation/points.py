"""Points followed through a video by the features of a frozen network: no training, no memory of the way.

As DINO-Tracker's baseline follows them (Tumanyan et al., arXiv 2403.14548, section 3.1): a point's feature is compared with
every cell of every other frame, and the point lies where the cosine is largest. Each query is computed by itself, by the same
operations in the same order, so that what it says does not depend on which others are asked (TAP-Vid demands it).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from ssvid.errors import DataError
from ssvid.evals.label_propagation.protocol import PropagationProtocol
from ssvid.features.maps import MapGrid


class FoundPoints(NamedTuple):
    """Where each query is in each frame. points_TQ2: float64, x and y in pixels of the frame that the network saw.
    visible_TQ: bool.
    """

    points_TQ2: np.ndarray
    visible_TQ: np.ndarray


class Match(NamedTuple):
    """The place in a map that is most like a feature. cell_xy: in cells, between them too. cosine: of the best cell."""

    cell_xy: np.ndarray
    cosine: float


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

    def at(self, cell_xy: np.ndarray) -> np.ndarray:
        """The feature at a place, of length 1, float32: bilinear between the four cells around it; the border is repeated."""
        height, width = self.shape
        x, y = np.clip(cell_xy, 0, (width - 1, height - 1))
        left, top = min(int(x), max(width - 2, 0)), min(int(y), max(height - 2, 0))
        feature_D = np.zeros(self.cells_ND.shape[1])
        for row, down in ((top, 1 - (y - top)), (min(top + 1, height - 1), y - top)):
            for column, across in ((left, 1 - (x - left)), (min(left + 1, width - 1), x - left)):
                feature_D += down * across * self.cells_ND[row * width + column]
        length = np.linalg.norm(feature_D)
        return (feature_D / length if length > 0 else feature_D).astype(np.float32)

    def match(self, feature_D: np.ndarray, radius_cells: float, temperature: float) -> Match:
        """Where a feature is: the best cell, then the mean of the cells around it, by softmax of cosine / temperature.

        Of equal cells the first is the best.

        Args:
            feature_D: of length 1, so that products are cosines. radius_cells: of the circle around the best cell.
        """
        cosines_HW = (self.cells_ND.astype(np.float32, copy=False) @ feature_D).reshape(self.shape)
        row, column = divmod(int(cosines_HW.argmax()), self.shape[1])
        best = float(cosines_HW[row, column])
        reach = int(radius_cells)
        top, left = max(row - reach, 0), max(column - reach, 0)
        around = cosines_HW[top : row + reach + 1, left : column + reach + 1].astype(np.float64)
        y_H1, x_1W = np.ogrid[top : top + around.shape[0], left : left + around.shape[1]]
        is_near = (y_H1 - row) ** 2 + (x_1W - column) ** 2 <= radius_cells**2
        weights = np.where(is_near, np.exp((around - best) / temperature), 0.0)
        place = np.array([(weights * x_1W).sum(), (weights * y_H1).sum()]) / weights.sum()
        return Match(place, best)


@dataclass(frozen=True)
class _Query:
    """A point that is followed. origin: the map of the frame that it was given in."""

    place_px: np.ndarray
    feature_D: np.ndarray
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
    followed: dict[int, _Query] = {}
    if both_ways:
        unit_maps = list(unit_maps)
        for frame, unit_map in enumerate(unit_maps):
            followed |= _begun(frame, unit_map, queries, grid)
    points, visible = [], []
    for frame, unit_map in enumerate(unit_maps):
        begun = _begun(frame, unit_map, queries, grid)
        followed |= begun
        places_Q2, seen_Q = queries[:, :0:-1].copy(), queries[:, 0] == frame
        for number in followed.keys() - begun.keys():
            places_Q2[number], seen_Q[number] = _found(followed[number], unit_map, grid, protocol)
        points.append(places_Q2)
        visible.append(seen_Q)
    if len(queries) > len(followed):
        raise DataError(
            f"a point is given in frame {queries[:, 0].max():g}, and the video has {len(points)} frames, numbered from 0. "
            "Give it in one of them."
        )
    return FoundPoints(np.array(points), np.array(visible))


def _unit_maps(maps: Iterable[Tensor], grid: MapGrid, protocol: PropagationProtocol) -> Iterator[UnitMap]:
    for frame, map_DHW in enumerate(maps):
        if tuple(map_DHW.shape[1:]) != tuple(grid.shape):
            raise DataError(
                f"the map of frame {frame} has {map_DHW.shape[1]} x {map_DHW.shape[2]} cells, and the grid "
                f"{grid.height} x {grid.width}. Show the network frames of one size."
            )
        yield UnitMap.of(map_DHW, protocol.precision)


def _begun(frame: int, unit_map: UnitMap, queries_Q3: np.ndarray, grid: MapGrid) -> dict[int, _Query]:
    """The queries that are given in this frame, by their number."""
    numbers = np.flatnonzero(queries_Q3[:, 0] == frame)
    places = {int(number): queries_Q3[number, :0:-1] for number in numbers}
    return {n: _Query(place_px, unit_map.at(grid.to_cells(place_px)), unit_map) for n, place_px in places.items()}


def _found(query: _Query, unit_map: UnitMap, grid: MapGrid, protocol: PropagationProtocol) -> tuple[np.ndarray, bool]:
    """Where a query is in another frame, in pixels, and whether it is visible there."""
    radius, temperature = protocol.point_radius_cells, protocol.point_temperature
    there = unit_map.match(query.feature_D, radius, temperature)
    place_px = grid.to_pixels(there.cell_xy)
    if there.cosine < protocol.point_min_cosine:
        return place_px, False
    back = query.origin.match(unit_map.at(there.cell_xy), radius, temperature)
    error_px = float(np.linalg.norm(grid.to_pixels(back.cell_xy) - query.place_px))
    return place_px, error_px <= protocol.point_max_cycle_px


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
