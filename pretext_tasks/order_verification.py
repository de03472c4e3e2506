"""Are these three moments of a video in order?

Shuffle and Learn: Unsupervised Learning using Temporal Order Verification (Misra, Zitnick, Hebert, ECCV 2016, arXiv
1603.08561). The sources of each number are in ``docs/tasks/order_verification.md``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssvid.backbones import Backbone, BackboneInfo
from ssvid.bounds import AtLeast, Inside, OneOf, Positive, Share, check_options
from ssvid.errors import DataError
from ssvid.orders import pool_to_grid
from ssvid.pictures import GRAY, LIGHT, RIGHT, WRONG, row, sheet, tiles, words
from ssvid.tasks import BatchRandom, PretextTask, register_task
from ssvid.transforms import Cut, CutFirst, Cuts, center_square, flip_at_random, random_square
from ssvid.types import MODALITIES, ClipPlan, TaskOutput, VideoInfo
from ssvid.video.sampling import window_weights

if TYPE_CHECKING:
    from torchmetrics import Metric

CORNER_SCALES = (1.0, 0.875, 0.75, 0.66)
MAX_REDRAWS = 50
_TILE_PX, _FRAME_PX = 72, 4
# Places in the window a b c d e: the ordered tuple, and the two that differ from it in the middle alone.
TUPLES = np.array([[1, 2, 3], [1, 0, 3], [1, 4, 3]], dtype=np.int64)
IS_ORDERED = np.array([1, 0, 0], dtype=np.int64)


@dataclass(frozen=True)
class OrderVerificationConfig:
    """Options of the task. A window is five moments a < b < c < d < e of one video.

    tau_max: longest distance from b to d. tau_min: shortest distance from a to b and from d to e.
    tau_unit: ``frames`` or ``seconds``; seconds mean the same in videos of different frame rates.
    least_spread: shortest distance from b to d, as a share of tau_max.
    negative_fraction: share of tuples that are not in order; 0.75 is best in the paper.
    tuples_per_window: 1, one tuple of each window drawn by negative_fraction (the paper); 3, all that a window holds,
        (b,c,d), (b,a,d) and (b,e,d), weighted by negative_fraction: costs 5 frames instead of 3 and learns from more.
    reverse: half of the windows run backward; their tuples keep their labels.
    motion_power: windows are drawn in proportion to this power of their mean optical flow: 1 is the paper, 0 draws all
        alike. lookalike_rms: a window is drawn again where frame a or e differs from c by less than this many gray levels
        (root mean square over thumbnails); 0 is off. Both need ``ssvid data index ROOT --motion`` once.
    frames_per_view: consecutive frames shown of each moment; 1 is the paper.
    frame_px: side of the square that a worker cuts out and the network sees.
    crop: ``corners``, a corner or the middle at one of four scales; ``random``, anywhere, of at least crop_scale of the
        short side; ``center``. One square for the whole window. flip: mirror half of the windows.
    grid: cells per side to which a moment's feature map is averaged before the head. hidden: width of a hidden layer in
        the head; 0 is one linear layer (the paper).
    stage: backbone stage that the head sits on; "" is the last.
    """

    tau_max: Annotated[float, Positive] = 60.0
    tau_min: Annotated[float, Positive] = 15.0
    tau_unit: Annotated[str, OneOf("frames", "seconds")] = "frames"
    least_spread: Annotated[float, Share] = 0.5
    negative_fraction: Annotated[float, Inside] = 0.75
    tuples_per_window: Annotated[int, OneOf(1, 3)] = 1
    reverse: bool = True
    motion_power: Annotated[float, AtLeast(0)] = 0.0
    lookalike_rms: Annotated[float, AtLeast(0)] = 0.0
    frames_per_view: Annotated[int, AtLeast(1)] = 1
    frame_px: Annotated[int, AtLeast(1)] = 224
    crop: Annotated[str, OneOf("corners", "random", "center")] = "corners"
    crop_scale: Annotated[float, Share] = 0.7
    flip: bool = True
    grid: Annotated[int, AtLeast(1)] = 1
    hidden: Annotated[int, AtLeast(0)] = 0
    stage: str = ""


# ---- sampling: pure index arithmetic ---------------------------------------------------------------------------------


class Reach(NamedTuple):
    """Shortest and longest distances in frames: from b to d (spread), from a to b and from d to e (gap)."""

    spread_low: int
    spread_high: int
    gap_low: int
    gap_high: int


def reach_frames(config: OrderVerificationConfig, fps: float, available: int) -> Reach:
    """The distances of the options in frames, such that the shortest window fits into ``available`` frames.

    Distances in frames are taken as they are (too short videos are left out). Distances in seconds shrink in proportion
    where the video is too short for the shortest window. Gaps reach up to tau_max too.

    Args:
        available: the largest distance from a to e that the video admits, at least 4.
    """
    unit = 1.0
    if config.tau_unit == "seconds":
        shortest = (config.least_spread * config.tau_max + 2 * config.tau_min) * fps
        unit = fps * min(1.0, available / shortest)
    spread_low = min(max(2, math.ceil(config.least_spread * config.tau_max * unit - 1e-6)), available - 2)
    gap_low = min(max(1, math.ceil(config.tau_min * unit - 1e-6)), (available - spread_low) // 2)
    longest = math.floor(config.tau_max * unit + 1e-6)
    return Reach(spread_low, max(spread_low, longest), gap_low, max(gap_low, longest))


def draw_five(reach: Reach, available: int, rng: np.random.Generator) -> np.ndarray:
    """Offsets of a, b, c, d, e from a: int64 (5,), rising; the last is at most ``available``.

    The spread is uniform within its bounds, then each gap, as far as room is left; which gap comes first is a coin's
    toss, so that neither side is favored. c is uniform strictly between b and d.
    """
    room = available - reach.spread_low - 2 * reach.gap_low
    spread = reach.spread_low + int(rng.integers(min(reach.spread_high - reach.spread_low, room) + 1))
    room -= spread - reach.spread_low
    one = reach.gap_low + int(rng.integers(min(reach.gap_high - reach.gap_low, room) + 1))
    room -= one - reach.gap_low
    other = reach.gap_low + int(rng.integers(min(reach.gap_high - reach.gap_low, room) + 1))
    before, after = (one, other) if rng.integers(2) else (other, one)
    middle = before + 1 + int(rng.integers(spread - 1))
    return np.array([0, before, middle, before + spread, before + spread + after], dtype=np.int64)


def thumbnail_rms(one: np.ndarray, other: np.ndarray) -> float:
    """Root mean square difference of two thumbnails, in gray levels."""
    return float(np.sqrt(np.square(one.astype(np.float64) - other.astype(np.float64)).mean()))


class OrderClips(CutFirst):
    """Worker side: one window of a video; which of its moments make up each tuple stands in the plan."""

    def __init__(self, config: OrderVerificationConfig, training: bool) -> None:
        self.config, self.training = config, training

    @property
    def min_frames(self) -> int:
        """The shortest window in frames. In seconds: five moments, as the distances shrink with the video."""
        c = self.config
        if c.tau_unit == "seconds":
            return 4 + c.frames_per_view
        reach = reach_frames(c, 0.0, math.ceil(2 + 2 * c.tau_max + 2 * c.tau_min))
        return reach.spread_low + 2 * reach.gap_low + c.frames_per_view

    @property
    def signals(self) -> tuple[str, ...]:
        """The per-frame measurements that the options need."""
        motion = ("motion",) if self.config.motion_power else ()
        return (*motion, "thumbnails") if self.config.lookalike_rms else motion

    def plan(self, video: VideoInfo, rng: np.random.Generator, batch_rng: np.random.Generator) -> ClipPlan:
        """One view: the moments that are needed, in time order. Validation takes all three tuples of a window.

        Targets: ``is_ordered`` (V,), 1 or 0; ``order`` (V, 3), the moments of each tuple as they are shown.
        """
        k = self.config.frames_per_view
        five = self._window(video, rng)
        shown = self._tuples(rng)
        used = np.unique(TUPLES[shown])
        order = np.searchsorted(used, TUPLES[shown]).astype(np.int64)
        frames_NT = five[used][:, None] + np.arange(k, dtype=np.int64)
        if self.config.reverse and rng.integers(2):
            frames_NT, order = frames_NT[:, ::-1], order[:, ::-1].copy()
        return ClipPlan((frames_NT.flatten(),), {"is_ordered": IS_ORDERED[shown].copy(), "order": order})

    def _tuples(self, rng: np.random.Generator) -> np.ndarray:
        if not self.training or self.config.tuples_per_window == 3:
            return np.arange(3)
        negative = rng.random() < self.config.negative_fraction
        return np.array([1 + int(rng.integers(2)) if negative else 0])

    def _window(self, video: VideoInfo, rng: np.random.Generator) -> np.ndarray:
        """First frames of the five moments. Where every draw has look-alikes, the window with the least of them."""
        threshold = self.config.lookalike_rms
        best, best_rms = self._draw(video, rng), -1.0
        if not threshold:
            return best
        thumbnails = _signal(video, "thumbnails")
        for attempt in range(MAX_REDRAWS):
            five = self._draw(video, rng) if attempt else best
            a, _, c, _, e = thumbnails[five]
            rms = min(thumbnail_rms(a, c), thumbnail_rms(e, c))
            if rms > best_rms:
                best, best_rms = five, rms
            if rms >= threshold:
                break
        return best

    def _draw(self, video: VideoInfo, rng: np.random.Generator) -> np.ndarray:
        available = video.num_frames - self.config.frames_per_view
        offsets = draw_five(reach_frames(self.config, video.fps, available), available, rng)
        if not self.config.motion_power:
            return offsets + int(rng.integers(available - offsets[-1] + 1))
        length = int(offsets[-1]) + self.config.frames_per_view
        weights = window_weights(_signal(video, "motion"), length, self.config.motion_power)
        return offsets + int(rng.choice(len(weights), p=weights))

    def cuts(
        self, height: int, width: int, plan: ClipPlan, rng: np.random.Generator, batch_rng: np.random.Generator
    ) -> Cuts:
        """frames uint8 (N, T, 3, px, px), one square for all; ``is_ordered`` and ``order`` as planned."""
        targets = {name: torch.from_numpy(plan.targets[name]) for name in ("is_ordered", "order")}

        def sample(cuts_TCHW: tuple[Tensor, ...]) -> dict[str, Tensor]:
            return {"frames": cuts_TCHW[0].unflatten(0, (-1, self.config.frames_per_view)), **targets}

        return Cuts((Cut.squares(0, [self._box(height, width, rng)], self.config.frame_px),), sample)

    def _box(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int]:
        if not self.training or self.config.crop == "center":
            return center_square(height, width)
        if self.config.crop == "random":
            return random_square(height, width, rng, self.config.crop_scale)
        return corner_square(height, width, rng)


def corner_square(height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int]:
    """A square in a corner or in the middle, at one of four scales of the short side: (top, left, side).

    The multi-scale crop of the authors' data layer. Differs: always a square.
    """
    side = max(1, round(min(height, width) * CORNER_SCALES[int(rng.integers(len(CORNER_SCALES)))]))
    down, right = height - side, width - side
    places = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)]
    top, left = places[int(rng.integers(len(places)))]
    return top, left, side


def _signal(video: VideoInfo, name: str) -> np.ndarray:
    if name not in video.signals:
        raise DataError(
            f"order_verification plans from the {name} of each video, which is not there for {video.path}. Measure it"
            " with: ssvid data index ROOT --motion. Or set task.options.motion_power=0 task.options.lookalike_rms=0."
        )
    return video.signals[name]


# ---- the loss and its head -------------------------------------------------------------------------------------------


def gather_tuples(features_BND: Tensor, order_BV3: Tensor) -> Tensor:
    """The features of each tuple's moments side by side, in the order shown: (B, V, 3 D)."""
    B, V, _ = order_BV3.shape
    places = order_BV3.reshape(B, V * 3, 1).expand(-1, -1, features_BND.shape[-1])
    return features_BND.gather(1, places).reshape(B, V, -1)


