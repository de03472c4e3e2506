"""Which cells of the context look most like each cell of a frame, and how much each of them counts.

The grid of queries is cut into tiles. Where a radius holds, a tile is compared with the window of cells that its queries
reach, and with nothing else: the work grows with the radius, not with the frame. Where none holds, the window is the
whole frame. The scores of a tile are all that is held at a time.

Axis letters: N queries of a grid, n those of a tile, C cells of a window, S frames of the context, P planes of scores,
k kept cells, D width, H W rows and columns of the grid (``docs/glossary.md``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssvid.errors import SsvidError
from ssvid.features.propagation_protocol import PropagationProtocol

# Rows and columns of queries in a tile. Smaller ones compare fewer cells that no query reaches, larger ones multiply larger
# matrices: measured in docs/results/propagation.md.
_TILE_CPU, _TILE_GPU = (8, 16), (16, 16)
_TILE_EVERYWHERE = (8, 64)  # where no radius holds
_MIN_PLANES = 8  # a frame is folded where there are fewer


class Affinity(NamedTuple):
    """The kept cells of each query, best first, and their weights.

    weights_Nk: float32, from 0 to 1. cells_Nk: int64, position in the context times H * W, plus row * W + column. Where a
    query reaches fewer than k cells, weights of 0 fill up.
    """

    weights_Nk: Tensor
    cells_Nk: Tensor


def affinity(
    query_DHW: Tensor, context_SDHW: Sequence[Tensor], protocol: PropagationProtocol, first: Sequence[int] = (0,)
) -> Affinity:
    """The cells of a context that each cell of a frame takes its label from, and their weights.

    The score of a pair of cells is the inner product of their features over the temperature (Wang et al., CVPR 2019,
    equation 2; Jabri et al., NeurIPS 2020, section 3.4); the protocol says which cells are candidates, how many are kept,
    and over which the softmax is taken.

    Args:
        query_DHW: float features of the frame, as the network gives them: they are normalized here.
        context_SDHW: those of the context, of the same shape.
        first: positions in the context that are the first frame, which the radius may leave alone.

    Returns:
        k = ``top_k`` cells for each query (row by row), or ``top_k`` of each frame in turn with ``top_k_over="frame"``.
    """
    frames = [Candidates(FrameCells(f_DHW, protocol), p in first) for p, f_DHW in enumerate(context_SDHW)]
    parts = list(matches(FrameCells(query_DHW, protocol), frames, protocol))
    num_kept = max(part.weights_nk.shape[1] for part in parts)
    filled = [tuple(F.pad(x_nk, (0, num_kept - x_nk.shape[1])) for x_nk in part[1:]) for part in parts]
    order_N = torch.cat([part.queries_n for part in parts]).argsort()
    weights_Nk, cells_Nk = (torch.cat([part[i] for part in filled])[order_N] for i in (0, 1))
    return Affinity(weights_Nk, cells_Nk)


class FrameCells:
    """The features of one frame, normalized and laid out for matching: HWD.

    Raises:
        SsvidError: a feature is not finite.
    """

    def __init__(self, features_DHW: Tensor, protocol: PropagationProtocol) -> None:
        features_HWD = features_DHW.detach().float().permute(1, 2, 0)
        if protocol.normalization == "l2":
            features_HWD = F.normalize(features_HWD, dim=-1)
        if protocol.precision == "float16":
            features_HWD = features_HWD.half()
            if not features_HWD.is_cuda:  # half products are slow there: rounded alike, multiplied in float32
                features_HWD = features_HWD.float()
        self.features_HWD = features_HWD.contiguous()
        if not self.features_HWD.isfinite().all():
            raise SsvidError(
                "the features of a frame are not finite. The weights of the backbone are damaged or its training "
                "diverged: look at the loss in metrics.jsonl, or take an earlier checkpoint."
            )

    def columns(self, columns: Span) -> Tensor:
        """Some columns of cells as one block of memory, so that rows of it are one too."""
        return self.features_HWD[:, columns[0] : columns[1]].contiguous()


class Candidates(NamedTuple):
    """A frame of the context, and whether it is the first one."""

    cells: FrameCells
    is_first: bool


Span = tuple[int, int]


class Tile(NamedTuple):
    """A rectangle of queries: its rows and columns, and those of the window that it reaches."""

    y: Span
    x: Span
    window_y: Span
    window_x: Span


@dataclass(frozen=True)
class Tiling:
    """How a grid is cut into tiles, and how far the queries of a tile reach.

    reach: cells up, down, left and right; None is everywhere.
    """

    height: int
    width: int
    tile: tuple[int, int]
    reach: int | None
    protocol: PropagationProtocol

    @staticmethod
    def of(query: FrameCells, protocol: PropagationProtocol) -> Tiling:
        """The tiling of a frame's grid for a protocol's radius."""
        radius = protocol.radius_cells
        reach = math.floor(radius) if protocol.radius_includes else math.ceil(radius) - 1
        near = _TILE_GPU if query.features_HWD.is_cuda else _TILE_CPU
        tile = near if radius else _TILE_EVERYWHERE
        height, width, _ = query.features_HWD.shape
        return Tiling(height, width, tile, reach if radius else None, protocol)

    def columns(self) -> Iterator[list[Tile]]:
        """The tiles below one another, for each column of tiles; they reach the same columns of cells."""
        for x in _spans(self.width, self.tile[1]):
            window_x = _reach(x, self.width, self.reach)
            yield [Tile(y, x, _reach(y, self.height, self.reach), window_x) for y in _spans(self.height, self.tile[0])]

    def is_outside(self, tile: Tile, device: torch.device) -> Tensor:
        """Which cells of the window each query of a tile does not reach, nC."""
        dy_hywx = _distances(tile.y, tile.window_y, device)[:, None, :, None]
        dx_hywx = _distances(tile.x, tile.window_x, device)[None, :, None, :]
        radius, is_circle = self.protocol.radius_cells, self.protocol.radius_shape == "circle"
        far = dy_hywx**2 + dx_hywx**2 if is_circle else torch.maximum(dy_hywx, dx_hywx)
        limit = radius**2 if is_circle else radius
        outside = far > limit if self.protocol.radius_includes else far >= limit
        return outside.flatten(2).flatten(0, 1)

    def cells_in(self, rows: Span, columns: Span, device: torch.device) -> Tensor:
        """The numbers (row * W + column) of the cells of a rectangle, row by row."""
        starts = torch.arange(*rows, device=device)[:, None] * self.width
        return (starts + torch.arange(*columns, device=device)).flatten()


def _spans(length: int, step: int) -> list[Span]:
    return [(start, min(start + step, length)) for start in range(0, length, step)]


def _reach(span: Span, length: int, reach: int | None) -> Span:
    return (0, length) if reach is None else (max(0, span[0] - reach), min(length, span[1] + reach))


def _distances(own: Span, window: Span, device: torch.device) -> Tensor:
    return (torch.arange(*own, device=device)[:, None] - torch.arange(*window, device=device)).abs()


class Matches(NamedTuple):
    """What a tile of queries takes from the context: weights and cells as in ``Affinity``, of the queries of these numbers."""

    queries_n: Tensor
    weights_nk: Tensor
    cells_nk: Tensor


def matches(query: FrameCells, context: Sequence[Candidates], protocol: PropagationProtocol) -> Iterator[Matches]:
    """The same as ``affinity``, tile by tile, so that it never lies in memory whole."""
    tiling = Tiling.of(query, protocol)
    whole, near = ([p for p, c in enumerate(context) if _sees_all(protocol, c) is sees] for sees in (True, False))
    frames = [c.cells for c in context]
    for tiles in tiling.columns():
        strips = {p: frames[p].columns(tiles[0].window_x) for p in near}
        for tile in tiles:
            own = _Queries(query, tile, tiling)
            found = [*own.best_everywhere({p: frames[p].features_HWD for p in whole}), *own.best_near(strips)]
            yield Matches(own.numbers_n, *_weighted(found, len(context), protocol))


def _sees_all(protocol: PropagationProtocol, candidates: Candidates) -> bool:
    return not protocol.radius_cells or (candidates.is_first and not protocol.radius_on_first)


class _Best(NamedTuple):
    """Scores over the temperature and cells, nk, -inf where there are fewer; and log-sum-exp of each frame's candidates, Sn, or None."""

    scores_nk: Tensor
    cells_nk: Tensor
    total_Sn: Tensor | None


