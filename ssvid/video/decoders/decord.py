"""Frames by decord: kept because many data sets were prepared with it. Its last release is of 2021.

It can hang for ever while it holds the interpreter, so scanning runs in a process that can be killed.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ssvid.errors import DecodeError
from ssvid.types import VideoInfo
from ssvid.video.decoders.contract import PortionReader, VideoReader

DISTRIBUTION = "decord"
WAY_OUT = "pip install decord (wheels exist for x86-64 Linux and Windows only)"


def load() -> Any:
    """Import the library."""
    import decord

    return decord


def open_reader(path: str, info: VideoInfo, *, seek: bool = True) -> VideoReader:
    """Open a file; it always seeks."""
    return DecordReader(path, info)


class DecordReader(PortionReader):
    """A video opened by decord on one CPU thread."""

    def __init__(self, path: str | os.PathLike[str], info: VideoInfo) -> None:
        super().__init__(path, info)
        decord = load()
        self._errors = (decord.DECORDError, RuntimeError, ValueError, IndexError, TypeError, OSError)
        decord.logging.set_level(decord.logging.QUIET)  # FFmpeg's warnings would flood the terminal
        try:
            self.decoder = decord.VideoReader(self.path, ctx=decord.cpu(0), num_threads=1)
        except self._errors as error:
            raise DecodeError(self.path, "decord cannot open it", _first_line(error)) from error

    def _decoded(self, indices: np.ndarray) -> np.ndarray:
        try:
            frames_THWC = self.decoder.get_batch(indices.tolist())
        except self._errors as error:
            what = f"decord, frames {indices[0]} to {indices[-1]}"
            raise DecodeError(self.path, what, _first_line(error)) from error
        # Depends on the bridge, which is a global setting of decord that is not ours to change.
        return frames_THWC.asnumpy() if hasattr(frames_THWC, "asnumpy") else np.asarray(frames_THWC)


def _first_line(error: BaseException) -> str:
    """decord's errors carry a C++ stack trace; its first line says what happened."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"
