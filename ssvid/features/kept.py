"""Vectors of videos, kept in a folder by name: what was computed once is not computed again.

Each process that writes adds to the end of a file of its own, and nobody changes what another one wrote: so nobody waits,
no lock is needed, on a network disk neither, and the files are as many as the runs that computed something. A record
holds the vectors of one pass, and its SHA-256 tells whether it is whole: a kill costs the last one at most, and a damaged
one is passed over.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from ssvid.files import telling_full_disk

SUFFIX = ".vectors"
_MAGIC = b"ssvidvec"
_START = struct.Struct("<8sIQ")  # magic, bytes of the head, bytes of the values
_DIGEST_BYTES = 32


class Place(NamedTuple):
    """Where a vector lies: ``shape`` float32 values from byte ``offset`` on."""

    file: Path
    offset: int
    shape: tuple[int, ...]


class Record(NamedTuple):
    """One named vector of a record. about: what the writer said of the record's vectors."""

    name: str
    values: np.ndarray
    about: Mapping[str, Any]
    place: Place


class Kept:
    """A folder of vectors; it is made with the first that is put there.

    folder: None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._own: Path | None = None

    def records(self) -> Iterator[Record]:
        """All whole vectors, the oldest first; of several with one name the first one counts."""
        for path in sorted(self.folder.glob(f"*{SUFFIX}")) if self.folder is not None else ():
            try:
                with open(path, "rb") as file:
                    yield from _records(path, file)
            except FileNotFoundError:  # removed meanwhile
                continue

    def put(self, vectors: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
        """Keep vectors, all of them or none. Not forced to the disk: the digest finds what a power cut has damaged.

        Raises:
            DiskFull: there is no room. OSError: the folder cannot be written.
        """
        if self.folder is None or not vectors:
            return
        arrays = {name: np.ascontiguousarray(values, dtype="<f4") for name, values in vectors.items()}
        head = json.dumps({"about": dict(about), "vectors": [[name, a.shape] for name, a in arrays.items()]}).encode()
        start = _START.pack(_MAGIC, len(head), sum(array.nbytes for array in arrays.values()))
        content = b"".join([start, head, *(array.tobytes() for array in arrays.values())])
        if self._own is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._own = self.folder / f"{time.time_ns():020}-{uuid.uuid4().hex[:8]}{SUFFIX}"
        _append(self._own, content + hashlib.sha256(content).digest())


def read_place(place: Place) -> np.ndarray:
    """The vector at a place.

    Raises:
        OSError, ValueError: it is gone.
    """
    count = int(np.prod(place.shape))
    return np.fromfile(place.file, dtype="<f4", count=count, offset=place.offset).reshape(place.shape)


def _append(path: Path, content: bytes) -> None:
    """Add a record to a file; one that a full disk cut short is taken back."""
    with telling_full_disk(path), open(path, "ab", buffering=0) as file:
        end, left = file.tell(), memoryview(content)
        try:
            while left:
                left = left[file.write(left) :]
        except OSError:
            os.truncate(path, end)
            raise


def _records(path: Path, file: IO[bytes]) -> Iterator[Record]:
    size = os.fstat(file.fileno()).st_size
    while len(start := file.read(_START.size)) == _START.size:
        magic, head_bytes, value_bytes = _START.unpack(start)
        if magic != _MAGIC or file.tell() + head_bytes + value_bytes + _DIGEST_BYTES > size:
            return  # cut short, or what follows cannot be found
        head, offset = file.read(head_bytes), file.tell()
        content = file.read(value_bytes)
        digest = hashlib.sha256(start + head)
        digest.update(content)
        if file.read(_DIGEST_BYTES) != digest.digest():
            continue
        told, values = json.loads(head), np.frombuffer(content, dtype="<f4")
        first = 0
        for name, shape in told["vectors"]:
            last = first + int(np.prod(shape))
            place = Place(path, offset + 4 * first, tuple(shape))
            yield Record(name, values[first:last].reshape(shape), told["about"], place)
            first = last
