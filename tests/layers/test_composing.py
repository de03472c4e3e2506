"""Composition against loops over pixels in float64, and retiming against scenes drawn anew."""

import numpy as np
import pytest

from ssvid.errors import DataError
from ssvid.layers.composing import (
    Layer,
    as_background,
    cloned,
    composite,
    dropped,
    faded,
    find_layer,
    grayed,
    played,
    retimed,
    standing,
    trail,
)
from ssvid.layers.motion import Canvas
from ssvid.video.synthetic_effects import to_bytes, walkers

T, H, W = 3, 5, 7


def random_layer(seed, name="one"):
    return Layer(name, np.random.default_rng(seed).integers(0, 256, (T, H, W, 4)).astype(np.uint8))


def ground(seed=9):
    return np.random.default_rng(seed).integers(0, 256, (T, H, W, 3)).astype(np.uint8)


def box(t, top, left, side=2, color=(200, 10, 30), frames=T):
    rgba = np.zeros((frames, H, W, 4), np.uint8)
    rgba[t, top : top + side, left : left + side] = (*color, 255)
    return Layer("box", rgba)


def sliding(offsets):
    """A canvas on which frame t has its corner at (offsets[t], 0)."""
    matrices = np.tile(np.eye(3), (len(offsets), 1, 1))
    matrices[:, 0, 2] = offsets
    return Canvas(matrices, H, W + max(offsets))


def test_layers_over_one_another():
    back, front, behind = random_layer(0, "back"), random_layer(1, "front"), ground()
    found = composite(behind, [back, front])
    for t, y, x in np.ndindex(T, H, W):
        color = behind[t, y, x].astype(np.float64)
        for layer in (back, front):
            *rgb, alpha = layer.rgba_THW4[t, y, x].astype(np.float64)
            color = alpha / 255 * np.array(rgb) + (1 - alpha / 255) * color
        assert found[t, y, x] == pytest.approx(color, abs=0.501)


def test_opaque_hides_and_empty_does_not():
    opaque, empty = random_layer(2), random_layer(3)
    opaque.rgba_THW4[..., 3], empty.rgba_THW4[..., 3] = 255, 0
    assert (composite(ground(), [opaque, empty]) == opaque.rgba_THW4[..., :3]).all()
    assert (composite(ground(), []) == ground()).all()


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(DataError, match="layer one is of"):
        composite(ground()[:2], [random_layer(0)])
    with pytest.raises(DataError, match=r"uint8 \(T, H, W, 4\)"):
        Layer("one", np.zeros((T, H, W, 3), np.uint8))
    with pytest.raises(DataError, match="there is no layer 'onne'"):
        find_layer([random_layer(0)], "onne")


def test_a_layer_goes_and_the_rest_stays_in_order():
    layers = [random_layer(0, "a"), random_layer(1, "b"), random_layer(2, "c")]
    assert [layer.name for layer in dropped(layers, "b")] == ["a", "c"]


def test_a_picture_covers_the_frame():
    picture = np.zeros((4, 20, 3), np.uint8)
    picture[:, 8:12] = 255
    found = as_background(picture, T, 4, 4)
    assert found.shape == (T, 4, 4, 3)
    assert (found == 255).all()  # the middle of a wide picture
    assert as_background(picture, 1, 9, 6).shape == (1, 9, 6, 3)


def test_gray_is_as_bright():
    one = np.array([[[[255, 0, 0], [0, 255, 0], [10, 10, 10]]]], np.uint8)
    assert grayed(one)[0, 0].tolist() == [[76] * 3, [150] * 3, [10] * 3]


def test_a_clone_stands_beside():
    found = cloned(box(0, 1, 1), "twin", (3, 2))
    assert found.name == "twin"
    assert (found.rgba_THW4 == box(0, 3, 4).rgba_THW4).all()


def test_half_a_pixel_keeps_the_color_of_an_edge():
    found = cloned(box(0, 1, 1), "twin", (0.5, 0)).rgba_THW4[0, 1]
    assert found[1:4, 3].tolist() == [128, 255, 128]
    assert (found[1:4, :3] == (200, 10, 30)).all()


