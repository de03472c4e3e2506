"""Layers that are known: places both ways, alphas, pixels between frames."""

import numpy as np
import pytest

from ssvid.video.synthetic_layers import Grain, draw_layered_scene, render_layers, smooth_texture

SIZE = {"height": 36, "width": 64, "num_frames": 5}


@pytest.fixture(scope="module", params=[0.0, 1.0], ids=["rigid", "bending"])
def scene(request):
    return draw_layered_scene(3, num_bodies=2, bending_px=request.param, **SIZE)


def test_places_lead_there_and_back(scene):
    points = np.random.default_rng(0).uniform(-8, 8, (40, 2))
    for layer in range(scene.num_layers):
        for time in (0, 1.5, 4):
            there = scene.to_frame(layer, points, time)
            assert scene.to_canonical(layer, there, time) == pytest.approx(points, abs=1e-6)


def test_a_rigid_body_turns_and_grows_as_told():
    scene = draw_layered_scene(0, **SIZE)
    first, last = (scene.to_frame(0, np.array([[0.0, 0.0], [1.0, 0.0]]), time) for time in (0, 4))
    assert first[0] == pytest.approx(scene.bodies[0].start_px)
    assert last[0] - first[0] == pytest.approx(scene.bodies[0].way_px)
    arm = last[1] - last[0]
    assert np.hypot(*arm) == pytest.approx(1.15)
    assert np.degrees(np.arctan2(arm[1], arm[0])) == pytest.approx(50)


def test_the_same_point_has_the_same_color_in_all_frames(scene):
    known = render_layers(scene)
    for layer, weight_THW in enumerate(known.weights()):
        y, x = (axis[:50] for axis in np.nonzero(weight_THW[2] == 1))
        there = scene.moved(layer, np.stack([x, y], axis=1).astype(float), 2, 3)
        near = np.rint(there).astype(int)
        whole = (near >= 0).all(axis=1) & (near < (64, 36)).all(axis=1)
        at = scene.moved(layer, near.astype(float), 3, 2)
        seen = whole & (weight_THW[3, near[:, 1].clip(0, 35), near[:, 0].clip(0, 63)] == 1)
        assert seen.sum() > 5
        expected = 255 * scene.color(layer, scene.to_canonical(layer, at[seen], 2))
        assert known.frames_THWC[3][near[seen, 1], near[seen, 0]] == pytest.approx(expected, abs=0.51)


def test_the_front_body_hides_the_other_and_all_shares_add_up(scene):
    known = render_layers(scene)
    assert known.weights().sum(axis=0) == pytest.approx(1, abs=1e-6)
    assert not (known.masks()[0] & known.masks()[1]).any()
    assert (known.alphas_NTHW > 0.5).all(axis=0).any(), "the bodies never meet"
    edge = (known.alphas_NTHW[0] > 0) & (known.alphas_NTHW[0] < 1)
    assert 0 < edge.mean() < 0.1


def test_frames_do_not_depend_on_which_are_drawn():
    scene = draw_layered_scene(1, **SIZE)
    alone = render_layers(scene, [2.5])
    among = render_layers(scene, [0, 2.5, 4])
    assert np.array_equal(alone.frames_THWC[0], among.frames_THWC[1])
    assert not np.array_equal(among.frames_THWC[0], render_layers(draw_layered_scene(2, **SIZE), [0]).frames_THWC[0])


def test_textures_have_four_texels_for_each_px():
    texture = smooth_texture(np.random.default_rng(0), 10, 20)
    assert texture.shape == (41, 81, 3)
    assert 0 <= texture.min() < texture.max() <= 1


def test_another_number_of_bodies_is_refused():
    with pytest.raises(ValueError, match=r"num_bodies \(3\) must be 1 or 2"):
        draw_layered_scene(0, num_bodies=3)


def test_the_usual_grain_is_that_of_three_sizes(scene):
    """Scenes that figures were measured on stay as they are, bit for bit."""
    usual = Grain(cells_px=(16.0, 7.0, 4.0), light=0.13, color=0.07)
    bending_px = scene.bodies[0].wave_px
    again = draw_layered_scene(3, num_bodies=2, bending_px=bending_px, grain=usual, **SIZE)
    assert np.array_equal(again.ground_HW3, scene.ground_HW3)
    assert np.array_equal(render_layers(again, [1]).frames_THWC, render_layers(scene, [1]).frames_THWC)
    fine = draw_layered_scene(3, num_bodies=2, bending_px=bending_px, grain=Grain((8.0, 4.0)), **SIZE)
    assert not np.array_equal(fine.ground_HW3, scene.ground_HW3)
    for before, after in zip(scene.bodies, fine.bodies, strict=True):
        assert not np.array_equal(before.texture_HW3, after.texture_HW3)
        assert (before.start_px, before.way_px, before.radius_px) == (after.start_px, after.way_px, after.radius_px)


def test_a_stronger_grain_varies_as_much_more():
    plain, weak, twice = (
        smooth_texture(np.random.default_rng(0), 24, 24, Grain((8.0, 4.0), light=0.01 * times, color=0.005 * times))
        for times in (0, 1, 2)
    )
    assert np.ptp(plain, axis=(0, 1)) == pytest.approx(0)
    assert twice - plain == pytest.approx(2 * (weak - plain), abs=1e-6)
    assert (weak - plain).std() > 0.005


def test_smaller_cells_change_within_fewer_px():
    steep = []
    for cell in (16.0, 8.0, 4.0):
        texture = smooth_texture(np.random.default_rng(0), 96, 96, Grain((cell,), light=0.05, color=0.02))
        steep.append(np.abs(np.diff(texture, axis=1)).mean() / texture.std(axis=(0, 1)).mean())
    assert steep[1] / steep[0] == pytest.approx(2, abs=0.5)
    assert steep[2] / steep[1] == pytest.approx(2, abs=0.5)
