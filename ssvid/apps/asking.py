"""A trained task asked of a whole video, window by window: frames are streamed, memory does not grow with the video."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssvid.apps.timeline import Timeline, version, window_starts
from ssvid.backbones import Backbone
from ssvid.progress import Progress
from ssvid.tasks import ClipAnswer, ClipQuestion, PretextTask


class Video(Protocol):
    """What is asked about. num_frames: of all. size_px: height and width."""

    @property
    def num_frames(self) -> int: ...

    @property
    def size_px(self) -> tuple[int, int]: ...

    def frames(self) -> Iterator[np.ndarray]:
        """All frames in turn, uint8 HWC."""
        ...


@dataclass(frozen=True)
class Asker:
    """A trained network and what it is asked. window: frames of a clip. hop: beats from a window to the next.

    batch_size: clips of a forward pass. weights: by which the network is known, its hash.
    """

    task: PretextTask
    backbone: Backbone
    question: ClipQuestion
    window: int
    hop: int
    device: str = "cpu"
    batch_size: int = 32
    weights: str = ""

    def __post_init__(self) -> None:
        for network in (self.task, self.backbone):
            network.to(self.device).eval()

    def answer(self, clips_BTCHW: Tensor) -> ClipAnswer:
        """Of uint8 clips, on the CPU."""
        with torch.no_grad():
            clips_BCTHW = clips_BTCHW.to(self.device).transpose(1, 2).float().div_(255)
            logits_B, bias, *maps = self.task.answer(clips_BCTHW, self.backbone)
            return ClipAnswer(logits_B.float().cpu(), bias, *(one_BTHW.float().cpu() for one_BTHW in maps))

    def shrunk_size(self, height_px: int, width_px: int) -> tuple[int, int]:
        """Height and width of what the network sees: the whole frame, its short side as in validation."""
        scale = self.question.size_px / min(height_px, width_px)
        return round(height_px * scale), round(width_px * scale)


@dataclass
class VersionAnswers:
    """What was said of one version. factor: how many times as fast it is. starts: of its windows. logits: float64."""

    factor: float
    starts: np.ndarray
    logits: np.ndarray


@dataclass
class MapSums:
    """Where answers come from, summed over the windows in which a beat lies; what a window says of one cell of its map counts for
    all beats of that cell. counts_N: windows that each beat lies in.

    sums_N2HW: float32, ``local`` and ``strength`` of ``ClipAnswer``; on disk where the video is long.
    """

    sums_N2HW: np.ndarray
    counts_N: np.ndarray

    def add(self, start: int, window: int, answer: ClipAnswer, place: int) -> None:
        """Add one clip of a batch."""
        both_2THW = torch.stack([answer.local_BTHW[place], answer.strength_BTHW[place]]).numpy()
        cells = np.arange(window) * both_2THW.shape[1] // window
        self.sums_N2HW[start : start + window] += both_2THW[:, cells].swapaxes(0, 1)
        self.counts_N[start : start + window] += 1

    def at(self, beat: int) -> tuple[np.ndarray, np.ndarray]:
        """The mean ``local`` and ``strength`` of a beat, HW each."""
        local_HW, strength_HW = self.sums_N2HW[beat] / max(int(self.counts_N[beat]), 1)
        return local_HW, strength_HW


MapMaker = Callable[[tuple[int, int]], MapSums]  # from height and width of a map


@dataclass
class _Version:
    """One version while frames come in: the beats that it is made of, and its last frames."""

    answers: VersionAnswers
    beats_N: np.ndarray
    held: deque[Tensor]
    seen: int = 0  # frames of this version
    asked: int = 0  # windows

    @classmethod
    def of(cls, num_beats: int, factor: float, window: int, hop: int) -> _Version | None:
        beats_N = version(num_beats, factor)
        starts = window_starts(len(beats_N), window, hop)
        if not len(starts):
            return None
        return cls(VersionAnswers(factor, starts, np.zeros(len(starts))), beats_N, deque(maxlen=window))

    def takes(self, beat: int) -> bool:
        return self.seen < len(self.beats_N) and self.beats_N[self.seen] == beat

    def add(self, frame_CHW: Tensor) -> Tensor | None:
        """Take a frame; the clip that is whole now, if one is."""
        self.held.append(frame_CHW)
        self.seen += 1
        starts, window = self.answers.starts, self.held.maxlen or 0
        if self.asked == len(starts) or self.seen != starts[self.asked] + window:
            return None
        self.asked += 1
        return torch.stack(tuple(self.held))


@dataclass
class _Batch:
    """Clips that wait for a forward pass, and where their answers go: version and window."""

    asker: Asker
    maps: list[MapSums] = field(default_factory=list)
    keep_maps: MapMaker | None = None
    clips: list[Tensor] = field(default_factory=list)
    places: list[tuple[_Version, int]] = field(default_factory=list)

    def add(self, clip_TCHW: Tensor, one: _Version) -> None:
        self.clips.append(clip_TCHW)
        self.places.append((one, one.asked - 1))
        if len(self.clips) == self.asker.batch_size:
            self.flush()

    def flush(self) -> None:
        if not self.clips:
            return
        answer = self.asker.answer(torch.stack(self.clips))
        for place, (one, number) in enumerate(self.places):
            one.answers.logits[number] = float(answer.logits_B[place])
            if self.keep_maps is not None and one.answers.factor == 1:
                if not self.maps:
                    self.maps.append(self.keep_maps((answer.local_BTHW.shape[2], answer.local_BTHW.shape[3])))
                self.maps[0].add(int(one.answers.starts[number]), self.asker.window, answer, place)
        self.clips.clear()
        self.places.clear()


class Heard(NamedTuple):
    """What one pass over a video gave. answers: of each version, 1 first. maps: None where they were not kept.

    changes_N: by how many gray levels the frame at each beat differs from that at the beat before, in the mean; 0 at the first.
    """

    answers: list[VersionAnswers]
    maps: MapSums | None
    changes_N: np.ndarray


def ask(
    video: Video,
    timeline: Timeline,
    asker: Asker,
    factors: Sequence[float],
    told: Progress,
    keep_maps: MapMaker | None = None,
) -> Heard:
    """Ask of every window of every version of a video, in one pass over its frames.

    Args:
        factors: of the versions, 1 first. One that is too short for a window is left out, and so are all after it.
        told: called with frames done and frames in all.
        keep_maps: (height, width) of a map -> ``MapSums`` to add the maps of version 1 to; None keeps none.

    Raises:
        DecodeError: a frame cannot be read.
    """
    made = (_Version.of(len(timeline), factor, asker.window, asker.hop) for factor in factors)
    versions = [one for one in made if one is not None]
    size_px = asker.shrunk_size(*video.size_px)
    batch = _Batch(asker, keep_maps=keep_maps)
    beat, changes_N, last_CHW = 0, np.zeros(len(timeline)), None
    for number, frame_HWC in enumerate(video.frames()):
        while beat < len(timeline) and timeline.frames_N[beat] == number:
            frame_CHW = shrunk(frame_HWC, size_px)
            if last_CHW is not None:
                changes_N[beat] = float((frame_CHW.float() - last_CHW.float()).abs().mean())
            last_CHW = frame_CHW
            for one in versions:
                clip_TCHW = one.add(frame_CHW) if one.takes(beat) else None
                if clip_TCHW is not None:
                    batch.add(clip_TCHW, one)
            beat += 1
        told(number + 1, video.num_frames)
    batch.flush()
    return Heard([one.answers for one in versions], batch.maps[0] if batch.maps else None, changes_N)


def shrunk(frame_HWC: np.ndarray, size_px: tuple[int, int]) -> Tensor:
    """A uint8 frame in the size that the network sees, CHW: bilinear, antialiased."""
    frame_1CHW = torch.from_numpy(np.ascontiguousarray(frame_HWC)).permute(2, 0, 1)[None]
    if frame_1CHW.shape[2:] == size_px:
        return frame_1CHW[0].contiguous()
    return F.interpolate(frame_1CHW, size_px, mode="bilinear", align_corners=False, antialias=True)[0].contiguous()
