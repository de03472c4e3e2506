"""A file opened by PyAV and decoded from its start: this defines what frame i is, and how its pixels are turned to RGB."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any, cast

import av
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideData
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from ssvid.errors import DecodeError
from ssvid.video.packets import PacketLog
from ssvid.video.progress import beat
from ssvid.video.values import gray_levels

# FFmpegError is the root of PyAV's errors; the others escape from its Python layer on odd files.
DECODE_ERRORS = (av.error.FFmpegError, OSError, ValueError, IndexError, RuntimeError, UnicodeError)

# Titles and comments of old files are often not UTF-8. PyAV 19 decodes them leniently by itself and has no option for it.
OPEN_LENIENTLY: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.partition(".")[0]) < 19 else {}


@contextmanager
def open_stream(path: str) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a file for one-threaded decoding of its main video stream, and close it.

    Raises:
        DecodeError: FFmpeg cannot open the file, there is no video in it, or it is a still image.
    """
    try:
        # No network and no other file: a text file named .mp4 could be a playlist.
        container = av.open(path, options={"protocol_whitelist": "file"}, **OPEN_LENIENTLY)
    except DECODE_ERRORS as error:
        raise DecodeError(path, "not a video that FFmpeg can open", error) from error
    with container:
        names = container.format.name.split(",")
        if any(name.endswith("_pipe") or name == "image2" for name in names):
            raise DecodeError(path, f"this is a still image ({container.format.name}), not a video")
        stream = _main_video_stream(path, container)
        stream.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        yield container, stream


def _main_video_stream(path: str, container: InputContainer) -> VideoStream:
    if not container.streams.video:
        raise DecodeError(path, "there is no video in it (sound only, or data)")
    stream = container.streams.best("video") or container.streams.video[0]
    if stream.codec_context is None:
        raise DecodeError(path, "FFmpeg has no decoder for its video")
    return cast(VideoStream, stream)


def demux(container: InputContainer, stream: VideoStream) -> Generator[av.Packet]:
    """The packets of a stream. Close it before the container is closed: a suspended one leaks what it holds of the file."""
    return cast("Generator[av.Packet]", container.demux(stream))


class SequentialDecode:
    """Every frame of a stream in the order of a sequential decode: an iterable that can be walked once.

    A packet that the decoder refuses is skipped and counted, and decoding goes on, as players do; an unreadable rest of
    the file ends it. packets: read so far. is_cut: the file could not be read to its end. num_errors: packets refused.
    first_error: the decoder's words.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._container = container
        self._stream = stream
        self.packets = PacketLog()
        self.is_cut = False
        self.num_errors = 0
        self.first_error: str | None = None

    def __iter__(self) -> Generator[VideoFrame]:
        with closing(demux(self._container, self._stream)) as packets:
            while True:
                try:
                    packet = next(packets, None)
                except DECODE_ERRORS as error:
                    self._count(error)
                    self.is_cut = True
                    yield from self._decode(None)  # the frames that the decoder still holds
                    return
                if packet is None:
                    return
                self.packets.add(packet)
                beat()
                yield from self._decode(packet)

    def _decode(self, packet: av.Packet | None) -> list[VideoFrame]:
        try:
            return list(self._stream.codec_context.decode(packet))
        except DECODE_ERRORS as error:
            self._count(error)
            return []

    def _count(self, error: BaseException) -> None:
        self.num_errors += 1
        if self.first_error is None:
            self.first_error = f"{type(error).__name__}: {error}"


def num_listed_packets(container: InputContainer, stream: VideoStream) -> int:
    """Packets that the file's own table lists one by one: MP4 and MOV. 0 elsewhere, where a header merely estimates.

    Not ``stream.frames``: an edit list may leave some of those out rightly.
    """
    return len(stream.index_entries) if "mov" in container.format.name.split(",") else 0


class FrameConverter:
    """Turns decoded frames into upright RGB arrays (H, W, 3) uint8, keeping the conversion's set-up between frames.

    gray_range: see ``VideoInfo``; other formats than gray of more than 8 bits are as without it.
    """

    def __init__(self, gray_range: Sequence[int] = ()) -> None:
        self._levels = gray_levels(*gray_range) if gray_range else None
        self._reformatter = VideoReformatter()
        self._rotation: int | None = None
        self._turns = 0
        self._mirrored = False

    def __call__(self, frame: VideoFrame) -> np.ndarray:
        """The frame's pixels, upright; a view where no rotation is needed."""
        if self._levels is not None and is_deep_gray(frame.format.name):
            return self._upright(self._stretched(frame, self._levels), frame)
        # One thread: swscale's automatic choice starts as many as there are cores, for every frame.
        rgb = self._reformatter.reformat(frame, format="rgb24", threads=1)
        plane = rgb.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: rgb.height]
        return self._upright(rows[:, : rgb.width * 3].reshape(rgb.height, rgb.width, 3), frame)

    def _stretched(self, frame: VideoFrame, levels: np.ndarray) -> np.ndarray:
        plane, kind = frame.planes[0], ">u2" if frame.format.name.endswith("be") else "<u2"
        rows = np.frombuffer(memoryview(plane), kind).reshape(-1, plane.line_size // 2)
        return np.repeat(levels[rows[: frame.height, : frame.width]][..., None], 3, axis=2)

    def _upright(self, pixels_HWC: np.ndarray, frame: VideoFrame) -> np.ndarray:
        """Apply the display matrix (rotation by a multiple of 90 degrees, mirroring) that came with the frame."""
        # Not read from every frame: it ties the frame into a reference cycle, and pictures would pile up in memory.
        if frame.rotation != self._rotation:
            self._rotation = frame.rotation
            self._turns, self._mirrored = orientation(frame)
        if self._mirrored:
            pixels_HWC = pixels_HWC[:, ::-1]
        return np.rot90(pixels_HWC, self._turns) if self._turns else pixels_HWC


def is_deep_gray(pixel_format: str | None) -> bool:
    """Whether a pixel format is gray alone, in whole numbers of 9 to 16 bits."""
    return re.fullmatch(r"gray(9|10|12|14|16)(le|be)", pixel_format or "") is not None


def orientation(frame: VideoFrame) -> tuple[int, bool]:
    """Quarter turns counter-clockwise, and whether the frame is mirrored left to right before them."""
    try:
        side = frame.side_data.get(SideData.DISPLAYMATRIX)  # type: ignore[call-overload]
    except ValueError:  # a kind of side data (EXIF) that this PyAV has no name for keeps it from listing any
        return round(frame.rotation / 90) % 4, False
    if side is None:
        return 0, False
    matrix = np.frombuffer(bytes(side), np.int32)[:9].reshape(3, 3)
    return matrix_orientation(matrix[:2, :2])


def matrix_orientation(matrix: np.ndarray) -> tuple[int, bool]:
    """The same for the upper left 2 x 2 of a display matrix: a point (x, y), y down, moves to (x, y) @ matrix."""
    matrix = matrix.astype(np.float64)
    if not matrix.any():
        return 0, False  # damaged headers carry this
    mirrored = bool(np.linalg.det(matrix) < 0)
    if mirrored:
        matrix = np.diag([-1.0, 1.0]) @ matrix
    clockwise = np.degrees(np.arctan2(matrix[0, 1], matrix[0, 0]))  # where the x axis goes, y down
    return int(np.round(-clockwise / 90.0)) % 4, mirrored
