"""Which of two clips of a video plays as fast as a third one?

RSPNet: Relative Speed Perception for Unsupervised Video Representation Learning (Chen et al., AAAI 2021, arXiv 2011.07949);
with ``motion=pace`` Self-supervised Video Representation Learning by Pace Prediction (Wang, Jiao, Liu, ECCV 2020, arXiv
2008.05861). The sources of each number are in ``docs/tasks/relative_speed.md``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssvid.backbones import Backbone, BackboneInfo
from ssvid.bounds import AtLeast, BelowOne, Between, OneOf, Positive, Share, check_options
from ssvid.contrast import KeyQueue, collecting, info_nce, nearer_than_others, right_share
from ssvid.momentum import MomentumCopy
from ssvid.pictures import LIGHT, RIGHT, WRONG, row, sheet, tiles, words
from ssvid.tasks import BatchRandom, PretextTask, permute_targets, register_task, videos_of
from ssvid.transforms import Cut, CutFirst, Cuts, center_square, random_square
from ssvid.transforms.color import jitter_clip, random_jitter
from ssvid.types import ClipPlan, TaskOutput, VideoInfo
from ssvid.video.sampling import clip_indices, clip_span

if TYPE_CHECKING:
    from torchmetrics import Metric

_TILE_PX, _MOST_TILES, _PICTURES = 64, 8, 4


@dataclass(frozen=True)
class RelativeSpeedConfig:
    """Options of the task.

    motion: the question of speed. ``relative``: which of two clips is as fast as the anchor (RSPNet); ``pace``: which of
        ``speeds`` the anchor has (pace prediction).
    speeds: steps between frames that clips may have, whole numbers. num_frames: frames T of each clip.
    apart: the stretches that anchor and keys are cut from do not overlap.
    frame_px: side of the square clip. crop_scale: least side of the square cut out in training, as a share of the short side
        of the video. One square, one flip and one change of colors for the anchor, others for both keys.
    flip: mirror half of the stretches.
    jitter: how far brightness, contrast, saturation and hue change. jitter_prob: how often they do.
    jitter_each: every frame changes its colors by itself (pace prediction); else all frames of a stretch alike (RSPNet).
    motion_weight, appearance_weight: of the two losses; 0 leaves out the part. margin: by how much the clip of the same speed
        must be more similar, in units of ``temperature``.
    embed_channels, temperature, queue: width of the embeddings, divisor of their cosines, and how many keys of other videos
        are kept. momentum: how much of the key encoder is kept at each step.
    space_pool: ``mean`` or ``max`` over space, before the mean over time.
    stage: backbone stage that the heads sit on; "" is the last.
    """

    motion: Annotated[str, OneOf("relative", "pace")] = "relative"
    speeds: Annotated[tuple[int, ...], AtLeast(1)] = (1, 2)
    num_frames: Annotated[int, AtLeast(2)] = 16
    apart: bool = True
    frame_px: Annotated[int, AtLeast(1)] = 112
    crop_scale: Annotated[float, Share] = 0.7
    flip: bool = True
    jitter: Annotated[tuple[float, float, float, float], Between(0, 1)] = (0.4, 0.4, 0.4, 0.1)
    jitter_prob: Annotated[float, Between(0, 1)] = 0.8
    jitter_each: bool = False
    motion_weight: Annotated[float, Positive] = 1.0
    appearance_weight: Annotated[float, AtLeast(0)] = 1.0
    margin: Annotated[float, Positive] = 2.0
    embed_channels: Annotated[int, AtLeast(1)] = 128
    temperature: Annotated[float, Positive] = 0.07
    queue: Annotated[int, AtLeast(1)] = 16384
    momentum: Annotated[float, BelowOne] = 0.999
    space_pool: Annotated[str, OneOf("mean", "max")] = "mean"
    stage: str = ""

    @property
    def num_keys(self) -> int:
        """Clips beside the anchor: both candidates, or one for the appearance alone."""
        return 2 if self.motion == "relative" else int(self.appearance_weight > 0)

    @property
    def span_frames(self) -> int:
        """Frames from the first to the last of the fastest clip, both counted."""
        return clip_span(self.num_frames, max(self.speeds))


# ---- sampling: pure index arithmetic ---------------------------------------------------------------------------------


def draw_starts(available: int, span: int, apart: bool, rng: np.random.Generator) -> tuple[int, int]:
    """First frames of two stretches of ``span`` frames: of the anchor, of the keys.

    Each is uniform over where it fits. ``apart``: over where it fits into what is left when both spans are taken out, and the
    later one is moved behind the earlier; which of them is the anchor's is a coin's toss.
    """
    if not apart:
        return int(rng.integers(available - span + 1)), int(rng.integers(available - span + 1))
    early, late = sorted(int(start) for start in rng.integers(available - 2 * span + 1, size=2))
    starts = early, late + span
    return starts if rng.integers(2) else starts[::-1]


class SpeedClips(CutFirst):
    """Worker side: an anchor from one stretch of a video, and keys from another one, which begin at the same frame."""

    def __init__(self, config: RelativeSpeedConfig, training: bool) -> None:
        self.config, self.training = config, training

    @property
    def min_frames(self) -> int:
        """Both stretches, where they must not overlap."""
        two = self.config.num_keys and self.config.apart
        return self.config.span_frames * (2 if two else 1)

    def plan(self, video: VideoInfo, rng: np.random.Generator, batch_rng: np.random.Generator) -> ClipPlan:
        """Views: the anchor, then the keys in random order.

        Two speeds are drawn, each ordered pair alike: that of the anchor, and another one. Targets: ``same_speed``, which key
        has that of the anchor; with ``motion=pace`` it is ``pace``, the number of the anchor's speed.
        """
        c = self.config
        own, other = rng.choice(len(c.speeds), 2, replace=False).tolist()
        if not c.num_keys:
            start = int(rng.integers(video.num_frames - c.span_frames + 1))
            return ClipPlan((self._clip(start, own),), {"pace": np.array(own)})
        anchor, keys = draw_starts(video.num_frames, c.span_frames, c.apart, rng)
        if c.motion == "pace":
            return ClipPlan((self._clip(anchor, own), self._clip(keys, other)), {"pace": np.array(own)})
        same = int(rng.integers(2))
        order = (own, other) if same == 0 else (other, own)
        views = (self._clip(anchor, own), *(self._clip(keys, speed) for speed in order))
        return ClipPlan(views, {"same_speed": np.array(same)})

    def _clip(self, start: int, speed: int) -> np.ndarray:
        return clip_indices(start, self.config.num_frames, self.config.speeds[speed])

    def cuts(
        self, height: int, width: int, plan: ClipPlan, rng: np.random.Generator, batch_rng: np.random.Generator
    ) -> Cuts:
        """``clips`` uint8 (V, T, C, frame_px, frame_px), one square for the anchor and one for all keys; the target."""
        boxes = [self._box(height, width, rng) for _ in range(2)]
        wanted = tuple(
            Cut.squares(view, [boxes[min(view, 1)]], self.config.frame_px) for view in range(len(plan.views))
        )
        targets = {name: torch.from_numpy(target) for name, target in plan.targets.items()}
        return Cuts(wanted, lambda clips_TCHW: {"clips": torch.stack(clips_TCHW), **targets})

    def _box(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int]:
        if self.training:
            return random_square(height, width, rng, self.config.crop_scale)
        return center_square(height, width)


# ---- the losses and what needs no network ----------------------------------------------------------------------------


def ranking_loss(similarity_B2: Tensor, same_speed_B: Tensor, margin: float) -> Tensor:
    """mean max(0, margin - (s+ - s-)): s+ the similarity of the key of the same speed, s- of the other (RSPNet, eq. 2)."""
    return (margin - _lead(similarity_B2, same_speed_B)).clamp(min=0).mean()


def _lead(similarity_B2: Tensor, same_speed_B: Tensor) -> Tensor:
    """By how much the key of the same speed is more similar, (B,)."""
    first_ahead_B = similarity_B2[:, 0] - similarity_B2[:, 1]
    return torch.where(same_speed_B == 0, first_ahead_B, -first_ahead_B)


def mean_difference(clips_NCTHW: Tensor) -> Tensor:
    """How much a clip changes from frame to frame: mean |frame t - frame t-1| over pixels and time, float (N,)."""
    return clips_NCTHW.diff(dim=2).abs().mean(dim=(1, 2, 3, 4)).float()


# ---- the task --------------------------------------------------------------------------------------------------------


@register_task("relative_speed")
class RelativeSpeed(PretextTask):
    """Which of two clips of a video plays as fast as a third one? (RSPNet, Chen et al., AAAI 2021)

    With ``motion=pace`` how fast a clip plays is asked instead (Wang et al., ECCV 2020). The placebo hands every sample the
    answer of another video, and as the clip of the same video that of another one.

    Differs: the key encoder normalizes by running statistics that follow those of the trained network, so that a key depends
    on its own clip alone, where the authors shuffle clips between GPUs; keys of the own video are never negatives; the
    stretches of anchor and keys do not overlap (``apart``).
    """

    Config = RelativeSpeedConfig
    must_fall = ("static", "noise")
    must_hold = ("reencoded", "border")
    key_encoder: MomentumCopy

    def __init__(self, config: RelativeSpeedConfig, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        check_options("relative_speed", config, _problems(config, backbone))
        self.stage = config.stage or None
        self.asked = "pace" if config.motion == "pace" else "same_speed"
        channels, width = backbone.stage(self.stage).channels, config.embed_channels
        num_out = len(config.speeds) if config.motion == "pace" else width
        self.heads = nn.ModuleDict({"motion": nn.Linear(channels, num_out)})
        if config.appearance_weight:
            self.heads["appearance"] = nn.Linear(channels, width)
            self.queue = KeyQueue(config.queue, width)

    def chance(self) -> Mapping[str, float]:
        """Every speed is equally frequent; the own video is any of them."""
        chance = {"accuracy": 1 / len(self.config.speeds) if self.config.motion == "pace" else 0.5}
        return chance | ({"appearance_accuracy": 0.5} if self.config.appearance_weight else {})

    def clip_maker(self, training: bool) -> SpeedClips:
        return SpeedClips(self.config, training)

    # ---- the key encoder

    def setup(self, backbone: Backbone) -> None:
        """The key encoder: a copy of network and heads that follows them, and gets no gradient."""
        if self.config.num_keys:
            self.key_encoder = MomentumCopy(self._followed(backbone))

    def _followed(self, backbone: Backbone) -> dict[str, nn.Module]:
        """The network, and the heads whose embeddings of keys are needed."""
        needed = [name for name in self.heads if name != "motion" or self.config.motion == "relative"]
        return {"backbone": backbone, "heads": nn.ModuleDict({name: self.heads[name] for name in needed})}

    def after_step(self, backbone: Backbone, global_step: int) -> None:
        """The key encoder moves."""
        if "key_encoder" in self._modules:
            self.key_encoder.follow(self._followed(backbone), self.config.momentum)

    def embed(self, clips_BCTHW: Tensor, backbone: Backbone, heads: Mapping[str, nn.Module]) -> dict[str, Tensor]:
        """What each head makes of the pooled map of each clip, float32 (B, D)."""
        map_BCTHW = backbone(clips_BCTHW, self.stage)
        map_BCT = map_BCTHW.amax(dim=(3, 4)) if self.config.space_pool == "max" else map_BCTHW.mean(dim=(3, 4))
        return {name: head(map_BCT.mean(dim=2)).float() for name, head in heads.items()}

    @torch.no_grad()
    def keys(self, clips_BVCTHW: Tensor) -> dict[str, Tensor]:
        """Embeddings of length 1 of each sample's keys, (B, K, D), by the key encoder."""
        key_BKCTHW = clips_BVCTHW[:, 1:]
        heads = dict(cast(nn.ModuleDict, self.key_encoder["heads"]).items())
        found = self.embed(key_BKCTHW.flatten(0, 1), cast(Backbone, self.key_encoder["backbone"]), heads)
        return {name: F.normalize(key, dim=1).unflatten(0, key_BKCTHW.shape[:2]) for name, key in found.items()}

    # ---- the step

    def augment(self, batch: dict[str, Any], rng: BatchRandom) -> dict[str, Any]:
        """Flips and colors per stretch. ``clips`` become float (B, V, C, T, H, W); ``partner`` (B,) is whose keys each gets."""
        clips_BVCTHW = batch["clips"].transpose(2, 3).float().div_(255)
        if self.training:
            varied = [self._vary(clips, r) for clips, r in zip(clips_BVCTHW, rng.samples, strict=True)]
            clips_BVCTHW = torch.stack(varied)
        partner_B = torch.arange(len(clips_BVCTHW), device=clips_BVCTHW.device)
        return {**batch, "clips": clips_BVCTHW.contiguous(), "partner": partner_B}

    def _vary(self, clips_VCTHW: Tensor, rng: np.random.Generator) -> Tensor:
        """The anchor by one draw, the keys by another."""
        stretches = [part for part in (clips_VCTHW[:1], clips_VCTHW[1:]) if len(part)]
        return torch.cat([self._vary_stretch(part, rng) for part in stretches])

    def _vary_stretch(self, clips_VCTHW: Tensor, rng: np.random.Generator) -> Tensor:
        c, num_clips = self.config, len(clips_VCTHW)
        frames_CTHW = clips_VCTHW.transpose(0, 1).flatten(1, 2)
        if c.flip and rng.integers(2):
            frames_CTHW = frames_CTHW.flip(-1)
        parts = frames_CTHW.split(1, dim=1) if c.jitter_each else (frames_CTHW,)
        changed = [jitter_clip(part, random_jitter(c.jitter, c.jitter_prob, rng)) for part in parts]
        return torch.cat(changed, dim=1).unflatten(1, (num_clips, -1)).transpose(0, 1)

    def placebo(self, batch: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Every sample gets the answer of another video, and that video's keys as those of its own appearance."""
        return permute_targets(batch, [name for name in (self.asked, "partner") if name in batch], rng)

    def forward(self, batch: dict[str, Any], backbone: Backbone) -> TaskOutput:
        clips_BVCTHW, answer_B = batch["clips"], batch[self.asked]
        anchor = self.embed(clips_BVCTHW[:, 0], backbone, dict(self.heads.items()))
        keys = self.keys(clips_BVCTHW) if self.config.num_keys else {}
        if self.config.motion == "pace":
            scores_BK = anchor["motion"]
            loss = F.cross_entropy(scores_BK, answer_B)
            accuracy_B = (scores_BK.argmax(dim=1) == answer_B).float()
        else:
            scores_BK = self._similarity(anchor["motion"], keys["motion"])
            loss = ranking_loss(scores_BK, answer_B, self.config.margin)
            accuracy_B = right_share(_lead(scores_BK.detach(), answer_B))
        loss = self.config.motion_weight * loss
        metrics, scores = {"accuracy": accuracy_B}, dict[str, tuple[Tensor, ...]]()
        if self.config.appearance_weight:
            videos_B = torch.from_numpy(videos_of(batch, len(answer_B))).to(answer_B.device)
            of_partner = keys["appearance"][batch["partner"]], videos_B[batch["partner"]]
            loss = loss + self.config.appearance_weight * self._appearance(anchor["appearance"], *of_partner)
            scores["appearance_accuracy"] = (anchor["appearance"].detach(), keys["appearance"][:, 0], videos_B)
            if self.training and torch.is_grad_enabled():
                self.queue.enqueue(keys["appearance"][:, 0], videos_B)
        if not self.training:
            difference_BV = mean_difference(clips_BVCTHW.flatten(0, 1)).unflatten(0, clips_BVCTHW.shape[:2])
            self._add_blind_guess(difference_BV, answer_B, metrics, scores)
        return TaskOutput(loss=loss, metrics=metrics, scores=scores, extras={"scores": scores_BK.detach()})

    def _similarity(self, anchor_BD: Tensor, keys_BKD: Tensor) -> Tensor:
        """Cosines over the temperature, (B, K)."""
        return (F.normalize(anchor_BD, dim=1).unsqueeze(1) * keys_BKD).sum(dim=2) / self.config.temperature

    def _appearance(self, anchor_BD: Tensor, keys_BKD: Tensor, videos_B: Tensor) -> Tensor:
        to_queue_BN = self.queue.similarity(F.normalize(anchor_BD, dim=1)) / self.config.temperature
        return info_nce(self._similarity(anchor_BD, keys_BKD), to_queue_BN, self.queue.of_others(videos_B))

    def _add_blind_guess(
        self, difference_BV: Tensor, answer_B: Tensor, metrics: dict[str, Tensor], scores: dict[str, tuple[Tensor, ...]]
    ) -> None:
        """What the amount of change alone scores."""
        if self.config.motion == "pace":
            scores["difference_accuracy"] = (difference_BV[:, 0], answer_B)
        else:
            apart_B2 = (difference_BV[:, 1:] - difference_BV[:, :1]).abs()
            metrics["difference_accuracy"] = right_share(_lead(-apart_B2, answer_B))

    def epoch_metrics(self) -> Mapping[str, Metric]:
        """How often the own video is nearer than another one; how well the amount of change alone tells the pace."""
        metrics = {"appearance_accuracy": _appearance_metric()} if self.config.appearance_weight else {}
        return metrics | ({"difference_accuracy": _nearest_mean_metric()} if self.config.motion == "pace" else {})

    def visualize(self, batch: Mapping[str, Any], output: TaskOutput) -> Mapping[str, np.ndarray]:
        """Up to four samples: the frames of the anchor and of its keys, what is true and what the network says."""
        rows = []
        for b in range(min(_PICTURES, len(batch["clips"]))):
            told = self._told(int(batch[self.asked][b]), output.extras["scores"][b].float().cpu())
            for clip_CTHW, lines in zip(batch["clips"][b], told, strict=False):
                step = -(-clip_CTHW.shape[1] // _MOST_TILES)
                frames = tiles(clip_CTHW[:, ::step].transpose(0, 1), _TILE_PX)
                rows.append(row([words(lines, 150, _TILE_PX), *frames]))
            rows.append(np.zeros((6, rows[-1].shape[1], 3), dtype=np.uint8))
        return {"clips": sheet(rows)}

    def _told(self, truth: int, scores_K: Tensor) -> list[list[tuple[str, tuple[int, int, int]]]]:
        """For each view the lines beside it."""
        says = int(scores_K.argmax())
        color = RIGHT if says == truth else WRONG
        if self.config.motion == "pace":
            prob = float(scores_K.softmax(dim=0)[says])
            anchor = [(f"truth: x{self.config.speeds[truth]}", LIGHT), (f"says:  x{self.config.speeds[says]}", color)]
            return [[*anchor, (f"p {prob:.2f}", color)], [("same video", LIGHT)]]
        keys = []
        for k in range(2):
            cosine = float(scores_K[k]) * self.config.temperature
            fact = "same speed" if k == truth else "another speed"
            keys.append([(fact, LIGHT), (f"cosine {cosine:.2f}", color if k == says else LIGHT)])
        return [[("anchor", LIGHT)], *keys]


def _problems(config: RelativeSpeedConfig, backbone: BackboneInfo) -> Iterator[str]:
    for name, low in {"num_frames": backbone.min_frames, "frame_px": backbone.min_px}.items():
        if getattr(config, name) < low:
            yield f"{name} ({getattr(config, name)}) must be at least {low} for backbone {backbone.name}"
    if len(set(config.speeds)) != len(config.speeds) or len(config.speeds) < 2:
        yield f"speeds ({list(config.speeds)}) must be two or more different numbers"


# ---- measures over an epoch ------------------------------------------------------------------------------------------


def nearest_mean_accuracy(values_N: Tensor, classes_N: Tensor) -> float:
    """How often the class whose mean is nearest to a value is its own; the means are those of the same values."""
    means_K = torch.stack([values_N[classes_N == k].mean() for k in classes_N.unique()])
    nearest_N = (values_N.unsqueeze(1) - means_K).abs().argmin(dim=1)
    return float((classes_N.unique()[nearest_N] == classes_N).float().mean())


def _appearance_metric() -> Metric:
    return collecting(nearer_than_others, ("anchors", "keys", "videos"))


def _nearest_mean_metric() -> Metric:
    return collecting(nearest_mean_accuracy, ("values", "classes"))
