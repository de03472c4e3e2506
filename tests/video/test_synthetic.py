"""Oracles for the renderer: the laws of motion, masks against poses, and speed as a physical quantity."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.stats import kstest

from ssvid.video.synthetic import SPEED_RANGE, Scene, actor_path, draw_scene, render, scene_poses
from ssvid.video.synthetic_motions import DIRECTIONS, GRAVITY, IRREVERSIBLE, MOTIONS, STEADY_SCALE

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


# ---- motions that cannot run backward


@pytest.mark.parametrize("motion", IRREVERSIBLE)
def test_the_actor_of_an_irreversible_motion_stays_in_view(motion: str) -> None:
    test_the_actor_stays_in_view(motion)


def own_time(motion: str, end: float, **natural: float) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """A scene at speed 1 from its beginning on, upright, in frame heights: times, and its path."""
    s = scene(motion, speed=1.0, start=0.0, turn=1, direction=0.0, center_px=(0.0, 0.0))
    s = dataclasses.replace(s, natural={**s.natural, **natural})
    times = np.linspace(0, end, 40001)
    x, y, angle, scale = actor_path(s, times)
    return times, (x / SIZE, y / SIZE, angle, scale)


def test_a_dropped_ball_falls_by_gravity_and_keeps_its_share_of_speed_at_each_bounce() -> None:
    times, (_, y, _, _) = own_time("drop", 2.4, reach=0.4, restitution=0.6)
    speed = np.diff(y) / np.diff(times)  # y points down
    hits = np.flatnonzero((speed[:-1] > 0.05) & (speed[1:] < speed[:-1] - 0.05))
    before, after = np.array([(speed[i - 2], -speed[i + 2]) for i in hits]).T
    np.testing.assert_allclose(after[:3] / before[:3], 0.6, atol=0.01)
    assert after[3] == pytest.approx(math.sqrt(2 * GRAVITY * 0.4), rel=0.01)  # thrown up anew
    falls = (times[1:-1] > 0.1) & (times[1:-1] < 0.6)
    np.testing.assert_allclose((np.diff(speed) / np.diff(times)[1:])[falls], GRAVITY, rtol=1e-3)
    assert np.ptp(y) == pytest.approx(0.4, rel=1e-3)


def test_a_drop_that_spreads_covers_an_area_that_grows_evenly() -> None:
    times, (x, y, angle, scale) = own_time("spread", 1.0, period=1.1, reach=0.4, growth=10.0)
    np.testing.assert_allclose(scale**2, 0.16 * (1 + 10 * times), rtol=1e-9)
    assert np.ptp(x) == np.ptp(y) == np.ptp(angle) == 0


def test_what_is_let_go_falls_by_gravity_and_a_leaf_sinks_evenly() -> None:
    times, (x, y, _, _) = own_time("fall", 0.6, reach=0.8)  # lands after sqrt(2 * 0.8 / 4) = 0.632 s
    np.testing.assert_allclose(y - y[0], GRAVITY * times**2 / 2, atol=1e-12)
    assert np.ptp(x) == 0
    times, (x, y, _, _) = own_time("settle", 1.59, period=1.6, reach=0.8, sway=0.8)
    np.testing.assert_allclose(np.diff(y) / np.diff(times), 0.5, rtol=1e-6)
    assert np.ptp(x) == pytest.approx(0.16, rel=1e-3)


def test_what_is_hot_cools_as_newton_says_and_nothing_else_changes() -> None:
    """The distance to the glow's color keeps its ratio, and frames differ where the actor is alone."""
    s = draw_scene("cool", (3, 1, 4), SIZE)
    s = dataclasses.replace(s, speed=1.0, start=0.0)
    rendering = render(s, [0.0, 0.4, 0.8])
    frames, actor = rendering.frames_THWC.astype(float), rendering.masks_STHW[0, 0]
    near = actor | np.roll(actor, 2, 0) | np.roll(actor, -2, 0) | np.roll(actor, 2, 1) | np.roll(actor, -2, 1)
    assert (frames[:, ~near] == frames[0, ~near]).all()
    inside = actor & np.roll(actor, 2, 0) & np.roll(actor, -2, 0) & np.roll(actor, 2, 1) & np.roll(actor, -2, 1)
    steps = np.diff(frames[:, inside], axis=0)
    far = np.abs(steps[0]) > 20  # rounded to whole levels
    share = math.exp(-s.natural["drag"] * 0.4)
    np.testing.assert_allclose(steps[1][far] / steps[0][far], share, atol=0.06)
    assert (steps.mean(axis=(1, 2)) < -3).all()  # darker and darker