class _Queries:
    """The queries of one tile, and what they find. Frames are given by their position in the context."""

    def __init__(self, frame: FrameCells, tile: Tile, tiling: Tiling) -> None:
        (top, bottom), (left, right) = tile.y, tile.x
        self.features_nD = frame.features_HWD[top:bottom, left:right].flatten(0, 1)
        self.device = self.features_nD.device
        self.numbers_n = tiling.cells_in(tile.y, tile.x, self.device)
        self.tile, self.tiling, self.protocol = tile, tiling, tiling.protocol

    def best_everywhere(self, frames: Mapping[int, Tensor]) -> Iterator[_Best]:
        """The best of all cells of frames HWD."""
        cells_C = torch.arange(self.tiling.height * self.tiling.width, device=self.device)
        return self._best({p: frame_HWD.flatten(0, 1) for p, frame_HWD in frames.items()}, cells_C, None)

    def best_near(self, strips: Mapping[int, Tensor]) -> Iterator[_Best]:
        """The best of the cells within the radius, of frames that are cut to the window's columns, HwD."""
        rows, columns = self.tile.window_y, self.tile.window_x
        windows = {p: strip_HwD[rows[0] : rows[1]].flatten(0, 1) for p, strip_HwD in strips.items()}
        cells_C = self.tiling.cells_in(rows, columns, self.device)
        return self._best(windows, cells_C, self.tiling.is_outside(self.tile, self.device))

    def _best(self, windows: Mapping[int, Tensor], cells_C: Tensor, outside_nC: Tensor | None) -> Iterator[_Best]:
        """The best of windows CD; of each frame by itself where the protocol says so."""
        protocol, num_cells = self.protocol, self.tiling.height * self.tiling.width
        fitting = max(1, protocol.max_mb * 10**6 // (4 * len(self.features_nD) * len(cells_C)))
        at_once = 1 if protocol.top_k_over == "frame" else fitting
        order = list(windows)
        for start in range(0, len(order), at_once):
            positions = order[start : start + at_once]
            scores_SnC = self._scores([windows[p] for p in positions])
            best_nk, at_nk = best_scores(scores_SnC, outside_nC, protocol.top_k)
            base_S = torch.tensor(positions, device=self.device) * num_cells
            found_nk = base_S[at_nk // len(cells_C)] + cells_C[at_nk % len(cells_C)]
            yield _Best(best_nk, found_nk, _total(scores_SnC, outside_nC) if protocol.softmax_over == "all" else None)

    def _scores(self, windows_CD: Sequence[Tensor]) -> Tensor:
        """Inner products over the temperature, SnC float32."""
        queries_nD, temperature = self.features_nD, self.protocol.temperature
        if queries_nD.dtype == torch.float16:
            return torch.stack([queries_nD @ window_CD.T for window_CD in windows_CD]).float() / temperature
        scores_SnC = queries_nD.new_empty(len(windows_CD), len(queries_nD), len(windows_CD[0]))
        scaled_nD = queries_nD / temperature
        for scores_nC, window_CD in zip(scores_SnC, windows_CD, strict=True):
            torch.mm(scaled_nD, window_CD.T, out=scores_nC)
        return scores_SnC


def best_scores(scores_SnC: Tensor, outside_nC: Tensor | None, k: int) -> tuple[Tensor, Tensor]:
    """The k largest scores of each query and their places s * C + c, largest first; k = 0 takes all.

    What is outside is -inf. Not all scores are sorted: the maxima over the frames are, and only a column whose maximum is
    among the k largest can hold one of the k largest scores.
    """
    num_frames, _, num_cells = scores_SnC.shape
    if k == 0 or k >= num_frames * num_cells:
        all_nM = _masked(scores_SnC, outside_nC).transpose(0, 1).flatten(1)
        return all_nM.sort(dim=1, descending=True, stable=True)
    if num_frames == 1:
        return _best_of_one(_masked(scores_SnC, outside_nC)[0], k)
    peaks_nC = _masked(scores_SnC.amax(dim=0), outside_nC)
    return _best_of_planes(scores_SnC, peaks_nC, k)


def _best_of_one(scores_nC: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The same for one frame, which is folded into planes."""
    num_planes = max(1, math.isqrt(scores_nC.shape[1] // k))
    if num_planes < _MIN_PLANES:
        return scores_nC.topk(k, dim=1)
    length = scores_nC.shape[1] // num_planes
    planes_PnL = scores_nC[:, : num_planes * length].unflatten(1, (num_planes, length)).transpose(0, 1)
    best_nk, at_nk = _best_of_planes(planes_PnL, planes_PnL.amax(dim=0), k)
    rest_nR = scores_nC[:, num_planes * length :]
    rest_at_nR = torch.arange(num_planes * length, scores_nC.shape[1], device=scores_nC.device).expand_as(rest_nR)
    return _best_of(torch.cat([best_nk, rest_nR], dim=1), torch.cat([at_nk, rest_at_nR], dim=1), k)


def _best_of_planes(scores_PnL: Tensor, peaks_nL: Tensor, k: int) -> tuple[Tensor, Tensor]:
    num_planes, _, length = scores_PnL.shape
    top_nk, columns_nk = peaks_nL.topk(min(k, length), dim=1)
    held_Pnk = scores_PnL.gather(2, columns_nk.expand(num_planes, -1, -1))
    held_Pnk = held_Pnk.masked_fill(top_nk == -math.inf, -math.inf)
    planes_P11 = torch.arange(num_planes, device=columns_nk.device)[:, None, None]
    at_Pnk = planes_P11 * length + columns_nk
    return _best_of(held_Pnk.transpose(0, 1).flatten(1), at_Pnk.transpose(0, 1).flatten(1), k)


def _best_of(scores_nM: Tensor, at_nM: Tensor, k: int) -> tuple[Tensor, Tensor]:
    best_nk, order_nk = scores_nM.topk(min(k, scores_nM.shape[1]), dim=1)
    return best_nk, at_nM.gather(1, order_nk)


def _masked(scores: Tensor, outside_nC: Tensor | None) -> Tensor:
    return scores if outside_nC is None else scores.masked_fill(outside_nC, -math.inf)


def _total(scores_SnC: Tensor, outside_nC: Tensor | None) -> Tensor:
    """Log-sum-exp over all candidates of each frame, Sn: by frame, so that it does not depend on which are read together."""
    return _masked(scores_SnC, outside_nC).logsumexp(dim=2)


def _weighted(found: Sequence[_Best], num_frames: int, protocol: PropagationProtocol) -> tuple[Tensor, Tensor]:
    """Weights and cells of a tile, from what each group or frame has."""
    if protocol.top_k_over == "frame":
        parts = [_softmax(best.scores_nk, best.total_Sn) / num_frames for best in found]
        return torch.cat(parts, dim=1), torch.cat([best.cells_nk for best in found], dim=1)
    scores_nM = torch.cat([best.scores_nk for best in found], dim=1)
    cells_nM = torch.cat([best.cells_nk for best in found], dim=1)
    totals = [best.total_Sn for best in found if best.total_Sn is not None]
    scores_nk, cells_nk = _best_of(scores_nM, cells_nM, protocol.top_k or scores_nM.shape[1])
    cells_nk, order_nk = cells_nk.sort(dim=1)  # equal scores stand by place, however frames were read
    scores_nk, by_score_nk = scores_nk.gather(1, order_nk).sort(dim=1, descending=True, stable=True)
    return _softmax(scores_nk, torch.cat(totals) if totals else None), cells_nk.gather(1, by_score_nk)


def _softmax(scores_nk: Tensor, total_Sn: Tensor | None) -> Tensor:
    if total_Sn is None:
        return scores_nk.softmax(dim=1)
    return (scores_nk - total_Sn.logsumexp(dim=0)[:, None]).exp()
