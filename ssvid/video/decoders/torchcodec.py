"""Frames by torchcodec: the fastest decoder, exact wherever the container carries presentation times."""

from __future__ import annotations

import os
from collections.abc import Generator

import numpy as np
from torchcodec.decoders import VideoDecoder

from ssvid.errors import DecodeError
from ssvid.types import VideoInfo
from ssvid.video.decoders.contract import ReaderBase, portions

# What torchcodec was seen to raise on broken files; nothing of it is a mistake of the caller's.
_ERRORS = (RuntimeError, ValueError, IndexError, TypeError, KeyError, OSError)


class TorchcodecReader(ReaderBase):
    """A video opened by torchcodec in exact mode, on one thread.

    Approximate mode trusts the header and returned wrong frames for cut AVI files, variable frame rates and edit lists.
    """

    def __init__(self, path: str | os.PathLike[str], info: VideoInfo) -> None:
        super().__init__(path, info)
        try:
            self._decoder: VideoDecoder | None = VideoDecoder(
                self.path, seek_mode="exact", num_ffmpeg_threads=1, dimension_order="NCHW"
            )
        except _ERRORS as error:
            raise DecodeError(self.path, "torchcodec cannot open it", error) from error

    def _decode_sorted(self, indices: np.ndarray) -> Generator[tuple[int, np.ndarray]]:
        for start, portion in portions(indices, self.info):
            yield from enumerate(self._decoded(portion), start)

    def _decoded(self, indices: np.ndarray) -> np.ndarray:
        if self._decoder is None:
            raise DecodeError(self.path, "the reader is closed")
        try:
            frames_TCHW = self._decoder.get_frames_at(indices.tolist()).data
        except _ERRORS as error:
            raise DecodeError(self.path, f"torchcodec, frames {indices[0]} to {indices[-1]}", error) from error
        return frames_TCHW.permute(0, 2, 3, 1).numpy()

    def close(self) -> None:
        """Give the file back."""
        self._decoder = None
