"""From maps to tokens and back, with some of the tokens dropped.

``keep_BN`` says of each cell of the grid T'H'W' (W' fastest), clip by clip, whether its token is kept: bool, equally many
in every clip, so that shapes do not depend on the draw.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ssvid.backbones.contract import BackboneInputError


def kept_places(keep_BN: Tensor, batch: int, grid: Sequence[int]) -> Tensor:
    """The numbers of the kept tokens, BK, rising in each clip.

    Args:
        batch, grid: of the clips that it is for.

    Raises:
        BackboneInputError: it is not bool, not of this size, keeps nothing, or keeps more of one clip than of another.
    """
    want = (batch, math.prod(grid))
    if keep_BN.dtype != torch.bool or tuple(keep_BN.shape) != want:
        raise BackboneInputError(
            f"keep_BN has dtype {keep_BN.dtype} and shape {tuple(keep_BN.shape)}; for {batch} clips of a grid of "
            f"{' x '.join(map(str, grid))} cells it must be bool of shape {want}. Draw one value for each cell of the map."
        )
    counts = keep_BN.sum(dim=1)
    least, most = (int(count) for count in counts.aminmax())
    if least != most or not most:
        raise BackboneInputError(
            f"keep_BN keeps {least} to {most} tokens of a clip; it must keep equally many of every clip, and at least 1. "
            "Draw a fixed number of cells per clip."
        )
    # Stable, so that the order of the kept tokens is that of the grid.
    return keep_BN.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :most]


def take_tokens(tokens_BND: Tensor, places_BK: Tensor) -> Tensor:
    """The tokens at these places, BKD."""
    return tokens_BND.gather(1, places_BK[..., None].expand(-1, -1, tokens_BND.shape[2]))


def tokens_of_map(map_BCTHW: Tensor, keep_BN: Tensor | None = None) -> Tensor:
    """The cells of a map as tokens BND; with ``keep_BN`` the kept ones alone, BKD. Errors as ``kept_places``."""
    tokens_BND = map_BCTHW.flatten(2).transpose(1, 2)
    if keep_BN is None:
        return tokens_BND
    return take_tokens(tokens_BND, kept_places(keep_BN, map_BCTHW.shape[0], map_BCTHW.shape[2:]))


def map_of_tokens(tokens_BKD: Tensor, grid: Sequence[int], keep_BN: Tensor | None = None) -> Tensor:
    """The inverse of ``tokens_of_map``: a map BCTHW, zero where no token was kept. Errors as ``kept_places``."""
    places_BK = None if keep_BN is None else kept_places(keep_BN, tokens_BKD.shape[0], grid)
    return place_tokens(tokens_BKD, grid, places_BK)


def place_tokens(tokens_BKD: Tensor, grid: Sequence[int], places_BK: Tensor | None) -> Tensor:
    """A map BCTHW of tokens at these places, zero elsewhere; None is all places in order."""
    if places_BK is not None:
        batch, _, width = tokens_BKD.shape
        empty_BND = tokens_BKD.new_zeros(batch, math.prod(grid), width)
        tokens_BKD = empty_BND.scatter(1, places_BK[..., None].expand(-1, -1, width), tokens_BKD)
    return tokens_BKD.transpose(1, 2).unflatten(2, tuple(grid))
