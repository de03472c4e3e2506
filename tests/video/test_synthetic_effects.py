"""Scenes with effects: what is known of them agrees with what is seen."""

import numpy as np
import pytest

from ssvid.video.synthetic_effects import followers, over, to_bytes, walkers


def test_the_same_seed_the_same_video():
    assert (walkers(0).frames() == walkers(0).frames()).all()
    assert not (walkers(0).frames() == walkers(1).frames()).all()
    assert walkers(0, num_frames=7).frames().shape == (7, 64, 96, 3)


@pytest.mark.parametrize("scene", [walkers(0), walkers(1, num_objects=1, pan_px=40.0), followers(0)])
def test_frames_are_layers_over_the_background(scene):
    everyone = {name: range(scene.num_frames) for name in scene.names}
    built = scene.background()
    for actor in reversed(scene.actors):
        built = over(built, np.stack([scene.layer(actor, t, t) for t in range(scene.num_frames)]))
    assert np.allclose(built, scene.shown(everyone), atol=1e-6)
    noise = scene.frames().astype(float) - 255 * built
    assert abs(noise.mean()) < 0.2
    assert 1.5 < noise.std() < 2.7  # 0.01 of the range
    assert (to_bytes(scene.shown({})) == to_bytes(scene.background())).all()


def test_a_shadow_darkens_by_its_strength():
    scene = walkers(0)
    region = scene.effect_mask("walker", "shadow")
    clean, shaded = scene.background(), scene.shown({"walker": range(20)})
    share = 1 - shaded[region].mean() / clean[region].mean()
    assert 0.75 * scene.actors[0].effects[0].strength < share < scene.actors[0].effects[0].strength
    assert not (region & scene.masks().any(axis=0)).any()
    assert (shaded <= clean + 1e-6)[region].mean() > 0.95  # but for the rim of the object


def test_objects_cross_the_picture_in_turn():
    masks = walkers(0).masks()
    x = np.arange(96)
    middles = (masks.sum(axis=2) * x).sum(axis=2) / masks.sum(axis=(2, 3))
    assert (np.diff(middles[0]) > 2).all()
    assert (np.diff(middles[1]) < -2).all()
    assert masks.any(axis=(2, 3)).all()
    assert not (masks[0] & masks[1]).any()


def test_the_camera_moves_the_ground_and_not_the_walker():
    scene = walkers(0, num_objects=1, pan_px=38.0)  # 2 px per frame
    ground = scene.background()
    assert np.allclose(ground[1:, :, :-2], ground[:-1, :, 2:], atol=1e-5)
    still = walkers(0, num_objects=1)
    assert (scene.masks() == still.masks()).all()


def test_an_actor_of_another_moment_is_seen_from_where_the_camera_is():
    scene = walkers(0, num_objects=1, travel_px=40, pan_px=19.0)  # 1 px per frame
    (actor,) = scene.actors
    here, later = scene.layer(actor, 10, 10)[..., 3], scene.layer(actor, 10, 13)[..., 3]
    assert np.allclose(later[:, :-3], here[:, 3:], atol=1e-6)


def test_effects_that_follow_and_one_that_does_not():
    scene = followers(3)
    (actor,) = scene.actors
    near, far, own = (effect.path_T2 - actor.path_T2 for effect in actor.effects)
    assert np.ptp(near, axis=0) == pytest.approx(0)
    assert np.ptp(far, axis=0) == pytest.approx(0)
    assert np.hypot(*far[0]) > np.hypot(*near[0])
    assert np.ptp(own, axis=0).max() > 20
    sizes = [scene.effect_mask("walker", name).sum() for name in ("far", "own")]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)
