"""Oracles for the renderer: the laws of motion, masks against poses, and speed as a physical quantity."""

import dataclasses
import math

import numpy as np
import pytest

from ssvid.video.synthetic import GRAVITY, MOTIONS, SPEED_RANGE, Scene, actor_path, draw_scene, render, scene_poses

SIZE = 64


def scene(motion: str, **changes: object) -> Scene:
    """A scene that starts at scene time 0, runs at natural speed and is not turned."""
    fixed = {"speed": 1.0, "start": 0.0, "direction": 0.0, "turn": 1, **changes}
    return dataclasses.replace(draw_scene(motion, (7, 0, 3), SIZE), **fixed)


def test_there_are_ten_motions() -> None:
    assert len(MOTIONS) == 10


def test_unknown_motion_is_named() -> None:
    with pytest.raises(ValueError, match="motion \\('jump'\\) must be one of slide"):
        draw_scene("jump", (0, 0, 0))


def test_slide_decelerates_by_its_friction() -> None:
    s = scene("slide")
    times = np.linspace(0, s.natural["period"] * 0.99, 50)
    x, _, _, _ = actor_path(s, times)
    acceleration = np.diff(x, 2) / np.diff(times)[0] ** 2
    expected = -2 * s.natural["reach"] * SIZE / s.natural["period"] ** 2  # D = v0 T / 2 and v0 = a T
    np.testing.assert_allclose(acceleration, expected, rtol=1e-6)
    assert abs(x[-1] - x[-2]) < 0.05 * abs(x[1] - x[0])  # it comes to rest


def test_bounce_falls_with_gravity_and_loses_speed_by_its_restitution() -> None:
    s = scene("bounce", turn=-1)
    _, y, _, _ = actor_path(s, np.arange(0, 1.0, 1e-3))
    acceleration = np.diff(y, 2) / 1e-6
    falling = np.abs(acceleration - GRAVITY * SIZE) < 1e-3 * GRAVITY * SIZE
    assert falling.mean() > 0.99  # all but the instants of impact
    velocity = np.diff(y) / 1e-3
    hit = int(np.flatnonzero(~falling)[0])
    assert -velocity[hit + 2] / velocity[hit - 2] == pytest.approx(s.natural["restitution"], abs=0.02)


def test_pendulum_has_the_period_of_its_length() -> None:
    s = scene("pendulum")
    times = np.arange(0, 5, 1e-3)
    x, _, _, _ = actor_path(s, times)
    x = x - s.center_px[0]
    crossings = times[1:][np.sign(x[1:]) != np.sign(x[:-1])]
    period = 2 * math.pi * math.sqrt(s.natural["length"] / GRAVITY)
    np.testing.assert_allclose(np.diff(crossings), period / 2, atol=2e-3)
    assert abs(x[-2000:]).max() < abs(x[:2000]).max()  # it is damped


def test_orbit_sweeps_equal_areas() -> None:
    s = scene("orbit")
    x, y, _, _ = actor_path(s, np.linspace(0, 2, 400))
    x, y = x - s.center_px[0], y - s.center_px[1]
    areas = x[:-1] * y[1:] - x[1:] * y[:-1]
    np.testing.assert_allclose(areas, areas.mean(), rtol=1e-3)


def test_roll_does_not_slip() -> None:
    s = scene("roll")
    x, _, angle, _ = actor_path(s, np.linspace(0, 3, 300))
    np.testing.assert_allclose(np.diff(x), s.radius_px[0] * np.diff(angle), atol=1e-9)


@pytest.mark.parametrize("motion", MOTIONS)
def test_twice_the_speed_is_every_second_frame(motion: str) -> None:
    slow = scene(motion, speed=0.9, start=0.7)
    fast = dataclasses.replace(slow, speed=1.8, start=0.35)
    times = np.arange(20) / 25
    a, b = scene_poses(slow, np.arange(40) / 25), scene_poses(fast, times)
    for name in ("x", "y", "angle", "scale"):
        np.testing.assert_allclose(getattr(a, name)[:, ::2], getattr(b, name), atol=1e-9)
    np.testing.assert_allclose(a.camera_T2[::2], b.camera_T2, atol=1e-9)
    np.testing.assert_array_equal(render(slow, times[:3] * 2).frames_THWC, render(fast, times[:3]).frames_THWC)


