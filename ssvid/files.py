"""Files that are never half written: a reader sees the old content or the whole new one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any


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
