"""Masks of tokens: how many, where, and that every cell has its turn."""

import numpy as np
import pytest

from ssvid.token_masks import (
    Blocks,
    block_size,
    keep_some,
    multi_block_masks,
    place_blocks,
    random_mask,
    running_cells,
    tube_mask,
)

GRID = (4, 6, 5)


def draw(seed=0):
    return np.random.default_rng(seed)


def draws(num, seed=0):
    return [np.random.default_rng([seed, i]) for i in range(num)]


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


# ---- blocks

SHORT, LONG = Blocks(8, 0.15), Blocks(2, 0.7)


def test_the_size_of_a_block_by_hand():
    """Of 14 x 14 cells 0.15 are 29: at aspect 1 a square of 5 x 5 (5.39 is rounded), at 1.5 7 x 4, at 0.75 5 x 6."""
    for aspect, size in ((1.0, (5, 5)), (1.5, (7, 4)), (0.75, (5, 6))):
        assert block_size((14, 14), Blocks(8, 0.15, (aspect, aspect)), draw()) == size
    assert block_size((14, 14), Blocks(2, 0.7, (1.5, 1.5)), draw()) == (14, 10)  # 14.3 rows are cut to the grid
    assert block_size((4, 4), Blocks(1, 0.05, (1.0, 1.0)), draw()) == (1, 1)
    assert block_size((3, 2), Blocks(1, 1.0, (1.5, 1.5)), draw()) == (2, 2)  # never all


def test_a_union_of_blocks_is_that_of_rectangles_anywhere():
    corners = set()
    for seed in range(300):
        one_HW = place_blocks((5, 4), (2, 3), 1, draw(seed))
        rows, columns = (np.flatnonzero(one_HW.any(axis=axis)) for axis in (1, 0))
        assert len(rows) == 2 and len(columns) == 3 and one_HW.sum() == 6
        corners.add((int(rows[0]), int(columns[0])))
    assert corners == {(top, left) for top in range(4) for left in range(2)}
    two_HW = place_blocks((5, 4), (2, 3), 2, draw(1))
    assert 6 <= two_HW.sum() <= 12


@pytest.mark.parametrize("blocks", [SHORT, LONG, Blocks(1, 0.5), Blocks(30, 0.5), Blocks(2, 0.95)])
@pytest.mark.parametrize("grid", [(4, 14, 14), (2, 4, 4), (3, 2, 5), (1, 1, 2)])
def test_context_and_target_are_disjoint_and_equally_many_in_every_sample(grid, blocks):
    for seed in range(10):
        context_BN, target_BN = multi_block_masks(grid, blocks, draw(seed), draws(6, seed))
        assert context_BN.shape == target_BN.shape == (6, np.prod(grid)) and context_BN.dtype == bool
        assert not (context_BN & target_BN).any()
        for mask_BN in (context_BN, target_BN):
            assert len(set(mask_BN.sum(axis=1).tolist())) == 1 and mask_BN[0].any()


def test_blocks_last_for_the_whole_clip_and_lie_elsewhere_in_every_sample():
    """The target, and what a block of it that lost cells at random lost, is one rectangle of the drawn size at every moment."""
    grid, blocks = (16, 8, 8), Blocks(1, 0.25, (1.0, 1.0))
    context_BN, target_BN = multi_block_masks(grid, blocks, draw(), draws(20))
    places = set()
    for context_N, target_N in zip(context_BN, target_BN, strict=True):
        target_THW = target_N.reshape(grid)
        assert (target_THW == target_THW[0]).all() and np.array_equal(~context_N, target_N)
        rows, columns = (np.flatnonzero(target_THW[0].any(axis=axis)) for axis in (1, 0))
        assert len(rows) == len(columns) == 4 and target_THW[0].sum() == 16
        places.add((int(rows[0]), int(columns[0])))
    assert len(places) > 10


def test_counts_are_the_same_however_the_batch_is_cut():
    """Any part of the samples, with the batch's generator as it is on every device, gives the same rows."""
    whole = multi_block_masks((2, 14, 14), SHORT, draw(5), draws(8))
    for part in (slice(0, 3), slice(3, 4), slice(4, 8)):
        mine = multi_block_masks((2, 14, 14), SHORT, draw(5), draws(8)[part])
        for all_BN, some_BN in zip(whole, mine, strict=True):
            assert np.array_equal(all_BN[part], some_BN)
    sizes = {int(multi_block_masks((2, 14, 14), SHORT, draw(s), draws(1))[1].sum()) for s in range(20)}
    assert len(sizes) > 5  # another batch, another size


def test_the_union_covers_the_grid_before_cells_are_dropped():
    """What is neither context nor target is what the overlap of a sample's blocks was more or less than the batch's extremes."""
    for seed in range(20):
        context_BN, target_BN = multi_block_masks((1, 14, 14), SHORT, draw(seed), draws(8, seed))
        shared = draw(seed)
        size = block_size((14, 14), SHORT, shared)
        counts = [int(place_blocks((14, 14), size, 8, shared).sum()) for _ in range(16)]
        assert target_BN[0].sum() == min(counts) and context_BN[0].sum() == 196 - max(counts)


def test_dropping_takes_no_moment_more_often_than_another():
    """The bias of cutting sorted lists: the last moments would be dropped always, and the first never."""
    grid = (8, 6, 6)
    kept_TB = np.zeros(8)
    for seed in range(200):
        context_BN, target_BN = multi_block_masks(grid, SHORT, draw(seed), draws(4, seed))
        kept_TB += (target_BN | context_BN).reshape(4, 8, 36).sum(axis=(0, 2))
    assert kept_TB.min() / kept_TB.max() > 0.97 and kept_TB.max() < 4 * 200 * 36  # some are dropped, alike at all times


def test_some_of_a_mask_are_kept_evenly():
    mask_N = np.array([1, 0, 1, 1, 0, 1], dtype=bool)
    times = sum(keep_some(mask_N, 2, draw(seed)).astype(int) for seed in range(2000))
    assert times[~mask_N].tolist() == [0, 0] and np.abs(times[mask_N] - 1000).max() < 5 * np.sqrt(500)
