"""What a file holds, learned by decoding all of it, and which decoders deliver its frames rightly."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
from av.video.frame import PictureType
from av.video.stream import VideoStream

from ssvid.errors import DecodeError
from ssvid.types import VideoInfo
from ssvid.video.decoders import DECODERS_BY_SPEED, create_reader, decoder_status, resolve_decoder
from ssvid.video.pyav_reader import (
    FrameConverter,
    PacketTable,
    SequentialDecode,
    keep_packet_table,
    num_listed_packets,
    open_stream,
    table_of,
)
from ssvid.video.reader import checked_path

if TYPE_CHECKING:
    from torch import Tensor

# Above this share of damaged or missing frames a file counts as unreadable. Below it the damage is noted, and only
# PyAV's sequential decode, which defines the frames, is trusted with the file.
MAX_DAMAGED_FRACTION = 0.05

# How far a decoder's frame may be from PyAV's, in mean absolute difference of 8-bit RGB. FFmpeg 4.1, 5.1 and 8.1 round
# MPEG-4 differently in a few pixels (at most 0.0006 on UCF101), and interpolate color differently for odd sizes (1.0).
SAME_WITHIN = 0.002
# Above that, a frame is right only if it is much nearer to PyAV's than the neighboring frames are: not shifted by one.
MAX_ROUNDING = 1.0
MAX_SHARE_OF_MOTION = 0.25

_CONTENT_BLOCK = 64 * 1024


@dataclass(frozen=True)
class VideoScan:
    """What a scan found.

    info: of the whole file. decoders_ok: the decoders that delivered the compared frames rightly, fastest first; "pyav"
    among them means that its random access is proved. Empty for a damaged file, which PyAV then decodes from its start.
    has_b_frames: frames are stored in another order than shown. notes: what else is worth knowing, by subject.
    """

    info: VideoInfo
    decoders_ok: tuple[str, ...]
    has_b_frames: bool
    notes: Mapping[str, str] = field(default_factory=dict)


def content_id(path: str | os.PathLike[str]) -> str:
    """The identity of a video's content: SHA-256 of its size and its first and last 64 KiB, 32 hex characters.

    The same for every copy, and read in constant time however long the video is.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(size.to_bytes(8, "little"))
        digest.update(file.read(_CONTENT_BLOCK))
        file.seek(max(size - _CONTENT_BLOCK, 0))
        digest.update(file.read(_CONTENT_BLOCK))
    return digest.hexdigest()[:32]


def scan_video(path: str | os.PathLike[str], decoders: Sequence[str] | None = None) -> VideoScan:
    """Decode a whole file once, and compare the decoders with what came out.

    Nothing is taken from the header that decoding can tell. Memory stays flat: a handful of frames are kept.

    Args:
        path: the file.
        decoders: the decoders to compare. None: all that work here. Empty: none.

    Returns:
        ``info.fps`` and ``info.variable_fps`` as ``measure_fps`` finds them from the decoded time stamps.

    Raises:
        DecodeError: the file is no video, holds a still image or no frame, changes its picture size in mid-stream, or
            more than ``MAX_DAMAGED_FRACTION`` of its frames are damaged or missing.
        SsvidError: a decoder is unknown or does not work here.
    """
    text = checked_path(path)
    survey = _Survey(text)
    survey.run()
    notes = dict(survey.notes)
    asked = None if decoders is None else {resolve_decoder(name) for name in decoders}
    names = [n for n in DECODERS_BY_SPEED if (decoder_status(n).works if asked is None else n in asked)]
    decoders_ok = () if survey.num_damaged else _compare_decoders(survey, names, notes)
    return VideoScan(survey.info, decoders_ok, survey.has_b_frames, notes)


