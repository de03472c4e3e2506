"""The index: what a scan finds becomes rows, whatever the scanned files do to the processes that scan them.

Most tests put a small module in the place of ``ssvid.video``: what it does to a file is written in the file.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from fractions import Fraction
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from ssvid.data.index import processes as scanning
from ssvid.data.index import scan_cache
from ssvid.data.index.building import build_manifest
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.data.readers import Entry, list_videos
from ssvid.data.summary import summarize
from ssvid.errors import DataError
from ssvid.video.identity import quick_id
from ssvid.video.times import evenly_spaced

REAL = os.environ.get("SSVID_REAL_DATA", "")
HANG_SECONDS = 2.0  # far more than a busy machine leaves a process waiting

STUB = """
import ctypes, os, signal, sys, time
from types import SimpleNamespace
from ssvid.errors import DecodeError
from ssvid.video.progress import beat

# Calls by name from the main interpreter hold its lock, as a decoder that hangs does.
locked = ctypes.PyDLL(None)

def available_decoders():
    status = lambda version: SimpleNamespace(version=version, problem=None if version else "not installed: build it")
    return {"fast": status(os.environ.get("STUB_VERSION", "1.0")), "gone": status(None), "pyav": status("18")}

def scan_video(path, decoders=None, gray_range=(), fps=25.0):
    names = ("fast", "pyav") if decoders is None else tuple(decoders)
    with open(os.environ["STUB_LOG"], "a", errors="surrogateescape") as log:
        log.write(f"{os.path.basename(path)} {'+'.join(names)}\\n")
    print("noise on stdout", flush=True)
    word, *numbers = open(path).read().split()
    if word == "broken":
        raise DecodeError(path, "open", f"moov atom not found in {path} [mov @ 0x55d0c0ffee]")
    if word == "odd":
        raise IndexError("a decoder's own bug")
    if word == "hang" or (word == "hang_fast" and "fast" in names):
        locked.sleep(1000)
    if word == "crash" or (word == "crash_fast" and "fast" in names):
        os.kill(os.getpid(), signal.SIGSEGV)
    if word == "exit":
        os._exit(7)
    if word in ("crawl", "stall"):
        for _ in range(15):
            time.sleep(0.2)
            beat()
    if word == "stall":
        locked.sleep(1000)
    if word == "quiet":
        beat(20.0)
        time.sleep(3.0)
    if word == "hesitate_fast" and "fast" in names:
        time.sleep(5.0)
    if word == "slow":
        time.sleep(0.3)
    info = SimpleNamespace(gray_range=tuple(gray_range), num_frames=int(numbers[0]) if numbers else 30, fps=30000 / 1001, height=48, width=64,
                           variable_fps=False)
    return SimpleNamespace(info=info, decoders_ok=names, has_b_frames=False, notes={"header": "lies"}, times=None)
