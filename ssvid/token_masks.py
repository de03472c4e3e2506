"""Which tokens of a clip a network does not see: pure functions on a grid of cells T'H'W' (W' fastest).

What the tasks share that hide a part of a clip and ask for it. A mask is bool (N,), True where a token is hidden; for
one grid and one setting it always hides equally many, so that shapes do not depend on the draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

_RUNNING = (True, True, False, False)  # of the four cells of a square, in turn


def tube_mask(grid: Sequence[int], ratio: float, rng: np.random.Generator) -> np.ndarray:
    """The same cells at all times: int(ratio H' W') of one moment, evenly drawn (VideoMAE, Tong et al. 2022, 3.3)."""
    T, H, W = grid
    return np.tile(random_mask((1, H, W), ratio, rng), T)


def random_mask(grid: Sequence[int], ratio: float, rng: np.random.Generator) -> np.ndarray:
    """int(ratio N) of all cells, evenly drawn, whatever lies beside or behind (MAE-ST, Feichtenhofer et al. 2022)."""
    count = math.prod(grid)
    mask_N = np.zeros(count, dtype=bool)
    mask_N[rng.permutation(count)[: int(ratio * count)]] = True
    return mask_N


def running_cells(grid: Sequence[int], rng: np.random.Generator) -> np.ndarray:
    """Half of the cells: of each square of 2 x 2 two, which run on by one from a moment to the next, so that four
    moments show all (VideoMAE v2, Wang et al. 2023, 3.2). Where they begin is drawn. Bool (N,), True for those cells.
    """
    T, H, W = grid
    place_HW = 2 * (np.arange(H)[:, None] % 2) + np.arange(W)[None] % 2
    turn_THW = (place_HW[None] - np.arange(T)[:, None, None] - int(rng.integers(4))) % 4
    return np.array(_RUNNING)[turn_THW].reshape(-1)
