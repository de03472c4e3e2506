"""Videos on a schedule: every speed comes, frames are those of the scene at the summed times."""

import numpy as np
import pytest

from ssvid.video.schedules import SPEEDS, STRETCH_SECONDS, draw_schedule, scheduled_times, scheduled_video
from ssvid.video.synthetic import draw_scene, render


def test_every_speed_comes_and_lasts():
    speeds = draw_schedule(1000, 25.0, np.random.default_rng(0))
    assert len(speeds) == 1000 and set(speeds) == set(SPEEDS)
    changes = np.flatnonzero(np.diff(speeds)) + 1
    lengths = np.diff([0, *changes])
    assert lengths.min() >= STRETCH_SECONDS[0] * 25 - 1 and lengths.max() <= STRETCH_SECONDS[1] * 25 + 1


def test_times_are_the_sum_of_speeds():
    assert scheduled_times(np.array([1.0, 2.0, 0.5, 9.0]), 10.0) == pytest.approx([0, 0.1, 0.3, 0.35])


def test_a_video_shows_its_scene_at_the_scheduled_times():
    made = scheduled_video("orbit", 3, seconds=1.0, size_px=32)
    scene = draw_scene("orbit", (3, 9, 0), 32)
    again = render(scene, scheduled_times(made.speeds_T / scene.speed, 25.0)[[0, 24]]).frames_THWC
    assert np.array_equal(made.frames_THWC[[0, 24]], again)
    assert made.natural_factors.min() >= 1 and made.natural_factors * made.speeds_T == pytest.approx(
        np.maximum(made.speeds_T, 1)
    )
