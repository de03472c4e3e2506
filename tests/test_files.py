"""Files are whole or as they were."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ssvid.errors import DiskFull
from ssvid.files import (
    append_line,
    folder_appearing_whole,
    folder_beside,
    is_disk_full,
    remove_leftovers,
    telling_full_disk,
    write_atomic,
    write_json,
)


def test_atomic_writing_keeps_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "new" / "last.ckpt"
    write_atomic(path, lambda file: file.write(b"old"))

    def fail(file: Any) -> None:
        file.write(b"half of the ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, fail)
    assert path.read_bytes() == b"old"
    write_atomic(path, lambda file: file.write(b"new"))
    assert path.read_bytes() == b"new"
    assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"], "temporary files stay behind"


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "a[1]"  # no pattern

    def fail(folder: Path) -> None:
        (folder / "first").touch()
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"), folder_appearing_whole(out) as folder:
        fail(folder)
    assert not list(tmp_path.iterdir())
    out.mkdir()
    with folder_appearing_whole(out) as folder:
        (folder / "second").touch()
        assert not list(out.iterdir()) and folder.parent == tmp_path, "on the same disk"
    assert [p.name for p in out.iterdir()] == ["second"] and list(tmp_path.iterdir()) == [out]
    with pytest.raises(OSError), folder_appearing_whole(out) as folder:
        (folder / "third").touch()
    assert [p.name for p in out.iterdir()] == ["second"], "what is there is not replaced"


def test_a_new_folder_removes_what_killed_processes_left_of_the_same(tmp_path: Path) -> None:
    ended = multiprocessing.get_context("spawn").Process()
    ended.start()
    ended.join()
    for name in (
        f".out.{ended.pid}.tmp",
        f".out.{os.getppid()}.tmp",
        f".other.{ended.pid}.tmp",
        f".out.{os.getpid()}.tmp",
    ):
        (tmp_path / name / "inside").mkdir(parents=True)
    with folder_beside(tmp_path / "out") as folder:
        assert not list(folder.iterdir())
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([f".out.{os.getppid()}.tmp", f".other.{ended.pid}.tmp"])


def test_json_is_replaced_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": 1})
    write_json(tmp_path / "a.json", {"x": 2})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 2}
    assert len(list(tmp_path.iterdir())) == 1


# ---- a full disk

LIMIT_BYTES = 4096  # ulimit -f stands for the disk: it needs no rights, and the system refuses in the same place


def confined(work: Callable[[], object]) -> str:
    """What a process says that can write no file longer than LIMIT_BYTES."""

    def run(connection: Any) -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, LIMIT_BYTES))
        try:
            work()
            connection.send("")
        except Exception as error:
            connection.send(f"{type(error).__name__}: {error}")

    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=run, args=(theirs,))
    process.start()
    told = ours.recv() if ours.poll(60) else "it hangs"
    process.join(timeout=10)
    return told


def write_in_pieces(file: Any) -> None:
    for _ in range(100):
        file.write(b"x" * 1000)


def write_and_hide_why(file: Any) -> None:
    try:
        write_in_pieces(file)
    except OSError:
        raise RuntimeError("unexpected pos 4096 vs 0") from None  # as torch's writer has it


@pytest.mark.parametrize("write", [write_in_pieces, write_and_hide_why])
def test_a_full_disk_is_told_with_its_place_and_leaves_the_old_file(tmp_path: Path, write: Any) -> None:
    path = tmp_path / "last.ckpt"
    path.write_bytes(b"old")
    told = confined(lambda: write_atomic(path, write))
    assert told.startswith(f"DiskFull: {path}: File too large; ")
    assert f"MB are left in {tmp_path}. Make room there" in told
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_line_that_does_not_fit_is_taken_back_and_no_other_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"

    def fill() -> None:
        for number in range(1000):
            append_line(path, json.dumps({"step": number}))

    assert confined(fill).startswith(f"DiskFull: {path}")
    lines = path.read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(len(lines)))
    assert LIMIT_BYTES - 20 < path.stat().st_size <= LIMIT_BYTES
    assert path.read_bytes().endswith(b"\n")


def test_every_way_of_saying_that_a_disk_is_full_is_known(tmp_path: Path) -> None:
    wrapped = RuntimeError("failed")
    wrapped.__cause__ = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
    for error in (
        OSError(errno.ENOSPC, "x"),
        wrapped,
        ValueError("Error while serializing: I/O error: No space left on device (os error 28)"),
        Exception("database or disk is full"),
    ):
        assert is_disk_full(error)
        with pytest.raises(DiskFull), telling_full_disk(tmp_path / "a"):
            raise error
    for other in (OSError(errno.EACCES, "x"), ValueError("a file too large to read")):
        assert not is_disk_full(other)
        with pytest.raises(type(other)), telling_full_disk(tmp_path / "a"):
            raise other


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    dead = multiprocessing.get_context("fork").Process(target=int)
    dead.start()
    dead.join()
    kept = [f".last.ckpt.{os.getpid()}.tmp", ".notes.tmp", "last.ckpt"]
    for name in (*kept, f".last.ckpt.{dead.pid}.tmp"):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(kept)