class _Survey:
    """One sequential decode of a file, and all that it teaches."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.pts: list[int | None] = []
        self.has_b_frames = False
        self.num_damaged = 0
        self.notes: dict[str, str] = {}
        self.witnesses = WitnessKeeper()
        self.info: VideoInfo
        self.table: PacketTable | None = None

    def run(self) -> None:
        """Decode, then judge and sum up."""
        with open_stream(self.path) as (container, stream):
            decode = SequentialDecode(container, stream)
            shape = self._watch(decode)
            if shape is None:
                raise DecodeError(self.path, "not one frame of it could be decoded", decode.first_error)
            self._judge_damage(decode, num_listed_packets(container, stream))
            self._note_header(stream)
            self.info = self._sum_up(stream, shape)
            # Made from the same reading, so that PyAV's reader need not walk through the packets once more.
            self.table = None if decode.is_cut else table_of(container, stream, decode.packets)
            keep_packet_table(self.path, self.table)

    @property
    def times_in_order(self) -> bool:
        """Whether every frame carries a time stamp, and each is later than the one before it."""
        times = [t for t in self.pts if t is not None]
        return len(times) == len(self.pts) and bool((np.diff(times) > 0).all())

    def _watch(self, decode: SequentialDecode) -> tuple[int, int] | None:
        convert, shape = FrameConverter(), None
        for frame in decode:
            pixels = convert(frame)
            height, width = pixels.shape[:2]
            if shape is not None and (height, width) != shape:
                before = f"from {shape[1]} x {shape[0]} to {width} x {height} pixels"
                raise DecodeError(
                    self.path, f"the picture size changes in mid-stream, at frame {len(self.pts)}, {before}"
                )
            shape = (height, width)
            self.pts.append(frame.pts)
            self.has_b_frames |= frame.pict_type == PictureType.B
            self.num_damaged += bool(frame.is_corrupt)
            self.witnesses.add(pixels)
        return shape

    def _judge_damage(self, decode: SequentialDecode, num_listed: int) -> None:
        num_missing = max(num_listed - len(decode.packets), 0)
        self.num_damaged += decode.num_errors + num_missing
        if not self.num_damaged:
            return
        total = len(self.pts) + decode.num_errors + num_missing
        what = f"{self.num_damaged} of {total} frames are damaged or missing"
        if self.num_damaged > MAX_DAMAGED_FRACTION * total:
            limit = f"at most {MAX_DAMAGED_FRACTION:.0%} may be"
            raise DecodeError(self.path, f"{what}; {limit}", decode.first_error)
        self.notes["damage"] = what + (f" ({decode.first_error})" if decode.first_error else "")

    def _note_header(self, stream: VideoStream) -> None:
        if stream.frames and stream.frames != len(self.pts):
            self.notes["header"] = f"promises {stream.frames} frames, decoding delivers {len(self.pts)}"

    def _sum_up(self, stream: VideoStream, shape: tuple[int, int]) -> VideoInfo:
        rate = stream.average_rate or stream.guessed_rate
        fps, variable, note = measure_fps(self.pts, stream.time_base or Fraction(1), rate)
        if note:
            self.notes["fps"] = note
        return VideoInfo(self.path, len(self.pts), fps, *shape, variable_fps=variable)


def measure_fps(
    pts: Sequence[int | None], time_base: Fraction, header_rate: Fraction | None
) -> tuple[float, bool, str | None]:
    """Frames per second from the decoded time stamps.

    Args:
        pts: of every frame, in any order; None where a frame has none.
        time_base: seconds per unit of pts.
        header_rate: what the header says, taken only where the time stamps say nothing.

    Returns:
        fps: of the intervals that are within a tenth (or a unit of the clock) of their median, the mean, so that neither
        a dropped frame nor time stamps rounded to milliseconds matter; of all intervals, where the rate varies.
        Whether it varies: more than 1 % of the intervals, and more than one, are not within that.
        A note, where fps is not measured.
    """
    times = np.unique([t for t in pts if t is not None])
    if len(times) < 2 or len(times) < len(pts):
        source = f"{header_rate}" if header_rate else "absent, 25 assumed"
        return float(header_rate or 25), False, f"from the header ({source}): too few time stamps"
    intervals = np.diff(times)
    median = float(np.median(intervals))
    # One unit is the rounding of the container's clock, unless a frame itself lasts hardly longer than that.
    regular = np.abs(intervals - median) <= max(0.1 * median, min(1.0, 0.4 * median))
    num_odd = int((~regular).sum())
    variable = num_odd > max(0.01 * len(intervals), 1)
    return 1 / float((intervals if variable else intervals[regular]).mean() * time_base), variable, None


@dataclass(frozen=True)
class Witness:
    """A frame that tells a right decoder from one that is off by one: it differs from both its neighbors.

    pixels: (H, W, 3) uint8. motion: the smaller of its distances to the frame before and the frame after.
    """

    index: int
    pixels: np.ndarray
    motion: float


def distance(a_HWC: np.ndarray, b_HWC: np.ndarray) -> float:
    """Mean absolute difference of two uint8 pictures."""
    return float((np.maximum(a_HWC, b_HWC) - np.minimum(a_HWC, b_HWC)).mean())


class WitnessKeeper:
    """Finds the frame with the most motion in each stretch of a video, in one pass, not knowing how long the video is.

    Memory stays flat: at most eight frames are kept.
    """

    _MAX_STRETCHES = 8

    def __init__(self) -> None:
        self._count = 0
        self._length = 1  # frames in a stretch: doubled whenever there are too many stretches
        self._best: list[Witness] = []
        self._last: np.ndarray | None = None
        self._distance_before = math.inf

    def add(self, pixels_HWC: np.ndarray) -> None:
        """Take the next frame of the video."""
        if self._last is not None:
            moved = distance(pixels_HWC[::4], self._last[::4])  # every fourth row: this is done for every frame
            self._offer(Witness(self._count - 1, self._last, min(self._distance_before, moved)))
            self._distance_before = moved
        self._last = pixels_HWC
        self._count += 1

    def _offer(self, witness: Witness) -> None:
        stretch = witness.index // self._length
        if stretch == self._MAX_STRETCHES:
            pairs = zip(self._best[::2], self._best[1::2], strict=True)
            self._best = [max(pair, key=lambda w: w.motion) for pair in pairs]
            self._length *= 2
            stretch = witness.index // self._length
        if stretch == len(self._best):
            self._best.append(witness)
        elif witness.motion > self._best[stretch].motion:
            self._best[stretch] = witness

    def chosen(self) -> list[Witness]:
        """One witness each from the start, the middle and the end of the video, and its very last frame."""
        if self._last is None:
            return []
        last = Witness(self._count - 1, self._last, self._distance_before)
        if not self._best:
            return [last]
        middle = len(self._best) // 2
        return [*(self._best[i] for i in sorted({0, middle, len(self._best) - 1})), last]


def _compare_decoders(survey: _Survey, names: Sequence[str], notes: dict[str, str]) -> tuple[str, ...]:
    """The decoders that deliver the witnesses rightly; what is wrong with the others goes into the notes."""
    right = []
    for name in names:
        problem = _random_access_problem(survey) if name == "pyav" else None
        problem = problem or _witness_problem(name, survey)
        if problem is None and name != "pyav" and not survey.times_in_order:
            # decord was right for the witnesses of 15 of 19 such files of UCF101, and wrong elsewhere in some of them.
            problem = "right for the frames compared, but the time stamps by which it finds frames are out of order"
        if problem is None:
            right.append(name)
        else:
            notes[name] = problem
    return tuple(right)


def _random_access_problem(survey: _Survey) -> str | None:
    """The packets must predict the decoded frames one by one, wherever PyAV's random access would rely on them."""
    table = survey.table
    if table is None or len(table.shown_pts) != len(survey.pts):
        return None  # PyAV's reader does not seek in such a file
    if table.needs_no_b_frames and survey.has_b_frames:
        return "B-frames in a file whose packets carry no presentation times"
    return None if np.array_equal(table.shown_pts, np.array(survey.pts, object)) else "packet times are not frame times"


def _witness_problem(name: str, survey: _Survey) -> str | None:
    """What is wrong with this decoder's frames, or None."""
    witnesses = survey.witnesses.chosen()
    # Backwards, so that each read must seek; then together, as clips are read.
    reads = [witnesses[-1:], witnesses[-2:-1], witnesses] if len(witnesses) > 1 else [witnesses]
    try:
        with create_reader(name, survey.path, survey.info) as reader:
            for read in reads:
                frames_TCHW = reader.frames_at(np.array([witness.index for witness in read]))
                problem = next(filter(None, map(_difference, read, frames_TCHW)), None)
                if problem:
                    return problem
    except DecodeError as error:
        return f"{error.what} ({error.cause})" if error.cause else error.what
    return None


def _difference(witness: Witness, frame_CHW: Tensor) -> str | None:
    apart = distance(frame_CHW.permute(1, 2, 0).numpy(), witness.pixels)
    if apart <= max(SAME_WITHIN, min(MAX_ROUNDING, MAX_SHARE_OF_MOTION * witness.motion)):
        return None
    return f"frame {witness.index} differs by {apart:.2f}, its neighbors by {witness.motion:.2f} (mean of 8-bit RGB)"
