"""Frames by torchcodec: the fastest decoder, exact wherever the container carries presentation times."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ssvid.errors import DecodeError
from ssvid.types import VideoInfo
from ssvid.video.decoders.contract import PortionReader, VideoReader

DISTRIBUTION = "torchcodec"
WAY_OUT = "pip install torchcodec, and the FFmpeg libraries of the system (Debian, Ubuntu: apt install ffmpeg)"

# What torchcodec was seen to raise on broken files; nothing of it is a mistake of the caller's.
_ERRORS = (RuntimeError, ValueError, IndexError, TypeError, KeyError, OSError)


def load() -> Any:
    """Import the library: its class that opens a video."""
    from torchcodec.decoders import VideoDecoder

    return VideoDecoder


def open_reader(path: str, info: VideoInfo, *, seek: bool = True) -> VideoReader:
    """Open a file; it always seeks."""
    return TorchcodecReader(path, info)


class TorchcodecReader(PortionReader):
    """A video opened by torchcodec in exact mode, on one thread.

    Approximate mode trusts the header and returned wrong frames for cut AVI files, variable frame rates and edit lists.
    """

    def __init__(self, path: str | os.PathLike[str], info: VideoInfo) -> None:
        super().__init__(path, info)
        try:
            self.decoder = load()(self.path, seek_mode="exact", num_ffmpeg_threads=1, dimension_order="NCHW")
        except _ERRORS as error:
            raise DecodeError(self.path, "torchcodec cannot open it", error) from error

    def _decoded(self, indices: np.ndarray) -> np.ndarray:
        try:
            frames_TCHW = self.decoder.get_frames_at(indices.tolist()).data
        except _ERRORS as error:
            raise DecodeError(self.path, f"torchcodec, frames {indices[0]} to {indices[-1]}", error) from error
        return frames_TCHW.permute(0, 2, 3, 1).numpy()
