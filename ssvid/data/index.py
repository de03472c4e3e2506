"""From listed videos to a manifest: what ``ssvid.data.scanning`` found out about each file, remembered per file."""

from __future__ import annotations

import importlib
import json
import math
import os
import sqlite3
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ssvid.data import scanning
from ssvid.data.manifest import OK, UNREADABLE, Manifest, VideoRow
from ssvid.data.readers import Entry
from ssvid.data.scanning import FileFacts, Job, read_facts, scan_files
from ssvid.errors import DataError, did_you_mean
from ssvid.files import expanded, takes_paths

Progress = Callable[[int, int, str], None]

# Part of the cache's key: raise it with every change of what scan_video learns or judges, or old results are believed.
SCAN_VERSION = 3
# A file may take its timeout plus the time a slow decoder needs for this many bytes: hours of footage are no hang.
SLOWEST_BYTES_PER_SECOND = 250_000


@takes_paths("root")
def build_manifest(
    root: str | Path,
    entries: Sequence[Entry],
    *,
    workers: int = 0,
    decoders: Sequence[str] | None = None,
    timeout_seconds: float = 60.0,
    cache: bool = True,
    progress: Progress | None = None,
    missing: Sequence[str] = (),
) -> Manifest:
    """Scan the files of a data set and write down what they hold.

    The result depends on the files and the decoders alone, not on workers, timing or cache. Unreadable files keep their
    row; its status says why.

    Args:
        root: the folder that the entries' paths are relative to.
        entries: from ``list_videos``; several may be windows of one file, which is scanned once.
        workers: processes that decode, one thread each; 0 is one per core.
        decoders: compare these decoders; None is all that are installed.
        timeout_seconds: a file of a few megabytes that takes longer hangs; large files are given more time.
        cache: remember the scan of each file, and believe what is remembered of an unchanged one.
        progress: called as (files done, files in all, path) after each file.
        missing: videos that the data set lists and its folder lacks, to be remembered.

    Returns:
        One row per entry, in their order. A window of seconds becomes one of frames by the (mean) frame rate.

    Raises:
        DataError: no file is readable; a window lies outside its video; an option is wrong.
    """
    root = Path(root)
    if not entries:
        raise DataError(f"entries of root ({root}) must not be empty. List videos first: list_videos('folder', root).")
    if workers < 0:
        raise DataError(f"workers ({workers}) must be 0 (one per core) or more. Set data.index_workers=0.")
    if not timeout_seconds > 0:
        raise DataError(f"timeout_seconds ({timeout_seconds}) must be positive. The default is 60.")
    paths = list(dict.fromkeys(entry.path for entry in entries))
    facts = _scan_all(root, paths, workers, _decoder_versions(decoders), decoders, timeout_seconds, cache, progress)
    _warn_of_choking(facts)
    if all(found.problem for found in facts.values()):
        raise _nothing_readable(root, facts)
    return Manifest(root, tuple(_row(entry, facts[entry.path]) for entry in entries), tuple(missing))


def _decoder_versions(decoders: Sequence[str] | None) -> str:
    """Names and versions of the decoders that will be compared, as part of the cache's key.

    Raises:
        DataError: a decoder that was asked for is unknown or does not work here.
    """
    found = importlib.import_module(scanning.SCANNER).available_decoders()
    for name in decoders or ():
        if name not in found:
            raise DataError(f"decoder ({name!r}) must be known. {did_you_mean(name, found)}")
        if found[name].problem or not found[name].version:
            raise DataError(f"decoder ({name!r}) must be installed: {found[name].problem}. Leave decoders empty.")
    names = (
        [name for name in found if found[name].version and not found[name].problem] if decoders is None else decoders
    )
    return " ".join(f"{name}={found[name].version}" for name in sorted(names))


def _scan_all(
    root: Path,
    paths: list[str],
    workers: int,
    versions: str,
    decoders: Sequence[str] | None,
    timeout_seconds: float,
    use_cache: bool,
    progress: Progress | None,
) -> dict[str, FileFacts]:
    """Facts of every file, from the cache or a scan, in the order of ``paths``."""
    facts: dict[str, FileFacts] = {}
    jobs: list[Job] = []
    stats: dict[str, os.stat_result] = {}

    def take(path: str, found: FileFacts) -> None:
        facts[path] = found
        if progress:
            progress(len(facts), len(paths), path)

    with _ScanCache(versions, enabled=use_cache) as cache:
        for path in paths:
            file = os.path.abspath(root / path)
            try:
                stats[path] = os.stat(file)
            except OSError as cause:
                take(path, FileFacts(problem=cause.strerror or str(cause), is_final=False))
                continue
            remembered = cache.get(file, stats[path])
            if remembered:
                take(path, remembered)
            else:
                seconds = timeout_seconds + stats[path].st_size / SLOWEST_BYTES_PER_SECOND
                jobs.append(Job(path, file, seconds, None if decoders is None else tuple(decoders)))
        # The largest first, so that no worker is left alone with it at the end.
        jobs.sort(key=lambda job: (-stats[job.path].st_size, job.path))
        for path, found in scan_files(jobs, workers):
            if found.is_final:
                cache.put(os.path.abspath(root / path), stats[path], found)
            take(path, found)
    return {path: facts[path] for path in paths}


