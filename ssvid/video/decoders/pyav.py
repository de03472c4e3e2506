"""Frames by PyAV: the decoder that defines what frame i is, and that is right for every file."""

from __future__ import annotations

from types import ModuleType

from ssvid.types import VideoInfo
from ssvid.video.decoders.contract import VideoReader

DISTRIBUTION = "av"
WAY_OUT = "pip install 'av>=17.1,<20'"


def load() -> ModuleType:
    """Import the library, and with it what reads by it."""
    from ssvid.video import random_access

    return random_access


def open_reader(path: str, info: VideoInfo, *, seek: bool = True) -> VideoReader:
    """Open a file. ``seek`` False decodes from its start, always."""
    return load().PyavReader(path, info, seek=seek)
