"""Edits: what differs is laid on the frames themselves, where the layer is seen, and on nothing else."""

import numpy as np
import pytest

from ssvid.errors import DataError
from ssvid.layers.atlas.editing import STYLES, apply_edit, cleaned, difference, stylized, textured
from ssvid.layers.motion import grid_px
from tests.layers.atlas.conftest import H, T, W


def rgba(*values):
    return np.array([[values]], dtype=np.uint8)


@pytest.mark.parametrize(
    ("exported", "painted", "opacity"),
    [
        ((100, 100, 100, 255), (100, 100, 100, 255), 0),
        ((100, 100, 100, 255), (102, 98, 100, 255), 0),  # as far as saving may go
        ((100, 100, 100, 255), (255, 255, 255, 255), 1),
        ((100, 100, 100, 255), (0, 100, 100, 255), 1),
        ((100, 100, 100, 255), (75, 100, 100, 255), 0.25),
        ((55, 100, 100, 255), (105, 100, 100, 255), 0.25),
        ((100, 100, 100, 255), (0, 0, 0, 0), 0),  # erased, or beside the strokes of a picture of strokes
        ((100, 100, 100, 255), (0, 0, 0, 128), 128 / 255),
        ((100, 100, 100, 60), (0, 0, 0, 60), 1),
    ],
)
def test_the_thinnest_paint(exported, painted, opacity):
    brush = difference(rgba(*exported), rgba(*painted))[0, 0]
    assert brush[3] == pytest.approx(opacity, abs=1e-4)
    share = min(1.0, painted[3] / max(exported[3], 1e-6))
    wanted = np.array(exported[:3]) + share * (np.array(painted[:3]) - np.array(exported[:3]))
    if opacity:
        assert 255 * (brush[3] * brush[:3] + (1 - brush[3]) * np.array(exported[:3]) / 255) == pytest.approx(
            wanted, abs=0.01
        )


def test_nothing_painted_changes_nothing(begun, clip_motion):
    frames = np.kron(clip_motion[0].frames_THWC, np.ones((1, 2, 2, 1), np.uint8))
    for name in begun.names:
        exported = begun.atlas_rgba(name)
        assert np.array_equal(apply_edit(frames, begun, name, exported, exported.copy()), frames)
        erased = np.zeros_like(exported)
        assert np.array_equal(apply_edit(frames, begun, name, exported, erased), frames)


def test_traces_of_a_layer_are_not_painted():
    assert cleaned(np.array([0.0, 0.09, 0.1, 0.5, 0.9, 0.95])) == pytest.approx([0, 0, 0, 0.5, 1, 1])


def test_paint_is_seen_where_its_layer_is(begun, clip_motion, known):
    clip = clip_motion[0]
    exported = begun.atlas_rgba("background")
    black = exported.copy()
    black[..., :3] = 0
    edited = apply_edit(clip.frames_THWC, begun, "background", exported, black)
    inner = known.weights()[1] == 1
    assert edited[inner & (begun.weights(H, W, range(T))[1] > 0.9)].max() == 0
    untouched = begun.weights(H, W, range(T))[0] > 0.9
    assert untouched.any() and np.array_equal(edited[untouched], clip.frames_THWC[untouched])


def test_a_dot_follows_the_body(scene, begun, clip_motion):
    exported = begun.atlas_rgba("fg")
    start = begun.layout.num_frames // 2
    height, width = exported.shape[:2]
    middle = np.array([(np.flatnonzero((exported[..., 3] > 128).any(axis=axis))[[0, -1]].mean()) for axis in (0, 1)])
    dotted = exported.copy()
    dotted[np.hypot(*(grid_px(height, width) - middle).T).T < 10] = (255, 255, 255, 255)
    edited = apply_edit(clip_motion[0].frames_THWC, begun, "fg", exported, dotted).astype(float)
    change = np.abs(edited - clip_motion[0].frames_THWC).sum(axis=-1)
    uv = begun.uv_px("fg", H, W, range(T))
    places = [grid_px(H, W)[np.hypot(*(uv[t] - middle).T).T < 10].mean(axis=0) for t in range(T)]
    truly = [scene.moved(0, np.array([places[start]], dtype=float), start, t)[0] for t in range(T)]
    for t in range(T):
        seen = change[t] > 0
        assert seen.sum() > 5
        assert grid_px(H, W)[seen].mean(axis=0) == pytest.approx(truly[t], abs=1.0)


def test_what_does_not_belong_together_is_told(begun, clip_motion):
    frames, exported = clip_motion[0].frames_THWC, begun.atlas_rgba("fg")
    with pytest.raises(DataError, match="there are 4 frames"):
        apply_edit(frames[:4], begun, "fg", exported, exported)
    with pytest.raises(DataError, match=r"the painted atlas of fg has shape .* keep its size"):
        apply_edit(frames, begun, "fg", exported, exported[1:])


def test_a_picture_fills_what_is_seen():
    exported = np.zeros((20, 30, 4), np.uint8)
    exported[5:15, 10:30, 3] = 255
    picture = np.full((4, 4, 3), 9, np.uint8)
    picture[:, 2:] = 200
    painted = textured(exported, picture)
    assert np.array_equal(painted[..., 3], exported[..., 3])
    assert (painted[5:15, 10:17, :3] == 9).all() and (painted[5:15, 23:, :3] == 200).all()
    assert not painted[:5].any()
    assert np.array_equal(textured(np.zeros_like(exported), picture), np.zeros_like(exported))


@pytest.mark.parametrize("style", STYLES)
def test_styles_keep_size_and_alpha(style, begun):
    exported = begun.atlas_rgba("background")
    exported[..., :3] = np.random.default_rng(0).integers(0, 256, exported[..., :3].shape)
    painted = stylized(exported, style)
    assert painted.shape == exported.shape and painted.dtype == np.uint8
    assert np.array_equal(painted[..., 3], exported[..., 3])
    assert not np.array_equal(painted, exported)


def test_an_unknown_style_is_told(begun):
    with pytest.raises(DataError, match="Take one of: watercolor, pencil, poster"):
        stylized(begun.atlas_rgba("fg"), "oil")
