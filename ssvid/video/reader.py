"""The reader protocol, and the one function that opens a video."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
import torch

from ssvid.errors import DecodeError
from ssvid.types import VideoInfo
from ssvid.video.decoders import create_reader, resolve_decoder

if TYPE_CHECKING:
    from torch import Tensor


class VideoReader(Protocol):
    """An opened video. Not to be shared between threads; close it, or use it as a context manager."""

    info: VideoInfo

    def frames_at(self, indices: np.ndarray) -> Tensor:
        """Decode frames by number.

        Args:
            indices: int64 (T,), any order, repeats allowed, each in [0, info.num_frames).

        Returns:
            (T, 3, H, W) uint8 RGB, upright.

        Raises:
            DecodeError: an index is out of range, or a frame cannot be decoded.
        """
        ...

    def close(self) -> None:
        """Give the file back."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class ReaderBase:
    """What all readers share: the info, the index check, and scattering decoded frames to the asked order."""

    def __init__(self, path: str | os.PathLike[str], info: VideoInfo) -> None:
        self.path = checked_path(path)
        self.info = info

    def frames_at(self, indices: np.ndarray) -> Tensor:
        """Decode frames by number; see ``VideoReader.frames_at``."""
        unique, inverse = np.unique(checked_indices(self.path, indices, self.info), return_inverse=True)
        frames_TCHW = self._decode_sorted(unique)
        self._check_shape(frames_TCHW, len(unique))
        # Most requests are sorted and without repeats: those need no copy.
        return frames_TCHW if np.array_equal(inverse, np.arange(len(unique))) else _gather(frames_TCHW, inverse)

    def _decode_sorted(self, indices: np.ndarray) -> Tensor:
        raise NotImplementedError

    def _check_shape(self, frames_TCHW: Tensor, num_frames: int) -> None:
        expected = (num_frames, 3, self.info.height, self.info.width)
        if tuple(frames_TCHW.shape) != expected:
            what = f"decoded frames of shape {tuple(frames_TCHW.shape)}, the index says {expected}: the file changed"
            raise DecodeError(self.path, what)

    def close(self) -> None:
        """Give the file back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


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


def read_clips(reader: VideoReader, clips: Sequence[np.ndarray]) -> list[Tensor]:
    """Read several clips of one video in one pass: the frames they need are decoded once.

    Four clips of one opened file cost about as much as two that are opened apart, because most of the cost is in the
    frames decoded on the way to the clip.

    Args:
        reader: an opened video.
        clips: int64 (T_i,) each; lengths may differ.

    Returns:
        One contiguous uint8 (T_i, 3, H, W) for each clip, sharing no storage.

    Raises:
        DecodeError: as ``frames_at``.
    """
    if not clips:
        return []
    wanted = np.unique(np.concatenate([checked_indices(reader.info.path, clip, reader.info) for clip in clips]))
    frames_TCHW = reader.frames_at(wanted)
    return [_gather(frames_TCHW, np.searchsorted(wanted, clip)) for clip in clips]


def _gather(frames_TCHW: Tensor, positions: np.ndarray) -> Tensor:
    """Copy some frames into a contiguous tensor of their own.

    Decoders deliver THWC under a permuted view. numpy turns that round four times as fast as torch does for uint8, and
    this is a quarter of the cost of a clip.
    """
    source_TCHW = frames_TCHW.numpy()
    clip_TCHW = np.empty((len(positions), *source_TCHW.shape[1:]), np.uint8)
    for place, position in enumerate(positions.tolist()):
        clip_TCHW[place] = source_TCHW[position]
    return torch.from_numpy(clip_TCHW)


def open_video(
    path: str | os.PathLike[str],
    decoder: str = "auto",
    *,
    info: VideoInfo | None = None,
    decoders_ok: Sequence[str] = (),
) -> VideoReader:
    """Open a video with a decoder that is right for it.

    Args:
        path: the file.
        decoder: ``auto`` takes the fastest installed of ``decoders_ok``, and PyAV where that is empty.
        info: what a scan found of the *whole* file. None: the file is scanned first, which decodes all of it.
        decoders_ok: the decoders that a scan found right. ``pyav`` among them means that its random access is proved;
            where it is missing, PyAV decodes from the start of the file, which is right by definition.

    Raises:
        DecodeError: the file cannot be read, or a forced decoder returns wrong frames for it.
        SsvidError: the decoder is unknown or not installed.
    """
    name = resolve_decoder(decoder, decoders_ok)
    if info is None:
        from ssvid.video.scan import scan_video  # the scanner itself opens readers

        scan = scan_video(path, decoders=tuple({name, "pyav"}))
        info, decoders_ok = scan.info, scan.decoders_ok or ("pyav",)
        seek = "pyav" in scan.decoders_ok
    else:
        seek = "pyav" in decoders_ok
    if name != "pyav" and decoders_ok and name not in decoders_ok:
        right = ", ".join(decoders_ok)
        what = f"decoder {name!r} returns wrong frames for this file; right are: {right}. Set loader.decoder=auto"
        raise DecodeError(os.fspath(path), what)
    return create_reader(name, os.fspath(path), info, seek=seek)
