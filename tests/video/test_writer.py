"""Written whole or not at all, and readable as what was written."""

import os
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from ssvid.errors import DataError
from ssvid.video import scan_video, write_video
from tests.video.clocked import HEIGHT, WIDTH, clock_frame, clock_frames, clocks, sequential_oracle


def packets(path: Path) -> list[av.Packet]:
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


def decoded_clocks(path: Path) -> list[int]:
    return clocks(np.stack(sequential_oracle(path)).transpose(0, 3, 1, 2))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi", ".mov"])
def test_what_was_written_is_read_back(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"new folder/a{suffix}"
    assert write_video(path, clock_frames(30), fps=12.5) == 30
    scan = scan_video(path, ["pyav"])
    assert (scan.info.num_frames, scan.info.height, scan.info.width) == (30, HEIGHT, WIDTH)
    assert scan.info.fps == pytest.approx(12.5, rel=2e-3)  # Matroska counts milliseconds
    assert not scan.info.variable_fps
    assert decoded_clocks(path) == list(range(30))
    assert os.listdir(path.parent) == [path.name]


def test_a_generator_is_consumed_one_frame_at_a_time(tmp_path: Path) -> None:
    alive = []

    def frames() -> Iterator[np.ndarray]:
        for number in range(300):
            alive.append(number)
            yield clock_frame(number % 256)

    assert write_video(tmp_path / "a.mp4", frames(), fps=25) == 300
    assert len(alive) == 300
    assert decoded_clocks(tmp_path / "a.mp4") == [i % 256 for i in range(300)]


def test_key_frames_and_b_frames_are_where_they_were_asked_for(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", clock_frames(36), fps=25, gop=12)
    write_video(tmp_path / "b.mp4", clock_frames(36), fps=25, gop=9, b_frames=2)
    plain, with_b = packets(tmp_path / "a.mp4"), packets(tmp_path / "b.mp4")
    assert [i for i, p in enumerate(plain) if p.is_keyframe] == [0, 12, 24]
    assert [p.pts for p in plain] == sorted(p.pts for p in plain)
    assert sum(p.is_keyframe for p in with_b) == 4
    assert [p.pts for p in with_b] != sorted(p.pts for p in with_b)
    assert decoded_clocks(tmp_path / "b.mp4") == list(range(36))


def test_a_lower_crf_is_nearer_to_the_original(tmp_path: Path) -> None:
    noise = [
        np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8).repeat(2, 0).repeat(2, 1) for i in range(4)
    ]
    errors = []
    for crf in (10, 40):
        write_video(tmp_path / "a.mp4", noise, fps=25, crf=crf)
        errors.append(np.abs(np.stack(sequential_oracle(tmp_path / "a.mp4")).astype(int) - np.stack(noise)).mean())
    assert errors[0] < errors[1]


def test_the_color_space_is_written_down(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", clock_frames(2), fps=25)
    with av.open(str(tmp_path / "a.mp4")) as container:
        frame = next(container.decode(video=0))
    assert (frame.format.name, frame.colorspace, frame.color_range) == ("yuv420p", 6, 1)  # BT.601, limited range


def test_the_same_frames_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, clock_frames(20), fps=25)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_mpeg4_in_avi_is_what_ucf101_uses(tmp_path: Path) -> None:
    write_video(tmp_path / "a.avi", clock_frames(30), fps=25, codec="mpeg4", b_frames=2)
    scan = scan_video(tmp_path / "a.avi", ["pyav"])
    assert scan.has_b_frames
    assert decoded_clocks(tmp_path / "a.avi") == list(range(30))


def test_a_failure_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, clock_frames(5), fps=25)
    before = path.read_bytes()

    def breaks() -> Iterator[np.ndarray]:
        yield clock_frame(0)
        raise KeyError("the source broke")

    with pytest.raises(KeyError, match="the source broke"):
        write_video(path, breaks(), fps=25)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_an_existing_file_is_replaced(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", clock_frames(5), fps=25)
    write_video(tmp_path / "a.mp4", clock_frames(9), fps=25)
    assert decoded_clocks(tmp_path / "a.mp4") == list(range(9))


BAD_FRAMES = {
    "float": ([np.zeros((4, 4, 3))], r"frame 0 has type float64; it must be uint8"),
    "gray": ([np.zeros((4, 4), np.uint8)], r"frame 0 has shape \(4, 4\); it must be \(height, width, 3\), RGB"),
    "channels first": ([np.zeros((3, 4, 4), np.uint8)], r"it must be \(height, width, 3\), RGB"),
    "odd": ([np.zeros((5, 4, 3), np.uint8)], r"shape \(5, 4, 3\); height and width must be even"),
    "empty": ([np.zeros((0, 4, 3), np.uint8)], r"height and width must be even and above 0"),
    "two sizes": (
        [np.zeros((4, 4, 3), np.uint8), np.zeros((8, 4, 3), np.uint8)],
        r"frame 1 has shape \(8, 4, 3\).*one size",
    ),
    "none": ([], r"there are no frames, and a video must have at least one"),
}


@pytest.mark.parametrize("case", BAD_FRAMES)
def test_bad_frames_are_named_and_nothing_is_written(case: str, tmp_path: Path) -> None:
    frames, words = BAD_FRAMES[case]
    with pytest.raises(DataError, match=words) as caught:
        write_video(tmp_path / "a.mp4", frames, fps=25)
    assert "a.mp4" in str(caught.value)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_fps_must_be_positive(fps: float, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"fps \(.*\) must be above 0 and below 10000"):
        write_video(tmp_path / "a.mp4", clock_frames(2), fps=fps)


def test_an_unknown_codec_or_container_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"with codec 'libx999'"):
        write_video(tmp_path / "a.mp4", clock_frames(2), fps=25, codec="libx999")
    with pytest.raises(DataError, match=r"suffix '\.xyz': Could not determine output format\. Use \.mp4"):
        write_video(tmp_path / "a.xyz", clock_frames(2), fps=25)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("fps", [0.5, 23.976, 29.97, 60, 119.88])
def test_frame_rates_come_back(fps: float, tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", clock_frames(20), fps=fps)
    assert scan_video(tmp_path / "a.mp4", []).info.fps == pytest.approx(fps, rel=1e-4)


def test_the_encoder_is_set_to_nothing_that_gives_other_bytes_now_and_then(tmp_path: Path) -> None:
    """libx264 writes its settings into the file. Threads and, on AVX-512, the macroblock tree change what comes out."""
    write_video(tmp_path / "a.mp4", clock_frames(5), fps=25)
    settings = (tmp_path / "a.mp4").read_bytes()
    for setting in (b" threads=1 ", b" lookahead_threads=1 ", b" sliced_threads=0 ", b" mbtree=0 "):
        assert setting in settings