def tuple_weights(is_ordered_BV: Tensor, negative_fraction: float) -> Tensor:
    """What each tuple counts: 1 where a window gives one; else shares, so that classes weigh as if drawn by fraction."""
    ordered = is_ordered_BV.float()
    if is_ordered_BV.shape[1] == 1:
        return torch.ones_like(ordered)
    return ordered * (1 - negative_fraction) + (1 - ordered) * negative_fraction / 2


def order_loss(logits_BV: Tensor, is_ordered_BV: Tensor, weights_BV: Tensor) -> Tensor:
    """Binary cross-entropy, summed over the tuples of a window with their weights, mean over windows; in float32.

    L = -mean_b sum_v w [y log s(z) + (1 - y) log(1 - s(z))]; with one tuple a window, the paper's softmax over two
    classes (which is the logistic function of the difference of their scores).
    """
    losses = F.binary_cross_entropy_with_logits(logits_BV.float(), is_ordered_BV.float(), reduction="none")
    return (losses * weights_BV).sum(dim=1).mean()


@register_task("order_verification")
class OrderVerification(PretextTask):
    """Are these three moments of a video in order? (Shuffle and Learn, Misra et al., ECCV 2016)

    Differs: one logit instead of two, which is the same function; the distance from b to d is at least half of tau_max,
    and gaps are at most tau_max, where the paper gives one bound each; squares instead of near-squares are cut out.
    """

    Config = OrderVerificationConfig
    targets = ("is_ordered",)
    targets_per_view = True
    num_classes = 2  # taken from other videos, they would be right more often than not: most tuples are not in order
    modalities = MODALITIES
    must_fall = ("static", "shuffled", "noise")
    must_hold = ("reencoded",)

    def __init__(self, config: OrderVerificationConfig, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        check_config(config, backbone)
        self.stage = config.stage or None
        width = 3 * backbone.stage(self.stage).channels * config.grid**2
        if config.hidden:
            self.head: nn.Module = nn.Sequential(
                nn.Linear(width, config.hidden), nn.ReLU(), nn.Linear(config.hidden, 1)
            )
        else:
            self.head = nn.Linear(width, 1)

    def chance(self) -> Mapping[str, float]:
        """A blind guess calls every tuple what most are."""
        most = max(self.config.negative_fraction, 1 - self.config.negative_fraction)
        return {"balanced_accuracy": 0.5, "accuracy": most, "auc": 0.5}

    def clip_maker(self, training: bool) -> OrderClips:
        return OrderClips(self.config, training)

    def augment(self, batch: dict[str, Any], rng: BatchRandom) -> dict[str, Any]:
        """Flips per window. ``frames`` become float (B, N, C, T, px, px)."""
        frames_BNCTHW = batch["frames"].transpose(2, 3).float().div_(255)
        if self.training and self.config.flip:
            frames_BNCTHW = flip_at_random(frames_BNCTHW, rng.samples)
        return {**batch, "frames": frames_BNCTHW.contiguous()}

    def forward(self, batch: dict[str, Any], backbone: Backbone) -> TaskOutput:
        frames_BNCTHW, is_ordered_BV = batch["frames"], batch["is_ordered"]
        map_BCTHW = backbone(frames_BNCTHW.flatten(0, 1), self.stage)
        features_BND = pool_to_grid(map_BCTHW, self.config.grid).unflatten(0, frames_BNCTHW.shape[:2])
        logits_BV = self.head(gather_tuples(features_BND, batch["order"])).squeeze(-1).float()
        weights_BV = tuple_weights(is_ordered_BV, self.config.negative_fraction)
        return TaskOutput(
            loss=order_loss(logits_BV, is_ordered_BV, weights_BV),
            metrics=self._metrics(logits_BV.detach(), is_ordered_BV, weights_BV),
            scores={"auc": (logits_BV.detach().flatten(), is_ordered_BV.flatten())},
            extras={"ordered_prob": logits_BV.detach().sigmoid()},
        )

    def _metrics(self, logits_BV: Tensor, is_ordered_BV: Tensor, weights_BV: Tensor) -> dict[str, Tensor]:
        """Accuracy at the frequencies of the classes; where a window gives both, also the mean over the classes.

        Each at the threshold that suits it: accuracy at probability 1/2, balanced accuracy at the share of ordered
        tuples, or a network that knows something, but is never more than half sure of an order, would count as blind.
        """
        ordered = is_ordered_BV > 0
        metrics = {"accuracy": (((logits_BV > 0) == ordered).float() * weights_BV).sum(dim=1)}
        if ordered.shape[1] > 1:
            right = ((logits_BV > self.threshold) == ordered).float()
            metrics["balanced_accuracy"] = (right * torch.where(ordered, 0.5, 0.25)).sum(dim=1)
        return metrics

    @property
    def threshold(self) -> float:
        """The logit of the share of ordered tuples."""
        return math.log((1 - self.config.negative_fraction) / self.config.negative_fraction)

    def epoch_metrics(self) -> Mapping[str, Metric]:
        from torchmetrics.classification import BinaryAUROC  # here: importing it takes seconds

        return {"auc": BinaryAUROC()}

    def visualize(self, batch: Mapping[str, Any], output: TaskOutput) -> Mapping[str, np.ndarray]:
        """Up to four windows: a row for each tuple, its frames as shown, the truth, and the verdict in green or red."""
        frames_BNCTHW = batch["frames"][:4]
        truth_BV, order_BV3 = batch["is_ordered"][:4].cpu().numpy(), batch["order"][:4]
        prob_BV = output.extras["ordered_prob"][:4].float().cpu().numpy()
        limit = 1 / (1 + math.exp(-self.threshold))
        rows = [
            _tuple_row(frames_BNCTHW[b, order_BV3[b, v]], bool(truth_BV[b, v]), float(prob_BV[b, v]), limit)
            for b in range(len(truth_BV))
            for v in range(truth_BV.shape[1])
        ]
        return {"tuples": sheet(rows)}


def check_config(config: OrderVerificationConfig, backbone: BackboneInfo) -> None:
    """Refuse options that cannot work, all problems at once.

    Raises:
        OptionError: names each option, its value, the rule and a way out.
    """
    least = {"frames_per_view": backbone.min_frames, "frame_px": backbone.min_px}
    problems = [
        f"{name} ({getattr(config, name)}) must be at least {low} for backbone {backbone.name}"
        for name, low in least.items()
        if getattr(config, name) < low
    ]
    check_options("order_verification", config, problems)


def _tuple_row(frames_3CTHW: Tensor, truth: bool, prob: float, limit: float) -> np.ndarray:
    """The frames of a tuple in the order shown, framed green where the verdict is right; words at the left."""
    color = RIGHT if (prob > limit) == truth else WRONG
    frames = tiles(frames_3CTHW[:, :, 0], _TILE_PX - 2 * _FRAME_PX)
    strip = row(np.pad(frame, ((_FRAME_PX, _FRAME_PX), (_FRAME_PX, _FRAME_PX), (0, 0))) for frame in frames)
    strip[:2], strip[-2:] = color, color
    truth_word, verdict = ("in order" if is_ordered else "not" for is_ordered in (truth, prob > limit))
    told = [(f"truth: {truth_word}", LIGHT), (f"says:  {verdict}", color), (f"p(order) {prob:.2f}", GRAY)]
    return row([words(told, 112, _TILE_PX), strip])
