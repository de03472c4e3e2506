"""What fine-tuning passes on from step to step: the setup, the parts of train, the start, the trained network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ssvid.backbones import Backbone
from ssvid.classifiers.classification import Classification
from ssvid.classifiers.protocol import FinetuneProtocol
from ssvid.data.config import LoaderConfig
from ssvid.data.manifest import Manifest, VideoRow
from ssvid.train.config import LoggerConfig, TrainerConfig


@dataclass(frozen=True)
class FinetuneSetup:
    """Where and how a fine-tuning runs.

    seed: of the head, of the order and the clips, of the held-out part. loader, trainer (resolved),
    logger: of the recipe. recipe: resolved, plain types, for checkpoints and loggers.
    """

    seed: int = 0
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    recipe: Mapping[str, Any] = field(default_factory=dict)
    show_progress: bool = False

    @property
    def num_processes(self) -> int:
        """Training processes on all machines."""
        return int(self.trainer.devices) * self.trainer.num_nodes


@dataclass(frozen=True)
class Parts:
    """Train in two parts: what is trained on, and what the epoch is chosen on. notes: what its reader must know."""

    fit: tuple[VideoRow, ...]
    held: tuple[VideoRow, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Start:
    """What a fine-tuning starts from. protocol: resolved. origin: of the weights. weights: their hash."""

    manifest: Manifest
    train_rows: tuple[VideoRow, ...]
    protocol: FinetuneProtocol
    setup: FinetuneSetup
    origin: Mapping[str, Any]
    weights: str

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that can be learned, sorted: the logits are in this order."""
        return tuple(sorted({row.label for row in self.train_rows if row.is_readable}))


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
