"""Scenes whose layers are known, as one thing: what is known agrees with what is seen, in every kind."""

import numpy as np
import pytest

from ssvid.errors import DataError
from ssvid.video.synthetic_scenes import SCENES, draw_known_scene

H, W, T = 48, 64, 7


@pytest.fixture(scope="module", params=SCENES)
def scene(request):
    return draw_known_scene(request.param, 5, num_frames=T, size=(H, W))


def test_there_are_five_kinds():
    assert SCENES == ("walkers", "walker", "panning", "bodies", "bending")


def test_layers_over_the_background_are_the_frames(scene):
    assert scene.frames_THWC.shape == (T, H, W, 3) and scene.num_frames == T
    built = 255 * scene.without()
    assert np.abs(built - scene.frames_THWC).mean() < 2.5  # the noise of a camera, 2.55 in its spread
    bare = scene.without(*scene.names)
    assert np.array_equal(bare, scene.background_THWC)
    first = scene.layers_NTHW4[0, ..., 3] > 0
    changed = np.abs(scene.without() - scene.without(scene.names[0])).max(axis=-1) > 1e-6
    assert not (changed & ~first).any() and changed[first].mean() > 0.95


def test_masks_are_where_an_object_is_more_than_half(scene):
    ids = scene.ids()
    assert set(np.unique(ids)) == set(range(len(scene.names) + 1))
    for number, mask_THW in enumerate(scene.masks_NTHW, start=1):
        assert np.array_equal(ids == number, mask_THW)
        assert (scene.layers_NTHW4[number - 1, ..., 3][mask_THW] > 0.5).all()


def test_a_point_stays_on_its_object_and_keeps_its_color(scene):
    points, background = scene.points, scene.background_THWC
    assert points.xy_TP2.shape == (T, 8 * len(scene.names) + 16, 2)
    assert points.visible_TP[:, points.owner_P == -1].mean() > 0.5
    agree = []
    for number in (*range(len(scene.names)), -1):
        picture_THWC = background if number == -1 else scene.layers_NTHW4[number, ..., :3]
        for point in np.flatnonzero(points.owner_P == number):
            seen_T = np.flatnonzero(points.visible_TP[:, point])
            x_T, y_T = points.xy_TP2[seen_T, point].T
            nearest = seen_T, np.rint(y_T).astype(int), np.rint(x_T).astype(int)
            assert number == -1 or (scene.layers_NTHW4[number, ..., 3][nearest] > 0.5).all()
            agree.append(scene.ids()[nearest] == number + 1)
            inside = (x_T > 0) & (x_T < W - 1) & (y_T > 0) & (y_T < H - 1)
            colors = between(picture_THWC, seen_T[inside], x_T[inside], y_T[inside])
            assert not len(colors) or np.ptp(colors, axis=0).max() < 0.05, (number, point)
    assert (
        np.concatenate(agree).mean() > 0.95
    )  # the nearest pixel of a point beside an edge may be of what is beyond it


def between(pictures_THWC, t_N, x_N, y_N):
    """Colors between four pixels."""
    column, row = np.floor(x_N).astype(int), np.floor(y_N).astype(int)
    right, down = (x_N - column)[:, None], (y_N - row)[:, None]
    corner = [[pictures_THWC[t_N, row + b, column + a] for a in (0, 1)] for b in (0, 1)]
    upper, lower = (left * (1 - right) + other * right for left, other in corner)
    return upper * (1 - down) + lower * down


def test_a_point_behind_another_object_is_not_visible():
    scene = draw_known_scene("bodies", 0, num_frames=9, size=(H, W))
    points, front_THW = scene.points, scene.masks_NTHW[0]
    hidden = 0
    for t, point in np.argwhere(~points.visible_TP):
        x, y = np.rint(points.xy_TP2[t, point]).astype(int)
        if 0 <= x < W and 0 <= y < H:
            assert points.owner_P[point] != 0, "nothing is in front of the first object"
            hidden += front_THW[t, y, x]
    assert hidden > 0
    assert not points.visible_TP[:, points.owner_P == 1].all()


def test_the_seed_is_the_scene_and_sizes_are_as_asked(scene):
    one, again, other = (draw_known_scene("walkers", seed, num_frames=3) for seed in (1, 1, 2))
    assert one.frames_THWC.shape[1:3] == (64, 96)
    assert np.array_equal(one.frames_THWC, again.frames_THWC)
    assert np.array_equal(one.points.xy_TP2, again.points.xy_TP2)
    assert not np.array_equal(one.frames_THWC, other.frames_THWC)
    assert draw_known_scene("bodies", 1, num_frames=2).frames_THWC.shape[1:3] == (72, 128)


def test_an_unknown_kind_is_refused():
    with pytest.raises(DataError, match=r"kind \('walkrs'\) is no scene. Did you mean 'walkers'"):
        draw_known_scene("walkrs", 0)
