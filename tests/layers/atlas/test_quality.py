"""Measures of quality against cases whose answer is known."""

import math

import numpy as np
import pytest

from ssvid.layers.atlas.quality import (
    alpha_iou,
    between_pixels,
    centroids,
    corners_in,
    lucas_kanade,
    psnr,
    shape_of,
    track_errors,
    unseen_energy,
)
from ssvid.layers.motion import grid_px

H, W = 30, 40


def test_psnr():
    true = np.zeros((2, 4, 4, 3), np.uint8)
    found = true.copy()
    found[0] = 16
    assert psnr(found, true) == pytest.approx(20 * math.log10(255 / 16) + 10 * math.log10(2))
    first = np.zeros((2, 4, 4), dtype=bool)
    first[0] = True
    assert psnr(found, true, first) == pytest.approx(20 * math.log10(255 / 16))
    assert psnr(true, true) == math.inf


def test_iou():
    alpha, mask = np.array([0.9, 0.6, 0.4, 0.1]), np.array([True, False, True, False])
    assert alpha_iou(alpha, mask) == pytest.approx(1 / 3)


def test_between_pixels():
    values = grid_px(H, W) * [1, 10]
    xy = np.array([[0.0, 0.0], [3.25, 7.5], [W - 1.0, H - 1.0], [-4.0, 2.0]])
    assert between_pixels(values, xy).tolist() == [[0, 0], [3.25, 75], [W - 1, 10 * (H - 1)], [0, 20]]


def maps(shifts):
    """Places of a layer that is shifted by so much in each frame, and turned by 0.1 radians for each px of it; 4 px of atlas per px."""
    found = []
    for shift in shifts:
        c, s = 4 * math.cos(0.1 * shift), 4 * math.sin(0.1 * shift)
        found.append((grid_px(H, W) - [shift, 0]) @ np.array([[c, -s], [s, c]]).T)
    return np.stack(found)


def test_points_are_found_where_they_went():
    uv, weights = maps([0, 3, 5]), np.ones((3, H, W))
    start = np.array([[10.0, 12.0], [20.3, 14.6]])
    true = []
    for shift in (0, 3, 5):
        c, s = math.cos(0.1 * shift), math.sin(0.1 * shift)
        true.append(start @ np.array([[c, -s], [s, c]]) + [shift, 0])
    ends = np.stack(true)
    assert np.nanmax(track_errors(uv, weights, 0, start, ends)) < 1e-3
    ends[1, 0], ends[2, 1] = np.nan, ends[2, 1] + [3, 4]
    errors = track_errors(uv, weights, 0, start, ends)
    assert np.isnan(errors[1, 0])
    assert errors[2, 1] == pytest.approx(5, abs=1e-3)


def test_a_second_copy_is_an_error_though_every_step_is_smooth():
    """The atlas holds the object twice: frame 1 looks into the other copy."""
    uv = np.stack([grid_px(H, W), grid_px(H, W) + np.array([W, 0])])
    start = np.array([[20.0, 15.0]])
    assert track_errors(uv, np.ones((2, H, W)), 0, start, np.stack([start, start]))[1, 0] > 15


def test_centroids():
    weights = np.zeros((2, H, W))
    weights[0, 4, 10], weights[0, 8, 10] = 1, 3
    found = centroids(weights)
    assert found[0].tolist() == [10, 7]
    assert np.isnan(found[1]).all()


def test_shape():
    everywhere = np.ones((1, H, W), dtype=bool)
    rigid = shape_of(maps([7]), everywhere, 4)
    assert rigid.stretch == pytest.approx(0, abs=1e-6) and rigid.folded == 0
    stretched = shape_of(grid_px(H, W)[None] * [2, 1], everywhere, 1)
    assert stretched.stretch == pytest.approx(math.log(2) / 2)
    folded = grid_px(H, W)[None].copy()
    folded[..., 0] = np.abs(folded[..., 0] - 10)
    assert shape_of(folded, everywhere, 1).folded == pytest.approx(10 / (W - 1))
    assert math.isnan(shape_of(folded, ~everywhere, 1).stretch)


def test_unseen_energy():
    rgb = np.full((2, 2, 3), 0.5)
    seen, reached = np.array([[1.0, 0.2], [0.0, 0.0]]), np.array([[True, True], [True, False]])
    rgb[0, 1] = 0
    assert unseen_energy(rgb, seen, reached) == pytest.approx(0.75 / 2)
    assert unseen_energy(rgb, np.ones((2, 2)), reached) == 0


def test_the_tracker_follows_a_texture_and_distrusts_what_leaves():
    rng = np.random.default_rng(0)
    texture = np.kron(rng.integers(0, 256, (20, 40, 3)), np.ones((6, 6, 1))).astype(np.uint8)
    frames = np.stack([texture[20:100, 20 + 2 * t : 140 + 2 * t] for t in range(5)])
    where = np.zeros((80, 120), dtype=bool)
    where[20:60, 40:80] = True
    points = corners_in(frames[0], where, 30)
    assert 5 < len(points) <= 30
    assert where[points[:, 1].astype(int), points[:, 0].astype(int)].all()
    tracks = lucas_kanade(frames, 0, 4, points)
    assert tracks.found_N.mean() > 0.8
    assert np.median(tracks.end_N2 - points, axis=0) == pytest.approx([-8, 0], abs=0.1)
    back = lucas_kanade(frames, 4, 0, tracks.end_N2[tracks.found_N])
    assert np.median(back.end_N2 - points[tracks.found_N], axis=0) == pytest.approx([0, 0], abs=0.1)
    assert len(lucas_kanade(frames, 0, 4, np.zeros((0, 2))).found_N) == 0
