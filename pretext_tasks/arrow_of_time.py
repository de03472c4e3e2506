"""Is this clip played forward or backward?

Learning and Using the Arrow of Time (Wei, Lim, Zisserman, Freeman, CVPR 2018). The sources of each number are in
``docs/tasks/arrow_of_time.md``.
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
from ssvid.bounds import AtLeast, BelowOne, Rule, Share, check_options
from ssvid.pictures import GRAY, LIGHT, RIGHT, WRONG, row, sheet, tiles, words
from ssvid.tasks import BatchRandom, ClipAnswer, ClipQuestion, PretextTask, register_task
from ssvid.transforms import Box, Cut, CutFirst, Cuts, center_square, flip_at_random, random_square
from ssvid.transforms.camera import stabilized, without_camera
from ssvid.transforms.flow import is_flow, no_motion
from ssvid.types import MODALITIES, ClipPlan, TaskOutput, VideoInfo
from ssvid.video.sampling import clip_span, random_clip

if TYPE_CHECKING:
    from torchmetrics import Metric

BelowHalf = Rule("at least 0 and below 0.5", lambda value: 0 <= value < 0.5)
_TILE_PX, _MOST_TILES, _WORDS_PX = 64, 10, 132


@dataclass(frozen=True)
class ArrowOfTimeConfig:
    """Options of the task. The guards against cheating are ``same_batch``, ``border_share`` and ``stabilize``.

    num_frames: frames T of each clip, or of flow. stride_frames: from one to the next.
    groups: parts of equal length that a clip is cut into; each goes through the network by itself, and the head sees their
        maps side by side (the paper: 2 groups of 10 frames of flow).
    same_batch: both directions of a clip are in the batch; otherwise one of them, at random.
    border_share: of each side of the video's frame that is never shown: black framing tells how the camera moves.
    stabilize: a moving camera is taken out, pan, zoom and turn, from how most of the picture moves.
    crop_scale: the least side of a random square in training, as a share of the short side of what is shown. Validation
        takes the middle square. frame_px: side of the square that the network sees. flip: mirror half of the samples.
    layers: convolutions of 3 x 3 cells in the head before its heat map (the paper: 2). dropout: after each of them.
    stage: backbone stage that the head sits on; "" is the last.
    """

    num_frames: Annotated[int, AtLeast(2)] = 20
    stride_frames: Annotated[int, AtLeast(1)] = 1
    groups: Annotated[int, AtLeast(1)] = 2
    same_batch: bool = True
    border_share: Annotated[float, BelowHalf] = 0.0625
    stabilize: bool = True
    crop_scale: Annotated[float, Share] = 0.875
    frame_px: Annotated[int, AtLeast(1)] = 112
    flip: bool = True
    layers: Annotated[int, AtLeast(0)] = 2
    dropout: Annotated[float, BelowOne] = 0.5
    stage: str = ""


# ---- sampling --------------------------------------------------------------------------------------------------------


def inner_square(height: int, width: int, border_share: float, rng: np.random.Generator | None, scale: float) -> Box:
    """A square (top, left, side) that keeps away from the border by its share of each side, rounded up to pixels.

    Args:
        rng: of a random square, its side at least ``scale`` of the short side of what is left; None is the middle one.
    """
    down, right = math.ceil(border_share * height), math.ceil(border_share * width)
    inside = max(1, height - 2 * down), max(1, width - 2 * right)
    top, left, side = center_square(*inside) if rng is None else random_square(*inside, rng, scale)
    return down + top, right + left, side


class ArrowClips(CutFirst):
    """Worker side: a clip in the order of the file, and which ways it will be played."""

    def __init__(self, config: ArrowOfTimeConfig, training: bool) -> None:
        self.config, self.training = config, training

    @property
    def min_frames(self) -> int:
        """From the first to the last frame of a clip."""
        return clip_span(self.config.num_frames, self.config.stride_frames)

    def plan(self, video: VideoInfo, rng: np.random.Generator, batch_rng: np.random.Generator) -> ClipPlan:
        """One view, its frames rising. ``is_backward`` (V,): 0 and 1; without ``same_batch``, in training, one of them."""
        frames = random_clip(rng, video.num_frames, self.config.num_frames, self.config.stride_frames)
        both = np.array([0, 1], dtype=np.int64)
        if self.training and not self.config.same_batch:
            return ClipPlan((frames,), {"is_backward": rng.choice(both, 1)})
        return ClipPlan((frames,), {"is_backward": both})

    def cuts(
        self, height: int, width: int, plan: ClipPlan, rng: np.random.Generator, batch_rng: np.random.Generator
    ) -> Cuts:
        """``clip`` uint8 (T, C, frame_px, frame_px), one square for all frames; ``is_backward`` as planned."""
        c = self.config
        box = inner_square(height, width, c.border_share, rng if self.training else None, c.crop_scale)
        is_backward = torch.from_numpy(plan.targets["is_backward"])
        wanted = (Cut.squares(0, [box], c.frame_px),)
        return Cuts(wanted, lambda clips_TCHW: {"clip": clips_TCHW[0], "is_backward": is_backward})


def played_backward(clips_BCTHW: Tensor) -> Tensor:
    """Clips in [0, 1] with time reversed. Of flow the motion is the opposite one, too.

    Exact where flow was measured alike in both directions of time (``data.flow.symmetric``).
    """
    reversed_BCTHW = clips_BCTHW.flip(2)
    return 2 * no_motion(clips_BCTHW.dtype) - reversed_BCTHW if is_flow(clips_BCTHW, 1) else reversed_BCTHW


# ---- the loss and its head -------------------------------------------------------------------------------------------


def grouped_maps(clips_NCTHW: Tensor, groups: int, backbone: Backbone, stage: str | None) -> Tensor:
    """The maps of equal parts of each clip, side by side as channels: (N, groups * D, T', H', W')."""
    parts = clips_NCTHW.unflatten(2, (groups, -1)).transpose(1, 2).flatten(0, 1)
    maps: Tensor = backbone(parts, stage)
    return maps.unflatten(0, (-1, groups)).flatten(1, 2)


def class_activation(map_NCTHW: Tensor, weight_C: Tensor, bias: Tensor) -> Tensor:
    """How much each place speaks for backward: (N, T', H', W'), w . F(t, h, w) + b, in float32 or finer.

    Its mean is the logit, the difference of the scores of backward and forward: a linear layer on the mean of the map is the
    mean of the linear layer (Zhou 2016; section 3.2 of the paper).
    """
    wide = torch.promote_types(map_NCTHW.dtype, torch.float32)
    with torch.autocast(map_NCTHW.device.type, enabled=False):
        return torch.einsum("ncthw,c->nthw", map_NCTHW.to(wide), weight_C.to(wide)) + bias.to(wide)


def arrow_loss(logits_BV: Tensor, is_backward_BV: Tensor) -> Tensor:
    """Mean binary cross-entropy: -[y log s(z) + (1 - y) log(1 - s(z))], in float32; y = 1 for backward."""
    return F.binary_cross_entropy_with_logits(logits_BV.float(), is_backward_BV.float())


def speeding_up(clips_NCTHW: Tensor) -> Tensor:
    """How much more moves in the second half of a clip than in its first, float (N,): without a network, a guess at backward.

    Motion that is lost is forward. The mean of |frame t - frame t-1| over pixels, of flow that of its length.
    """
    if is_flow(clips_NCTHW, 1):
        moves_NT = (clips_NCTHW.float() - no_motion(torch.float32)).norm(dim=1).mean(dim=(2, 3))
    else:
        moves_NT = clips_NCTHW.float().diff(dim=2).abs().mean(dim=(1, 3, 4))
    half = moves_NT.shape[1] // 2
    return moves_NT[:, moves_NT.shape[1] - half :].mean(dim=1) - moves_NT[:, :half].mean(dim=1)


class ActivationHead(nn.Module):
    """The head of T-CAM: convolutions over space, then one number for each place.

    "Convolution, ReLU, normalization, dropout", ``layers`` times, as wide as the map that it is given.
    """

    def __init__(self, channels: int, layers: int, dropout: float) -> None:
        super().__init__()
        one = [
            [
                nn.Conv3d(channels, channels, (1, 3, 3), padding=(0, 1, 1)),
                nn.ReLU(inplace=True),
                nn.BatchNorm3d(channels),
                nn.Dropout(dropout),
            ]
            for _ in range(layers)
        ]
        self.layers = nn.Sequential(*(module for modules in one for module in modules))
        self.last = nn.Linear(channels, 1)

    def forward(self, map_NCTHW: Tensor) -> Tensor:
        """The heat map (N, T', H', W')."""
        return class_activation(self.layers(map_NCTHW), self.last.weight[0], self.last.bias)


@register_task("arrow_of_time")
class ArrowOfTime(PretextTask):
    """Is this clip played forward or backward? (Wei et al., CVPR 2018)

    Differs: flow is not measured again on the reversed video but alike in both directions of time, and negated; a camera is
    taken out as an affine motion, not by a homography, and nothing is left out for moving much.
    """

    Config = ArrowOfTimeConfig
    targets = ("is_backward",)
    targets_per_view = True
    modalities = MODALITIES
    reverses_time = True
    must_fall = ("static", "shuffled", "noise")
    must_hold = ("reencoded", "border")

    def __init__(self, config: ArrowOfTimeConfig, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        check_options("arrow_of_time", config, _problems(config, backbone))
        self.stage = config.stage or None
        self.head = ActivationHead(config.groups * backbone.stage(self.stage).channels, config.layers, config.dropout)

    def chance(self) -> Mapping[str, float]:
        """Both directions are equally frequent."""
        return {"accuracy": 0.5, "pair_accuracy": 0.5, "auc": 0.5}

    def clip_maker(self, training: bool) -> ArrowClips:
        return ArrowClips(self.config, training)

    def augment(self, batch: dict[str, Any], rng: BatchRandom) -> dict[str, Any]:
        """Flips per sample, no camera, then both directions. ``clip`` becomes ``clips``, float (B, V, C, T, px, px)."""
        clips_BCTHW = batch["clip"].transpose(1, 2).float().div_(255)
        if self.training and self.config.flip:
            clips_BCTHW = flip_at_random(clips_BCTHW, rng.samples)
        clips_BCTHW = self._steady(clips_BCTHW)
        both_BVCTHW = torch.stack([clips_BCTHW, played_backward(clips_BCTHW)], dim=1)
        of_BV = batch["is_backward"]
        samples_B1 = torch.arange(len(of_BV), device=of_BV.device)[:, None]
        kept = {name: value for name, value in batch.items() if name != "clip"}
        return {**kept, "clips": both_BVCTHW[samples_B1, of_BV]}

    def _steady(self, clips_BCTHW: Tensor) -> Tensor:
        """Without the motion of the camera, where that is asked for."""
        if not self.config.stabilize:
            return clips_BCTHW
        return without_camera(clips_BCTHW) if is_flow(clips_BCTHW, 1) else stabilized(clips_BCTHW)

    def forward(self, batch: dict[str, Any], backbone: Backbone) -> TaskOutput:
        clips_BVCTHW, is_backward_BV = batch["clips"], batch["is_backward"]
        map_NCTHW = grouped_maps(clips_BVCTHW.flatten(0, 1), self.config.groups, backbone, self.stage)
        heat_NTHW = self.head(map_NCTHW)
        logits_BV = heat_NTHW.mean(dim=(1, 2, 3)).view_as(is_backward_BV)
        return TaskOutput(
            loss=arrow_loss(logits_BV, is_backward_BV),
            metrics=arrow_metrics(logits_BV.detach(), is_backward_BV),
            scores=self._scores(logits_BV.detach(), is_backward_BV, clips_BVCTHW),
            extras={"logits": logits_BV.detach(), "heat": heat_NTHW.detach().unflatten(0, is_backward_BV.shape)},
        )

    def _scores(self, logits_BV: Tensor, is_backward_BV: Tensor, clips_BVCTHW: Tensor) -> dict[str, tuple[Tensor, ...]]:
        labels = is_backward_BV.flatten()
        scores: dict[str, tuple[Tensor, ...]] = {"auc": (logits_BV.flatten(), labels)}
        if not self.training:  # training has no use for it
            scores["speeding_auc"] = (speeding_up(clips_BVCTHW.flatten(0, 1)), labels)
        return scores

    def epoch_metrics(self) -> Mapping[str, Metric]:
        from torchmetrics.classification import BinaryAUROC  # here: importing it takes seconds

        return {"auc": BinaryAUROC(), "speeding_auc": BinaryAUROC()}

    def clip_question(self) -> ClipQuestion:
        """Validation's clips: as many frames, as large."""
        c = self.config
        return ClipQuestion("played backward", "played forward", c.num_frames, c.frame_px, multiple=c.groups)

    def answer(self, clips_BCTHW: Tensor, backbone: Backbone) -> ClipAnswer:
        """Of each clip the logit of "played backward", and its heat map, whose mean it is (section 3.2)."""
        heat_BTHW = self.head(grouped_maps(self._steady(clips_BCTHW), self.config.groups, backbone, self.stage)).float()
        exact_BTHW = heat_BTHW / heat_BTHW[0, 0].numel()
        return ClipAnswer(heat_BTHW.mean(dim=(1, 2, 3)), 0.0, exact_BTHW, heat_BTHW, heat_BTHW.abs())

    def visualize(self, batch: Mapping[str, Any], output: TaskOutput) -> Mapping[str, np.ndarray]:
        """Up to three pairs. Each clip is a row of frames, and below it where the network sees backward and forward."""
        clips_BVCTHW, heat_BVTHW = batch["clips"][:3], output.extras["heat"][:3].float().cpu()
        logits_BV, truth_BV = output.extras["logits"].float().cpu(), batch["is_backward"].cpu()
        most = float(heat_BVTHW.mean(dim=2).abs().max().clamp(min=1e-6))
        rows = [
            _clip_rows(clips_BVCTHW[b, v], heat_BVTHW[b, v] / most, bool(truth_BV[b, v]), float(logits_BV[b, v]))
            for b in range(clips_BVCTHW.shape[0])
            for v in range(clips_BVCTHW.shape[1])
        ]
        return {"clips": sheet(rows)}


def arrow_metrics(logits_BV: Tensor, is_backward_BV: Tensor) -> dict[str, Tensor]:
    """Share of right answers of each sample; of pairs, whether the backward one has the higher logit, a half where equal."""
    metrics = {"accuracy": ((logits_BV > 0) == (is_backward_BV > 0)).float().mean(dim=1)}
    if is_backward_BV.shape[1] == 2:
        lead_B = logits_BV[:, 1] - logits_BV[:, 0]
        metrics["pair_accuracy"] = (lead_B.sign() + 1) / 2
    return metrics


def _problems(c: ArrowOfTimeConfig, backbone: BackboneInfo) -> Iterator[str]:
    if c.groups > 0 and c.num_frames % c.groups:
        yield f"num_frames ({c.num_frames}) must be a multiple of groups ({c.groups})"
    elif c.groups > 0 and c.num_frames // c.groups < backbone.min_frames:
        least = backbone.min_frames
        yield f"num_frames ({c.num_frames}) must be at least {c.groups * least}: {least} for each of {c.groups} groups"
    if c.frame_px < backbone.min_px:
        yield f"frame_px ({c.frame_px}) must be at least {backbone.min_px} for backbone {backbone.name}"


def _clip_rows(clip_CTHW: Tensor, heat_THW: Tensor, truth: bool, logit: float) -> np.ndarray:
    """Frames with the truth and the verdict beside them; below, the same frames under their heat, red backward, blue forward."""
    step = math.ceil(clip_CTHW.shape[1] / _MOST_TILES)
    frames_NCHW = clip_CTHW[:, ::step].transpose(0, 1).float().cpu()
    plain = tiles(frames_NCHW, _TILE_PX)
    warm_1CHW = _heat_colors(heat_THW.mean(dim=0))
    gray_NCHW = frames_NCHW.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    heated = tiles(0.45 * gray_NCHW + 0.55 * F.interpolate(warm_1CHW, gray_NCHW.shape[-2:], mode="bilinear"), _TILE_PX)
    names, says = ("forward", "backward"), logit > 0
    color = RIGHT if says == truth else WRONG
    told = [
        (f"truth: {names[truth]}", LIGHT),
        (f"says:  {names[says]}", color),
        (f"p(backward) {1 / (1 + math.exp(-logit)):.2f}", GRAY),
    ]
    key = [("speaks for backward", (230, 90, 70)), ("speaks for forward", (90, 130, 240))]
    upper, lower = row([words(told, _WORDS_PX, _TILE_PX), *plain]), row([words(key, _WORDS_PX, _TILE_PX), *heated])
    upper[:3] = color
    return np.pad(np.concatenate([upper, lower]), ((0, 6), (0, 0), (0, 0)))


def _heat_colors(heat_HW: Tensor) -> Tensor:
    """A map from -1 (blue) over 0 (gray) to 1 (red): (1, 3, H, W) in [0, 1]."""
    up, down = heat_HW.clamp(0, 1), (-heat_HW).clamp(0, 1)
    return torch.stack([0.4 + 0.6 * up - 0.3 * down, 0.4 - 0.3 * (up + down), 0.4 + 0.6 * down - 0.3 * up])[None]
