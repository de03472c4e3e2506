"""The words that the rooms share: a ticket, a video, a plan, a sample, a result.

Nothing here imports torch or reads a pixel. Axis letters follow ``docs/glossary.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

POOLS = ("avg", "avgmax", "max1x2x2", "frames")  # ways from a map to a vector (``backbones.pool_map``)
RGB, FLOW = MODALITIES = ("rgb", "flow")  # what a clip is made of
RGB_CHANNELS, FLOW_CHANNELS = 3, 2  # flow has u and v
NO_MOTION = 128  # the level, of 255, of a pixel of flow that does not move
PAIRINGS = ("label", "group", "any")  # which videos make a pair: of one class, of one group of the table, any two
COMPOSITE = "composite"  # the name under which recipes and checkpoints know several tasks at once

if TYPE_CHECKING:
    from torch import Tensor


class Stream(IntEnum):
    """What a sample is drawn for. The number is part of every random seed, so it never changes."""

    TRAIN = 0
    VAL = 1
    PREPARE = 2
    EVAL = 3
    AUDIT = 4
    AUGMENT = 5  # the device-side draws of a training or validation batch


class Ticket(NamedTuple):
    """The address of one sample: everything random about the sample is a function of (seed, ticket).

    stream: a ``Stream``. epoch: 0 for every stream but TRAIN. step: number of the *global* batch in the epoch, the
    same on all ranks and micro-batches. index: which sample of the dataset. clip: counts the clips drawn from one
    opened file. attempt: counts replacements of unreadable videos.
    """

    stream: int
    epoch: int
    step: int
    index: int  # type: ignore[assignment]
    clip: int = 0
    attempt: int = 0


def sample_rng(seed: int, ticket: Ticket) -> np.random.Generator:
    """The generator of one sample. Independent of ``step``, so that batch size does not change a sample's draw."""
    t = ticket
    return np.random.default_rng([seed, t.stream, t.epoch, t.index, t.clip, t.attempt])


def batch_rng(seed: int, ticket: Ticket) -> np.random.Generator:
    """The generator that all samples of one global batch share (SpeedNet's resolution)."""
    return np.random.default_rng([seed, ticket.stream, ticket.epoch, ticket.step])


@dataclass(frozen=True)
class VideoInfo:
    """What is known of a video (or of a window of it) before a pixel is read.

    num_frames: frames that a sequential decode delivers. fps: frames per second, from the decoded time stamps.
    height, width: pixels as displayed, rotation applied. variable_fps: frame durations differ.
    signals: per-frame measurements (motion, thumbnails), each with ``num_frames`` rows. gray_range: the values of a gray
    video of more than 8 bits that become 0 and 255; () keeps the upper 8 bits. channels: 3, or 2 where its frames are
    measured flow, height and width of which are then given.
    """

    path: str
    num_frames: int
    fps: float
    height: int
    width: int
    variable_fps: bool = False
    signals: Mapping[str, np.ndarray] = field(default_factory=dict)
    gray_range: tuple[int, ...] = ()
    channels: int = RGB_CHANNELS


@dataclass(frozen=True)
class ClipPlan:
    """Which frames a sample needs, and what its targets are: born together, before any pixel is read.

    views: one int64 array of frame indices per view; lengths may differ; repeats are allowed.
    targets: what a loss is measured against, by name; the same names appear in the sample.
    """

    views: tuple[np.ndarray, ...]
    targets: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass
class TaskOutput:
    """What a pretext task returns for one batch.

    loss: scalar. metrics: per-sample values (B,), averaged over samples and ranks by the trainer. scores: the arguments
    of ``update`` of the task's ``epoch_metrics`` of the same name. extras: tensors for pictures only.
    """

    loss: Tensor
    metrics: Mapping[str, Tensor]
    scores: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)


class ClipMaker(Protocol):
    """Worker side of a task: picklable, without parameters, draws only from the generators it is given.

    One that plans from per-frame measurements also has ``signals: tuple[str, ...]``, their names; ``VideoInfo.signals``
    then holds them. See ``ssvid.data.index.signals``. One that derives from ``ssvid.transforms.CutFirst`` has frames cut as they
    are decoded. One that takes several videos for a sample has ``video_makers``, a clip maker for each; with ``group_by``, one of
    ``PAIRINGS``, the first video's companions are drawn from its own class or group.
    """

    @property
    def min_frames(self) -> int:
        """Frames a video must have so that ``plan`` can succeed; shorter videos are listed and left out."""
        ...

    def plan(self, video: VideoInfo, rng: np.random.Generator, batch_rng: np.random.Generator) -> ClipPlan:
        """Choose frames and targets. Pure: the same arguments give the same plan."""
        ...

    def transform(
        self,
        views_TCHW: tuple[Tensor, ...],
        plan: ClipPlan,
        rng: np.random.Generator,
        batch_rng: np.random.Generator,
    ) -> dict[str, Tensor]:
        """Turn decoded uint8 views into one sample; pixels stay uint8, every target appears under its own name."""
        ...
