"""Motion against known displacements, thumbnails against block means; both need OpenCV."""

import sys

import numpy as np
import pytest

from ssvid.errors import DecodeError, SsvidError
from ssvid.video import open_video, write_video
from ssvid.video.motion import (
    FLOW_PX,
    measure_signals,
    read_signal,
    signal_file,
    write_signals,
)
from ssvid.video.optical_flow import require_opencv


def texture(height, width, seed=0):
    """Smooth noise, gray levels: sums of waves of 8 to 40 pixels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [
        np.sin(2 * np.pi * (x * np.cos(a) + y * np.sin(a)) / length + phase)
        for a, length, phase in zip(
            rng.uniform(0, np.pi, 24), rng.uniform(8, 40, 24), rng.uniform(0, 6.28, 24), strict=True
        )
    ]
    return (128 + 20 * np.sum(waves, axis=0)).clip(0, 255)


def sliding(path, shifts, height=112, width=160, zoom=1):
    """A video whose ground moves by ``shifts`` (T, 2) pixels, y and x, cut out of one large texture."""
    at = np.cumsum(shifts, axis=0).astype(int)
    at -= at.min(axis=0)
    ground = texture(*(at.max(axis=0) + np.array([height, width])))
    frames = [ground[y : y + height, x : x + width].repeat(zoom, 0).repeat(zoom, 1) for y, x in at.tolist()]
    write_video(path, [np.repeat(f[..., None], 3, axis=2).astype(np.uint8) for f in frames], fps=25, crf=8, gop=1)
    return path


def test_motion_is_the_length_of_the_displacement_in_short_sides(tmp_path):
    shifts = [(0, 0), (0, 0), (3, 4), (0, 5), (0, -2), (6, 8), (0, 0)]
    motion = measure_signals(sliding(tmp_path / "v.mp4", shifts))["motion"]
    assert motion.dtype == np.float32
    assert motion.shape == (7,)
    assert motion[0] == 0.0  # nothing comes before the first frame
    for t, (dy, dx) in enumerate(shifts):
        assert float(motion[t]) * 112 == pytest.approx((dy * dy + dx * dx) ** 0.5, rel=0.15, abs=0.15), t


def test_motion_does_not_depend_on_the_size_of_the_picture(tmp_path):
    shifts = [(0, 0), (2, 2), (4, 0), (0, 3)]
    one = measure_signals(sliding(tmp_path / "a.mp4", shifts))["motion"]
    two = measure_signals(sliding(tmp_path / "b.mp4", shifts, zoom=2))["motion"]
    assert two == pytest.approx(one, rel=0.1, abs=0.002)


def test_small_and_narrow_pictures_are_measured(tmp_path):
    for size in ((16, 16), (16, 96), (200, 32)):
        signals = measure_signals(sliding(tmp_path / f"{size[0]}x{size[1]}.mp4", [(0, 0), (0, 1), (0, 1)], *size))
        assert np.isfinite(signals["motion"]).all()
        assert (signals["motion"][1:] > 0).all()
    assert FLOW_PX == 112


def test_thumbnails_are_the_means_of_blocks(tmp_path):
    path = sliding(tmp_path / "v.mp4", [(0, 0), (1, 3), (2, 2)], height=64, width=96)
    thumbnails = measure_signals(path)["thumbnails"]
    assert thumbnails.dtype == np.uint8
    assert thumbnails.shape == (3, 16, 16, 3)
    with open_video(path) as reader:
        frames = reader.frames_at(np.arange(3)).numpy().astype(np.float64)
    for t in range(3):
        for row in range(16):
            for column in range(16):
                block = frames[t, :, row * 4 : row * 4 + 4, column * 6 : column * 6 + 6]
                for c in range(3):
                    assert abs(thumbnails[t, row, column, c] - block[c].mean()) <= 1.0


def test_one_row_for_every_frame_that_defines_the_video(tmp_path):
    path = sliding(tmp_path / "v.mp4", [(0, 1)] * 23)
    signals = measure_signals(path)
    with open_video(path) as reader:
        assert reader.info.num_frames == len(signals["motion"]) == len(signals["thumbnails"]) == 23


def test_the_number_of_threads_of_opencv_is_left_as_it_was(tmp_path):
    cv2 = require_opencv()
    before = cv2.getNumThreads()
    measure_signals(sliding(tmp_path / "v.mp4", [(0, 0)] * 2))
    assert cv2.getNumThreads() == before
    with pytest.raises(DecodeError):
        measure_signals(tmp_path / "nowhere.mp4")
    assert cv2.getNumThreads() == before


def test_without_opencv_the_way_out_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(SsvidError, match=r"needs OpenCV, which cannot be imported.*pip install 'ssvid\[motion\]'"):
        measure_signals(tmp_path / "v.mp4")


def test_what_is_written_is_read_and_what_does_not_fit_is_refused(tmp_path):
    signals = {"motion": np.arange(4, dtype=np.float32), "thumbnails": np.ones((4, 16, 16, 3), np.uint8)}
    base = tmp_path / "ab" / "abc"
    write_signals(base, signals)
    for name, values in signals.items():
        assert np.array_equal(read_signal(base, name, 4), values)
    with pytest.raises(ValueError, match=r"holds float32 \(4,\), and 5 frames have float32 \(5,\)"):
        read_signal(base, "motion", 5)
    with pytest.raises(FileNotFoundError):
        read_signal(tmp_path / "other", "motion", 4)
    signal_file(base, "motion").write_bytes(b"no array")
    with pytest.raises(ValueError):
        read_signal(base, "motion", 4)