def test_a_trail_is_fainter_the_older_it_is():
    rgba = np.zeros((T, H, W, 4), np.uint8)
    for t in range(T):
        rgba[t, 2, 2 * t] = (250, 0, 0, 200)
    layers = trail(Layer("ball", rgba), 1, 2, fade=0.5)
    assert [layer.name for layer in layers] == ["ball, 2 frames ago", "ball, 1 frames ago", "ball"]
    alphas = [layer.rgba_THW4[2, 2, ::2, 3].tolist() for layer in layers]
    assert alphas == [[50, 0, 0, 0], [0, 100, 0, 0], [0, 0, 200, 0]]
    assert layers[0].rgba_THW4[1, ..., 3].max() == 0  # it was not there yet
    assert faded(layers[2], 0.0).rgba_THW4[..., 3].max() == 0


def test_each_picture_shows_its_frame():
    layer = random_layer(4)
    found = retimed(layer, np.array([2, 2, -1, 0])).rgba_THW4
    assert (found[0] == layer.rgba_THW4[2]).all()
    assert (found[3] == layer.rgba_THW4[0]).all()
    assert found[2].max() == 0


def test_a_held_object_stays_where_it_is_while_the_camera_moves():
    found = retimed(box(0, 1, 5), np.zeros(T, int), sliding([0, 1, 3])).rgba_THW4
    for t, left in enumerate((5, 4, 2)):
        assert (found[t] == box(0, 1, left).rgba_THW4[0]).all()
    held = retimed(box(0, 1, 5), np.zeros(2, int), sliding([0, 1, 3]), views_N=np.array([2, 2])).rgba_THW4
    assert (held == box(0, 1, 2).rgba_THW4[0]).all()


def test_a_picture_on_the_ground_goes_with_it():
    picture = np.full((2, 2, 4), 255, np.uint8)
    found = standing(picture, (2, 1), sliding([0, 1, 3]), frame=1, size=(H, W)).rgba_THW4
    for t, left in enumerate((3, 2, 0)):
        assert found[t, 1:3, left : left + 2, 3].min() == 255
        assert found[t, ..., 3].astype(int).sum() == 4 * 255


def test_every_layer_has_a_time_of_its_own():
    one, two, behind = random_layer(0, "one"), random_layer(1, "two"), ground()
    found = played(behind, [one, two], {"one": np.array([2, 1, 0, 0, -1])})
    for n, (of_one, of_two) in enumerate([(2, 0), (1, 1), (0, 2), (0, 2), (-1, 2)]):
        layers = [Layer("two", two.rgba_THW4[[of_two]])]
        if of_one >= 0:
            layers.insert(0, Layer("one", one.rgba_THW4[[of_one]]))
        assert (found[n] == composite(behind[[min(n, 2)]], layers)[0]).all()
    assert (played(behind, [one, two], {}) == composite(behind, [one, two])).all()


def test_the_camera_has_a_time_too():
    behind = ground()
    found = played(
        behind, [box(0, 1, 5)], {"background": np.array([2, 2]), "box": np.array([0, 0])}, sliding([0, 1, 3])
    )
    assert (found == composite(behind[[2, 2]], [Layer("box", box(0, 1, 2).rgba_THW4[[0, 0]])])).all()


def test_what_cannot_be_played_is_refused():
    with pytest.raises(DataError, match="there is no layer 'wolker'"):
        played(ground(), [random_layer(0)], {"wolker": np.arange(3)})
    with pytest.raises(DataError, match="out of picture 1"):
        played(ground(), [random_layer(0)], {"background": np.array([0, -1, 2])})


@pytest.mark.parametrize("pan_px", [0.0, 30.0])
def test_retimed_layers_are_the_scene_drawn_anew(pan_px):
    scene = walkers(0, num_frames=6, travel_px=60, pan_px=pan_px)
    matrices = np.tile(np.eye(3), (6, 1, 1))
    matrices[:, :2, 2] = scene.camera_T2
    canvas = Canvas(matrices, scene.height, scene.width + 30)
    layers = [
        Layer(actor.name, to_bytes(np.stack([scene.layer(actor, t, t) for t in range(6)]))) for actor in scene.actors
    ][::-1]
    maps = {"walker": np.array([0, 0, 1, 1, 2, 2]), "other": np.arange(6)[::-1]}
    mine = composite(to_bytes(scene.background()), [retimed(one, maps[one.name], canvas) for one in layers])
    truth = to_bytes(scene.shown(maps))
    inner = np.abs(mine.astype(int) - truth)[:, 2:-2, 4:-4]
    assert inner.mean() < 0.4
    assert np.percentile(inner, 99.9) < (25 if pan_px else 2.01)
