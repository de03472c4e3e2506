"""Put these frames of a video in order.

OPN: Unsupervised Representation Learning by Sorting Sequences (Lee et al., ICCV 2017, arXiv 1708.01246). The sources of each
number are in ``docs/tasks/frame_sorting.md``.
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
from ssvid.errors import DataError
from ssvid.orders import (
    PairwiseHead,
    draw_orders,
    in_orders,
    order_output,
    order_rows,
    orders_of,
    pixel_costs,
)
from ssvid.pictures import sheet, tiles
from ssvid.tasks import BatchRandom, PretextTask, register_task
from ssvid.transforms import Box, Cut, CutFirst, Cuts, center_square, flip_at_random, random_square
from ssvid.transforms.moving import pick_window, window_motion
from ssvid.types import ClipPlan, TaskOutput, VideoInfo
from ssvid.video.sampling import window_weights

NUM_PLACES, NUM_BEST = (
    8,
    10,
)  # patches are looked for at so many places a side, and one of so many that move most is taken
_TILE_PX = 96


@dataclass(frozen=True)
class FrameSortingConfig:
    """Options of the task. A window is ``num_moments`` moments of one video; which way time runs is not asked.

    num_moments: 4 is the paper, 12 answers; 3 are 3 answers.
    min_step, max_step: shortest and longest distance in frames from a moment to the next; each is drawn evenly.
    frames_per_moment: consecutive frames shown of each moment; 1 is the paper.
    every_order: each window is shown in an order of every class, which costs no more passes through the network; otherwise
        in one drawn at random (the paper). Half of the windows run backward.
    motion_power: windows are drawn in proportion to this power of their mean optical flow; 0 draws all alike. Needs
        ``ssvid data index ROOT --motion`` once.
    frame_px: side of the patch that the network sees. patch_share: its side as a share of the square that a worker cuts
        out; below 1 the patch lies where most moves (the paper), one of ten places in training, the best in validation.
    jitter_px: every moment's patch is moved by up to so many pixels, down and across, each by its own draw; guards against
        order by place.
    channels: ``split``, each moment shows one color channel of its own draw, three times (the paper); ``gray``, the mean
        of the channels; ``rgb``. The first two guard against order by color.
    crop_scale: least side of the square that a worker cuts out, as a share of the short side. flip: mirror half of the
        windows.
    grid: cells per side to which a moment's feature map is averaged before the head. hidden: width of the layer that
        compares two moments. dropout: before the last layer.
    stage: backbone stage that the head sits on; "" is the last.
    """

    num_moments: Annotated[int, OneOf(3, 4)] = 4
    min_step: Annotated[int, AtLeast(1)] = 3
    max_step: Annotated[int, AtLeast(1)] = 10
    frames_per_moment: Annotated[int, AtLeast(1)] = 1
    every_order: bool = False
    motion_power: Annotated[float, AtLeast(0)] = 0.0
    frame_px: Annotated[int, AtLeast(1)] = 80
    patch_share: Annotated[float, Share] = 0.42
    jitter_px: Annotated[int, AtLeast(0)] = 5
    channels: Annotated[str, OneOf("split", "gray", "rgb")] = "split"
    crop_scale: Annotated[float, Share] = 1.0
    flip: bool = True
    grid: Annotated[int, AtLeast(1)] = 1
    hidden: Annotated[int, AtLeast(1)] = 512
    dropout: Annotated[float, BelowOne] = 0.5
    stage: str = ""


# ---- sampling: pure index arithmetic ---------------------------------------------------------------------------------


def draw_moments(
    num_moments: int, min_step: int, max_step: int, available: int, rng: np.random.Generator
) -> np.ndarray:
    """Offsets of the moments from the first one, rising, int64 (num_moments,); the last is at most ``available``.

    Each step is uniform in [min_step, max_step], as far as room is left; which step is drawn first is random, so that
    none is favored where there is little room.
    """
    room = available - (num_moments - 1) * min_step
    steps = np.full(num_moments - 1, min_step, dtype=np.int64)
    for place in rng.permutation(num_moments - 1):
        longer = int(rng.integers(min(max_step - min_step, room) + 1))
        steps[place] += longer
        room -= longer
    return np.concatenate([[0], np.cumsum(steps)])


class FrameSortingClips(CutFirst):
    """Worker side: the moments of one window as time runs, or backward; in which order they are shown stands in the plan."""

    def __init__(self, config: FrameSortingConfig, training: bool) -> None:
        self.config, self.training = config, training

    @property
    def min_frames(self) -> int:
        """The shortest window in frames."""
        c = self.config
        return (c.num_moments - 1) * c.min_step + c.frames_per_moment

    @property
    def signals(self) -> tuple[str, ...]:
        """The per-frame measurement that the options need."""
        return ("motion",) if self.config.motion_power else ()

    def plan(self, video: VideoInfo, rng: np.random.Generator, batch_rng: np.random.Generator) -> ClipPlan:
        """One view: the moments as time runs, in half of the windows backward. Validation shows each window in every order.

        Targets: ``order_class`` (V,), which of the orders up to reversal; ``order`` (V, N), the moments' numbers as they are
        shown.
        """
        c = self.config
        available = video.num_frames - c.frames_per_moment
        offsets_N = draw_moments(c.num_moments, c.min_step, c.max_step, available, rng)
        first_N = offsets_N + self._start(video, int(offsets_N[-1]) + c.frames_per_moment, rng)
        frames_NT = first_N[:, None] + np.arange(c.frames_per_moment, dtype=np.int64)
        if rng.integers(2):
            frames_NT = frames_NT[::-1, ::-1]
        orders_KN = orders_of(c.num_moments, up_to_reversal=True)
        classes_V = draw_orders(orders_KN, rng, every=c.every_order or not self.training)
        return ClipPlan((frames_NT.flatten(),), {"order_class": classes_V, "order": orders_KN[classes_V]})

    def _start(self, video: VideoInfo, length: int, rng: np.random.Generator) -> int:
        if not self.config.motion_power:
            return int(rng.integers(video.num_frames - length + 1))
        if "motion" not in video.signals:
            raise DataError(
                f"frame_sorting plans from the motion of each video, which is not there for {video.path}. Measure it with:"
                " ssvid data index ROOT --motion. Or set task.options.motion_power=0."
            )
        weights = window_weights(video.signals["motion"], length, self.config.motion_power)
        return int(rng.choice(len(weights), p=weights))

    def cuts(
        self, height: int, width: int, plan: ClipPlan, rng: np.random.Generator, batch_rng: np.random.Generator
    ) -> Cuts:
        """frames uint8 (N, T, C, px, px), patches of one square; ``order_class`` and ``order`` as planned."""
        c = self.config
        targets = {name: torch.from_numpy(plan.targets[name]) for name in ("order_class", "order")}
        square_px = max(c.frame_px + 2 * c.jitter_px, round(c.frame_px / c.patch_share))
        box = self._box(height, width, rng)
        draw = float(rng.random())
        moves_N2 = rng.integers(2 * c.jitter_px + 1, size=(c.num_moments, 2))

        def sample(cuts_TCHW: tuple[Tensor, ...]) -> dict[str, Tensor]:
            frames_NTCHW = cuts_TCHW[0].unflatten(0, (-1, c.frames_per_moment))
            num_best = NUM_BEST if self.training else 1
            corner = moving_corner(frames_NTCHW[:, 0], c.frame_px + 2 * c.jitter_px, num_best, draw)
            return {"frames": jittered(frames_NTCHW, corner, moves_N2, c.frame_px), **targets}

        return Cuts((Cut.squares(0, [box], square_px),), sample)

    def _box(self, height: int, width: int, rng: np.random.Generator) -> Box:
        if self.training:
            return random_square(height, width, rng, self.config.crop_scale)
        return center_square(height, width)


def moving_corner(frames_NCHW: Tensor, side_px: int, num_best: int, draw: float) -> tuple[int, int]:
    """Top and left of one of the ``num_best`` squares in which the frames change most from one to the next.

    Squares lie at 8 x 8 places from border to border. Lee 2017 takes them by optical flow; differences of frames
    need none.

    Args:
        frames_NCHW: square frames in the order of time. draw: which of the best, in [0, 1).
    """
    room = frames_NCHW.shape[-1] - side_px
    if not room:
        return 0, 0
    pairs = zip(frames_NCHW[:-1], frames_NCHW[1:], strict=True)
    motion = torch.stack([window_motion(one, other, side_px, NUM_PLACES) for one, other in pairs]).sum(dim=0)
    best = int(pick_window(motion.view(1, -1), torch.tensor([draw]), num_best))
    places = torch.linspace(0, room, NUM_PLACES).round().long()
    return int(places[best // NUM_PLACES]), int(places[best % NUM_PLACES])


def jittered(frames_NTCHW: Tensor, corner: tuple[int, int], moves_N2: np.ndarray, size_px: int) -> Tensor:
    """Of the frames of each moment a square whose corner (top, left) is moved by this moment's pixels: (N, T, C, px, px)."""
    parts = []
    for moment_TCHW, (down, across) in zip(frames_NTCHW, moves_N2.tolist(), strict=True):
        top, left = corner[0] + down, corner[1] + across
        parts.append(moment_TCHW[..., top : top + size_px, left : left + size_px])
    return torch.stack(parts)