"""


@pytest.fixture
def scanned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The log of the stub that stands in for ``ssvid.video``, one line per scan."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "stub_video.py").write_text(STUB)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.setattr(scanning, "SCANNER", "stub_video")
    monkeypatch.setenv("STUB_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("SSVID_CACHE", str(tmp_path / "cache"))
    (tmp_path / "log").touch()
    return tmp_path / "log"


def folder(tmp_path: Path, **contents: str) -> Path:
    root = tmp_path / "videos"
    root.mkdir(exist_ok=True)
    for name, text in contents.items():
        (root / f"{name}.mp4").write_text(text)
    return root


def indexed(root: Path, **options: object) -> Manifest:
    return build_manifest(root, list_videos("folder", root), **{"workers": 2, **options})  # type: ignore[arg-type]


def test_a_scan_becomes_a_row(tmp_path: Path, scanned: Path) -> None:
    root = folder(tmp_path, a="ok 90")
    entry = Entry("a.mp4", "run", "train", "g1")
    assert build_manifest(root, [entry]).rows == (
        VideoRow(
            "a.mp4",
            90,
            30000 / 1001,
            48,
            64,
            False,
            "run",
            "train",
            "g1",
            "ok",
            ("fast", "pyav"),
            sha256(b"ok 90").hexdigest(),
            quick_id=quick_id(root / "a.mp4"),
        ),
    )


def test_rows_keep_the_order_of_the_entries_for_any_number_of_workers(tmp_path: Path, scanned: Path) -> None:
    texts = {f"v{number}": ["ok 9", "slow 5", "broken", "crash_fast 7", "odd"][number % 5] for number in range(10)}
    root = folder(tmp_path, **texts)
    entries = list_videos("folder", root)[::-1]
    with pytest.warns(UserWarning, match="2 of 10 files"):
        results = [build_manifest(root, entries, workers=workers, cache=False) for workers in (1, 3)]
    assert results[0].rows == results[1].rows
    assert [row.path for row in results[0].rows] == [entry.path for entry in entries]
    assert [row.num_frames for row in results[0].rows] == [0, 7, 0, 5, 9] * 2


def test_accidents_stay_with_the_file_that_caused_them(tmp_path: Path, scanned: Path) -> None:
    texts = {"hang": "hang", "hang_fast": "hang_fast 8", "crash": "crash", "crash_fast": "crash_fast 9", "exit": "exit"}
    root = folder(tmp_path, good="ok 30", **texts)
    with pytest.warns(UserWarning, match="2 of 6 files") as caught:
        rows = {row.path.removesuffix(".mp4"): row for row in indexed(root, timeout_seconds=HANG_SECONDS).rows}
    assert {name: row.status for name, row in rows.items()} == {
        "good": "ok",
        "hang": "unreadable: the decoder hung: no progress within 2 s",
        "hang_fast": "ok",
        "crash": "unreadable: the decoder crashed: SIGSEGV",
        "crash_fast": "ok",
        "exit": "unreadable: the decoder crashed: exit code 7",
    }
    assert {name: row.decoders_ok for name, row in rows.items() if row.is_readable} == {
        "good": ("fast", "pyav"),
        "hang_fast": ("pyav",),
        "crash_fast": ("pyav",),
    }
    assert [str(warning.message) for warning in caught] == [
        "2 of 6 files made a decoder hang or crash and are read with PyAV alone: "
        "crash_fast.mp4: crashed: SIGSEGV; hang_fast.mp4: hung: no progress within 2 s"
    ]
    # Each was tried with all decoders, and only those that choked with PyAV alone.
    assert sorted(scanned.read_text().split("\n")[:-1]) == sorted(
        ["good.mp4 fast+pyav", *(f"{name}.mp4 {tried}" for name in texts for tried in ("fast+pyav", "pyav"))]
    )


def test_a_scan_hangs_when_nothing_moves_and_not_when_it_is_slow(tmp_path: Path, scanned: Path) -> None:
    """Many times the limit is no matter while there are signs of life; when they stop, it is over soon."""
    root = folder(tmp_path, crawls="crawl 15", stalls="stall 15", long_read="quiet 6")
    rows = {row.path.removesuffix(".mp4"): row for row in indexed(root, timeout_seconds=HANG_SECONDS, workers=3).rows}
    assert {name: row.status for name, row in rows.items()} == {
        "crawls": "ok",
        "stalls": "unreadable: the decoder hung: no progress within 2 s",
        "long_read": "ok",
    }
    assert rows["crawls"].decoders_ok == rows["long_read"].decoders_ok == ("fast", "pyav"), (
        "no word of a decoder that hangs"
    )


def test_a_hang_that_was_survived_is_tried_again_by_the_more_patient(tmp_path: Path, scanned: Path) -> None:
    """A verdict that came of little patience is not remembered for good, one that came of more is."""
    root = folder(tmp_path, a="hesitate_fast 5")
    for seconds, decoders, scans in (
        (HANG_SECONDS, ("pyav",), 2),
        (HANG_SECONDS / 2, ("pyav",), 2),
        (99.0, ("fast", "pyav"), 3),
        (99.0, ("fast", "pyav"), 3),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert indexed(root, timeout_seconds=seconds).rows[0].decoders_ok == decoders
        assert len(scanned.read_text().splitlines()) == scans


def test_unreadable_files_are_kept_with_the_reason_and_without_the_machine(tmp_path: Path, scanned: Path) -> None:
    root = folder(tmp_path, good="ok 30", broken="broken", odd="odd")
    (root / "gone.mp4").symlink_to(root / "nowhere")
    rows = {row.path: row for row in indexed(root).rows}
    assert rows["broken.mp4"] == VideoRow(
        "broken.mp4",
        0,
        0.0,
        0,
        0,
        status="unreadable: open (moov atom not found in broken.mp4 [mov])",
        content_id=sha256(b"broken").hexdigest(),
        quick_id=quick_id(root / "broken.mp4"),
    )
    assert rows["odd.mp4"].status == "unreadable: IndexError: a decoder's own bug"
    assert rows["gone.mp4"].status == "unreadable: No such file or directory"
    assert rows["good.mp4"].is_readable
    indexed(root).save(tmp_path / "manifest.csv")
    assert str(root) not in (tmp_path / "manifest.csv").read_text()


def test_nothing_readable_is_an_error_with_the_first_reasons(tmp_path: Path, scanned: Path) -> None:
    root = folder(tmp_path, **{f"v{number}": "broken" for number in range(7)})
    message = r"root \(.*videos\) must hold at least one readable video: all 7 files failed\. v0\.mp4: open \(moov"
    with pytest.raises(DataError, match=message + r".*v4\.mp4.*; and 2 more\..*ssvid doctor"):
        indexed(root)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": -1}, r"workers \(-1\) must be 0 \(one per core\) or more\. Set data\.index_workers=0"),
        ({"timeout_seconds": 0}, r"timeout_seconds \(0\) must be positive"),
        ({"decoders": ("fats",)}, r"decoder \('fats'\) must be known\. Did you mean 'fast'\?"),
        ({"decoders": ("gone",)}, r"decoder \('gone'\) must be installed: not installed: build it\. Leave"),
    ],
)
def test_wrong_options(tmp_path: Path, scanned: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        indexed(folder(tmp_path, a="ok"), **options)
    with pytest.raises(DataError, match=r"entries of root \(.*\) must not be empty"):
        build_manifest(tmp_path, [])


def test_progress_counts_every_file_once(tmp_path: Path, scanned: Path) -> None:
    root = folder(tmp_path, a="ok", b="broken", c="ok")
    calls: list[tuple[int, int, str]] = []
    for _ in ("scanned", "remembered"):
        calls.clear()
        indexed(root, progress=lambda *call: calls.append(call))
        assert [call[:2] for call in calls] == [(1, 3), (2, 3), (3, 3)]
        assert sorted(call[2] for call in calls) == ["a.mp4", "b.mp4", "c.mp4"]


# ---- windows


def test_a_file_with_many_windows_is_scanned_once_and_the_windows_tile_it(tmp_path: Path, scanned: Path) -> None:
    root = folder(tmp_path, a="ok 90")  # 90 frames at 30000/1001 fps last 3.003 s
    edges = [0.0, 0.5, 1.001, 2.25, 3.003]
    entries = [Entry("a.mp4", start_seconds=a, end_seconds=b) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    rows = build_manifest(root, entries).rows
    assert scanned.read_text() == "a.mp4 fast+pyav\n"
    # Frame i is shown from i * 1001 / 30000 s on, in exact arithmetic.
    shown_at = [Fraction(1001 * number, 30000) for number in range(90)]
    for row, a, b in zip(rows, edges[:-1], edges[1:], strict=True):
        expected = [number for number, at in enumerate(shown_at) if Fraction(str(a)) <= at < Fraction(str(b))]
        end = row.num_frames if row.end_frame == -1 else row.end_frame
        assert list(range(row.start_frame, end)) == expected
    assert rows[-1].end_frame == -1


@pytest.mark.parametrize(
    ("start", "end", "window"),
    [(0.0, None, (0, -1)), (1.0, None, (30, -1)), (1.0, 99.0, (30, -1)), (1.0, 1.001, (30, 31)), (0.01, 0.02, (1, 2))],
)
def test_windows_are_clamped_and_never_empty(
    tmp_path: Path, scanned: Path, start: float, end: float | None, window: tuple[int, int]
) -> None:
    root = folder(tmp_path, a="ok 90")
    (row,) = build_manifest(root, [Entry("a.mp4", start_seconds=start, end_seconds=end)]).rows
    assert (row.start_frame, row.end_frame) == window
    assert row.window_frames >= 1


def test_a_window_outside_the_video_is_named(tmp_path: Path, scanned: Path) -> None:
    root = folder(tmp_path, a="ok 90")
    entry = Entry("a.mp4", start_seconds=3.5, end_seconds=4.0, where="list.txt, line 7")
    message = (
        r"list\.txt, line 7: start \(3\.5 s\) of 'a\.mp4' must lie inside the video, whose last frame begins at 2\.96963 s"
        r" and ends at 3\.003 s\. Fix"
    )
    with pytest.raises(DataError, match=message):
        build_manifest(root, [entry])


def test_a_window_of_an_unreadable_file_is_kept_as_a_row(tmp_path: Path, scanned: Path) -> None:
    root = folder(tmp_path, a="ok", b="broken")
    rows = build_manifest(root, [Entry("a.mp4"), Entry("b.mp4", start_seconds=99.0)]).rows
    assert (rows[1].is_readable, rows[1].start_frame, rows[1].end_frame) == (False, 0, -1)


@pytest.mark.parametrize("fps", [24.0, 25.0, 30000 / 1001, 60.0])
def test_the_time_of_a_frame_is_before_it(fps: float) -> None:
    times = evenly_spaced(5000, fps)
    assert [times.frames_before(number / fps) for number in range(5000)] == list(range(5000))


# ---- cache


def test_the_cache_knows_a_file_until_it_or_the_decoders_change(
    tmp_path: Path, scanned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder(tmp_path, a="ok 90", b="broken", c="ok 80")
    first = indexed(root)
    assert len(scanned.read_text().splitlines()) == 3
    assert indexed(root) == first
    assert len(scanned.read_text().splitlines()) == 3
    (root / "a.mp4").write_text("ok 70")
    os.utime(root / "c.mp4", ns=(0, 1))
    assert [row.num_frames for row in indexed(root).rows] == [70, 0, 80]
    assert sorted(line.split()[0] for line in scanned.read_text().splitlines()[3:]) == ["a.mp4", "c.mp4"]
    monkeypatch.setenv("STUB_VERSION", "2.0")
    indexed(root)
    assert len(scanned.read_text().splitlines()) == 8
    monkeypatch.setattr(scan_cache, "SCAN_VERSION", scan_cache.SCAN_VERSION + 1)
    indexed(root)
    assert len(scanned.read_text().splitlines()) == 11
    indexed(root, decoders=("pyav",))
    indexed(root, cache=False)
    assert len(scanned.read_text().splitlines()) == 17


def test_a_file_that_was_changed_behind_its_time_stamp_is_scanned_again(tmp_path: Path, scanned: Path) -> None:
    """Same path, size, inode and time of change, as ``rsync --times --inplace`` leaves it; or another file in its place."""
    root = folder(tmp_path, a="ok 90", b="ok 80")
    indexed(root)
    before = os.stat(root / "a.mp4")
    for name in ("a.mp4", "new.txt"):
        (root / name).write_text("ok 70")
        os.utime(root / name, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(root / "new.txt", root / "b.mp4")
    assert [row.num_frames for row in indexed(root).rows] == [70, 70]


def test_what_may_pass_is_not_remembered_and_what_was_survived_is(tmp_path: Path, scanned: Path) -> None:
    root = folder(tmp_path, a="ok 90", b="crash", c="odd", d="crash_fast 5")
    for _ in range(2):
        with pytest.warns(UserWarning, match=r"1 of 4 files .*d\.mp4: crashed"):
            indexed(root)
    names = [line.split()[0] for line in scanned.read_text().splitlines()]
    assert {name: names.count(f"{name}.mp4") for name in "abcd"} == {"a": 1, "b": 4, "c": 2, "d": 2}


def test_names_that_are_no_utf8_are_cached(tmp_path: Path, scanned: Path) -> None:
    root = folder(tmp_path)
    name = os.fsdecode(b"caf\xe9 \n.mp4")
    (root / name).write_text("ok 12")
    for _ in range(2):
        assert [row.path for row in indexed(root).rows] == [name]
    assert len(scanned.read_bytes().split(b"fast+pyav")) == 2


@pytest.mark.parametrize("damage", ["file in the way", "no database", "other table"])
def test_a_cache_that_cannot_be_used_is_told_once(tmp_path: Path, scanned: Path, damage: str) -> None:
    root = folder(tmp_path, a="ok 90", b="ok 80", c="ok 70")
    cache = tmp_path / "cache"
    if damage == "file in the way":
        cache.write_text("")
    else:
        cache.mkdir()
        (cache / "scans.sqlite").write_bytes(b"not a database, but longer than its header" * 99)
    if damage == "other table":
        (cache / "scans.sqlite").unlink()
        sqlite3.connect(cache / "scans.sqlite").execute("CREATE TABLE scans (x)").connection.close()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert [row.num_frames for row in indexed(root).rows] == [90, 80, 70]
    told = [str(warning.message) for warning in caught]
    assert len(told) == 1
    assert "the cache of scanned videos cannot be used" in told[0]
    assert "Set SSVID_CACHE to a folder that can be written" in told[0]


def test_an_interrupted_index_goes_on_where_it_was(tmp_path: Path, scanned: Path) -> None:
    root = folder(tmp_path, **{f"v{number}": "ok" for number in range(6)})

    def interrupt(done: int, total: int, path: str) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        indexed(root, workers=1, progress=interrupt)
    before = len(scanned.read_text().splitlines())
    indexed(root)
    assert len(scanned.read_text().splitlines()) - before == 3


# ---- processes


def test_no_process_is_left_behind(tmp_path: Path, scanned: Path) -> None:
    root = folder(tmp_path, a="ok", b="hang")

    def interrupt(done: int, total: int, path: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        indexed(root, progress=interrupt)
    assert scanner_processes(tmp_path) == []


def test_workers_end_with_the_process_that_asked(tmp_path: Path, scanned: Path) -> None:
    """Killed outright, and from a script without a main guard, read from stdin."""
    root = folder(tmp_path, a="hang", b="hang", c="ok")
    script = (
        "from ssvid.data.index import building as index, processes as scanning; from ssvid.data.readers import list_videos\n"
        f"scanning.SCANNER = 'stub_video'; index.build_manifest({str(root)!r}, list_videos('folder', {str(root)!r}),"
        " workers=2, progress=lambda *_: print('done', flush=True))\n"
    )
    path = os.pathsep.join([str(tmp_path / "modules"), os.getcwd(), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        [sys.executable, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}
    ) as process:
        assert process.stdin
        process.stdin.write(script.encode())
        process.stdin.close()
        until(lambda: scanned.read_text().count("\n") >= 2)
        assert len(scanner_processes(tmp_path)) == 3
        process.send_signal(signal.SIGKILL)
    until(lambda: not scanner_processes(tmp_path))


def test_a_supervisor_that_cannot_start_says_why(
    tmp_path: Path, scanned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scanning, "_START", "raise SystemExit('no such library')")
    with pytest.raises(RuntimeError, match="the scan supervisor ended with code 1: no such library"):
        indexed(folder(tmp_path, a="ok"))


def test_one_supervisor_serves_requests_that_follow_each_other(
    tmp_path: Path, scanned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle_for(600.0, monkeypatch)
    root = folder(tmp_path, a="ok 5", b="crash 5", c="hang")
    monkeypatch.setenv("STUB_LOG", str(tmp_path / "first"))
    assert [row.is_readable for row in indexed(root, timeout_seconds=HANG_SECONDS, cache=False).rows] == [
        True,
        False,
        False,
    ]
    until(lambda: len(scanner_processes(tmp_path)) == 1)  # its workers end once the last file is answered
    (supervisor,) = scanner_processes(tmp_path)
    monkeypatch.setenv("STUB_LOG", str(tmp_path / "second"))
    indexed(root, timeout_seconds=HANG_SECONDS, cache=False)
    until(lambda: scanner_processes(tmp_path) == [supervisor])
    logs = [sorted((tmp_path / name).read_text().split()) for name in ("first", "second")]
    assert logs[0] == logs[1] != [], "each request brings its own environment"
    (root / "c.mp4").unlink()  # it costs its time limit each time
    os.kill(supervisor, signal.SIGKILL)
    assert indexed(root, timeout_seconds=HANG_SECONDS, cache=False).rows[0].num_frames == 5, "a dead one is replaced"
    until(lambda: len(scanner_processes(tmp_path)) == 1)
    (another,) = scanner_processes(tmp_path)
    assert another != supervisor
    monkeypatch.setattr(scanning._Supervisor, "is_fresh", True)  # it dies after it was looked at
    os.kill(another, signal.SIGKILL)
    assert indexed(root, timeout_seconds=HANG_SECONDS, cache=False).rows[0].num_frames == 5
    scanning._end_idle()
    until(lambda: not scanner_processes(tmp_path))


def test_a_supervisor_without_work_ends_and_takes_no_request_any_more(
    tmp_path: Path, scanned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    idle_for(0.5, monkeypatch)
    root = folder(tmp_path, a="ok 5")
    indexed(root, cache=False)
    until(lambda: not scanner_processes(tmp_path))
    assert indexed(root, cache=False).rows[0].num_frames == 5


def idle_for(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have supervisors wait that long for work, in this process's view and in their own."""
    start = f"import ssvid.data.index.processes as s; s.IDLE_SECONDS = {seconds}; s.supervise()"
    monkeypatch.setattr(scanning, "_START", scanning._START.split("from ssvid")[0] + start)
    monkeypatch.setattr(scanning, "IDLE_SECONDS", seconds)


