"""Is this clip at its natural speed, or sped up?

SpeedNet: Learning the Speediness in Videos (Benaim et al., CVPR 2020, arXiv 2004.06130). No official code exists; the
sources of each number are in ``docs/tasks/speediness.md``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssvid.backbones import Backbone, BackboneInfo
from ssvid.bounds import AtLeast, OneOf, Rising, Share, check_options
from ssvid.pictures import row, sheet, tiles
from ssvid.tasks import BatchRandom, ClipAnswer, ClipQuestion, PretextTask, pooled_answer, register_task
from ssvid.transforms import (
    Cut,
    CutFirst,
    Cuts,
    Rectangle,
    center_square,
    flip_at_random,
    random_square,
    resize_clips,
    square,
)
from ssvid.types import MODALITIES, ClipPlan, TaskOutput, VideoInfo

if TYPE_CHECKING:
    from torchmetrics import Metric

MAX_REDRAWS = 100
_TILE_PX, _MOST_TILES = 64, 16


@dataclass(frozen=True)
class SpeedinessConfig:
    """Options of the task. The three guards against cheating are ``same_batch``, ``spacing`` and ``random_resolution``.

    num_frames: frames T of each clip (the paper trains on 64). eval_frames: in validation; 0 is as
        many as in training.
    normal_factors, sped_factors: ranges of the speed factor of the two classes.
    spacing: temporal guard. ``even``: frames evenly spaced in both classes (nearest frame); ``drop``: frames dropped
        alike in both classes, the sped version being the normal one at twice the step; ``drop_paper``: each class
        drops by its own factor, as published; ``off``: speeds are exactly 1 and 2.
    same_batch: both versions of a clip are in the batch; otherwise one of the two, at random.
    random_resolution: every batch is resized to one random side in [min_px, max_px]; otherwise to ``eval_px``.
    crop: of training frames. ``square``: a random square, its side at least ``crop_scale`` of the short side of the
        video; ``whole``: the whole frame, squashed to a square, as published. Validation takes the middle square.
    frame_px: side of the square that a worker sends. eval_px: side in validation. flip: mirror half of the samples.
    space_pool, time_pool: of the head: ``max`` or ``mean``; the paper has the maximum over space, the mean over time.
    stage: backbone stage that the head sits on; "" is the last.
    """

    num_frames: Annotated[int, AtLeast(2)] = 64
    eval_frames: Annotated[int, AtLeast(0)] = 0
    normal_factors: Annotated[tuple[float, float], AtLeast(1), Rising] = (1.0, 1.2)
    sped_factors: Annotated[tuple[float, float], AtLeast(1), Rising] = (1.7, 2.2)
    spacing: Annotated[str, OneOf("even", "drop", "drop_paper", "off")] = "even"
    same_batch: bool = True
    random_resolution: bool = True
    min_px: Annotated[int, AtLeast(1)] = 64
    max_px: Annotated[int, AtLeast(1)] = 336
    eval_px: Annotated[int, AtLeast(1)] = 224
    crop: Annotated[str, OneOf("square", "whole")] = "square"
    crop_scale: Annotated[float, Share] = 0.7
    frame_px: Annotated[int, AtLeast(1)] = 256
    flip: bool = True
    space_pool: Annotated[str, OneOf("max", "mean")] = "max"
    time_pool: Annotated[str, OneOf("max", "mean")] = "mean"
    stage: str = ""


# ---- sampling: pure index arithmetic ---------------------------------------------------------------------------------


def even_offsets(num_frames: int, factor: float) -> np.ndarray:
    """Frame offsets of a clip played ``factor`` times as fast, evenly spaced: round(k * factor), k = 0..T-1."""
    return np.floor(np.arange(num_frames) * factor + 0.5).astype(np.int64)


def dropped_offsets(num_frames: int, factor: float, rng: np.random.Generator) -> np.ndarray:
    """Offsets of the first T frames that survive when each frame is dropped with probability 1 - 1/factor.

    The first frame always survives. The mean gap between survivors is ``factor`` (SpeedNet, section 3.1).
    """
    gaps = rng.geometric(1.0 / factor, size=num_frames - 1)
    return np.concatenate([[0], np.cumsum(gaps)]).astype(np.int64)


def frames_needed(num_frames: int, factor: float) -> int:
    """Consecutive frames that an evenly spaced clip of that factor spans."""
    return int(even_offsets(num_frames, factor)[-1]) + 1


def draw_offsets(config: SpeedinessConfig, available: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Offsets of the normal and of the sped-up version of one clip, both within ``available`` frames.

    With ``drop`` one pattern of gaps serves both versions, doubled for the sped one: the spacing relative to the step
    is the same, so that irregularity tells nothing. A draw that does not fit is drawn again, for both versions alike.
    """
    T = config.num_frames
    exact = np.arange(T, dtype=np.int64)
    if config.spacing == "off":
        return exact, 2 * exact
    for _ in range(MAX_REDRAWS):
        normal_factor = float(rng.uniform(*config.normal_factors))
        sped_factor = float(rng.uniform(*config.sped_factors))
        if config.spacing == "even":
            pair = even_offsets(T, normal_factor), even_offsets(T, sped_factor)
        elif config.spacing == "drop":
            offsets = dropped_offsets(T, normal_factor, rng)
            pair = offsets, 2 * offsets
        else:
            pair = dropped_offsets(T, normal_factor, rng), dropped_offsets(T, sped_factor, rng)
        if max(pair[0][-1], pair[1][-1]) < available:
            return pair
    return exact, 2 * exact  # the video is barely long enough for speeds 1 and 2