# ---- the task --------------------------------------------------------------------------------------------------------


def split_channels(frames_BNCTHW: Tensor, channel_BN: Tensor) -> Tensor:
    """One color channel of each moment, in the place of all three (Lee 2017, section 3.4)."""
    chosen = channel_BN.view(*channel_BN.shape, 1, 1, 1, 1).expand(-1, -1, -1, *frames_BNCTHW.shape[3:])
    return frames_BNCTHW.gather(2, chosen).expand_as(frames_BNCTHW)


@register_task("frame_sorting")
class FrameSorting(PretextTask):
    """Put these frames of a video in order. (OPN, Lee et al., ICCV 2017)

    Differs: moments lie at steps drawn evenly, and are cut out where frames differ most; the paper draws both by optical
    flow.
    """

    Config = FrameSortingConfig
    targets = ("order_class",)
    targets_per_view = True
    must_fall = ("static", "shuffled", "noise")
    must_hold = ("reencoded", "channel_swapped")

    orders_KN: Tensor

    def __init__(self, config: FrameSortingConfig, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        check_options("frame_sorting", config, _problems(config, backbone))
        self.stage = config.stage or None
        orders_KN = orders_of(config.num_moments, up_to_reversal=True)
        self.register_buffer("orders_KN", torch.from_numpy(orders_KN.copy()), persistent=False)
        width = backbone.stage(self.stage).channels * config.grid**2
        self.head = PairwiseHead(
            width, *orders_KN.T.shape, hidden=config.hidden, dropout=config.dropout, pair_norm=True
        )

    def chance(self) -> Mapping[str, float]:
        """All orders are equally frequent."""
        return {"accuracy": 1 / len(self.orders_KN)}

    def clip_maker(self, training: bool) -> FrameSortingClips:
        return FrameSortingClips(self.config, training)

    def augment(self, batch: dict[str, Any], rng: BatchRandom) -> dict[str, Any]:
        """Channels per moment, flips per window. ``frames`` become float (B, N, C, T, px, px)."""
        frames_BNCTHW = batch["frames"].transpose(2, 3).float().div_(255)
        device, num = frames_BNCTHW.device, self.config.num_moments
        channel_BN = torch.from_numpy(np.stack([r.integers(3, size=num) for r in rng.samples])).to(device)
        if self.config.channels == "split":
            frames_BNCTHW = split_channels(frames_BNCTHW, channel_BN)
        elif self.config.channels == "gray":
            frames_BNCTHW = frames_BNCTHW.mean(dim=2, keepdim=True).expand_as(frames_BNCTHW)
        if self.training and self.config.flip:
            frames_BNCTHW = flip_at_random(frames_BNCTHW, rng.samples)
        return {**batch, "frames": frames_BNCTHW.contiguous()}

    def forward(self, batch: dict[str, Any], backbone: Backbone) -> TaskOutput:
        frames_BNCTHW, order_BVN = batch["frames"], batch["order"]
        logits_BVK = self.head(in_orders(frames_BNCTHW, order_BVN, backbone, self.stage, self.config.grid))
        cost_BNN = pixel_costs(frames_BNCTHW[:, :, :, 0], frames_BNCTHW[:, :, :, 0])
        return order_output(logits_BVK, batch["order_class"], cost_BNN, order_BVN, self.orders_KN)

    def visualize(self, batch: Mapping[str, Any], output: TaskOutput) -> Mapping[str, np.ndarray]:
        """Up to four windows, each in one of its orders: its frames as shown, and as the network sorts them."""
        orders_KN = self.orders_KN.cpu().numpy()
        rows = []
        for b, frames_NCTHW in enumerate(batch["frames"][:4]):
            v = (5 * b + 1) % batch["order"].shape[1]
            order_N, said_N = batch["order"][b, v].cpu().numpy(), orders_KN[int(output.extras["said"][b, v])]
            rows.append(order_rows(tiles(frames_NCTHW[:, :, 0], _TILE_PX), order_N, said_N))
        return {"orders": sheet(rows)}


def _problems(config: FrameSortingConfig, backbone: BackboneInfo) -> Iterator[str]:
    for name, low in (("frames_per_moment", backbone.min_frames), ("frame_px", backbone.min_px)):
        if getattr(config, name) < low:
            yield f"{name} ({getattr(config, name)}) must be at least {low} for backbone {backbone.name}"
    if config.max_step < config.min_step:
        yield f"max_step ({config.max_step}) must be at least min_step ({config.min_step})"
