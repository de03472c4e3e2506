"""Histograms of directions: fields that are known, turned and mirrored."""

import numpy as np
import pytest

from ssvid.features.orientations import (
    MOTION_BINS,
    cell_sums,
    direction_maps,
    flow_maps,
    gradient_maps,
    motion_maps,
)

pytest.importorskip("cv2", reason="needs OpenCV: pip install 'ssvid[motion]'")


@pytest.fixture
def field():
    return np.random.default_rng(0).normal(size=(2, 12, 15))


def test_lengths_are_shared_out_between_two_neighbors_and_nothing_is_lost(field):
    maps = direction_maps(*field)
    np.testing.assert_allclose(maps.sum(axis=-1), np.hypot(*field), rtol=1e-5)
    assert ((maps > 0).sum(axis=-1) <= 2).all()
    between = direction_maps(np.array([[np.cos(np.pi / 16)]]), np.array([[np.sin(np.pi / 16)]]))[0, 0]
    np.testing.assert_allclose(between, [0.75, 0.25, 0, 0, 0, 0, 0, 0], atol=1e-6)  # a quarter of the way to 45 degrees


def test_a_turned_field_has_its_bins_shifted(field):
    x, y = field
    maps = direction_maps(x, y)
    for turns in range(1, 8):
        cos, sin = np.cos(turns * np.pi / 4), np.sin(turns * np.pi / 4)
        turned = direction_maps(cos * x - sin * y, sin * x + cos * y)
        np.testing.assert_allclose(turned, np.roll(maps, turns, axis=-1), atol=1e-5)


@pytest.mark.parametrize(("slope", "expected"), [((1, 0), 0), ((1, 1), 1), ((0, 1), 2), ((-1, 0), 4), ((0, -1), 6)])
def test_a_gradient_falls_into_its_bin(slope, expected):
    y, x = np.mgrid[:20, :20]
    gray = (100 + slope[0] * x + slope[1] * y).astype(np.uint8)
    maps = gradient_maps(gray)[1:-1, 1:-1]
    np.testing.assert_allclose(maps[..., expected], 2 * np.hypot(*slope), rtol=1e-5)  # of the pixels at both sides
    assert np.delete(maps, expected, axis=-1).max() < 1e-4


def test_what_stands_still_is_counted_and_has_no_direction():
    flow = np.zeros((2, 3, 2), np.float32)
    flow[0, 0], flow[0, 1] = (0, 3), (0.3, 0)
    maps = flow_maps(flow)
    assert maps[0, 0].tolist() == pytest.approx([0, 0, 3, 0, 0, 0, 0, 0, 0], abs=1e-5)
    assert maps[0, 1].tolist() == maps[1, 2].tolist() == [0] * 8 + [1]


def test_a_moving_camera_has_flow_and_no_motion_boundaries():
    """And where the one half moves the other way, boundaries are where they meet, and nowhere else."""
    gray, flow = np.zeros((10, 20), np.uint8), np.zeros((10, 20, 2), np.float32)
    flow[:] = (2, -1)
    assert not split(motion_maps(gray, flow), "mbhx", "mbhy").any()
    assert split(motion_maps(gray, flow), "hof").sum() == pytest.approx(10 * 20 * 5**0.5, rel=1e-5)
    flow[:, 10:, 0] = -2
    found = split(motion_maps(gray, flow), "mbhx")
    assert np.unique(np.nonzero(found)[1]).tolist() == [9, 10]
    assert not split(motion_maps(gray, flow), "mbhy").any()


def split(maps, *names):
    ends = np.cumsum(list(MOTION_BINS.values()))
    slices = {name: slice(end - MOTION_BINS[name], end) for name, end in zip(MOTION_BINS, ends, strict=True)}
    return np.concatenate([maps[..., slices[name]] for name in names], axis=-1)


# Where the bins go when left and right change places. x of a gradient or of flow turns round; of the gradient of the flow's x it
# stays, for both turn round, and its y turns round.
MIRRORED = {
    "hog": [(4 - b) % 8 for b in range(8)],
    "hof": [(4 - b) % 8 for b in range(8)] + [8],
    "mbhx": [-b % 8 for b in range(8)],
    "mbhy": [(4 - b) % 8 for b in range(8)],
}


def mirrored_bins():
    ends = np.cumsum([0, *MOTION_BINS.values()])
    return np.concatenate([end + np.array(MIRRORED[name]) for name, end in zip(MOTION_BINS, ends, strict=False)])


def test_a_mirrored_pair_of_frames_has_mirrored_maps_and_cells():
    rng = np.random.default_rng(1)
    gray, flow = rng.integers(0, 255, (40, 50), dtype=np.uint8), rng.normal(size=(40, 50, 2)).astype(np.float32)
    maps = motion_maps(gray, flow)
    other = motion_maps(gray[:, ::-1].copy(), flow[:, ::-1] * np.array([-1, 1], np.float32))
    np.testing.assert_allclose(other[:, ::-1], maps[..., mirrored_bins()], atol=2e-3)
    points = np.array([[25.0, 20], [20, 18], [3, 39]])
    cells = cell_sums(maps, points, 32, 2)
    there = cell_sums(other, np.array([50.0, 0]) + points * [-1, 1], 32, 2)  # a square of even side has no middle pixel
    np.testing.assert_allclose(there[:, :, ::-1], cells[..., mirrored_bins()], rtol=1e-3, atol=0.05)


def test_cells_are_sums_of_loops_and_a_square_at_the_border_is_moved_in():
    maps = np.random.default_rng(2).random((20, 24, 3)).astype(np.float32)
    for x, y, left, top in ((10, 9, 6, 5), (0, 0, 0, 0), (23.4, 19.4, 16, 12), (11.6, 3, 8, 0)):
        found = cell_sums(maps, np.array([[x, y]], float), 8, 2)[0]
        for row, column in np.ndindex(2, 2):
            part = maps[top + 4 * row : top + 4 * row + 4, left + 4 * column : left + 4 * column + 4]
            np.testing.assert_allclose(found[row, column], part.sum(axis=(0, 1)), rtol=1e-5)
