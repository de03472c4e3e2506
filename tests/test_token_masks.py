"""Masks of tokens: how many, where, and that every cell has its turn."""

import numpy as np
import pytest

from ssvid.token_masks import random_mask, running_cells, tube_mask

GRID = (4, 6, 5)


def draw(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(("ratio", "hidden"), [(0.9, 27), (0.75, 22), (0.5, 15), (0.04, 1)])
def test_a_tube_hides_the_same_cells_at_all_times(ratio, hidden):
    for seed in range(20):
        mask_THW = tube_mask(GRID, ratio, draw(seed)).reshape(GRID)
        assert (mask_THW == mask_THW[0]).all() and mask_THW[0].sum() == hidden


def test_a_random_mask_hides_a_share_of_all_cells():
    assert {int(random_mask(GRID, 0.9, draw(seed)).sum()) for seed in range(20)} == {108}
    mask_THW = random_mask(GRID, 0.5, draw()).reshape(GRID)
    assert not (mask_THW == mask_THW[0]).all()


@pytest.mark.parametrize("mask", [tube_mask, random_mask])
def test_every_cell_is_hidden_equally_often(mask):
    times = sum(mask(GRID, 0.5, draw(seed)).astype(int) for seed in range(2000))
    assert np.abs(times - 1000).max() < 5 * np.sqrt(500)


def test_running_cells_by_hand():
    """Two of each square, in the order upper left, upper right, lower left, lower right, one further at each moment."""
    found = [running_cells((4, 2, 2), draw(seed)).reshape(4, 4).astype(int).tolist() for seed in range(40)]
    start = [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 1]]
    assert {str(one) for one in found} == {str(start[k:] + start[:k]) for k in range(4)}


def test_four_moments_of_running_cells_show_every_cell_twice_and_every_moment_half_of_the_cells():
    cells_THW = running_cells((8, 6, 4), draw(3)).reshape(8, 6, 4)
    assert (cells_THW.sum(axis=(1, 2)) == 12).all()
    assert (cells_THW[:4].sum(axis=0) == 2).all() and (cells_THW[4:].sum(axis=0) == 2).all()
    assert (cells_THW[0] != cells_THW[1]).any()
