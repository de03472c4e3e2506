"""How a video transformer knows where a token is: tables that are added, or angles by which queries and keys are turned.

A token is a cube of the clip; the grid T', H', W' counts the cubes along time, height and width. Tokens are numbered with
W' fastest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ssvid.backbones.attention import Rotation

TEMPERATURE = 10_000.0
ROPE_LAYOUTS = ("interleaved", "tiled")


def sincos_3d(grid: Sequence[int], width: int) -> Tensor:
    """V-JEPA's table DT'H'W' (arXiv:2404.08471, its code with ``uniform_power``): a third of the width for each axis.

    Each axis takes 2 ceil(D / 6) values, sin(p w_k) for all k, then cos(p w_k), where p is the index along the axis and
    w_k = 10000^(-k / (d / 2)) of d values; time, row, column after one another, cut to D.
    """
    part = 2 * math.ceil(width / 6)
    axes = torch.meshgrid(*(torch.arange(float(cells)) for cells in grid), indexing="ij")
    angles = [axis.flatten()[:, None] * _frequencies(part) for axis in axes]
    table_ND = torch.cat([half for angle in angles for half in (angle.sin(), angle.cos())], dim=1)[:, :width]
    return table_ND.T.reshape(width, *grid)


def sincos_flat(grid: Sequence[int], width: int) -> Tensor:
    """VideoMAE's table DT'H'W' (arXiv:2203.12602, its code): one axis, the number n of the token in the whole grid.

    Value 2k is sin(n w_k), value 2k + 1 cos(n w_k), w_k = 10000^(-2k / D).
    """
    angles = torch.arange(float(math.prod(grid)))[:, None] * _frequencies(width)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1).T.reshape(width, *grid)


def _frequencies(width: int) -> Tensor:
    """w_k of so many values: half as many, from 1 on falling."""
    half = width // 2
    return TEMPERATURE ** (-torch.arange(float(half)) / half)


class FixedTable(nn.Module):
    """A table that is computed and never trained; it is no part of the state dict.

    Args:
        table_DTHW: of the grid that the network is meant for.
        mode: how it is brought to another grid in space: "bilinear" (V-JEPA, which with time is trilinear) or "bicubic",
            as is done for VideoMAE, whose flat numbers mean other places on another grid.
    """

    table_1DTHW: Tensor

    def __init__(self, table_DTHW: Tensor, mode: str) -> None:
        super().__init__()
        self.mode = mode
        self.register_buffer("table_1DTHW", table_DTHW[None], persistent=False)

    def forward(self, grid: Sequence[int]) -> Tensor:
        """What is added to the tokens of a grid, 1ND."""
        return _as_tokens(fit_table(self.table_1DTHW, grid, self.mode))


class LearnedTables(nn.Module):
    """One learned table over space and one over time, added to one another (MAE-ST, Feichtenhofer 2022, arXiv:2205.09113).

    Args:
        grid: that the network is meant for.
    """

    def __init__(self, grid: Sequence[int], width: int) -> None:
        super().__init__()
        self.grid = tuple(grid)
        self.time = nn.Parameter(torch.empty(1, grid[0], width))
        self.space = nn.Parameter(torch.empty(1, grid[1] * grid[2], width))
        for table in (self.time, self.space):
            nn.init.trunc_normal_(table, std=0.02)

    def forward(self, grid: Sequence[int]) -> Tensor:
        """What is added to the tokens of a grid, 1ND."""
        space = self.space.unflatten(1, (1, *self.grid[1:])).permute(0, 4, 1, 2, 3)
        time = self.time.transpose(1, 2)[..., None, None]
        one = (1, grid[1], grid[2])
        return _as_tokens(fit_table(space, one, "bicubic") + fit_table(time, (grid[0], 1, 1), "bilinear"))


def fit_table(table_1DTHW: Tensor, grid: Sequence[int], mode: str) -> Tensor:
    """A table for another grid; the same table where the grid is its own.

    Space is interpolated. A shorter clip takes the first rows of time, as its frames are as far apart as they were; only a
    longer one has its time stretched, linearly.

    Args:
        mode: of space: "bilinear" or "bicubic".
    """
    cells, height, width = grid
    pictures_TDHW = F.interpolate(table_1DTHW[0].transpose(0, 1), (height, width), mode=mode)
    return _stretch(pictures_TDHW, cells).transpose(0, 1)[None]


def _stretch(rows_TDHW: Tensor, cells: int) -> Tensor:
    """So many rows of time: the first ones, or all of them interpolated linearly where there are fewer.

    Written with indices, without a case for each: torch.export would hold the program to the case that it saw.
    """
    native = rows_TDHW.shape[0]
    step: float = native / torch.sym_max(native, cells)  # type: ignore[assignment]
    places = ((torch.arange(cells, device=rows_TDHW.device) + 0.5) * step - 0.5).clamp(0, native - 1)
    before = places.floor().long()
    share = (places - before)[:, None, None, None]
    after = (before + 1).clamp(max=native - 1)
    return rows_TDHW.index_select(0, before) * (1 - share) + rows_TDHW.index_select(0, after) * share


def _as_tokens(table_1DTHW: Tensor) -> Tensor:
    return table_1DTHW.flatten(2).transpose(1, 2)


def rope_3d(grid: Sequence[int], head_width: int, layout: str, device: torch.device) -> Rotation:
    """Angles of rotary positions along three axes (Su 2021, arXiv:2104.09864, as V-JEPA 2 has it, arXiv:2506.09985).

    A head is cut into three parts of d = 2 (head_width // 6) values, for the indices of frame, row and column; what is
    left is not turned. Pair k of a part is turned by index * 10000^(-k / (d / 2)).

    Args:
        layout: "interleaved", both members of a pair are turned by the pair's angle, so that attention depends on
            differences of indices alone; or "tiled": the angles of a part are laid out f0, f1, ..., f0, f1, ... while
            pairs are neighbors, so that members of a pair are turned by different angles. The public weights of V-JEPA 2
            were trained so, and need it.

    Returns:
        Cosines and sines, each (1, 1, N, head_width).
    """
    part = 2 * (head_width // 6)
    axes = torch.meshgrid(*(torch.arange(cells, device=device) for cells in grid), indexing="ij")
    angles = [axis.flatten()[:, None] * _frequencies(part).to(device) for axis in axes]
    if layout == "interleaved":
        spread = [angle.repeat_interleave(2, dim=1) for angle in angles]
    else:
        spread = [torch.cat([angle, angle], dim=1) for angle in angles]
    angles_Nd = F.pad(torch.cat(spread, dim=1), (0, head_width - 3 * part))[None, None]
    return Rotation(angles_Nd.cos(), angles_Nd.sin())
