"""Points followed by features: shifts by whole cells, sub-cell places, occlusion, and that no query knows of another one."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ssvid.errors import DataError
from ssvid.evals.label_propagation.points import UnitMap, track_points
from ssvid.evals.label_propagation.tapvid import make_queries, tapvid_metrics
from ssvid.features.maps import MapGrid
from ssvid.features.propagation_protocol import PropagationProtocol

SHARP = PropagationProtocol(measure="points", point_temperature=0.005)
STRIDE_PX = 8


def world(height: int = 10, width: int = 13, depth: int = 64, seed: int = 0) -> torch.Tensor:
    """A feature for each place, none like another."""
    return torch.randn(depth, height, width, generator=torch.Generator().manual_seed(seed))


def grid_of(maps: list[torch.Tensor]) -> MapGrid:
    height, width = maps[0].shape[1:]
    return MapGrid.placed((height, width), (height * STRIDE_PX, width * STRIDE_PX), STRIDE_PX)


def sliding(num_frames: int = 5, dy: int = 1, dx: int = 2) -> list[torch.Tensor]:
    """A world that moves down and right by whole cells in each frame; what it uncovers is new."""
    large = world(10 + dy * num_frames, 13 + dx * num_frames)
    return [
        large[:, dy * (num_frames - t) :, dx * (num_frames - t) :][:, :10, :13].contiguous() for t in range(num_frames)
    ]


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_features_moved_by_whole_cells_are_followed_exactly(precision):
    maps = sliding()
    grid = grid_of(maps)
    centers = grid.to_pixels(np.array([[1.0, 1.0], [4.0, 3.0], [3.0, 5.0]]))
    queries = np.column_stack([np.zeros(3), centers[:, ::-1]])
    found = track_points(maps, queries, grid, replace(SHARP, precision=precision))
    expected = np.stack([centers + STRIDE_PX * t * np.array([2.0, 1.0]) for t in range(5)])
    assert found.points_TQ2 == pytest.approx(expected, abs=1e-3)
    assert found.visible_TQ.all()


def test_points_that_move_by_parts_of_cells_are_followed_to_a_tenth_of_a_cell():
    # Random waves: the cosine of two places falls off evenly with their distance in all directions.
    rng = np.random.default_rng(0)
    waves_D2, phases_D = rng.normal(0, 0.7, (2000, 2)), rng.uniform(0, 2 * np.pi, 2000)
    cells_HW2 = np.stack(np.meshgrid(np.arange(16.0), np.arange(12.0)), axis=-1)
    velocity = np.array([0.4, -0.3])
    maps = [
        torch.from_numpy(np.cos((cells_HW2 - velocity * t) @ waves_D2.T + phases_D)).permute(2, 0, 1) for t in range(6)
    ]
    grid = grid_of(maps)
    places = np.array([[6.5, 6.25], [8.0, 6.0], [7.25, 5.9]])
    queries = np.column_stack([np.zeros(3), grid.to_pixels(places)[:, ::-1]])
    found = track_points(maps, queries, grid, PropagationProtocol(measure="points", point_temperature=0.1))
    expected = places + np.arange(6)[:, None, None] * velocity
    assert grid.to_cells(found.points_TQ2) == pytest.approx(expected, abs=0.1)
    assert found.visible_TQ.all()


def test_points_are_followed_backwards_where_asked():
    maps = sliding()
    grid = grid_of(maps)
    center = grid.to_pixels(np.array([[8.0, 6.0]]))
    query = np.column_stack([[3.0], center[:, ::-1]])
    expected = center + STRIDE_PX * (np.arange(5)[:, None] - 3) * np.array([2.0, 1.0])
    both = track_points(maps, query, grid, SHARP, both_ways=True)
    assert both.points_TQ2[:, 0] == pytest.approx(expected, abs=1e-3)
    assert both.visible_TQ.all()
    one = track_points(iter(maps), query, grid, SHARP)
    assert one.visible_TQ[:, 0].tolist() == [False, False, False, True, True]
    assert np.array_equal(one.points_TQ2[3:], both.points_TQ2[3:])


@pytest.mark.parametrize("both_ways", [False, True])
def test_a_query_is_the_same_to_the_bit_with_others_and_alone(both_ways):
    rng = np.random.default_rng(0)
    maps = [world(9, 11, depth=48, seed=t // 2) + 0.3 * world(9, 11, depth=48, seed=100 + t) for t in range(6)]
    grid = grid_of(maps)
    queries = np.column_stack([rng.integers(0, 5, 17), rng.random((17, 2)) * [9 * 8 - 1, 11 * 8 - 1]])
    together = track_points(maps, queries, grid, PropagationProtocol(), both_ways=both_ways)
    assert 0.2 < together.visible_TQ.mean() < 0.9
    for number, query in enumerate(queries):
        alone = track_points(maps, query[None], grid, PropagationProtocol(), both_ways=both_ways)
        assert np.array_equal(alone.points_TQ2[:, 0], together.points_TQ2[:, number])
        assert np.array_equal(alone.visible_TQ[:, 0], together.visible_TQ[:, number])
    order = rng.permutation(17)
    shuffled = track_points(maps, queries[order], grid, PropagationProtocol(), both_ways=both_ways)
    assert np.array_equal(shuffled.points_TQ2, together.points_TQ2[:, order])


def test_what_nothing_looks_like_is_hidden():
    maps = sliding()
    grid = grid_of(maps)
    maps[2] = world(seed=7)  # something stands in front of everything
    query = np.array([[0.0, *grid.to_pixels(np.array([4.0, 3.0]))[::-1]]])
    found = track_points(maps, query, grid, SHARP)
    assert found.visible_TQ[:, 0].tolist() == [True, True, False, True, True]
    everything = track_points(maps, query, grid, replace(SHARP, point_min_cosine=-1.0, point_max_cycle_px=1e9))
    assert everything.visible_TQ.all()


def test_a_way_back_that_ends_elsewhere_hides_a_point():
    # The place that is asked for has a twin, of which the first in the map is found on the way back.
    first = world()
    first[:, 5, 9] = first[:, 1, 1]
    second = world(seed=1)
    second[:, 5, 9] = first[:, 1, 1]
    maps = [first, second]
    grid = grid_of(maps)
    twin, original = ([[0.0, *grid.to_pixels(np.array(cell))[::-1]]] for cell in ([9.0, 5.0], [1.0, 1.0]))
    assert track_points(maps, np.array(original), grid, SHARP).visible_TQ[1, 0]
    assert not track_points(maps, np.array(twin), grid, SHARP).visible_TQ[1, 0]
    assert track_points(maps, np.array(twin), grid, replace(SHARP, point_max_cycle_px=100.0)).visible_TQ[1, 0]


def test_the_soft_maximum_by_hand():
    # Cosines 1, .9 and .8 in a row, and a fourth cell, as good as the third, out of the radius.
    directions = torch.tensor([[0.8, 0.6], [0.9, 0.19**0.5], [1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.8, 0.6]])
    unit_map = UnitMap.of(directions.T[:, None])
    across_12 = np.array([[1.0, 0.0]], dtype=np.float32)
    match = unit_map.match(across_12, 2.0, 0.1)
    weights = np.exp([-2, -1, 0, -2, -10])  # columns 0 to 4
    assert match.cosines_Q.tolist() == [1.0]
    assert match.cells_Q2[0] == pytest.approx([weights @ np.arange(5) / weights.sum(), 0], abs=1e-6)
    assert unit_map.match(across_12, 0.5, 0.1).cells_Q2.tolist() == [[2.0, 0.0]]


def test_features_between_cells_and_beyond_the_border():
    map_DHW = torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, 0.0]]])  # x axis, y axis; nothing below
    unit_map = UnitMap.of(map_DHW)
    places = np.array([[0.5, 0.0], [-3.0, -3.0], [1.0, 0.4], [0.0, 1.0]])
    between, corner, below, nothing = unit_map.at(places)
    assert between == pytest.approx([0.5**0.5, 0.5**0.5])
    assert corner.tolist() == [1.0, 0.0]
    assert below.tolist() == [0.0, 1.0]
    assert nothing.tolist() == [0.0, 0.0]
    assert UnitMap.of(torch.ones(3, 1, 1)).at(np.zeros((1, 2)))[0] == pytest.approx([3**-0.5] * 3)


def test_longer_features_are_followed_alike():
    maps = sliding()
    grid = grid_of(maps)
    query = np.array([[0.0, 30.0, 20.0]])
    scaled = [m * (4.0**t) for t, m in enumerate(maps)]
    assert np.array_equal(
        track_points(scaled, query, grid, SHARP).points_TQ2, track_points(maps, query, grid, SHARP).points_TQ2
    )


@pytest.mark.parametrize("mode", ["first", "strided"])
def test_a_sliding_world_is_followed_without_a_fault(mode):
    maps = sliding(num_frames=6)
    grid = grid_of(maps)
    starts = np.array([[1, 1], [3, 2], [6, 4], [12, 9], [11, 0]], dtype=float)
    cells = starts + np.arange(6)[:, None, None] * np.array([2.0, 1.0])
    truth = grid.to_pixels(cells)
    visible = ((cells >= 0) & (cells < [13, 10])).all(axis=2)
    assert not visible.all()
    queries = make_queries(truth, visible, mode)
    found = track_points(maps, queries.places_Q3, grid, SHARP, both_ways=mode == "strided")
    args = truth[:, queries.tracks_Q], visible[:, queries.tracks_Q]
    assert tapvid_metrics(*args, *found, queries.places_Q3[:, 0], mode)[:3] == (1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ([0, -1, 5], "the point x=5, y=-1 of frame 0 is outside a video of 104 x 80 pixels"),
        ([0, 5, 103.6], "outside a video"),
        ([-1, 5, 5], "of frame -1 is outside"),
        ([0, np.nan, 5], "outside a video"),
        ([7, 5, 5], "a point is given in frame 7, and the video has 5 frames"),
    ],
)
def test_points_outside_are_told(query, words):
    maps = sliding()
    with pytest.raises(DataError, match=words):
        track_points(maps, np.array([query], dtype=float), grid_of(maps), SHARP)


def test_maps_of_another_size_are_told():
    maps = sliding()
    with pytest.raises(DataError, match="frame 1 has 9 x 13 cells, and the grid 10 x 13"):
        track_points([maps[0], maps[1][:, :9]], np.zeros((1, 3)), grid_of(maps), SHARP)
