"""Putting moments in order: orders as classes, the head that compares moments two by two, and what pixels alone say.

What the tasks share that show moments of a video out of order and ask for the order (OPN, Lee et al., ICCV 2017; VCOP, Xu
et al., CVPR 2019). Moments are frames or clips; N of them, of which P = N (N - 1) / 2 pairs can be made.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import combinations, permutations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssvid.backbones import Backbone
from ssvid.pictures import GRAY, LIGHT, RIGHT, WRONG, row, sheet, words
from ssvid.types import TaskOutput

_FRAME_PX, _WORDS_PX = 4, 84


@cache
def orders_of(num: int, *, up_to_reversal: bool = False) -> np.ndarray:
    """All orders of so many moments, int64 (K, num): row k is the order of class k, the moments' numbers as shown.

    As a dictionary lists them. With ``up_to_reversal`` two orders are one class that change places when time runs backward
    (moment n becomes num - 1 - n), and the first of them stands for both: num! / 2 classes.
    """
    every = np.array(list(permutations(range(num))), dtype=np.int64)
    orders = every[: len(every) // 2] if up_to_reversal else every
    orders.setflags(write=False)
    return orders


def draw_orders(orders_KN: np.ndarray, rng: np.random.Generator, *, every: bool) -> np.ndarray:
    """Classes of the orders in which one window is shown, int64 (V,): one at random, or every one."""
    return np.arange(len(orders_KN)) if every else rng.integers(len(orders_KN), size=1)


# ---- features, head, loss --------------------------------------------------------------------------------------------


def pool_to_grid(map_BCTHW: Tensor, grid: int) -> Tensor:
    """Mean over time, and over each of grid x grid cells of the picture: (B, C * grid * grid).

    By two products with matrices of means, whose gradients are the same in every run, unlike those of adaptive pooling
    on a GPU. Cells overlap where the side is no multiple of the grid.
    """
    map_BCHW = map_BCTHW.mean(dim=2)
    rows = _means(map_BCHW.shape[-2], grid).to(map_BCHW)
    columns = _means(map_BCHW.shape[-1], grid).to(map_BCHW)
    return (rows @ map_BCHW @ columns.T).flatten(1)


def _means(length: int, grid: int) -> Tensor:
    """Row i is the mean over cell i of ``grid`` cells that cover ``length``: (grid, length)."""
    matrix = torch.zeros(grid, length)
    for i in range(grid):
        low, high = i * length // grid, -(-(i + 1) * length // grid)
        matrix[i, low:high] = 1.0 / (high - low)
    return matrix


def gather_orders(features_BND: Tensor, order_BVN: Tensor) -> Tensor:
    """The features of each window's moments in the orders in which they are shown: (B, V, N, D)."""
    B, V, N = order_BVN.shape
    places = order_BVN.reshape(B, V * N, 1).expand(-1, -1, features_BND.shape[-1])
    return features_BND.gather(1, places).reshape(B, V, N, -1)


def in_orders(moments_BNCTHW: Tensor, order_BVN: Tensor, backbone: Backbone, stage: str | None, grid: int) -> Tensor:
    """The features of each window's moments in the orders in which they are shown, (B, V, N, D): each goes through the network once."""
    map_BCTHW = backbone(moments_BNCTHW.flatten(0, 1), stage)
    features_BND = pool_to_grid(map_BCTHW, grid).unflatten(0, moments_BNCTHW.shape[:2])
    return gather_orders(features_BND, order_BVN)


class PairwiseHead(nn.Module):
    """Logits of all orders, from moments compared two by two.

    h_ij = relu(U [f_i, f_j] + u) for each pair i < j of places, by one layer for all pairs; z = W [h_12, h_13, ...] + w
    (Lee 2017, section 3.3; Xu 2019, section 3.2).

    Args:
        width: D, of the features of a moment. num_moments: N. num_classes: K. hidden: width of h.
        dropout: probability that a value of h is left out of the last layer. pair_norm: batch normalization before the relu
            (Lee 2017).
    """

    def __init__(
        self, width: int, num_moments: int, num_classes: int, *, hidden: int, dropout: float, pair_norm: bool = False
    ) -> None:
        super().__init__()
        self.first, self.second = zip(*combinations(range(num_moments), 2), strict=True)
        norm = [nn.BatchNorm1d(hidden)] if pair_norm else []
        self.pair = nn.Sequential(nn.Linear(2 * width, hidden, bias=not pair_norm), *norm, nn.ReLU())
        self.dropout = nn.Dropout(dropout)
        self.orders = nn.Linear(len(self.first) * hidden, num_classes)

    def forward(self, features_BVND: Tensor) -> Tensor:
        """Logits (B, V, K) of moments in the order shown."""
        pairs_BVPD = torch.cat([features_BVND[:, :, self.first], features_BVND[:, :, self.second]], dim=-1)
        hidden = self.pair(pairs_BVPD.flatten(0, 2)).unflatten(0, pairs_BVPD.shape[:3])
        return self.orders(self.dropout(hidden.flatten(2)))


