"""What would a teacher that sees the whole clip say of the cells that are hidden?

V-JEPA: Revisiting Feature Prediction for Learning Visual Representations from Video (Bardes, Garrido, Ponce, Chen, Rabbat, LeCun, Assran,
Ballas, TMLR 2024, arXiv 2404.08471) and V-JEPA 2 (Assran et al. 2025, arXiv 2506.09985). The sources of each number are in
``docs/tasks/latent_prediction.md``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssvid.backbones import Backbone, BackboneInfo
from ssvid.backbones.attention import Variant
from ssvid.backbones.tokens import kept_places, take_tokens, tokens_of_map
from ssvid.bounds import AtLeast, Between, Inside, Positive, Rising, Share, check_options
from ssvid.contrast import collecting
from ssvid.data.one_clip import OneClip
from ssvid.momentum import MomentumCopy
from ssvid.pictures import LIGHT, RIGHT, WRONG, row, sheet, tiles, words
from ssvid.tasks import BatchRandom, PretextTask, permute_targets, register_task
from ssvid.token_decoder import FLAT, TokenDecoder, explained, heads_of
from ssvid.token_masks import Blocks, multi_block_masks, no_tokens, part_cubes
from ssvid.transforms import Cut, Cuts, center_square, flip_at_random, random_area, square
from ssvid.types import ClipPlan, TaskOutput

if TYPE_CHECKING:
    from torchmetrics import Metric

_HEAD_WIDTH = 32  # of the predictor's attention
_MEASURED = 32  # values of each token that squares are counted of, evenly spaced
_PICTURES, _MOMENTS, _TILE_PX, _GRAY = 2, 4, 80, 0.5


@dataclass(frozen=True)
class LatentPredictionConfig:
    """Options of the task.

    num_frames, stride_frames: of a clip, and from one of its frames to the next. frame_px: side of the square that the network sees.
    min_area, max_aspect: of the rectangle that is cut out in training: least share of the frame, most width over height or height
        over width. flip: mirror half of the clips.
    num_blocks, block_scales: one mask for each entry: so many blocks, each of such a share of the cells of a moment, at all times.
    block_aspect: height over width of a block, from where to where.
    power: p of the loss |z - h|^p / p.
    momentum: how much of the teacher is kept at each step. momentum_end, momentum_steps: it moves to the end linearly in so many steps;
        with 0 steps it stays.
    predictor_width, predictor_depth: of the transformer that predicts.
    """

    num_frames: Annotated[int, AtLeast(1)] = 16
    stride_frames: Annotated[int, AtLeast(1)] = 4
    frame_px: Annotated[int, AtLeast(1)] = 224
    min_area: Annotated[float, Share] = 0.3
    max_aspect: Annotated[float, AtLeast(1)] = 1.35
    flip: bool = True
    num_blocks: Annotated[tuple[int, ...], AtLeast(1)] = (8, 2)
    block_scales: Annotated[tuple[float, ...], Inside] = (0.15, 0.7)
    block_aspect: Annotated[tuple[float, float], Positive, Rising] = (0.75, 1.5)
    power: Annotated[float, AtLeast(1)] = 1.0
    momentum: Annotated[float, Between(0, 1)] = 0.99925
    momentum_end: Annotated[float, Between(0, 1)] = 1.0
    momentum_steps: Annotated[int, AtLeast(0)] = 0
    predictor_width: Annotated[int, AtLeast(8)] = 384
    predictor_depth: Annotated[int, AtLeast(1)] = 12


class WholeClips(OneClip):
    """Worker side: one clip, and one rectangle of it."""

    def __init__(self, config: LatentPredictionConfig, training: bool) -> None:
        super().__init__(config.num_frames, config.stride_frames)
        self.config, self.training = config, training

    def cuts(
        self, height: int, width: int, plan: ClipPlan, rng: np.random.Generator, batch_rng: np.random.Generator
    ) -> Cuts:
        """``clips`` uint8 (T, C, frame_px, frame_px), one rectangle for all frames."""
        c = self.config
        if self.training:
            rectangle = random_area(height, width, rng, min_area=c.min_area, max_aspect=c.max_aspect)
        else:
            rectangle = square(center_square(height, width))
        return Cuts((Cut(0, (rectangle,), c.frame_px),), lambda clips_TCHW: {"clips": clips_TCHW[0]})


# ---- loss, measures, schedule ----------------------------------------------------------------------------------------


def normalized(tokens_BND: Tensor) -> Tensor:
    """(h - mean h) / sqrt(var h + 1e-5) over the values of each token, without weights; float32."""
    return F.layer_norm(tokens_BND.float(), tokens_BND.shape[-1:])


def prediction_errors(said_BMD: Tensor, target_BMD: Tensor, power: float) -> Tensor:
    """|z - h|^p / p, mean over the values of each token: (B, M), float32 (Bardes et al. 2024, eq. 2, with p = 1)."""
    return (said_BMD.float() - target_BMD.float()).abs().pow(power).mean(dim=2) / power


def squares_left(target_MND: Tensor, counts_MN: Tensor, errors_MN: Tensor) -> tuple[float, float, float]:
    """Squared errors over hidden cells: of the answer 0, of the mean target of each cell over these clips, of what was said.

    Args:
        target_MND: of all cells of M clips. counts_MN: in how many masks a cell is hidden. errors_MN: sum over these masks and the values
            of a token of (z - h)^2.
    """
    target_MND, counts_MN = target_MND.double(), counts_MN.double()
    of_position_MN = (target_MND - target_MND.mean(dim=0)).square().sum(dim=2)
    of_nothing_MN = target_MND.square().sum(dim=2)
    of_nothing, of_position = (float((squares_MN * counts_MN).sum()) for squares_MN in (of_nothing_MN, of_position_MN))
    return of_nothing, of_position, float(errors_MN.double().sum())


def beyond_position(target_MND: Tensor, counts_MN: Tensor, errors_MN: Tensor) -> float:
    """R^2 of what was said beside the mean target of each cell, which is blind to the clip; 0 where that leaves nothing."""
    _, of_position, left = squares_left(target_MND, counts_MN, errors_MN)
    return 1 - left / of_position if of_position > FLAT * counts_MN.sum() else 0.0


def by_position(target_MND: Tensor, counts_MN: Tensor, errors_MN: Tensor) -> float:
    """The share of the squares that the mean target of each cell explains."""
    of_nothing, of_position, _ = squares_left(target_MND, counts_MN, errors_MN)
    return 1 - of_position / of_nothing if of_nothing > FLAT * counts_MN.sum() else 0.0


def momentum_at(config: LatentPredictionConfig, step: int) -> float:
    """m of a step, counted from 1: from ``momentum`` to ``momentum_end`` in ``momentum_steps``, linearly; constant where these are 0."""
    if not config.momentum_steps:
        return config.momentum
    done = min(1.0, step / config.momentum_steps)
    return config.momentum + done * (config.momentum_end - config.momentum)


# ---- the task --------------------------------------------------------------------------------------------------------


@register_task("latent_prediction")
class LatentPrediction(PretextTask):
    """What would a teacher that sees the whole clip say of the cells that are hidden? (V-JEPA, Bardes et al., TMLR 2024)

    The teacher is a copy of the network that follows it, and it is what is exported and evaluated. Hidden cells enter the trained
    network in no way. The placebo has the teacher see the clip of another video.

    Differs: cells are dropped at random where the authors drop the last ones (``ssvid.token_masks.multi_block_masks``); the predictor has a
    table of positions whatever the network has, and its heads are as near to 32 wide as its width allows.
    """

    Config = LatentPredictionConfig
    must_fall = ("noise",)
    must_hold = ("reencoded",)
    example_backbone = "vit"
    exported = "teacher.backbone"
    teacher: MomentumCopy

    def __init__(self, config: LatentPredictionConfig, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        check_options("latent_prediction", config, _problems(config, backbone))
        last = backbone.stage()
        side = config.frame_px // last.stride_space
        self.grid = (config.num_frames // last.stride_time, side, side)
        self.masks = [
            Blocks(num, scale, config.block_aspect)
            for num, scale in zip(config.num_blocks, config.block_scales, strict=True)
        ]
        width = config.predictor_width
        variant = Variant(width, config.predictor_depth, heads_of(width, _HEAD_WIDTH))
        self.predictor = TokenDecoder(last.channels, last.channels, self.grid, variant, num_kinds=len(self.masks))

    def chance(self) -> Mapping[str, float]:
        """The mean target of each cell explains nothing beyond itself, and the answer 0, the mean of every target, nothing at all."""
        return {"explained_beyond_position": 0.0, "explained": 0.0}

    def clip_maker(self, training: bool) -> WholeClips:
        return WholeClips(self.config, training)

    # ---- the teacher

    def setup(self, backbone: Backbone) -> None:
        """The teacher: a copy of the network, which gets no gradient."""
        if not backbone.drops_tokens:
            check_options("latent_prediction", self.config, [no_tokens("cells", backbone.info)])
        self.teacher = MomentumCopy({"backbone": backbone})

    def after_step(self, backbone: Backbone, global_step: int) -> None:
        """The teacher moves: m teacher + (1 - m) network, m as ``momentum_at``."""
        self.teacher.follow({"backbone": backbone}, momentum_at(self.config, global_step))

    @torch.no_grad()
    def targets_of(self, clips_BCTHW: Tensor) -> Tensor:
        """What the teacher says of every cell of whole clips, normalized: float32 (B, N, D)."""
        map_BCTHW = cast(Backbone, self.teacher["backbone"])(clips_BCTHW)
        return normalized(tokens_of_map(map_BCTHW))

    # ---- the step

    def augment(self, batch: dict[str, Any], rng: BatchRandom) -> dict[str, Any]:
        """``clips`` become float (B, C, T, H, W), ``target`` is the same; ``context`` and ``hidden`` are bool (B, masks, N)."""
        clips_BCTHW = batch["clips"].transpose(1, 2).float().div_(255)
        if self.training and self.config.flip:
            clips_BCTHW = flip_at_random(clips_BCTHW, rng.samples)
        clips_BCTHW = clips_BCTHW.contiguous()
        drawn = [multi_block_masks(self.grid, blocks, rng.shared, rng.samples) for blocks in self.masks]
        context_BMN, hidden_BMN = (
            torch.from_numpy(np.stack(masks, axis=1)).to(clips_BCTHW.device) for masks in zip(*drawn, strict=True)
        )
        return {**batch, "clips": clips_BCTHW, "target": clips_BCTHW, "context": context_BMN, "hidden": hidden_BMN}

    def placebo(self, batch: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """The teacher sees the clips of other videos; what the network sees, and which cells are asked for, stays."""
        return permute_targets(batch, ("target",), rng)

    def forward(self, batch: dict[str, Any], backbone: Backbone) -> TaskOutput:
        target_BND = self.targets_of(batch["target"])
        parts, squares_BN = [], torch.zeros(target_BND.shape[:2], device=target_BND.device)
        for mask in range(len(self.masks)):
            context_BN, hidden_BN = (batch[name][:, mask] for name in ("context", "hidden"))
            wanted_BM = kept_places(hidden_BN, len(hidden_BN), self.grid)
            said_BMD = self._predict(batch["clips"], context_BN, wanted_BM, mask, backbone)
            target_BMD = take_tokens(target_BND, wanted_BM)
            guesses = (said_BMD, torch.zeros_like(target_BMD))
            parts.append([prediction_errors(guess, target_BMD, self.config.power) for guess in guesses])
            missed_BM = _measured(said_BMD.detach().float() - target_BMD).square().sum(dim=2)
            squares_BN.scatter_add_(1, wanted_BM, missed_BM)
        errors_B, of_nothing_B = (
            torch.stack([each.mean(dim=1) for each in errors]).mean(dim=0) for errors in zip(*parts, strict=True)
        )
        scores: dict[str, tuple[Tensor, ...]] = {}
        if not self.training:  # training has no use for it
            found = _measured(target_BND).contiguous(), batch["hidden"].sum(dim=1), squares_BN
            scores = dict.fromkeys(("explained_beyond_position", "explained_by_position"), found)
        shares = [explained(errors, of_nothing)[:_PICTURES].detach() for errors, of_nothing in parts]
        metrics = {"explained": explained(errors_B, of_nothing_B).detach()}
        return TaskOutput(errors_B.mean(), metrics, scores, extras={"shares": shares})

    def _predict(
        self, clips_BCTHW: Tensor, context_BN: Tensor, wanted_BM: Tensor, mask: int, backbone: Backbone
    ) -> Tensor:
        map_BCTHW = backbone(clips_BCTHW, None, keep_BN=context_BN)
        seen_BK = kept_places(context_BN, len(context_BN), self.grid)
        return self.predictor(tokens_of_map(map_BCTHW, context_BN), seen_BK, wanted_BM, mask)

    def epoch_metrics(self) -> Mapping[str, Metric]:
        """What is explained beyond the mean target of each cell, and by it, over the clips of a whole validation."""
        names = ("targets", "counts", "errors")
        measures = {"explained_beyond_position": beyond_position, "explained_by_position": by_position}
        return {name: collecting(measure, names) for name, measure in measures.items()}

    # ---- pictures

    def visualize(self, batch: Mapping[str, Any], output: TaskOutput) -> Mapping[str, np.ndarray]:
        """Up to two clips, four moments of each: the clip, and for each kind of mask what the network sees, with the cells that it
        predicts from red (nothing is explained) to green (all is).
        """
        rows = []
        picked = np.linspace(0, self.grid[0] - 1, min(_MOMENTS, self.grid[0])).round().astype(int)
        for sample, clip_CTHW in enumerate(batch["clips"][:_PICTURES].float().cpu()):
            shown = [("the clip", clip_CTHW)]
            for mask, shares_BM in enumerate(output.extras["shares"]):
                context_N, hidden_N = (batch[name][sample, mask].cpu() for name in ("context", "hidden"))
                painted = self._painted(clip_CTHW, context_N, hidden_N, shares_BM[sample].cpu())
                shown.append((f"{self.masks[mask].num} blocks", painted))
            stride = self.backbone_info.stage().stride_time
            for name, frames_CTHW in shown:
                told = words([(name, LIGHT)], 120, _TILE_PX)
                moments_TCHW = frames_CTHW[:, ::stride][:, picked].transpose(0, 1)
                rows.append(row([told, *tiles(moments_TCHW, _TILE_PX)], 2))
        return {"cells": sheet(rows)}

    def _painted(self, clip_CTHW: Tensor, context_N: Tensor, hidden_N: Tensor, shares_M: Tensor) -> Tensor:
        """A clip with all but the cells of the context painted over."""
        good, bad = (torch.tensor(color).float().div(255) for color in (RIGHT, WRONG))
        color_NC = torch.full((len(context_N), 3), _GRAY)
        color_NC[hidden_N] = bad + shares_M.clamp(0, 1)[:, None] * (good - bad)
        seen_NC = context_N[:, None].expand(-1, 3).float()
        color_CTHW, seen_CTHW = (self._spread(cells_NC) for cells_NC in (color_NC, seen_NC))
        return torch.where(seen_CTHW > 0, clip_CTHW, color_CTHW)

    def _spread(self, cells_NC: Tensor) -> Tensor:
        """Every cell as the frames and pixels that it covers."""
        last = self.backbone_info.stage()
        map_CTHW = cells_NC.T.unflatten(1, self.grid)
        for axis, stride in zip((1, 2, 3), (last.stride_time, last.stride_space, last.stride_space), strict=True):
            map_CTHW = map_CTHW.repeat_interleave(stride, dim=axis)
        return map_CTHW


def _measured(tokens_BND: Tensor) -> Tensor:
    """The values of each token that squares are counted of: all, or ``_MEASURED`` of them at least, evenly spaced."""
    return tokens_BND[..., :: max(1, tokens_BND.shape[-1] // _MEASURED)]


def _problems(config: LatentPredictionConfig, backbone: BackboneInfo) -> Iterable[str]:
    last = backbone.stage()
    yield from part_cubes(config.num_frames, config.frame_px, backbone)
    if config.frame_px == last.stride_space:
        least = 2 * last.stride_space
        yield f"frame_px ({config.frame_px}) must be at least {least}: with one cell to a frame there is none to see and one to hide"
    if len(config.num_blocks) != len(config.block_scales) or not config.num_blocks:
        yield (
            f"num_blocks {config.num_blocks} and block_scales {config.block_scales} must have as many entries as one another, and at "
            "least one: an entry for each mask"
        )
    if config.predictor_width % 8:
        yield f"predictor_width ({config.predictor_width}) must be a multiple of 8"
