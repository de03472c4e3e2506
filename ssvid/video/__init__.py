"""File to frames: readers that agree on what frame i is, a scanner, a writer, pure index arithmetic.

**Frame i of a file is the i-th frame that a sequential PyAV decode delivers**, upright; of a folder of pictures, it is the
i-th picture by the numbers in the names. Every reader here either
returns that frame or raises. Importing this package imports no decoder and no torch: names are loaded when first used; ssvid
itself imports each from its file, where type checkers know it.
"""

from __future__ import annotations

import importlib
from typing import Any

_NAMES = {
    "decoders.choice": ("DECODERS_BY_SPEED", "DecoderStatus", "available_decoders", "resolve_decoder"),
    "decoders.contract": ("VideoReader", "hand_out_frames"),
    "identity": ("content_id", "quick_id"),
    "motion": ("measure_signals",),
    "opening": ("open_video", "read_clips"),
    "sampling": ("clip_indices", "evenly_spaced_clips", "is_padded", "random_clip"),
    "scan": ("VideoScan", "scan_video"),
    "writer": ("write_video",),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ssvid.video' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ssvid.video.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
