"""The even beat, versions, windows and curves: hand-made cases, and slow loops beside."""

import numpy as np
import pytest

from ssvid.apps.timeline import Timeline, averaged_at, curve_at, version, window_starts


def test_frames_that_come_evenly_have_a_beat_each():
    line = Timeline.even(5, 25.0)
    assert len(line) == 5 and line.frames_N.tolist() == [0, 1, 2, 3, 4] and line.places_T.tolist() == [0, 1, 2, 3, 4]


def test_a_frame_that_stays_long_is_seen_at_several_beats():
    seconds_T = np.array([2.0, 2.1, 2.2, 2.6, 2.7])
    line = Timeline.of_times(seconds_T, 10.0)
    assert line.frames_N.tolist() == [0, 1, 2, 2, 2, 2, 3, 4]
    assert line.places_T == pytest.approx([0, 1, 2, 6, 7])


def test_times_rounded_to_milliseconds_lose_no_frame():
    seconds_T = np.round(np.arange(300) * 1001 / 30000, 3)
    line = Timeline.of_times(seconds_T, 30000 / 1001)
    assert line.frames_N.tolist() == list(range(300))


def test_half_the_rate_takes_every_other_frame():
    line = Timeline.of_times(np.arange(9) / 50, 25.0)
    assert line.frames_N.tolist() == [0, 2, 4, 6, 8] and line.places_T == pytest.approx([k / 2 for k in range(9)])


@pytest.mark.parametrize("factor", [1.0, 1.25, 1.25**10, 3.0])
def test_versions_take_the_beats_of_the_paper(factor):
    beats = version(100, factor)
    expected = [j for j in (int(np.floor(j * factor + 1e-9)) for j in range(100)) if j < 100]
    assert beats.tolist() == expected and (np.diff(beats) >= 1).all()


def test_windows_reach_the_last_beat():
    assert window_starts(20, 8, 5).tolist() == [0, 5, 10, 12]
    assert window_starts(8, 8, 5).tolist() == [0]
    assert window_starts(7, 8, 5).tolist() == []
    assert window_starts(13, 8, 5).tolist() == [0, 5]


def test_a_windows_value_stands_in_its_middle_and_reaches_to_the_ends():
    found = curve_at(np.array([0, 4]), np.array([1.0, 3.0]), 5, np.arange(9.0))
    assert found.tolist() == [1, 1, 1, 1.5, 2, 2.5, 3, 3, 3]


def test_the_curve_of_a_faster_version_belongs_to_the_videos_own_time():
    found = curve_at(np.array([0, 4]), np.array([0.0, 1.0]), 5, np.array([4.0, 8.0, 12.0]), factor=2.0)
    assert found.tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("factor", [1.0, 1.5625])
@pytest.mark.parametrize("hop", [1, 3, 8])
def test_the_mean_over_windows_is_that_of_a_slow_loop(factor, hop):
    rng = np.random.default_rng(hop)
    starts = window_starts(60, 8, hop)
    values, places = rng.random(len(starts)), np.arange(int(59 * factor) + 3.0)
    found = averaged_at(starts, values, 8, places, factor)
    middle = curve_at(starts, values, 8, places, factor)
    for place in range(len(places)):
        at = min(places[place], 59 * factor)
        inside = [
            v for s, v in zip(starts, values, strict=True) if s * factor <= at + 1e-9 and at - 1e-9 <= (s + 7) * factor
        ]
        assert found[place] == pytest.approx(np.mean(inside) if inside else middle[place], abs=1e-12)


def test_what_is_constant_stays_constant():
    starts, places = window_starts(50, 16, 3), np.arange(50.0)
    for curve in (curve_at, averaged_at):
        assert curve(starts, np.full(len(starts), 0.3), 16, places) == pytest.approx(np.full(50, 0.3), abs=1e-12)
