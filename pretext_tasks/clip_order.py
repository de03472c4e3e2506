"""In which order were these clips of a video?

VCOP: Self-supervised Spatiotemporal Learning via Video Clip Order Prediction (Xu et al., CVPR 2019). The sources of each
number are in ``docs/tasks/clip_order.md``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from ssvid.backbones import Backbone, BackboneInfo
from ssvid.bounds import AtLeast, BelowOne, OneOf, Share, check_options
from ssvid.orders import (
    PairwiseHead,
    draw_orders,
    in_orders,
    order_output,
    order_rows,
    orders_of,
    pixel_costs,
)
from ssvid.pictures import row, sheet, tiles
from ssvid.tasks import BatchRandom, PretextTask, register_task
from ssvid.transforms import Box, Cut, CutFirst, Cuts, flip_at_random
from ssvid.types import MODALITIES, ClipPlan, TaskOutput, VideoInfo
from ssvid.video.sampling import clip_span

_TILE_PX = 72


@dataclass(frozen=True)
class ClipOrderConfig:
    """Options of the task. A window is ``num_clips`` clips of one video, one after another.

    num_clips: 3 is the paper, 6 orders; 4 are 24 orders. num_frames, stride_frames: of each clip, and from one of its frames
    to the next. gap_frames: frames left out between two clips, so that no clip begins where another ends.
    every_order: each window is shown in all its orders, which costs no more passes through the network; otherwise in one
        drawn at random (the paper).
    frame_px: side of the square that a worker cuts out and the network sees. crop_scale: side of that square as a share of
        the short side of the video. same_crop: one square for all clips of a window; otherwise one for each (the paper), so
        that no pixel tells by its place where a clip goes on. Validation takes the middle square. flip: mirror half of the
        windows.
    grid: cells per side to which a clip's feature map is averaged before the head; 1 is the paper.
    hidden: width of the layer that compares two clips. pair_norm: batch normalization in it; the paper has none. dropout:
        before the last layer.
    stage: backbone stage that the head sits on; "" is the last.
    """

    num_clips: Annotated[int, OneOf(2, 3, 4)] = 3
    num_frames: Annotated[int, AtLeast(1)] = 16
    stride_frames: Annotated[int, AtLeast(1)] = 1
    gap_frames: Annotated[int, AtLeast(0)] = 8
    every_order: bool = False
    frame_px: Annotated[int, AtLeast(1)] = 112
    crop_scale: Annotated[float, Share] = 0.875
    same_crop: bool = False
    flip: bool = False
    grid: Annotated[int, AtLeast(1)] = 1
    hidden: Annotated[int, AtLeast(1)] = 512
    pair_norm: bool = False
    dropout: Annotated[float, BelowOne] = 0.5
    stage: str = ""


# ---- sampling: pure index arithmetic ---------------------------------------------------------------------------------


def window_offsets(num_clips: int, num_frames: int, stride_frames: int, gap_frames: int) -> np.ndarray:
    """Frames of the clips of a window from its first one, int64 (num_clips, num_frames).

    Clip n begins ``gap_frames`` frames after the last one of clip n - 1: at n (span + gap_frames), with the span
    (num_frames - 1) stride_frames + 1.
    """
    starts_N = np.arange(num_clips, dtype=np.int64) * (clip_span(num_frames, stride_frames) + gap_frames)
    return starts_N[:, None] + np.arange(num_frames, dtype=np.int64) * stride_frames


class ClipOrderClips(CutFirst):
    """Worker side: the clips of one window in the order of time; in which order they are shown stands in the plan."""

    def __init__(self, config: ClipOrderConfig, training: bool) -> None:
        self.config, self.training = config, training
        c = config
        self.offsets_NT = window_offsets(c.num_clips, c.num_frames, c.stride_frames, c.gap_frames)

    @property
    def min_frames(self) -> int:
        """The window in frames."""
        return int(self.offsets_NT[-1, -1]) + 1

    def plan(self, video: VideoInfo, rng: np.random.Generator, batch_rng: np.random.Generator) -> ClipPlan:
        """One view: all clips of a window, which starts anywhere. Validation shows each window in every order.

        Targets: ``order_class`` (V,), which of the orders; ``order`` (V, N), the clips' numbers as they are shown.
        """
        start = int(rng.integers(video.num_frames - self.min_frames + 1))
        orders_KN = orders_of(self.config.num_clips)
        classes_V = draw_orders(orders_KN, rng, every=self.config.every_order or not self.training)
        targets = {"order_class": classes_V, "order": orders_KN[classes_V]}
        return ClipPlan(((start + self.offsets_NT).flatten(),), targets)

    def cuts(
        self, height: int, width: int, plan: ClipPlan, rng: np.random.Generator, batch_rng: np.random.Generator
    ) -> Cuts:
        """clips uint8 (N, T, C, px, px), one square for all frames of a clip; ``order_class`` and ``order`` as planned."""
        targets = {name: torch.from_numpy(plan.targets[name]) for name in ("order_class", "order")}
        boxes = [box for box in self._boxes(height, width, rng) for _ in range(self.config.num_frames)]

        def sample(cuts_TCHW: tuple[Tensor, ...]) -> dict[str, Tensor]:
            return {"clips": cuts_TCHW[0].unflatten(0, (-1, self.config.num_frames)), **targets}

        return Cuts((Cut.squares(0, boxes, self.config.frame_px),), sample)

    def _boxes(self, height: int, width: int, rng: np.random.Generator) -> list[Box]:
        """A square for each clip."""
        c = self.config
        side = max(1, round(min(height, width) * c.crop_scale))
        down, right = height - side, width - side
        if not self.training:
            return [(down // 2, right // 2, side)] * c.num_clips
        moves = rng.integers([down + 1, right + 1], size=(1 if c.same_crop else c.num_clips, 2))
        boxes = [(int(top), int(left), side) for top, left in moves]
        return boxes * (c.num_clips // len(boxes))


# ---- the task --------------------------------------------------------------------------------------------------------


@register_task("clip_order")
class ClipOrder(PretextTask):
    """In which order were these clips of a video? (VCOP, Xu et al., CVPR 2019)

    Differs: squares of seven eighths of the short side are cut out, and only then resized, so that the aspect is kept;
    validation shows each window in every order.
    """

    Config = ClipOrderConfig
    targets = ("order_class",)
    targets_per_view = True
    modalities = MODALITIES
    must_fall = ("static", "shuffled", "noise")
    must_hold = ("reencoded",)

    orders_KN: Tensor

    def __init__(self, config: ClipOrderConfig, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        check_options("clip_order", config, _problems(config, backbone))
        self.stage = config.stage or None
        orders_KN = orders_of(config.num_clips)
        self.register_buffer("orders_KN", torch.from_numpy(orders_KN.copy()), persistent=False)
        width = backbone.stage(self.stage).channels * config.grid**2
        self.head = PairwiseHead(
            width, *orders_KN.T.shape, hidden=config.hidden, dropout=config.dropout, pair_norm=config.pair_norm
        )

    def chance(self) -> Mapping[str, float]:
        """All orders are equally frequent."""
        return {"accuracy": 1 / len(self.orders_KN)}

    def clip_maker(self, training: bool) -> ClipOrderClips:
        return ClipOrderClips(self.config, training)

    def augment(self, batch: dict[str, Any], rng: BatchRandom) -> dict[str, Any]:
        """Flips per window. ``clips`` become float (B, N, C, T, px, px)."""
        clips_BNCTHW = batch["clips"].transpose(2, 3).float().div_(255)
        if self.training and self.config.flip:
            clips_BNCTHW = flip_at_random(clips_BNCTHW, rng.samples)
        return {**batch, "clips": clips_BNCTHW.contiguous()}

    def forward(self, batch: dict[str, Any], backbone: Backbone) -> TaskOutput:
        clips_BNCTHW, order_BVN = batch["clips"], batch["order"]
        logits_BVK = self.head(in_orders(clips_BNCTHW, order_BVN, backbone, self.stage, self.config.grid))
        cost_BNN = pixel_costs(clips_BNCTHW[:, :, :, -1], clips_BNCTHW[:, :, :, 0])
        return order_output(logits_BVK, batch["order_class"], cost_BNN, order_BVN, self.orders_KN)

    def visualize(self, batch: Mapping[str, Any], output: TaskOutput) -> Mapping[str, np.ndarray]:
        """Up to four windows, each in one of its orders: the first and the last frame of its clips, as shown and as sorted."""
        orders_KN = self.orders_KN.cpu().numpy()
        rows = []
        for b, clips_NCTHW in enumerate(batch["clips"][:4]):
            v = (2 * b + 1) % batch["order"].shape[1]
            moments = [row(tiles(clip_CTHW[:, [0, -1]].transpose(0, 1), _TILE_PX)) for clip_CTHW in clips_NCTHW]
            said = orders_KN[int(output.extras["said"][b, v])]
            rows.append(order_rows(moments, batch["order"][b, v].cpu().numpy(), said))
        return {"orders": sheet(rows)}


def _problems(config: ClipOrderConfig, backbone: BackboneInfo) -> Iterator[str]:
    for name, low in (("num_frames", backbone.min_frames), ("frame_px", backbone.min_px)):
        if getattr(config, name) < low:
            yield f"{name} ({getattr(config, name)}) must be at least {low} for backbone {backbone.name}"