@pytest.mark.parametrize("motion", MOTIONS)
def test_masks_lie_where_the_poses_say(motion: str) -> None:
    rendering = render(draw_scene(motion, (1, 0, 5), 128), np.arange(12) / 6)
    poses = rendering.poses
    rows, columns = np.mgrid[:128, :128]
    checked = 0
    for t, mask in enumerate(rendering.masks_STHW[0]):
        if mask.any() and not (mask[[0, -1]].any() or mask[:, [0, -1]].any()):  # wholly inside the frame
            seen = np.array([columns[mask].mean(), rows[mask].mean()])
            told = np.array([poses.x[0, t], poses.y[0, t]]) - poses.camera_T2[t]
            assert np.abs(seen - told).max() < 1.0
            checked += 1
    assert checked >= 6


def test_the_actor_hides_the_distractor() -> None:
    rendering = render(draw_scene("slide", (1, 0, 5), 128), np.arange(30) / 10)
    assert not (rendering.masks_STHW[0] & rendering.masks_STHW[1]).any()


def test_visible_points_of_a_sprite_lie_on_its_mask() -> None:
    rendering = render(draw_scene("approach", (1, 0, 6), 128), np.arange(20) / 10)
    for owner in (0, 1):
        for t, p in zip(*np.nonzero(rendering.visible_TP & (rendering.point_owner_P == owner)), strict=True):
            column, row = np.rint(rendering.tracks_TP2[t, p]).astype(int)
            assert rendering.masks_STHW[owner, t, row, column]


def test_a_track_keeps_its_color_while_the_light_is_steady() -> None:
    times = np.arange(6) / 100  # so short that the light hardly changes
    rendering = render(draw_scene("slide", (1, 0, 8), 128), times)
    for p in np.flatnonzero(rendering.visible_TP.all(axis=0) & (rendering.point_owner_P == 0)):
        column, row = np.rint(rendering.tracks_TP2[:, p]).astype(int).T
        colors = rendering.frames_THWC[np.arange(6), row, column].astype(float)
        assert np.abs(colors - colors[0]).mean() < 12


def test_a_frame_depends_on_its_own_time_alone() -> None:
    drawn = draw_scene("roll", (3, 1, 4), SIZE)
    times = np.arange(20) / 25
    picked = [11, 3, 3]
    np.testing.assert_array_equal(render(drawn, times).frames_THWC[picked], render(drawn, times[picked]).frames_THWC)


def test_same_seed_same_pixels_and_another_seed_others() -> None:
    times = np.arange(3) / 25
    first, again, other = (render(draw_scene("wag", (0, 0, i), SIZE), times).frames_THWC for i in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.9


def test_speed_direction_and_looks_do_not_tell_the_motion() -> None:
    """The same seed draws the same of everything but the motion's own constants."""
    drawn = [draw_scene(motion, (0, 0, 9), SIZE) for motion in MOTIONS]
    for name in ("speed", "direction", "turn", "start", "center_px", "radius_px", "seed"):
        assert len({getattr(s, name) for s in drawn}) == 1
    speeds = [draw_scene("slide", (0, 0, i), SIZE).speed for i in range(300)]
    assert SPEED_RANGE[0] <= min(speeds) < SPEED_RANGE[0] * 1.05
    assert SPEED_RANGE[1] * 0.95 < max(speeds) <= SPEED_RANGE[1]


@pytest.mark.parametrize("motion", MOTIONS)
def test_the_actor_stays_in_view(motion: str) -> None:
    times = np.arange(75) / 25
    for i in range(10):
        poses = scene_poses(draw_scene(motion, (2, 0, i), 128), times)
        seen = np.stack([poses.x[0], poses.y[0]], axis=1) - poses.camera_T2
        assert ((seen > 0) & (seen < 128)).all(axis=1).mean() > 0.9
