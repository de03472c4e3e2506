"""Videos whose frames carry their own number, so that a wrong frame is seen without trusting any decoder."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from ssvid.video.streams import OPEN_LENIENTLY

HEIGHT, WIDTH, NUM_BARS = 64, 96, 8


def clock_frame(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """HWC uint8: eight vertical bars, bar b is bright where bit b of the number is set. A red patch marks the top left."""
    frame = np.full((height, width, 3), 40, np.uint8)
    bar = width // NUM_BARS
    for b in range(NUM_BARS):
        if number >> b & 1:
            frame[:, b * bar : (b + 1) * bar] = 220
    return frame


def read_clock(frame_CHW: np.ndarray) -> int:
    """The number that a decoded frame shows."""
    gray_HW = np.asarray(frame_CHW).astype(float).mean(0)
    bar = gray_HW.shape[1] // NUM_BARS
    centers = [gray_HW[4:-4, b * bar + 3 : (b + 1) * bar - 3].mean() for b in range(NUM_BARS)]
    return sum(int(value > 130) << b for b, value in enumerate(centers))


def clocks(frames_TCHW: np.ndarray) -> list[int]:
    """The numbers that decoded frames show."""
    return [read_clock(frame) for frame in np.asarray(frames_TCHW)]


def encode(
    path: Path,
    frames: Sequence[np.ndarray],
    codec: str = "libx264",
    *,
    b_frames: int = 0,
    gop: int = 12,
    times: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 25),
    rotation: int = 0,
    matrix: Sequence[int] | None = None,
    container: str | None = None,
    **options: str,
) -> Path:
    """Encode by PyAV, apart from the writer that is under test. ``times`` in units of ``time_base`` make it VFR."""
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=25, options={"g": str(gop), "bf": str(b_frames), **options})
        stream.height, stream.width, stream.pix_fmt = frames[0].shape[0], frames[0].shape[1], "yuv420p"
        context = stream.codec_context
        context.gop_size, context.max_b_frames, context.bit_rate, context.time_base = (
            gop,
            b_frames,
            2_000_000,
            time_base,
        )
        context.thread_count = 3  # else the bytes, and how frames fall into packets, depend on the number of cores
        if rotation:
            stream.set_display_rotation(rotation)
        if matrix:
            stream.set_display_matrix(matrix)
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = (times[number] if times else number), time_base
            output.mux(stream.encode(picture))
        output.mux(stream.encode(None))
    return path


def clock_frames(num_frames: int) -> list[np.ndarray]:
    """The first frames of the clock."""
    return [clock_frame(number) for number in range(num_frames)]


def sequential_oracle(path: Path) -> list[np.ndarray]:
    """Every frame (HWC RGB) in the order in which a plain PyAV loop delivers them, upright."""
    with av.open(str(path), **OPEN_LENIENTLY) as container:
        stream = container.streams.best("video")
        stream.thread_type = "NONE"
        return [
            np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)) for frame in container.decode(stream)
        ]
