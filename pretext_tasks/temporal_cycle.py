"""Which moment of another video looks like this one, and back?

Temporal Cycle-Consistency Learning (Dwibedi, Aytar, Tompson, Sermanet, Zisserman, CVPR 2019, arXiv 1904.07846). The sources of
each number are in ``docs/tasks/temporal_cycle.md``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssvid.backbones import Backbone, BackboneInfo, pool_map
from ssvid.bounds import AtLeast, BelowOne, OneOf, Positive, Share, check_options
from ssvid.pictures import LIGHT, row, sheet, tiles, words
from ssvid.tasks import BatchRandom, PretextTask, register_task
from ssvid.transforms import Cut, CutFirst, Cuts, center_square, flip_at_random, random_square
from ssvid.types import MODALITIES, PAIRINGS, RGB_CHANNELS, ClipPlan, TaskOutput, VideoInfo

SIDES = ("a", "b")  # of a pair
LEAST_VARIANCE = 1e-6  # of the moment that a cycle comes back to, in shares of the video: a thousandth of its length
_TILE_PX, _SHOWN = 56, 10


@dataclass(frozen=True)
class TemporalCycleConfig:
    """Options of the task. A sample is two videos, of each of which ``num_steps`` moments are embedded.

    group_by: which two videos make a pair: of one "label" (a class of actions, the paper), of one "group" of the table, or
        "any" two.
    num_steps: moments of each video, drawn at random and in their order; evenly spaced in validation.
    context_frames: what is embedded of a moment: its frame, and before it others ``context_stride`` frames apart. None comes
        after it.
    frame_px: side of the square that a worker cuts out, one for all moments of a video; crop_scale: of at least this share of
        the short side. flip: mirror half of the videos. brightness: added to all moments of a video, up to so much of the whole
        range either way. contrast: the factor is drawn from 1 less so much to 1 more.
    loss: "regression" (the moment that a cycle comes back to, and how sure it is), "mse" (that moment alone), "classification"
        (the number of the moment).
    temperature: divides similarities, which are the negative squared distances per channel. variance_weight: of the logarithm
        of the variance, in "regression". label_smoothing: in "classification".
    head: "convolutions" (two of 3x3x3, maximum over T, H, W, two hidden layers, one linear layer: the paper), "linear" (one layer
        on the pooled map), "none": what is compared is the pooled map itself, which is what an evaluation sees.
    pool: how a map becomes a vector where there are no convolutions (``ssvid.backbones.pool_map``).
    embed_channels: of the head's vectors. hidden_channels: of its convolutions and hidden layers. dropout: before the latter.
    stage: backbone stage that the head sits on; "" is the last.
    """

    group_by: Annotated[str, OneOf(*PAIRINGS)] = "label"
    num_steps: Annotated[int, AtLeast(3)] = 20
    context_frames: Annotated[int, AtLeast(1)] = 2
    context_stride: Annotated[int, AtLeast(1)] = 15
    frame_px: Annotated[int, AtLeast(1)] = 224
    crop_scale: Annotated[float, Share] = 1.0
    flip: bool = True
    brightness: Annotated[float, AtLeast(0)] = 0.125
    contrast: Annotated[float, BelowOne] = 0.5
    loss: Annotated[str, OneOf("regression", "mse", "classification")] = "regression"
    temperature: Annotated[float, Positive] = 0.1
    variance_weight: Annotated[float, AtLeast(0)] = 0.001
    label_smoothing: Annotated[float, BelowOne] = 0.1
    head: Annotated[str, OneOf("convolutions", "linear", "none")] = "convolutions"
    pool: Annotated[str, OneOf("avg", "avgmax", "max1x2x2")] = "avgmax"
    embed_channels: Annotated[int, AtLeast(1)] = 128
    hidden_channels: Annotated[int, AtLeast(1)] = 512
    dropout: Annotated[float, BelowOne] = 0.1
    stage: str = ""

    @property
    def reach_frames(self) -> int:
        """How far the context of a moment reaches back."""
        return (self.context_frames - 1) * self.context_stride


# ---- sampling: pure index arithmetic ---------------------------------------------------------------------------------


def draw_moments(num_frames: int, num_steps: int, reach_frames: int, rng: np.random.Generator) -> np.ndarray:
    """Frames of ``num_steps`` moments, int64, in rising order, each set equally likely.

    All have their whole context before them: none is earlier than ``reach_frames``.
    """
    return np.sort(rng.choice(np.arange(reach_frames, num_frames), num_steps, replace=False)).astype(np.int64)


def even_moments(num_frames: int, num_steps: int, reach_frames: int) -> np.ndarray:
    """Frames of ``num_steps`` moments, int64, spread evenly from the first that has its whole context to the last."""
    return np.linspace(reach_frames, num_frames - 1, num_steps).round().astype(np.int64)


def with_context(moments_N: np.ndarray, context_frames: int, context_stride: int) -> np.ndarray:
    """Each moment's frames, the earliest first and its own last: int64 (N, context_frames)."""
    return moments_N[:, None] - context_stride * np.arange(context_frames - 1, -1, -1, dtype=np.int64)


