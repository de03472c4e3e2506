"""Footage as it comes: recordings with pauses, and different files that look alike from outside. Indexed once for all."""

from __future__ import annotations

import warnings
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ssvid.data.contents import units_of
from ssvid.data.index.building import build_manifest
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.data.readers import Entry, list_videos
from ssvid.data.summary import summarize
from ssvid.errors import DataError
from ssvid.video import quick_id
from tests.benchmarks.bench_footage import index_footage, read_at_random, slow_scanner
from tests.video.clocked import clock_frames, encode

MS = Fraction(1, 1000)
# name -> time of every frame in ms: what a recorder wrote down.
TIMES = {
    "one_pause.mp4": [40 * k for k in (*range(50), *range(150, 250))],
    "two_pauses.mkv": [40 * k for k in (*range(30), *range(60, 90), *range(200, 260))],
    "few_gaps.mp4": [40 * (k + k // 110) for k in range(230)],
    "late_start.mp4": [2000 + 40 * k for k in range(60)],
    "screen.mkv": np.cumsum([0, *np.random.default_rng(3).choice([16, 33, 50, 700], 119)]).tolist(),
    "even.mp4": [40 * k for k in range(100)],
}
WINDOWS = [(0.0, 1.0), (0.5, 1.5), (2.0, None), (2.2, 3.3), (2.9, 4.0), (3.0, 3.01)]


def write_raw(path: Path, seed: int) -> None:
    """Uncompressed gray with black bars, whose first and last 64 KiB hold the bars alone."""
    picture = np.random.default_rng(seed).integers(0, 255, (480, 640), np.uint8)
    picture[:120], picture[-120:] = 0, 0
    with av.open(str(path), "w") as output:
        stream = output.add_stream("rawvideo", rate=25)
        stream.height, stream.width, stream.pix_fmt = 480, 640, "gray"
        for _ in range(3):
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="gray")))


