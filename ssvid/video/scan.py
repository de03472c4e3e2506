"""What a file holds, learned by decoding all of it, and which decoders deliver its frames rightly."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, cast

import av
import numpy as np
from av.container import InputContainer
from av.format import Flags as ContainerFlags
from av.video.frame import PictureType
from av.video.stream import VideoStream

from ssvid.errors import DecodeError
from ssvid.types import VideoInfo
from ssvid.video.decoders.choice import DECODERS_BY_SPEED, create_reader, decoder_status, resolve_decoder
from ssvid.video.decoders.contract import checked_path
from ssvid.video.frame_folders import PICTURES, PICTURES_FPS
from ssvid.video.packets import UNKNOWN, PacketLog
from ssvid.video.progress import beat
from ssvid.video.random_access import PacketTable, keep_packet_table, read_packets, table_of
from ssvid.video.scan_pictures import survey_pictures
from ssvid.video.streams import FrameConverter, SequentialDecode, is_deep_gray, num_listed_packets, open_stream
from ssvid.video.times import FrameTimes, evenly_spaced, frame_times, long_last_frame
from ssvid.video.values import ValueRange

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

# Where even spacing puts a frame and where it is shown may differ by so many intervals: a dropped frame is no pause.
MAX_DRIFT = 1.5
# Shorter files are decoded from their start as fast as a clip is found elsewhere.
LONG_FRAMES = 250
# A decoder that needs so many times as long as PyAV's decode of the whole file for one read hangs.
_SLOWEST_DECODER = 4.0


@dataclass(frozen=True)
class VideoScan:
    """What a scan found.

    info: of the whole file. decoders_ok: the decoders that delivered the compared frames rightly, fastest first; "pyav"
    among them means that its random access is proved. Empty for a damaged file, which PyAV then decodes from its start.
    has_b_frames: frames are stored in another order than shown. notes: what else is worth knowing, by subject. times: of
    all frames; None where the file does not tell them, and ``info.fps`` is all there is.
    """

    info: VideoInfo
    decoders_ok: tuple[str, ...]
    has_b_frames: bool
    notes: Mapping[str, str] = field(default_factory=dict)
    times: FrameTimes | None = None


def scan_video(
    path: str | os.PathLike[str],
    decoders: Sequence[str] | None = None,
    *,
    gray_range: Sequence[int] = (),
    fps: float = PICTURES_FPS,
) -> VideoScan:
    """Decode a whole file once, and compare the decoders with what came out; or read every picture of a folder.

    Nothing is taken from the header that decoding can tell. Memory stays flat: a handful of frames are kept.

    Args:
        path: the file, or a folder of pictures.
        decoders: the decoders to compare. None: all that work here. Empty: none. No matter to a folder.
        gray_range: see ``VideoInfo``; ``info`` has it only where the file is gray of more than 8 bits.
        fps: frames per second of a folder, whose pictures do not tell it; files tell their own.

    Returns:
        ``info.fps`` and ``info.variable_fps`` as ``measure_fps`` finds them from the decoded time stamps.

    Raises:
        DecodeError: the file is no video, holds a still image or no frame, changes its picture size in mid-stream, or
            more than ``MAX_DAMAGED_FRACTION`` of its frames are damaged or missing. Of a folder: it holds no two
            pictures, or one of them is damaged or of another size.
        SsvidError: a decoder is unknown or does not work here.
    """
    if os.path.isdir(path):
        found, told = survey_pictures(path, fps, gray_range)
        return VideoScan(found, (PICTURES,), False, told, evenly_spaced(found.num_frames, fps))
    text = checked_path(path)
    survey = _Survey(text, tuple(gray_range))
    survey.run()
    notes = dict(survey.notes)
    asked = None if decoders is None else {resolve_decoder(name) for name in decoders}
    names = [n for n in DECODERS_BY_SPEED if (decoder_status(n).works if asked is None else n in asked)]
    decoders_ok = () if survey.num_damaged else _compare_decoders(survey, names, notes)
    _note_access(survey, decoders_ok, notes)
    return VideoScan(survey.info, decoders_ok, survey.has_b_frames, notes, survey.times)


class _Survey:
    """One sequential decode of a file, and all that it teaches."""

    def __init__(self, path: str, gray_range: tuple[int, ...]) -> None:
        self.path, self.gray_range = path, gray_range
        self.pts: list[int | None] = []
        self.has_b_frames = False
        self.num_damaged = 0
        self.notes: dict[str, str] = {}
        self.witnesses = WitnessKeeper()
        self.info: VideoInfo
        self.table: PacketTable | None = None
        self.packets: PacketLog
        self.container: list[str] = []
        self.times: FrameTimes | None = None
        self.value_range = ValueRange()
        self.last_duration = 0
        self.num_spoiled = 0
        self.seconds = 0.0

    def run(self) -> None:
        """Decode, then judge and sum up."""
        started = time.monotonic()
        with open_stream(self.path) as (container, stream):
            decode = SequentialDecode(container, stream)
            shape = self._watch(decode)
            self.gray_range = self.gray_range if is_deep_gray(stream.codec_context.pix_fmt) else ()
            if shape is None:
                raise DecodeError(self.path, "not one frame of it could be decoded", decode.first_error)
            self._judge_damage(decode, num_listed_packets(container, stream))
            if stream.frames not in (0, len(self.pts)):
                self.notes["header"] = f"promises {stream.frames} frames, decoding delivers {len(self.pts)}"
            self._note_range(stream)
            unit = stream.time_base or Fraction(1)
            self.times = frame_times(self.pts, self.last_duration, unit, _time_zero(container, unit))
            self.info = self._sum_up(stream, shape)
            # Made from the same reading, so that PyAV's reader need not walk through the packets once more.
            self.table = None if decode.is_cut else table_of(stream, decode.packets)
            keep_packet_table(self.path, self.table)
            self.packets = decode.packets
            self.container = container.format.name.split(",")
        self.seconds = time.monotonic() - started

    @property
    def times_in_order(self) -> bool:
        """Whether every frame carries a time stamp, and each is later than the one before it."""
        times = [t for t in self.pts if t is not None]
        return len(times) == len(self.pts) and bool((np.diff(times) > 0).all())

    def _watch(self, decode: SequentialDecode) -> tuple[int, int] | None:
        convert, shape, is_spoiled = FrameConverter(self.gray_range), None, False
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
            self.last_duration = frame.duration or 0
            self.has_b_frames |= frame.pict_type == PictureType.B
            # What is predicted from a damaged frame is not right either, until a key frame begins afresh.
            is_spoiled = not frame.key_frame and (is_spoiled or bool(frame.is_corrupt))
            self.num_spoiled += is_spoiled and not frame.is_corrupt
            self.num_damaged += bool(frame.is_corrupt)
            self.witnesses.add(pixels)
            self.value_range.add(pixels)
            beat()
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
        what += f", {self.num_spoiled} are predicted from such" if self.num_spoiled else ""
        self.notes["damage"] = what + (f" ({decode.first_error})" if decode.first_error else "")

    def _note_range(self, stream: VideoStream) -> None:
        format = stream.codec_context.format
        bits = format.components[0].bits if format and format.components else 8
        is_deep = is_deep_gray(stream.codec_context.pix_fmt)
        if note := self.value_range.note(bits, is_deep_gray=is_deep, is_stretched=bool(self.gray_range)):
            self.notes["range"] = note

    def _sum_up(self, stream: VideoStream, shape: tuple[int, int]) -> VideoInfo:
        rate = stream.average_rate or stream.guessed_rate
        unit = stream.time_base or Fraction(1)
        fps, variable, note = measure_fps(self.pts, unit, rate, self.last_duration)
        if note:
            self.notes["fps"] = note
        told = [_intervals_text(self.pts, self.last_duration, unit)] if variable and not note else []
        if self.times and self.times.seconds[0] > MAX_DRIFT * self.times.usual_interval:
            told.append(f"the first frame begins at {self.times.seconds[0]:.6g} s")
        if told:
            self.notes["time"] = ", ".join(told)
        return VideoInfo(self.path, len(self.pts), fps, *shape, variable_fps=variable, gray_range=self.gray_range)


def _time_zero(container: InputContainer, unit: Fraction) -> int:
    """Where the time line of a container begins, in units of ``unit`` seconds: its first time stamp, where its clock is free."""
    is_free = container.format.flags & cast(int, ContainerFlags.ts_discont.value)
    if not is_free or container.start_time is None:
        return 0
    return round(Fraction(container.start_time, av.time_base) / unit)


def measure_fps(
    pts: Sequence[int | None], time_base: Fraction, header_rate: Fraction | None, last_duration: int = 0
) -> tuple[float, bool, str | None]:
    """Frames per second from the decoded time stamps.

    Args:
        pts: of every frame, in any order; None where a frame has none.
        time_base: seconds per unit of pts.
        header_rate: what the header says, taken only where the time stamps say nothing.
        last_duration: how long the last frame stays, in units; 0 where that is unknown.

    Returns:
        fps: of the intervals that are within a tenth (or a unit of the clock) of their median, the mean, so that neither
        a dropped frame nor time stamps rounded to milliseconds matter; of all intervals, where the rate varies.
        Whether it varies: more than 1 % of the intervals, and more than one, are not within that; or a frame is shown
        more than ``MAX_DRIFT`` intervals away from where even spacing would put it, as after a pause.
        A note, where fps is not measured.
    """
    times = np.unique([t for t in pts if t is not None])
    if len(times) < 2 or len(times) < len(pts):
        source = f"{header_rate}" if header_rate else "absent, 25 assumed"
        return float(header_rate or 25), False, f"from the header ({source}): too few time stamps"
    intervals = _intervals(times, last_duration)
    median = float(np.median(intervals))
    # One unit is the rounding of the container's clock, unless a frame itself lasts hardly longer than that.
    regular = np.abs(intervals - median) <= max(0.1 * median, min(1.0, 0.4 * median))
    num_odd = int((~regular).sum())
    drift = np.abs(np.cumsum(intervals - intervals[regular].mean())).max()
    variable = num_odd > max(0.01 * len(intervals), 1) or bool(drift > MAX_DRIFT * median)
    return 1 / float((intervals if variable else intervals[regular]).mean() * time_base), variable, None


def _intervals(times: np.ndarray, last_duration: int) -> np.ndarray:
    stays = long_last_frame(times, last_duration)
    return np.append(np.diff(times), [stays] if stays else []).astype(np.int64)


def _intervals_text(pts: Sequence[int | None], last_duration: int, unit: Fraction) -> str:
    times = np.unique([t for t in pts if t is not None])
    intervals = _intervals(times, last_duration)
    longest = int(intervals.argmax())
    after = float((times[longest] - times[0]) * unit)
    low, high = (float(value * unit) for value in (intervals.min(), intervals.max()))
    return f"frames stay {low:.3g} to {high:.3g} s, the longest begins {after:.6g} s after the first"


def read_times(path: str | os.PathLike[str], num_frames: int) -> FrameTimes | None:
    """The times of a file's frames, from its packets alone; None where those do not tell them, as pictures do not.

    Raises:
        DecodeError: it cannot be opened.
    """
    if os.path.isdir(path):
        return None
    text = checked_path(path)
    with open_stream(text) as (container, stream):
        packets = read_packets(container, stream)
        pts = packets.pts[~packets.is_discard] if packets else np.array([])
        if len(pts) != num_frames or (pts == UNKNOWN).any():
            return None
        unit = stream.time_base or Fraction(1)
        return frame_times(np.sort(pts).tolist(), 0, unit, _time_zero(container, unit))


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
    apart = np.maximum(a_HWC, b_HWC) - np.minimum(a_HWC, b_HWC)
    # Three times as fast as mean(), and the same number: 2^24 values of a byte sum up to less than 2^32.
    return float(apart.sum(dtype=np.uint32 if apart.size < 2**24 else np.uint64) / apart.size)


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
        if problem is None and name != "pyav" and (doubt := _seek_problem(name, survey)):
            problem = f"right for the frames compared, but {doubt}"
        if problem is None:
            right.append(name)
        else:
            notes[name] = problem
    return tuple(right)


def _seek_problem(name: str, survey: _Survey) -> str | None:
    """Why a decoder that finds frames by the packets' times alone may be wrong in places that were not compared."""
    if not survey.times_in_order:
        # decord was right for the witnesses of 15 of 19 such files of UCF101, and wrong elsewhere in some of them.
        return "the time stamps by which it finds frames are out of order"
    if survey.has_b_frames and not survey.packets.is_reordered:
        return "the packets of a file with B-frames do not carry presentation times"
    if survey.packets.has_leading:
        return "some frames are stored after the key frame before which they are shown (an open group of pictures)"
    if name == "decord" and "asf" in survey.container:
        # It lands 12 frames early at some key frames of an ASF file (WMV), and does not notice.
        return "it seeks only roughly in this container"
    return None


