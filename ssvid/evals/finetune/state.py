"""What fine-tuning passes on from step to step: the parts of train, the start, the trained network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from ssvid.backbones import Backbone
from ssvid.classifiers.classification import Classification
from ssvid.classifiers.protocol import FinetuneProtocol
from ssvid.data.manifest import VideoRow
from ssvid.evals.contract import LabeledData, Subject, Tools


@dataclass(frozen=True)
class Parts:
    """Train in two parts: what is trained on, and what the epoch is chosen on. notes: what its reader must know."""

    fit: tuple[VideoRow, ...]
    held: tuple[VideoRow, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Start:
    """What a fine-tuning starts from: a network, which is left as it is, with its origin. protocol: resolved."""

    subject: Subject
    data: LabeledData
    protocol: FinetuneProtocol
    tools: Tools

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that can be learned, sorted: the logits are in this order."""
        return tuple(sorted({row.label for row in self.data.train if row.is_readable}))


@dataclass(frozen=True)
class Fitted:
    """A trained network with the weights of the chosen epoch.

    epoch: how many epochs it has learned. best: what the held-out part said of it, None without one; curve: of all epochs.
    unreadable: training videos that others stood in for. num_videos: that were trained on.
    """

    backbone: Backbone
    task: Classification
    device: torch.device
    epoch: float
    best: dict[str, float] | None
    steps_per_epoch: int
    curve: tuple[dict[str, float], ...]
    unreadable: Mapping[str, str]
    num_videos: int