class SpeedinessClips(CutFirst):
    """Worker side: two versions of one window of a video, cut to the same square."""

    def __init__(self, config: SpeedinessConfig, training: bool) -> None:
        self.config, self.training = config, training
        self.num_frames = config.num_frames if training else config.eval_frames or config.num_frames

    @property
    def min_frames(self) -> int:
        """Both versions fit at every even factor, and at speed 2."""
        fastest = max(2.0, self.config.sped_factors[1]) if self.training else 2.0
        return frames_needed(self.num_frames, fastest)

    def plan(self, video: VideoInfo, rng: np.random.Generator, batch_rng: np.random.Generator) -> ClipPlan:
        """Windows and labels. Validation compares speed 1 with speed 2, evenly spaced, both versions always."""
        if self.training:
            normal, sped = draw_offsets(self.config, video.num_frames, rng)
        else:
            normal = np.arange(self.num_frames, dtype=np.int64)
            sped = 2 * normal
        # The shorter version lies anywhere within the longer one's window: one stretch of video, one read.
        long, short = (sped, normal) if sped[-1] >= normal[-1] else (normal, sped)
        start = int(rng.integers(video.num_frames - long[-1]))
        inner = start + int(rng.integers(long[-1] - short[-1] + 1))
        views = (inner + normal, start + sped) if long is sped else (start + normal, inner + sped)
        labels = np.array([0, 1], dtype=np.int64)
        if self.training and not self.config.same_batch:
            keep = int(rng.integers(2))
            return ClipPlan((views[keep],), {"is_sped": labels[keep : keep + 1]})
        return ClipPlan(views, {"is_sped": labels})

    def cuts(
        self, height: int, width: int, plan: ClipPlan, rng: np.random.Generator, batch_rng: np.random.Generator
    ) -> Cuts:
        """``clips`` uint8 (V, T, C, frame_px, frame_px) and ``is_sped`` int64 (V,); one square for all versions."""
        rectangle = self._rectangle(height, width, rng)
        wanted = tuple(Cut(view, (rectangle,), self.config.frame_px) for view in range(len(plan.views)))
        is_sped = torch.from_numpy(plan.targets["is_sped"])
        return Cuts(wanted, lambda clips_TCHW: {"clips": torch.stack(clips_TCHW), "is_sped": is_sped})

    def _rectangle(self, height: int, width: int, rng: np.random.Generator) -> Rectangle:
        c = self.config
        if self.training and c.crop == "whole":
            return 0, 0, height, width
        box = random_square(height, width, rng, c.crop_scale) if self.training else center_square(height, width)
        return square(box)


