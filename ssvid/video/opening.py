"""How a video is opened and how clips are read: with a decoder that is right for the file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ssvid.errors import DecodeError
from ssvid.types import VideoInfo
from ssvid.video.decoders.choice import create_reader, resolve_decoder
from ssvid.video.decoders.contract import VideoReader, hand_out_frames
from ssvid.video.frame_folders import PICTURES

if TYPE_CHECKING:
    from torch import Tensor


def read_clips(reader: VideoReader, clips: Sequence[np.ndarray]) -> list[Tensor]:
    """Read several clips of one video in one pass: the frames they need are decoded once.

    Four clips of one opened file cost about as much as two that are opened apart, because most of the cost is in the
    frames decoded on the way to the clip.

    Args:
        reader: an opened video.
        clips: int64 (T_i,) each; lengths may differ.

    Returns:
        One contiguous uint8 (T_i, C, H, W) for each clip, sharing no storage.

    Raises:
        DecodeError: as ``frames_at``.
    """
    size = (reader.info.channels, reader.info.height, reader.info.width)
    read_TCHW = [np.empty((len(clip), *size), np.uint8) for clip in clips]
    # numpy turns THWC into TCHW four times as fast as torch does for uint8.
    hand_out_frames(reader, clips, [clip_TCHW.transpose(0, 2, 3, 1).__setitem__ for clip_TCHW in read_TCHW])
    return [torch.from_numpy(clip_TCHW) for clip_TCHW in read_TCHW]


def open_video(
    path: str | os.PathLike[str],
    decoder: str = "auto",
    *,
    info: VideoInfo | None = None,
    decoders_ok: Sequence[str] = (),
) -> VideoReader:
    """Open a video with a decoder that is right for it.

    Args:
        path: the file, or a folder of pictures.
        decoder: ``auto`` takes the fastest installed of ``decoders_ok``, and PyAV where that is empty. A folder is read
            picture by picture whatever is asked for.
        info: what a scan found of the *whole* file. None: the file is scanned first, which decodes all of it.
        decoders_ok: the decoders that a scan found right. ``pyav`` among them means that its random access is proved;
            where it is missing, PyAV decodes from the start of the file, which is right by definition.

    Raises:
        DecodeError: the file cannot be read, or a forced decoder returns wrong frames for it.
        SsvidError: the decoder is unknown or not installed.
    """
    if os.path.isdir(path):
        return _open_folder(path, decoder, info)
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


def _open_folder(path: str | os.PathLike[str], decoder: str, info: VideoInfo | None) -> VideoReader:
    name = resolve_decoder(decoder, (PICTURES,))
    if info is None:
        from ssvid.video.scan import scan_video

        info = scan_video(path).info
    return create_reader(name, os.fspath(path), info)
