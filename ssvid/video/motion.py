"""How much moves at each frame of a video and how the frames look: measured once, for tasks that plan from it.

The *signals* of a video have one row per frame: ``motion``, float32 (T,), the mean length of the optical flow from the
frame before, in fractions of the short side, 0 for the first; ``thumbnails``, uint8 (T, 16, 16, 3). They lie beside one
another as ``<base>.motion.npy`` and ``<base>.thumbnails.npy``.

Flow needs OpenCV, the extra ``motion``; reading what was measured does not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssvid.errors import DecodeError
from ssvid.files import write_atomic
from ssvid.video.flow import short_side_at
from ssvid.video.optical_flow import Dis, one_thread, require_opencv, resized
from ssvid.video.progress import beat

# Shape of one row, and type, of each signal.
SIGNALS: Mapping[str, tuple[tuple[int, ...], str]] = {"motion": ((), "float32"), "thumbnails": ((16, 16, 3), "uint8")}
# Part of the folder's name: raise it with every change of what is measured, or old measurements are believed.
SIGNALS_VERSION = 1
# Short side that frames are brought to before the flow. Flow at twice this side costs four times as much, and a mean
# over the frame does not need it.
FLOW_PX = 112
THUMBNAIL_PX = 16


def measure_signals(path: str | os.PathLike[str], gray_range: Sequence[int] = ()) -> dict[str, np.ndarray]:
    """Decode a video once, in order, and measure its signals; memory grows by 772 bytes a frame.

    Flow is Dense Inverse Search (Kroeger et al., ECCV 2016) with OpenCV's preset FAST, on gray frames whose short side
    is ``FLOW_PX``. Camera motion counts. gray_range: see ``VideoInfo``.

    Returns:
        motion and thumbnails, as this module describes them.

    Raises:
        DecodeError: the file cannot be decoded, or its picture size changes.
        SsvidError: OpenCV is not installed.
    """
    cv2 = require_opencv()
    text = os.path.abspath(os.fspath(path))
    motion, thumbnails = [], []
    with one_thread(cv2):
        flow = _Flow(cv2)
        for pixels_HWC in every_frame(text, gray_range):
            motion.append(flow.mean_length(pixels_HWC))
            thumbnails.append(cv2.resize(pixels_HWC, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA))
    if not motion:
        raise DecodeError(text, "not one frame of it could be decoded")
    return {"motion": np.array(motion, np.float32), "thumbnails": np.stack(thumbnails).astype(np.uint8)}


class _Flow:
    """Flow from each frame to the next of one video."""

    def __init__(self, cv2: Any) -> None:
        self._cv2 = cv2
        self._dis = Dis("FAST")
        self._before: np.ndarray | None = None

    def mean_length(self, pixels_HWC: np.ndarray) -> float:
        """Mean length of the flow from the frame that was given before, in short sides; 0 for the first frame."""
        before, now = self._before, self._small_gray(pixels_HWC)
        self._before = now
        if before is None:
            return 0.0
        flow_HW2 = self._dis(before, now)
        return float(np.hypot(flow_HW2[..., 0], flow_HW2[..., 1]).mean()) / FLOW_PX

    def _small_gray(self, pixels_HWC: np.ndarray) -> np.ndarray:
        height, width = short_side_at(pixels_HWC.shape[0], pixels_HWC.shape[1], FLOW_PX)
        return resized(self._cv2.cvtColor(pixels_HWC, self._cv2.COLOR_RGB2GRAY), height, width)


def every_frame(path: str, gray_range: Sequence[int]) -> Iterator[np.ndarray]:
    """Every frame (H, W, 3) uint8 of a file or folder in the order that defines frame numbers.

    Raises:
        DecodeError: it cannot be decoded, or its picture size changes.
    """
    if os.path.isdir(path):
        yield from _pictures(path, gray_range)
        return
    from ssvid.video.decoders.contract import checked_path
    from ssvid.video.streams import FrameConverter, SequentialDecode, open_stream

    convert, shape = FrameConverter(gray_range), None
    with open_stream(checked_path(path)) as (container, stream):
        for number, frame in enumerate(SequentialDecode(container, stream)):
            pixels_HWC = np.ascontiguousarray(convert(frame))
            if shape not in (None, pixels_HWC.shape):
                raise DecodeError(path, f"the picture size changes in mid-stream, at frame {number}")
            shape = pixels_HWC.shape
            yield pixels_HWC


def _pictures(folder: str, gray_range: Sequence[int]) -> Iterator[np.ndarray]:
    from ssvid.video.decoders.pictures import read_picture, size_problem
    from ssvid.video.frame_folders import list_frames
    from ssvid.video.values import gray_levels

    names, first = list_frames(folder).names, None
    levels = gray_levels(*gray_range) if gray_range else None
    for name in names:
        pixels_HWC = read_picture(os.path.join(folder, name), levels).pixels_HWC
        beat()
        if first is not None and pixels_HWC.shape != first:
            raise DecodeError(folder, size_problem(name, pixels_HWC, names[0], first))
        first = pixels_HWC.shape
        yield np.ascontiguousarray(pixels_HWC)


# ---- on disk ---------------------------------------------------------------------------------------------------------


def signal_file(base: str | os.PathLike[str], name: str) -> Path:
    """Where a signal of a video lies."""
    return Path(f"{os.fspath(base)}.{name}.npy")


def write_signals(base: str | os.PathLike[str], signals: Mapping[str, np.ndarray]) -> None:
    """Write each signal to its file; an existing file is replaced as a whole."""
    for name, values in signals.items():
        write_atomic(signal_file(base, name), lambda file, values=values: np.save(file, values))  # type: ignore[misc]


def read_signal(base: str | os.PathLike[str], name: str, num_frames: int) -> np.ndarray:
    """A signal of a video of ``num_frames`` frames, mapped from its file: only rows that are used are read.

    Raises:
        FileNotFoundError: it was not measured.
        ValueError: the file holds something else; the text says what.
    """
    values: np.ndarray = np.load(signal_file(base, name), mmap_mode="r", allow_pickle=False)
    row, kind = SIGNALS[name]
    if values.shape != (num_frames, *row) or values.dtype != kind:
        raise ValueError(
            f"it holds {values.dtype} {values.shape}, and {num_frames} frames have {kind} {(num_frames, *row)}"
        )
    return values