# ---- the loss and its head -------------------------------------------------------------------------------------------


def speediness_logits(
    map_BCTHW: Tensor, weight_C: Tensor, bias: Tensor, space_pool: str = "max", time_pool: str = "mean"
) -> Tensor:
    """One logit per clip: maximum over space, then mean over time, then a linear layer. Positive means sped up.

    z = w . mean_t max_hw map(t, h, w) + b (SpeedNet, section 3.2: the most telling mover of each frame decides, and
    the mean over time calms bursts). The other ways of pooling are there to be compared with it.
    """
    map_BCT = map_BCTHW.amax(dim=(3, 4)) if space_pool == "max" else map_BCTHW.mean(dim=(3, 4))
    map_BC = map_BCT.amax(dim=2) if time_pool == "max" else map_BCT.mean(dim=2)
    return map_BC @ weight_C + bias


def mean_difference(clips_NCTHW: Tensor) -> Tensor:
    """How much a clip changes from frame to frame: mean |frame t - frame t-1| over pixels and time, float (N,).

    A guess without a network, in the place of the paper's mean-flow baseline: more change, so sped up.
    Differs: differences of pixels instead of optical flow, which would cost more than the network.
    """
    return clips_NCTHW.diff(dim=2).abs().mean(dim=(1, 2, 3, 4)).float()


def speediness_loss(logits: Tensor, is_sped: Tensor) -> Tensor:
    """Mean binary cross-entropy: -[y log s(z) + (1 - y) log(1 - s(z))], in float32."""
    return F.binary_cross_entropy_with_logits(logits.float(), is_sped.float())


