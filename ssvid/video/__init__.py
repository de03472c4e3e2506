"""File to frames: readers that agree on what frame i is, a scanner, a writer, pure index arithmetic.

**Frame i of a file is the i-th frame that a sequential PyAV decode delivers**, upright. Every reader here either
returns that frame or raises. Importing this package imports no decoder and no torch: names are loaded when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ssvid.video.decoders.choice import DECODERS_BY_SPEED, DecoderStatus, available_decoders, resolve_decoder
    from ssvid.video.decoders.contract import VideoReader, hand_out_frames
    from ssvid.video.identity import content_id, quick_id
    from ssvid.video.motion import measure_signals
    from ssvid.video.opening import open_video, read_clips
    from ssvid.video.sampling import clip_indices, evenly_spaced_clips, is_padded, random_clip
    from ssvid.video.scan import VideoScan, scan_video
    from ssvid.video.writer import write_video

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

__all__ = [
    "DECODERS_BY_SPEED",
    "DecoderStatus",
    "VideoReader",
    "VideoScan",
    "available_decoders",
    "clip_indices",
    "content_id",
    "evenly_spaced_clips",
    "hand_out_frames",
    "is_padded",
    "measure_signals",
    "open_video",
    "quick_id",
    "random_clip",
    "read_clips",
    "resolve_decoder",
    "scan_video",
    "write_video",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ssvid.video' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ssvid.video.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