class MomentClips(CutFirst):
    """Worker side, of one video of the pair: its moments.

    Args:
        side: "a" or "b", the end of each name in the sample.
    """

    def __init__(self, config: TemporalCycleConfig, training: bool, side: str) -> None:
        self.config, self.training, self.side = config, training, side

    @property
    def min_frames(self) -> int:
        """Frames for as many moments with their context."""
        return self.config.reach_frames + self.config.num_steps

    def plan(self, video: VideoInfo, rng: np.random.Generator, batch_rng: np.random.Generator) -> ClipPlan:
        """One view, moment by moment. Targets: ``times`` of the moments in shares of the video, and ``answers``, the moment that
        a cycle which starts at each has to come back to: its own.
        """
        c, length = self.config, video.num_frames
        if self.training:
            moments_N = draw_moments(length, c.num_steps, c.reach_frames, rng)
        else:
            moments_N = even_moments(length, c.num_steps, c.reach_frames)
        frames = with_context(moments_N, c.context_frames, c.context_stride)
        targets: dict[str, np.ndarray] = {
            f"times_{self.side}": (moments_N / length).astype(np.float32),
            f"answers_{self.side}": np.arange(c.num_steps, dtype=np.int64),
        }
        return ClipPlan((frames.flatten(),), targets)

    def cuts(
        self, height: int, width: int, plan: ClipPlan, rng: np.random.Generator, batch_rng: np.random.Generator
    ) -> Cuts:
        """frames uint8 (N, T, 3, px, px), one square for all moments; the targets as planned."""
        c = self.config
        box = random_square(height, width, rng, c.crop_scale) if self.training else center_square(height, width)
        targets = {name: torch.from_numpy(value) for name, value in plan.targets.items()}

        def sample(cuts_TCHW: tuple[Tensor, ...]) -> dict[str, Tensor]:
            return {f"frames_{self.side}": cuts_TCHW[0].unflatten(0, (-1, c.context_frames)), **targets}

        return Cuts((Cut.squares(0, [box], c.frame_px),), sample)


class PairClips(CutFirst):
    """Worker side: the moments of two videos. ``video_makers`` take a video each; asked by itself, both are of one video."""

    def __init__(self, config: TemporalCycleConfig, training: bool) -> None:
        self.video_makers = tuple(MomentClips(config, training, side) for side in SIDES)
        self.group_by = config.group_by

    @property
    def min_frames(self) -> int:
        """What either needs."""
        return self.video_makers[0].min_frames

    def plan(self, video: VideoInfo, rng: np.random.Generator, batch_rng: np.random.Generator) -> ClipPlan:
        """Two views, with their targets."""
        one, other = (maker.plan(video, rng, batch_rng) for maker in self.video_makers)
        return ClipPlan((*one.views, *other.views), {**one.targets, **other.targets})

    def cuts(
        self, height: int, width: int, plan: ClipPlan, rng: np.random.Generator, batch_rng: np.random.Generator
    ) -> Cuts:
        """The samples of both makers in one."""
        parts = []
        for number, maker in enumerate(self.video_makers):
            own = {name: value for name, value in plan.targets.items() if name.endswith(f"_{maker.side}")}
            parts.append(maker.cuts(height, width, ClipPlan((plan.views[number],), own), rng, batch_rng))
        wanted = tuple(part.wanted[0]._replace(view=number) for number, part in enumerate(parts))
        return Cuts(
            wanted,
            lambda cuts: {k: v for part, cut in zip(parts, cuts, strict=True) for k, v in part.finish((cut,)).items()},
        )


# ---- the losses ------------------------------------------------------------------------------------------------------