def _note_access(survey: _Survey, decoders_ok: Sequence[str], notes: dict[str, str]) -> None:
    """Say what a clip costs where the decoder that ``auto`` takes must begin at the start of the file for each."""
    is_proved = not survey.num_damaged and _table_fits(survey) and _random_access_problem(survey) is None
    if is_proved or decoders_ok[:1] not in ((), ("pyav",)) or len(survey.pts) < LONG_FRAMES:
        return
    notes["access"] = (
        f"every clip is decoded from the start of the file, {len(survey.pts) // 2} frames on average. Encode a copy with "
        "key frames: ffmpeg -i IN -c:v libx264 -crf 18 -g 50 OUT.mp4"
    )


def _table_fits(survey: _Survey) -> bool:
    return survey.table is not None and len(survey.table.shown_pts) == len(survey.pts)


def _random_access_problem(survey: _Survey) -> str | None:
    """The packets must predict the decoded frames one by one, wherever PyAV's random access would rely on them."""
    table = survey.table
    if table is None or not _table_fits(survey):
        return None  # PyAV's reader does not seek in such a file
    return None if table.predicts(survey.pts) else "packet times are not frame times"


def _witness_problem(name: str, survey: _Survey) -> str | None:
    """What is wrong with this decoder's frames, or None."""
    witnesses = survey.witnesses.chosen()
    # Backwards, so that each read must seek; then together, as clips are read.
    reads = [witnesses[-1:], witnesses[-2:-1], witnesses] if len(witnesses) > 1 else [witnesses]
    # Other decoders give no sign of life; to open and to read takes at most as long as decoding all of it, by any of them.
    quiet_seconds = 0.0 if name == "pyav" else _SLOWEST_DECODER * survey.seconds
    try:
        beat(quiet_seconds)
        with create_reader(name, survey.path, survey.info) as reader:
            for read in reads:
                beat(quiet_seconds)
                frames_TCHW = reader.frames_at(np.array([witness.index for witness in read]))
                problem = next(filter(None, map(_difference, read, frames_TCHW)), None)
                if problem:
                    return problem
    except DecodeError as error:
        return error.reason
    return None


def _difference(witness: Witness, frame_CHW: Tensor) -> str | None:
    apart = distance(frame_CHW.permute(1, 2, 0).numpy(), witness.pixels)
    if apart <= max(SAME_WITHIN, min(MAX_ROUNDING, MAX_SHARE_OF_MOTION * witness.motion)):
        return None
    return f"frame {witness.index} differs by {apart:.2f}, its neighbors by {witness.motion:.2f} (mean of 8-bit RGB)"
