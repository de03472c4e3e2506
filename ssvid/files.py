"""Files that are never half written: a reader sees the old content or the whole new one. And what a ``~`` means."""

from __future__ import annotations

import contextlib
import errno
import functools
import glob
import inspect
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ParamSpec, TypeVar

from ssvid.errors import DataError, DiskFull, SsvidError

if TYPE_CHECKING:
    import numpy as np

P = ParamSpec("P")
T = TypeVar("T")


def expanded(path: Any) -> Any:
    """The path with ``~`` and ``~name`` at its start as the home folder, where there is one; a list item by item.

    What is no path (None, ``hf://owner/name``, ``random``) stays as it is.
    """
    if isinstance(path, list | tuple):
        return type(path)(expanded(item) for item in path)
    if not isinstance(path, str | os.PathLike):
        return path
    text = os.path.expanduser(os.fspath(path))
    return text if isinstance(path, str) else Path(text)


def takes_paths(*names: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A decorator: the arguments of these names are paths, and ``~`` means the home folder in all of them."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        signature = inspect.signature(function)
        absent = set(names) - set(signature.parameters)
        assert not absent, f"{function.__qualname__} takes no {absent}"

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError:
                return function(*args, **kwargs)  # which says so in its own name
            bound.arguments |= {name: expanded(bound.arguments[name]) for name in names if name in bound.arguments}
            return function(*bound.args, **bound.kwargs)

        return call

    return decorate


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_disk_full(error: BaseException | None) -> str:
    """How the system says that there is no room for a file; "" where it does not. Libraries wrap what they were told."""
    while error is not None:
        for number in _FULL:
            if (isinstance(error, OSError) and error.errno == number) or f"(os error {number})" in str(error):
                return os.strerror(number)
        if "database or disk is full" in str(error) or os.strerror(errno.ENOSPC) in str(error):
            return os.strerror(errno.ENOSPC)
        error = error.__cause__ or error.__context__
    return ""


def disk_full(path: str | Path, why: str) -> DiskFull:
    """The error that names the place, what is left there, and the way out."""
    place = Path(path).absolute()
    there = next((folder for folder in (place, *place.parents) if folder.is_dir()), Path("/"))
    free_mb = shutil.disk_usage(there).free / 1e6
    return DiskFull(
        f"{path}: {why}; {free_mb:,.1f} MB are left in {there}. Make room there (or raise your quota, or ulimit -f), or name a "
        "place on another disk, and run it again. What was whole before is still whole."
    )


@contextlib.contextmanager
def telling_full_disk(path: str | Path) -> Iterator[None]:
    """Around the writing of a file.

    Raises:
        DiskFull: there is no room for it.
    """
    try:
        yield
    except DiskFull:
        raise
    except Exception as error:
        if why := is_disk_full(error):
            raise disk_full(path, why) from error
        raise


class _Noting:
    """An open file that keeps the failure of a write: libraries replace it by their own."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.failure: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, content: Any) -> int:
        try:
            return self._file.write(content)
        except OSError as error:
            self.failure = error
            raise


def write_atomic(path: str | Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that ``path`` always holds the old content or the whole new one, even after a power cut.

    The temporary file lies in the same folder: renaming across file systems is a copy, and a copy can be cut short.

    Args:
        write: called with the open temporary file.

    Raises:
        DiskFull: there is no room for it.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with telling_full_disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                _write_noting(write, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _write_noting(write: Callable[[IO[bytes]], object], file: IO[bytes]) -> None:
    noting = _Noting(file)
    try:
        write(noting)  # type: ignore[arg-type]
    except Exception as error:
        if noting.failure is not None:
            raise noting.failure from error
        raise


@contextlib.contextmanager
def appearing_whole(path: Path) -> Iterator[Path]:
    """For libraries that write a file by its name: a name beside ``path``, which becomes ``path`` where the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder: only then is the replacement atomic. Not mkstemp, whose files nobody else may read.
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex}{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """A new hidden folder beside ``path``, removed at the end with what is still in it. Files appear at once where they are moved
    out of it. Folders that killed processes left behind for the same path are removed.

    Raises:
        DiskFull: there is no room for what is written into it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    for left in (folder, *path.parent.glob(f".{glob.escape(path.name)}.*.tmp")):
        if left.is_dir() and (left == folder or _is_left(left)):
            shutil.rmtree(left, ignore_errors=True)
    folder.mkdir()
    try:
        with telling_full_disk(path):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def folder_appearing_whole(path: Path) -> Iterator[Path]:
    """A hidden folder beside ``path``, which becomes ``path`` where the block ends well; an empty folder there is replaced.

    Raises:
        DiskFull: as ``folder_beside``. OSError: ``path`` was filled meanwhile.
    """
    with folder_beside(path.absolute()) as folder:
        yield folder
        os.replace(folder, path)


def require_empty_folder(path: Path) -> None:
    """Make sure that a folder is new or empty.

    Raises:
        DataError: it holds something, or is a file.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DataError(f"{path} exists and is not an empty folder. Nothing is overwritten: name another folder.")


def write_text(path: str | Path, text: str) -> None:
    """Write a text file, atomically."""
    write_atomic(path, lambda file: file.write(text.encode()))


def write_picture(path: str | Path, picture_HWC: np.ndarray) -> None:
    """Write a uint8 HWC picture as PNG, atomically."""
    from PIL import Image  # here: few who write files write pictures

    write_atomic(path, lambda file: Image.fromarray(picture_HWC).save(file, "PNG"))


def write_pictures(folder: str | Path, pictures: Iterable[np.ndarray]) -> None:
    """Write uint8 pictures as 00000.png and so on, into a folder that nobody sees before it is whole."""
    from PIL import Image

    Path(folder).mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(Path(folder) / f"{number:05d}.png")


def append_line(path: str | Path, line: str) -> None:
    """Add a line to a text file. One that a full disk cut short is taken back.

    Raises:
        DiskFull: there is no room for it.
    """
    content = line.encode() + b"\n"
    with telling_full_disk(path), open(path, "ab", buffering=0) as file:
        end = file.tell()
        try:
            while content:
                content = content[file.write(content) :]
        except OSError:
            os.truncate(path, end)
            raise


@contextlib.contextmanager
def locked(folder: Path, taken: SsvidError) -> Iterator[None]:
    """Hold a folder for this process alone, by a file ``.lock`` in it.

    Raises:
        SsvidError: ``taken``, where another process holds it.
    """
    import fcntl  # here: Windows has none

    with open(folder / ".lock", "w") as file:
        try:
            # Not flock: forked data workers would inherit that, and outlive a killed process by seconds.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise taken from error
        yield


def remove_leftovers(folder: Path) -> None:
    """Remove what ``write_atomic`` had begun in a folder when its process was killed."""
    for path in folder.glob(".*.tmp"):
        if path.is_file() and _is_left(path):
            path.unlink(missing_ok=True)


def _is_left(path: Path) -> bool:
    """Whether the process that is named before ``.tmp`` is gone."""
    number = path.name.split(".")[-2]
    return number.isdigit() and not _is_alive(int(number))


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def write_json(path: str | Path, content: Mapping[str, Any] | list[Any]) -> None:
    """Write plain types as JSON, atomically."""
    text = json.dumps(content, indent=2)
    write_atomic(path, lambda file: file.write(text.encode() + b"\n"))


def read_json_object(path: Path) -> dict[str, Any]:
    """A file of JSON that holds names and values.

    Raises:
        OSError: it cannot be read. ValueError: it holds something else.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} holds a {type(content).__name__}")
    return content