def similarity(one_BND: Tensor, other_BMD: Tensor, temperature: float) -> Tensor:
    """-|u_i - v_j|^2 / (D temperature) of all moments of two videos: (B, N, M). Vectors are not normalized."""
    squares_BNM = torch.cdist(one_BND, other_BMD, compute_mode="donot_use_mm_for_euclid_dist").square()
    return -squares_BNM / (one_BND.shape[-1] * temperature)


def cycle_back(start_BND: Tensor, through_BMD: Tensor, temperature: float) -> Tensor:
    """Where a cycle from each moment of a video through another video comes back to, as logits (B, N, N).

    a_ij = softmax_j sim(u_i, v_j), the soft nearest neighbor v~_i = sum_j a_ij v_j, and x_ik = sim(v~_i, u_k).
    """
    nearest_BND = similarity(start_BND, through_BMD, temperature).softmax(dim=-1) @ through_BMD
    return similarity(nearest_BND, start_BND, temperature)


def landing(logits_BNN: Tensor, times_BN: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance (B, N) of the time that each cycle comes back to: m_i = sum_k b_ik t_k, v_i = sum_k b_ik (t_k - m_i)^2,
    with b_i = softmax x_i.
    """
    back_BNN = logits_BNN.softmax(dim=-1)
    mean_BN = (back_BNN @ times_BN.unsqueeze(-1)).squeeze(-1)
    variance_BN = (back_BNN * (times_BN.unsqueeze(1) - mean_BN.unsqueeze(2)).square()).sum(dim=-1)
    return mean_BN, variance_BN


def cycle_loss(logits_BNN: Tensor, times_BN: Tensor, answers_BN: Tensor, config: TemporalCycleConfig) -> Tensor:
    """The loss of all cycles through one video, mean over moments and pairs.

    With t_i the time that a cycle has to come back to:
    regression: (t_i - m_i)^2 / v_i + w log v_i; mse: (t_i - m_i)^2; classification: cross-entropy of x_i against i.
    """
    if config.loss == "classification":
        flat_NK, wanted_N = logits_BNN.flatten(0, 1), answers_BN.flatten()
        return F.cross_entropy(flat_NK, wanted_N, label_smoothing=config.label_smoothing)
    mean_BN, variance_BN = landing(logits_BNN, times_BN)
    squares_BN = (times_BN.gather(1, answers_BN) - mean_BN).square()
    if config.loss == "mse":
        return squares_BN.mean()
    variance_BN = variance_BN + LEAST_VARIANCE
    return (squares_BN / variance_BN + config.variance_weight * variance_BN.log()).mean()


def order_kept(one_BND: Tensor, other_BMD: Tensor) -> Tensor:
    """Kendall's tau (B,) between the moments of a video and those of another one that are nearest to them; 1: the order is kept.

    tau = (C - R) / (N (N - 1) / 2), with C pairs of moments whose neighbors come in the same order, R in the reverse one. Pairs
    with one neighbor in common count for neither, so that a network to which all moments are alike has 0.
    """
    nearest_BN = torch.cdist(one_BND, other_BMD, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=-1)
    N = nearest_BN.shape[1]
    order_BNN = (nearest_BN.unsqueeze(1) - nearest_BN.unsqueeze(2)).sign()  # [i, j]: of neighbor j after neighbor i
    above_NN = torch.ones(N, N, device=order_BNN.device).triu(diagonal=1)
    return (order_BNN * above_NN).sum(dim=(1, 2)) / (N * (N - 1) / 2)


# ---- device side -----------------------------------------------------------------------------------------------------


class ConvolutionHead(nn.Module):
    """The paper's embedder: the maps of a moment's frames one after the other, two convolutions of 3x3x3, the maximum over all
    cells, two hidden layers and a linear one.
    """

    def __init__(self, channels: int, hidden: int, width: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inner in (channels, hidden):
            layers += [
                nn.Conv3d(inner, hidden, 3, padding=1, bias=False),
                nn.BatchNorm3d(hidden),
                nn.ReLU(inplace=True),
            ]
        self.convolutions = nn.Sequential(*layers)
        hiddens = [m for _ in range(2) for m in (nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU(inplace=True))]
        self.layers = nn.Sequential(*hiddens, nn.Linear(hidden, width))

    def forward(self, map_BCTHW: Tensor) -> Tensor:
        """(B, width)."""
        out: Tensor = self.layers(self.convolutions(map_BCTHW).amax(dim=(2, 3, 4)))
        return out


@register_task("temporal_cycle")
class TemporalCycle(PretextTask):
    """Which moment of another video looks like this one, and back? (TCC, Dwibedi et al., CVPR 2019)

    The placebo asks every cycle to come back to a moment of its video that is drawn at random: right once in ``num_steps`` times.

    Differs: a batch holds pairs, and cycles go both ways within each, where the authors' code takes all pairs of a batch; moments
    whose context begins before the video are not drawn, so that no repeated frame tells the beginning; the variance has a floor.
    """

    Config = TemporalCycleConfig
    targets = tuple(f"answers_{side}" for side in SIDES)
    modalities = MODALITIES
    # Where all moments look alike, or none does, no order can be kept; shuffled frames have none.
    must_fall = ("static", "shuffled", "noise")
    must_hold = ("reencoded",)
    smaller_is_better = ("*error*",)

    def __init__(self, config: TemporalCycleConfig, backbone: BackboneInfo) -> None:
        super().__init__(config, backbone)
        check_options("temporal_cycle", config, _problems(config, backbone))
        self.stage = config.stage or None
        channels = backbone.stage(self.stage).channels
        if config.head == "convolutions":
            self.head: nn.Module = ConvolutionHead(
                channels, config.hidden_channels, config.embed_channels, config.dropout
            )
        elif config.head == "linear":
            self.head = nn.Linear(pooled_width(config, backbone), config.embed_channels)
        else:
            self.head = nn.Identity()

    def chance(self) -> Mapping[str, float]:
        """Of a network to which all moments are alike: every cycle comes back to the middle."""
        return {"tau": 0.0, "cycle_accuracy": 1 / self.config.num_steps}

    def clip_maker(self, training: bool) -> PairClips:
        return PairClips(self.config, training)

    def augment(self, batch: dict[str, Any], rng: BatchRandom) -> dict[str, Any]:
        """Flips, brightness and contrast, drawn for each video of a pair. ``frames_*`` become float (B, N, C, T, px, px)."""
        changed = dict(batch)
        for side in SIDES:
            frames_BNCTHW = batch[f"frames_{side}"].transpose(2, 3).float().div_(255)
            if self.training:
                frames_BNCTHW = self._changed(frames_BNCTHW, rng.samples)
            changed[f"frames_{side}"] = frames_BNCTHW.contiguous()
        return changed

    def _changed(self, frames_BNCTHW: Tensor, draws: Sequence[np.random.Generator]) -> Tensor:
        c, device = self.config, frames_BNCTHW.device
        if c.flip:
            frames_BNCTHW = flip_at_random(frames_BNCTHW, draws)
        if not (c.brightness or c.contrast) or frames_BNCTHW.shape[2] != RGB_CHANNELS:
            return frames_BNCTHW
        drawn = [(r.uniform(-c.brightness, c.brightness), r.uniform(1 - c.contrast, 1 + c.contrast)) for r in draws]
        added_B, factor_B = torch.tensor(drawn, dtype=torch.float32, device=device).T
        means = frames_BNCTHW.mean(dim=(1, 2, 3, 4, 5), keepdim=True)
        shape = (-1, 1, 1, 1, 1, 1)
        return ((frames_BNCTHW - means) * factor_B.view(shape) + means + added_B.view(shape)).clamp_(0, 1)

    def placebo(self, batch: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        """Every cycle has to come back to a moment that is drawn at random, each moment of a video once."""
        changed = super().placebo(batch, rng)
        for name in self.targets:
            answers = np.tile(np.arange(self.config.num_steps), (len(batch[name]), 1))
            changed[name] = torch.from_numpy(rng.permuted(answers, axis=1)).to(batch[name])
        return changed

    def embed(self, frames_BNCTHW: Tensor, backbone: Backbone) -> Tensor:
        """The vector of each moment, float32 (B, N, D)."""
        map_BCTHW = backbone(frames_BNCTHW.flatten(0, 1), self.stage)
        pooled = map_BCTHW if self.config.head == "convolutions" else pool_map(map_BCTHW, self.config.pool)
        return self.head(pooled).float().unflatten(0, frames_BNCTHW.shape[:2])

    def forward(self, batch: dict[str, Any], backbone: Backbone) -> TaskOutput:
        frames = torch.cat([batch[f"frames_{side}"] for side in SIDES])
        a_BND, b_BND = self.embed(frames, backbone).chunk(2)
        with torch.autocast(frames.device.type, enabled=False):  # squares of small differences need all digits
            losses, found = [], []
            for start_BND, through_BND, side in ((a_BND, b_BND, "a"), (b_BND, a_BND, "b")):
                logits_BNN = cycle_back(start_BND, through_BND, self.config.temperature)
                times_BN, answers_BN = batch[f"times_{side}"], batch[f"answers_{side}"]
                losses.append(cycle_loss(logits_BNN, times_BN, answers_BN, self.config))
                found.append(_measured(logits_BNN.detach(), times_BN, start_BND.detach(), through_BND.detach()))
        metrics = {name: torch.stack([one[name] for one in found]).mean(dim=0) for name in found[0]}
        return TaskOutput(torch.stack(losses).mean(), metrics, extras={"a": a_BND.detach(), "b": b_BND.detach()})

    def visualize(self, batch: Mapping[str, Any], output: TaskOutput) -> Mapping[str, np.ndarray]:
        """Up to three pairs: moments of one video, below them those of the other one that are nearest to them, and last those at
        the same place in time.
        """
        lines = [
            line
            for i in range(min(3, len(batch["frames_a"])))
            for line in _pair_rows(
                batch["frames_a"][i], batch["frames_b"][i], output.extras["a"][i], output.extras["b"][i]
            )
        ]
        return {"pairs": sheet(lines)}


def _measured(logits_BNN: Tensor, times_BN: Tensor, start_BND: Tensor, through_BND: Tensor) -> dict[str, Tensor]:
    """Metrics of the cycles that start in one video, (B,) each."""
    home_N = torch.arange(logits_BNN.shape[1], device=logits_BNN.device)
    return {
        "tau": order_kept(start_BND, through_BND),
        "cycle_accuracy": (logits_BNN.argmax(dim=-1) == home_N).float().mean(dim=1),
        "cycle_error": (landing(logits_BNN, times_BN)[0] - times_BN).abs().mean(dim=1),
    }


def pooled_width(config: TemporalCycleConfig, backbone: BackboneInfo) -> int:
    """Width of the vector that a pooled map of a moment makes."""
    stage = backbone.stage(config.stage or None)
    if config.pool != "max1x2x2":
        return stage.channels * (2 if config.pool == "avgmax" else 1)
    side = -(-config.frame_px // stage.stride_space)
    blocks = max(1, side // 2)
    return int(stage.channels * -(-config.context_frames // stage.stride_time) * blocks**2)


def _problems(config: TemporalCycleConfig, backbone: BackboneInfo) -> Iterator[str]:
    """Options that do not fit the network, a sentence each."""
    for name, least, most in (
        ("context_frames", backbone.min_frames, backbone.max_frames),
        ("frame_px", backbone.min_px, None),
    ):
        value = getattr(config, name)
        if value < least:
            yield f"{name} ({value}) must be at least {least} for backbone {backbone.name}"
        if most is not None and value > most:
            yield f"{name} ({value}) must be at most {most} for backbone {backbone.name}"
    if config.head == "linear" and config.pool == "max1x2x2" and not backbone.full_maps:
        yield f"pool (max1x2x2) needs to know the cells of a map, and those of backbone {backbone.name} leave out the borders; set avgmax"


def _pair_rows(
    a_NCTHW: Tensor, b_NCTHW: Tensor, a_ND: Tensor, b_ND: Tensor
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Some moments of a video, those of the other one nearest to them, and those at the same place in time."""
    shown = np.linspace(0, len(a_ND) - 1, min(_SHOWN, len(a_ND))).round().astype(int)
    nearest = torch.cdist(a_ND, b_ND).argmin(dim=1).cpu().numpy()[shown]
    tau = float(order_kept(a_ND[None], b_ND[None]))
    told = ("one video", ""), ("nearest moment", f"tau {tau:+.2f}"), ("same time", "")
    return tuple(  # type: ignore[return-value]
        row([words([(text, LIGHT) for text in lines if text], 104, _TILE_PX), *tiles(frames[places, :, -1], _TILE_PX)])
        for lines, frames, places in zip(told, (a_NCTHW, b_NCTHW, b_NCTHW), (shown, nearest, shown), strict=True)
    )
