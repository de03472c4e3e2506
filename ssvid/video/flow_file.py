"""Flow that was measured once, as a file that is read frame by frame like a video of two channels.

Frame i of a flow file is the motion from frame i of the video to frame i + 1; the last one repeats the one before, so that
a video has as many frames of flow as frames, and all that counts frames holds for both. A single frame has no motion. Symmetric
flow is the mean of the motion to frame i + 1 and the opposite of that to frame i - 1; the first and the last have one of them.

The file is a Matroska video of FFV1, which loses nothing and codes every frame by itself: one gray picture 2H x W a frame,
u above v, with the levels of ``ssvid.video.flow``.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import av
import numpy as np

from ssvid.errors import DecodeError
from ssvid.files import write_atomic
from ssvid.types import FLOW_CHANNELS, VideoInfo
from ssvid.video.decoders.contract import VideoReader
from ssvid.video.flow import FlowSettings, centered, to_levels
from ssvid.video.motion import every_frame
from ssvid.video.optical_flow import estimator, resized
from ssvid.video.progress import beat

_HEAD = "SSVID_FLOW"  # the tag of the file that holds its settings
_MEASURE_AGAIN = "Measure it again with: ssvid data flow ROOT --no-cache"


# ---- files


def write_flow(path: Path, flows_HW2: Iterable[np.ndarray], settings: FlowSettings, num_frames: int) -> None:
    """Write frames of flow, one after the other.

    Args:
        flows_HW2: motion in pixels, one for each frame of the video. num_frames: how many these are.

    Raises:
        DecodeError: there are more frames or fewer; nothing is written.
    """
    head = {"measurement": settings.measurement, "num_frames": num_frames}

    def write(file: IO[bytes]) -> None:
        with av.open(file, "w", format="matroska") as container:  # type: ignore[call-overload]
            container.metadata[_HEAD] = json.dumps(head)
            found = _encode(container, (to_levels(flow_HW2, settings.most_px) for flow_HW2 in flows_HW2))
        if found != num_frames:
            raise DecodeError(str(path), f"{found} frames were decoded, the table says {num_frames}")

    write_atomic(path, write)


def _encode(container: Any, levels: Iterable[np.ndarray]) -> int:
    """Write frames of flow into an open file; how many there were."""
    stream, count = None, 0
    for levels_HW2 in levels:
        picture = np.ascontiguousarray(levels_HW2.transpose(2, 0, 1)).reshape(-1, levels_HW2.shape[1])
        if stream is None:
            stream = container.add_stream("ffv1", rate=25, options={"level": "3", "g": "1", "slicecrc": "1"})
            stream.height, stream.width, stream.pix_fmt = *picture.shape, "gray"
            stream.codec_context.thread_count = 1
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="gray")))
        count += 1
    if stream is not None:
        container.mux(stream.encode())
    return count


class FlowReader(VideoReader):
    """Measured flow as a video of two channels, u and v.

    Args:
        path: the file. info: of the flow: its size, and as many frames as the video has. settings: it was measured with.

    Raises:
        DecodeError: there is no such file, it is damaged, or holds something else.
    """

    def __init__(self, path: str | os.PathLike[str], info: VideoInfo, settings: FlowSettings) -> None:
        super().__init__(path, info)
        self._settings = settings
        self._container = _opened(self.path)
        head = _head_of(self._container)
        expected = {"measurement": settings.measurement, "num_frames": info.num_frames}
        if head != expected:
            self.close()
            raise DecodeError(self.path, f"it holds {head}, and {expected} is asked for. {_MEASURE_AGAIN}")

    def _decode_sorted(self, indices: np.ndarray) -> Generator[tuple[int, np.ndarray]]:
        if self._container is None:
            raise DecodeError(self.path, "the reader is closed")
        height, width = self.info.height, self.info.width
        for place, picture in enumerate(_pictures_at(self._container, indices.tolist(), self.path)):
            beat()
            levels_HW2 = picture.reshape(FLOW_CHANNELS, height, width).transpose(1, 2, 0)
            yield place, centered(levels_HW2) if self._settings.subtract_mean else levels_HW2

    def close(self) -> None:
        """Give the file back."""
        if self._container is not None:
            self._container.close()
        self._container = None


def _opened(path: str) -> Any:
    try:
        return av.open(path)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DecodeError(path, f"this is no measured flow. {_MEASURE_AGAIN}", error) from error


def _head_of(container: Any) -> dict[str, Any]:
    try:
        head = json.loads(container.metadata.get(_HEAD, "{}"))
    except json.JSONDecodeError:
        return {}
    return head if isinstance(head, dict) else {}


def _pictures_at(container: Any, indices: Sequence[int], path: str) -> Iterator[np.ndarray]:
    """The gray pictures of these numbers, ascending. Each frame is coded by itself: the others are read and not decoded."""
    wanted, number = iter(indices), -1
    index = next(wanted, math.inf)
    try:
        container.seek(0)
        for packet in container.demux(video=0):
            number += 1
            if number < index or not packet.size:
                continue
            (frame,) = packet.decode()
            yield frame.to_ndarray(format="gray")
            index = next(wanted, math.inf)
            if index == math.inf:
                return
    except (av.FFmpegError, OSError, ValueError) as error:
        raise DecodeError(path, f"frame {number} of the measured flow is damaged. {_MEASURE_AGAIN}", error) from error
    raise DecodeError(path, f"the measured flow ends before frame {index}. {_MEASURE_AGAIN}")


# ---- measuring


def measure_flow(path: str, to: Path, settings: FlowSettings, num_frames: int, gray_range: Sequence[int] = ()) -> None:
    """Decode a video once, in order, measure the flow between neighboring frames, and write it. Two frames are in memory.

    Raises:
        DecodeError: it cannot be decoded, or has another number of frames than the table says.
        SsvidError: OpenCV, or the weights of the method's network, are not there.
    """
    write_flow(to, _flows(path, settings, gray_range), settings, num_frames)


def _flows(path: str, settings: FlowSettings, gray_range: Sequence[int]) -> Iterator[np.ndarray]:
    """Motion in pixels of each frame of a video, as the settings have it; zeros where there is a single frame."""
    estimate, before, last_HW2 = estimator(settings.method), None, None
    for frame_HWC in every_frame(path, gray_range):
        small_HWC = resized(frame_HWC, *settings.size_of(*frame_HWC.shape[:2]))
        if before is not None:
            next_HW2 = estimate(before, small_HWC)
            yield next_HW2 if last_HW2 is None or not settings.symmetric else (last_HW2 + next_HW2) / 2
            last_HW2 = -estimate(small_HWC, before) if settings.symmetric else next_HW2
            beat()
        before = small_HWC
    if before is not None:
        yield np.zeros((*before.shape[:2], FLOW_CHANNELS), np.float32) if last_HW2 is None else last_HW2
