"""Seconds to frames by time stamps."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ssvid.video import scan_video
from ssvid.video.times import FrameTimes, evenly_spaced, frame_times
from tests.video.clocked import clock_frames, encode


def times_of(path: Path) -> FrameTimes:
    found = scan_video(path, []).times
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("name", "codec", "unit"), [("a.mp4", "libx264", 25), ("a.mkv", "libx264", 1000), ("a.avi", "mpeg4", 25)]
)
def test_frames_begin_where_their_time_stamps_say(name: str, codec: str, unit: int, tmp_path: Path) -> None:
    path = encode(tmp_path / name, clock_frames(60), codec)
    times = times_of(path)
    np.testing.assert_allclose(times.seconds, np.arange(60) / 25, atol=1e-9)
    assert times.end_seconds == pytest.approx(2.4)
    assert [times.frames_before(k / 25) for k in range(61)] == list(range(61))
    assert [times.frames_before(seconds) for seconds in (0.0, 0.03, 0.04, 0.041, 2.36, 2.4, 99.0)] == [
        0,
        1,
        1,
        2,
        59,
        60,
        60,
    ]


def test_the_clock_of_a_container_may_be_coarse(tmp_path: Path) -> None:
    """Matroska rounds 1/30 s to milliseconds; a time in decimals still means the frame that was meant."""
    pts = [round(1000 * k / 30) for k in range(300)]
    times = frame_times(pts, 33, Fraction(1, 1000), 0)
    assert times is not None
    for digits in (3, 4, 6):
        assert [times.frames_before(round(k / 30, digits)) for k in range(300)] == list(range(300))
    assert times.frames_before(0.05) == 2, "halfway between two frames"


@pytest.mark.parametrize(
    ("name", "first"),
    [("a.mp4", 2.0), ("a.mkv", 2.0), ("a.ts", 0.0)],
)
def test_time_counts_from_the_zero_of_the_time_line(name: str, first: float, tmp_path: Path) -> None:
    """A picture that begins at 2 s begins at 2 s; the clock of a transport stream has no zero, its first stamp is taken."""
    path = encode(tmp_path / name, clock_frames(30), times=list(range(50, 80)))
    times = times_of(path)
    assert times.seconds[0] == pytest.approx(first, abs=1e-6)
    assert times.frames_before(first) == 0
    assert times.frames_before(first + 0.4) == 10


def test_the_text_of_times_is_exact_and_short() -> None:
    rng = np.random.default_rng(0)
    steps = rng.integers(1, 5000, 3000)
    wild = FrameTimes(np.cumsum(steps) - 7, int(steps.sum()) + 40, Fraction(1, 90_000))
    even = evenly_spaced(100_000, 30_000 / 1001)
    for times in (wild, even):
        again = FrameTimes.from_text(times.to_text())
        np.testing.assert_array_equal(again.pts, times.pts)
        assert (again.end, again.unit) == (times.end, times.unit)
    assert len(even.to_text()) < 3000
    with pytest.raises(ValueError, match="no frame times"):
        FrameTimes.from_text("1/25 abcde")


@pytest.mark.parametrize("pts", [[], [None], [0, None, 2], [0, 2, 1], [0, 0, 1]])
def test_no_times_without_time_stamps_in_order(pts: list[int | None]) -> None:
    assert frame_times(pts, 1, Fraction(1, 25), 0) is None


def test_a_single_frame_and_a_negative_start() -> None:
    one = frame_times([5], 3, Fraction(1, 10), 0)
    assert one is not None and (one.frames_before(0.5), one.frames_before(0.51), one.end_seconds) == (0, 1, 0.8)
    early = frame_times([-2, 0, 2], 2, Fraction(1, 10), 0)
    assert early is not None and early.seconds.tolist() == [0.0, 0.2, 0.4], "nothing is shown before zero"
