"""CPU time of the metrics of correspondence, by frame or by query: J and F at 480p and 1080p, confusions, points.

Usage: python -m tests.benchmarks.bench_region_metrics [--repeats 7] > table.md
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter

from ssvid.evals.label_propagation.points import track_points
from ssvid.evals.label_propagation.regions import boundary_f, boundary_map, confusion, jaccard, tolerance_px
from ssvid.features.maps import MapGrid
from ssvid.features.propagation_protocol import PropagationProtocol

SIZES = {"480p": (480, 854), "1080p": (1080, 1920)}


def blob(size: tuple[int, int], share: float, seed: int) -> np.ndarray:
    """A ragged mask that covers a share of the frame, in one place."""
    rng = np.random.default_rng(seed)
    waves = gaussian_filter(rng.normal(size=size), 6)
    y, x = np.ogrid[: size[0], : size[1]]
    distance = np.hypot((y - size[0] / 2) / size[0], (x - size[1] / 2) / size[1])
    height = waves / waves.std() * 0.02 - distance
    return height > np.quantile(height, 1 - share)


def by_distances(truth_HW: np.ndarray, found_HW: np.ndarray) -> float:
    """F by distance transforms of the whole frame: what ``boundary_f`` is faster than."""
    truth, found = boundary_map(truth_HW), boundary_map(found_HW)
    radius = tolerance_px(truth.shape)
    precision, recall = (
        (distance_transform_edt(~other)[edge] <= radius).mean() for edge, other in ((found, truth), (truth, found))
    )
    return float(2 * precision * recall / (precision + recall))


def best_ms(work: Callable[[], object], repeats: int) -> float:
    """Least CPU time of a call, in milliseconds."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return 1e3 * min(taken)


def rows(repeats: int) -> list[tuple[str, float]]:
    """What was measured -> milliseconds."""
    found = []
    for name, size in SIZES.items():
        for share in (0.05, 0.5):
            masks = blob(size, share, 0), np.roll(blob(size, share, 1), 5, axis=1)
            assert boundary_f(*masks) == by_distances(*masks)
            what = f"{name}, object of {share:.0%} of the frame"
            found.append((f"J, {what}", best_ms(partial(jaccard, *masks), repeats)))
            found.append((f"F, {what}", best_ms(partial(boundary_f, *masks), repeats)))
            found.append((f"F by distance transforms, {what}", best_ms(partial(by_distances, *masks), repeats)))
        parts = np.random.default_rng(0).integers(0, 20, (2, *size)).astype(np.uint8)
        found.append((f"confusion of 20 classes, {name}", best_ms(partial(confusion, *parts, 20), repeats)))
    for cells, width in (((32, 32), 512), ((60, 107), 512)):
        found.append((f"a query in a frame of {cells[0]} x {cells[1]} cells, {width} wide", _query_ms(cells, width)))
    return found


def _query_ms(cells: tuple[int, int], width: int, num_queries: int = 40, num_frames: int = 5) -> float:
    """There and back: every point is looked for in both directions."""
    maps = [torch.randn(width, *cells, generator=torch.Generator().manual_seed(0))] * num_frames
    grid = MapGrid.placed(cells, (cells[0] * 8, cells[1] * 8), 8)
    places = np.random.default_rng(0).random((num_queries, 2)) * (np.array(cells) * 8 - 1)
    queries = np.column_stack([np.zeros(num_queries), places])
    protocol = PropagationProtocol(measure="points", point_min_cosine=-1.0)
    spent = best_ms(partial(track_points, maps, queries, grid, protocol), 3)
    alone = best_ms(partial(track_points, maps, queries[:1], grid, protocol), 3)
    return (spent - alone) / (num_queries - 1) / (num_frames - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    lines = [f"| {what} | {spent:.2f} |" for what, spent in rows(parser.parse_args().repeats)]
    print("\n".join(["| what | ms |", "|---|---|", *lines]))


if __name__ == "__main__":
    main()
