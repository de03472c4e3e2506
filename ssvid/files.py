"""Files that are never half written: a reader sees the old content or the whole new one. And what a ``~`` means."""

from __future__ import annotations

import functools
import inspect
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, ParamSpec, TypeVar

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


def write_atomic(path: str | Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that ``path`` always holds the old content or the whole new one, even after a power cut.

    The temporary file lies in the same folder: renaming across file systems is a copy, and a copy can be cut short.

    Args:
        write: called with the open temporary file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
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


def write_json(path: str | Path, content: Mapping[str, Any] | list[Any], *, indent: int = 2) -> None:
    """Write plain types as JSON, atomically."""
    text = json.dumps(content, indent=indent)
    write_atomic(path, lambda file: file.write(text.encode() + b"\n"))
