"""Which tokens of a clip a network does not see: pure functions on a grid of cells T'H'W' (W' fastest).

What the tasks share that hide a part of a clip and ask for it. A mask is bool (N,), True where a token is hidden; for
one grid and one setting it always hides equally many, so that shapes do not depend on the draw.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ssvid.backbones import BackboneInfo

_RUNNING = (True, True, False, False)  # of the four cells of a square, in turn
_TRIES = 16  # draws of the places of blocks: of the batch, and of a sample until one is as the batch's


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


# ---- blocks that are predicted from what lies around them


class Blocks(NamedTuple):
    """Blocks of one size that last for the whole clip: ``num`` of them, each ``scale`` of the cells of a moment, of which height over
    width is drawn evenly from ``aspect``.
    """

    num: int
    scale: float
    aspect: tuple[float, float] = (0.75, 1.5)


class BlockMasks(NamedTuple):
    """context_BN: the cells that are seen. target_BN: those that are predicted. Bool, W' fastest, equally many of each in every sample."""

    context_BN: np.ndarray
    target_BN: np.ndarray


def multi_block_masks(
    grid: Sequence[int], blocks: Blocks, shared: np.random.Generator, samples: Sequence[np.random.Generator]
) -> BlockMasks:
    """Multi-block masking (V-JEPA, Bardes et al. 2024, section 3.2): the union of the blocks is predicted from the rest.

    The size of the blocks is drawn once for the batch, their places sample by sample. How much blocks overlap differs, and shapes must
    not: of some placements that are drawn for the batch the smallest and the largest union are taken; a sample's blocks are placed anew
    until theirs lies between (after 16 tries it takes one of the batch's placements). Then random cells are dropped, of the target down to the
    smallest union, of the context down to what the largest one leaves. So both numbers are functions of ``shared`` alone, the same
    on every device.

    Differs: the authors cut sorted lists of cells to the smallest of the batch, which takes away the last moments.

    Args:
        shared: of the global batch. samples: one for each sample.
    """
    T, H, W = grid
    size = block_size((H, W), blocks, shared)
    unions_MHW = [place_blocks((H, W), size, blocks.num, shared) for _ in range(_TRIES)]
    usable_MHW = [union for union in unions_MHW if not union.all()] or [place_blocks((H, W), size, 1, shared)]
    counts = [int(union.sum()) for union in usable_MHW]
    fewest, most = min(counts), max(counts)
    context, target = [], []
    for rng in samples:
        tries = (place_blocks((H, W), size, blocks.num, rng) for _ in range(_TRIES))
        fitting = (union for union in tries if fewest <= union.sum() <= most)
        union_HW = next(fitting, None)
        if union_HW is None:
            union_HW = usable_MHW[int(rng.integers(len(usable_MHW)))]
        union_N = np.tile(union_HW.reshape(-1), T)
        target.append(keep_some(union_N, T * fewest, rng))
        context.append(keep_some(~union_N, T * (H * W - most), rng))
    return BlockMasks(np.stack(context), np.stack(target))


def block_size(grid: Sequence[int], blocks: Blocks, rng: np.random.Generator) -> tuple[int, int]:
    """Height and width in cells of a moment's grid H'W': sqrt(n a) and sqrt(n / a), rounded, of n = int(scale H' W') cells and aspect a.

    At least 1 and at most the side of the grid; never the whole grid: its longer side is then left one cell free.
    """
    H, W = grid
    cells, aspect = int(blocks.scale * H * W), rng.uniform(*blocks.aspect)
    height, width = (round(math.sqrt(cells * ratio)) for ratio in (aspect, 1 / aspect))
    height, width = min(max(height, 1), H), min(max(width, 1), W)
    if (height, width) == (H, W):
        return (height - 1, width) if H >= W else (height, width - 1)
    return height, width


def place_blocks(grid: Sequence[int], size: tuple[int, int], num: int, rng: np.random.Generator) -> np.ndarray:
    """The union of ``num`` blocks of one size, each anywhere inside H'W' with equal probability: bool (H', W')."""
    (H, W), (height, width) = grid, size
    union_HW = np.zeros((H, W), dtype=bool)
    for top, left in rng.integers((H - height + 1, W - width + 1), size=(num, 2)):
        union_HW[top : top + height, left : left + width] = True
    return union_HW


def keep_some(mask_N: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` of the cells of a mask, evenly drawn; it has at least as many."""
    kept_N = np.zeros_like(mask_N)
    kept_N[rng.permutation(np.flatnonzero(mask_N))[:count]] = True
    return kept_N


# ---- networks whose tokens can be left out


def no_tokens(hidden: str, backbone: BackboneInfo) -> str:
    """Why a network cannot be used that has no tokens to leave out, without a way out, as ``OptionError`` takes it. hidden: what is hidden."""
    return (
        f"{hidden} are hidden by leaving their tokens out, and backbone {backbone.name} has no tokens to leave out; take "
        "one that has, such as vit"
    )


def part_cubes(num_frames: int, frame_px: int, backbone: BackboneInfo) -> Iterator[str]:
    """What is wrong with clips that the network's cubes do not fill: a problem for each option, as ``check_options`` takes them."""
    last = backbone.stage()
    for name, value, stride in (
        ("num_frames", num_frames, last.stride_time),
        ("frame_px", frame_px, last.stride_space),
    ):
        if value % stride:
            yield f"{name} ({value}) must be a multiple of {stride}, the side of a cube of backbone {backbone.name}"
