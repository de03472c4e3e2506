"""Does this clip move, or is it one frame repeated?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssvid.backbones import Backbone, BackboneInfo
from ssvid.tasks import PretextTask, register_task
from ssvid.transforms import center_square, crop_square
from ssvid.types import ClipPlan, TaskOutput, VideoInfo
from ssvid.video import random_clip


@dataclass(frozen=True)
class StillConfig:
    """num_frames: frames of each clip. frame_px: side of the square clip in pixels."""

    num_frames: int = 8
    frame_px: int = 32


class StillClips:
    """Worker side: a clip, or its first frame over and over."""

    def __init__(self, config: StillConfig) -> None:
        self.config = config

    @property
    def min_frames(self) -> int:
        return self.config.num_frames

    def plan(self, video: VideoInfo, rng: np.random.Generator, batch_rng: np.random.Generator) -> ClipPlan:
        frames = random_clip(rng, video.num_frames, self.config.num_frames)
        is_still = int(rng.integers(2))
        return ClipPlan((np.full_like(frames, frames[0]) if is_still else frames,), {"is_still": np.array(is_still)})

    def transform(
        self,
        views_TCHW: tuple[Tensor, ...],
        plan: ClipPlan,
        rng: np.random.Generator,
        batch_rng: np.random.Generator,
    ) -> dict[str, Tensor]:
        clip_TCHW = views_TCHW[0]
        box = center_square(*clip_TCHW.shape[-2:])
        return {
            "clip": crop_square(clip_TCHW, box, self.config.frame_px),
            "is_still": torch.from_numpy(plan.targets["is_still"]),
        }


@register_task("dummy_still")
class Still(PretextTask):
    """Does this clip move, or is it one frame repeated?"""

    Config = StillConfig
    targets = ("is_still",)

    def __init__(self, config: StillConfig, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        self.head = nn.Linear(backbone.stage(self.stage).channels, 1)

    def chance(self) -> Mapping[str, float]:
        return {"accuracy": 0.5}

    def clip_maker(self, training: bool) -> StillClips:
        return StillClips(self.config)

    def forward(self, batch: dict[str, Any], backbone: Backbone) -> TaskOutput:
        logits_B = self.head(backbone.embed(batch["clip"].transpose(1, 2))).squeeze(1).float()
        labels_B = batch["is_still"]
        loss = F.binary_cross_entropy_with_logits(logits_B, labels_B.float())
        return TaskOutput(loss, {"accuracy": ((logits_B > 0) == (labels_B > 0)).float()})
