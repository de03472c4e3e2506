"""What a video is known by: its whole content; its ends alone, where that must be quick. No decoder is imported here."""

from __future__ import annotations

import hashlib
import os

from ssvid.video.frame_folders import frame_paths
from ssvid.video.progress import beat

_BLOCK = 256 * 1024
_QUICK_BLOCK = 64 * 1024
_QUICK_CHARACTERS = 32


def content_id(path: str | os.PathLike[str]) -> str:
    """The identity of a file: SHA-256 of all its bytes, 64 hex characters, as ``sha256sum`` prints it.

    Of the file and not of its packets or pictures, on purpose: it needs no decoder, so that it is the same under every
    version of FFmpeg, and no two files with different pictures, sizes, times or rotations share it. The price: a copy
    that was put into another container, given other metadata or encoded anew is another content.

    Of a folder of pictures: SHA-256 of the SHA-256 (32 bytes each) of its frames' files, in their order. Names count by
    the order alone, so that a copy with other names or numbers is the same video; the file that ``join-frames`` makes of
    the pictures is another one.

    Raises:
        OSError: it cannot be read.
        DecodeError: a folder holds no frames.
    """
    if not os.path.isdir(path):
        return _sha256(path).hexdigest()
    digest = hashlib.sha256()
    for picture in frame_paths(path):
        digest.update(_sha256(picture).digest())
    return digest.hexdigest()


def _sha256(path: str | os.PathLike[str]) -> hashlib._Hash:
    digest, block = hashlib.sha256(), memoryview(bytearray(_BLOCK))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(block):
            digest.update(block[:count])
            beat()
    return digest


def quick_id(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's size and its first and last 64 KiB, 32 hex characters; different files may share it.

    Once it was the only identity, so tables, checkpoints and exports of that time are compared by it. Of a folder of
    pictures: of their number, the size of all, the beginning of the first and the end of the last.

    Raises:
        OSError, DecodeError: as ``content_id``.
    """
    digest, name = hashlib.sha256(), os.fspath(path)
    if os.path.isdir(name):
        pictures = frame_paths(name)
        digest.update(b"%d pictures " % len(pictures))
        size, first, last = sum(map(os.path.getsize, pictures)), pictures[0], pictures[-1]
    else:
        size, first, last = os.path.getsize(name), name, name
    digest.update(size.to_bytes(8, "little"))
    with open(first, "rb") as file:
        digest.update(file.read(_QUICK_BLOCK))
    with open(last, "rb") as file:
        file.seek(max(os.path.getsize(last) - _QUICK_BLOCK, 0))
        digest.update(file.read(_QUICK_BLOCK))
    return digest.hexdigest()[:_QUICK_CHARACTERS]


def is_quick(identity: str) -> bool:
    """Whether an identity is a ``quick_id``, which its length tells."""
    return len(identity) == _QUICK_CHARACTERS


def identity_like(identity: str, path: str | os.PathLike[str]) -> str:
    """The identity of a file in the way in which another identity was made, so that the two can be compared."""
    return quick_id(path) if is_quick(identity) else content_id(path)
