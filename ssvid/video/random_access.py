"""Exact random access by PyAV.

A sequential decode of the whole file is right by definition. Random access is a short cut that is taken only where it
provably delivers the same frames (``PacketTable``), and that is checked frame by frame while it runs; at the first
surprise the file is decoded from the start instead.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ssvid.errors import DecodeError
from ssvid.types import VideoInfo
from ssvid.video.decoders.contract import VideoReader
from ssvid.video.packets import UNKNOWN, PacketLog
from ssvid.video.progress import beat
from ssvid.video.streams import DECODE_ERRORS, FrameConverter, SequentialDecode, demux, open_stream

# Random access is tried for these codecs alone: a key frame of theirs starts afresh.
_SEEKABLE_CODECS = frozenset({
    "h264", "hevc", "av1", "vp8", "vp9", "mpeg4", "mpeg1video", "mpeg2video", "h263", "flv1", "msmpeg4v1", "msmpeg4v2",
    "msmpeg4v3", "wmv1", "wmv2", "wmv3", "vc1", "theora", "mjpeg", "prores", "dnxhd", "dvvideo",
})  # fmt: skip
# Their demuxers go to a time only roughly, to a byte exactly.
_FOUND_BY_BYTE = frozenset({"mpegts", "mpeg"})
_LEADS_PACKETS = (64, 8, 0)  # before the wanted packet: a demuxer needs some before it knows their times
_MOST_PASSED_OVER = 2000  # packets on the way to the wanted one
_TABLE_CACHE_FRAMES = 2_000_000  # about 50 MB


@dataclass(frozen=True)
class PacketTable:
    """The packets of a file in decoding order, where they say all that random access needs.

    pts: presentation times (P,), unique; read, or guessed by the demuxer. is_key: whether decoding can start there (P,).
    shown_pts: the times of the frames that are shown, ascending (F,): frame i is the one with shown_pts[i].
    position, size: in bytes (P,); a position can be ``UNKNOWN``. times_hold: no decoded frame has been seen out of its time.
    """

    pts: np.ndarray
    is_key: np.ndarray
    shown_pts: np.ndarray
    position: np.ndarray
    size: np.ndarray
    times_hold: bool = True

    @property
    def is_one_to_one(self) -> bool:
        """Whether every packet is shown."""
        return len(self.shown_pts) == len(self.pts)

    def predicts(self, decoded_pts: Sequence[int | None]) -> bool:
        """Whether random access delivers the frames that were decoded with these times, by time or by count."""
        if np.array_equal(self.shown_pts, np.array(decoded_pts, object)):
            return True
        if not self.is_one_to_one or None in decoded_pts:
            return False
        packets = np.array([self.packet_of(pts) for pts in decoded_pts])
        starts = np.flatnonzero(self.is_key)
        same_stretch = np.searchsorted(starts, packets, side="right") == np.searchsorted(
            starts, np.arange(len(packets)), side="right"
        )
        return len(packets) == len(self.pts) and bool(same_stretch.all())

    @cached_property
    def _by_time(self) -> np.ndarray:
        return np.argsort(self.pts)

    @cached_property
    def _keys_by_time(self) -> np.ndarray:
        return self._by_time[self.is_key[self._by_time]]

    def key_packet_for(self, pts: int) -> int:
        """The packet from which the frame of this time is decoded soonest: the nearest key frame shown no later, or -1."""
        place = int(np.searchsorted(self.pts[self._keys_by_time], pts, side="right")) - 1
        return int(self._keys_by_time[place]) if place >= 0 else -1

    def is_packet(self, number: int, packet: av.Packet) -> bool:
        """Whether this is the packet of that number, by its time and size."""
        return number < len(self.pts) and packet.pts == self.pts[number] and packet.size == self.size[number]

    def position_before(self, number: int) -> int | None:
        """The last byte that is known to begin a packet, of this one or one before it; None where there is none."""
        known = np.flatnonzero(self.position[: max(number, 0) + 1] != UNKNOWN)
        return int(self.position[known[-1]]) if len(known) else None

    def packet_of(self, pts: int | None) -> int:
        """The packet that carries this time, or -1."""
        if pts is None:
            return -1
        place = int(np.searchsorted(self.pts, pts, sorter=self._by_time))
        found = int(self._by_time[place]) if place < len(self.pts) else -1
        return found if found >= 0 and self.pts[found] == pts else -1


def read_packets(container: InputContainer, stream: VideoStream) -> PacketLog | None:
    """What the packets of a stream say; None where the file cannot be read to its end."""
    packets = PacketLog()
    try:
        with closing(demux(container, stream)) as found:
            for packet in found:
                packets.add(packet)
                beat()
    except DECODE_ERRORS:
        return None  # a damaged file: decoded from the start
    return packets


def read_packet_table(path: str) -> PacketTable | None:
    """Read the packet headers of a file (no decoding). None where random access cannot be shown to be exact."""
    with open_stream(path) as (container, stream):
        if not _may_seek(stream):
            return None
        packets = read_packets(container, stream)
        return table_of(stream, packets) if packets else None


def _may_seek(stream: VideoStream) -> bool:
    return stream.codec_context.codec.canonical_name in _SEEKABLE_CODECS


def table_of(stream: VideoStream, packets: PacketLog) -> PacketTable | None:
    """The table of all packets of a file. None where random access cannot be shown to be exact.

    The count of packets that are shown is later compared with that of decoded frames. No packet gives two frames; so where
    the counts agree each gives one, and the number of a frame is the number of packets that are shown before it. Times
    that the demuxer guessed will do: what is decoded must come in their order, one by one.
    """
    pts, is_key = packets.pts, packets.is_key
    if not _may_seek(stream) or not len(packets) or (pts == UNKNOWN).any() or packets.is_corrupt.any():
        return None
    if len(np.unique(pts)) < len(pts) or not is_key[0]:
        return None
    latest_before = np.concatenate([pts[:1] - 1, np.maximum.accumulate(pts)[:-1]])
    starts = is_key & (pts > latest_before)  # all that is decoded before it is shown before it
    return PacketTable(pts, starts, np.sort(pts[~packets.is_discard]), packets.position, packets.size)


_TABLES: OrderedDict[tuple[str, int, int], PacketTable | None] = OrderedDict()


def packet_table(path: str) -> PacketTable | None:
    """``read_packet_table``, remembered for this process under path, size and time of change."""
    key = _table_key(path)
    if key not in _TABLES:
        keep_packet_table(path, read_packet_table(path))
    _TABLES.move_to_end(key)
    return _TABLES[key]


def keep_packet_table(path: str, table: PacketTable | None) -> None:
    """Remember the table of a file whose packets were just read."""
    _TABLES[_table_key(path)] = table
    while len(_TABLES) > 1 and sum(len(t.pts) if t else 1 for t in _TABLES.values()) > _TABLE_CACHE_FRAMES:
        _TABLES.popitem(last=False)


def _table_key(path: str) -> tuple[str, int, int]:
    stat = os.stat(path)
    return path, stat.st_size, stat.st_mtime_ns


class _SurpriseError(Exception):
    """Random access met something that the packet table does not explain. Never leaves this file."""


class _UntimedError(_SurpriseError):
    """A decoded frame carries an unexpected time."""


class PyavReader(VideoReader):
    """A video read by PyAV on one thread. The file is open only while frames are decoded.

    Args:
        info: what a scan of the whole file found.
        seek: False decodes from the start of the file up to the last wanted frame, always.
    """

    def __init__(self, path: str | os.PathLike[str], info: VideoInfo, *, seek: bool = True) -> None:
        super().__init__(path, info)
        self._seek = seek

    def _decode_sorted(self, indices: np.ndarray) -> Generator[tuple[int, np.ndarray]]:
        convert = FrameConverter(self.info.gray_range)
        table = packet_table(self.path) if self._seek else None
        if table is not None and len(table.shown_pts) == self.info.num_frames:
            for decode in (_decode_by_time, _decode_by_count):
                try:
                    yield from decode(self.path, table, indices, convert)
                    return
                except _SurpriseError:
                    pass  # the sequential decode below is right whatever the packets say
        yield from _decode_from_start(self.path, indices, convert)


def _decode_from_start(path: str, indices: np.ndarray, convert: FrameConverter) -> Generator[tuple[int, np.ndarray]]:
    """One pass from the start of the file to the last wanted frame; only wanted frames are converted."""
    places = {index: place for place, index in enumerate(indices.tolist())}
    last, count = int(indices[-1]), 0
    with open_stream(path) as (container, stream):
        decode = SequentialDecode(container, stream)
        with closing(iter(decode)) as frames:
            for frame in frames:
                if count in places:
                    yield places[count], convert(frame)
                count += 1
                if count > last:
                    return
    raise DecodeError(path, f"frame {last} was asked for, and the file ends after {count} frames", decode.first_error)


def _decode_by_time(
    path: str, table: PacketTable, indices: np.ndarray, convert: FrameConverter
) -> Generator[tuple[int, np.ndarray]]:
    """Jump to the key frame before each wanted frame, unless decoding on gets there as soon."""
    if not table.times_hold:
        raise _SurpriseError("it was surprised before")
    with open_stream(path) as (container, stream), closing(_CheckedWalk(container, stream, table)) as walk:
        for place, index in enumerate(indices.tolist()):
            try:
                frame_HWC = convert(walk.frame(index))
            except _UntimedError:
                keep_packet_table(path, replace(table, times_hold=False))
                raise
            except DECODE_ERRORS as error:
                raise _SurpriseError(str(error)) from error
            yield place, frame_HWC


def _decode_by_count(
    path: str, table: PacketTable, indices: np.ndarray, convert: FrameConverter
) -> Generator[tuple[int, np.ndarray]]:
    """Decode the whole stretch from one key frame to the next around each wanted frame, and count.

    For files whose packets carry no times of their own (AVI): there the guessed ones are those of decoding. Each packet
    gives one frame. Where all frames of a stretch are shown before the next key frame, its n-th frame is number key + n.
    """
    if not table.is_one_to_one:
        raise _SurpriseError("some packets are not shown")
    starts = np.append(np.flatnonzero(table.is_key), len(table.pts))
    stretch_of = np.searchsorted(starts, indices, side="right") - 1
    with open_stream(path) as (container, stream), closing(_CheckedWalk(container, stream, table)) as walk:
        for stretch in np.unique(stretch_of).tolist():
            places = {int(indices[place]): place for place in np.flatnonzero(stretch_of == stretch).tolist()}
            try:
                for index, frame in walk.stretch(int(starts[stretch]), int(starts[stretch + 1])):
                    if index in places:
                        yield places[index], convert(frame)
            except DECODE_ERRORS as error:
                raise _SurpriseError(str(error)) from error


class _CheckedWalk:
    """Decodes forward from key frames, and checks that every frame is the one that the packet table expects."""

    def __init__(self, container: InputContainer, stream: VideoStream, table: PacketTable) -> None:
        self._container = container
        self._stream = stream
        self._table = table
        self._packets = demux(container, stream)
        self._ready: list[VideoFrame] = []
        self._position = -1  # the packet that was decoded last
        self._index = -1  # the frame that was delivered last
        self._is_at_start = True  # no frame since the last jump
        self._frame: VideoFrame | None = None

    def frame(self, index: int) -> VideoFrame:
        """The frame of this number; numbers must not fall from call to call."""
        key = self._table.key_packet_for(int(self._table.shown_pts[index]))
        if key < 0:
            raise _SurpriseError("no key frame before the wanted frame")
        if self._frame is None or key > self._position:
            self._jump(key)
        while self._index < index:
            self._advance()
        if self._index != index or self._frame is None:
            raise _SurpriseError("the wanted frame was passed over")
        return self._frame

    def stretch(self, key: int, end: int) -> Iterator[tuple[int, VideoFrame]]:
        """All frames from one key frame's packet to the next one's, with their numbers.

        Raises:
            _SurpriseError: at the end, where a packet of it gave no frame, or one was shown after the next key frame.
        """
        self._jump(key)
        seen: set[int] = set()
        while True:
            while not self._ready and self._feed():
                pass
            packet = self._table.packet_of(self._ready[0].pts) if self._ready else end
            if packet >= end:
                break
            frame = self._ready.pop(0)
            if packet < key or packet in seen or frame.is_corrupt or (not seen and not frame.key_frame):
                raise _SurpriseError("frames are not shown stretch by stretch")
            seen.add(packet)
            yield key + len(seen) - 1, frame
        if len(seen) != end - key:
            raise _SurpriseError("some packets of the stretch gave no frame")

    def close(self) -> None:
        """Give the packets back, before their file is closed."""
        self._packets.close()

    def _jump(self, key: int) -> None:
        """Go on from a key frame's packet."""
        first = next(filter(None, (self._found(key, *way) for way in self._ways_to(key))), None)
        if first is None:
            raise _SurpriseError("no seek led to the key frame")
        self._position, self._is_at_start = key, True
        # Frames shown before the key frame belong to an open group of pictures and lack their references.
        self._first_pts = int(self._table.pts[key])
        self._index = int(np.searchsorted(self._table.shown_pts, self._first_pts)) - 1
        self._ready = list(self._stream.codec_context.decode(first))

    def _ways_to(self, key: int) -> list[tuple[int, bool]]:
        """Where to seek to, so that the packet comes soon: times, and bytes (True)."""
        by_time = [(int(self._table.pts[key]), False)]
        places = [self._table.position_before(key - lead) for lead in _LEADS_PACKETS]
        by_byte = [(place, True) for place in dict.fromkeys(places) if place is not None]
        by_byte_first = _FOUND_BY_BYTE.intersection(self._container.format.name.split(","))
        return by_byte + by_time if by_byte_first else by_time + by_byte

    def _found(self, key: int, offset: int, is_byte: bool) -> av.Packet | None:
        """The key frame's packet, from here on; None where it does not come."""
        self._packets.close()
        stream = None if is_byte else self._stream
        self._container.seek(offset, stream=stream, backward=True, any_frame=False, unsupported_byte_offset=is_byte)
        self._packets = demux(self._container, self._stream)
        for packet in islice(self._packets, _MOST_PASSED_OVER):
            beat()
            if packet.is_keyframe and self._table.is_packet(key, packet):
                return packet
            if not packet.size or self._table.packet_of(packet.pts) > key:
                return None
        return None

    def _advance(self) -> None:
        """Take the next frame that is shown, and check that it is the one that the table has next."""
        while True:
            while not self._ready:
                if not self._feed():
                    raise _SurpriseError("the file ends early")
            frame = self._ready.pop(0)
            if self._is_at_start and frame.pts is not None and frame.pts < self._first_pts:
                continue
            break
        self._index, self._is_at_start = self._index + 1, False
        if self._index >= len(self._table.shown_pts) or frame.pts != self._table.shown_pts[self._index]:
            raise _UntimedError("a decoded frame carries an unexpected time")
        if frame.is_corrupt:
            raise _SurpriseError("a damaged frame")
        self._frame = frame

    def _feed(self) -> bool:
        """Decode one more packet; False at the end of the file. The demuxer's last one, which is empty, drains the decoder."""
        packet = next(self._packets, None)
        beat()
        if packet is None:
            return False
        if packet.size:
            self._position += 1
            if not self._table.is_packet(self._position, packet):
                raise _SurpriseError("a packet is not the one that the table has next")
        self._ready = list(self._stream.codec_context.decode(packet))
        return True
