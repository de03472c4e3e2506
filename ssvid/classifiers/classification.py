"""Learning labels, in the shape of a task: one trainer, one checkpoint format and one exact resume serve both.

It is no pretext task and is not registered: it takes labels, which ``ClipDataset`` sends along.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssvid.backbones import Backbone, BackboneInfo
from ssvid.classifiers.heads import build_head
from ssvid.classifiers.protocol import FinetuneProtocol
from ssvid.features.reading import shown_positions
from ssvid.tasks import BatchRandom, PretextTask
from ssvid.transforms.color import jitter_clip, random_jitter
from ssvid.transforms.cuts import Cut, CutFirst, Cuts
from ssvid.transforms.geometry import Rectangle, center_square, flip_at_random, random_area
from ssvid.types import ClipPlan, TaskOutput, VideoInfo
from ssvid.video.sampling import clip_span, random_clip


class TrainingClips(CutFirst):
    """One clip at a random place of the video, its frames and its crop as the protocol says; uint8 ``clips``, TCHW.

    A video that is shorter than a clip has its last frame repeated, as in the test.
    """

    min_frames = 1

    def __init__(self, protocol: FinetuneProtocol) -> None:
        self.protocol = protocol

    def plan(self, video: VideoInfo, rng: np.random.Generator, batch_rng: np.random.Generator) -> ClipPlan:
        p = self.protocol
        available = max(video.num_frames, clip_span(p.num_frames, p.stride_frames))
        clip = random_clip(rng, available, p.num_frames, p.stride_frames)
        clip = clip[shown_positions(p.frames, p.num_frames, rng)]
        return ClipPlan((np.minimum(clip, video.num_frames - 1),))

    def cuts(
        self, height: int, width: int, plan: ClipPlan, rng: np.random.Generator, batch_rng: np.random.Generator
    ) -> Cuts:
        """``clips`` uint8 TCHW, one rectangle for all frames."""
        rectangle = training_crop(height, width, self.protocol, rng)
        return Cuts((Cut(0, (rectangle,), self.protocol.crop_px),), lambda cuts_TCHW: {"clips": cuts_TCHW[0]})


def training_crop(height: int, width: int, protocol: FinetuneProtocol, rng: np.random.Generator) -> Rectangle:
    """What is cut out of each frame of a clip before it is brought to ``crop_px``: (top, left, height, width)."""
    p = protocol
    if p.crop == "area":
        return random_area(height, width, rng, min_area=p.min_area, max_aspect=p.max_aspect)
    top, left, short = center_square(height, width)
    side = max(1, round(short * p.crop_px / p.resize_px))
    if p.crop == "center":
        return top + (short - side) // 2, left + (short - side) // 2, side, side
    return int(rng.integers(height - side + 1)), int(rng.integers(width - side + 1)), side, side


class Classification(PretextTask):
    """A head on the map of one stage, trained with cross-entropy.

    Args:
        config: a resolved protocol. backbone: the network's. classes: names, in the order of the logits.
        chance: what a blind guess scores. seed: of the head's weights.
    """

    targets = ("label",)

    def __init__(
        self, config: FinetuneProtocol, backbone: BackboneInfo, *, classes: Sequence[str], chance: float, seed: int
    ) -> None:
        super().__init__(config, backbone)
        self.protocol, self.classes, self.stage = config, tuple(classes), config.stage
        self._chance = chance
        width = backbone.stage(config.stage).channels
        self.head = build_head(config, width, len(classes), seed=seed)

    def chance(self) -> Mapping[str, float]:
        return {"top1": self._chance}

    def setup(self, backbone: Backbone) -> None:
        """Only what the head sees is trained; with ``frozen`` nothing of the backbone is."""
        backbone.freeze_after(self.stage)
        if self.protocol.frozen:
            backbone.requires_grad_(False).eval()

    def clip_maker(self, training: bool) -> TrainingClips:
        return TrainingClips(self.protocol)

    def augment(self, batch: dict[str, Any], rng: BatchRandom) -> dict[str, Any]:
        """Float BCTHW in [0, 1]; in training mirrored, with other colors, and mixed. The draws are the samples' own."""
        clips_BCTHW = batch["clips"].transpose(1, 2).float() / 255
        if not self.training:
            return {**batch, "clips": clips_BCTHW}
        p = self.protocol
        if p.flip:
            clips_BCTHW = flip_at_random(clips_BCTHW, rng.samples)
        if any(p.jitter):
            draws = [random_jitter(p.jitter, p.jitter_probability, r) for r in rng.samples]
            clips_BCTHW = torch.stack([jitter_clip(c, d) for c, d in zip(clips_BCTHW, draws, strict=True)])
        batch = {**batch, "clips": clips_BCTHW}
        return mix(batch, p.mixup_alpha, rng.shared) if p.mixup_alpha else batch

    def logits(self, clips_BCTHW: Tensor, backbone: Backbone) -> Tensor:
        """Class scores BK, float32."""
        if not self.protocol.frozen:
            return cast(Tensor, self.head(backbone(clips_BCTHW, self.stage)).float())
        if backbone.training:
            backbone.eval()  # whoever switched the whole module to training did not mean this part of it
        with torch.no_grad():
            map_BCTHW = backbone(clips_BCTHW, self.stage)
        return cast(Tensor, self.head(map_BCTHW).float())

    def forward(self, batch: dict[str, Any], backbone: Backbone) -> TaskOutput:
        logits_BK = self.logits(batch["clips"], backbone)
        smoothing = self.protocol.label_smoothing
        loss_B = F.cross_entropy(logits_BK, batch["label"], reduction="none", label_smoothing=smoothing)
        right_B = (logits_BK.argmax(dim=1) == batch["label"]).float()
        if "other_label" in batch:
            weight = batch["mix_weight"]
            other_B = F.cross_entropy(logits_BK, batch["other_label"], reduction="none", label_smoothing=smoothing)
            loss_B = weight * loss_B + (1 - weight) * other_B
            right_B = weight * right_B + (1 - weight) * (logits_BK.argmax(dim=1) == batch["other_label"]).float()
        return TaskOutput(loss_B.mean(), {"top1": right_B.detach()})


def mix(batch: dict[str, Any], alpha: float, rng: np.random.Generator) -> dict[str, Any]:
    """Mixup (Zhang et al. 2018, eq. 1): each clip becomes w * itself + (1 - w) * another one, w from Beta(alpha, alpha).

    One w for the batch, as in the paper's code. The partners are of the same micro-batch and rank.
    """
    weight = float(rng.beta(alpha, alpha))
    clips_BCTHW, label_B = batch["clips"], batch["label"]
    order = torch.from_numpy(rng.permutation(len(label_B))).to(label_B.device)
    mixed_BCTHW = weight * clips_BCTHW + (1 - weight) * clips_BCTHW[order]
    return {**batch, "clips": mixed_BCTHW, "other_label": label_B[order], "mix_weight": weight}
