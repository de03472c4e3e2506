"""Archives from strangers: unpacked beside their destination, looked through, and only then moved into place.

Refused as a whole: names that lead out of the folder, links, devices, more bytes than a data set can hold. ``.zip`` and
``.tar.*`` are unpacked by Python; ``.rar`` needs a program of the system.
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import stat
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ssvid.errors import DataError

# Videos hardly shrink and lists of names shrink to a tenth; an archive that grows more than this is a trap.
MOST_GROWTH = 100
_LEAST_LIMIT = 1 << 20
# What the libraries raise for archives that are none, cut short, damaged, encrypted, or packed in an unknown way.
_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
)


@dataclass(frozen=True)
class RarProgram:
    """A program that unpacks .rar. names: lists the names in it, one a line. extract: unpacks it into a folder."""

    command: str
    names: Callable[[Path], list[str]]
    extract: Callable[[Path, Path], list[str]]
    name_prefix: str = ""


# In this order. 7z without its rar plug-in fails; then the next is tried.
RAR_PROGRAMS = (
    RarProgram(
        "unrar", lambda a: ["lb", "-p-", str(a)], lambda a, f: ["x", "-o+", "-y", "-idq", "-p-", str(a), f"{f}/"]
    ),
    *(
        RarProgram(
            command,
            lambda a: ["l", "-ba", "-slt", str(a)],
            lambda a, f: ["x", "-y", "-bd", f"-o{f}", str(a)],
            name_prefix="Path = ",
        )
        for command in ("7zz", "7z")
    ),
    RarProgram("bsdtar", lambda a: ["-tf", str(a)], lambda a, f: ["-xf", str(a), "-C", str(f)]),
)


def unpack(archive: Path, folder: Path, *, nested: bool = False) -> list[str]:
    """Unpack an archive into a folder; files of the same names there are replaced.

    Args:
        nested: archives that it holds are unpacked in its place, one level deep.

    Returns:
        The files, sorted, relative to the folder.

    Raises:
        DataError: it is damaged or no archive, it is refused, or no program can read it. Nothing is left behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    limit = max(archive.stat().st_size * MOST_GROWTH, _LEAST_LIMIT)
    staging = folder / f".unpacking-{archive.name}"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    try:
        _unpack_into(archive, staging, limit)
        for inner in sorted(staging.rglob("*")) if nested else ():
            if inner.suffix.lower() in (".rar", ".zip", ".tar", ".tgz"):
                _unpack_into(inner, staging, limit)
                inner.unlink()
        return _move(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def is_rar(name: str) -> bool:
    """Whether a name asks for a program of the system."""
    return name.lower().endswith(".rar")


def require_rar_program() -> None:
    """Raise DataError where no program can unpack .rar, before gigabytes are fetched."""
    if not any(shutil.which(program.command) for program in RAR_PROGRAMS):
        raise DataError(
            f"unpacking .rar needs one of the programs {', '.join(p.command for p in RAR_PROGRAMS)}, and none is installed."
            " Debian, Ubuntu: apt install unrar, or libarchive-tools for bsdtar; macOS: brew install libarchive; conda:"
            " conda install -c conda-forge libarchive."
        )


def _unpack_into(archive: Path, staging: Path, limit: int) -> None:
    name = archive.name.lower()
    if is_rar(name):
        _unpack_rar(archive, staging)
        check_tree(staging, archive, limit)
        return
    try:
        if name.endswith(".zip"):
            _unpack_zip(archive, staging, _Gate(archive, limit))
        elif name.endswith((".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")):
            _unpack_tar(archive, staging, _Gate(archive, limit))
        else:
            raise DataError(f"{archive} must be a .zip, .tar, .tar.gz, .tgz or .rar. Unpack it by hand.")
    except _DAMAGE as cause:
        if isinstance(cause, OSError) and cause.errno is not None:  # the disk's, not the archive's
            raise
        raise DataError(
            f"{archive} cannot be unpacked: {type(cause).__name__}: {' '.join(str(cause).split())}. Delete it and fetch it"
            " again."
        ) from cause


def refuse(archive: Path, what: str) -> DataError:
    """The error for an archive that must not be unpacked."""
    return DataError(f"{archive} is refused: {what}. Nothing of it was unpacked. Do not use it: it may be a forgery.")


def check_name(archive: Path, name: str) -> None:
    """Raise DataError for the name of a member that leads out of the folder."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in name or re.match(r"[A-Za-z]:", name):
        raise refuse(archive, f"it holds the name {name!r}, which leads out of its folder")


# ---- zip and tar


class _Gate:
    """What may come out of an archive: looked at before it does, by what the archive says of it."""

    def __init__(self, archive: Path, limit: int) -> None:
        self.archive, self.limit, self._left = archive, limit, limit

    def admit(self, name: str, num_bytes: int, *, is_plain: bool) -> None:
        """Raise DataError for what leads out of the folder, is neither file nor folder, or is too much."""
        check_name(self.archive, name)
        if not is_plain:
            raise refuse(self.archive, f"{name!r} in it is a link or a device")
        self._left -= num_bytes
        if self._left < 0:
            raise refuse(self.archive, f"more than {self.limit:,} bytes come out of it")


def _unpack_zip(archive: Path, staging: Path, gate: _Gate) -> None:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():  # zipfile stops at the size that an entry says
            kind = stat.S_IFMT(info.external_attr >> 16)
            gate.admit(info.filename, info.file_size, is_plain=info.is_dir() or kind in (0, stat.S_IFREG))
        file.extractall(staging)


def _unpack_tar(archive: Path, staging: Path, gate: _Gate) -> None:
    def admitted(file: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
        for info in file:
            gate.admit(info.name, info.size, is_plain=info.isdir() or info.isreg())
            yield info

    with tarfile.open(archive, "r:*") as file:
        # PEP 706, which the first versions of Python 3.11 lack: what it refuses is refused above as well.
        file.extraction_filter = getattr(tarfile, "data_filter", lambda info, path: info)
        file.extractall(staging, admitted(file))


# ---- rar


def _unpack_rar(archive: Path, staging: Path) -> None:
    """With the first program that manages it; names are looked at before anything is written."""
    require_rar_program()
    complaints = []
    for program in RAR_PROGRAMS:
        path = shutil.which(program.command)
        if path is None:
            continue
        listing = _run([path, *program.names(archive.absolute())])
        if listing.returncode == 0:
            for name in _rar_names(listing.stdout, program.name_prefix):
                check_name(archive, name)
            outcome = _run([path, *program.extract(archive.absolute(), staging.absolute())])
            if outcome.returncode == 0:
                return
            listing = outcome
        complaints.append(f"{program.command} ends with {listing.returncode}: {_last_words(listing)}")
    raise DataError(
        f"{archive} cannot be unpacked ({'; '.join(complaints)}). Install unrar (bsdtar and 7z do not know every .rar), or"
        " delete the file and fetch it again."
    )


def _run(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)


def _rar_names(output: bytes, prefix: str) -> Iterator[str]:
    for line in output.decode("utf-8", "surrogateescape").splitlines():
        if line.startswith(prefix) and line.strip():
            yield line.removeprefix(prefix)


def _last_words(outcome: subprocess.CompletedProcess[bytes]) -> str:
    text = (outcome.stderr.strip() or outcome.stdout.strip()).decode(errors="replace")
    return " ".join(text.split())[-200:] or "nothing said"


def check_tree(folder: Path, archive: Path, limit: int) -> None:
    """Look through what a program unpacked.

    Raises:
        DataError: there is a link or a device, or more than ``limit`` bytes.
    """
    total = 0
    for path in folder.rglob("*"):
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
            raise refuse(archive, f"{path.relative_to(folder).as_posix()!r} in it is a link or a device")
        total += found.st_size if stat.S_ISREG(found.st_mode) else 0
    if total > limit:
        raise refuse(archive, f"more than {limit:,} bytes come out of it")


# ---- into place


def _move(staging: Path, folder: Path) -> list[str]:
    """Move every file to its place; renames on one file system, so each file is whole or not there."""
    files = sorted(path.relative_to(staging) for path in staging.rglob("*") if path.is_file())
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        os.replace(staging / file, folder / file)
    return [file.as_posix() for file in files]