def write_dv(path: Path, seed: int) -> None:
    """Every frame of DV takes the same number of bytes; lead-in and end are black."""
    black = np.zeros((576, 720, 3), np.uint8)
    content = np.random.default_rng(seed).integers(0, 255, (36, 45, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    encode(path, [black, content, black], "dvvideo")


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    root = tmp_path_factory.mktemp("footage")
    for name, times in TIMES.items():
        encode(root / name, clock_frames(len(times)), times=times, time_base=MS)
    for seed in range(3):
        write_raw(root / f"raw{seed}.avi", seed)
        write_dv(root / f"dv{seed}.avi", seed)
    (root / "copy.avi").write_bytes((root / "raw0.avi").read_bytes())
    entries = [
        Entry(name, start_seconds=start, end_seconds=end)
        for name, times in TIMES.items()
        for start, end in WINDOWS
        if frames_shown(times, start, end)
    ]
    alike = [entry for entry in list_videos("folder", root) if entry.path.endswith(".avi")]
    return build_manifest(root, [*entries, *alike], decoders=("pyav",), workers=1)


def frames_shown(times_ms: list[int], start: float, end: float | None) -> list[int]:
    """The frames that begin in a window, by their times alone."""
    return [k for k, t in enumerate(times_ms) if 1000 * start <= t and (end is None or t < 1000 * end)]


def frames_of(row: VideoRow) -> list[int]:
    return list(range(row.start_frame, row.start_frame + row.window_frames))


@pytest.mark.parametrize("name", TIMES)
def test_a_window_holds_the_frames_that_begin_in_it(name: str, footage: Manifest) -> None:
    windows = [window for window in WINDOWS if frames_shown(TIMES[name], *window)]
    rows = [row for row in footage.rows if row.path == name]
    assert len(rows) == len(windows) >= 2
    for row, window in zip(rows, windows, strict=True):
        assert frames_of(row) == frames_shown(TIMES[name], *window), window


def test_pauses_and_gaps_are_flagged_and_said(footage: Manifest) -> None:
    flagged = {row.path for row in footage.rows if row.variable_fps}
    assert flagged == {"one_pause.mp4", "two_pauses.mkv", "few_gaps.mp4", "screen.mkv"}
    assert {row.path for row in footage.rows if "time: frames stay" in row.notes} == flagged
    assert {row.notes for row in footage.rows if row.path == "late_start.mp4"} == {
        "time: the first frame begins at 2 s"
    }
    assert (
        "\n5 with pauses, a variable rate or a late start:\n  one_pause.mp4: frames stay 0.04 to 4.04 s"
        in summarize(footage)
    )


@pytest.mark.parametrize(
    ("name", "start", "end", "message"),
    [
        ("one_pause.mp4", 3.0, 5.0, r"window \(3 to 5 s\) .* must hold a frame: one begins at 1.96 s, the next at 6 s"),
        ("one_pause.mp4", 3.0, 3.01, r"must hold a frame"),
        ("one_pause.mp4", 10.5, None, r"start \(10.5 s\) .* whose last frame begins at 9.96 s and ends at 10 s"),
        ("late_start.mp4", 0.5, 1.5, r"must hold a frame: the next at 2 s"),
    ],
)
def test_a_window_in_which_nothing_begins_is_refused(
    name: str, start: float, end: float | None, message: str, footage: Manifest
) -> None:
    with pytest.raises(DataError, match=message):
        build_manifest(footage.root, [Entry(name, start_seconds=start, end_seconds=end)], decoders=("pyav",))


def test_a_window_shorter_than_a_frame_gets_the_next_one(footage: Manifest) -> None:
    entries = [Entry("one_pause.mp4", start_seconds=t, end_seconds=t + 0.01) for t in (0.001, 7.001, 5.97)]
    rows = build_manifest(footage.root, entries, decoders=("pyav",)).rows
    assert [frames_of(row) for row in rows] == [[1], [76], [50]]


def test_different_files_that_look_alike_are_different(footage: Manifest) -> None:
    rows = {row.path: row for row in footage.rows if row.path.endswith(".avi")}
    assert len({quick_id(footage.path_of(row)) for row in rows.values()}) == 2, "the quick identity sees two files"
    assert len({row.content_id for row in rows.values()}) == len(rows) - 1 == 6
    assert rows["copy.avi"].content_id == rows["raw0.avi"].content_id
    own = footage.with_rows(rows.values())
    assert "1 exact duplicate" in summarize(own)
    assert len(set(units_of(own.rows))) == 6


def test_alike_files_are_held_out_one_by_one(footage: Manifest) -> None:
    """And a copy is on the side of its original."""
    own = footage.with_rows(row for row in footage.rows if row.path.endswith(".avi"))
    sizes = set()
    for seed in range(20):
        train, val = own.train_val_split(0.5, seed)
        sides = [{row.content_id for row in side.rows} for side in (train, val)]
        assert not sides[0] & sides[1]
        sizes.add(len(sides[1]))
    assert len(sizes) > 2


def test_footage_is_indexed_on_a_machine_that_is_many_times_slower(tmp_path: Path) -> None:
    """A still recording and a paused one take many times the limit; nothing hangs, and the times are right.

    As ten minutes of 1080p would be to 60 s, with a delay put into every frame.
    """
    root = tmp_path / "videos"
    root.mkdir()
    encode(root / "still.mp4", [clock_frames(1)[0]] * 120, gop=250)
    encode(root / "paused.mp4", clock_frames(120), gop=250, times=[*range(60), *range(160, 220)])
    entries = [Entry("still.mp4"), Entry("paused.mp4", start_seconds=7.0)]
    with slow_scanner(tmp_path, 0.05), warnings.catch_warnings():
        warnings.simplefilter("error")  # "made a decoder hang"
        manifest = build_manifest(root, entries, timeout_seconds=1.0, cache=False, workers=2)
    assert [row.status for row in manifest.rows] == ["ok", "ok"]
    assert all("pyav" in row.decoders_ok for row in manifest.rows)
    assert manifest.rows[0].window_seconds == pytest.approx(4.8)
    assert manifest.rows[1].start_frame == 75 and manifest.rows[1].variable_fps


@pytest.mark.slow
def test_a_minute_of_full_size_footage_on_a_machine_that_is_ten_times_slower(tmp_path: Path) -> None:
    """As ``tests.benchmarks.bench_footage`` does with ten minutes."""
    said: list[str] = []
    read_at_random(index_footage(tmp_path, minutes=1.0, slower=10.0, say=said.append), said.append)
    assert len(said) == 6