def test_drag_takes_the_same_share_of_speed_in_equal_times() -> None:
    times, (x, _, _, _) = own_time("coast", 1.69, period=1.7, reach=0.5, drag=2.0)
    speed = np.diff(x) / np.diff(times)
    np.testing.assert_allclose(speed[10000:] / speed[:-10000], math.exp(-2.0 * times[10000]), rtol=1e-5)


# ---- directions


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_at_any_instant_place_angle_and_size_are_spread_evenly_whatever_the_direction(direction: str) -> None:
    """Of 600 scenes, at two instants: a single frame says nothing of the class."""
    scenes = [draw_scene(direction, (3, 0, i), SIZE) for i in range(600)]
    for instant in (0.0, 1.3):
        paths = np.array([np.ravel(actor_path(s, np.array([instant]))) for s in scenes])
        low, high = np.log(STEADY_SCALE)
        shares = [
            (paths[:, 0] - (SIZE - 1) / 2) / SIZE + 0.5,
            (paths[:, 1] - (SIZE - 1) / 2) / SIZE + 0.5,
            paths[:, 2] / (2 * math.pi) % 1,
            (np.log(paths[:, 3]) - low) / (high - low),
        ]
        directions = [s.direction for s in scenes]
        assert max(directions) > 6, "drawn for every scene, and without effect on one that stands upright"
        for values in shares:
            assert kstest(values, "uniform").pvalue > 1e-4


@pytest.mark.parametrize(
    ("direction", "moves", "pace"),
    [("right", 0, 32.0), ("left", 0, -32.0), ("down", 1, 32.0), ("up", 1, -32.0), ("clockwise", 2, math.pi)],
)
def test_a_direction_moves_one_thing_at_a_steady_pace(direction: str, moves: int, pace: float) -> None:
    """Half of the range in a second: of 64 px, of a turn. y points down, so that a growing angle turns clockwise."""
    natural = {"x": 0.3, "y": 0.3, "angle": 0.3, "size": 0.3}
    s = dataclasses.replace(scene(direction), natural=natural if pace > 0 else {**natural, "x": 0.7, "y": 0.7})
    path = np.array(actor_path(s, np.arange(0, 1, 0.1)))
    steps = np.diff(path, axis=1) / 0.1
    np.testing.assert_allclose(steps[moves], pace, rtol=1e-9)
    np.testing.assert_allclose(np.delete(steps, moves, axis=0), 0.0, atol=1e-9)


def test_opposite_directions_are_one_another_backwards() -> None:
    times = np.arange(8) / 10
    for one, other in zip(DIRECTIONS[::2], DIRECTIONS[1::2], strict=True):
        forward = actor_path(scene(one), times)
        start = {"x": 0.0, "y": 0.0, "angle": 0.0, "size": 0.0} | dict(scene(one).natural)
        moving = {"right": "x", "down": "y", "clockwise": "angle", "growing": "size"}[one]
        start[moving] += 0.5 * times[-1]  # where it has come to
        backward = actor_path(dataclasses.replace(scene(other), natural=start), times)
        for there, back in zip(forward, backward, strict=True):
            np.testing.assert_allclose(back[::-1], there, atol=1e-9)


def test_of_a_plain_scene_nothing_but_the_actor_is_seen() -> None:
    rendering = render(draw_scene("left", (1, 0, 0), SIZE), np.arange(5) / 5)
    assert not rendering.masks_STHW[1].any()
    soft = 2  # the actor's rim reaches a pixel or two beyond its mask
    for frame, mask in zip(rendering.frames_THWC, rendering.masks_STHW[0], strict=True):
        rows, columns = np.nonzero(mask)
        outside = np.ones_like(mask)
        outside[
            max(rows.min() - soft, 0) : rows.max() + soft + 1, max(columns.min() - soft, 0) : columns.max() + soft + 1
        ] = False
        assert np.all(frame[outside] == frame[0, 0]) or mask[0, 0]
    assert np.all(np.diff(rendering.poses.camera_T2, axis=0) == 0)
