"""``ssvid data download``: fetch, check and unpack the files of a data set, and write down what came from where.

``download.json`` in the destination remembers for each address the bytes, their SHA-256 and what that was checked
against, so that a second call goes on where the first stopped, and a file that changed meanwhile is noticed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ssvid.data.fetch.fetching import Connection, fetch, verify
from ssvid.data.fetch.sources import DataSet, Order, Source
from ssvid.data.fetch.unpacking import is_rar, require_rar_program, unpack
from ssvid.data.readers.shelf import list_readers
from ssvid.errors import DataError, did_you_mean
from ssvid.files import expanded, locked, write_json

RECORD = "download.json"
ARCHIVES = "archives"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Fetched:
    """What became of one file. checked: what its checksum was compared with. num_files: what it unpacked to, else 1."""

    url: str
    num_bytes: int
    sha256: str
    checked: str
    num_files: int
    was_there: bool


@dataclass
class Download:
    """What a download left in a folder. reader: the value of data.name that reads it."""

    name: str
    folder: Path
    home: str
    reader: str
    files: list[Fetched] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Plain types, for ``--json``."""
        return asdict(self) | {"folder": str(self.folder)}

    def __str__(self) -> str:
        lines = [
            f"{file.url}: {file.num_bytes:,} bytes, {file.num_files} files"
            f"{', was there already' if file.was_there else ''}; {file.checked}"
            for file in self.files
        ]
        lines.append(f"in {self.folder}; terms of use: {self.home}")
        lines.append(f"next: ssvid data index {self.folder} --reader {self.reader}")
        return "\n".join(lines)


def data_sets() -> dict[str, DataSet]:
    """What can be fetched, by the name of its reader."""
    return {reader.name: reader.download for reader in list_readers() if reader.download is not None}


def download(
    name: str,
    folder: str | Path,
    order: Order | None = None,
    connection: Connection | None = None,
    *,
    keep_archives: bool = False,
    say: Say | None = None,
) -> Download:
    """Fetch a data set into a folder.

    Args:
        name: of a reader whose data set can be fetched (``data_sets``).
        order: which part of it; the usual one where None.
        connection: how, and who hears of it.
        keep_archives: keep the archives in ``archives/`` after unpacking.

    Raises:
        DataError: see ``fetch``, ``verify`` and ``unpack``; there is no room; there is no such data set or part of it.
    """
    order, connection = order or Order(), connection or Connection()
    known = data_sets()
    if name not in known:
        raise DataError(f"data set ({name!r}) must be one that can be fetched. {did_you_mean(name, known)}")
    wanted = known[name]
    wanted.check(name, order)
    folder = Path(expanded(folder))
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file. Name a folder to download into.")
    if connection.insecure and say:
        say("warning: certificates are not verified (--insecure); checksums are all that is left.")
    folder.mkdir(parents=True, exist_ok=True)
    taken = DataError(f"{folder} is in use by another download. Wait for it, or name another folder.")
    with locked(folder, taken):  # two that append to one part would ruin it
        files = _Files(folder, keep_archives, connection)
        found = files.take(wanted.sources(order, files.read))
    return Download(name, folder, wanted.home, name, found)


class _Files:
    """The files of one destination folder and what is remembered of them."""

    def __init__(self, folder: Path, keep_archives: bool, connection: Connection) -> None:
        self.folder = folder
        self._keep = keep_archives
        self._connection = connection
        self._record = _read_record(folder / RECORD)

    def take(self, sources: Iterable[Source]) -> list[Fetched]:
        """Fetch, check and unpack each in turn, but for those that are there already."""
        if isinstance(sources, tuple | list) and any(
            is_rar(s.name) and not self._is_there(s) for s in sources if s.unpack
        ):
            require_rar_program()  # before gigabytes come
        return [self._was_there(source) or self._bring(source) for source in sources]

    def read(self, source: Source) -> str:
        """Fetch a file that lists others: its text."""
        self.take([source])
        return (self.folder / source.into / source.name).read_text(encoding="utf-8")

    def _is_there(self, source: Source) -> bool:
        """Whether it was unpacked before, and what came out of it still lies there."""
        known = self._record.get(source.url, {})
        place = self.folder / source.into
        return bool(known.get("num_files")) and all((place / known[end]).is_file() for end in ("first", "last"))

    def _was_there(self, source: Source) -> Fetched | None:
        if not self._is_there(source):
            return None
        known = self._record[source.url]
        if not source.unpack:
            verify(source, self.folder / source.into / source.name, known["sha256"], self._connection.progress)
        facts = {key: known[key] for key in ("num_bytes", "sha256", "checked", "num_files")}
        return Fetched(source.url, **facts, was_there=True)

    def _bring(self, source: Source) -> Fetched:
        place = self.folder / (ARCHIVES if source.unpack else source.into)
        path = fetch(source, place, self._connection, check_room=lambda rest: self._check_room(source, place, rest))
        known = self._record.get(source.url, {})
        sha256, checked = verify(source, path, known.get("sha256", ""), self._connection.progress)
        facts: dict[str, Any] = {"num_bytes": path.stat().st_size, "sha256": sha256, "checked": checked}
        if self._connection.insecure:
            facts["checked"] = f"{checked}; certificate not verified"
        self._remember(source, facts)
        names = unpack(path, self.folder / source.into, nested=source.nested) if source.unpack else [source.name]
        if not names:
            raise DataError(f"{path} holds no file. Delete it and fetch it again.")
        self._remember(source, facts | {"num_files": len(names), "first": names[0], "last": names[-1]})
        if source.unpack and not self._keep:
            path.unlink()
        return Fetched(source.url, **facts, num_files=len(names), was_there=False)

    def _check_room(self, source: Source, place: Path, rest: int) -> None:
        """The archive and what comes out of it lie there together for a while; videos hardly shrink in an archive."""
        part = place / f"{source.name}.part"
        size = rest + (part.stat().st_size if part.exists() else 0)
        needed = rest + (size * (2 if source.nested else 1) if source.unpack else 0)
        free = shutil.disk_usage(place).free
        if needed > free:
            raise DataError(
                f"{self.folder} has {free / 1e9:.1f} GB free, and fetching and unpacking {source.name} needs about"
                f" {needed / 1e9:.1f} GB. Make room, or name a folder on another disk."
            )

    def _remember(self, source: Source, facts: dict[str, Any]) -> None:
        self._record[source.url] = facts
        write_json(self.folder / RECORD, {"files": self._record})


def _read_record(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["files"]
    except (ValueError, KeyError, TypeError) as cause:
        raise DataError(
            f"{path} is damaged ({type(cause).__name__}: {cause}). Delete it to fetch everything again."
        ) from cause
    return dict(found)
