"""What scans found out about files, remembered per file in one SQLite file of the cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from ssvid.data.index.processes import FileFacts, read_facts
from ssvid.errors import DecodeError
from ssvid.files import expanded
from ssvid.video.frame_folders import frame_paths, is_there
from ssvid.video.identity import content_id, is_quick, quick_id

# Part of the cache's key: raise it with every change of what scan_video learns or judges, or old results are believed.
SCAN_VERSION = 4


class ScanCache:
    """What scans found, in one SQLite file under ``$SSVID_CACHE`` or ``~/.cache/ssvid``.

    Believed of a file while its path, size, inode and times of change are the same, under the same decoders and scan
    version; of a folder of pictures while those of every picture are. A time that was set back (``touch -r``, ``rsync --times``) misleads nobody: the system notes down when it was.
    The cache only saves time: what is wrong with it is told once in a warning, and the scan goes on without it.

    versions: of the decoders, by which scans differ. patience_seconds: of this scan; a decoder that once made no progress
    for less long is tried again.
    """

    def __init__(self, versions: str, *, patience_seconds: float = 0.0, enabled: bool = True) -> None:
        self._versions, self._patience_seconds = versions, patience_seconds
        self._db: sqlite3.Connection | None = None
        if not enabled:
            return
        try:
            folder = cache_folder()
            folder.mkdir(parents=True, exist_ok=True)
            # Autocommit, without waiting for the disk: losing the cache costs a scan, a sync per file costs minutes.
            self._db = sqlite3.connect(folder / "scans.sqlite", timeout=10.0, isolation_level=None)
            self._db.execute("PRAGMA synchronous=OFF")
            for table in (
                "scans (path BLOB, versions TEXT, stamp TEXT, facts TEXT, PRIMARY KEY (path, versions))",
                "contents (path BLOB PRIMARY KEY, stamp TEXT, content_id TEXT)",
            ):
                self._db.execute(f"CREATE TABLE IF NOT EXISTS {table}")
        except (OSError, RuntimeError, sqlite3.Error) as cause:
            self._give_up(cause)

    def __enter__(self) -> ScanCache:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._db:
            self._db.close()

    def get(self, file: str, state: FileState) -> FileFacts | None:
        """The facts of a file, if it was scanned as it is now, and as patiently."""
        query = "SELECT facts FROM scans WHERE path = ? AND versions = ? AND stamp = ?"
        found = self._execute(query, (os.fsencode(file), self._versions, _scan_stamp(state)))
        try:
            facts = read_facts(json.loads(found[0])) if found else None
        except (TypeError, ValueError):
            return None  # a damaged entry: the file is scanned again and the entry replaced
        return facts if facts and not 0 < facts.waited_seconds < self._patience_seconds else None

    def put(self, file: str, state: FileState, facts: FileFacts) -> None:
        """Remember the facts of a file; those of its earlier states are forgotten."""
        values = (os.fsencode(file), self._versions, _scan_stamp(state), json.dumps(asdict(facts)))
        self._execute("INSERT OR REPLACE INTO scans VALUES (?, ?, ?, ?)", values)
        self._put_content(file, state, facts.content_id)

    def content_id(self, file: str) -> str:
        """The identity of a file, read from end to end unless that was done since it last changed.

        Raises:
            OSError: it cannot be read. DecodeError: it is a folder that holds no frames.
        """
        state = file_state(file)
        query = "SELECT content_id FROM contents WHERE path = ? AND stamp = ?"
        found = self._execute(query, (os.fsencode(file), state.stamp))
        if found:
            return str(found[0])
        identity = content_id(file)
        self._put_content(file, state, identity)
        return identity

    def _put_content(self, file: str, state: FileState, identity: str) -> None:
        values = (os.fsencode(file), state.stamp, identity)
        self._execute("INSERT OR REPLACE INTO contents VALUES (?, ?, ?)", values)

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
            f"the cache of scanned videos cannot be used ({type(cause).__name__}: {cause}), so every file is read anew."
            " Set SSVID_CACHE to a folder that can be written, or delete scans.sqlite there.",
            stacklevel=6,
        )


def cache_folder() -> Path:
    """Where ssvid keeps what it can find out again: ``$SSVID_CACHE``, else ``~/.cache/ssvid``."""
    chosen = os.environ.get("SSVID_CACHE")
    return Path(expanded(chosen)) if chosen else Path.home() / ".cache" / "ssvid"


def whole_id(path: Path) -> str:
    """``content_id`` of a file or a folder of pictures, remembered until it changes.

    Raises:
        OSError: it cannot be read. DecodeError: it is a folder that holds no frames.
    """
    with ScanCache("") as cache:
        return cache.content_id(os.path.abspath(path))


def changed_files(root: Path, known: Mapping[str, str]) -> list[str]:
    """Those of the files (path below the root -> identity) that hold something else; one that is missing is not meant."""
    with ScanCache("") as cache:
        there = {path: identity for path, identity in known.items() if is_there(root / path)}
        return [path for path, identity in there.items() if _identity_now(cache, root / path, identity) != identity]


def _identity_now(cache: ScanCache, path: Path, identity: str) -> str:
    """The identity of what is there, made as ``identity`` was; "" of a folder whose frames are gone."""
    try:
        return quick_id(path) if is_quick(identity) else cache.content_id(os.path.abspath(path))
    except DecodeError:
        return ""


class FileState(NamedTuple):
    """How a file, or a folder of pictures, is at a time.

    size_bytes: of all. stamp: differs from that of any earlier state. fps: at which a folder is scanned; 0 of a file.
    """

    size_bytes: int
    stamp: str
    fps: float = 0.0


def file_state(path: str | os.PathLike[str], fps: float = 0.0) -> FileState:
    """The state of a file; of a folder that of all its frames: names, sizes, times of change, inodes. None is opened.

    fps: at which the frames of a folder follow one another, where that matters.

    Raises:
        OSError: there is no such thing. DecodeError: it is a folder that holds no frames, or one that is not there.
    """
    if not os.path.isdir(path):
        stat = os.stat(path)
        return FileState(stat.st_size, _stamp(stat))
    digest, size_bytes = hashlib.sha256(), 0
    for picture in frame_paths(path):
        try:
            stat = os.stat(picture)
        except OSError as error:
            raise DecodeError(
                str(path), f"picture {os.path.basename(picture)} cannot be read", error.strerror
            ) from error
        size_bytes += stat.st_size
        digest.update(b"%s\0%s\0" % (os.fsencode(os.path.basename(picture)), _stamp(stat).encode()))
    return FileState(size_bytes, f"pictures {digest.hexdigest()}", fps)


def _stamp(stat: os.stat_result) -> str:
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"


def _scan_stamp(state: FileState) -> str:
    rate = f" {state.fps!r} fps" if state.fps else ""
    return f"{state.stamp}{rate} {SCAN_VERSION}"
