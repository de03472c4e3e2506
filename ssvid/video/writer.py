"""Frames to file: H.264 by PyAV, written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream

from ssvid.errors import DataError
from ssvid.files import appearing_whole

_BT601 = 6  # SMPTE 170M in H.273: what every decoder assumes for small videos; written down so that none has to guess
_ACCURATE_RND = 0x40000  # SWS_ACCURATE_RND, which PyAV 17 has no name for


def write_video(
    path: str | os.PathLike[str],
    frames: Iterable[np.ndarray],
    fps: float,
    *,
    crf: int = 23,
    preset: str = "veryfast",
    gop: int = 12,
    b_frames: int = 0,
    codec: str = "libx264",
) -> int:
    """Encode RGB frames. The file appears under its name only when it is complete; an existing one is replaced then.

    The same frames give the same bytes each time on one machine. Another version of the encoder, or a processor without AVX,
    may write other bytes and slightly other pixels.

    Args:
        path: the suffix chooses the container (.mp4, .mkv, .avi). The folder is created.
        frames: (H, W, 3) uint8 each, all of one size, H and W even. A generator is consumed one frame at a time.
        fps: frames per second, above 0.
        crf: quality of libx264 and libx265, 0 (lossless) to 51; for mpeg4 the quantizer is 2 + crf / 10.
        gop: frames from one key frame to the next at most.
        b_frames: B-frames in a row. 0 keeps decoding order and presentation order the same.

    Returns:
        The number of frames written.

    Raises:
        DataError: a frame has a wrong shape, type or size, there is no frame, fps is not positive, or FFmpeg refuses.
    """
    target = Path(os.path.abspath(path))  # absolute, because FFmpeg takes 12:30.mp4 for a protocol
    options = _codec_options(codec, crf, preset, gop, b_frames)
    try:
        with appearing_whole(target) as partial:
            return _encode(partial, _checked(frames, target), _checked_fps(fps), codec, options, gop, b_frames)
    except (av.error.FFmpegError, av.codec.codec.UnknownCodecError) as error:
        raise DataError(f"cannot write {target} with codec {codec!r}: {type(error).__name__}: {error}.") from error


def _checked_fps(fps: float) -> Fraction:
    if not 0 < fps < 10_000:
        raise DataError(f"fps ({fps}) must be above 0 and below 10000.")
    return Fraction(fps).limit_denominator(1001)


def _codec_options(codec: str, crf: int, preset: str, gop: int, b_frames: int) -> dict[str, str]:
    if codec in ("libx264", "libx265"):
        # Without the macroblock tree: on AVX-512 libx264 sums it up differently now and then, and one video in 300 was another.
        fixed = {"sc_threshold": "0", "keyint_min": str(gop), "mbtree": "0"} if codec == "libx264" else {}
        return {"crf": str(crf), "preset": preset, "bf": str(b_frames), "g": str(gop), **fixed}
    quantizer = str(2 + crf // 10)
    return {"qmin": quantizer, "qmax": quantizer, "bf": str(b_frames), "g": str(gop)} if codec == "mpeg4" else {}


def _checked(frames: Iterable[np.ndarray], target: Path) -> Iterator[np.ndarray]:
    """The frames one by one, each checked against the first."""
    shape: tuple[int, ...] | None = None
    for number, frame in enumerate(frames):
        _check_frame(frame, number, shape or frame.shape, target)
        shape = frame.shape
        yield frame
    if shape is None:
        raise DataError(f"cannot write {target}: there are no frames, and a video must have at least one.")


def _check_frame(frame: np.ndarray, number: int, shape: tuple[int, ...], target: Path) -> None:
    where = f"cannot write {target}: frame {number}"
    if frame.dtype != np.uint8:
        raise DataError(f"{where} has type {frame.dtype}; it must be uint8 with values 0 to 255.")
    if frame.ndim != 3 or frame.shape[2] != 3:
        raise DataError(f"{where} has shape {frame.shape}; it must be (height, width, 3), RGB.")
    if frame.shape[0] % 2 or frame.shape[1] % 2 or not frame.size:
        raise DataError(f"{where} has shape {frame.shape}; height and width must be even and above 0 (yuv420p).")
    if frame.shape != shape:
        raise DataError(f"{where} has shape {frame.shape}, the frames before it {shape}; all must have one size.")


def _encode(
    partial: Path,
    frames: Iterator[np.ndarray],
    fps: Fraction,
    codec: str,
    options: dict[str, str],
    gop: int,
    b_frames: int,
) -> int:
    count = 0
    with _open_for_writing(partial) as container:
        first = next(frames)
        stream = cast(VideoStream, container.add_stream(codec, rate=fps, options=options))
        _set_up(stream, first.shape[0], first.shape[1], fps, gop, b_frames)
        convert = VideoReformatter()
        for count, frame in enumerate(chain([first], frames), start=1):
            picture = _to_yuv(convert, frame)
            picture.pts, picture.time_base = count - 1, 1 / fps
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return count


def _open_for_writing(partial: Path) -> OutputContainer:
    try:
        return av.open(str(partial), "w")
    except ValueError as error:  # not around the whole encoding: the source of the frames may raise it too
        raise DataError(f"cannot write a video with suffix {partial.suffix!r}: {error}. Use .mp4 or .mkv.") from error


def _set_up(stream: VideoStream, height: int, width: int, fps: Fraction, gop: int, b_frames: int) -> None:
    stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
    context = stream.codec_context
    context.time_base = 1 / fps
    context.gop_size = gop
    context.max_b_frames = b_frames
    context.thread_count = 1  # the same bytes for any number of cores; parallelism is over files
    context.color_range = ColorRange.MPEG
    context.colorspace = _BT601
    context.color_primaries = _BT601
    context.color_trc = _BT601


def _to_yuv(convert: VideoReformatter, frame: np.ndarray) -> av.VideoFrame:
    picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
    return convert.reformat(
        picture,
        format="yuv420p",
        dst_colorspace=Colorspace.ITU601,
        dst_color_range=ColorRange.MPEG,
        interpolation=Interpolation.BICUBIC | _ACCURATE_RND,
        threads=1,
    )