def _row(entry: Entry, facts: FileFacts) -> VideoRow:
    start, end = _window(entry, facts) if not facts.problem else (0, -1)
    return VideoRow(
        path=entry.path,
        num_frames=facts.num_frames,
        fps=facts.fps,
        height=facts.height,
        width=facts.width,
        variable_fps=facts.variable_fps,
        label=entry.label,
        split=entry.split,
        group=entry.group,
        status=f"{UNREADABLE}: {facts.problem}" if facts.problem else OK,
        decoders_ok=facts.decoders_ok,
        content_id=facts.content_id,
        start_frame=start,
        end_frame=end,
    )


def _window(entry: Entry, facts: FileFacts) -> tuple[int, int]:
    """First frame, and the one after the last (-1: to the end), of the frames shown from start to before end.

    Windows that meet in time meet in frames, without gap or overlap; one too short to hold a frame gets the next one.
    Frames of a variable rate are taken as evenly spaced.
    """
    start = frames_before(entry.start_seconds, facts.fps)
    if start >= facts.num_frames:
        seconds = facts.num_frames / facts.fps
        where = f"{entry.where}: " if entry.where else ""
        raise DataError(
            f"{where}start ({entry.start_seconds:g} s) of {entry.path!r} must lie inside the video, which ends at"
            f" {seconds:.3f} s. Mend the start, or remove the line."
        )
    if entry.end_seconds is None:
        return start, -1
    end = max(start + 1, frames_before(entry.end_seconds, facts.fps))
    return start, end if end < facts.num_frames else -1


def frames_before(seconds: float, fps: float) -> int:
    """How many frames are shown before a time; 1e-6 of a frame forgives the rounding of decimal seconds."""
    return max(0, math.ceil(seconds * fps - 1e-6))


def _warn_of_choking(facts: Mapping[str, FileFacts]) -> None:
    choked = {path: found.choked for path, found in facts.items() if found.choked and not found.problem}
    if choked:
        warnings.warn(
            f"{len(choked)} of {len(facts)} files made a decoder hang or crash and are read with PyAV alone:"
            f" {_first_of(choked)}",
            stacklevel=3,
        )


def _nothing_readable(root: Path, facts: Mapping[str, FileFacts]) -> DataError:
    problems = {path: found.problem for path, found in facts.items()}
    return DataError(
        f"root ({root}) must hold at least one readable video: all {len(facts)} files failed. {_first_of(problems)}."
        " Check with another player that they are videos and complete, and with ssvid doctor that the decoders work."
    )


def _first_of(reasons: Mapping[str, str], limit: int = 5) -> str:
    shown = [f"{path}: {reason}" for path, reason in list(reasons.items())[:limit]]
    return "; ".join(shown) + (f"; and {len(reasons) - limit} more" if len(reasons) > limit else "")


# ---- what is remembered


class _ScanCache:
    """What scans found, in one SQLite file under ``$SSVID_CACHE`` or ``~/.cache/ssvid``.

    Believed for a file whose path, size and time of change are the same, under the same decoders and scan version. It
    is only ever an economy: whatever is wrong with it is told once in a warning, and the scan goes on without.
    """

    def __init__(self, versions: str, *, enabled: bool = True) -> None:
        self._versions = versions
        self._db: sqlite3.Connection | None = None
        if not enabled:
            return
        try:
            folder = cache_folder()
            folder.mkdir(parents=True, exist_ok=True)
            # Autocommit, without waiting for the disk: losing the cache costs a scan, a sync per file costs minutes.
            self._db = sqlite3.connect(folder / "scans.sqlite", timeout=10.0, isolation_level=None)
            self._db.execute("PRAGMA synchronous=OFF")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS scans"
                " (path BLOB, versions TEXT, stamp TEXT, facts TEXT, PRIMARY KEY (path, versions))"
            )
        except (OSError, RuntimeError, sqlite3.Error) as cause:
            self._give_up(cause)

    def __enter__(self) -> _ScanCache:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._db:
            self._db.close()

    def get(self, file: str, stat: os.stat_result) -> FileFacts | None:
        """The facts of a file, if it was scanned as it is now."""
        query = "SELECT facts FROM scans WHERE path = ? AND versions = ? AND stamp = ?"
        found = self._execute(query, (os.fsencode(file), self._versions, _stamp(stat)))
        try:
            return read_facts(json.loads(found[0])) if found else None
        except (TypeError, ValueError):
            return None  # written by a broken hand: the file is scanned again and the entry replaced

    def put(self, file: str, stat: os.stat_result, facts: FileFacts) -> None:
        """Remember the facts of a file; those of its earlier states are forgotten."""
        values = (os.fsencode(file), self._versions, _stamp(stat), json.dumps(asdict(facts)))
        self._execute("INSERT OR REPLACE INTO scans VALUES (?, ?, ?, ?)", values)

    def _execute(self, statement: str, values: tuple[object, ...]) -> Any:
        if not self._db:
            return None
        try:
            return self._db.execute(statement, values).fetchone()
        except sqlite3.Error as cause:
            self._give_up(cause)
            return None

    def _give_up(self, cause: Exception) -> None:
        self._db = None
        warnings.warn(
            f"the cache of scanned videos cannot be used ({type(cause).__name__}: {cause}), so every file is scanned."
            " Set SSVID_CACHE to a folder that can be written, or delete scans.sqlite there.",
            stacklevel=6,
        )


def cache_folder() -> Path:
    """Where ssvid keeps what it can find out again: ``$SSVID_CACHE``, else ``~/.cache/ssvid``."""
    chosen = os.environ.get("SSVID_CACHE")
    return Path(expanded(chosen)) if chosen else Path.home() / ".cache" / "ssvid"


def _stamp(stat: os.stat_result) -> str:
    return f"{stat.st_size} {stat.st_mtime_ns} {SCAN_VERSION}"