def class_loss(logits_BVK: Tensor, class_BV: Tensor) -> Tensor:
    """Cross-entropy, mean over all orders of all windows, in float32: L = -mean log softmax(z)[class]."""
    return F.cross_entropy(logits_BVK.flatten(0, 1).float(), class_BV.flatten())


def order_output(
    logits_BVK: Tensor, class_BV: Tensor, cost_BNN: Tensor, order_BVN: Tensor, orders: Tensor
) -> TaskOutput:
    """Loss and metrics of a batch: ``accuracy`` and, of what pixels alone say, ``pixel_accuracy``; means over orders shown."""
    said_BV = logits_BVK.detach().argmax(dim=-1)
    by_pixels_BV = smoothest_class(cost_BNN, order_BVN, orders)
    return TaskOutput(
        loss=class_loss(logits_BVK, class_BV),
        metrics={
            "accuracy": (said_BV == class_BV).float().mean(dim=1),
            "pixel_accuracy": (by_pixels_BV == class_BV).float().mean(dim=1),
        },
        extras={"said": said_BV},
    )


# ---- what pixels alone say -------------------------------------------------------------------------------------------


def pixel_costs(ends_BNCHW: Tensor, starts_BNCHW: Tensor) -> Tensor:
    """How unlike the end of each moment is to the start of each other: root mean square over pixels, float (B, N, N)."""
    return mean_squares(ends_BNCHW, starts_BNCHW).sqrt()


def mean_squares(ends: Tensor, starts: Tensor) -> Tensor:
    """Mean squared difference of the end of each of N moments (B, N, ...) and the start of each other one, float (B, N, N)."""
    ends_BND, starts_BND = ends.flatten(2).float(), starts.flatten(2).float()
    squares = [(ends_BND - start_BD.unsqueeze(1)).square().mean(dim=2) for start_BD in starts_BND.unbind(dim=1)]
    return torch.stack(squares, dim=2)


def smoothest_class(cost_BNN: Tensor, order_BVN: Tensor, orders_KN: Tensor) -> Tensor:
    """The order that pixels alone suggest, int64 (B, V): in which each moment begins most like the one before it ends.

    A guess without a network: of all orders the one whose sum of costs from moment to moment is least, the first where
    several are. What a trained network must beat, or it has learned to compare pixels.
    """
    claimed_BVKN = order_BVN[:, :, orders_KN.argsort(dim=1)]
    windows = torch.arange(len(cost_BNN), device=cost_BNN.device).view(-1, 1, 1, 1)
    return cost_BNN[windows, claimed_BVKN[..., :-1], claimed_BVKN[..., 1:]].sum(dim=-1).argmin(dim=-1)


# ---- pictures --------------------------------------------------------------------------------------------------------


def order_rows(moments: Sequence[np.ndarray], order_N: np.ndarray, said_N: np.ndarray) -> np.ndarray:
    """A window as it is shown, and below it as the network puts it in order, green where a moment is in its place.

    Args:
        moments: a picture of each, in the order of time. order_N: their numbers in the order shown. said_N: the order that
            the network says it is.
    """
    sorted_N = order_N[np.argsort(said_N)]
    side = len(moments[0])
    shown = [words([("shown", LIGHT)], _WORDS_PX, side), *(_framed(moments[i], GRAY) for i in order_N)]
    colors = [RIGHT if moment == place else WRONG for place, moment in enumerate(sorted_N)]
    verdict = ("right", RIGHT) if (sorted_N == np.arange(len(sorted_N))).all() else ("wrong", WRONG)
    told = words([("sorted", LIGHT), verdict], _WORDS_PX, side)
    in_order = [told, *(_framed(moments[i], color) for i, color in zip(sorted_N, colors, strict=True))]
    return np.pad(sheet([row(shown), row(in_order)]), ((0, 8), (0, 0), (0, 0)))


def _framed(picture: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    framed = np.empty_like(picture)
    framed[:] = color
    inner = slice(_FRAME_PX, -_FRAME_PX)
    framed[inner, inner] = picture[inner, inner]
    return framed