@register_task("speediness")
class Speediness(PretextTask):
    """Is this clip at its natural speed, or sped up? (SpeedNet, Benaim et al., CVPR 2020)

    Differs: the published random dropping gives the two classes different irregularity, which a network can read
    instead of speed, so both classes are evenly spaced by default (``spacing``).
    """

    Config = SpeedinessConfig
    targets = ("is_sped",)
    targets_per_view = True
    modalities = MODALITIES
    must_fall = ("static", "noise")
    must_hold = ("reencoded", "border")

    def __init__(self, config: SpeedinessConfig, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        check_options("speediness", config, _problems(config, max(2, backbone.min_frames)))
        self.stage = config.stage or None
        self.head = nn.Linear(backbone.stage(self.stage).channels, 1)

    def chance(self) -> Mapping[str, float]:
        """Both classes are equally frequent."""
        return {"accuracy": 0.5, "auc": 0.5}

    def clip_maker(self, training: bool) -> SpeedinessClips:
        return SpeedinessClips(self.config, training)

    def augment(self, batch: dict[str, Any], rng: BatchRandom) -> dict[str, Any]:
        """One side in pixels for the whole batch, flips per sample. ``clips`` become float (B, V, C, T, N, N)."""
        training = self.training
        size_px = self.config.eval_px
        if training and self.config.random_resolution:
            size_px = int(rng.shared.integers(self.config.min_px, self.config.max_px + 1))
        clips_BVTCHW = batch["clips"]
        B, V = clips_BVTCHW.shape[:2]
        clips = resize_clips(clips_BVTCHW.flatten(0, 1).transpose(1, 2).float().div_(255), size_px).clamp_(0, 1)
        clips_BVCTHW = clips.unflatten(0, (B, V))
        if training and self.config.flip:
            clips_BVCTHW = flip_at_random(clips_BVCTHW, rng.samples)
        return {**batch, "clips": clips_BVCTHW}

    def forward(self, batch: dict[str, Any], backbone: Backbone) -> TaskOutput:
        clips_BVCTHW, is_sped_BV = batch["clips"], batch["is_sped"]
        map_BCTHW = backbone(clips_BVCTHW.flatten(0, 1), self.stage)
        pools = self.config.space_pool, self.config.time_pool
        logits = speediness_logits(map_BCTHW, self.head.weight[0], self.head.bias, *pools).float()
        labels = is_sped_BV.flatten()
        correct_BV = ((logits > 0) == (labels > 0)).float().view_as(is_sped_BV)
        scores = {"auc": (logits.detach(), labels)}
        if not self.training:  # training has no use for it
            scores["difference_auc"] = (mean_difference(clips_BVCTHW.flatten(0, 1)), labels)
        return TaskOutput(
            loss=speediness_loss(logits, labels),
            metrics={"accuracy": correct_BV.mean(dim=1)},
            scores=scores,
            extras={"sped_prob": logits.detach().sigmoid().view_as(is_sped_BV)},
        )

    def epoch_metrics(self) -> Mapping[str, Metric]:
        from torchmetrics.classification import BinaryAUROC  # here: importing it takes seconds

        return {"auc": BinaryAUROC(), "difference_auc": BinaryAUROC()}

    def clip_question(self) -> ClipQuestion:
        """Validation's clips: as many frames, as large."""
        num_frames = self.config.eval_frames or self.config.num_frames
        return ClipQuestion("sped up", "at its natural speed", num_frames, self.config.eval_px, is_speed=True)

    def answer(self, clips_BCTHW: Tensor, backbone: Backbone) -> ClipAnswer:
        """Of each clip the logit of "sped up", and which places of which frames it comes from (SpeedNet, section 4.4)."""
        pools = self.config.space_pool, self.config.time_pool
        return pooled_answer(backbone(clips_BCTHW, self.stage), self.head.weight[0], self.head.bias[0], *pools)

    def visualize(self, batch: Mapping[str, Any], output: TaskOutput) -> Mapping[str, np.ndarray]:
        """Up to four pairs: one row of frames per version. Bars at the left: truth above, the network's score below."""
        clips_BVCTHW = batch["clips"][:4]
        probs_BV = output.extras["sped_prob"][:4].float().cpu().numpy()
        truth_BV = batch["is_sped"][:4].cpu().numpy()
        rows = [
            _clip_row(clips_BVCTHW[b, v], float(truth_BV[b, v]), float(probs_BV[b, v]))
            for b in range(clips_BVCTHW.shape[0])
            for v in range(clips_BVCTHW.shape[1])
        ]
        return {"clips": sheet(rows)}


def _problems(c: SpeedinessConfig, least: int) -> Iterator[str]:
    if c.num_frames < least:
        yield f"num_frames ({c.num_frames}) must be at least {least}"
    if c.eval_frames and c.eval_frames < least:
        yield f"eval_frames ({c.eval_frames}) must be 0 or at least {least}"
    if not c.normal_factors[1] < c.sped_factors[0]:
        yield f"normal_factors must end ({c.normal_factors[1]:g}) below the start of sped_factors ({c.sped_factors[0]:g})"
    if c.min_px > c.max_px:
        yield f"min_px ({c.min_px}) must be at most max_px ({c.max_px})"


def _clip_row(clip_CTHW: Tensor, truth: float, prob: float) -> np.ndarray:
    """A row of frames with two bars: the length of the green one is the truth, of the blue one the score."""
    step = math.ceil(clip_CTHW.shape[1] / _MOST_TILES)
    bars = np.full((_TILE_PX, _TILE_PX, 3), 40, dtype=np.uint8)
    bars[8:28, : round(truth * _TILE_PX)] = (90, 200, 90)
    bars[36:56, : round(prob * _TILE_PX)] = (90, 140, 240)
    return np.pad(row([bars, *tiles(clip_CTHW[:, ::step].transpose(0, 1), _TILE_PX)]), ((0, 2), (0, 0), (0, 0)))