def scanner_processes(tmp_path: Path) -> list[int]:
    """Supervisors and workers that know the stub of this test."""
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("processes are found the Linux way")
    found = []
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if entry.name.isdigit() and b"supervise()" in words and str(tmp_path / "modules").encode() in words:
            found.append(int(entry.name))
    return found


def until(condition: Callable[[], bool]) -> None:
    """However long it takes on this machine; what never comes to pass is ended by the time limit of the suite."""
    while not condition():
        time.sleep(0.02)


# ---- with the decoders themselves


def moving_frames(count: int, seed: int) -> list[np.ndarray]:
    """A bright square that walks over a dark ground, so that no frame equals its neighbors."""
    frames = []
    for number in range(count):
        frame = np.full((48, 64, 3), 30 + seed, np.uint8)
        frame[10:30, number : number + 20] = (220, 40, 90)
        frames.append(frame)
    return frames


def test_encoded_files_are_indexed_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ssvid.video import write_video

    monkeypatch.setenv("SSVID_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "videos"
    for number, fps in enumerate((25, 30)):
        (root / "move").mkdir(parents=True, exist_ok=True)
        write_video(root / "move" / f"{number}.mp4", moving_frames(20 + number, number), fps)
    (root / "move" / "copy.mp4").write_bytes((root / "move" / "0.mp4").read_bytes())
    (root / "move" / "empty.mp4").touch()
    (root / "move" / "text.mp4").write_text("this is no video" * 99)
    manifest = build_manifest(root, list_videos("class_folder", root))
    rows = {row.path.removeprefix("move/"): row for row in manifest.rows}
    assert [(row.num_frames, round(row.fps, 6), row.height, row.width) for row in manifest.select().rows] == [
        (20, 25.0, 48, 64),
        (21, 30.0, 48, 64),
        (20, 25.0, 48, 64),
    ]
    assert rows["0.mp4"].content_id == rows["copy.mp4"].content_id != rows["1.mp4"].content_id
    assert "pyav" in rows["0.mp4"].decoders_ok
    assert not rows["empty.mp4"].is_readable
    assert not rows["text.mp4"].is_readable
    assert {row.label for row in manifest.rows} == {"move"}
    manifest.save(root / "manifest.csv")
    assert Manifest.load(root / "manifest.csv").rows == manifest.rows
    assert summarize(manifest).startswith(
        "5 videos, 2.3 s, 25-30 fps, 64x48 (3), 1 label, 1 exact duplicate\n2 unreadable"
    )


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason="SSVID_REAL_DATA is not set")
def test_weizmann_is_readable_throughout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSVID_CACHE", str(tmp_path))
    root = Path(REAL, "weizmann")
    manifest = build_manifest(root, list_videos("list", root, Path(REAL, "splits/pack/weizmann_subject_split.csv")))
    assert len(manifest.select("train")) == 60
    assert len(manifest.select("test")) == 30
    assert all(row.is_readable and "pyav" in row.decoders_ok for row in manifest.rows)
    assert {(row.height, row.width) for row in manifest.rows} == {(144, 180)}
