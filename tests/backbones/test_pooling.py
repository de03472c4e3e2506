"""Blocks that are cut short, against torch's own pooling."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ssvid.backbones.pooling import RoundUpMaxPool3d


@pytest.mark.parametrize("size", [(1, 1, 1), (2, 4, 6), (3, 5, 2), (1, 7, 3)])
@pytest.mark.parametrize("block", [(2, 2, 2), (1, 2, 2), (2, 1, 1)])
def test_it_is_the_pooling_of_torch_that_rounds_up(size: tuple[int, ...], block: tuple[int, int, int]) -> None:
    x = -torch.rand(2, 3, *size)  # below zero: padding with zeros would win
    got = RoundUpMaxPool3d(block)(x)
    assert got.shape[2:] == tuple(-(-n // b) for n, b in zip(size, block, strict=True))
    assert torch.equal(got, nn.MaxPool3d(block, ceil_mode=True)(x))
