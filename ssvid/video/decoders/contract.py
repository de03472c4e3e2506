"""What every reader of videos is: frames by number, checked, in any order, without keeping more than a few."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch

from ssvid.errors import DecodeError
from ssvid.types import VideoInfo

if TYPE_CHECKING:
    from torch import Tensor

_PORTION_BYTES = 64 << 20


class VideoReader:
    """An opened video. Not to be shared between threads; close it, or use it as a context manager.

    A decoder gives ``_decode_sorted``: what ``each_frame`` yields, of indices that have been checked.
    """

    def __init__(self, path: str | os.PathLike[str], info: VideoInfo) -> None:
        self.path = self._checked(path)
        self.info = info

    def _checked(self, path: str | os.PathLike[str]) -> str:
        return checked_path(path)

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """Of every frame: H, W and C, which is 3, or 2 of measured flow."""
        return self.info.height, self.info.width, self.info.channels

    def frames_at(self, indices: np.ndarray) -> Tensor:
        """Decode frames by number.

        Args:
            indices: int64 (T,), any order, repeats allowed, each in [0, info.num_frames).

        Returns:
            (T, C, H, W) uint8, upright: RGB, or u and v of measured flow.

        Raises:
            DecodeError: an index is out of range, or a frame cannot be decoded.
        """
        indices = checked_indices(self.path, indices, self.info)
        frames_THWC = np.empty((len(indices), *self.frame_shape), np.uint8)
        hand_out_frames(self, [indices], [frames_THWC.__setitem__])
        return torch.from_numpy(frames_THWC).permute(0, 3, 1, 2)

    def each_frame(self, indices: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Decode frames one after the other, so that no more than a few are in memory.

        Args:
            indices: int64 (T,), ascending, without repeats, each in [0, info.num_frames).

        Yields:
            The place in ``indices``, and the frame, uint8 (H, W, C), upright: a view that is not to be written to.
            A place can come more than once; the last one counts.

        Raises:
            DecodeError: as ``frames_at``.
        """
        expected, seen = self.frame_shape, False
        with closing(self._decode_sorted(checked_indices(self.path, indices, self.info))) as frames:
            for place, frame_HWC in frames:
                if frame_HWC.shape != expected:
                    changed = f"decoded frames of shape {frame_HWC.shape}, the index says {expected}: the file changed"
                    raise DecodeError(self.path, "the picture size changes in mid-stream" if seen else changed)
                seen = True
                yield place, frame_HWC

    def _decode_sorted(self, indices: np.ndarray) -> Generator[tuple[int, np.ndarray]]:
        raise NotImplementedError

    def close(self) -> None:
        """Give the file back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class PortionReader(VideoReader):
    """A reader by a library that answers with many frames at once: they are asked for in pieces that fit into a fixed memory.

    decoder: the library's opened video; None once it is closed.
    """

    decoder: Any = None

    def _decode_sorted(self, indices: np.ndarray) -> Generator[tuple[int, np.ndarray]]:
        size = max(1, _PORTION_BYTES // max(self.info.height * self.info.width * 3, 1))
        for start in range(0, len(indices), size):
            if self.decoder is None:
                raise DecodeError(self.path, "the reader is closed")
            yield from enumerate(self._decoded(indices[start : start + size]), start)

    def _decoded(self, indices: np.ndarray) -> np.ndarray:
        """All these frames (T, H, W, 3)."""
        raise NotImplementedError

    def close(self) -> None:
        """Give the file back."""
        self.decoder = None


def checked_path(path: str | os.PathLike[str]) -> str:
    """The path as an absolute string, after the checks that no decoder makes in clear words.

    Absolute, because FFmpeg takes ``12:30.mp4`` for a protocol.

    Raises:
        DecodeError: the path does not exist, is not a file, or is empty.
    """
    text = os.path.abspath(os.fspath(path))
    if not os.path.exists(text):
        raise DecodeError(text, "there is no such file")
    if not os.path.isfile(text):
        raise DecodeError(text, "this is a folder or a device, not a file")
    if os.path.getsize(text) == 0:
        raise DecodeError(text, "the file is empty (0 bytes)")
    return text


def checked_indices(path: str, indices: np.ndarray, info: VideoInfo) -> np.ndarray:
    """The indices as int64 (T,).

    Raises:
        DecodeError: there is none, they are not integers, or one is outside [0, num_frames).
    """
    array = np.asarray(indices)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        what = f"frame indices of shape {array.shape} and type {array.dtype}: they must be integers (T,), at least one"
        raise DecodeError(path, what)
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= info.num_frames:
        wrong = low if low < 0 else high
        raise DecodeError(path, f"frame {wrong} is outside the video: it has frames 0 to {info.num_frames - 1}")
    return array.astype(np.int64, copy=False)


def frames_in_turn(reader: VideoReader, indices: np.ndarray) -> Generator[np.ndarray]:
    """Frames one after the other, each once: arrays of their own, uint8 (H, W, C). A few are in memory.

    Args:
        reader: an opened video.
        indices: as ``VideoReader.each_frame`` takes them.

    Raises:
        DecodeError: as ``frames_at``.
    """
    held: tuple[int, np.ndarray] | None = None
    with closing(reader.each_frame(indices)) as frames:  # type: ignore[type-var]
        for place, frame_HWC in frames:
            if held is not None and held[0] != place:  # a place can come again, and its last frame counts
                yield held[1]
            held = place, np.array(frame_HWC)
    if held is not None:
        yield held[1]


def hand_out_frames(
    reader: VideoReader, clips: Sequence[np.ndarray], put: Sequence[Callable[[int, np.ndarray], None]]
) -> None:
    """Decode the frames of several clips of one video in one pass, each once, and hand each to every clip that needs it.

    No frame is kept: memory does not grow with the number of clips.

    Args:
        reader: an opened video.
        clips: int64 (T_i,) each; lengths may differ.
        put: for each clip, what takes its frames: the place in the clip, and the frame as ``each_frame`` yields it.

    Raises:
        DecodeError: as ``frames_at``.
    """
    checked = [checked_indices(reader.info.path, clip, reader.info) for clip in clips]
    if not checked:
        return
    wanted = np.unique(np.concatenate(checked))
    takers: list[list[Callable[[np.ndarray], None]]] = [[] for _ in wanted]
    for clip, take in zip(checked, put, strict=True):
        for place, number in enumerate(np.searchsorted(wanted, clip).tolist()):
            takers[number].append(partial(take, place))
    for number, frame_HWC in reader.each_frame(wanted):
        for taker in takers[number]:
            taker(frame_HWC)
