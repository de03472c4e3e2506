"""The sound of a video, played faster in pieces at its own pitch, beside a film that was made without any."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np

from ssvid.errors import DecodeError
from ssvid.files import appearing_whole

SOUND_HZ = 48_000
_CROSS_SECONDS = 0.01  # that two pieces fade into each other
_MOST_TEMPO = 2.0  # of one filter; faster is several in a row, which sounds better
_SAMPLE = Fraction(1, SOUND_HZ)
_GAP_SECONDS = 0.05  # by which a packet must come late so that the time before it is silent


@dataclass(frozen=True)
class Piece:
    """A stretch of the film and the stretch of the video that it shows, in seconds of each. Pieces follow one another."""

    out_start: float
    out_end: float
    start: float
    end: float

    @property
    def tempo(self) -> float:
        """How many times as fast it is played."""
        return (self.end - self.start) / (self.out_end - self.out_start)


def has_sound(path: str | os.PathLike[str]) -> bool:
    """Whether a file has a sound track. Raises DecodeError where it cannot be opened."""
    if os.path.isdir(path):
        return False
    try:
        with av.open(os.path.abspath(os.fspath(path))) as container:
            return bool(container.streams.audio)
    except av.error.FFmpegError as error:
        raise DecodeError(os.fspath(path), "open for its sound", error) from error


def pieces_of(
    shown_seconds: np.ndarray, fps: float, end: float, *, least_seconds: float = 0.5, merged_share: float = 0.05
) -> list[Piece]:
    """Pieces of even tempo for a film whose frame j shows what is seen at ``shown_seconds[j]``.

    Every piece begins with a frame of the film and at that frame's own time, so that sound and picture are in step at every
    border, whatever happens between.

    Args:
        fps: of the film. end: when the video's last frame ends. least_seconds: of the film in a piece, at least.
        merged_share: neighbors whose tempos differ by at most this share become one piece.
    """
    count = len(shown_seconds)
    step = max(1, math.ceil(least_seconds * fps))
    firsts = list(range(0, max(count - step, 0) + 1, step)) or [0]
    bounds = np.append(shown_seconds, max(end, shown_seconds[-1] + 1e-3))
    kept = [firsts[0]]
    for first, following in zip(firsts[1:], [*firsts[2:], count], strict=True):
        before = (bounds[first] - bounds[kept[-1]]) / (first - kept[-1])
        after = (bounds[following] - bounds[first]) / (following - first)
        if abs(after - before) > merged_share * before:
            kept.append(first)
    ends = [*kept[1:], count]
    return [
        Piece(a / fps, b / fps, float(bounds[a]), float(bounds[b])) for a, b in zip(kept, ends, strict=True) if b > a
    ]


def stretched(samples_2N: np.ndarray, tempo: float, num_out: int) -> np.ndarray:
    """Sound played ``tempo`` times as fast at its own pitch (FFmpeg's ``atempo``): float32 (2, num_out), cut off or silent at
    its end."""
    found = samples_2N if abs(tempo - 1) < 1e-6 else _filtered(samples_2N, tempo)
    return np.pad(found[:, :num_out], ((0, 0), (0, max(0, num_out - found.shape[1]))))


def _filtered(samples_2N: np.ndarray, tempo: float) -> np.ndarray:
    graph = av.filter.Graph()
    last = graph.add_abuffer(sample_rate=SOUND_HZ, format="fltp", layout="stereo", time_base=_SAMPLE)
    count = max(1, math.ceil(math.log(tempo, _MOST_TEMPO) - 1e-9))
    for _ in range(count):
        following = graph.add("atempo", f"{tempo ** (1 / count):.9f}")
        last.link_to(following)
        last = following
    planar = graph.add("aformat", "sample_fmts=fltp:channel_layouts=stereo")
    last.link_to(planar)
    planar.link_to(graph.add("abuffersink"))
    graph.configure()
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples_2N, np.float32), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = SOUND_HZ, 0, _SAMPLE
    graph.push(frame)
    graph.push(None)
    parts = []
    while True:
        try:
            parts.append(graph.pull().to_ndarray())
        except (av.error.EOFError, av.error.BlockingIOError):
            break
    return np.concatenate(parts, axis=1) if parts else np.zeros((2, 0), np.float32)


class _Samples:
    """The sound of an opened file by time: what lies before the stretch that was asked for last is forgotten."""

    def __init__(self, container: av.container.InputContainer) -> None:
        self._zero = _video_start(container)
        self._parts = self._decoded(container)
        self._held_2N, self._first = np.zeros((2, 0), np.float32), 0  # and the number of its first sample
        self._ended = False

    def between(self, start: float, end: float) -> np.ndarray:
        """Samples (2, N) from second to second after the first picture; silence where there is no sound. Starts must rise."""
        first, last = round(start * SOUND_HZ), round(end * SOUND_HZ)
        while not self._ended and self._first + self._held_2N.shape[1] < last:
            part_2N = next(self._parts, None)
            if part_2N is None:
                self._ended = True
            else:
                self._held_2N = np.concatenate([self._held_2N, part_2N], axis=1)
        passed = min(max(first - self._first, 0), self._held_2N.shape[1])
        self._held_2N, self._first = self._held_2N[:, passed:], self._first + passed
        found_2N = self._held_2N[:, max(first - self._first, 0) : max(last - self._first, 0)]
        return np.pad(found_2N, ((0, 0), (0, last - first - found_2N.shape[1])))

    def _decoded(self, container: av.container.InputContainer) -> Iterator[np.ndarray]:
        """All of it, from the first picture on, a part at a time."""
        resampler = av.AudioResampler(format="fltp", layout="stereo", rate=SOUND_HZ)
        at = 0
        for frame in container.decode(audio=0):
            starts = round(((frame.time or 0.0) - self._zero) * SOUND_HZ) if frame.time is not None else at
            parts = [one.to_ndarray() for one in resampler.resample(frame)]
            part_2N = np.concatenate(parts, axis=1) if parts else np.zeros((2, 0), np.float32)
            if starts - at > _GAP_SECONDS * SOUND_HZ:
                yield np.zeros((2, starts - at), np.float32)
                at = starts
            elif at == 0 and starts < 0:
                part_2N = part_2N[:, -starts:] if part_2N.shape[1] + starts > 0 else part_2N[:, :0]
            at += part_2N.shape[1]
            yield part_2N


def _video_start(container: av.container.InputContainer) -> float:
    """When the first picture is shown, on the clock of the file."""
    if not container.streams.video:
        return 0.0
    stream = container.streams.video[0]
    return float(stream.start_time * stream.time_base) if stream.start_time and stream.time_base else 0.0


def stretched_pieces(path: str | os.PathLike[str], pieces: Sequence[Piece]) -> Iterator[np.ndarray]:
    """The sound of each piece, float32 (2, N) at ``SOUND_HZ``; together exactly as long as the film. One piece is in memory.

    Neighbors fade into each other over 10 ms after their border.

    Raises:
        DecodeError: the sound cannot be read.
    """
    fade = round(_CROSS_SECONDS * SOUND_HZ)
    rising_N = np.linspace(0, 1, fade, dtype=np.float32)
    tail_2N: np.ndarray | None = None
    try:
        with av.open(os.path.abspath(os.fspath(path))) as container:
            samples = _Samples(container)
            for piece in pieces:
                num_out = round(piece.out_end * SOUND_HZ) - round(piece.out_start * SOUND_HZ)
                source_2N = samples.between(piece.start, piece.end + _CROSS_SECONDS * piece.tempo)
                sound_2N = stretched(source_2N, piece.tempo, num_out + fade)
                if tail_2N is not None:
                    sound_2N[:, :fade] = tail_2N * (1 - rising_N) + sound_2N[:, :fade] * rising_N
                tail_2N = sound_2N[:, num_out:]
                yield sound_2N[:, :num_out]
    except av.error.FFmpegError as error:
        raise DecodeError(os.fspath(path), "read its sound", error) from error


def _seconds(packet: av.Packet) -> float:
    """When a packet with a time is decoded."""
    return float((packet.dts or 0) * (packet.time_base or 0))


def add_sound(film: Path, source: str | os.PathLike[str], pieces: Sequence[Piece]) -> None:
    """Give a film the sound of the video that it was made of. The film is replaced when all is written; its pictures stay.

    Args:
        film: H.264 in MP4. source: a file with a sound track. pieces: of ``pieces_of``, from the film's start to its end.

    Raises:
        DecodeError: the sound cannot be read.
    """
    with appearing_whole(film) as partial, av.open(str(film)) as made, av.open(str(partial), "w") as container:
        pictures = container.add_stream_from_template(made.streams.video[0])
        sound = cast(av.AudioStream, container.add_stream("aac", rate=SOUND_HZ, layout="stereo"))
        sound.bit_rate = 128_000
        packets = (packet for packet in made.demux(video=0) if packet.dts is not None)
        waiting = next(packets, None)
        at = 0
        for piece, sound_2N in zip(pieces, stretched_pieces(source, pieces), strict=True):
            while waiting is not None and _seconds(waiting) < piece.out_end:
                waiting.stream = pictures
                container.mux(waiting)
                waiting = next(packets, None)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound_2N), format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = SOUND_HZ, at, _SAMPLE
            at += frame.samples
            container.mux(sound.encode(frame))
        while waiting is not None:
            waiting.stream = pictures
            container.mux(waiting)
            waiting = next(packets, None)
        container.mux(sound.encode(None))
